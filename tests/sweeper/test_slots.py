"""How many trials fit side by side where each takes several nodes; on one node each: `test_dispatch.py`."""

from __future__ import annotations

import itertools

import pytest

from sweeper.errors import WorkersError
from sweeper.slots import slots, spread
from sweeper.study_file import Workers as WorkersSection


def _most(places: tuple[int, ...], nodes: int) -> int:
    """By trying every choice of nodes for the next slot."""
    tried = [
        1 + _most(tuple(each - (index in chosen) for index, each in enumerate(places)), nodes)
        for chosen in itertools.combinations(range(len(places)), nodes)
        if all(places[index] for index in chosen)
    ]
    return max(tried, default=0)


def test_slots_take_different_nodes_each_as_many_as_any_choice_allows() -> None:
    for places in itertools.product(range(4), repeat=3):
        for nodes in (1, 2, 3, 4):
            assert spread(places, nodes) == _most(places, nodes), (places, nodes)


def test_a_slot_has_its_cpus_and_gpus_on_each_of_its_nodes() -> None:
    section = WorkersSection(nodes=2, cpus=4, gpus=2)
    assert slots(section, [(16, 8), (8, 8), (64, 2)]) == (4, 2, 3)
    assert section.processes == 4
    assert WorkersSection(nodes=3).processes == 3
    assert WorkersSection(gpus=0.5).processes == 1


def test_too_few_nodes_are_said_with_how_many_there_are() -> None:
    with pytest.raises(WorkersError) as few:
        slots(WorkersSection(nodes=2), [(16, 0)])
    assert str(few.value) == (
        "workers: 1 concurrent with 1 CPUs and 0 GPUs each on 2 nodes do not fit: Ray has 16 CPUs and 0 GPUs on 1, "
        "enough for 0; lower workers.concurrent, nodes, cpus or gpus"
    )
