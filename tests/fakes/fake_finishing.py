"""Finishing moves that take no time and whose every number is known beforehand: `train` for studies with `finish`.

What a recipe is worth, on the selection split and on the confirmation split, is `worth(recipe)`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from fake_training import score, write_checkpoint

from trials.errors import Diverged, Interrupted, NoSpace, Pruned, TrialError
from trials.recipe import GreedySoup, Recipe, UniformSoup
from trials.result import EpochReport, TrialResult, WeightsFile

Report = Callable[[EpochReport], bool]
Stop = Callable[[], bool]

SOUP, ENSEMBLE, TAUGHT, LONGER = 0.01, 0.02, 0.015, 0.001
"""What a move is worth beyond the best that went into it; longer training and an extension, for each epoch."""


def worth(recipe: Recipe) -> float:
    """On the selection split."""
    assembly = recipe.assembly
    if isinstance(assembly, UniformSoup | GreedySoup):
        return max(file.value or 0.0 for file in assembly.ingredients) + SOUP
    if assembly is not None:
        return max(member.weights.value or 0.0 for member in assembly.members) + ENSEMBLE
    if recipe.teacher is not None:
        return score(recipe.train.optimizer.lr) + TAUGHT
    if recipe.start is not None and recipe.start.weights.value is not None and not recipe.average.trunk_epochs:
        return recipe.start.weights.value + LONGER * recipe.train.epochs
    return score(recipe.train.optimizer.lr)


def finishing(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Ends well, unless told to stop."""
    value, done = worth(recipe) + LONGER * (recipe.epochs - recipe.train.epochs), folder / "epochs"
    begun = int(done.read_text()) if done.exists() else 0
    epochs = 0 if recipe.assembly is not None else recipe.epochs
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(max(begun, 1), epochs + 1):
        if epoch > begun and stop():
            raise Interrupted(epoch, 0)
        write_checkpoint(folder / "checkpoints" / f"epoch-{epoch:04d}")
        done.write_text(str(epoch))
        metrics = {"validation.accuracy": value * epoch / epochs, "validation.loss": 1.0 - value}
        if not report(EpochReport(epoch=epoch, epochs=epochs, metrics=metrics, seconds=0.1)):
            raise Pruned(epoch)
    assembly = recipe.assembly
    kinds = {"raw": value, "ema": value - 0.001}
    shares: tuple[float, ...] = ()
    if isinstance(assembly, UniformSoup | GreedySoup):
        kinds = {"soup": value}
    elif assembly is not None:
        kinds, shares = {"ensemble": value}, tuple(0.5 if index < 2 else 0.0 for index in range(len(assembly.members)))
    kept = tuple(_keep(folder, kind, worth, recipe) for kind, worth in kinds.items())
    return TrialResult(
        epochs=epochs, weights=kept, shares=shares, parameters=1, seconds=0.1, device="cpu", peak_memory_bytes=0
    )


def nothing_can_be_averaged(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Soups are refused, and students diverge."""
    if isinstance(recipe.assembly, UniformSoup | GreedySoup):
        raise TrialError("no two of these weights can be averaged")
    if recipe.teacher is not None:
        raise Diverged("loss is nan")
    return finishing(recipe, folder, report, stop=stop)


def trunks_diverge_above(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """A training from the beginning diverges when its learning rate is above 0.1."""
    if recipe.start is None and recipe.assembly is None and recipe.train.optimizer.lr > 0.1:
        raise Diverged("loss is nan")
    return finishing(recipe, folder, report, stop=stop)


def trunks_hang_above(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """A training from the beginning says nothing more when its learning rate is above 0.1."""
    while recipe.start is None and recipe.assembly is None and recipe.train.optimizer.lr > 0.1:
        time.sleep(0.001)
    return finishing(recipe, folder, report, stop=stop)


def a_later_trunk_fills_the_disk_once(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """There is no more room in the first training from the beginning that another trial has gone before."""
    mark = folder.parent / "was-full"
    if recipe.start is None and any(folder.parent.glob("0*/weights")) and not mark.exists():
        mark.touch()
        raise NoSpace(f"{folder}: No space left on device; make room, then start again")
    return finishing(recipe, folder, report, stop=stop)


def _keep(folder: Path, kind: str, value: float, recipe: Recipe) -> WeightsFile:
    content = f"{kind} {value} {recipe.seed}".encode()
    path = Path("weights", f"{kind}{f'-extended-{len(recipe.extensions)}' if recipe.extensions else ''}.safetensors")
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
    return WeightsFile(
        kind=kind,  # type: ignore[arg-type]
        path=path.as_posix(),
        metrics={"validation.accuracy": value, "validation.loss": 1.0 - value, "confirm.accuracy": value},
        epoch=0 if recipe.assembly is not None else recipe.epochs,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
