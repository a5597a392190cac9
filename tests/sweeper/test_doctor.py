"""What `sweeper doctor` says of one good study in which a record at a time was broken, and how it mends that."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console

from sweeper.catalog import Catalog, TrialRow
from sweeper.doctor import doctor
from sweeper.errors import StudyFailed, StudyHeld
from sweeper.extend import extend
from sweeper.lease import Lease
from sweeper.settings import Settings
from sweeper.start import start
from sweeper.study_folder import StudyFolder

STUDY = """\
study: small
data: {source: digits}
model: {build: linear}
train: {epochs: 2, optimizer: {name: sgd, lr: {log: [0.001, 1.0]}}}
search: {trials: 3, sampler: random, pruner: {name: none}}
storage: {extendable: 2}
"""
GOOD = "small: nothing disagrees (3 trials, 6 epochs, 4 files, 2 checkpoints, 4 runs checked)"


class Patient:
    """A finished study in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings = Settings(home, f"sqlite:///{home / 'sweeper.db'}", f"sqlite:///{home / 'mlflow.db'}", None)
        self.folder = StudyFolder(home, "small")

    def doctor(self, **said: Any) -> tuple[int, list[str]]:
        out = io.StringIO()
        code = doctor("small", self.settings, Console(file=out, width=400), **said)
        return code, out.getvalue().splitlines()

    def start(self) -> str:
        out = io.StringIO()
        assert start(self.home / "study.yaml", self.settings, Console(file=out, width=400), in_process=True) == 0
        return out.getvalue()

    def sql(self, *statements: str, file: str = "sweeper.db") -> None:
        with closing(sqlite3.connect(self.home / file)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.settings.tracking_uri, self.settings.tracking_uri)

    def trial(self, number: int) -> TrialRow:
        with closing(Catalog(self.settings.database_url)) as catalog:
            return catalog.trial(catalog.study("small").id, number)

    @property
    def winner(self) -> dict[str, Any]:
        with closing(Catalog(self.settings.database_url)) as catalog:
            return catalog.study("small").winner or {}

    def bad(self) -> list[str]:
        """What disagrees, without the study's name."""
        code, lines = self.doctor()
        assert code == 1
        return [line.removeprefix("small: ") for line in lines]

    def mend(self) -> None:
        """All is mended, and then good."""
        code, lines = self.doctor(repair=True)
        assert (code, lines[-1]) == (0, GOOD), lines
        assert all(line.startswith("small: mended: ") for line in lines[:-1])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a study that has just finished."""
    home = tmp_path_factory.mktemp("good")
    (home / "study.yaml").write_text(STUDY)
    Patient(home).start()
    return home


@pytest.fixture
def patient(good: Path, tmp_path: Path) -> Patient:
    # In a new place each time, since MLflow keeps databases open.
    shutil.copytree(good, tmp_path / "home")
    patient = Patient(tmp_path / "home")
    patient.sql(f"UPDATE sweeper_studies SET tracking_uri = '{patient.settings.tracking_uri}'")
    return patient


def test_an_extension_that_failed_midway_is_no_fault(patient: Patient) -> None:
    train = "fake_training:really_fails_to_go_on"
    with pytest.raises(StudyFailed, match="no extension ran to its end"):
        extend("small", patient.settings, Console(file=io.StringIO()), epochs=3, in_process=True, train=train)
    assert patient.doctor() == (0, [GOOD.replace("6 epochs", "7 epochs").replace("2 checkpoints", "3 checkpoints")])


def test_a_good_study_is_good(patient: Patient) -> None:
    before = {path: path.stat().st_mtime_ns for path in patient.folder.root.rglob("*")}
    assert patient.doctor() == (0, [GOOD])
    assert patient.doctor(repair=True) == (0, [GOOD])
    assert {path: path.stat().st_mtime_ns for path in patient.folder.root.rglob("*")} == before
    code, lines = patient.doctor(as_json=True)
    assert (code, json.loads("\n".join(lines))) == (
        0,
        {
            "studies": [
                {
                    "study": "small",
                    "running": False,
                    "mended": [],
                    "findings": [],
                    "notes": [],
                    "checked": {"trials": 3, "epochs": 6, "files": 4, "checkpoints": 2, "runs": 4},
                }
            ]
        },
    )


HISTORY = "--repair writes Optuna's history anew from the catalog"
OPTUNA_2 = "(SELECT trial_id FROM trials WHERE number = 2)"


def test_optuna(patient: Patient) -> None:
    value, first = patient.trial(0).value, "trial 0000"
    patient.sql(
        "UPDATE trial_values SET value = 0.125 WHERE trial_id = (SELECT trial_id FROM trials WHERE number = 0)",
        "UPDATE trial_params SET param_value = 0.5 WHERE trial_id = (SELECT trial_id FROM trials WHERE number = 1)",
        f"DELETE FROM trial_intermediate_values WHERE step = 1 AND trial_id = {OPTUNA_2}",
        f"UPDATE trials SET state = 'FAIL' WHERE trial_id = {OPTUNA_2}",
        "INSERT INTO trials (number, study_id, state) SELECT 3, study_id, 'RUNNING' FROM studies",
        "INSERT INTO studies (study_name) VALUES ('small@2'), ('small@x')",
    )
    rate = patient.trial(1).params["train.optimizer.lr"]
    assert patient.bad() == [
        "study: Optuna has a history 'small@2' that nobody uses; --repair removes it",
        f"trial 0003: missing in the catalog, running in Optuna; {HISTORY}",
        f"{first}: value {value} in the catalog, 0.125 in Optuna; {HISTORY}",
        f"trial 0001: train.optimizer.lr is {rate} in the catalog, 0.5 in Optuna; {HISTORY}",
        f"trial 0002: complete in the catalog, failed in Optuna; {HISTORY}",
        f"trial 0002: epoch 1 in the catalog, missing in Optuna; {HISTORY}",
    ]
    patient.mend()

    patient.sql("UPDATE studies SET study_name = 'lost' WHERE study_name = 'small@2'")
    assert patient.bad() == [f"study: Optuna has no history 'small@2', which the catalog names; {HISTORY}"]
    patient.mend()


def test_what_a_kill_leaves_of_an_unfinished_study_is_no_fault(patient: Patient) -> None:
    """It had recorded an end that the search had not heard of, and asked for a trial that it had not begun."""
    patient.sql(
        "UPDATE sweeper_studies SET state = 'stopped', trials_asked = 4, winner = NULL",
        f"UPDATE trials SET state = 'RUNNING' WHERE trial_id = {OPTUNA_2}",
        f"DELETE FROM trial_intermediate_values WHERE step = 2 AND trial_id = {OPTUNA_2}",
        "INSERT INTO trials (number, study_id, state) SELECT 3, study_id, 'RUNNING' FROM studies",
    )
    shutil.rmtree(patient.folder.package(1))
    patient.sql("UPDATE runs SET status = 'KILLED' WHERE name = 'small'", file="mlflow.db")
    assert patient.doctor() == (
        0,
        ["small: nothing disagrees (3 trials, 6 epochs, 3 files, 2 checkpoints, 4 runs checked)"],
    )


def test_mlflow(patient: Patient) -> None:
    client, runs = patient.client, [str(patient.trial(number).run_id) for number in range(3)]
    experiment = client.get_run(runs[0]).info.experiment_id
    tags = {**client.get_run(runs[0]).data.tags}
    twin = client.create_run(experiment, tags=tags).info.run_id
    stranger = client.create_run(experiment, tags={**tags, "sweeper.trial": "7"}).info.run_id
    client.delete_run(runs[1])
    client.set_terminated(runs[2], "FAILED")
    again = client.get_metric_history(runs[0], "train.loss")[0]
    client.log_metric(runs[0], "train.loss", 0.25, step=1)
    patient.sql(
        f"DELETE FROM metrics WHERE key = 'validation.loss' AND step = 2 AND run_uuid = '{runs[2]}'",
        f"UPDATE metrics SET value = 0.5 WHERE key = 'validation.loss' AND step = 2 AND run_uuid = '{runs[0]}'",
        "DELETE FROM registered_model_aliases",
        file="mlflow.db",
    )
    with closing(Catalog(patient.settings.database_url)) as catalog:
        loss = catalog.epochs(1)[1][1].metrics["validation.loss"]
    assert again.step == 1
    bad = patient.bad()
    assert sorted(bad[:2]) == sorted(
        [
            f"trial 0000: run {runs[0]} in the catalog, a second one in MLflow: {twin}; --repair deletes the run",
            f"trial 0007: missing in the catalog, run {stranger} in MLflow; --repair deletes the run",
        ]
    )
    anew, told = "--repair deletes the run and delivers it anew", "--repair delivers it again"
    assert bad[2:] == [
        f"trial 0000: train.loss of epoch 1 is in MLflow 2 times; {anew}",
        f"trial 0000: validation.loss of epoch 2 is {loss} in the catalog, 0.5 in MLflow; {anew}",
        f"trial 0001: its run {runs[1]} is in the catalog, but not in MLflow; {told}",
        f"trial 0002: complete in the catalog, FAILED in MLflow; {told}",
        f"trial 0002: validation.loss of epoch 2 in the catalog, missing in MLflow; {told}",
        "study: model version 1 in the catalog, none has the alias best; --repair hands the winner over again",
    ]
    patient.mend()
    assert patient.trial(2).run_id == runs[2]
    assert [point.step for point in client.get_metric_history(runs[2], "validation.loss")] == [1, 2]


def test_an_mlflow_that_is_gone(patient: Patient) -> None:
    (patient.home / "mlflow.db").unlink()
    where = f"MLflow at {patient.settings.tracking_uri}"
    gone = f"study: told to {where} by the catalog, but that database is gone; --repair delivers it again"
    assert patient.bad() == [gone]
    assert not (patient.home / "mlflow.db").exists(), "to look leaves no trace"
    patient.mend()


def test_files(patient: Patient) -> None:
    folder, winner = patient.folder, patient.winner["path"]
    other = folder.trial(0) / "weights/raw.safetensors"
    other.unlink()
    _flip(folder.file(winner))
    (folder.trial(0) / ".result.json.tmp").write_text("half")
    (folder.trial(0) / "checkpoints/epoch-0001").mkdir(parents=True)
    folder.trial(9).mkdir()
    (folder.root / ".winner.x").mkdir()
    (folder.root / "winner-5").mkdir()
    (folder.trials / "notes").mkdir()
    number = patient.winner["trial"]
    lines = patient.bad()
    killed = "half written, by a process that was killed; --repair removes it"
    dropped = "--repair drops them from the leaderboard"
    assert lines[1].startswith(
        f"trials/{number:04d}/weights/raw.safetensors: sha256 {patient.winner['sha256'][:12]}..."
    )
    assert lines[1].endswith("... on the disk; --repair copies them from the winner's package")
    assert [lines[0], *lines[2:]] == [
        f"trials/0000/weights/raw.safetensors: in the catalog, but the file is gone; {dropped}",
        f".winner.x: {killed}",
        "winner-5: a package that is not the winner's; --repair removes it",
        f"trials/0000/.result.json.tmp: {killed}",
        "trials/0000/checkpoints: of a complete trial that nothing goes on from; --repair removes it",
        "trials/0009: a trial that the catalog does not know; --repair removes it",
    ]
    code, said = patient.doctor(repair=True)
    assert (code, said[-1]) == (0, GOOD.replace("4 files", "3 files"))
    assert not folder.trial(9).exists()
    assert (folder.trials / "notes").exists(), "nobody's business"


def test_checkpoints_of_trials_that_could_be_extended(patient: Patient) -> None:
    numbers = [number for number in range(3) if patient.folder.has_resume_point(number, 2)]
    flipped, headless = (f"trials/{number:04d}/checkpoints/epoch-0002" for number in numbers)
    _flip(patient.folder.file(f"{flipped}/state.pt"))
    patient.folder.file(f"{headless}/manifest.json").unlink()
    otherwise, removed = "its digest is not that of what was written", "--repair removes what it would go on from"
    assert patient.bad() == [
        f"{flipped}/state.pt: damaged ({otherwise}), so that trial {numbers[0]:04d} cannot be extended; {removed}",
        f"{headless}/manifest.json: damaged (it is gone), so that trial {numbers[1]:04d} cannot be extended; {removed}",
    ]
    code, lines = patient.doctor(repair=True)
    assert (code, lines[-1]) == (0, GOOD.replace("2 checkpoints", "0 checkpoints"))
    assert not any(patient.folder.resume_point_bytes(number) for number in range(3))


def test_checkpoints_of_a_trial_that_waits(patient: Patient) -> None:
    """The trial sets aside itself what is damaged, so that this is no fault."""
    number = next(number for number in range(3) if patient.folder.has_resume_point(number, 2))
    patient.sql(
        "UPDATE sweeper_studies SET state = 'stopped', winner = NULL",
        f"UPDATE sweeper_trials SET state = 'waiting' WHERE number = {number}",
        f"UPDATE trials SET state = 'RUNNING' WHERE number = {number}",
    )
    shutil.rmtree(patient.folder.package(1))
    patient.sql("UPDATE runs SET status = 'KILLED'", file="mlflow.db")
    checkpoints = patient.folder.trial(number) / "checkpoints"
    shutil.copytree(checkpoints / "epoch-0002", checkpoints / "epoch-0001")
    _flip(checkpoints / "epoch-0002/state.pt")

    def notes() -> list[str]:
        return [line for line in patient.doctor()[1] if "checkpoints/" in line]

    otherwise = "its digest is not that of what was written"
    newest = (
        f"small: note: trials/{number:04d}/checkpoints/epoch-0002/state.pt: damaged ({otherwise}); trial {number:04d}"
    )
    assert notes() == [f"{newest} goes on from epoch-0001, to the same numbers"]
    (checkpoints / "epoch-0001/raw.safetensors").unlink()
    lost = f"small: note: trials/{number:04d}/checkpoints/epoch-0001/raw.safetensors: damaged (it is gone)"
    assert notes() == [
        f"{newest} begins anew, to the same numbers",
        f"{lost}; trial {number:04d} begins anew, to the same numbers",
    ]
    assert (checkpoints / "epoch-0002").is_dir(), "to look changes nothing"


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_the_winner(patient: Patient) -> None:
    """Its package is packed anew from its weights; where these are lost too, another is chosen, and looked at."""
    before, package = patient.winner, patient.folder.package(1)
    (package / "package.json").write_text("{")
    (line,) = patient.bad()
    assert line.startswith("winner: the winner's package cannot be loaded: ")
    assert line.endswith("; --repair packs the winner anew")
    patient.mend()
    assert patient.winner == {**before, "package": 2}
    assert not package.exists()

    (patient.folder.package(2) / "weights.safetensors").unlink()
    size = patient.folder.file(before["path"]).stat().st_size
    patient.folder.file(before["path"]).write_bytes(b"")
    again = "--repair drops them; `sweeper start` then chooses the winner anew, with another look at the test split"
    assert patient.bad() == [
        f"winner-2: the winner in the catalog, but the package is gone; {again}",
        f"{before['path']}: {size} bytes in the catalog, 0 on the disk; {again}",
    ]
    code, lines = patient.doctor(repair=True)
    assert code == 1, lines
    patient.start()
    assert patient.doctor() == (0, [GOOD.replace("4 files, 2 checkpoints", "3 files, 1 checkpoint")])
    assert patient.winner["trial"] != before["trial"]
    assert patient.winner["test_looks"] == 2


def test_states(patient: Patient) -> None:
    patient.sql(
        "UPDATE sweeper_studies SET trials_asked = 5",
        "UPDATE sweeper_trials SET state = 'running' WHERE number = 1",
        "INSERT INTO sweeper_epochs (trial_id, epoch, metrics, seconds, reported_at, delivered) "
        "SELECT trial_id, 9, metrics, seconds, reported_at, 0 FROM sweeper_epochs WHERE epoch = 1 AND trial_id = 1",
        "DELETE FROM sweeper_epochs WHERE epoch = 1 AND trial_id = 1",
    )
    on = "--repair sets the study to stopped, and `sweeper start` goes on with it"
    assert patient.bad()[:5] == [
        "trial 0001: running in the catalog, but nobody runs the study; --repair sets it to waiting",
        f"trial 0001: running in the catalog, but the study is finished; {on}",
        f"study: finished in the catalog, with 3 of 5 trials there; {on}",
        "trial 0000: epoch 1 missing in the catalog, of 2 trained; nothing mends it",
        "trial 0000: epoch 9 in the catalog, but its recipe ends with 2; nothing mends it",
    ]


def test_what_a_dead_orchestrator_left_rests(patient: Patient) -> None:
    patient.sql("UPDATE sweeper_studies SET state = 'running', winner = NULL, trials_asked = 4")
    patient.sql("UPDATE runs SET status = 'RUNNING' WHERE name = 'small'", file="mlflow.db")
    shutil.rmtree(patient.folder.package(1))
    assert patient.bad() == [
        "study: running in the catalog, but nobody runs it; --repair sets it to stopped",
        "study: nobody runs it, RUNNING in MLflow; --repair delivers it again",
    ]
    assert patient.doctor(repair=True)[0] == 0
    assert patient.doctor()[1] == [
        "small: nothing disagrees (3 trials, 6 epochs, 3 files, 2 checkpoints, 4 runs checked)"
    ]


def test_what_mlflow_is_owed_is_no_fault(patient: Patient) -> None:
    patient.sql("UPDATE sweeper_epochs SET delivered = 0 WHERE epoch = 2")
    patient.sql("DELETE FROM metrics WHERE step = 2", file="mlflow.db")
    assert patient.doctor() == (
        0,
        [
            "small: note: 3 epochs of 0 trials are owed to MLflow; deliver with: "
            f"sweeper sync small --home {patient.home}",
            GOOD,
        ],
    )


def test_of_a_study_that_runs_only_what_has_ended_is_compared(patient: Patient) -> None:
    now = "CAST(strftime('%s', 'now') AS REAL)"
    patient.sql(
        "UPDATE sweeper_studies SET state = 'running'",
        f"UPDATE sweeper_trials SET ended_at = {now} WHERE number = 2",
        f"UPDATE sweeper_trials SET ended_at = {now} - 90, value = 2.0 WHERE number = 0",
        "UPDATE sweeper_trials SET state = 'running', ended_at = NULL WHERE number = 1",
        f"UPDATE trials SET state = 'RUNNING' WHERE trial_id = {OPTUNA_2}",
    )
    patient.folder.trial(9).mkdir()
    value = json.loads(json.dumps(patient.trial(0).value))
    with closing(Catalog(patient.settings.database_url)) as catalog, Lease(catalog, "small"):
        code, lines = patient.doctor()
        assert code == 1
        assert lines[0].startswith("small: runs on ")
        assert lines[0].endswith(": only trials that have ended are compared")
        assert [line.partition(" in Optuna; ")[0].rpartition(", ")[0] for line in lines[1:]] == [
            f"small: trial 0000: value {value} in the catalog"
        ]
        with pytest.raises(StudyHeld, match=r"^study 'small' runs; stop it first: sweeper stop small"):
            patient.doctor(repair=True)


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (
            lambda patient: patient.sql("UPDATE sweeper_trials SET recipe = '{' WHERE number = 1"),
            "study: its rows in the catalog cannot be read (Expecting property name",
        ),
        (
            lambda patient: patient.sql("UPDATE sweeper_trials SET params = '{}' WHERE number = 1"),
            "trial 0001: its parameters in the catalog are not of the study's space ('train.optimizer.lr')",
        ),
        (
            lambda patient: patient.sql("UPDATE sweeper_trials SET recipe = '[]' WHERE number = 1"),
            "study: the catalog cannot be compared (TypeError: ",
        ),
        (
            lambda patient: patient.sql("UPDATE sweeper_studies SET text = 'study: ['"),
            "study: Optuna cannot be compared: ",
        ),
        (
            lambda patient: (patient.home / "mlflow.db").write_text("not a database at all, whatever its name says"),
            "study: MLflow cannot be compared: MLflow at sqlite:///",
        ),
        (
            lambda patient: patient.sql("UPDATE sweeper_weights SET path = '../../sweeper.db' WHERE trial_id = 1"),
            "../../sweeper.db: cannot be read: the catalog names the file '../../sweeper.db', expected one below",
        ),
        (lambda patient: patient.folder.clear(), "study: "),
    ],
)
def test_garbage_is_a_line_and_no_crash(breaks: Callable[[Patient], Any], said: str, patient: Patient) -> None:
    breaks(patient)
    lines = patient.bad()
    assert any(line.startswith(said) for line in lines), lines
    assert patient.doctor(repair=True)[0] in (0, 1)
