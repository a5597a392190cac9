"""Who wins, by how much, and in what words: on numbers that can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from catalog_rows import trial_row

from sweeper.catalog import WeightsRow
from sweeper.finish.board import Board
from sweeper.finish.plan import next_steps
from sweeper.finish.verdict import Interval, Verdict, lines, mean_interval, verdict
from sweeper.study_file import Finish
from trials.recipe import Recipe

METRIC = "validation.accuracy"
RECIPE = Recipe.model_validate({"data": {"source": "digits", "confirm": 0.5}, "model": {"build": "mlp"}})


class Table:
    """A catalog in which each step has ended as soon as it is begun."""

    def __init__(self, **finish: Any) -> None:
        self.board = Board(Finish(**finish), 0, METRIC, [], [])

    def add(self, number: int, recipe: Recipe, role: str, params: dict[str, Any], **worth: tuple[float, float]) -> None:
        """A complete trial; ``worth`` is on the selection and on the confirmation split, by kind."""
        content = recipe.model_dump(mode="json")
        facts = {"epochs": 0 if recipe.assembly else recipe.train.epochs, "shares": [0.5, 0.5]}
        state = "complete" if worth else "failed"
        trial = trial_row(number, role=role, state=state, params=params, recipe=content, facts=facts)
        kept = [
            WeightsRow(
                number,
                kind,
                f"trials/{number:04d}/weights/{kind}.safetensors",
                selection,
                {METRIC: selection, "validation.loss": 1.0 - selection, "confirm.accuracy": confirmation},
                0 if recipe.assembly else recipe.train.epochs,
                100,
                f"{number}-{kind}",
                trial.role,
            )
            for kind, (selection, confirmation) in worth.items()
        ]
        self.board = replace(self.board, trials=[*self.board.trials, trial], weights=[*self.board.weights, *kept])

    def finish(self, **worth: Sequence[tuple[float, float]]) -> Verdict:
        """Begin whatever is to be made until all has ended.

        ``worth`` tells of each way (spaces as underscores) what it comes to from seed 0, 1 and so on; what is not told
        fails. ``best_trial`` is of the trials that are trained again, from seed 1 on.
        """
        while steps := next_steps(self.board):
            for number, step in enumerate(steps, start=self.board.next_number()):
                seed, way = step.params.get("seed", 0), step.params.get("move", "best trial").replace(" ", "_")
                values = worth.get(way, ())
                index = seed - 1 if way == "best_trial" else seed
                kind = {"soup": "soup", "ensemble": "ensemble"}.get(way.split("_")[-1], "raw")
                found = {kind: values[index]} if index < len(values) else {}
                self.add(number, step.recipe, step.role, step.params, **found)
        found = verdict(self.board)
        assert found is not None
        return found


def table(**finish: Any) -> Table:
    """Two trials, of which the first is the best."""
    made = Table(**finish)
    for number, value in enumerate(((0.90, 0.86), (0.88, 0.88))):
        made.add(number, RECIPE.model_copy(update={"seed": number}), "search", {}, raw=value)
    return made


def test_the_interval_of_a_mean_is_students() -> None:
    # Four values with mean 5 and standard deviation 2: 5 -+ 3.182446 * 2 / 2 (the 97.5 % quantile of t, 3 degrees).
    spread = 2.0 * math.sqrt(3.0 / 4.0)
    found = mean_interval([5 - spread, 5 + spread, 5 - spread, 5 + spread])
    assert (found.mean, found.count) == (5.0, 4)
    assert (found.low, found.high) == pytest.approx((5 - 3.182446305, 5 + 3.182446305))
    assert mean_interval([0.7]) == Interval(0.7)


def test_a_way_that_gains_on_fresh_seeds_wins_and_the_gain_is_paired() -> None:
    found = table(seeds=3, finalists=2).finish(
        top_ensemble=[(0.93, 0.90), (0.92, 0.90), (0.95, 0.91), (0.91, 0.89)],
        best_trial=[(0.89, 0.87), (0.90, 0.88), (0.88, 0.86)],
    )
    assert (found.way, found.seeds) == ("top ensemble", 3)
    first, second = found.finalists
    assert (first.way, first.worth.mean, second.way, second.worth.mean) == (
        "top ensemble", pytest.approx(0.90), "best trial", pytest.approx(0.87),
    )  # fmt: skip
    assert first.gain is not None
    # Each seed gains 0.03, whatever its luck: paired, there is no doubt left, though single values vary.
    assert (first.gain.mean, first.gain.low, first.gain.high) == pytest.approx((0.03, 0.03, 0.03))
    assert second.gain is None
    assert found.winner.kind == "ensemble"
    assert found.winner.value == 0.95, "of the way that won, the best weights on the selection split"


def test_what_led_by_luck_on_the_selection_split_does_not_win() -> None:
    found = table(seeds=2, finalists=2).finish(
        greedy_ensemble=[(0.99, 0.90), (0.99, 0.84), (0.99, 0.85)],
        best_trial=[(0.89, 0.86), (0.90, 0.87)],
    )
    assert found.way == "best trial"
    assert found.winner.kind == "raw"
    assert found.winner.value == 0.90
    assert [finalist.way for finalist in found.finalists] == ["best trial", "greedy ensemble"]


def test_an_equal_does_not_win_over_the_single_trial() -> None:
    found = table(seeds=2, finalists=2).finish(
        greedy_ensemble=[(0.99, 0.90), (0.99, 0.86), (0.99, 0.87)],
        best_trial=[(0.89, 0.86), (0.90, 0.87)],
    )
    assert found.way == "best trial"


def test_without_fresh_seeds_the_sweeps_own_are_compared_on_what_nothing_was_chosen_on() -> None:
    found = table(seeds=0).finish(top_ensemble=[(0.93, 0.85)], greedy_ensemble=[(0.92, 0.87)])
    assert (found.way, found.seeds) == ("greedy ensemble", 0)
    assert [(way.way, way.selection, way.confirmation) for way in found.ways] == [
        ("top ensemble", 0.93, 0.85),
        ("greedy ensemble", 0.92, 0.87),
        ("best trial", 0.90, 0.86),
    ]


def test_each_way_says_what_was_trained_for_it_alone() -> None:
    found = table(seeds=0, epochs=18, branches=3).finish(
        top_ensemble=[(0.93, 0.90)],
        extended=[(0.91, 0.90)],
        branch_1=[(0.91, 0.90)],
        branch_2=[(0.91, 0.90)],
        branch_3=[(0.91, 0.90)],
        greedy_soup_of_branches=[(0.92, 0.91)],
        student=[(0.92, 0.9)],
    )
    costs = {way.way: way.cost_epochs for way in found.ways}
    assert costs == {
        "best trial": 0, "top ensemble": 0, "extended": 6, "greedy soup of branches": 6, "student": 6,
    }  # fmt: skip


def test_a_finalist_that_cannot_be_made_again_does_not_win() -> None:
    found = table(seeds=2, finalists=3).finish(
        top_ensemble=[(0.99, 0.95), (0.99, 0.95)],
        greedy_ensemble=[(0.98, 0.89), (0.98, 0.89), (0.98, 0.89)],
        best_trial=[(0.89, 0.86), (0.90, 0.87)],
    )
    assert (found.way, found.failed, found.seeds) == ("greedy ensemble", ("top ensemble",), 2)


def test_no_interval_of_an_accuracy_leaves_0_to_1() -> None:
    found = table(seeds=2, finalists=2).finish(
        greedy_ensemble=[(0.99, 0.90), (0.99, 0.90), (0.99, 1.0)],
        best_trial=[(0.89, 0.86), (0.90, 0.87)],
    )
    assert found.finalists[0].worth.mean == pytest.approx(0.95)
    assert found.finalists[0].worth.high == 1.0
    assert found.finalists[0].worth.low == pytest.approx(0.95 - 12.7062047 * 0.05)


MOVED = {"epochs": 18, "branches": 2, "distil": {"compare": True}}
WORTH: dict[str, Sequence[tuple[float, float]]] = {
    "extended": [(0.97, 0.90)] * 2,
    "student": [(0.96, 0.90)] * 2,
    "student_without_teacher": [(0.99, 0.89)] * 2,
    "branch_1": [(0.91, 0.90)] * 2,
    "branch_2": [(0.91, 0.90)] * 2,
    "greedy_soup_of_branches": [(0.94, 0.90)] * 2,
    "uniform_soup_of_branches": [(0.95, 0.90)] * 2,
    "top_ensemble": [(0.93, 0.90)] * 2,
    "greedy_ensemble": [(0.92, 0.90)] * 2,
    "best_trial": [(0.90, 0.86)],
}
"""Of seeds 0 and 1: two trainings lead, then two averages, then two ensembles."""


@pytest.mark.parametrize(
    ("finalists", "expected", "missing"),
    [
        (2, ["extended"], ["averaging", "ensembling"]),
        (3, ["extended", "uniform soup of branches"], ["ensembling"]),
        (4, ["extended", "uniform soup of branches", "top ensemble"], []),
        (5, ["extended", "student", "uniform soup of branches", "top ensemble"], []),
        (6, ["extended", "student", "uniform soup of branches", "greedy soup of branches", "top ensemble"], []),
    ],
)
def test_an_average_and_an_ensemble_compete_while_there_is_room_and_else_it_is_said_that_none_does(
    finalists: int, expected: list[str], missing: list[str]
) -> None:
    found = table(seeds=1, finalists=finalists, **MOVED).finish(**WORTH)
    assert {finalist.way for finalist in found.finalists} == {"best trial", *expected}
    by_kind = {"averaging": ("uniform soup of branches", "0.9500"), "ensembling": ("top ensemble", "0.9300")}
    last, value = (expected[-1], {"extended": "0.9700"}.get(expected[-1], "0.9500"))
    assert [line for line in lines(found.to_dict(), METRIC) if "did not reach the finals" in line] == [
        f"{kind} did not reach the finals: {by_kind[kind][0]} has {by_kind[kind][1]} on the selection split, against "
        f"{value} of {last}; `finish: {{finalists: 4}}` has room for it"
        for kind in missing
    ]


def test_what_the_teacher_gave_is_paired_over_the_fresh_seeds() -> None:
    found = table(seeds=2, finalists=2, epochs=6, moves=["distil"], distil={"compare": True}).finish(
        top_ensemble=[(0.91, 0.80)] * 3,
        student=[(0.97, 0.99), (0.96, 0.90), (0.96, 0.84)],
        student_without_teacher=[(0.98, 0.10), (0.95, 0.91), (0.95, 0.88)],
        best_trial=[(0.90, 0.86), (0.90, 0.88)],
    )
    assert [finalist.way for finalist in found.finalists] == ["best trial", "student"], "the untaught does not compete"
    # Of seeds 1 and 2 it lost 0.01 and 0.04: half their range times 12.7062, Student's for one degree of freedom.
    assert found.teacher is not None
    assert (found.teacher.mean, found.teacher.count) == (pytest.approx(-0.025), 2)
    assert found.teacher.low == pytest.approx(-0.025 - 12.7062047 * 0.015)
    assert (
        "student gained nothing that 2 seeds can tell over the student without teacher in accuracy: "
        "-0.0250 (-0.2156 to 0.1656), paired over 2 seeds"
    ) in lines(found.to_dict(), METRIC)


def test_where_the_student_did_not_reach_the_finals_one_seed_tells_of_its_teacher() -> None:
    found = table(seeds=1, finalists=2, epochs=6, moves=["distil"], distil={"compare": True}).finish(
        top_ensemble=[(0.99, 0.90)] * 2, student=[(0.97, 0.90)], student_without_teacher=[(0.98, 0.88)],
        best_trial=[(0.90, 0.86)],
    )  # fmt: skip
    assert (
        "student differs from the student without teacher in accuracy by an amount that one seed cannot judge: 0.0200"
        in lines(found.to_dict(), METRIC)
    )


def test_where_one_value_of_each_decides_it_is_said() -> None:
    for seeds, over in ((0, "from the sweep's own seeds"), (1, "over 1 fresh seed")):
        said = {"seeds": seeds, "finalists": [], "failed": [], "ways": [], "teacher": None, "left_out": []}
        assert lines(said, METRIC) == [
            f"finalists {over}: accuracy on the confirmation split, on which nothing but the winner among them was "
            "chosen, so its own gain is a little optimistic; one value of each decided"
        ]


def test_of_ways_that_led_to_nothing_it_is_said_why() -> None:
    found = table(seeds=0, epochs=6, branches=3).finish(
        top_ensemble=[(0.93, 0.85)], greedy_ensemble=[(0.92, 0.87)], extended=[(0.94, 0.88)], student=[(0.9, 0.9)]
    )
    assert found.left_out == (
        "no uniform soup and no greedy soup: it failed",
        "no uniform soup of branches and no greedy soup of branches: 2 of 6 `epochs` are too few for 3 `branches`",
    )
    assert lines(found.to_dict(), METRIC)[-2:] == list(found.left_out)
    alone = Table(seeds=0)
    alone.add(0, RECIPE, "search", {}, raw=(0.90, 0.86))
    assert alone.finish().left_out == (
        "no uniform soup and no greedy soup: one set of weights of the best architecture, and nothing to average it "
        "with",
        "no top ensemble and no greedy ensemble: one trial that is given what the best is given, and nothing to put it "
        "together with",
    )


def test_no_trial_no_verdict() -> None:
    assert verdict(Table().board) is None


def test_it_is_said_in_plain_words() -> None:
    def finalist(way: str, mean: float, *gain: float) -> dict[str, Any]:
        worth = {"mean": mean, "low": None, "high": None, "count": 3}
        said = {"mean": gain[0], "low": gain[1], "high": gain[2], "count": 3} if gain else None
        return {"way": way, "worth": worth, "gain": said}

    three = [
        finalist("greedy ensemble", 0.91, 0.02, 0.01, 0.03),
        finalist("greedy soup", 0.895, 0.005, -0.01, 0.02),
        finalist("best trial", 0.89),
        finalist("student", 0.86, -0.03, -0.04, -0.02),
    ]
    said = {"seeds": 3, "finalists": three, "failed": ["extended"], "ways": [], "left_out": ["no student: it failed"]}
    assert lines(said, METRIC) == [
        "finalists over 3 fresh seeds: accuracy on the confirmation split, on which nothing but the winner among them "
        "was chosen, so its own gain is a little optimistic",
        "  greedy ensemble: 0.9100",
        "  greedy soup: 0.8950",
        "  best trial: 0.8900",
        "  student: 0.8600",
        "extended could not be made again from each seed, and does not compete",
        "greedy ensemble gained 0.0200 (0.0100 to 0.0300) over the best single trial in accuracy, paired over 3 seeds",
        "greedy soup gained nothing that 3 seeds can tell over the best single trial in accuracy: "
        "0.0050 (-0.0100 to 0.0200), paired over 3 seeds",
        "student lost 0.0300 against the best single trial in accuracy: -0.0300 (-0.0400 to -0.0200), paired over 3 "
        "seeds",
        "no student: it failed",
    ]
