"""Keeps RESULTS.md: one section a script, replaced in place, each saying when, where and by which command."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def machine(packages: tuple[str, ...], device: str = "") -> str:
    """Processor, cores, memory, load, device and the versions of ``packages``, in one line."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts = [
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory_bytes / 2**30:.0f} GiB",
        device,
        f"load {os.getloadavg()[0]:.1f} when written",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in packages),
    ]
    return "; ".join(fact for fact in facts if fact)


def commit() -> str:
    """The commit of this checkout, with a plus sign when files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def write_section(title: str, command: str, where: str, body: str) -> None:
    """Replace the section ``title`` of RESULTS.md, or append it."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    section = f"## {title}\n\n{today}, commit {commit()}, `{command}`\n{where}\n\n{body.strip()}\n"
    before = RESULTS.read_text() if RESULTS.exists() else "# Results\n\nWritten by the scripts beside this file.\n"
    sections = re.split(r"(?m)^(?=## )", before)
    kept = [text.rstrip() + "\n" for text in sections if not text.startswith(f"## {title}\n")]
    RESULTS.write_text("\n".join([*kept, section]))


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; all columns but the first are numbers and stand on the right."""
    lines = [header, ("---", *["---:"] * (len(header) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _processor() -> str:
    try:
        found = re.search(r"(?m)^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()
