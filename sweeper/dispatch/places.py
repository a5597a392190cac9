"""How many slots a Ray has places for, as its nodes come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sweeper.slots import slots
from sweeper.study_file import Workers as WorkersSection

LOOK_SECONDS = 2.0
"""How far apart looks at the nodes are. One takes a millisecond, on a cluster that answers."""
NODE_GROUP = "ray.io/node-group"
"""The label of a node that an autoscaler or KubeRay has started."""


class Places:
    """How many slots have a place now.

    With `workers.concurrent` it is that many at most. Whatever GPUs a slot has is decided once, at the start.

    Args:
        ray: the module, connected.
        section: `workers` of study.yaml.
        own: whether it is a Ray of our own, whose one node stays as it is.
        clock: seconds that only ever grow.

    Raises:
        WorkersError: the Ray is our own, and has not as many places as are asked for; or it has not one, and neither
            would nodes come.
    """

    def __init__(
        self, ray: Any, section: WorkersSection, *, own: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ray, self._own, self._clock = ray, own, clock
        nodes = self._alive()
        least = None if own else 0 if _may_grow(nodes) else 1
        self.cpus, self.gpus, self.count = slots(section, _amounts(nodes), least)
        self._section = section.model_copy(update={"gpus": self.gpus})
        self.nodes = _ids(nodes)
        self._looked_at = clock()
        self._news = f"{self._said()} so far" if self.count < self.wanted else ""

    @property
    def wanted(self) -> int:
        """How many slots there should be, with a place or without: the latter tell an autoscaler what is wanted."""
        return self._section.concurrent or max(1, self.count)

    def look(self, answers: Callable[[], bool]) -> bool:
        """Whether nodes have come or gone since; looks again only after a while.

        Args:
            answers: whether the cluster answers right now. Asked for its nodes without an answer, Ray hangs for a
                minute, and then ends the process.
        """
        if self._own or self._clock() - self._looked_at < LOOK_SECONDS or not answers():
            return False
        nodes = self._alive()
        self._looked_at = self._clock()
        if _ids(nodes) == self.nodes:
            return False
        before, self.nodes = self.count, _ids(nodes)
        *_, self.count = slots(self._section, _amounts(nodes), least=0)
        if self.count != before:
            self._news = f"{self._said()} now ({before} before)"
        return True

    def news(self) -> str:
        """What a person should hear: once where places are wanting at the start, and whenever their number changes."""
        said, self._news = self._news, ""
        return said

    def _said(self) -> str:
        asked = self._section.concurrent
        if asked is not None:
            return f"workers: {self.count} of {asked} places"
        return f"workers: {self.count} place{'' if self.count == 1 else 's'}"

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]


def _amounts(nodes: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """CPUs and GPUs of each node."""
    return [(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in nodes]


def _ids(nodes: list[dict[str, Any]]) -> frozenset[str]:
    return frozenset(node["NodeID"] for node in nodes)


def _may_grow(nodes: list[dict[str, Any]]) -> bool:
    """Whether nodes may come by themselves: something starts them in groups, or none that could train is there yet."""
    return any(NODE_GROUP in node.get("Labels", {}) for node in nodes) or not any(cpus for cpus, _ in _amounts(nodes))
