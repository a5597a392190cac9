"""What a study makes beside its search's trials, with trainings that take no time."""

from __future__ import annotations

import json
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from fake_finishing import ENSEMBLE, LONGER, SOUP, TAUGHT

from sweeper import run
from sweeper.catalog import TrialRow
from sweeper.faults import look_for_stalled
from sweeper.sweep import Sweep

STUDY = """\
study: small
seed: 3
data: {{source: digits}}
model: {{build: linear}}
train: {{epochs: 4, optimizer: {{name: sgd, lr: {{log: [0.001, 1.0]}}}}}}
search: {{sampler: random, trials: 4, pruner: {{name: none}}}}
workers: {{concurrent: 1}}
{more}
"""
FINISH = "finish: {epochs: 12, pool: 3, branches: 3, finalists: 3, seeds: 2, distil: {compare: true}}"


@pytest.fixture
def bench(tmp_path: Path, fakes: Path) -> Bench:
    return Bench(tmp_path, fakes)


def write(folder: Path, more: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(STUDY.format(more=more))
    return path


def rows(bench: Bench) -> list[TrialRow]:
    with closing(bench.catalog()) as catalog:
        return catalog.trials(catalog.study("small").id)


def values(bench: Bench) -> dict[str, float]:
    """By what was made, from seed 0."""
    return {row.params["move"]: row.value for row in rows(bench) if row.role == "move" and row.value is not None}


def told(row: TrialRow) -> tuple[Any, ...]:
    """All that a trial is, apart from when it was."""
    return (row.number, row.role, row.state, row.params, json.dumps(row.recipe, sort_keys=True), row.value)


def test_each_move_is_made_once_and_gone_again_from_fresh_seeds(bench: Bench, tmp_path: Path) -> None:
    file = write(tmp_path, FINISH)
    bench.run(file, "fake_finishing:finishing")
    trials = rows(bench)
    best = max(row.value or 0.0 for row in trials if row.role == "search")
    branch = best + LONGER * 1  # 12 // 3 // 3 epochs; an extension has 12 // 3
    assert values(bench) == pytest.approx(
        {
            "uniform soup": best + SOUP,
            "greedy soup": best + SOUP,
            "top ensemble": best + ENSEMBLE,
            "greedy ensemble": best + ENSEMBLE,
            "extended": best + LONGER * 4,
            "branch 1": branch,
            "branch 2": branch,
            "branch 3": branch,
            "uniform soup of branches": branch + SOUP,
            "greedy soup of branches": branch + SOUP,
            "student": best + TAUGHT,
            "student without teacher": best,
        }
    )
    # An ensemble leads, and needs the pool of three: each of these is trained again, once a seed. An average competes.
    fresh = [row.params for row in trials if row.role == "seed"]
    pool = sorted((row for row in trials if row.role == "search"), key=lambda row: -(row.value or 0.0))[:3]
    numbers = sorted(row.number for row in pool)
    branches = ("branch 1", "branch 2", "branch 3")
    assert fresh == [
        *({"trial": number, "seed": seed} for seed in (1, 2) for number in numbers),
        *({"move": move, "seed": seed} for seed in (1, 2) for move in ("top ensemble", *branches)),
        *({"move": "uniform soup of branches", "seed": seed} for seed in (1, 2)),
    ]
    assert [row.number for row in trials if row.role != "search"] == list(range(100_000, 100_000 + 12 + len(fresh)))
    assert [trial.number for trial in bench.history()] == [0, 1, 2, 3], "the search hears of its own alone"
    assert bench.run(file, "fake_finishing:finishing").lines == [], "nothing is made twice"


def test_branches_lie_between_half_and_twice_the_learning_rate_and_have_seeds_of_their_own(
    bench: Bench, tmp_path: Path
) -> None:
    bench.run(write(tmp_path, "finish: {epochs: 6, moves: [branch], lr: 0.2, seeds: 0}"), "fake_finishing:finishing")
    best = max((row for row in rows(bench) if row.role == "search"), key=lambda row: row.value or 0.0)
    lr = best.recipe["train"]["optimizer"]["lr"]
    branches = [row.recipe for row in rows(bench) if str(row.params.get("move")).startswith("branch ")]
    assert [recipe["train"]["optimizer"]["lr"] for recipe in branches] == pytest.approx([0.1 * lr, 0.2 * lr, 0.4 * lr])
    assert len({recipe["seed"] for recipe in (best.recipe, *branches)}) == 4
    for recipe in branches:
        assert recipe["train"]["epochs"] == 2
        assert recipe["train"]["schedule"] == {"name": "cosine", "warmup": 0.0, "final": 0.0}
        assert recipe["start"]["weights"]["path"] == f"../../trials/{best.number:04d}/weights/raw.safetensors"
        assert recipe["start"]["epochs"] == 4


def test_the_student_learns_from_the_members_that_were_chosen(bench: Bench, tmp_path: Path) -> None:
    bench.run(write(tmp_path, "finish: {epochs: 3, moves: [distil], seeds: 0}"), "fake_finishing:finishing")
    by_move = {row.params["move"]: row for row in rows(bench) if row.role == "move"}
    ensemble, student = by_move["top ensemble"].recipe["assembly"], by_move["student"].recipe
    members = [{**member, "share": 0.5} for member in ensemble["members"][:2]]
    assert student["teacher"] == {"members": members, "temperature": 2.0, "hard_fraction": 0.1}
    assert (student["train"]["epochs"], student["start"]) == (3, None)


def test_stopped_anywhere_it_ends_as_if_it_had_not_been(tmp_path: Path, fakes: Path) -> None:
    file = write(tmp_path, "average: {trunk_epochs: 1}\n" + FINISH)

    def bench(name: str) -> Bench:
        (tmp_path / name).mkdir()
        return Bench(tmp_path / name, fakes)

    unbroken = bench("unbroken")
    reports = unbroken.run(file, "fake_finishing:finishing").reports
    expected = list(map(told, rows(unbroken)))
    for after in (1, 14, 19, 24, reports):  # the trunk; an extension, a branch, a student, the last of a fresh seed
        broken = bench(f"after-{after}")
        with pytest.raises(KeyboardInterrupt):
            broken.run(file, "fake_finishing:finishing", stop_after_reports=after)
        broken.run(file, "fake_finishing:finishing")
        assert list(map(told, rows(broken))) == expected, f"stopped after report {after}"


def test_what_cannot_be_made_stays_unmade_and_the_rest_goes_on(bench: Bench, tmp_path: Path) -> None:
    bench.run(write(tmp_path, FINISH), "fake_finishing:nothing_can_be_averaged")
    by_move = {row.params["move"]: row for row in rows(bench) if row.role == "move"}
    failed = {move for move, row in by_move.items() if row.state == "failed"}
    assert failed == {
        "uniform soup",
        "greedy soup",
        "uniform soup of branches",
        "greedy soup of branches",
        "student",
    }
    assert by_move["greedy soup"].reason == "TrialError: no two of these weights can be averaged"
    assert {row.state for row in rows(bench) if row.role == "seed"} == {"complete"}


def test_trials_branch_from_one_trunk_with_what_is_left_of_their_epochs(bench: Bench, tmp_path: Path) -> None:
    bench.run(write(tmp_path, "average: {trunk_epochs: 1}"), "fake_finishing:finishing")
    trunk, *others = sorted(rows(bench), key=lambda row: row.role != "trunk")
    assert (trunk.number, trunk.params["of"], trunk.recipe["train"]["epochs"]) == (100_000, 0, 1)
    assert [row.role for row in others] == ["search"] * 4
    with closing(bench.catalog()) as catalog:
        kept = {row.kind: row for row in catalog.weights(catalog.study("small").id) if row.trial == trunk.number}
    for row in others:
        assert row.recipe["start"]["weights"]["sha256"] == kept["raw"].sha256
        assert row.recipe["train"]["epochs"] == 3


def test_each_architecture_has_a_trunk_of_its_own(bench: Bench, tmp_path: Path) -> None:
    file = write(tmp_path, "average: {trunk_epochs: 1}")
    model = "model: {build: mlp, width: {choice: [4, 8]}}"
    file.write_text(file.read_text().replace("model: {build: linear}", model).replace("trials: 4", "trials: 8"))
    bench.run(file, "fake_finishing:finishing")
    trunks = {row.number: row.recipe["model"]["width"] for row in rows(bench) if row.role == "trunk"}
    assert sorted(trunks.values()) == [4, 8]
    for row in rows(bench):
        if row.role == "search":
            trunk = int(row.recipe["start"]["weights"]["path"].split("/")[3])
            assert trunks[trunk] == row.recipe["model"]["width"]


def test_where_a_trunk_diverges_so_does_its_trial_and_the_next_one_makes_another(bench: Bench, tmp_path: Path) -> None:
    file = write(tmp_path, "average: {trunk_epochs: 1}")
    file.write_text(file.read_text().replace("seed: 3", "seed: 13"))
    bench.run(file, "fake_finishing:trunks_diverge_above")
    trials = rows(bench)
    rates = {row.number: row.recipe["train"]["optimizer"]["lr"] for row in trials if row.role == "search"}
    first = next(number for number, lr in rates.items() if lr <= 0.1)
    assert first > 0, "with this seed the first trials cannot make a trunk"
    trunks = [(row.params["of"], row.state) for row in trials if row.role == "trunk"]
    assert trunks == [*((number, "failed") for number in range(first)), (first, "complete")]
    for row in trials:
        if row.role == "search" and row.number < first:
            assert (row.state, row.failure) == ("failed", "diverged")
            assert row.reason == f"its trunk, trial {100_000 + row.number}: Diverged: loss is nan"
        elif row.role == "search":
            assert row.state == "complete"
    assert [trial.constraints for trial in bench.history()][:first] == [{"feasible": 1.0}] * first


def test_where_a_trunk_stalls_for_good_its_trial_fails_with_it_and_all_others_are_still_tried(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_hours(sweep: Sweep) -> None:
        for trial in sweep.running.values():
            if trial.row.role == "trunk" and trial.row.recipe["train"]["optimizer"]["lr"] > 0.1:
                trial.heard_at = -math.inf
        look_for_stalled(sweep)

    monkeypatch.setattr(run, "look_for_stalled", after_hours)
    monkeypatch.setattr(run, "POLL_SECONDS", 0.001)
    file = write(tmp_path, "average: {trunk_epochs: 1}")
    first = "trials: 4, start_with: [{train.optimizer.lr: 0.5}, {train.optimizer.lr: 0.05}]"
    file.write_text(file.read_text().replace("trials: 4", first))
    bench.run(file, "fake_finishing:trunks_hang_above")
    silent = "no report for 120 minutes (workers.stall_minutes), 2 times"
    assert [(row.number, row.state, row.reason) for row in rows(bench)] == [
        (0, "failed", f"its trunk, trial 100000: {silent}"),
        *((number, "complete", None) for number in (1, 2, 3)),
        (100_000, "failed", silent),
        (100_001, "complete", None),
    ]
    assert [trial.state.name for trial in bench.history()] == ["FAIL", *["COMPLETE"] * 3]


def test_a_trunk_that_waited_for_room_goes_on_before_the_trials_that_need_it(bench: Bench, tmp_path: Path) -> None:
    file = write(tmp_path, "average: {trunk_epochs: 1}")
    model = "model: {build: mlp, width: {choice: [4, 8]}}"
    first = "trials: 4, start_with: [{model.width: 4}, {model.width: 8}]"
    file.write_text(file.read_text().replace("model: {build: linear}", model).replace("trials: 4", first))
    lines = bench.run(file, "fake_finishing:a_later_trunk_fills_the_disk_once").lines
    assert [line.partition(";")[0] for line in lines if "disk" in line] == ["100001 the disk was full"]
    assert {row.number: row.state for row in rows(bench)} == dict.fromkeys((0, 1, 2, 3, 100_000, 100_001), "complete")
    assert [trial.state.name for trial in bench.history()] == ["COMPLETE"] * 4


def test_a_study_without_finish_makes_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.run(write(tmp_path, ""), "fake_finishing:finishing")
    assert {row.role for row in rows(bench)} == {"search"}
