"""What mends a finding: the catalog is believed, and the others are told again what it says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from sweeper.catalog import Catalog, TrialState
from sweeper.doctor.findings import WORDS, Action, Examination, Finding, one_line
from sweeper.errors import SweeperError
from sweeper.history import remove_old, write_anew
from sweeper.mlflow_client import as_tracking_error
from sweeper.mlflow_runs import StudyRuns
from sweeper.publish import pack_again
from sweeper.runner import TRAIN
from sweeper.settings import without_password
from sweeper.start import open_call
from sweeper.storage import remove_leftovers
from sweeper.sync import deliver_owed
from trials.errors import TrialError


def mend(seen: Examination, catalog: Catalog, console: Console) -> list[str]:
    """Mend what was found, under a lease that the caller holds; a line for each thing done, or that could not be."""
    surgery = Surgery(seen, catalog)
    by_action: dict[tuple[Action, str | int], Finding] = {}
    for finding in seen.findings:
        if finding.action is not None:
            by_action.setdefault((finding.action, finding.subject), finding)
    lines = []
    for action in WORDS:
        for finding in [found for (wanted, _), found in by_action.items() if wanted == action]:
            said = f"{finding.where}: {finding.what}"
            fault = _try(partial(MEND[action], surgery, finding.subject))
            lines.append(f"mended: {said}" if fault is None else f"not mended: {said} ({fault})")
    fault = _try(partial(_deliver, seen, catalog, console))
    return lines if fault is None else [*lines, f"not delivered to MLflow: {fault}"]


def _try(act: Callable[[], None]) -> str | None:
    """Do it; what went wrong, in one line."""
    try:
        act()
    except (SweeperError, TrialError, OSError) as error:
        return one_line(error)
    except Exception as error:  # noqa: BLE001  rows that somebody wrote by hand may hold anything
        return f"{type(error).__name__}: {one_line(error)}"
    return None


class Surgery:
    """One study that is being mended."""

    def __init__(self, seen: Examination, catalog: Catalog) -> None:
        self.seen, self.catalog, self.row = seen, catalog, seen.row
        self.runs = StudyRuns(seen.settings, seen.row, {})

    def stop(self, _: str | int) -> None:
        self.catalog.set_study(self.row.id, state="stopped")

    def wait(self, number: str | int) -> None:
        state: TrialState = "waiting"
        self.catalog.set_trial(self.catalog.trial(self.row.id, int(number)).id, state=state)

    def go_on(self, _: str | int) -> None:
        self.catalog.go_on(self.row.id)

    def rewrite_history(self, _: str | int) -> None:
        row = self.catalog.study(self.row.name)
        name = write_anew(self.catalog, row, self.seen.study, self.catalog.trials(row.id))
        self.catalog.set_study(row.id, history=name)
        remove_old(self.catalog, row)

    def forget_histories(self, _: str | int) -> None:
        remove_old(self.catalog, self.row)

    def remove(self, path: str | int) -> None:
        self.seen.folder.remove_stray(str(path))

    def restore_weights(self, path: str | int) -> None:
        winner = self.row.winner or {}
        package = self.seen.folder.fetch_package(winner["package"])
        self.seen.folder.restore(str(path), (package / "weights.safetensors").read_bytes())

    def pack_again(self, _: str | int) -> None:
        study = self.catalog.study(self.row.name)
        pack_again(self.catalog, study, self.seen.folder, file_folder=Path(study.file).parent)
        remove_leftovers(self.catalog, study, self.seen.folder)

    def choose_again(self, path: str | int) -> None:
        # The winner's record stays until there is another: it has how often the test split was looked at.
        self.forget_weights(path)
        self.catalog.go_on(self.row.id)

    def forget_weights(self, path: str | int) -> None:
        of = {row.trial for row in self.seen.weights if row.path == path}
        self.catalog.forget_weights(self.row.id, [str(path)])
        for number in of - {row.trial for row in self.catalog.weights(self.row.id)}:
            self.seen.folder.remove_resume_point(number)  # without weights a trial cannot be extended
        self.seen.folder.remove_file(str(path))

    def forget_resume_point(self, number: str | int) -> None:
        self.seen.folder.remove_resume_point(int(number))

    def delete_run(self, run_id: str | int) -> None:
        with as_tracking_error(self.seen.settings):
            self.runs.client.delete_run(str(run_id))

    def run_anew(self, run_id: str | int) -> None:
        self.delete_run(run_id)
        self.catalog.owe_run_again(str(run_id))

    def tell_again(self, run_id: str | int) -> None:
        self.catalog.owe_run_again(str(run_id))

    def register_again(self, _: str | int) -> None:
        winner = self.catalog.study(self.row.name).winner or {}
        kept = {name: value for name, value in winner.items() if name != "model_version"}
        self.catalog.set_study(self.row.id, winner=kept)

    def deliver(self, _: str | int) -> None:
        """All that is owed is delivered once, in the end."""


MEND: dict[Action, Callable[[Surgery, str | int], None]] = {
    "stop": Surgery.stop,
    "wait": Surgery.wait,
    "go_on": Surgery.go_on,
    "rewrite_history": Surgery.rewrite_history,
    "forget_histories": Surgery.forget_histories,
    "remove": Surgery.remove,
    "restore_weights": Surgery.restore_weights,
    "pack_again": Surgery.pack_again,
    "choose_again": Surgery.choose_again,
    "forget_weights": Surgery.forget_weights,
    "forget_resume_point": Surgery.forget_resume_point,
    "delete_run": Surgery.delete_run,
    "run_anew": Surgery.run_anew,
    "tell_again": Surgery.tell_again,
    "register_again": Surgery.register_again,
    "deliver": Surgery.deliver,
}


def _deliver(seen: Examination, catalog: Catalog, console: Console) -> None:
    """Tell MLflow, if it knows the study at all, what it is owed by now."""
    row = catalog.study(seen.row.name)
    if row.tracking_uri != without_password(seen.settings.tracking_uri):
        return
    call = open_call(seen.study, row, seen.settings, catalog, console, in_process=True, train=TRAIN)
    deliver_owed(call)
