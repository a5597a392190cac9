"""A study that was finished and is then retried, extended or counted: what is made again, and what is not."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_finishing import ENSEMBLE, LONGER, SOUP
from rich.console import Console

from sweeper.catalog import Catalog, StudyRow, TrialRow, WeightsRow
from sweeper.doctor.examine import examine
from sweeper.errors import StudyError, StudyFailed
from sweeper.extend import extend
from sweeper.retry import retry
from sweeper.search import Search
from sweeper.settings import Settings, load_settings
from sweeper.show import describe_study, list_studies, print_studies
from sweeper.start import start
from sweeper.study import load_study
from sweeper.tracking import Tracker
from sweeper.widen import add_trials

STUDY = """\
study: small
seed: 13
data: {{source: digits}}
model: {{build: linear}}
train: {{epochs: 4, optimizer: {{name: sgd, lr: {{log: [0.001, 1.0]}}}}}}
search: {{sampler: random, trials: 4, pruner: {{name: none}}}}
storage: {{extendable: 2}}
{more}
"""
FINISH = "finish: {epochs: 6, moves: [extend, distil], pool: 3, finalists: 2, seeds: 1}"
TRAIN = "fake_finishing:finishing"


class Life:
    """A study in a home of its own."""

    def __init__(self, settings: Settings, file: Path) -> None:
        self.settings, self.file = settings, file
        self.catalog = Catalog(settings.database_url)

    def __call__(self, act: Any, *said: Any, train: str = TRAIN, **words: Any) -> str:
        out = io.StringIO()
        assert act(*said, self.settings, Console(file=out, width=200), in_process=True, train=train, **words) == 0
        return out.getvalue()

    @property
    def row(self) -> StudyRow:
        return self.catalog.study("small")

    def trials(self, *roles: str) -> list[TrialRow]:
        found = self.catalog.trials(self.row.id)
        return [trial for trial in found if not roles or trial.role in roles]

    def moves(self) -> dict[str, TrialRow]:
        """The newest of each name."""
        return {trial.params["move"]: trial for trial in self.trials("move")}

    def made_twice(self) -> bool:
        recipes = [json.dumps(trial.recipe, sort_keys=True) for trial in self.trials()]
        return len(set(recipes)) < len(recipes)

    @property
    def way(self) -> str:
        assert self.row.winner is not None
        return str(self.row.winner["verdict"]["way"])


def publish(catalog: Catalog, row: StudyRow, winner: WeightsRow, *_: Any, verdict: dict[str, Any], **__: Any) -> None:
    """There is no model in fake weights to be packed."""
    chosen = {"kind": winner.kind, "path": winner.path, "trial": winner.trial, "package": 1, "test_looks": 1}
    scores = {"metric": row.metric, "selection": winner.metrics, "test": {"test.accuracy": winner.value}}
    catalog.set_study(row.id, winner={**chosen, **scores, "verdict": verdict})


@pytest.fixture
def life(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    monkeypatch.setattr("sweeper.carry_out.publish_winner", publish)
    monkeypatch.setattr("sweeper.carry_out.deliver", lambda _: None)
    monkeypatch.setattr(Tracker, "start", lambda _: None)
    life = Life(load_settings(), tmp_path / "study.yaml")
    with closing(life.catalog):
        yield life


def begin(life: Life, more: str = FINISH, train: str = TRAIN) -> None:
    life.file.write_text(STUDY.format(more=more))
    life(start, life.file, train=train)


def test_moves_that_failed_are_retried_as_the_trials_they_were_and_what_needs_them_follows(life: Life) -> None:
    begin(life, train="fake_finishing:nothing_can_be_averaged")
    before = life.moves()
    failed = [name for name, trial in before.items() if trial.state == "failed"]
    assert failed == ["uniform soup", "greedy soup", "student"]
    greedy = before["greedy soup"].number
    life(retry, "small", numbers=[greedy])
    assert (life.moves()["greedy soup"].number, life.moves()["greedy soup"].state) == (greedy, "complete")
    assert {life.moves()[name].state for name in ("uniform soup", "student")} == {"failed"}
    life(retry, "small")
    assert {trial.state for trial in life.trials()} == {"complete"}
    assert {name: trial.number for name, trial in life.moves().items()} == {
        name: trial.number for name, trial in before.items()
    }
    assert not life.made_twice()
    assert life.row.history == "small@3"


def test_a_trial_that_failed_with_its_trunk_is_retried_along_with_it_and_branches_from_it(life: Life) -> None:
    begin(life, "average: {trunk_epochs: 1}", train="fake_finishing:trunks_diverge_above")
    first = life.trials()[0]
    assert (first.state, first.recipe["start"]) == ("failed", None)
    assert life(retry, "small", numbers=[0]).startswith("retrying trials 0000, 100000 of study 'small'")
    trial, trunk = life.trials()[0], life.catalog.trial(life.row.id, 100_000)
    assert (trunk.state, trial.state) == ("complete", "complete")
    [weights] = [row for row in life.catalog.weights(life.row.id) if (row.trial, row.kind) == (100_000, "raw")]
    assert trial.recipe["start"]["weights"]["sha256"] == weights.sha256
    assert trial.recipe["train"]["epochs"] == 3


def test_a_trunk_whose_weights_are_gone_is_trained_again_for_trials_that_are_added(life: Life) -> None:
    begin(life, "average: {trunk_epochs: 1}")
    [trunk] = life.trials("trunk")
    lost = [row.path for row in life.catalog.weights(life.row.id) if row.trial == trunk.number]
    life.catalog.forget_weights(life.row.id, lost)
    life(add_trials, "small", trials=1)
    assert [trial.number for trial in life.trials("trunk")] == [trunk.number, trunk.number + 1]
    assert life.trials("search")[-1].recipe["start"]["weights"]["path"].startswith(f"../../trials/{trunk.number + 1}/")


def test_more_trials_make_the_moves_anew_where_their_ingredients_changed_and_none_twice(life: Life) -> None:
    begin(life)
    before = life.trials()
    best = max(trial.value or 0.0 for trial in before if trial.role == "search")
    life(add_trials, "small", trials=4)
    added = life.trials("search")[4:]
    now = max(trial.value or 0.0 for trial in life.trials("search"))
    assert now > best, "with this seed a trial that was added is the best"
    assert life.moves()["greedy soup"].value == pytest.approx(now + SOUP)
    assert life.moves()["top ensemble"].value == pytest.approx(now + ENSEMBLE)
    assert not life.made_twice()
    numbers = {trial.number for trial in before} | {trial.number for trial in added}
    assert [trial for trial in life.trials() if trial.number in numbers] == sorted(
        [*before, *added], key=lambda trial: trial.number
    ), "what had ended stays as it was"
    made = {trial.number for trial in life.trials()} - numbers
    assert life.row.winner is not None
    assert life.row.winner["trial"] in made, "the verdict is about what the study has become"
    ended = life.trials()
    life.catalog.go_on(life.row.id)
    life(start, life.file)
    assert life.trials() == ended


def test_the_best_trial_of_the_search_is_extended_and_what_it_is_in_is_made_anew(life: Life) -> None:
    begin(life)
    before, moves = life.trials(), life.moves()
    best = max(life.trials("search"), key=lambda trial: trial.value or 0.0)
    assert life.way not in ("best trial", "average within a trial")
    said = life(extend, "small", epochs=2)
    assert f"extending trial {best.number:04d} of study 'small'" in said
    grown = life.catalog.trial(life.row.id, best.number)
    assert grown.value == pytest.approx((best.value or 0.0) + 2 * LONGER)
    assert life.moves()["greedy soup"].number != moves["greedy soup"].number
    assert life.moves()["greedy soup"].value == pytest.approx((grown.value or 0.0) + SOUP)
    # Gone again from a fresh seed, the trial is trained for as long as it has been by now.
    [again] = [row for row in life.trials("seed") if row.params.get("trial") == best.number and row not in before]
    assert len(again.recipe["extensions"]) == 1
    assert not life.made_twice()


def test_only_trials_of_the_search_are_extended(life: Life) -> None:
    begin(life)
    soup = life.moves()["greedy soup"].number
    with pytest.raises(
        StudyError, match=r"--trial: found 10000\d, expected a complete trial of study 'small': 0, 1, 2, 3$"
    ):
        life(extend, "small", epochs=2, numbers=[soup])
    with pytest.raises(StudyError, match="--trials: found 5, expected at most 4"):
        life(extend, "small", epochs=2, trials=5)


def test_each_record_tells_the_same_of_what_the_search_does_not_know_of(life: Life) -> None:
    begin(life, "average: {trunk_epochs: 1}\n" + FINISH)

    def disagreeing() -> list[str]:
        seen = examine(life.catalog, life.row, life.settings, runs_now=False)
        assert seen.checked["trials"] == len(life.trials())
        return [finding.where for finding in seen.findings]

    nothing_but_the_package = ["winner"]  # fake weights make none
    assert disagreeing() == nothing_but_the_package
    life.catalog.set_study(life.row.id, state="stopped")
    with closing(Search(load_study(life.file), life.settings.database_url, "small")) as search:
        search.ask()
        search.ask()
    assert disagreeing() == nothing_but_the_package, "both may wait for their trunk"
    [soup] = [row for row in life.catalog.weights(life.row.id) if row.trial == life.moves()["greedy soup"].number]
    life.settings.home.joinpath("studies/small", soup.path).unlink()
    assert sorted(disagreeing()) == sorted([soup.path, *nothing_but_the_package])


def test_a_study_whose_trunks_all_fail_alike_is_stopped(life: Life) -> None:
    with pytest.raises(StudyFailed, match=r"all trials so far \(3\) failed alike: ValueError: no such column"):
        begin(life, "average: {trunk_epochs: 1}", train="fake_training:always_raises")


def test_the_trials_that_were_asked_for_are_counted_and_the_others_said_to_be_what_they_are(life: Life) -> None:
    begin(life)
    [listed] = list_studies(life.catalog)
    assert (listed["trials"], listed["trials_asked"]) == ({"complete": 4}, 4)
    out = io.StringIO()
    print_studies(life.catalog, Console(file=out, width=200))
    assert "4/4" in out.getvalue()
    shown = describe_study(life.catalog, "small", life.settings)["trials"]
    assert [trial["role"] for trial in shown] == [trial.role for trial in life.trials()]
