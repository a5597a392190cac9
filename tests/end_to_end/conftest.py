"""One real sweep on real data, run once by the installed command, and looked at by all tests of this folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from sweeper_command import FinishedStudy, SweeperCommand

STUDY = """\
study: small
seed: 3
data: {source: digits}
model:
  choice:
    - {build: linear}
    - {build: mlp, width: {int: [16, 32]}, depth: 1}
train:
  epochs: 3
  batch_size: {choice: [32, 64]}
  optimizer: {name: sgd, lr: {log: [0.0001, 0.5]}}
  ema: {decay: 0.9}
average: {best_n: 2}
search:
  sampler: tpe
  trials: 5
  pruner: {name: hyperband}
  # Each is far better than the one before; the last is hopeless, so that a pruner has to stop it.
  start_with:
    - {model: linear, train.batch_size: 64, train.optimizer.lr: 0.0005}
    - {model: linear, train.batch_size: 64, train.optimizer.lr: 0.005}
    - {model: mlp, model.width: 32, train.batch_size: 32, train.optimizer.lr: 0.1}
    - {model: mlp, model.width: 16, train.batch_size: 64, train.optimizer.lr: 0.0001}
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    folder = tmp_path_factory.mktemp("finished")
    repository = folder / "repository"
    repository.mkdir()
    file = repository / "study.yaml"
    file.write_text(STUDY)
    author = ["-c", "user.name=ada", "-c", "user.email=ada@localhost"]
    for arguments in (["init", "-q"], ["add", "study.yaml"], [*author, "commit", "-q", "-m", "a study"]):
        subprocess.run(["git", *arguments], cwd=repository, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    sweeper = SweeperCommand(folder / "home", folder)
    done = sweeper.run_cold("start", file, "--in-process")
    assert done.returncode == 0, done.stdout + done.stderr
    pulled = folder / "pulled"
    pull = sweeper.run_cold("pull", "small", "-o", pulled)
    assert pull.returncode == 0, pull.stderr
    return FinishedStudy(sweeper, file, head.stdout.strip(), done, sweeper.show("small"), pulled)


@pytest.fixture
def sweeper(tmp_path: Path) -> SweeperCommand:
    """The command over an empty home."""
    return SweeperCommand(tmp_path / "home", tmp_path)
