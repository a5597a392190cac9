"""`sweeper retry`, in one process and with trials that take no time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from rich.console import Console

from sweeper.catalog import Catalog, StudyRow, TrialRow
from sweeper.cli import main
from sweeper.errors import StudyError
from sweeper.retry import retry
from sweeper.settings import Settings, load_settings
from sweeper.start import start
from sweeper.tracking import Tracker

STUDY = """\
study: small
data: {source: digits}
model: {build: linear}
train:
  epochs: 3
  optimizer: {name: sgd, lr: {log: [0.001, 1.0]}}
search:
  sampler: tpe
  trials: 5
  pruner: {name: none}
  start_with: [{train.optimizer.lr: 0.05}, {train.optimizer.lr: 0.5}, {train.optimizer.lr: 0.3}]
"""


class Life:
    """A study in a home of its own, of which the trials above a rate of 0.1 have failed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.catalog = Catalog(settings.database_url)
        self.client = MlflowClient(settings.tracking_uri)

    def __call__(self, act: Any, *said: Any, **words: Any) -> list[str]:
        out = io.StringIO()
        assert act(*said, self.settings, Console(file=out, width=200), **{"in_process": True, **words}) == 0
        return out.getvalue().splitlines()

    @property
    def row(self) -> StudyRow:
        return self.catalog.study("small")

    def deliver(self) -> None:
        """Give MLflow what it is owed; a study without a winner keeps it for later."""
        assert Tracker(self.settings, self.catalog, self.row, self.row.text, {}).close()

    @property
    def trials(self) -> list[TrialRow]:
        return self.catalog.trials(self.row.id)

    def failed(self) -> list[int]:
        return [trial.number for trial in self.trials if trial.state == "failed"]

    def histories(self) -> dict[str, list[str]]:
        """The states of the trials in each history of the search."""
        storage = optuna.storages.RDBStorage(self.settings.database_url)
        try:
            names = optuna.get_all_study_names(storage)
            return {
                name: [t.state.name for t in optuna.load_study(study_name=name, storage=storage).trials]
                for name in names
            }
        finally:
            storage.remove_session()
            storage.engine.dispose()


@pytest.fixture
def life(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    monkeypatch.setattr("sweeper.carry_out.publish_winner", lambda *_, **__: None)  # there is no model in fake weights
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    life = Life(load_settings())
    with closing(life.catalog):
        life(start, file, train="fake_training:diverges")
        yield life


def test_failed_trials_go_on_under_their_own_numbers(life: Life) -> None:
    life.deliver()
    before, failed = life.trials, life.failed()
    assert {1, 2} <= set(failed)
    assert life(retry, "small", numbers=[2], train="fake_training:instant")[0] == "retrying trial 0002 of study 'small'"
    assert life.failed() == [number for number in failed if number != 2]
    trial = life.trials[2]
    assert (trial.state, trial.failure, trial.reason, trial.params, trial.recipe, trial.run_id) == (
        "complete", None, None, before[2].params, before[2].recipe, before[2].run_id,
    )  # fmt: skip
    [mark] = trial.attempts
    assert (mark["kind"], mark["reason"]) == ("retry", before[2].reason)
    assert [epoch.epoch for epoch in life.catalog.epochs(life.row.id)[trial.id]] == [1, 2, 3]
    assert [row for row in life.trials if row.number != 2] == [row for row in before if row.number != 2]
    assert (life.row.state, life.row.history) == ("finished", "small@2")
    states = ["PRUNED" if row.failure == "diverged" else row.state.upper() for row in life.trials]
    assert life.histories() == {"small@2": states}
    life.deliver()
    run = life.client.get_run(str(trial.run_id))
    assert (run.info.status, run.data.tags["state"], run.data.tags["reason"]) == ("FINISHED", "complete", "")
    assert [point.step for point in life.client.get_metric_history(str(trial.run_id), "validation.accuracy")] == [
        1,
        2,
        3,
    ]

    lines = life(retry, "small", train="fake_training:instant")
    rest = [number for number in failed if number != 2]
    assert lines[0].startswith(f"retrying trial{'s' if len(rest) > 1 else ''} {rest[0]:04d}")
    assert life.failed() == []
    assert life.histories() == {"small@3": ["COMPLETE"] * 5}
    assert life(retry, "small") == ["study 'small' has no failed trial; nothing to retry"]


def test_one_that_fails_again_is_what_it_was(life: Life) -> None:
    failed = life.failed()
    before = life.trials[1]
    life(retry, "small", numbers=[1], train="fake_training:diverges")
    trial = life.trials[1]
    assert life.failed() == failed
    assert (trial.state, trial.failure, trial.reason) == ("failed", before.failure, before.reason)
    assert [attempt["kind"] for attempt in trial.attempts] == ["retry"]
    assert life.row.state == "finished"


@pytest.mark.parametrize("step", ["write_anew", "carry_out", "add_trials"])
def test_a_kill_at_any_step_loses_nothing(step: str, life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the one write of the catalog nothing was asked for; after it, `start` does it."""
    failed, histories = life.failed(), life.histories()

    def killed(*_: Any, **__: Any) -> Any:
        raise MemoryError("killed")

    place = {"add_trials": "optuna.Study.add_trials"}.get(step, f"sweeper.retry.{step}")
    with monkeypatch.context() as patch:
        patch.setattr(place, killed)
        with pytest.raises(MemoryError):
            life(retry, "small", numbers=[1])
    file = Path(life.row.file)
    life(start, file, train="fake_training:instant")
    asked = step == "carry_out"
    assert life.failed() == [number for number in failed if number != 1 or not asked]
    assert life.row.history == ("small@2" if asked else "small")
    if asked:
        assert list(life.histories()) == ["small@2"]
        return
    # What a kill left half written goes when the study is next carried out.
    life(retry, "small", train="fake_training:instant")
    assert life.failed() == []
    assert life.histories() == {"small@2": ["COMPLETE"] * 5}
    assert set(histories) == {"small"}


def test_what_did_not_fail_is_refused_in_one_line(life: Life) -> None:
    known = ", ".join(map(str, life.failed()))
    before = life.trials
    with pytest.raises(StudyError) as caught:
        life(retry, "small", numbers=[1, 0])
    line = f"trial: found 0, expected a failed trial of study 'small': {known}"
    assert str(caught.value) == line
    done = CliRunner().invoke(main, ["retry", "small", "1", "0"])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"error: {line}\n")
    done = CliRunner().invoke(main, ["retry", "smal"])
    assert (done.exit_code, done.stderr) == (2, "error: no study named 'smal' here; studies: small\n")
    assert life.trials == before
    assert life.row.owner is None
