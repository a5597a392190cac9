"""A real Ray of several nodes on this machine, whose processes are gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

OBJECT_STORE_BYTES = 100 << 20
SILENCE_MS = 800
"""How far apart the head asks a node for a sign of life: after five in vain, 4 s and not 15, it counts as dead."""


@contextmanager
def ray_nodes(head_cpus: int) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` of a head alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        cluster: Any = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": head_cpus,
                "object_store_memory": OBJECT_STORE_BYTES,
                "include_dashboard": False,
                "dashboard_port": 0,  # any that is free: Ray complains of one that is taken, dashboard or not
                "_system_config": {"health_check_period_ms": SILENCE_MS},
            },
        )
        try:
            yield cluster
        finally:
            cluster.shutdown()


def add_node(cluster: Any, cpus: int = 1) -> Any:
    """One more node."""
    return cluster.add_node(num_cpus=cpus, object_store_memory=OBJECT_STORE_BYTES)
