"""Whether what was written answers as the weights do: asked in a fresh process, as whoever takes it home will."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import StoreError
from sweeper.export.forms import FORMS

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

TOLERANCE = 1e-5
"""Largest difference of two answers: of probabilities; of values, as a share of the target's standard deviation and of
the value itself."""

MOST_SAID = 300
"""Letters at most of what a process said last."""

Answers = Callable[[str, Path, Any, Sequence[str]], "np.ndarray"]
"""Form, folder, examples (an array or a DataFrame), folders of the user's modules -> answers (N, outputs)."""


def compare(
    form: str, package: Path, made: Path, held: Tensor, answers: Answers, import_paths: Sequence[str] = ()
) -> bool:
    """Make sure that the model in ``made`` answers as the weights of ``package`` do.

    Args:
        form: of ``made``, a key of ``FORMS``.
        package: a folder that `trials.package.write_package` wrote.
        made: what is to be compared with it.
        held: examples as a split holds them.
        answers: asks the model in ``made``.
        import_paths: where the user's own modules are found.

    Returns whether it did so without ``import_paths``, as it will elsewhere.

    Raises:
        StoreError: it cannot be loaded, or answers otherwise.
    """
    import numpy as np

    from trials.export.graph import batch_of
    from trials.export.raw import raw_of
    from trials.package import load_model

    expected, spread = _answers_of_weights(package, held)
    _, preprocess = load_model(package)
    given = batch_of(preprocess, held).numpy() if FORMS[form].takes_batch else raw_of(preprocess, held)
    alone = True
    try:
        found = answers(form, made, given, ())
    except StoreError:
        if form != "safetensors" or not import_paths:
            raise
        # More than the file of a module is needed: a package, or what the module itself imports.
        found, alone = answers(form, made, given, import_paths), False
    if found.shape != expected.shape:
        raise StoreError(f"{form}: gave answers of shape {found.shape}, expected {expected.shape}; nothing was left")
    if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * spread):
        # A NaN is a difference too, and the largest.
        row = int(np.nan_to_num(np.abs(found - expected), nan=np.inf).max(axis=1).argmax())
        raise StoreError(
            f"{form}: answers otherwise than the weights: {found[row].tolist()} in place of {expected[row].tolist()} "
            f"to example {row} of the selection split; nothing was left"
        )
    return alone


def _answers_of_weights(package: Path, held: Tensor) -> tuple[np.ndarray, float]:
    """What the weights answer to examples, and how far answers spread."""
    import torch

    from trials.package import Answering, load_model

    model, preprocess = load_model(package)
    assert isinstance(model, Answering)
    with torch.inference_mode():
        outputs = model(preprocess.normalise(held)).float()
    if model.target.task == "classification":
        return outputs.softmax(dim=1).numpy(), 1.0
    return outputs.numpy(), model.target.std


def fresh_answers(form: str, folder: Path, given: Any, import_paths: Sequence[str]) -> np.ndarray:
    """What a model answers that a process of its own loads, which is run from elsewhere.

    Raises:
        StoreError: it cannot be loaded, or cannot answer; the message has the last line that it said.
    """
    import numpy as np

    with tempfile.TemporaryDirectory() as temporary:
        is_table = hasattr(given, "to_parquet")
        examples = Path(temporary) / ("examples.parquet" if is_table else "examples.npy")
        found = Path(temporary) / "answers.npy"
        if is_table:
            given.to_parquet(examples)
        else:
            np.save(examples, given)
        paths = os.pathsep.join([*import_paths, *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [
            sys.executable,
            "-m",
            "sweeper.export.answer",
            form,
            str(folder.resolve()),
            str(examples),
            str(found),
        ]
        done = subprocess.run(
            command,
            cwd=temporary,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise StoreError(f"{form}: cannot be loaded in a fresh process ({said[:MOST_SAID]}); nothing was left")
        answers: np.ndarray = np.load(found)
    return answers
