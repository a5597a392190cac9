"""What stands for a rank of a trial: processes that find this in place of `trials.parallel`, and need no torch."""

from __future__ import annotations

import sys
from pathlib import Path

BEHAVIOUR = {
    "waits": "parent.send('ready'); parent.recv_bytes()",
    "finishes": "parent.send('ready'); parent.send('done')",
    "dies": "sys.exit('no such GPU')",
    "is_killed": "parent.send('ready'); os.kill(os.getpid(), signal.SIGKILL)",
}

MODULE = """
import os, signal, sys

def follow(parent):
    parent.recv_bytes()  # the job
    print(os.getpid(), file=open({pid!r}, "w"), flush=True)
    try:
        {behaviour}
    except EOFError:
        pass
"""


def paths(folder: Path, behaviour: str) -> list[str]:
    """Where a process is to look for its modules so that it behaves like that; its id is left in ``folder / "pid"``."""
    package = folder / "trials"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "parallel.py").write_text(MODULE.format(pid=str(folder / "pid"), behaviour=BEHAVIOUR[behaviour]))
    return [str(folder), *sys.path]
