"""The checkpoints that a trial would go on from: whether they are what was written."""

from __future__ import annotations

from sweeper.catalog import ENDED, TrialRow
from sweeper.doctor.findings import Examination, name_of
from sweeper.doctor.of_store import extendable


def check_checkpoints(seen: Examination) -> None:
    """Look for damaged checkpoints of trials that have not ended, and of those that could be extended.

    The former are no fault: the trial itself sets them aside when it goes on, and comes to the same numbers. Of a
    study that runs neither are looked at, since they come and go.
    """
    if seen.runs_now:
        return
    kept = extendable(seen)
    looked_at = [trial for trial in seen.trials if trial.state not in ENDED or trial.number in kept]
    for done, trial in enumerate(looked_at):
        seen.progress("checkpoints", done, len(looked_at))
        _check_trial(seen, trial)


def _check_trial(seen: Examination, trial: TrialRow) -> None:
    from trials.checkpoint import TrialFolder

    seen.folder.bring(trial.number)
    examined = TrialFolder(seen.folder.trial(trial.number)).examine_checkpoints()
    seen.checked["checkpoints"] += len(examined)
    whole = next((path.name for path, damage in examined if damage is None), None)
    for _, damage in examined:
        if damage is None:
            continue
        where = damage.path.relative_to(seen.folder.root).as_posix()
        if trial.state in ENDED:
            what = f"damaged ({damage.found}), so that {name_of(trial.number)} cannot be extended"
            seen.find(where, what, "forget_resume_point", trial.number)
        else:
            onward = "begins anew" if whole is None else f"goes on from {whole}"
            seen.notes.append(
                f"{where}: damaged ({damage.found}); {name_of(trial.number)} {onward}, to the same numbers"
            )
