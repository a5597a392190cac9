"""What study.yaml may say, and how it is read: every fault at once, each with its line and column."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from sweeper.errors import StudyError
from sweeper.positions import Document, Fault, Position, dotted, near, show, sorted_lines
from sweeper.ranges import RangeReader
from sweeper.space import Choice, Space, Tree
from sweeper.start_with import Point, resolve_points
from sweeper.validate import validate, variants
from trials.recipe import Average, Count, Data, Model, NotNegative, Positive, Section, Train

SECTIONS = ("data", "model", "train", "average")
"""The sections of a recipe, in which ranges may stand."""

SPLIT_KEYS = ("source", "arguments", "validation", "test", "seed", "image_size")
"""What decides the selection and test splits: one value for the whole study."""

FILES = ("npz", "folder")
"""The kinds of source that are followed by a path."""

SOURCE = re.compile(r"digits|(?:npz|folder):.+|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9](\.?[A-Za-z0-9_-])*\.?$",
        max_length=64,
        title="at most 64 letters, digits, '.', '_' and '-', beginning with a letter or digit and without '..'",
    ),
]


def _placeable(amount: float | None) -> float | None:
    if amount is not None and amount > 1 and amount != int(amount):
        raise ValueError("a whole number when above 1")
    return amount


class NoPruner(Section):
    """Every trial runs to its end."""

    name: Literal["none"]
    """Stop nothing."""


class Median(Section):
    """Stop a trial that is worse than the median of the others at the same epoch."""

    name: Literal["median"]
    """The median rule."""
    startup_trials: Count = 5
    """Trials that must have finished before any is stopped."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    """Epochs of a trial during which it is not stopped."""


class Asha(Section):
    """Asynchronous successive halving (arXiv:1810.05934): at each rung only the best share goes on."""

    name: Literal["asha"]
    """Asynchronous successive halving."""
    min_epochs: Count = 1
    """Epochs before the first rung."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One trial in this many goes on past a rung; rungs lie this factor apart."""


class Hyperband(Section):
    """Several successive halvings that differ in how early they begin to stop trials (arXiv:1603.06560)."""

    name: Literal["hyperband"]
    """Hyperband; the default."""
    min_epochs: Count = 1
    """Epochs before the first rung of the most eager bracket."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One trial in this many goes on past a rung; rungs lie this factor apart."""


class Patient(Section):
    """Stop a trial that no longer gets better itself."""

    name: Literal["patient"]
    """Patience on the trial's own metric."""
    patience_epochs: Annotated[int, Field(ge=0)] = 3
    """Epochs without a better value before a trial is stopped."""
    min_delta: NotNegative = 0.0
    """How much better a value must be to count."""


Pruner = Annotated[NoPruner | Median | Asha | Hyperband | Patient, Field(discriminator="name")]


class Search(Section):
    """How the study looks for good recipes."""

    sampler: Literal["tpe", "random"] = "tpe"
    """How the next trial is chosen: tree-structured Parzen estimator (NeurIPS 2011), or at random."""
    trials: Count = 20
    """Trials to run, those that are stopped early included."""
    metric: Literal["validation.accuracy", "validation.loss"] = "validation.accuracy"
    """What "better" means."""
    pruner: Pruner = Hyperband(name="hyperband")
    """When hopeless trials are stopped."""
    start_with: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = ()
    """Points to try first, by dotted path: `{train.optimizer: sgd, train.optimizer.lr: 0.1}`; may be partial."""


class Workers(Section):
    """Where trials run."""

    concurrent: Count | None = None
    """Trials at a time; by default one per GPU, or as many as the cores allow."""
    cpus: Annotated[Positive, AfterValidator(_placeable)] = 1.0
    """Cores for each trial."""
    gpus: Annotated[NotNegative | None, AfterValidator(_placeable)] = None
    """GPUs for each trial, such as 0.5 for two trials on one; by default 1 where there are GPUs."""


class StudyFile(Section):
    """A study: what to train, what to vary, how to search."""

    study: Name
    """The study's name: what its results, its MLflow experiment and its model are filed under."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Everything random in the study follows from it."""
    data: Data
    """Where the examples come from and how they are split and varied."""
    model: Model
    """What is trained."""
    train: Train = Train()
    """How the model is fitted."""
    search: Search = Search()
    """How the study looks for good recipes."""
    workers: Workers = Workers()
    """Where trials run."""
    average: Average = Average()
    """What is averaged at the end of a trial."""


@dataclass(frozen=True)
class Study:
    """A study file that has been read and found right."""

    name: str
    seed: int
    path: Path
    text: str
    """The file as it was read."""
    digest: str
    """SHA-256 of what the file says: comments, layout and `workers` do not count (a study may move to another
    machine), the order of keys does (it orders sampling)."""
    space: Space
    search: Search
    workers: Workers
    start_with: tuple[Point, ...]
    """Points to try first, by parameter name."""
    max_epochs: int
    """The most epochs that a trial of this study may train."""


