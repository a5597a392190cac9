"""Where a trial keeps what, and how it is written so that a kill at any moment leaves a whole state.

    recipe.json                        what is being trained
    checkpoints/epoch-0007/            the newest epoch: raw.safetensors, ema.safetensors, swa.safetensors, state.pt
    best/epoch-0005.safetensors        raw weights of an epoch that may be needed at the end (its average: ema-0005)
    weights/raw.safetensors            what is kept: raw, ema, swa, best_n (after an extension: raw-extended-1)
    pictures/                          what was drawn of it
    result.json                        written last: the trial is finished
    .lock                              held by the one process that trains here; by itself it means nothing

Nothing is ever changed in place. A file or folder is written under a temporary name (``.name.tmp``), synced to disk,
and renamed; what it replaces is removed only afterwards. One process at a time owns the folder, by a lock that the
operating system lets go of when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from trials.errors import TrialError
from trials.recipe import Recipe
from trials.result import TrialResult, WeightsKind

Weights = Mapping[str, Tensor]

OWNER_PATIENCE_SECONDS = 60.0
"""How long a folder that another process owns is waited for: a worker that lost its orchestrator soon ends."""

_CHECKPOINT_NAME = re.compile(r"epoch-(\d{4,})")
_BEST_NAME = re.compile(r"(?:epoch|ema)-(\d{4,})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The whole state of a trial after an epoch."""

    epoch: int
    models: Mapping[str, Weights]
    """``raw``, and the averages that follow it: ``ema``, ``swa``."""
    state: dict[str, Any]
    """Optimizer, scaler, history: tensors, numbers, strings, lists and dicts only."""


