"""What takes one trial at a time: a Ray actor, or one on each of several nodes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sweeper.pulse import cause_of_death
from sweeper.runner import Runner
from sweeper.study_file import Workers as WorkersSection
from trials.errors import ProcessLost
from trials.nodes import Invitation, Nodes, join


@dataclass(frozen=True, eq=False)
class Slot:
    """A place for one trial at a time."""

    runner: Any
    """The actor that runs it: a `Runner`."""
    ready: Any
    """The call that returns when all of the slot is up, with the ids of its nodes."""
    launchers: tuple[Any, ...] = ()
    """Actors on the other nodes of the trial: a `Launcher` on each."""
    group: Any = None
    """The placement group that keeps these apart."""
    nodes: frozenset[str] = frozenset()
    """The ids of the nodes that it is on, once it is up."""


@dataclass(frozen=True)
class SlotMaker:
    """Makes slots, and ends them.

    Args:
        ray: the module, connected.
        train: `module:function` that trains one recipe.
        section: `workers` of study.yaml.
        gpus: of each node of a trial.
    """

    ray: Any
    train: str
    section: WorkersSection
    gpus: float

    def make(self) -> Slot:
        """A slot that Ray places as soon as it has room for it."""
        section = self.section
        if section.nodes == 1:
            nodes = Nodes(section.processes) if section.processes > 1 else None
            runner = self._runner.remote(self.train, self.gpus == 0, nodes)
            return Slot(runner, runner.__ray_call__.remote(_nodes))
        bundle = {"CPU": section.cpus, **({"GPU": self.gpus} if self.gpus else {})}
        group = self.ray.util.placement_group([bundle] * section.nodes, strategy="STRICT_SPREAD")
        launchers = tuple(
            self._launcher.options(scheduling_strategy=_in(group, index)).remote(self.gpus == 0)
            for index in range(1, section.nodes)
        )
        nodes = Nodes(section.processes, tuple(map(Launch, launchers)), _host)
        runner = self._runner.options(scheduling_strategy=_in(group, 0)).remote(self.train, self.gpus == 0, nodes)
        # It waits for the others, and fails if one of them does.
        ready = runner.__ray_call__.remote(_nodes, *(actor.__ray_call__.remote(_nodes) for actor in launchers))
        return Slot(runner, ready, launchers, group)

    def end(self, slot: Slot) -> None:
        """Kill all of a slot."""
        for actor in (slot.runner, *slot.launchers):
            with suppress(self.ray.exceptions.RayError):  # one that was still being made may be given up by Ray first
                self.ray.kill(actor)
        if slot.group is not None:
            self.ray.util.remove_placement_group(slot.group)

    # Made once: each new class is stored in the head before an actor of it comes, and hangs where the head is gone.
    @cached_property
    def _runner(self) -> Any:
        # Two calls at a time: one that waits for the trial's next event, and `interrupt`.
        return self._actor(Runner, max_concurrency=2)

    @cached_property
    def _launcher(self) -> Any:
        return self._actor(Launcher)

    def _actor(self, kind: type, **options: Any) -> Any:
        return self.ray.remote(num_cpus=self.section.cpus, num_gpus=self.gpus, max_restarts=0, **options)(kind)


class Launcher:
    """Starts the ranks of a trial that are on its node.

    Args:
        hide_gpus: train on the CPU, whatever the machine has.
    """

    def __init__(self, hide_gpus: bool) -> None:
        if hide_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def join(self, invitation: Invitation) -> None:
        """Start one, as `trials.nodes.join` does."""
        join(invitation)


@dataclass(frozen=True)
class Launch:
    """Has a `Launcher` start a rank."""

    launcher: Any

    def __call__(self, invitation: Invitation) -> None:
        """Return when rank 0 has been reached. Raises `ProcessLost` when it cannot be, or the launcher is gone."""
        import ray

        try:
            ray.get(self.launcher.join.remote(invitation))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise ProcessLost(cause_of_death(str(error))) from error


def _in(group: Any, index: int) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)


def _nodes(_actor: Runner | Launcher, *others: frozenset[str]) -> frozenset[str]:
    """The ids of the nodes that an actor and the others of its slot are on."""
    import ray

    return frozenset({ray.get_runtime_context().get_node_id()}).union(*others)


def _host() -> str:
    """The address of the node that this is called on."""
    import ray

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
