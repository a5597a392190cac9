"""What it costs to begin a trial over two nodes: sweeper beside Ray Train's TorchTrainer, neither of which trains.

    .venv/bin/python -m benchmarks.multi_node

A Ray cluster of two nodes on this machine, a process on each, gloo. The time runs from the call that begins a trial to
the moment when rank 0 is in the process group of both: the first time, and the median of those that follow in the same
program. Ours loads the digits in both processes on the way, as each trial does; TorchTrainer loads nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import ROOT, machine, table, write_section
from trials.nodes import Nodes
from trials.recipe import Recipe
from trials.result import TrialResult

NODES = 2
EXAMPLES = 1000
MOST_SECONDS = 300.0


def meet(recipe: Recipe, folder: Path, _report: Any, *, stop: Any, nodes: Nodes) -> TrialResult:  # noqa: ARG001
    """Note when the ranks are together, in place of training."""
    import torch

    from trials.parallel import all_ranks

    with all_ranks(recipe, folder, EXAMPLES, torch.device("cpu"), nodes):
        (folder / "met").write_text(repr(time.time()))
    return TrialResult(epochs=1, weights=(), parameters=0, seconds=0.0, device="cpu", peak_memory_bytes=0)


def by_sweeper(address: str, folder: Path) -> float:
    """A trial on a slot of two nodes, which the first one waits for."""
    from sweeper.dispatch import RayWorkers
    from sweeper.runner import Completed, Job
    from sweeper.study_file import Workers

    global _workers
    folder.mkdir()
    recipe = Recipe.model_validate({"data": {"source": "digits"}, "model": {"build": "linear"}})
    began = time.time()
    _workers = _workers or RayWorkers(Workers(nodes=NODES, concurrent=1), address, "benchmarks.multi_node:meet")
    _workers.submit(Job(0, recipe.model_dump_json(), str(folder), (str(ROOT),)))
    event = _workers.wait(MOST_SECONDS)
    if not isinstance(event, Completed):
        sys.exit(f"no trial: {event}")
    return float((folder / "met").read_text()) - began


_workers: Any = None
"""Stays from trial to trial, as in a study."""


def by_ray_train(address: str, folder: Path) -> float:
    """One `fit` of a TorchTrainer."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    folder.mkdir()
    began = time.time()
    ray.init(address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    trainer = TorchTrainer(
        _loop_of_ray_train,
        train_loop_config={"met": str(folder / "met")},
        scaling_config=ScalingConfig(
            num_workers=NODES, resources_per_worker={"CPU": 1}, placement_strategy="STRICT_SPREAD"
        ),
        run_config=RunConfig(storage_path=str(folder / "storage")),
    )
    trainer.fit()
    return float((folder / "met").read_text()) - began


def _loop_of_ray_train(config: dict[str, Any]) -> None:
    import torch.distributed as dist

    if dist.get_rank() == 0:
        Path(config["met"]).write_text(repr(time.time()))


CONTESTANTS: dict[str, Callable[[str, Path], float]] = {"sweeper": by_sweeper, "Ray Train, TorchTrainer": by_ray_train}


def begin(name: str, address: str, times: int) -> list[float]:
    """Seconds of each of ``times`` beginnings in one fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.multi_node", "--contestant", name, "--address", address]
        done = subprocess.run(
            [*command, "--times", str(times), "--folder", folder],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    said = [line.removeprefix("seconds ") for line in done.stdout.splitlines() if line.startswith("seconds ")]
    if done.returncode or len(said) != times:
        sys.exit(f"{name}: {len(said)} of {times} began, exit code {done.returncode}\n{done.stderr[-3000:]}")
    return [float(seconds) for seconds in said]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--times", type=int, default=4, help="beginnings of each, the first of which is told apart")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each, in turns")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        for index in range(arguments.times):
            seconds = CONTESTANTS[arguments.contestant](arguments.address, arguments.folder / str(index))
            print("seconds", seconds, flush=True)
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = str(ROOT)
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 200 << 20}
    cluster: Any = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    first: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    later: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    try:
        cluster.add_node(**node)
        for _ in range(arguments.rounds):
            for name in CONTESTANTS:
                cold, *warm = begin(name, cluster.address, arguments.times)
                first[name].append(cold)
                later[name] += warm
    finally:
        cluster.shutdown()
    medians = {name: (statistics.median(first[name]), statistics.median(later[name])) for name in CONTESTANTS}
    rows = [(name, f"{cold:.1f}", f"{warm:.1f}") for name, (cold, warm) in medians.items()]
    ratios = [theirs / ours for ours, theirs in zip(*medians.values(), strict=True)]
    write_section(
        "A trial over two nodes",
        f".venv/bin/python -m benchmarks.multi_node --rounds {arguments.rounds} --times {arguments.times}",
        machine(("ray", "torch")),
        table(("begun by", "the first, s", "each that follows, s"), rows)
        + f"\nTorchTrainer takes {ratios[0]:.1f} times as long as sweeper at first, {ratios[1]:.1f} times afterwards "
        "(medians).",
    )
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
