"""Peak memory and time of the mean of N files of weights, and of their greedy soup, beside reading the files once.

    .venv/bin/python -m benchmarks.averaging

The files are of about 100 MB, four fifths of it in one tensor. Each run is a fresh process; its peak memory is the high
water mark of what it holds (VmHWM), counted from after its imports, minus that of a process that does nothing then.
Time is counted from there too. To read the files once is to read them into one buffer, a mebibyte at a time. *Cold*
means that the system was told to forget the pages of the files just before (what lies below it, a disk's or a host's
own cache, may still know them), *warm* that they had all just been read. The mean is written to the disk and synced;
the greedy soup takes every ingredient, the case in which it reads and writes most, and its `worth` takes no time. A
ratio compares neighbours: what a run took to what reading took in the same round; the median over the rounds is what
counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from benchmarks.results import ROOT, machine, table, write_section
from trials.average.soup import greedy_soup, mean_of_files

COUNTS = (2, 8, 32)
BUFFER_BYTES = 2**20


def nothing(paths: Sequence[Path], folder: Path) -> None:
    """What all others are compared with in memory."""


def read_once(paths: Sequence[Path], folder: Path) -> None:  # noqa: ARG001
    """Read the files; what all others are compared with in time."""
    buffer = bytearray(BUFFER_BYTES)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def mean(paths: Sequence[Path], folder: Path) -> None:
    """The uniform soup."""
    mean_of_files(paths, folder / "mean.safetensors")


def greedy(paths: Sequence[Path], folder: Path) -> None:
    """The greedy soup, none of whose candidates is worse."""
    chosen, _ = greedy_soup(paths, lambda _: 1.0, "validation.accuracy", folder)
    assert len(chosen) == len(paths)


WORK: dict[str, Callable[[Sequence[Path], Path], None]] = {
    work.__name__: work for work in (nothing, read_once, mean, greedy)
}


@dataclass(frozen=True)
class Run:
    """What one process took."""

    seconds: float
    peak_bytes: int


def work_here(name: str, paths: Sequence[Path], folder: Path) -> Run:
    """Do it, in this process, and measure."""
    Path("/proc/self/clear_refs").write_text("5")  # the high water mark is what is held now
    start = time.perf_counter()
    WORK[name](paths, folder)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    return Run(seconds, int(status.split("VmHWM:")[1].split()[0]) * 1024)


def work_apart(name: str, paths: Sequence[Path], is_warm: bool) -> Run:
    """Do it in a fresh process, with the files in the system's cache or not."""
    read_once(paths, Path())
    if not is_warm:
        for path in paths:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with tempfile.TemporaryDirectory(dir=paths[0].parent) as folder:
        command = [sys.executable, "-m", "benchmarks.averaging", "--work", name, folder, *map(str, paths)]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return Run(**json.loads(said))


def write_ingredients(folder: Path, count: int, megabytes: int) -> list[Path]:
    """Files of weights, written down to the disk: what is not cannot be forgotten."""
    generator, numbers = torch.Generator().manual_seed(0), megabytes * 250_000
    paths = [folder / f"{number}.safetensors" for number in range(count)]
    for path in paths:
        weights = {"embedding": torch.randn(numbers * 4 // 5 // 256, 256, generator=generator)}
        for layer in range(50):
            weights[f"layers.{layer}"] = torch.randn(numbers // 5 // 50, generator=generator)
        safetensors.torch.save_file({**weights, "batches": torch.tensor(1)}, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return paths


def compare(paths: Sequence[Path], rounds: int) -> list[tuple[str, ...]]:
    """A row for each number of files, cold and warm."""
    model_bytes, rows = paths[0].stat().st_size, list[tuple[str, ...]]()
    idle_bytes = statistics.median(work_apart("nothing", paths[:1], is_warm=True).peak_bytes for _ in range(rounds))
    for count in COUNTS:
        for is_warm in (False, True):
            runs: dict[str, list[Run]] = {"read_once": [], "mean": [], "greedy": []}
            for _ in range(rounds):
                for name, done in runs.items():
                    done.append(work_apart(name, paths[:count], is_warm))
            rows.append(_row(count, is_warm, runs, idle_bytes, model_bytes))
            print(*rows[-1], f"load {os.getloadavg()[0]:.1f}", flush=True)
    return rows


def _row(count: int, is_warm: bool, runs: dict[str, list[Run]], idle_bytes: float, model_bytes: int) -> tuple[str, ...]:
    reading = runs.pop("read_once")
    cells = [f"{count}, {'warm' if is_warm else 'cold'}", f"{statistics.median(run.seconds for run in reading):.2f}"]
    for done in runs.values():
        ratios = [run.seconds / read.seconds for run, read in zip(done, reading, strict=True)]
        memory = max(run.peak_bytes for run in done) - idle_bytes
        cells += [
            f"{statistics.median(run.seconds for run in done):.2f}",
            f"{statistics.median(ratios):.1f}",
            f"{memory / model_bytes:.2f}",
        ]
    return tuple(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=100, help="of one model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs="+", metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        name, folder, *paths = arguments.work
        print(json.dumps(vars(work_here(name, [Path(path) for path in paths], Path(folder)))))
        return
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = compare(write_ingredients(folder, max(COUNTS), arguments.megabytes), arguments.rounds)
    header: tuple[str, ...] = ("files", "reading once, s")
    for name in ("mean", "greedy soup"):
        header += (f"{name}, s", "times reading", "memory, models")
    body = (
        f"Files of {arguments.megabytes} MB, {arguments.rounds} rounds, medians (of memory, the most). The mean is "
        "synced to the disk; the greedy soup takes every ingredient, and its `worth` takes no time. Cold: the system's "
        f"cache forgot the files just before.\n\n{table(header, rows)}\n"
        "Memory: peak of a process minus that of one that does nothing (wanted: below 1.5 models)."
    )
    command = " ".join([".venv/bin/python -m benchmarks.averaging", *sys.argv[1:]])
    print(body)
    write_section("Averaging", command, machine(("torch", "safetensors")), body)


if __name__ == "__main__":
    main()
