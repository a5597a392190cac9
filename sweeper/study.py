"""How study.yaml is read: every fault at once, each with its line and column."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeper.checks import (
    address_faults,
    finish_faults,
    misfit_faults,
    node_faults,
    pruner_faults,
    source_faults,
    split_faults,
)
from sweeper.errors import StudyError
from sweeper.paths import with_absolute_paths
from sweeper.positions import Document, Fault, Position, dotted, show, sorted_lines
from sweeper.ranges import RangeReader
from sweeper.space import Choice, Space, Tree
from sweeper.start_with import Point, resolve_points
from sweeper.study_file import SECTIONS, Finish, Search, Storage, StudyFile, Workers
from sweeper.validate import validate, variants


@dataclass(frozen=True)
class Study:
    """A study file that has been read and found right."""

    name: str
    seed: int
    path: Path
    text: str
    """The file as it was read."""
    digest: str
    """SHA-256 of what the file says: comments, layout, `workers` and `storage` do not count (a study may move to
    another machine), the order of keys does (it orders sampling)."""
    space: Space
    search: Search
    workers: Workers
    storage: Storage
    finish: Finish | None
    start_with: tuple[Point, ...]
    """Points to try first, by parameter name."""
    max_epochs: int
    """The most epochs that a trial of this study may train."""


def load_study(path: str | Path, text: str | None = None) -> Study:
    """Read ``study.yaml``; or ``text``, which is what the file at ``path`` said before.

    Raises:
        StudyError: the file cannot be read or is wrong; the message names every fault on a line of its own as
            ``study.yaml:line:column: dotted.path: found ..., expected ...``.
    """
    path = Path(path)
    text = _read_text(path) if text is None else text
    document = _parse(text, path)
    ranges = RangeReader(document)
    space = ranges.space(SECTIONS)
    decisions = list(variants(space))
    valid, faults = validate(StudyFile, document, decisions)
    for check in (source_faults, address_faults, split_faults):
        faults += check(document, decisions)
    silenced = {dotted(at) for at in ranges.broken} | {fault.path for fault in document.faults}
    faults = [fault for fault in faults if fault.path not in silenced] + [*document.faults, *ranges.faults]
    told = {fault.position for fault in faults}
    faults += node_faults(document, valid)
    faults += [fault for fault in misfit_faults(document, valid) if fault.position not in told]
    files = [file for _, file in valid]
    max_epochs = max((file.train.epochs for file in files), default=0)
    points: tuple[Point, ...] = ()
    if files and not ranges.broken:
        faults += pruner_faults(document, files[0].search.pruner, max_epochs)
        faults += finish_faults(document, files)
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
        space=with_absolute_paths(space if files[0].finish is None else _with_confirm(space), path.resolve().parent),
        search=files[0].search,
        workers=files[0].workers,
        storage=files[0].storage,
        finish=files[0].finish,
        start_with=points,
        max_epochs=max_epochs,
    )


CONFIRM = 0.5
"""Share of the selection split that a study with `finish` sets aside, unless it says how much."""


def _with_confirm(space: Space) -> Space:
    """The space with a share of the selection split set aside wherever none is said."""

    def said(data: Tree) -> Tree:
        if isinstance(data, Choice):
            return replace(data, options=tuple(said(option) for option in data.options))
        return {"confirm": CONFIRM, **data}

    return Space({**space.sections, "data": said(space.sections["data"])})


def _digest(data: dict[str, Any]) -> str:
    said = {key: value for key, value in data.items() if key not in ("workers", "storage")}
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
