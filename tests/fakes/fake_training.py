"""Trials that take no time and whose every number is known beforehand: real functions for the seam `train`.

A trial's accuracy after epoch e of E is `score(lr) * e / E`, where `score` is 0.9 at lr = 0.1 and falls with its
distance in decades; each epoch of an extension is worth 0.001. `raw` is worth that; `ema` is worth 0.01 more.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

from trials.disk import remove
from trials.errors import Diverged, Interrupted, Pruned
from trials.manifest import MANIFEST, Manifest, sealed
from trials.recipe import Recipe
from trials.result import EpochReport, TrialResult, WeightsFile

Report = Callable[[EpochReport], bool]
Stop = Callable[[], bool]


def score(lr: float) -> float:
    return max(0.0, 0.9 - 0.2 * abs(math.log10(lr) + 1.0))


def accuracy(recipe: Recipe, epoch: int) -> float:
    top, epochs = score(recipe.train.optimizer.lr), recipe.train.epochs
    return top * min(epoch, epochs) / epochs + 0.001 * max(0, epoch - epochs)


def instant(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Ends well, unless told to stop. Continued, it tells its newest epoch again, as the real one does.

    It asks `stop` before each epoch that it has not trained yet.
    """
    epochs, checkpoints, done = recipe.epochs, folder / "checkpoints", folder / "epochs"
    start = int(done.read_text()) if done.exists() else 0
    for epoch in range(max(start, 1), epochs + 1):
        if epoch > start and stop():
            raise Interrupted(epoch, 0)
        write_checkpoint(checkpoints / f"epoch-{epoch:04d}")
        for older in sorted(checkpoints.iterdir())[:-1]:
            remove(older)
        done.write_text(str(epoch))
        if not report(_report(epoch, epochs, accuracy(recipe, epoch))):
            raise Pruned(epoch)
    worth = {"ema": accuracy(recipe, epochs) + 0.01, "raw": accuracy(recipe, epochs)}
    kept = [_keep(folder, kind, value, recipe) for kind, value in worth.items()]
    return TrialResult(
        epochs=epochs, weights=tuple(kept), parameters=1, seconds=0.1 * epochs, device="cpu", peak_memory_bytes=0
    )


def write_checkpoint(folder: Path) -> None:
    """A whole checkpoint of nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_bytes(sealed(Manifest(files={}, best={}).model_dump()))


def fails_to_go_on(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Ends well; extended, it fails after one more epoch."""
    return instant(recipe, folder, _failing(recipe, report), stop=stop)


def really_fails_to_go_on(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """The real training, which fails after one epoch of its extension."""
    from trials.train import run_trial

    return run_trial(recipe, folder, _failing(recipe, report), stop=stop)


def _failing(recipe: Recipe, report: Report) -> Report:
    def report_or_fail(epoch: EpochReport) -> bool:
        answer = report(epoch)
        if recipe.extensions and epoch.epoch > recipe.extensions[-1].after_epochs:
            raise Diverged("loss is nan")
        return answer

    return report_or_fail


def diverges(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Fails after one epoch when the learning rate is above 0.1."""
    if recipe.train.optimizer.lr > 0.1:
        report(_report(1, recipe.train.epochs, 0.5))
        raise Diverged("loss is nan at epoch 2, step 17")
    return instant(recipe, folder, report, stop=stop)


def always_raises(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """A mistake in the user's own code."""
    raise ValueError("no such column: 'price'")


def names_a_file_of_old(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """A file whose name is not UTF-8, with a NUL within."""
    raise ValueError(f"{os.fsdecode(bytes((0x63, 0xE9)))}.png: \0 is no picture")


def exits(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Somebody's script at heart."""
    raise SystemExit("no data today")


def holds_while_it_runs(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Holds 200 MB as a model and its optimizer would."""
    state = bytearray(os.urandom(1 << 20) * 200)
    if not report(_report(1, recipe.train.epochs, 0.5)):
        raise Pruned(len(state) and 1)
    raise AssertionError("told to go on")


def dies_once(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Kills its own process after two epochs, the first time."""
    mark = folder / "died"

    def report_or_die(epoch: EpochReport) -> bool:
        if epoch.epoch == 3 and not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return report(epoch)

    return instant(recipe, folder, report_or_die, stop=stop)


HOARD: list[bytearray] = []


def hoards(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Leaves 200 MB behind in its process, and says in which process it ran."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pid").write_text(str(os.getpid()))
    HOARD.append(bytearray(os.urandom(1 << 20) * 200))
    return instant(recipe, folder, report, stop=stop)


def _report(epoch: int, epochs: int, value: float) -> EpochReport:
    metrics = {"train.loss": 1.0 - value, "validation.loss": 1.0 - value, "validation.accuracy": value}
    return EpochReport(epoch=epoch, epochs=epochs, metrics=metrics, seconds=0.1)


def _keep(folder: Path, kind: str, value: float, recipe: Recipe) -> WeightsFile:
    content = f"{kind} {value}".encode()
    path = Path("weights", f"{kind}{f'-extended-{len(recipe.extensions)}' if recipe.extensions else ''}.safetensors")
    (folder / "weights").mkdir(exist_ok=True)
    (folder / path).write_bytes(content)
    return WeightsFile(
        kind=kind,  # type: ignore[arg-type]
        path=path.as_posix(),
        metrics={"validation.accuracy": value, "validation.loss": 1.0 - value},
        epoch=recipe.epochs,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
