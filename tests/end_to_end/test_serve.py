"""What is taken home answers: through `mlflow models serve`, and from MLflow's registry."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sweeper_command import PATIENCE_SECONDS, FinishedStudy

from trials import load_model

IMAGES = load_digits().images[:7].astype(np.float32)


@contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """The URL of `mlflow models serve` on a model; nothing of it is left afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # It starts a server by its name, which an activated environment has on its path.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, cwd=log.parent, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def known_probabilities(finished: FinishedStudy) -> np.ndarray:
    model, preprocess = load_model(finished.pulled)
    probabilities: np.ndarray = model(preprocess(IMAGES)).softmax(dim=1).detach().numpy()
    return probabilities


@pytest.mark.slow
def test_a_model_pulled_for_mlflow_answers_a_request(finished: FinishedStudy, tmp_path: Path) -> None:
    done = finished.sweeper.run("pull", "small", "--as", "mlflow", "-o", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert "a fresh process gave the answers of the weights to 64 examples" in done.stdout
    with served(tmp_path / "model", tmp_path / "log.txt") as url:
        request = urllib.request.Request(
            f"{url}/invocations",
            data=json.dumps({"inputs": IMAGES.tolist()}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
    np.testing.assert_allclose(found["predictions"], known_probabilities(finished), atol=1e-6)


def test_the_registered_model_predicts(finished: FinishedStudy, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    done = finished.sweeper.run("predict", "models:/small@best", tmp_path / "images.npy", "--as", "json", "--all")
    assert (done.returncode, done.stderr) == (0, "")
    found = [list(row["probabilities"].values()) for row in json.loads(done.stdout)]
    np.testing.assert_allclose(found, known_probabilities(finished), rtol=1e-5)
