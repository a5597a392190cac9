"""What lies in the store of a study that nobody needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sweeper.catalog import ENDED
from sweeper.doctor.findings import Examination
from sweeper.storage import best_trials
from sweeper.store.study import RESUME_POINT, StoredStudyFolder


def strays_there(seen: Examination, folder: StoredStudyFolder) -> Iterator[tuple[Path, str]]:
    """What nobody will ask for, by its place below the home, each with why. What lies here is a copy."""
    used = None if seen.row.winner is None else folder.package(seen.row.winner["package"])
    for package in folder.packages():
        if package != used and not package.name.startswith("."):
            yield package, "a package that is not the winner's"
    states = {trial.number: trial.state for trial in seen.trials}
    named = {row.path for row in seen.weights} | {(seen.row.winner or {}).get("path")}
    keep = extendable(seen)
    for number in folder.trials_there():
        root, state = folder.trial(number), states.get(number)
        if state is None:
            yield root, "a trial that the catalog does not know"
        elif state in ENDED:
            yield from _left_by_trial(folder, number, state, named, has_resume_point=number in keep)


def extendable(seen: Examination) -> set[int]:
    """The numbers of the trials whose newest state is kept for an extension."""
    complete = {trial.number for trial in seen.searched if trial.state == "complete"}
    order = best_trials([row for row in seen.weights if row.trial in complete], seen.row.metric)
    return set(order[: seen.study.storage.extendable])


def _left_by_trial(
    folder: StoredStudyFolder, number: int, state: str, named: set[str | None], *, has_resume_point: bool
) -> Iterator[tuple[Path, str]]:
    root = folder.trial(number)
    files, unnamed = folder.files_there(number)
    for name in unnamed:
        yield root / name, "sent to the store by a process that was killed"
    for place in RESUME_POINT:
        if not has_resume_point and any(root / place in path.parents for path in files):
            yield root / place, f"of a {state} trial that nothing goes on from"
    for path in files:
        is_named = path.relative_to(folder.root).as_posix() in named
        if state == "complete" and path.parent == root / "weights" and not is_named:
            yield path, "weights that the catalog does not name"
