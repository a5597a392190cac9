"""What signals do, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import pytest

LINE = "left at once; continue with: sweeper start a.yaml"
HEAD = """
from contextlib import suppress
from signal import SIGINT, SIGTERM, raise_signal
from sweeper.interrupt import stop_as_interrupt, undisturbed
"""
PUTTING_AWAY = f"""
with stop_as_interrupt(second_leaves={LINE!r}):
    with suppress(KeyboardInterrupt):
        raise_signal(SIGINT)
    raise_signal(SIGTERM)
    print("still here", flush=True)
"""
UNDISTURBED = f"""
with stop_as_interrupt(second_leaves={LINE!r}), undisturbed():
    raise_signal(SIGINT)
    print("the stretch goes on", flush=True)
    raise_signal(SIGINT)
    print("still here", flush=True)
"""
TWICE_ALIKE = """
with stop_as_interrupt():
    for number in (SIGINT, SIGTERM):
        with suppress(KeyboardInterrupt):
            raise_signal(number)
    print("still here", flush=True)
"""


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        (PUTTING_AWAY, 130, f"{LINE}\n"),
        (UNDISTURBED, 130, f"the stretch goes on\n{LINE}\n"),
        (TWICE_ALIKE, 0, "still here\n"),
    ],
)
def test_a_second_signal_leaves_at_once_and_says_how_to_go_on(code: str, exit_code: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", HEAD + code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (exit_code, said, "")


def test_a_pipe_that_nobody_reads_holds_nothing_up() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4096)
    os.set_blocking(writer, True)
    try:
        done = subprocess.run([sys.executable, "-c", HEAD + PUTTING_AWAY], stdout=writer, timeout=60, check=False)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 130
