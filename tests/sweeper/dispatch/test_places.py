from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from sweeper.dispatch.places import LOOK_SECONDS, NODE_GROUP, Places
from sweeper.errors import WorkersError
from sweeper.study_file import Workers as WorkersSection


@dataclass
class FakeRay:
    """A cluster of nodes that the test adds and removes, and a clock that the test moves."""

    alive: dict[str, dict[str, Any]] = field(default_factory=dict)
    now: float = 0.0

    def add(self, name: str, cpus: float, gpus: float = 0.0, group: str | None = None) -> None:
        # As Ray says it: what a node has nothing of is not named.
        resources = {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
        labels = {"ray.io/node-id": name} | ({} if group is None else {NODE_GROUP: group})
        self.alive[name] = {"NodeID": name, "Alive": True, "Resources": resources, "Labels": labels}

    def nodes(self) -> list[dict[str, Any]]:
        gone = {"NodeID": "gone", "Alive": False, "Resources": {"CPU": 64.0}, "Labels": {NODE_GROUP: "big"}}
        return [*self.alive.values(), gone]

    def clock(self) -> float:
        return self.now

    def places(self, own: bool = False, **section: Any) -> Places:
        return Places(self, WorkersSection(**section), own=own, clock=self.clock)


@pytest.fixture
def ray() -> FakeRay:
    """A head that trains nothing, and a node of two cores."""
    ray = FakeRay()
    ray.add("head", 0)
    ray.add("a", 2)
    return ray


def look(ray: FakeRay, places: Places) -> tuple[bool, int, int, str]:
    """One look when it is time for it: whether nodes have changed, places, slots wanted, and what is said."""
    ray.now += LOOK_SECONDS
    return places.look(lambda: True), places.count, places.wanted, places.news()


def test_without_a_number_there_are_as_many_slots_as_the_nodes_have_places(ray: FakeRay) -> None:
    places = ray.places()
    assert (places.count, places.wanted, places.news()) == (2, 2, "")
    assert look(ray, places) == (False, 2, 2, "")
    ray.add("b", 3)
    assert look(ray, places) == (True, 5, 5, "workers: 5 places now (2 before)")
    assert look(ray, places) == (False, 5, 5, "")
    assert places.nodes == {"head", "a", "b"}
    del ray.alive["a"]
    assert look(ray, places) == (True, 3, 3, "workers: 3 places now (5 before)")


def test_where_all_places_are_gone_one_slot_waits_for_the_next(ray: FakeRay) -> None:
    places = ray.places()
    del ray.alive["a"]
    assert look(ray, places) == (True, 0, 1, "workers: 0 places now (2 before)")
    ray.add("b", 1)
    assert look(ray, places) == (True, 1, 1, "workers: 1 place now (0 before)")


def test_the_number_asked_for_is_the_upper_bound_and_fewer_do_to_begin(ray: FakeRay) -> None:
    places = ray.places(concurrent=4)
    assert (places.count, places.wanted, places.news()) == (2, 4, "workers: 2 of 4 places so far")
    assert places.news() == "", "once"
    ray.add("b", 1)
    assert look(ray, places) == (True, 3, 4, "workers: 3 of 4 places now (2 before)")
    ray.add("c", 8)
    assert look(ray, places) == (True, 4, 4, "workers: 4 of 4 places now (3 before)")
    ray.add("d", 8)
    assert look(ray, places) == (True, 4, 4, ""), "there are no more than that"


def test_a_slot_keeps_its_share_whatever_nodes_come(ray: FakeRay) -> None:
    places = ray.places()
    assert (places.cpus, places.gpus) == (1, 0)
    ray.add("b", 4, gpus=1)
    assert look(ray, places) == (True, 6, 6, "workers: 6 places now (2 before)")
    assert places.gpus == 0


def test_a_slot_over_two_nodes_has_a_place_once_both_are_there(ray: FakeRay) -> None:
    ray.add("b", 1, group="small")
    del ray.alive["a"]
    places = ray.places(nodes=2)
    assert (places.count, places.wanted, places.news()) == (0, 1, "workers: 0 places so far")
    ray.add("c", 2)
    assert look(ray, places) == (True, 1, 1, "workers: 1 place now (0 before)")


def test_it_looks_no_oftener_than_that_and_only_at_a_cluster_that_answers(ray: FakeRay) -> None:
    places = ray.places()
    ray.add("b", 1)
    ray.now = 0.9 * LOOK_SECONDS
    assert not places.look(lambda: True)
    ray.now = LOOK_SECONDS
    assert not places.look(lambda: False)
    assert places.count == 2
    assert places.look(lambda: True)
    assert places.count == 3


def test_a_ray_of_our_own_has_what_it_began_with(ray: FakeRay) -> None:
    with pytest.raises(WorkersError, match="4 concurrent with 1 CPUs and 0 GPUs each do not fit: Ray has 2 CPUs "):
        ray.places(own=True, concurrent=4)
    places = ray.places(own=True, concurrent=2)
    ray.add("b", 1)
    assert look(ray, places) == (False, 2, 2, "")


def test_a_cluster_without_one_place_is_refused_unless_nodes_may_come(ray: FakeRay) -> None:
    refused = "workers: 8 concurrent with 3 CPUs and 0 GPUs each do not fit: Ray has 2 CPUs and 0 GPUs, enough for 0"
    with pytest.raises(WorkersError, match=refused):
        ray.places(concurrent=8, cpus=3)
    ray.add("a", 2, group="small")
    waiting = ray.places(concurrent=8, cpus=3)
    assert (waiting.count, waiting.wanted, waiting.news()) == (0, 8, "workers: 0 of 8 places so far")
    # A head alone, with nothing to train on, is there for nodes that come later.
    del ray.alive["a"]
    assert ray.places(cpus=3).news() == "workers: 0 places so far"
