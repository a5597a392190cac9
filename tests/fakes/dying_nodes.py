"""Training on several nodes of which one after the other loses what trains there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import ray

from trials import run_trial
from trials.nodes import Nodes
from trials.recipe import Recipe
from trials.result import EpochReport, TrialResult


def lose_all_once(
    recipe: Recipe,
    folder: Path,
    report: Callable[[EpochReport], bool],
    *,
    stop: Callable[[], bool],
    nodes: Nodes,
) -> TrialResult:
    """After the first epoch the rank on the other node is killed, after the second its launcher, after the third this.

    Once each; in ``folder / "places"`` is a line for each start: the host, and how many processes there are.
    """
    launcher = nodes.others[0].launcher  # type: ignore[attr-defined]
    # A function without a name: its node does not know this module.
    pid, node = ray.get(launcher.__ray_call__.remote(lambda _: (os.getpid(), ray.get_runtime_context().get_node_id())))
    here = ray.get_runtime_context().get_node_id()

    def kill(told: EpochReport) -> bool:
        answer = report(told)
        marker = folder / f"killed-{told.epoch}"
        if told.epoch <= 3 and not marker.exists():
            marker.touch()
            victims = [psutil.Process(pid).children()[0].pid, pid, os.getpid()]
            os.kill(victims[told.epoch - 1], signal.SIGKILL)
        return answer

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "places").open("a") as places:
        print(nodes.processes, here != node, file=places)
    return run_trial(recipe, folder, kill, "cpu", stop, nodes)
