"""How many trials fit side by side: on this machine, or on the nodes of a cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sweeper.errors import WorkersError
from sweeper.study_file import Workers as WorkersSection


def slots(section: WorkersSection, nodes: Sequence[tuple[float, float]]) -> tuple[float, float, int]:
    """CPUs and GPUs of each slot, and how many slots: as asked for, or as many as fit.

    Args:
        section: `workers` of study.yaml.
        nodes: CPUs and GPUs of each node. A slot never spans two nodes, nor a share of a GPU two GPUs.
    """
    cpus, gpus = (sum(amounts) for amounts in zip(*nodes, strict=True)) if nodes else (0.0, 0.0)
    gpus_each = section.gpus if section.gpus is not None else (1.0 if gpus >= 1 else 0.0)
    fitting = sum(slots_on(*node, section.cpus, gpus_each) for node in nodes)
    count = section.concurrent if section.concurrent is not None else max(1, fitting)
    if count > fitting:
        raise WorkersError(
            f"workers: {count} concurrent with {section.cpus:g} CPUs and {gpus_each:g} GPUs each do not fit: "
            f"Ray has {cpus:g} CPUs and {gpus:g} GPUs, enough for {fitting}; lower workers.concurrent, cpus or gpus"
        )
    return section.cpus, gpus_each, count


def slots_on(cpus: float, gpus: float, cpus_each: float, gpus_each: float) -> int:
    by_cpus = int(cpus / cpus_each + 1e-9)
    if gpus_each == 0:
        return by_cpus
    by_gpus = int(gpus // gpus_each) if gpus_each >= 1 else int(gpus) * int(1 / gpus_each + 1e-9)
    return min(by_cpus, by_gpus)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
