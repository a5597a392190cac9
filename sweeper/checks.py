"""What is wrong with a study although each of its values alone is fine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from sweeper.paths import FILES, MODEL
from sweeper.positions import Document, Fault, Path, listed, near
from sweeper.space import Decision
from sweeper.study_file import Asha, Hyperband, Pruner, StudyFile
from trials.recipe import Recipe
from trials.recipe.misfits import misfits

SPLIT_KEYS = ("source", "arguments", "task", "target", "text", "validation", "confirm", "test", "seed")
"""What decides which examples are in the selection and test splits, and what is asked of them: one value for the whole
study. What the network sees of an example (its size, its columns, its words) may vary."""

SOURCE = re.compile(rf"digits|(?:{'|'.join(FILES)}):.+|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

SOURCES = listed(["digits", *(f"{kind}:PATH" for kind in FILES), "module:function"])


def source_faults(document: Document, decisions: Sequence[Decision]) -> Iterator[Fault]:
    """Sources of a form that no loader knows; whether they are there is for the trial to say."""
    for decision in decisions:
        data = decision.sections.get("data")
        source = data.get("source") if isinstance(data, dict) else None
        if isinstance(source, str) and not SOURCE.fullmatch(source):
            message = f"found {source!r}, expected {SOURCES}" + near(source, ["digits"])
            yield document.fault(decision.origins["data", "source"], message)


def address_faults(document: Document, decisions: Sequence[Decision]) -> Iterator[Fault]:
    """Registered models named in a way that MLflow does not know; whether they are there is for the start to say."""
    for decision in decisions:
        model = decision.sections.get("model")
        start = model.get("pretrained") if isinstance(model, dict) else None
        weights = start.get("weights") if isinstance(start, dict) else None
        if isinstance(weights, str) and weights.startswith("models:/") and not MODEL.fullmatch(weights):
            message = f"found {weights!r}, expected models:/NAME@ALIAS or models:/NAME/VERSION"
            yield document.fault(decision.origin(("model", "pretrained", "weights")), message)


def split_faults(document: Document, decisions: Sequence[Decision]) -> Iterator[Fault]:
    """Trials scored on different examples cannot be compared, and one's training data could be another's test data."""
    first: dict[str, Any] | None = None
    refused: set[str] = set()
    for decision in decisions:
        data = decision.sections.get("data")
        if not isinstance(data, dict):
            continue
        said = {key: data.get(key) for key in SPLIT_KEYS}
        first = said if first is None else first
        for key in SPLIT_KEYS:
            if said[key] != first[key] and key not in refused:
                refused.add(key)
                message = "found a range, expected one value: trials are compared on one selection split"
                at = decision.origin(("data", key))
                at = at[:-2] if at[-2:-1] == ("choice",) else at  # the choice, not the option that differs
                yield document.fault(at, message)


def pruner_faults(document: Document, pruner: Pruner, max_epochs: int) -> Iterator[Fault]:
    """A first rung that no trial reaches."""
    if isinstance(pruner, Asha | Hyperband) and pruner.min_epochs > max_epochs:
        expected = f"at most the epochs of a trial, {max_epochs}"
        yield document.fault(("search", "pruner", "min_epochs"), f"found {pruner.min_epochs}, expected {expected}")


def finish_faults(document: Document, files: Sequence[StudyFile]) -> Iterator[Fault]:
    """Choices that could only be confirmed on the examples that they were made on."""
    said = document.data.get("data")
    confirm = said.get("confirm") if isinstance(said, dict) else None
    if files and files[0].finish is not None and confirm == 0:
        expected = "more than 0 in a study with finish; leave it out for 0.5"
        yield document.fault(("data", "confirm"), f"found 0, expected {expected}")


def node_faults(document: Document, variants: Sequence[tuple[Decision, StudyFile]]) -> Iterator[Fault]:
    """Processes that cannot be shared out evenly among the nodes of a trial."""
    refused: set[Path] = set()
    for decision, file in variants:
        processes, nodes = file.train.data_parallel, file.workers.nodes
        at = decision.origin(("train", "data_parallel"))
        if processes is not None and processes % nodes and at not in refused:
            refused.add(at)
            yield document.fault(at, f"found {processes}, expected a multiple of workers.nodes, {nodes}, or nothing")


def misfit_faults(document: Document, variants: Sequence[tuple[Decision, StudyFile]]) -> Iterator[Fault]:
    """Values that can never work together; one fault for each place in the file."""
    refused: set[Path] = set()
    for decision, file in variants:
        recipe = Recipe(
            metric=file.search.metric, data=file.data, model=file.model, train=file.train, average=file.average
        )
        for misfit in misfits(recipe):
            at = ("search", "metric") if misfit.path == ("metric",) else decision.origin(misfit.path)
            if at not in refused:
                refused.add(at)
                yield document.fault(at, misfit.message)
