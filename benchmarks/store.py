"""What it costs to keep a trial's checkpoints in a store: beside writing them to the disk here, which is done anyway.

    .venv/bin/python -m benchmarks.store

A checkpoint of about 10 MB (weights, their average, momentum) is written as a trial writes it, then pushed: to a folder
on the same disk (``file://``), and to an S3 on the loopback (moto, in a process of its own, which is slower than the
real one and without its network). Each round does all, one after another; medians over the rounds.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.results import machine, table, write_section
from sweeper.store.mirror import Mirror
from sweeper.store.store import Store
from trials.checkpoint import Checkpoint, TrialFolder

ROUNDS = 15
NUMBERS = 10_000_000 // 4 // 3
"""In one of the three tensors, so that all are 10 MB."""


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """The address of an empty bucket in an S3 of our own, which this process finds by its environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    serve = "import sys; from moto.server import main; main(sys.argv[1:])"
    server = subprocess.Popen(
        [sys.executable, "-c", serve, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ["AWS_ENDPOINT_URL"] = url
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT"), timeout=10).close()
                break
            time.sleep(0.1)
        yield "s3://bucket/benchmark"
    finally:
        server.terminate()
        server.wait()


def checkpoint(epoch: int, generator: torch.Generator) -> Checkpoint:
    """About 10 MB, of which no bytes are those of another epoch."""
    raw, ema, momentum = (torch.randn(NUMBERS, generator=generator) for _ in range(3))
    return Checkpoint(epoch, {"raw": {"w": raw}, "ema": {"w": ema}}, {"momentum": momentum})


def seconds(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measure(folder: Path, addresses: dict[str, str]) -> dict[str, list[float]]:
    """Seconds of each round: to save, and to push to each of the addresses."""
    where, generator = TrialFolder(folder / "trial"), torch.Generator().manual_seed(0)
    mirrors = {name: Mirror(Store(address), "trials/0000", where.root) for name, address in addresses.items()}
    for mirror in mirrors.values():
        mirror.take()
    taken: dict[str, list[float]] = {"written to the disk": [], **{name: [] for name in mirrors}}
    for epoch in range(1, ROUNDS + 3):
        state = checkpoint(epoch, generator)
        taken["written to the disk"].append(seconds(lambda state=state: where.save(state, [])))  # type: ignore[misc]
        for name, mirror in mirrors.items():
            taken[name].append(seconds(lambda mirror=mirror, epoch=epoch: mirror.push(epoch)))  # type: ignore[misc]
    # The first two make connections, and have nothing to remove yet.
    return {name: times[2:] for name, times in taken.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, s3() as bucket:
        folder = Path(temporary)
        taken = measure(folder, {"pushed to file://": f"file://{folder}/store", "pushed to s3:// (moto)": bucket})
        size_bytes = sum(path.stat().st_size for path in (folder / "trial").rglob("*") if path.is_file()) / 2
    medians = {name: statistics.median(times) for name, times in taken.items()}
    base = medians["written to the disk"]
    rows = [(name, f"{median:.3f}", f"{median / base:.2f}") for name, median in medians.items()]
    body = f"A checkpoint of {size_bytes / 1e6:.1f} MB, {ROUNDS} rounds, medians:\n\n" + table(
        ("a checkpoint", "seconds", "of writing it"), rows
    )
    print(body)
    write_section(
        "Checkpoints in a store",
        ".venv/bin/python -m benchmarks.store",
        machine(("torch", "fsspec", "s3fs", "moto")),
        body,
    )


if __name__ == "__main__":
    main()