class TrialFolder:
    """Every path of one trial."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.recipe = self.root / "recipe.json"
        self.result = self.root / "result.json"
        self.checkpoints = self.root / "checkpoints"
        self.best = self.root / "best"
        self.weights = self.root / "weights"
        self.pictures = self.root / "pictures"
        self.lock = self.root / ".lock"

    @contextlib.contextmanager
    def owned(self, patience_seconds: float = OWNER_PATIENCE_SECONDS) -> Iterator[None]:
        """Own the folder, which is made if need be. Raises :class:`TrialError` if another process keeps it."""
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=patience_seconds)
        except Timeout as error:
            raise TrialError(
                f"{self.root}: another process trains here, still after {patience_seconds:g} s of waiting; expected "
                "one at a time; end that process or wait for it, then start again"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def checkpoint(self, epoch: int) -> Path:
        """The folder with the state after ``epoch``."""
        return self.checkpoints / f"epoch-{epoch:04d}"

    def best_weights(self, epoch: int, kind: WeightsKind = "raw") -> Path:
        """The file with the raw or ema weights of one of the best epochs."""
        return self.best / f"{'ema' if kind == 'ema' else 'epoch'}-{epoch:04d}.safetensors"

    def kept_weights(self, kind: WeightsKind, extensions: int = 0) -> Path:
        """The file with weights of ``kind`` that a finished trial leaves behind.

        Under a name of its own after each extension: until the new ones are known, the old ones still count.
        """
        return self.weights / f"{kind}{f'-extended-{extensions}' if extensions else ''}.safetensors"

    def claim(self, recipe: Recipe) -> None:
        """Take the folder for ``recipe``, or for the same one with one more extension.

        An extension takes the place of another of which nothing has been trained. Raises :class:`TrialError` when the
        folder belongs to another recipe, or has not the checkpoint that the extension goes on from.
        """
        if self.recipe.exists():
            there, here = json.loads(self.recipe.read_bytes()), recipe.model_dump(mode="json")
            if there == here:
                return
            before = {**here, "extensions": here["extensions"][:-1]}
            if before == here or before not in (there, {**there, "extensions": there["extensions"][:-1]}):
                differences = "; ".join(_differences(there, here, ""))
                raise TrialError(f"{self.recipe}: another recipe's trial ({differences}); use a new folder")
            needed = recipe.extensions[-1].after_epochs
            if self._newest_epoch() != needed:
                raise TrialError(
                    f"{self.checkpoints}: cannot be extended: expected the checkpoint of epoch {needed}, found "
                    f"{self._newest_epoch() or 'none'}; it was removed, or an extension that failed trained past it"
                )
            # First, since a result says that there is nothing left to train.
            self.result.unlink(missing_ok=True)
        write_whole(self.recipe, recipe.model_dump_json(indent=2).encode())

    def read_result(self) -> TrialResult | None:
        """The result of a trial that is finished, else ``None``."""
        return TrialResult.model_validate_json(self.result.read_bytes()) if self.result.exists() else None

    def newest_checkpoint(self) -> Checkpoint | None:
        """The state after the last epoch that was saved; every checkpoint that has its name is whole."""
        epoch = self._newest_epoch()
        if epoch is None:
            return None
        folder = self.checkpoint(epoch)
        return Checkpoint(
            epoch=epoch,
            models={path.stem: safetensors.torch.load_file(path) for path in folder.glob("*.safetensors")},
            state=torch.load(folder / "state.pt", map_location="cpu", weights_only=True),
        )

    def _newest_epoch(self) -> int | None:
        epochs = (int(found[1]) for path in _entries(self.checkpoints) if (found := _name(_CHECKPOINT_NAME, path)))
        return max(epochs, default=None)

    def save(self, checkpoint: Checkpoint, best: Collection[int], best_ema: Collection[int] = ()) -> None:
        """Write ``checkpoint``; keep in ``best/`` the raw weights of the epochs in ``best``, averages of ``best_ema``.

        In this order: this epoch's file in ``best/`` if it belongs there, the checkpoint, and only then away with
        the older checkpoint and with the files in ``best/`` that only it needed.
        """
        if checkpoint.epoch in best:
            write_weights(self.best_weights(checkpoint.epoch), checkpoint.models["raw"])
        if checkpoint.epoch in best_ema:
            write_weights(self.best_weights(checkpoint.epoch, "ema"), checkpoint.models["ema"])
        target = self.checkpoint(checkpoint.epoch)
        temporary = _temporary(target)
        _remove(temporary)
        temporary.mkdir(parents=True)
        for kind, weights in checkpoint.models.items():
            _write(temporary / f"{kind}.safetensors", _packed(weights))
        state = io.BytesIO()
        torch.save(checkpoint.state, state)
        _write(temporary / "state.pt", state.getbuffer())
        _sync(temporary)
        temporary.rename(target)
        _sync(self.checkpoints)
        self._remove_superseded(checkpoint.epoch, best, best_ema)

    def _remove_superseded(self, epoch: int, best: Collection[int], best_ema: Collection[int]) -> None:
        for path in _entries(self.checkpoints):
            found = _name(_CHECKPOINT_NAME, path)
            if found and int(found[1]) < epoch:
                # Under its own name a checkpoint must be whole, also while it is being removed.
                _remove(path.rename(_temporary(path)))
        needed = {self.best_weights(number) for number in best}
        needed |= {self.best_weights(number, "ema") for number in best_ema}
        for path in _entries(self.best):
            if _name(_BEST_NAME, path) and path not in needed:
                path.unlink()

    def remove_leftovers(self) -> None:
        """Remove what writes that were cut off left under temporary names."""
        for folder in (self.root, self.checkpoints, self.best, self.weights, self.pictures):
            for path in _entries(folder):
                if path.name.startswith(".") and path.name.endswith(".tmp"):
                    _remove(path)

    def finish(self, result: TrialResult) -> None:
        """Write the result. The newest checkpoint and the weights of the best epochs stay: a trial may be extended."""
        write_whole(self.result, result.model_dump_json(indent=2).encode())

    def remove_resume_point(self) -> None:
        """Remove what only a trial that goes on would need: the checkpoint and the weights of best epochs."""
        _remove(self.checkpoints)
        _remove(self.best)


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader, or a crash, meets the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    _write(temporary, content)
    temporary.replace(path)
    _sync(path.parent)


def write_weights(path: Path, weights: Weights) -> None:
    """Write tensors as one safetensors file, whole or not at all. Tied tensors are stored once under each name."""
    write_whole(path, _packed(weights))


def _packed(weights: Weights) -> bytes:
    # A copy on the host each: the format takes neither shared memory nor channels-last strides.
    return safetensors.torch.save(
        {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
    )


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _name(pattern: re.Pattern[str], path: Path) -> re.Match[str] | None:
    return pattern.fullmatch(path.name)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _differences(there: Any, here: Any, path: str) -> Iterator[str]:
    """One phrase for each value that differs between two nested dicts."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from _differences(there.get(key), here.get(key), f"{path}.{key}" if path else key)
    elif there != here:
        yield f"{path}: {json.dumps(there)} there, {json.dumps(here)} here"
