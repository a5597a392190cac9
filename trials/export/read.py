"""An exported graph, run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trials.package import PACKAGE, named_garbled


def form_of_graph(folder: Path) -> str | None:
    """The form of the graph in ``folder``, a key of ``READERS``; ``None`` where that is another folder.

    Raises :class:`TrialError` when its package.json cannot be read.
    """
    if not (folder / PACKAGE).is_file():
        return None
    with named_garbled(folder):
        description = json.loads((folder / PACKAGE).read_bytes())
        return str(description["graph"]["form"]) if "graph" in description else None


def answers_of_graph(folder: Path, batch: np.ndarray) -> np.ndarray:
    """What the graph that :func:`trials.export.write.write_graph` made in ``folder`` answers to a batch."""
    facts = json.loads((folder / PACKAGE).read_bytes())["graph"]
    return READERS[facts["form"]](folder / facts["file"], facts, batch)


def _run_onnx(path: Path, facts: dict[str, Any], batch: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers: np.ndarray = session.run([facts["output_name"]], {facts["input_name"]: batch})[0]
    return answers


def _run_program(path: Path, _facts: dict[str, Any], batch: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        answers: np.ndarray = torch.export.load(path).module()(torch.from_numpy(batch)).numpy()
    return answers


READERS: dict[str, Callable[[Path, dict[str, Any], np.ndarray], np.ndarray]] = {
    "onnx": _run_onnx,
    "torch-export": _run_program,
}
