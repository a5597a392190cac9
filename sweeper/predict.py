"""`sweeper predict`: a pulled model asked about files, one row an example."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

import click

from sweeper.errors import StoreError, StudyError
from sweeper.paths import MODEL
from sweeper.predictions import WRITERS, Answer, columns_of
from sweeper.settings import Settings
from trials.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from trials.package import Answering

PATIENCE_SECONDS = 2.0
"""After so long, and then as often, people are told how far it is."""


def predict(
    model: str,
    paths: Sequence[Path],
    settings: Settings,
    *,
    form: Literal["csv", "json"] = "csv",
    all_classes: bool = False,
    out: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Answer to all examples in ``paths``, in their order; what cannot be read gets a line on the error output.

    Args:
        model: a folder that `sweeper pull` made, or ``models:/NAME@ALIAS``.
        paths: files, or folders of pictures.
        settings: say where the registered models are.
        form: of the answers.
        all_classes: give the probability of each class.
        out: the file to write; else standard output.
        clock: seconds.

    Returns 1 if anything could not be read, else 0.

    Raises:
        StudyError: no such model, or one in a form that other programs read.
        TrackingError: MLflow cannot be reached.
        TrialError: the model cannot be loaded.
    """
    from trials.device import pick_device
    from trials.examples_in_files import examples_in
    from trials.package import RECIPE, Answering, load_model
    from trials.recipe import Recipe

    with _folder_of(model, settings) as folder:
        device = pick_device(None)
        answering, preprocess = load_model(folder, device)
        text = Recipe.model_validate_json((folder / RECIPE).read_bytes()).data.text
    assert isinstance(answering, Answering)
    faults, done = 0, 0
    began = told = clock()
    with _opened(out) as file:
        writer = WRITERS[form](file, columns_of(answering.target, all_classes=all_classes))
        for found in examples_in(paths, preprocess, text):
            if isinstance(found, DataError):
                click.echo(f"error: {found}", err=True)
                faults += 1
                continue
            for name, answer in zip(found.names, answers_to(answering, found.inputs.to(device)), strict=True):
                writer.write(Answer(name, *answer))
            done += len(found.names)
            now = clock()
            if now - told >= PATIENCE_SECONDS:
                told = now
                click.echo(f"{done} examples in {now - began:.0f} s", err=True)
        writer.close()
    if faults:
        click.echo(f"error: {faults} could not be read, {done} examples were", err=True)
    return 1 if faults else 0


def answers_to(answering: Answering, inputs: Tensor) -> list[tuple[str | None, float, list[float]]]:
    """The model's input (N, ...) -> of each example: class, its probability, all probabilities; or None, value, []."""
    import torch

    with torch.inference_mode():
        outputs = answering(inputs).float().cpu()
    if answering.target.task == "regression":
        return [(None, value, []) for value in outputs.squeeze(1).tolist()]
    rows = outputs.softmax(dim=1)
    best, classes = rows.max(dim=1), answering.target.classes
    likeliest = zip(best.indices.tolist(), best.values.tolist(), rows.tolist(), strict=True)
    return [(classes[index], probability, row) for index, probability, row in likeliest]


@contextlib.contextmanager
def _folder_of(model: str, settings: Settings) -> Iterator[Path]:
    """The package that ``model`` names; a registered one for as long as it is needed."""
    address = MODEL.fullmatch(model)
    if address is None:
        yield _package_in(Path(model))
        return
    from sweeper.mlflow_client import connect, download_model, find_version

    client, name = connect(settings), address["name"]
    version = find_version(settings, client, name, alias=address["alias"], version=address["version"])
    if version is None:
        raise StudyError(f"{model}: MLflow has no such model; `sweeper ui` shows those it has")
    with tempfile.TemporaryDirectory() as temporary:
        folder = download_model(settings, name, version, Path(temporary))
        if folder is None:
            raise StudyError(f"{model}: is no model that sweeper registered")
        yield folder


def _package_in(folder: Path) -> Path:
    """The package in a folder that `sweeper pull` made; MLflow keeps it further below."""
    if not folder.is_dir():
        raise StudyError(f"{folder}: no such folder; expected one that `sweeper pull` made, or models:/NAME@best")
    if (folder / "MLmodel").is_file():
        return next((path.parent for path in sorted(folder.glob("data/*/package.json"))), folder)
    from trials.export.read import form_of_graph

    form = form_of_graph(folder)
    if form is not None:
        raise StudyError(f"{folder}: holds the model as {form}, for other programs; to predict, pull it as safetensors")
    return folder


@contextlib.contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is there only when it is whole; what is no file, as a pipe, is written to."""
    if out is None:
        yield sys.stdout
        return
    if out.exists() and not out.is_file():
        with out.open("w", encoding="utf-8", newline="") as file:
            yield file
        return
    out = out.resolve()  # where it is a link, the file that it leads to is written
    if not out.parent.is_dir():
        raise StoreError(f"{out}: cannot be written, {out.parent} is no folder; choose another with -o")
    handle, beside = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            yield file
        Path(beside).chmod(0o644)
        Path(beside).replace(out)
    finally:
        Path(beside).unlink(missing_ok=True)
