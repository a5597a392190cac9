from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sweeper.cli import main
from sweeper.errors import StudyError
from sweeper.settings import load_settings, without_password
from sweeper.store.open import open_folder
from sweeper.store.study import StoredStudyFolder
from sweeper.study_folder import StudyFolder


def test_everything_lives_below_the_home(home: Path) -> None:
    settings = load_settings()
    assert settings.home == home
    assert settings.database_url == f"sqlite:///{home}/sweeper.db"
    assert settings.tracking_uri == f"sqlite:///{home}/mlflow.db"
    assert settings.tracking_is_local
    folder = StudyFolder(settings.home, "digits")
    assert folder.trial(7) == home / "studies" / "digits" / "trials" / "0007"
    assert [folder.package(number) for number in (1, 2)] == [folder.root / "winner", folder.root / "winner-2"]
    assert settings.ray_address is None


def test_files_are_where_the_store_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().store == ""
    assert type(open_folder(load_settings(), "digits")) is StudyFolder
    monkeypatch.setenv("SWEEPER_STORE", "file:///mnt/sweeps/")
    assert load_settings().store == "file:///mnt/sweeps"
    folder = open_folder(load_settings(), "digits")
    assert isinstance(folder, StoredStudyFolder)
    assert folder.trial(7) == home / "studies" / "digits" / "trials" / "0007", "a cache of the trial's folder there"
    with pytest.raises(StudyError, match=r"^found '\.\.' as the name of a study"):
        open_folder(load_settings(), "..")


def test_home_said_outright_wins(home: Path, tmp_path: Path) -> None:
    assert load_settings(tmp_path / "other").home == tmp_path / "other"


def test_a_home_that_is_no_folder_is_a_line(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "error: {}: found {}, which is no folder; expected one, or a name for a new one\n"
    done = CliRunner().invoke(main, ["list", "--home", "/dev/null"])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", line.format("--home", "/dev/null"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "file"))
    done = CliRunner().invoke(main, ["show", "small"])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", line.format("SWEEPER_HOME", tmp_path / "file"))


def test_where_nothing_is_the_place_is_named_that_was_looked_in(tmp_path: Path, home: Path) -> None:
    there = tmp_path / "nosuch"
    done = CliRunner().invoke(main, ["list", "--home", str(there)])
    assert (done.exit_code, done.stdout) == (0, f"no studies yet in {there / 'sweeper.db'}; begin with: sweeper init\n")
    done = CliRunner().invoke(main, ["doctor", "--home", str(there)])
    assert (done.exit_code, done.stdout) == (0, f"no studies yet in {there / 'sweeper.db'}; nothing to compare\n")
    assert not there.exists()


@pytest.mark.parametrize(
    "command", ["show", "pull", "stop", "pause", "resume", "sync", "doctor", "rm", "retry", "extend"]
)
def test_an_unknown_study_is_the_same_mistake_in_every_command(command: str, home: Path) -> None:
    more = {"rm": ["--yes"], "extend": ["--trials", "3"]}.get(command, [])
    done = CliRunner().invoke(main, [command, "small", *more])
    line = f"error: no study named 'small' here; studies: none yet in {home / 'sweeper.db'}\n"
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", line)


def test_the_default_is_a_folder_here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEPER_HOME")
    monkeypatch.chdir(tmp_path)
    assert load_settings().home == tmp_path / ".sweeper"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_reached_through_psycopg_3(scheme: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPER_DATABASE_URL", f"{scheme}://ada:secret@db:5432/sweeper")
    assert load_settings().database_url == "postgresql+psycopg://ada:secret@db:5432/sweeper"


@pytest.mark.parametrize(
    ("uri", "local", "file"),
    [
        ("http://mlflow:5000", False, None),
        ("HTTPS://mlflow", False, None),
        ("databricks", False, None),
        ("databricks://profile", False, None),
        ("sqlite:////data/m.db", True, "/data/m.db"),
        ("sqlite:///here/m.db?timeout=9", True, "here/m.db"),
        ("sqlite+pysqlite:////data/m.db", True, "/data/m.db"),
        ("file:///data/mlruns", True, None),
        ("./mlruns", True, None),
    ],
)
def test_only_a_server_shows_its_runs_by_itself(
    uri: str, local: bool, file: str | None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    settings = load_settings()
    assert (settings.tracking_uri, settings.tracking_is_local) == (uri, local)
    assert settings.tracking_file == (None if file is None else Path(file))


def test_runs_in_postgresql_are_local_and_reached_through_psycopg_3(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ada:secret@db:5432/mlflow")
    settings = load_settings()
    assert settings.tracking_uri == "postgresql+psycopg://ada:secret@db:5432/mlflow"
    assert settings.tracking_is_local
    assert settings.tracking_file is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://ada:secret@host:5000/x", "http://ada:***@host:5000/x"),
        ("postgresql+psycopg://ada:p:a@db/s", "postgresql+psycopg://ada:***@db/s"),
        ("sqlite:////home/a@b/x.db", "sqlite:////home/a@b/x.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert without_password(url) == shown
