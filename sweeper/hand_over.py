"""What a finished study gives away: a picture of its learning curve, and to MLflow all that it is owed."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import show
from sweeper.errors import TrackingError
from sweeper.mlflow_client import as_tracking_error
from sweeper.publish import requirements
from sweeper.report.learning_curve import draw, learning_curve
from sweeper.tracking import log_model

if TYPE_CHECKING:
    from sweeper.start import Call


def hand_over(call: Call) -> None:
    """Draw the learning curve; deliver what MLflow is still owed: epochs, runs, and once the model with the curve."""
    catalog, row, tracker = call.catalog, call.row, call.tracker
    winner = catalog.study(row.name).winner
    if winner is None:
        return
    curve = _draw_learning_curve(call)
    if "model_version" in winner and not tracker.owes():
        return
    status = call.console.status("handing the results to MLflow") if call.console.is_terminal else nullcontext()
    with status:
        delivered = tracker.close()
        winner = catalog.study(row.name).winner or winner  # another MLflow than before is owed the model again
        if delivered and "model_version" not in winner:
            try:
                if curve is not None:
                    with as_tracking_error(call.settings):
                        tracker.client.log_artifact(tracker.open_parent(), str(curve))
                package = call.folder.package(winner["package"])
                model_version = log_model(tracker, package, name=row.name, requirements=requirements())
                tracker.end("FINISHED", _numbers(winner))
                catalog.set_study(row.id, winner={**winner, "model_version": model_version})
            except TrackingError as error:
                tracker.last_error = str(error)
    if tracker.last_error is not None:
        again = show.command(call.settings, "start", str(call.study.path))
        call.say(f"{tracker.last_error}; what it is owed is kept and delivered by: {again}")


def _draw_learning_curve(call: Call) -> Path | None:
    """The picture in the study's folder, drawn anew where trials have ended since; ``None`` if there is no curve."""
    trials = call.catalog.trials(call.row.id)
    points = learning_curve(trials, call.row.metric)
    if not points:
        return None
    path = call.folder.learning_curve
    if not path.exists() or path.stat().st_mtime < max(trial.ended_at or 0.0 for trial in trials):
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
