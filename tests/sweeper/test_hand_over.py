"""A study that varied the share of its training split ends with its learning curve: in words, drawn, and in MLflow."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image
from rich.console import Console

from sweeper.catalog import Catalog
from sweeper.settings import load_settings
from sweeper.show import describe_study
from sweeper.start import start
from sweeper.study_folder import StudyFolder

STUDY = """\
study: curve
data: {source: digits, train_fraction: {choice: [0.05, 1.0]}}
model: {build: linear}
train: {epochs: 2, optimizer: {name: adam, lr: 0.01}}
search:
  trials: 3
  pruner: {name: none}
  start_with: [{data.train_fraction: 1.0}, {data.train_fraction: 0.05}]
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_the_learning_curve_of_a_study(home: Path) -> None:
    (home / "study.yaml").write_text(STUDY)
    settings, out = load_settings(), io.StringIO()
    assert start(home / "study.yaml", settings, Console(file=out, width=200), in_process=True) == 0

    catalog = Catalog(settings.database_url)
    shown = json.loads(json.dumps(describe_study(catalog, "curve", settings)))
    study = catalog.study("curve")
    trials = [(trial.params["data.train_fraction"], trial.value) for trial in catalog.trials(study.id)]
    catalog.close()
    few, whole = ([value for share, value in trials if share == wanted] for wanted in (0.05, 1.0))
    assert max(whole) > max(few), "71 digits teach less than 1437"
    assert shown["learning_curve"] == [
        {"low": 0.05, "high": 0.05, "trials": len(few), "best": max(few)},
        {"low": 1.0, "high": 1.0, "trials": len(whole), "best": max(whole)},
    ]
    lines = [line.split() for line in out.getvalue().splitlines()]
    at = lines.index(["learning", "curve:", "best", "validation.accuracy", "by", "data.train_fraction"])
    assert lines[at + 1 : at + 4] == [
        ["data.train_fraction", "trials", "best"],
        ["0.05", str(len(few)), f"{max(few):.4f}"],
        ["1", str(len(whole)), f"{max(whole):.4f}"],
    ]

    picture = StudyFolder(home, "curve").learning_curve
    with Image.open(picture) as image:
        assert image.format == "PNG"
    client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
    logged = client.download_artifacts(study.run_id, "learning_curve.png", str(home))
    assert Path(logged).read_bytes() == picture.read_bytes()

    drawn = picture.stat().st_mtime_ns
    assert start(home / "study.yaml", settings, Console(file=io.StringIO()), in_process=True) == 0
    assert picture.stat().st_mtime_ns == drawn, "nothing has ended since"