def load_study(path: str | Path) -> Study:
    """Read ``study.yaml``.

    Raises:
        StudyError: the file cannot be read or is wrong; the message names every fault on a line of its own as
            ``study.yaml:line:column: dotted.path: found ..., expected ...``.
    """
    path = Path(path)
    text = _read_text(path)
    document = _parse(text, path)
    ranges = RangeReader(document)
    space = ranges.space(SECTIONS)
    files, faults = validate(StudyFile, document, space)
    faults += [*_source_faults(document, space), *_split_faults(document, space)]
    silenced = {dotted(at) for at in ranges.broken} | {fault.path for fault in document.faults}
    faults = [fault for fault in faults if fault.path not in silenced] + [*document.faults, *ranges.faults]
    max_epochs = max((file.train.epochs for file in files), default=0)
    points: tuple[Point, ...] = ()
    if files and not ranges.broken:
        faults += _pruner_faults(document, files[0].search.pruner, max_epochs)
        points, wrong = resolve_points(document, ("search", "start_with"), space)
        faults += wrong
    if faults:
        raise StudyError("\n".join(sorted_lines(faults, str(path))))
    return Study(
        name=files[0].study,
        seed=files[0].seed,
        path=path.resolve(),
        text=text,
        digest=_digest(document.data),
        space=Space(_with_absolute_sources(space.sections, path.resolve().parent)),
        search=files[0].search,
        workers=files[0].workers,
        start_with=points,
        max_epochs=max_epochs,
    )


def _digest(data: dict[str, Any]) -> str:
    said = {key: value for key, value in data.items() if key != "workers"}
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise StudyError(
            f"{path}: found no such file, expected a study; `sweeper init` writes one to start from"
        ) from None
    except OSError as error:
        raise StudyError(f"{path}: found a file that cannot be read ({error.strerror}), expected a study") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig", errors="replace")
        position = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        found = f"found the byte 0x{content[error.start]:02x}, expected text in UTF-8"
        raise StudyError(Fault(position, "", found).line(str(path))) from None


def _parse(text: str, path: Path) -> Document:
    from sweeper.yaml_reader import YamlFault, read_yaml  # costs 40 ms, which `--help` and `schema` need not pay

    try:
        document = read_yaml(text)
    except YamlFault as error:
        raise StudyError(error.fault.line(str(path))) from None
    if not isinstance(document.data, dict):
        fault = document.fault((), f"found {show(document.data)}, expected a study: sections such as data and model")
        raise StudyError(fault.line(str(path)))
    return document


def _source_faults(document: Document, space: Space) -> Iterator[Fault]:
    """Sources of a form that no loader knows; whether they are there is for the trial to say."""
    for decision in variants(space):
        data = decision.sections.get("data")
        source = data.get("source") if isinstance(data, dict) else None
        if isinstance(source, str) and not SOURCE.fullmatch(source):
            message = f"found {source!r}, expected digits, npz:PATH, folder:PATH or module:function"
            yield document.fault(decision.origins["data", "source"], message + near(source, ["digits"]))


def _split_faults(document: Document, space: Space) -> Iterator[Fault]:
    """Trials scored on different examples cannot be compared, and one's training data could be another's test data."""
    first: dict[str, Any] | None = None
    refused: set[str] = set()
    for decision in variants(space):
        data = decision.sections.get("data")
        if not isinstance(data, dict):
            continue
        said = {key: data.get(key) for key in SPLIT_KEYS}
        first = said if first is None else first
        for key in SPLIT_KEYS:
            if said[key] != first[key] and key not in refused:
                refused.add(key)
                message = "found a range, expected one value: trials are compared on one selection split"
                yield document.fault(_nearest(decision.origins, ("data", key)), message)


def _nearest(origins: dict[tuple[str | int, ...], tuple[str | int, ...]], path: tuple[str, ...]) -> Any:
    """Where ``path`` stands in the file, or else the section it would stand in."""
    return next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), path[:1])


def _pruner_faults(document: Document, pruner: Pruner, max_epochs: int) -> Iterator[Fault]:
    if isinstance(pruner, Asha | Hyperband) and pruner.min_epochs > max_epochs:
        expected = f"at most the epochs of a trial, {max_epochs}"
        yield document.fault(("search", "pruner", "min_epochs"), f"found {pruner.min_epochs}, expected {expected}")


def _with_absolute_sources(sections: dict[str, Tree], folder: Path) -> dict[str, Tree]:
    """The sections with `npz:` and `folder:` paths taken from the study file's folder."""

    def data(tree: Tree) -> Tree:
        if isinstance(tree, Choice):
            return replace(tree, options=tuple(data(option) for option in tree.options))
        source = tree["source"]
        while isinstance(source, Choice):  # of one option: more have been refused
            source = source.options[0]
        kind, _, place = source.partition(":")
        return {**tree, "source": f"{kind}:{(folder / Path(place).expanduser()).resolve()}"} if kind in FILES else tree

    return {**sections, "data": data(sections["data"])}
