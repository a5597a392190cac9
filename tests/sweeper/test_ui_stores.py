"""`sweeper ui` over runs that are not in the home's own database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from sweeper import ui
from sweeper.errors import TrackingError
from sweeper.mlflow_client import connect
from sweeper.settings import Settings

ROOT = Path(__file__).parents[2]


def _settings(home: Path, tracking_uri: str) -> Settings:
    return Settings(home, "", tracking_uri, None)


@pytest.mark.parametrize(
    ("uri", "opened"),
    [("http://ada:secret@mlflow:5000", ["http://ada:secret@mlflow:5000"]), ("databricks", [])],
)
def test_a_server_is_named_and_opened_where_it_has_an_address(
    uri: str, opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    pages: list[str] = []
    monkeypatch.setattr("webbrowser.open", pages.append)
    assert ui.serve(_settings(tmp_path, uri), port=None, browse=True, say=said.append) == 0
    assert pages == opened
    assert said == [f"MLFLOW_TRACKING_URI is set: the pages are at {uri.replace('secret', '***')}"]


@pytest.mark.parametrize("name", ["mlflow.db", "elsewhere/m.db"])
def test_a_database_that_is_not_there_yet_has_nothing_to_show(name: str, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch() if name != "mlflow.db" else None
    with pytest.raises(TrackingError, match="nothing to show yet; begin with: sweeper start"):
        ui.serve(_settings(tmp_path, f"sqlite:///{tmp_path / name}"), port=None, browse=False, say=print)


SERVE = """\
import sys
from sweeper.settings import load_settings
from sweeper.ui import serve
serve(load_settings(), port=None, browse=False, say=lambda line: print(line, flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "file"])
def test_a_database_or_folder_elsewhere_is_served(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    environment = os.environ | {"SWEEPER_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    match kind:
        case "sqlite":
            uri = f"sqlite:///{tmp_path / 'm.db'}"
        case "postgresql":
            uri = request.getfixturevalue("postgres_url")
        case _:
            uri = (tmp_path / "runs").as_uri()
            environment["MLFLOW_ALLOW_FILE_STORE"] = "true"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        experiment_id = connect(_settings(tmp_path, uri)).create_experiment("digits")
    environment["MLFLOW_TRACKING_URI"] = uri
    served = subprocess.Popen([sys.executable, "-c", SERVE], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        assert served.stdout.readline().startswith("starting the MLflow UI on http://127.0.0.1:")
        told = served.stdout.readline()
        assert f"/#/experiments/{experiment_id}?" in told
        arguments = [word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ()]
        assert not any(uri in word for word in arguments), "what may hold a password is in no command line"
        with urllib.request.urlopen(told.split("MLflow UI: ")[1].split("/#/")[0] + "/health") as answer:
            assert answer.read() == b"OK"
    finally:
        served.send_signal(signal.SIGTERM)
        served.communicate(timeout=60)
    assert served.returncode == 0
