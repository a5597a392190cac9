"""How many trials fit side by side: on this machine, or on the nodes of a cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sweeper.errors import WorkersError
from sweeper.study_file import Workers as WorkersSection


def slots(
    section: WorkersSection, nodes: Sequence[tuple[float, float]], least: int | None = None
) -> tuple[float, float, int]:
    """CPUs and GPUs of each slot on each of its nodes, and how many have a place: as asked for, or as many as fit.

    Args:
        section: `workers` of study.yaml.
        nodes: CPUs and GPUs of each node. A slot has `workers.nodes` different ones; no share of a GPU spans two GPUs.
        least: how many must have a place; as many as are asked for where it is left out.

    Raises:
        WorkersError: fewer have.
    """
    cpus, gpus = (sum(amounts) for amounts in zip(*nodes, strict=True)) if nodes else (0.0, 0.0)
    gpus_each = section.gpus if section.gpus is not None else (1.0 if gpus >= 1 else 0.0)
    fitting = spread([slots_on(*node, section.cpus, gpus_each) for node in nodes], section.nodes)
    asked = section.concurrent or 1
    if fitting < (asked if least is None else least):
        spanning, found = (f" on {section.nodes} nodes", f" on {len(nodes)}") if section.nodes > 1 else ("", "")
        raise WorkersError(
            f"workers: {asked} concurrent with {section.cpus:g} CPUs and {gpus_each:g} GPUs each{spanning} do not fit: "
            f"Ray has {cpus:g} CPUs and {gpus:g} GPUs{found}, enough for {fitting}; lower workers.concurrent, "
            f"{'nodes, ' if spanning else ''}cpus or gpus"
        )
    return section.cpus, gpus_each, min(fitting, section.concurrent or fitting)


def spread(places: Sequence[int], nodes: int) -> int:
    """How many slots have room where each takes a place on each of ``nodes`` nodes, and these have so many ``places``.

    >>> spread([2, 1, 1], 2), spread([5, 1], 2), spread([3, 2], 1)
    (2, 1, 5)
    """
    count = sum(places) // nodes
    # No slot takes two places of a node, so one with more places than there are slots has no use for all.
    while count and sum(min(count, each) for each in places) < count * nodes:
        count -= 1
    return count


def slots_on(cpus: float, gpus: float, cpus_each: float, gpus_each: float) -> int:
    by_cpus = int(cpus / cpus_each + 1e-9)
    if gpus_each == 0:
        return by_cpus
    by_gpus = int(gpus // gpus_each) if gpus_each >= 1 else int(gpus) * int(1 / gpus_each + 1e-9)
    return min(by_cpus, by_gpus)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
