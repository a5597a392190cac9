"""The catalog beside the files: what it names is there and whole, and nothing lies about that nobody needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sweeper.catalog import WeightsRow
from sweeper.doctor.findings import Examination
from sweeper.doctor.of_store import extendable, strays_there
from sweeper.errors import SweeperError
from sweeper.store.study import StoredStudyFolder
from sweeper.study_folder import digest_of
from sweeper.user_code import make_importable
from trials.disk import entries, is_temporary
from trials.errors import TrialError


def check_files(seen: Examination) -> None:
    """Compare the weights and the winner with their digests; of a study that does not run, find what is left over."""
    if not seen.folder.is_there():
        if seen.trials:
            seen.find("study", f"{seen.folder.place} is gone, with all that its trials left")
        if not seen.weights:
            return
    packed = _check_package(seen)
    settled = {trial.number for trial in seen.settled()}
    named = [row for row in seen.weights if row.trial in settled]
    for done, row in enumerate(named):
        seen.progress("files", done, len(named))
        seen.checked["files"] += 1
        damage = _damage(seen, row)
        if damage is not None:
            _find_weights(seen, row, damage, packed=packed)
    if not seen.runs_now:
        strays = strays_there(seen, seen.folder) if isinstance(seen.folder, StoredStudyFolder) else _leftovers(seen)
        for path, what in strays:
            where = path.relative_to(seen.folder.root).as_posix()
            seen.find(where, what, "remove", where)


def _damage(seen: Examination, row: WeightsRow) -> str | None:
    """What is wrong with a file of weights."""
    try:
        return seen.folder.damage(row.path, row.bytes, row.sha256)
    except (SweeperError, OSError) as error:
        return f"cannot be read: {error}"


def _find_weights(seen: Examination, row: WeightsRow, damage: str, *, packed: bool) -> None:
    if not _is_winner(seen, row):
        seen.find(row.path, damage, "forget_weights", row.path)
    elif packed:
        seen.find(row.path, damage, "restore_weights", row.path)
    else:
        seen.find(row.path, damage, "choose_again", row.path)


def _is_winner(seen: Examination, row: WeightsRow) -> bool:
    winner = seen.row.winner or {}
    return (winner.get("path"), winner.get("sha256")) == (row.path, row.sha256)


def _check_package(seen: Examination) -> bool:
    """Whether the winner's package holds the winner's weights, whole."""
    winner = seen.row.winner
    if winner is None or seen.runs_now:
        return False
    package = seen.folder.fetch_package(winner["package"])
    weights = package / "weights.safetensors"
    seen.checked["files"] += 1
    damage = None
    is_whole = False
    try:
        if not weights.is_file():
            damage = "the winner in the catalog, but the package is gone"
        elif (found := digest_of(weights)) != winner["sha256"]:
            damage = f"weights of the winner: sha256 {winner['sha256'][:12]}... in the catalog, {found[:12]}... here"
        else:
            is_whole = True
            _load(package, seen.row.import_paths)
    except (TrialError, OSError) as error:
        damage = f"the winner's package cannot be loaded: {error}"
    if damage is not None:
        # Only from whole weights can it be packed again.
        rows = [row for row in seen.weights if _is_winner(seen, row)]
        mend = any(_damage(seen, row) is None for row in rows) or is_whole
        seen.find(package.name, damage, "pack_again" if mend else "choose_again", winner["path"])
    return is_whole


def _load(package: Path, import_paths: list[str]) -> None:
    from trials.package import load_model

    # The model may be a user's own `module:function`.
    make_importable(import_paths)
    load_model(package)


def _leftovers(seen: Examination) -> Iterator[tuple[Path, str]]:
    """What nobody will ask for, each with why."""
    folder = seen.folder
    states = {trial.number: trial.state for trial in seen.trials}
    for path in (*entries(folder.root), *entries(folder.trials)):
        if is_temporary(path) or path.name.startswith(".winner") or path == folder.learning_curve.with_suffix(".tmp"):
            yield path, "half written, by a process that was killed"
    for package in folder.packages():
        if not package.name.startswith(".") and package != _package_in_use(seen):
            yield package, "a package that is not the winner's"
    keep = extendable(seen)
    named = {row.path for row in seen.weights} | {(seen.row.winner or {}).get("path")}
    for path in entries(folder.trials):
        if not re.fullmatch(r"\d{4,}", path.name) or not path.is_dir():
            continue
        state = states.get(int(path.name))
        if state is None:
            yield path, "a trial that the catalog does not know"
        elif state in ("complete", "pruned", "failed"):
            yield from _left_by_trial(seen, path, state, named, has_resume_point=int(path.name) in keep)


def _left_by_trial(
    seen: Examination, root: Path, state: str, named: set[str | None], *, has_resume_point: bool
) -> Iterator[tuple[Path, str]]:
    """What is left over of a trial that has ended."""
    for place in (root, *(root / name for name in ("checkpoints", "best", "weights", "pictures"))):
        for path in filter(is_temporary, entries(place)):
            yield path, "half written, by a process that was killed"
    if state != "complete" or not has_resume_point:
        for path in (root / "checkpoints", root / "best"):
            if path.exists():
                yield path, f"of a {state} trial that nothing goes on from"
    if state == "complete":
        for path in seen.folder.weights(int(root.name)):
            if path.relative_to(seen.folder.root).as_posix() not in named:
                yield path, "weights that the catalog does not name"


def _package_in_use(seen: Examination) -> Path | None:
    return None if seen.row.winner is None else seen.folder.package(seen.row.winner["package"])
