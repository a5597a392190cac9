"""The checker says of a good study nothing, and of each record that is broken exactly what is wrong with it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.checker import Findings, Snapshot, Twin, check, read_twin, take_snapshot
from tests.faults.orchestrator import launch, wait_for
from tests.faults.records import Place, read_trained
from tests.faults.studies import NAME, Variant

pytestmark = pytest.mark.slow

EPOCHS = 2
SMALL = Variant(
    "small", "sampler: random, pruner: {name: none}", trials=3, epochs=EPOCHS, concurrent=1, finish="seeds: 0"
)
WEIGHTS = "trials/0001/weights/raw.safetensors"
MOVES = range(100_000, 100_004)
"""Two soups and two ensembles."""


@dataclass(frozen=True)
class Finished:
    """A study that ran without a fault, in a copy that a test may break."""

    place: Place
    snapshot: Snapshot
    twin: Twin
    batches_per_epoch: int

    def sql(self, *statements: str) -> None:
        """Change the catalog or Optuna's history."""
        self._change(self.place.home / "sweeper.db", statements)

    def mlflow(self, *statements: str) -> None:
        """Change MLflow's store."""
        self._change(self.place.mlflow_store, statements)

    def trains(self, number: int, epoch: int) -> None:
        """Write down that a trial trained on the last batch of that epoch, now."""
        batch = epoch * self.batches_per_epoch
        with self.place.trained.open("a") as log:
            log.write(f"{number} {batch} 1\n")

    def check(self, **changed: Twin) -> Findings:
        return check(
            self.place,
            batches_per_epoch=self.batches_per_epoch,
            before=[self.snapshot],
            twin=changed.get("twin", self.twin),
        )

    def _change(self, file: Path, statements: tuple[str, ...]) -> None:
        connection = sqlite3.connect(file)
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement
        connection.commit()
        connection.close()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study: `study` with what the user wrote, `home` with all the rest."""
    folder = tmp_path_factory.mktemp("checker")
    file = SMALL.write(folder / "study")
    elsewhere = ("SWEEPER_DATABASE_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "RAY_ADDRESS")
    env = {key: value for key, value in os.environ.items() if key not in elsewhere}
    logs = folder / "logs"
    logs.mkdir()
    process = launch(
        file, logs, env | {"SWEEPER_HOME": str(folder / "home")}, ["--in-process"], core=max(os.sched_getaffinity(0))
    )
    assert wait_for(process, 240.0) == 0, process.err.read_text()
    return folder


@pytest.fixture
def finished(original: Path, tmp_path: Path) -> Finished:
    """A copy of it, and what is known of it."""
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    home = copy / "home"
    database = f"sqlite:///{home / 'sweeper.db'}"
    place = Place(home, NAME, database, home / "mlflow.db", copy / "study" / "trained.log")
    batches = max(batch.batch for batch in read_trained(place)) // EPOCHS
    return Finished(place, take_snapshot(place), read_twin(place), batches)


TRIAL_1 = "number = 1"
ROW_1 = "trial_id = (SELECT id FROM sweeper_trials WHERE number = 1)"
OPTUNA_1 = "trial_id = (SELECT trial_id FROM trials WHERE number = 1)"
RUN_1 = "run_uuid = (SELECT run_uuid FROM tags WHERE key = 'sweeper.trial' AND value = '1')"
METRIC = "key = 'validation.loss' AND step = 2"

BREAKS: dict[str, tuple[list[str], list[str], str, int, int]] = {
    # statements on the database, statements on MLflow's store, what is said, whether it counts as loss, as duplicate
    "a trial that ended otherwise": (
        [f"UPDATE sweeper_trials SET ended_at = 1.0 WHERE {TRIAL_1}"],
        [],
        "trial 1: ended_at was",
        0,
        0,
    ),
    "a trial with another run": (
        [f"UPDATE sweeper_trials SET run_id = 'abc' WHERE {TRIAL_1}"],
        [],
        "trial 1: another MLflow run than before",
        0,
        0,
    ),
    "an epoch recorded again": (
        [f"UPDATE sweeper_epochs SET reported_at = 1.0 WHERE epoch = 2 AND {ROW_1}"],
        [],
        "trial 1: epoch 2 was recorded a second time in the catalog",
        0,
        1,
    ),
    "an epoch that the catalog lost": (
        [f"DELETE FROM sweeper_epochs WHERE epoch = 1 AND {ROW_1}"],
        [],
        "trial 1: epoch 1 is missing in the catalog",
        1,
        1,
    ),
    "an epoch that Optuna lost": (
        [f"DELETE FROM trial_intermediate_values WHERE step = 2 AND {OPTUNA_1}"],
        [],
        "trial 1: epoch 2 is missing in Optuna",
        1,
        0,
    ),
    "an epoch that only Optuna has": (
        [
            "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) "
            "SELECT trial_id, 9, 0.5, 'FINITE' FROM trials WHERE number = 1"
        ],
        [],
        "trial 1: epoch 9 is in Optuna, and not in the catalog",
        0,
        1,
    ),
    "an epoch of another value in Optuna": (
        [f"UPDATE trial_intermediate_values SET intermediate_value = 0.123 WHERE step = 2 AND {OPTUNA_1}"],
        [],
        "trial 1: epoch 2 has another validation.accuracy in Optuna",
        0,
        0,
    ),
    "a metric that MLflow lost": (
        [],
        [f"DELETE FROM metrics WHERE {METRIC} AND {RUN_1}"],
        "trial 1: validation.loss of epoch 2 is missing in MLflow",
        1,
        0,
    ),
    "a metric twice in MLflow": (
        [],
        [
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
            f"SELECT key, value, timestamp + 1, run_uuid, step, is_nan FROM metrics WHERE {METRIC} AND {RUN_1}"
        ],
        "trial 1: validation.loss of epoch 2 is in MLflow 2 times",
        0,
        1,
    ),
    "another number in MLflow": (
        [],
        [f"UPDATE metrics SET value = 0.123 WHERE {METRIC} AND {RUN_1}"],
        "trial 1: validation.loss of epoch 2 is another in MLflow",
        0,
        0,
    ),
    "an epoch that only MLflow has": (
        [],
        [f"UPDATE metrics SET step = 7 WHERE {METRIC} AND {RUN_1}"],
        "trial 1: validation.loss of epoch 7 is in MLflow, and not in the catalog",
        1,
        1,
    ),
    "a study that still runs": (
        ["UPDATE sweeper_studies SET state = 'running'"],
        [],
        "the study's state is 'running', expected 'finished'",
        0,
        0,
    ),
    "a study that is still held": (
        ["UPDATE sweeper_studies SET owner = 'somebody'"],
        [],
        "the study's owner is 'somebody', expected None",
        0,
        0,
    ),
    "a history that nobody uses": (
        ["INSERT INTO studies (study_name) VALUES ('faulty@2')"],
        [],
        "Optuna has a study 'faulty@2' that nobody uses",
        0,
        0,
    ),
    "a trial that Optuna believes running": (
        [f"UPDATE trials SET state = 'RUNNING' WHERE {TRIAL_1}"],
        [],
        "trial 1: it is complete in the catalog and RUNNING in Optuna",
        0,
        0,
    ),
    "another value in Optuna": (
        [f"UPDATE trial_values SET value = 0.123 WHERE {OPTUNA_1}"],
        [],
        "in the catalog and 0.123 in Optuna",
        0,
        0,
    ),
    "another sample in Optuna": (
        [f"UPDATE trial_params SET param_value = 0.123 WHERE param_name = 'train.optimizer.lr' AND {OPTUNA_1}"],
        [],
        "in the catalog and 0.123 in Optuna",
        0,
        0,
    ),
    "a trial too many in Optuna": (
        [f"INSERT INTO trials (number, study_id, state) SELECT number, study_id, 'FAIL' FROM trials WHERE {TRIAL_1}"],
        [],
        "Optuna has the trials [0, 1, 1, 2], the catalog [0, 1, 2]",
        1,
        0,
    ),
    "a run that MLflow believes running": (
        [],
        [f"UPDATE runs SET status = 'RUNNING' WHERE {RUN_1}"],
        "trial 1: it is complete in the catalog and RUNNING in MLflow",
        0,
        0,
    ),
    "a study's run that goes on": (
        [],
        ["UPDATE runs SET status = 'RUNNING' WHERE name = 'faulty'"],
        "the study's run in MLflow is RUNNING",
        0,
        0,
    ),
    "a run that was never closed with its state": (
        [],
        [f"DELETE FROM tags WHERE key = 'state' AND {RUN_1}"],
        "trial 1: it is complete in the catalog, its tag in MLflow says otherwise",
        0,
        0,
    ),
    "a second run of a trial": (
        [],
        [
            "INSERT INTO runs (run_uuid, name, status, lifecycle_stage, experiment_id) "
            f"SELECT 'second', name, status, lifecycle_stage, experiment_id FROM runs WHERE {RUN_1}",
            f"INSERT INTO tags (key, value, run_uuid) SELECT key, value, 'second' FROM tags WHERE {RUN_1}",
        ],
        "trial 1: 2 runs in MLflow",
        0,
        1,
    ),
    "a winner that is not registered": (
        [],
        ["DELETE FROM registered_model_aliases"],
        "the winner's weights are not registered as @best",
        0,
        0,
    ),
    "weights that are not there": (
        ["UPDATE sweeper_weights SET path = 'trials/0001/weights/gone.safetensors' WHERE path = '" + WEIGHTS + "'"],
        [],
        "trials/0001/weights/gone.safetensors: the catalog names it, and it is not there",
        0,
        0,
    ),
    "weights of another size": (
        [f"UPDATE sweeper_weights SET bytes = 1 WHERE path = '{WEIGHTS}'"],
        [],
        f"{WEIGHTS}: its content is not what the catalog says",
        0,
        0,
    ),
    "a move that has not ended": (
        ["UPDATE sweeper_trials SET state = 'waiting' WHERE number = 100001"],
        [],
        "trial 100001: it is waiting in the catalog",
        0,
        0,
    ),
    "a move made twice": (
        [
            "UPDATE sweeper_trials SET recipe = (SELECT recipe FROM sweeper_trials WHERE number = 100000) "
            "WHERE number = 100001"
        ],
        [],
        "trial 100001: made by the recipe of trial 100000",
        0,
        1,
    ),
    "a move that is gone": (
        ["DELETE FROM sweeper_trials WHERE number = 100001"],
        [],
        "trial 100001: it is there uninterrupted alone",
        0,
        0,
    ),
    "a move's epoch": (
        [
            "INSERT INTO sweeper_epochs (trial_id, epoch, metrics, seconds, reported_at, delivered) "
            "SELECT id, 1, '{}', 1.0, 1.0, 1 FROM sweeper_trials WHERE number = 100001"
        ],
        [],
        "trial 100001: epoch 1 is in the catalog, beyond its last, 0",
        1,
        1,
    ),
    "a winner without a verdict": (
        ["UPDATE sweeper_studies SET winner = json_remove(winner, '$.verdict')"],
        [],
        "the study's winner was chosen without a verdict on the finalists",
        0,
        0,
    ),
    "a complete trial without weights": (
        [f"DELETE FROM sweeper_weights WHERE {ROW_1}"],
        [],
        "trial 1: it is complete and has no weights",
        0,
        0,
    ),
}


def test_a_study_that_ran_well_is_found_well(finished: Finished) -> None:
    assert finished.check() == Findings()
    assert sorted(finished.snapshot.epochs) == [0, 1, 2, *MOVES]
    assert finished.snapshot.trained == 3 * EPOCHS * finished.batches_per_epoch


@pytest.mark.parametrize("broken", BREAKS)
def test_each_record_that_is_broken_is_found(finished: Finished, broken: str) -> None:
    statements, in_mlflow, said, lost, duplicates = BREAKS[broken]
    finished.sql(*statements)
    finished.mlflow(*in_mlflow)
    found = finished.check()
    assert [line for line in found.violations if said in line], found.violations
    assert (found.lost_epochs > 0, found.duplicates > 0) == (lost > 0, duplicates > 0)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_cut, "its content is not what the catalog says"),
        (_flip, "its content is not what the catalog says"),
        (Path.unlink, "the catalog names it, and it is not there"),
    ],
)
@pytest.mark.parametrize("path", [WEIGHTS, "winner/weights.safetensors"])
def test_each_file_that_is_harmed_is_found(
    finished: Finished, path: str, harm: Callable[[Path], None], said: str
) -> None:
    harm(finished.place.folder / path)
    assert finished.check().violations == [f"{path}: {said}"]


def test_training_again_what_had_ended_is_found(finished: Finished) -> None:
    finished.trains(1, epoch=2)
    found = finished.check()
    said = "trial 1: epoch 2 was finished and was trained again"
    assert found.violations == ["trial 1: it had ended and trained again", said]
    assert (found.lost_epochs, found.duplicates) == (1, 0)


def test_only_what_was_finished_must_not_be_trained_again(finished: Finished) -> None:
    first = {1: {1: finished.snapshot.epochs[1][1]}}
    going = {number: {**row, "state": "running"} for number, row in finished.snapshot.trials.items()}
    began = dataclasses.replace(finished.snapshot, trials=going, epochs=first, saved={})
    finished.trains(1, epoch=2)
    assert dataclasses.replace(finished, snapshot=began).check() == Findings()
    saved = dataclasses.replace(began, saved={1: 2})
    found = dataclasses.replace(finished, snapshot=saved).check()
    assert found.violations == ["trial 1: epoch 2 was finished and was trained again"]


def test_training_what_no_trial_is_is_found(finished: Finished) -> None:
    with finished.place.trained.open("a") as log:
        log.write("3 1 1\n")
    assert finished.check().violations == ["trial 3: it was trained, and is not in the catalog"]


def test_a_trial_that_is_gone_is_found(finished: Finished) -> None:
    finished.sql(f"DELETE FROM sweeper_trials WHERE {TRIAL_1}")
    assert "trial 1: it was in the catalog and is gone" in finished.check().violations


def test_what_differs_from_the_uninterrupted_twin_is_found(finished: Finished) -> None:
    twin = finished.twin
    other = {**twin.params, 1: {**twin.params[1], "train.optimizer.lr": 0.5}}
    found = finished.check(twin=dataclasses.replace(twin, params=other))
    assert found.violations == ["trial 1: sampled otherwise than in an uninterrupted study"]
    other_metrics = {**twin.metrics, 1: {**twin.metrics[1], 2: {"validation.loss": 0.5}}}
    found = finished.check(twin=dataclasses.replace(twin, metrics=other_metrics))
    assert found.violations == ["trial 1: epoch 2 came to other numbers than uninterrupted"]


def test_start_up_samples_drawn_twice_are_found(finished: Finished) -> None:
    finished.sql(
        "UPDATE sweeper_trials SET params = (SELECT params FROM sweeper_trials WHERE number = 0) WHERE number = 2"
    )
    found = finished.check()
    assert "trial 2: sampled exactly as trial 0" in found.violations
    assert found.duplicates == 1
