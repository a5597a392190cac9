"""Where a trial keeps what, and how it is written so that a kill at any moment leaves a whole state.

    recipe.json                        what is being trained
    checkpoints/epoch-0007/            the newest epoch: raw.safetensors, ema.safetensors, swa.safetensors, state.pt,
                                       and manifest.json, written last: the digest of every file that belongs to it
    checkpoints/epoch-0008-step-000123/  the state in the midst of an epoch: 7 whole ones and 123 updates of the 8th
    checkpoints/epoch-0006/            the one before, a spare: gone when the trial is finished
    best/epoch-0005.safetensors        raw weights of an epoch that may be needed at the end (its average: ema-0005)
    weights/raw.safetensors            what is kept: raw, ema, swa, best_n (after an extension: raw-extended-1)
    pictures/                          what was drawn of it
    result.json                        written last, with its own digest: the trial is finished
    .lock                              held by the one process that trains here; by itself it means nothing

Nothing is ever changed in place. A file or folder is written under a temporary name (``.name.tmp``), synced to disk,
and renamed; what it replaces is removed only afterwards. What a disk damages later is noticed by its digest and set
aside, with a note: the trial goes on from the spare, or else anew, and comes to the same bytes.

One process at a time owns the folder, by a lock that the operating system lets go of when the process ends, however it
ends.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trials.disk import entries, is_temporary, remove, sync, temporary_for, temporary_name, write, write_whole
from trials.errors import TrialError
from trials.manifest import MANIFEST, Damaged, Manifest, digest, read_sealed, sealed, verify, verify_checkpoint
from trials.recipe import Recipe
from trials.result import TrialResult, WeightsKind
from trials.tensor_files import Weights, packed_state, packed_weights, read_state, read_weights

OWNER_PATIENCE_SECONDS = 60.0
"""How long a folder that another process owns is waited for: a worker that lost its orchestrator soon ends."""

_CHECKPOINT_NAME = re.compile(r"epoch-(\d{4,})(?:-step-(\d{6,}))?")
_STATE = "state.pt"
_BEST_NAME = re.compile(r"(?:epoch|ema)-(\d{4,})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The whole state of a trial after an epoch, or after some updates of the next one."""

    epoch: int
    """Whole epochs so far."""
    models: Mapping[str, Weights]
    """``raw``, and the averages that follow it: ``ema``, ``swa``."""
    state: dict[str, Any]
    """Optimizer, scaler, history: tensors, numbers, strings, lists and dicts only."""
    step: int = 0
    """Updates since then, in the epoch after them."""


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
        self.notes: list[str] = []
        """What was found damaged here and set aside."""

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

    def checkpoint(self, epoch: int, step: int = 0) -> Path:
        """The folder with the state after ``epoch``, and after ``step`` updates of the next one."""
        return self.checkpoints / (f"epoch-{epoch + 1:04d}-step-{step:06d}" if step else f"epoch-{epoch:04d}")

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

        ``train.micro_batch`` may be another than before, unless the trial is finished: it is how the training fits into
        memory, not what is trained. An extension takes the place of another of which nothing has been trained. Raises
        :class:`TrialError` when the folder belongs to another recipe, or has not the checkpoint that the extension goes
        on from.
        """
        if self.recipe.exists():
            found, said = json.loads(self.recipe.read_bytes()), recipe.model_dump(mode="json")
            there, here = _without_micro_batch(found), _without_micro_batch(said)
            if there == here:
                if found != said and not self.result.exists():
                    write_whole(self.recipe, recipe.model_dump_json(indent=2).encode())
                return
            before = {**here, "extensions": here["extensions"][:-1]}
            if before == here or before not in (there, _without_last_extension(there)):
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

    def set_aside_garbled_recipe(self) -> None:
        """Make way for the recipe to be written anew if it cannot be read: each checkpoint knows of which it is."""
        try:
            garbled = self.recipe.exists() and not isinstance(json.loads(self.recipe.read_bytes()), dict)
        except (ValueError, RecursionError):
            garbled = True
        if garbled:
            # First, since it would not say of which recipe it is the result.
            self.result.unlink(missing_ok=True)
            self.recipe.unlink()
            self._note(Damaged(self.recipe, "not a recipe"))

    def read_result(self) -> TrialResult | None:
        """The result of a trial that is finished, else ``None``.

        If it, or one of the files that it names, is damaged, it is set aside: they can be made from the checkpoint.
        """
        if not self.result.exists():
            return None
        try:
            result = TrialResult.model_validate(read_sealed(self.result))
            for kept in result.weights:
                verify(self.root / kept.path, kept.sha256)
        except Damaged as damage:
            self._note(damage)
            self.result.unlink()
            return None
        return result

    def newest_checkpoint(self) -> Checkpoint | None:
        """The newest state that was saved and is whole; what is damaged is set aside, with a note."""
        for path in reversed(self._checkpoints()):
            try:
                return self._read_checkpoint(path)
            except Damaged as damage:
                self._note(damage)
                remove(path.rename(temporary_name(path)))
        return None

    def examine_checkpoints(self) -> list[tuple[Path, Damaged | None]]:
        """Each checkpoint, the newest first, with what is damaged of it; to look changes nothing."""
        examined: list[tuple[Path, Damaged | None]] = []
        for path in reversed(self._checkpoints()):
            try:
                verify_checkpoint(path, self.best)
                examined.append((path, None))
            except Damaged as damage:
                examined.append((path, damage))
        return examined

    def _read_checkpoint(self, folder: Path) -> Checkpoint:
        manifest = Manifest.read(folder)
        for name, expected in manifest.best.items():
            verify(self.best / name, expected)
        digests = dict(manifest.files)
        state = read_state(folder / _STATE, digests.pop(_STATE, ""))
        models = {Path(name).stem: read_weights(folder / name, expected) for name, expected in digests.items()}
        epoch, step = _position(folder)
        return Checkpoint(epoch, models, state, step)

    def _note(self, damage: Damaged) -> None:
        path = damage.path.relative_to(self.root).as_posix()
        self.notes.append(f"{path} was damaged ({damage.found}): set aside, and what was lost with it trained anew")

    def _checkpoints(self) -> list[Path]:
        """The folders of the checkpoints, the newest last."""
        return sorted(filter(_is_checkpoint, entries(self.checkpoints)), key=_position)

    def _newest_epoch(self) -> int | None:
        """The epoch that the newest checkpoint is of, whole or begun."""
        paths = self._checkpoints()
        return None if not paths else _position(paths[-1])[0] + (_position(paths[-1])[1] > 0)

    def whole_best_weights(self, epoch: int, kind: WeightsKind = "raw") -> Path:
        """The file with the raw or ema weights of one of the best epochs. Raises :class:`TrialError` if damaged."""
        path = self.best_weights(epoch, kind)
        verify(path, Manifest.read(self._checkpoints()[-1]).best.get(path.name, ""))
        return path

    def save(self, checkpoint: Checkpoint, best: Collection[int], best_ema: Collection[int] = ()) -> None:
        """Write ``checkpoint``; keep in ``best/`` the raw weights of the epochs in ``best``, averages of ``best_ema``.

        In this order: this epoch's file in ``best/`` if it belongs there, the checkpoint, and only then away with all
        older checkpoints but one, and with the files in ``best/`` that only they needed. Raises :class:`NoSpace` when
        the disk is full; the older checkpoints then are as they were.
        """
        older = self._checkpoints()
        digests = dict(Manifest.read(older[-1]).best) if older else {}
        kinds: dict[WeightsKind, Collection[int]] = {"raw": best, "ema": best_ema}
        for kind, epochs in kinds.items():
            if checkpoint.epoch in epochs and not checkpoint.step:
                content, path = packed_weights(checkpoint.models[kind]), self.best_weights(checkpoint.epoch, kind)
                write_whole(path, content)
                digests[path.name] = digest(content)
        names = [self.best_weights(number, kind).name for kind, epochs in kinds.items() for number in epochs]
        self._write_checkpoint(checkpoint, {name: digests[name] for name in names})
        self._remove_superseded(keep=2)

    def _write_checkpoint(self, checkpoint: Checkpoint, best: dict[str, str]) -> None:
        target = self.checkpoint(checkpoint.epoch, checkpoint.step)
        with temporary_for(target) as temporary:
            remove(temporary)
            temporary.mkdir()
            files = {}
            for name, content in _contents(checkpoint):
                write(temporary / name, content)
                files[name] = digest(content)
            write(temporary / MANIFEST, sealed(Manifest(files=files, best=best).model_dump()))
            sync(temporary)
            temporary.rename(target)
            sync(self.checkpoints)

    def _remove_superseded(self, keep: int) -> None:
        """Remove all but the newest checkpoints, and the files in ``best/`` that none of these needs."""
        paths, needed = self._checkpoints(), set[str]()
        for path in paths[:-keep]:
            # Under its own name a checkpoint must be whole, also while it is being removed.
            remove(path.rename(temporary_name(path)))
        for path in paths[-keep:]:
            with contextlib.suppress(Damaged):  # a spare that is none
                needed |= Manifest.read(path).best.keys()
        for path in entries(self.best):
            if _BEST_NAME.fullmatch(path.name) and path.name not in needed:
                path.unlink()

    def remove_leftovers(self) -> None:
        """Remove what writes that were cut off left under temporary names."""
        for folder in (self.root, self.checkpoints, self.best, self.weights, self.pictures):
            for path in filter(is_temporary, entries(folder)):
                remove(path)

    def finish(self, result: TrialResult) -> None:
        """Write the result. The newest checkpoint and the weights of the best epochs stay: a trial may be extended."""
        self._remove_superseded(keep=1)
        write_whole(self.result, sealed(result.model_dump(mode="json")))

    def remove_resume_point(self) -> None:
        """Remove what only a trial that goes on would need: the checkpoint and the weights of best epochs."""
        remove(self.checkpoints)
        remove(self.best)


def write_weights(path: Path, weights: Weights) -> None:
    """Write tensors as one safetensors file, whole or not at all. Tied tensors are stored once under each name."""
    write_whole(path, packed_weights(weights))


def _contents(checkpoint: Checkpoint) -> Iterator[tuple[str, bytes | memoryview]]:
    """The files of a checkpoint, one at a time: each is a copy in memory."""
    for kind, weights in checkpoint.models.items():
        yield f"{kind}.safetensors", packed_weights(weights)
    yield _STATE, packed_state(checkpoint.state)


def _is_checkpoint(path: Path) -> bool:
    return _CHECKPOINT_NAME.fullmatch(path.name) is not None


def _position(path: Path) -> tuple[int, int]:
    """Whole epochs, and updates after them, of the checkpoint in a folder."""
    found = _CHECKPOINT_NAME.fullmatch(path.name)
    assert found is not None, "the name of a checkpoint"
    return (int(found[1]), 0) if found[2] is None else (int(found[1]) - 1, int(found[2]))


def _without_micro_batch(recipe: Any) -> Any:
    train = recipe.get("train") if isinstance(recipe, dict) else None
    return {**recipe, "train": {**train, "micro_batch": None}} if isinstance(train, dict) else recipe


def _without_last_extension(recipe: Any) -> Any:
    extensions = recipe.get("extensions") if isinstance(recipe, dict) else None
    return {**recipe, "extensions": extensions[:-1]} if isinstance(extensions, list) else None


def _differences(there: Any, here: Any, path: str) -> Iterator[str]:
    """One phrase for each value that differs between two nested dicts."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from _differences(there.get(key), here.get(key), f"{path}.{key}" if path else key)
    elif there != here:
        yield f"{path}: {json.dumps(there)} there, {json.dumps(here)} here"
