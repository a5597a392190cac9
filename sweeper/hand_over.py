"""What a finished study gives away: a picture of its learning curve, and to MLflow all that it is owed."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import show
from sweeper.errors import TrackingError
from sweeper.mlflow_client import as_tracking_error
from sweeper.mlflow_model import log_model
from sweeper.publish import requirements
from sweeper.report.learning_curve import draw, learning_curve

if TYPE_CHECKING:
    from sweeper.carry_out import Call


def hand_over(call: Call) -> None:
    """Draw the learning curve and deliver what MLflow is still owed; where it is away, say what delivers it later."""
    winner = call.catalog.study(call.row.name).winner
    if winner is None:
        return
    curve = draw_curve(call)
    if "model_version" in winner and not call.tracker.owes():
        return
    status = call.console.status("handing the results to MLflow") if call.console.is_terminal else nullcontext()
    with status, suppress(TrackingError):
        deliver_results(call, curve)
    if call.tracker.last_error is not None:
        again = show.command(call.settings, "sync", call.row.name)
        call.say(f"{call.tracker.last_error}; what it is owed is kept and delivered by: {again}")


def deliver_results(call: Call, curve: Path | None) -> str | None:
    """Deliver what MLflow is owed of a study with a winner: epochs, runs, and once the model, with the curve.

    Returns the version of the model if it was registered now.

    Raises:
        TrackingError: MLflow cannot be reached; the tracker's `last_error` says so too.
    """
    catalog, row, tracker = call.catalog, call.row, call.tracker
    if not tracker.close():
        raise TrackingError(tracker.last_error)
    winner = catalog.study(row.name).winner or {}  # another MLflow than before is owed the model again
    if "model_version" in winner:
        return None
    try:
        if curve is not None:
            with as_tracking_error(call.settings):
                tracker.client.log_artifact(tracker.open_parent(), str(curve))
        package = call.folder.fetch_package(winner["package"])
        version = log_model(tracker, package, name=row.name, requirements=requirements())
        tracker.end("FINISHED", _numbers(winner))
        tracker.delete_duplicates()
    except TrackingError as error:
        tracker.last_error = str(error)
        raise
    catalog.set_study(row.id, winner={**winner, "model_version": version})
    return version


def draw_curve(call: Call) -> Path | None:
    """The picture in the study's folder, drawn anew where trials have ended since; ``None`` if there is no curve."""
    trials = call.catalog.trials(call.row.id)
    points = learning_curve(trials, call.row.metric)
    if not points:
        return None
    path = call.folder.learning_curve
    if not path.exists() or path.stat().st_mtime < max(trial.ended_at or 0.0 for trial in trials):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        draw(points, call.row.metric).savefig(beside, format="png")
        beside.replace(path)
    return path


def _numbers(winner: dict[str, Any]) -> dict[str, float]:
    """The winner's metrics as the parent run shows them."""
    return {
        "winner.trial": float(winner["trial"]),
        "winner.test_looks": float(winner["test_looks"]),
        **{f"winner.selection.{name.removeprefix('validation.')}": v for name, v in winner["selection"].items()},
        **{f"winner.{name}": value for name, value in winner["test"].items()},
    }
