"""Workers that train nothing keep to the protocol of `sweeper.dispatch.Workers`, and to the clock."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path

import pytest
from bench import Watcher

from benchmarks.scale import study_text
from benchmarks.simulated import Clock, SimulatedWorkers
from sweeper.catalog import Catalog
from sweeper.dispatch import Workers
from sweeper.run import run_study
from sweeper.runner import Completed, Interrupted, Job, Reported, Stopped
from sweeper.search import Search
from sweeper.study import load_study
from sweeper.study_folder import StudyFolder

RECIPE = json.dumps({"train": {"epochs": 3, "optimizer": {"lr": 0.01}}})


class Hands:
    """The hands of a clock that go on only where a test moves them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.clock = Clock(lambda: self.seconds)

    def workers(self, slots: int) -> SimulatedWorkers:
        workers: Workers = SimulatedWorkers(slots, self.clock, epoch_seconds=60.0, generator=random.Random(0))
        assert isinstance(workers, SimulatedWorkers)
        return workers


@pytest.fixture
def hands() -> Hands:
    return Hands()


def _heard(workers: SimulatedWorkers) -> Reported:
    event = workers.wait(1000.0)
    assert isinstance(event, Reported)
    return event


def test_an_epoch_takes_its_time_and_costs_none(hands: Hands) -> None:
    workers = hands.workers(1)
    workers.submit(Job(7, RECIPE, ""))
    assert workers.wait(10.0) is None
    assert hands.clock.now() == 10.0
    report = _heard(workers).report
    assert (report.epoch, report.epochs) == (1, 3)
    assert 48.0 <= hands.clock.now() <= 72.0
    assert hands.seconds == 0.0


def test_an_answer_takes_from_when_the_worker_would_have_spoken(hands: Hands) -> None:
    workers = hands.workers(2)
    workers.submit(Job(0, RECIPE, ""))
    workers.submit(Job(1, RECIPE, ""))
    first = _heard(workers)
    due = hands.clock.now()
    hands.seconds += 100.0  # for so long the orchestrator does something else
    workers.answer(first.number, True)
    second = _heard(workers)
    assert hands.clock.now() == due + 100.0, "it had spoken long ago"
    workers.answer(second.number, True)
    assert workers.answer_seconds[0] == 100.0
    assert 76.0 <= workers.answer_seconds[1] < 100.0
    assert hands.clock.worked() == 100.0, "what was skipped is nobody's work"


def test_a_trial_tells_of_each_epoch_and_of_its_end(hands: Hands) -> None:
    workers = hands.workers(1)
    workers.submit(Job(7, RECIPE, ""))
    assert workers.free == 0
    for epoch in (1, 2, 3):
        assert _heard(workers).report.epoch == epoch
        workers.answer(7, True)
    done = workers.wait(0.0)
    assert isinstance(done, Completed)
    assert (done.number, done.result.epochs, [file.kind for file in done.result.weights]) == (7, 3, ["ema", "raw"])
    assert workers.free == 1
    assert workers.wait(10.0) is None
    hands.seconds += 5.0
    workers.submit(Job(8, RECIPE, ""))
    assert list(workers.idle_seconds) == [5.0]


def test_a_trial_stops_where_it_is_told_to(hands: Hands) -> None:
    workers = hands.workers(1)
    workers.submit(Job(7, RECIPE, ""))
    _heard(workers)
    workers.answer(7, False)
    assert workers.wait(0.0) == Stopped(7)
    with pytest.raises(KeyError):
        workers.answer(7, True)


def test_an_epoch_without_an_answer_is_told_again_after_an_interruption(hands: Hands) -> None:
    workers = hands.workers(2)
    workers.submit(Job(0, RECIPE, ""))
    first = _heard(workers)
    workers.answer(0, True)
    assert _heard(workers).report.epoch == 2
    workers.submit(Job(1, RECIPE, ""))
    workers.interrupt()
    assert [workers.wait(0.0), workers.wait(0.0), workers.wait(0.0)] == [Interrupted(0), Interrupted(1), None]
    workers.submit(Job(0, RECIPE, ""))
    assert _heard(workers).report.epoch == first.report.epoch + 1


def test_of_a_worker_that_was_killed_nothing_more_is_heard(hands: Hands) -> None:
    workers = hands.workers(1)
    workers.submit(Job(0, RECIPE, ""))
    workers.kill(0)
    assert workers.free == 1
    assert workers.wait(1000.0) is None


def test_more_trials_than_slots_are_refused(hands: Hands) -> None:
    workers = hands.workers(1)
    workers.submit(Job(0, RECIPE, ""))
    with pytest.raises(ValueError, match="all 1 slots are taken"):
        workers.submit(Job(1, RECIPE, ""))


def test_a_study_has_all_its_epochs_once(hands: Hands, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(study_text(trials=9, workers=4, epochs=3))
    study = load_study(path)
    url = f"sqlite:///{tmp_path / 'sweeper.db'}"
    workers = hands.workers(4)
    with closing(Catalog(url)) as catalog, closing(Search(study, url, study.name)) as search:
        row = catalog.add_study(
            study.name, digest=study.digest, text=study.text, metric=study.search.metric, trials_asked=9
        )
        run_study(study, row, search, workers, catalog, Watcher(), folder=StudyFolder(tmp_path, study.name))
        epochs, trials = catalog.epochs(row.id), catalog.trials(row.id)
    assert [trial.state for trial in trials] == ["complete"] * 9
    told = {trial.number: [epoch.epoch for epoch in epochs[trial.id]] for trial in trials}
    assert told == {number: [1, 2, 3] for number in range(9)}
    # Three trials one after another on at least one slot, while the orchestrator's own clock stood still.
    assert 3 * 3 * 48.0 <= hands.clock.now() <= 3 * 3 * 72.0
    assert max(workers.answer_seconds) == pytest.approx(0.0, abs=1e-9)
