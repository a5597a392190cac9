"""What `sweeper rm` takes away, in which order, and what a kill in between leaves."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from sweeper.catalog import Catalog
from sweeper.cli import main
from sweeper.errors import StudyHeld, TrackingError
from sweeper.lease import Lease
from sweeper.remove import remove
from sweeper.search import told_values
from sweeper.settings import Settings, load_settings
from sweeper.start import start
from sweeper.study_folder import StudyFolder
from sweeper.tracking import Tracker

TRAIN = "fake_training:instant"


class Home:
    """A home with one study of three trials that was run, and one other."""

    def __init__(self, settings: Settings, file: Path) -> None:
        self.settings, self.file, self.out = settings, file, io.StringIO()
        self.console = Console(file=self.out, width=400)
        self.folder = StudyFolder(settings.home, "small")
        self.start()

    def start(self) -> int:
        try:
            return start(self.file, self.settings, Console(file=io.StringIO()), in_process=True, train=TRAIN)
        finally:
            # A command's process takes its tracker along when it ends; here it would go on telling MLflow of the study.
            for thread in threading.enumerate():
                if thread.name == "tracker":
                    thread.join()

    def remove(self, confirm: Callable[[str], bool] = lambda _: True, *, in_mlflow: bool = False) -> int:
        return remove("small", self.settings, self.console, confirm, in_mlflow=in_mlflow)

    def names(self) -> list[str]:
        catalog = Catalog(self.settings.database_url)
        try:
            return [study.name for study in catalog.studies()]
        finally:
            catalog.close()

    def trials(self) -> dict[int, str]:
        catalog = Catalog(self.settings.database_url)
        try:
            return {trial.number: trial.state for trial in catalog.trials(catalog.study("small").id)}
        finally:
            catalog.close()

    def runs(self) -> list[Run]:
        """The runs in MLflow, which has been told all there is."""
        catalog = Catalog(self.settings.database_url)
        tracker = Tracker(self.settings, catalog, catalog.study("small"), "", {})
        tracker.deliver()
        catalog.close()
        return list(tracker.client.search_runs([tracker.client.get_experiment_by_name("small").experiment_id]))

    def is_gone(self) -> bool:
        told = told_values(self.settings.database_url, "small")
        return (self.names(), self.folder.root.exists(), told) == (["other"], False, {})


@pytest.fixture
def home(tmp_path: Path, fakes: Path, write_study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Home:
    for variable in ("SWEEPER_DATABASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sweeper.carry_out.publish_winner", lambda *_, **__: None)  # the weights are no weights
    monkeypatch.setattr("sweeper.carry_out.hand_over", lambda _: None)
    settings = load_settings()
    catalog = Catalog(settings.database_url)
    catalog.add_study("other", digest="d", text="", metric="validation.accuracy", trials_asked=1)
    catalog.close()
    return Home(settings, write_study(trials=3))


def test_a_study_goes_and_all_that_came_of_it(home: Home) -> None:
    assert home.trials() == {0: "complete", 1: "complete", 2: "complete"}
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return True

    held = sum(path.stat().st_size for path in home.folder.root.rglob("*") if path.is_file())
    assert home.remove(confirm) == 0
    assert asked == [
        f"remove study 'small' (3 trials, {held / 1e6:.1f} MB in {home.folder.root}; "
        f"its runs and model in MLflow at {home.settings.tracking_uri} stay)?"
    ]
    assert home.is_gone()
    assert home.out.getvalue() == "removed study 'small'\n"


def test_who_says_no_keeps_all(home: Home) -> None:
    assert home.remove(lambda _: False) == 1
    assert home.trials() == {0: "complete", 1: "complete", 2: "complete"}
    assert home.out.getvalue() == "nothing removed\n"


def test_a_study_that_runs_is_kept(home: Home) -> None:
    catalog = Catalog(home.settings.database_url)
    with Lease(catalog, "small"), pytest.raises(StudyHeld, match="stop it first: sweeper stop small"):
        home.remove()
    catalog.close()
    assert len(home.trials()) == 3


@pytest.mark.parametrize(("killed_in", "then"), [("history", "start"), ("folder", "rm"), ("row", "rm")])
def test_a_removal_that_was_cut_off_is_repeated_or_the_study_begins_anew(
    killed_in: str, then: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        seam = {"history": "sweeper.search.forget", "folder": "sweeper.study_folder.StudyFolder.clear"}
        patched.setattr(seam.get(killed_in, "sweeper.catalog.Catalog.remove_study"), killed)
        with pytest.raises(KeyboardInterrupt):
            home.remove()
    assert home.names() == ["other", "small"]
    assert home.trials() == {}
    if then == "rm":
        assert home.remove() == 0
        assert home.is_gone()
    else:
        assert home.start() == 0
        assert home.trials() == {0: "complete", 1: "complete", 2: "complete"}
        assert set(told_values(home.settings.database_url, "small")) == {0, 1, 2}


def test_in_mlflow_the_runs_go_too_but_not_those_of_others(home: Home) -> None:
    before = home.runs()
    assert len(before) == 4
    client, experiment = MlflowClient(home.settings.tracking_uri), before[0].info.experiment_id
    assert home.remove(in_mlflow=True) == 0
    assert home.is_gone()
    assert client.get_experiment_by_name("small") is None
    assert client.search_runs([experiment]) == []

    assert home.start() == 0
    after = home.runs()
    other = client.create_run(after[0].info.experiment_id, tags={"sweeper.begun": "another home's"}).info.run_id
    assert len(after) == 4
    assert not {run.info.run_id for run in before} & {run.info.run_id for run in after}
    assert home.remove(in_mlflow=True) == 0
    assert [run.info.run_id for run in client.search_runs([after[0].info.experiment_id])] == [other]


def test_nothing_goes_where_mlflow_is_away(home: Home) -> None:
    away = Settings(home.settings.home, home.settings.database_url, "http://127.0.0.1:9", None)
    with pytest.raises(TrackingError, match=r"MLflow at http://127\.0\.0\.1:9"):
        remove("small", away, home.console, lambda _: True, in_mlflow=True)
    assert len(home.trials()) == 3
    assert home.folder.root.exists()


def test_without_a_terminal_it_wants_a_yes(home: Home) -> None:
    done = CliRunner().invoke(main, ["rm", "small"])
    assert done.exit_code == 2
    assert done.stderr.endswith("stay)? found no terminal to ask in; expected --yes\n")
    assert len(done.stderr.splitlines()) == 1
    done = CliRunner().invoke(main, ["rm", "small", "--yes"])
    assert (done.exit_code, done.stdout) == (0, "removed study 'small'\n")
    assert home.is_gone()
    done = CliRunner().invoke(main, ["rm", "small", "--yes"])
    assert (done.exit_code, done.stderr) == (2, "error: no study named 'small' here; studies: other\n")
