"""What a job is told of the settings of whoever submits it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sweeper.errors import StudyError
from sweeper.job_settings import cluster_address, is_here, job_settings
from sweeper.settings import Settings, load_settings

WAIT = {"RAY_JOB_STOP_WAIT_TIME_S": "30"}
SECRET = "correct-horse"


def _settings(monkeypatch: pytest.MonkeyPatch, folder: Path, **said: str) -> Settings:
    for name in ("SWEEPER_HOME", "SWEEPER_DATABASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return load_settings()


def test_on_this_machine_all_places_go_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = job_settings(_settings(monkeypatch, tmp_path), {}, here=True)
    home = tmp_path / ".sweeper"
    assert given.sent == WAIT | {
        "SWEEPER_HOME": str(home),
        "SWEEPER_DATABASE_URL": f"sqlite:///{home}/sweeper.db",
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
    }
    assert given.line == ""


def test_elsewhere_what_nobody_said_is_the_clusters_affair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"SWEEPER_DATABASE_URL": "postgresql://ada@db/sweeper", "SWEEPER_STORE": "s3://models/of/ada"}
    given = job_settings(_settings(monkeypatch, tmp_path, **said), said, here=False)
    assert given.sent == WAIT | said | {"SWEEPER_DATABASE_URL": "postgresql+psycopg://ada@db/sweeper"}
    assert given.line == ""


@pytest.mark.parametrize("here", [True, False])
def test_a_home_that_was_said_goes_with_it(here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"SWEEPER_DATABASE_URL": "postgresql://ada@db/sweeper"}
    _settings(monkeypatch, tmp_path, **said)
    given = job_settings(load_settings(tmp_path / "shared"), said, here=here)
    assert given.sent["SWEEPER_HOME"] == str(tmp_path / "shared")


@pytest.mark.parametrize("here", [True, False])
def test_no_secret_is_sent_and_each_is_named(here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "SWEEPER_HOME": str(tmp_path),
        "SWEEPER_DATABASE_URL": f"postgresql://ada:{SECRET}@db/sweeper",
        "MLFLOW_TRACKING_URI": f"https://ada:{SECRET}@mlflow",
        "MLFLOW_TRACKING_PASSWORD": SECRET,
        "AWS_ACCESS_KEY_ID": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"https://{SECRET}@s3",
        "AWS_REGION": "eu-central-1",
        "HOME_ADDRESS": SECRET,
    }
    given = job_settings(_settings(monkeypatch, tmp_path, **said), said, here=here)
    assert given.sent == WAIT | {"SWEEPER_HOME": str(tmp_path), "AWS_REGION": "eu-central-1"}
    assert given.line == (
        "not sent, and taken from where Ray was started: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
        "MLFLOW_TRACKING_PASSWORD (a secret); SWEEPER_DATABASE_URL, MLFLOW_TRACKING_URI, AWS_ENDPOINT_URL (it holds a "
        "secret)"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:5000",
        "http://127.0.0.1:5000",
        "https://[::1]/x",
        "sqlite:///a.db",
        "file:///a",
        "postgresql:///a",
    ],
)
def test_an_address_of_this_machine_is_not_sent_elsewhere(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"SWEEPER_DATABASE_URL": "postgresql://ada@localhosts/sweeper", "MLFLOW_TRACKING_URI": uri}
    settings = _settings(monkeypatch, tmp_path, **said)
    given = job_settings(settings, said, here=False)
    assert given.kept == {"MLFLOW_TRACKING_URI": "it names this machine"}
    assert given.sent == WAIT | {"SWEEPER_DATABASE_URL": "postgresql+psycopg://ada@localhosts/sweeper"}
    assert job_settings(settings, said, here=True).sent["MLFLOW_TRACKING_URI"] == settings.tracking_uri


def test_a_database_in_a_file_cannot_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        StudyError, match=r"^SWEEPER_DATABASE_URL: found sqlite:///\S+/sweeper\.db, a file of this mach"
    ):
        job_settings(_settings(monkeypatch, tmp_path), {}, here=False)


def test_the_job_server_goes_before_the_cluster() -> None:
    both = {"RAY_API_SERVER_ADDRESS": "http://head:8265", "RAY_ADDRESS": "head:6379"}
    assert cluster_address(both) == "http://head:8265"
    assert cluster_address({"RAY_ADDRESS": "head:6379"}) == "head:6379"
    with pytest.raises(StudyError, match=r"^RAY_ADDRESS: not set, expected the address of the Ray cluster"):
        cluster_address({"RAY_ADDRESS": ""})


def test_what_this_machine_is() -> None:
    assert is_here(f"http://{socket.gethostbyname('localhost')}:8265")
    assert not is_here("198.51.100.7:6379")
