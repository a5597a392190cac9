"""What the catalog says of itself: states that nobody stands behind, epochs that are missing."""

from __future__ import annotations

from sweeper.catalog import ENDED, TrialRow
from sweeper.doctor.findings import Examination, listed, name_of


def check_states(seen: Examination) -> None:
    """Compare the states of the study and its trials with who runs it, and each trial's epochs with its recipe."""
    row = seen.row
    if not seen.runs_now:
        if row.state == "running":
            seen.find("study", "running in the catalog, but nobody runs it", "stop")
        for trial in seen.trials:
            if trial.state == "running":
                seen.find(
                    name_of(trial.number), "running in the catalog, but nobody runs the study", "wait", trial.number
                )
    if seen.is_finished:
        _check_finished(seen)
    for trial in seen.settled():
        _check_epochs(seen, trial)


def _check_finished(seen: Examination) -> None:
    row = seen.row
    for trial in seen.trials:
        if trial.state not in ENDED:
            seen.find(name_of(trial.number), f"{trial.state} in the catalog, but the study is finished", "go_on")
    if len(seen.searched) < row.trials_asked:
        seen.find(
            "study", f"finished in the catalog, with {len(seen.searched)} of {row.trials_asked} trials there", "go_on"
        )
    if row.winner is None:
        seen.find("study", "finished in the catalog, without a winner", "go_on")


def _check_epochs(seen: Examination, trial: TrialRow) -> None:
    known = {epoch.epoch for epoch in seen.epochs_of(trial)}
    seen.checked["epochs"] += len(known)
    planned = trial.recipe["train"]["epochs"] + sum(added["epochs"] for added in trial.recipe.get("extensions", ()))
    newest = trial.facts.get("epochs", planned) if trial.state == "complete" else max(known, default=0)
    missing = sorted(set(range(1, newest + 1)) - known)
    # A complete trial has a reason where an extension of it failed midway, whose epochs stay recorded.
    extension_failed = trial.state == "complete" and trial.reason is not None
    beyond = [] if extension_failed else sorted(epoch for epoch in known if not 1 <= epoch <= planned)
    if missing:
        seen.find(name_of(trial.number), f"{listed(missing)} missing in the catalog, of {newest} trained")
    if beyond:
        seen.find(name_of(trial.number), f"{listed(beyond)} in the catalog, but its recipe ends with {planned}")
