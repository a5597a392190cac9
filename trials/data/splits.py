"""The three splits of a study: stratified by class, seeded by the data's own seed, loaded once a process."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trials.data.checks import Source
from trials.data.pictures import resize
from trials.data.preprocess import ArrayPreprocess, Preprocess
from trials.data.sources import load_source
from trials.data.target import Target
from trials.errors import DataError

if TYPE_CHECKING:
    from trials.recipe import Data

_SHARE_OF_FREE_DEVICE_MEMORY = 0.4


@dataclass(frozen=True, eq=False)
class Split:
    """Examples in their raw dtype, on the device if they fit there. Never written to: trials share them."""

    inputs: Tensor
    """(N, C, H, W) images or (N, F) features, uint8 or float32."""
    targets: Tensor
    """(N,) class indices, int64."""

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Split:
        """The same examples on ``device``."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True, eq=False)
class Splits:
    """What a trial trains on, is chosen by, and is judged by once at the end."""

    train: Split
    selection: Split
    test: Split
    preprocess: Preprocess
    target: Target
    digest: str
    """SHA-256 over all examples and the split: equal exactly if data and split are equal."""


@dataclass(frozen=True, eq=False)
class Indices:
    """Rows of each split, ascending. ``test`` is ``None`` when the source has a test split of its own."""

    train: Tensor
    selection: Tensor
    test: Tensor | None


_loaded: dict[str, Splits] = {}
"""At most the one most recent entry: the next trial of a study nearly always wants the same."""


def load_splits(data: Data, device: torch.device) -> Splits:
    """Load, split, measure, and move to ``device`` (on CUDA only below 40 % of its free memory, else host tensors).

    The most recent result is kept in the process. Raises ``DataError``.
    """
    key = _cache_key(data, device)
    if key not in _loaded:
        _loaded.clear()  # before loading: two data sets may not fit in memory
        _loaded[key] = _load(data, device)
    splits = _loaded[key]
    _check_variations(data, splits.preprocess)
    return splits


def split_indices(targets: Tensor, data: Data, classes: tuple[str, ...], own_test: bool) -> Indices:
    """Stratified split of class indices (N,).

    Each class is shuffled by ``data.seed``; its first rows go to the test split (``data.test`` of all, unless the
    source has one), the next to selection (``data.validation`` of the rest), the others to training, of which the
    first ``data.train_fraction`` are used (so a smaller fraction is a subset of a larger one). Shares are rounded per
    class, but every class is in every split. Raises ``DataError`` for a class with too few examples for that.
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(data.seed))
    shuffled = targets[order]
    train, selection, test = [], [], []
    for index, name in enumerate(classes):
        rows = order[shuffled == index]
        needed = 2 if own_test else 3
        if len(rows) < needed:
            raise DataError(
                f"{data.source}: class {name!r} has {len(rows)} example(s), expected at least {needed}: one in each of "
                f"{'training and selection' if own_test else 'training, selection and test'}; add examples or drop it"
            )
        tests = 0 if own_test else _share(len(rows), data.test, spare=2)
        selected = _share(len(rows) - tests, data.validation, spare=1)
        rest = rows[tests + selected :]
        test.append(rows[:tests])
        selection.append(rows[tests : tests + selected])
        train.append(rest[: _share(len(rest), data.train_fraction, spare=0)])
    return Indices(
        train=torch.cat(train).sort().values,
        selection=torch.cat(selection).sort().values,
        test=None if own_test else torch.cat(test).sort().values,
    )


def _share(count: int, fraction: float, spare: int) -> int:
    """``fraction`` of ``count``, rounded half up, at least 1, leaving ``spare``."""
    return min(max(1, int(count * fraction + 0.5)), count - spare)


def _load(data: Data, device: torch.device) -> Splits:
    source = load_source(data)
    targets = torch.from_numpy(source.targets)
    indices = split_indices(targets, data, source.classes, own_test=source.test_inputs is not None)
    digest = _digest(source, indices, data.image_size)
    inputs = _as_tensor(source.inputs, data.image_size)
    train = Split(inputs[indices.train], targets[indices.train])
    selection = Split(inputs[indices.selection], targets[indices.selection])
    if indices.test is not None:
        test = Split(inputs[indices.test], targets[indices.test])
    else:
        assert source.test_inputs is not None
        assert source.test_targets is not None
        test = Split(_as_tensor(source.test_inputs, data.image_size), torch.from_numpy(source.test_targets))
    counts = torch.bincount(train.targets, minlength=len(source.classes)).tolist()
    target = Target("classification", tuple(source.classes), tuple(counts))
    preprocess = ArrayPreprocess.fit(train.inputs, data.image_size)  # on the host: the same numbers for every device
    if _fits(device, (train, selection, test)):
        train, selection, test = train.to(device), selection.to(device), test.to(device)
    return Splits(train, selection, test, preprocess, target, digest)


def _as_tensor(inputs: np.ndarray, image_size: int | None) -> Tensor:
    """Images as (N, C, H, W), resized if asked; features as they are."""
    array = inputs[..., None] if inputs.ndim == 3 else inputs
    tensor = torch.tensor(array)  # a copy: a user's arrays may be read-only or reused
    if tensor.ndim == 2:
        return tensor
    images = tensor.permute(0, 3, 1, 2)
    return images.contiguous() if image_size is None else resize(images, image_size).contiguous()


def _digest(source: Source, indices: Indices, image_size: int | None) -> str:
    digest = hashlib.sha256()
    arrays = [source.inputs, source.targets, source.test_inputs, source.test_targets]
    splits = [rows if rows is None else rows.numpy() for rows in (indices.train, indices.selection, indices.test)]
    header = [None if array is None else [str(array.dtype), list(array.shape)] for array in [*arrays, *splits]]
    digest.update(json.dumps([header, source.classes, image_size]).encode())
    for array in [*arrays, *splits]:
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _fits(device: torch.device, splits: tuple[Split, ...]) -> bool:
    if device.type != "cuda":
        return True
    size = sum(split.inputs.nbytes + split.targets.nbytes for split in splits)
    free, _ = torch.cuda.mem_get_info(device)
    return size < _SHARE_OF_FREE_DEVICE_MEMORY * free


def _cache_key(data: Data, device: torch.device) -> str:
    """The fields that decide what is loaded and how it is split, and when the files were last changed."""
    fields = {"source", "arguments", "validation", "test", "seed", "train_fraction", "image_size"}
    changed: list[tuple[str, int, int]] = []
    prefix, _, rest = data.source.partition(":")
    path = Path(rest).expanduser()
    if prefix == "npz" and path.is_file():
        paths = [str(path)]
    elif prefix == "folder" and path.is_dir():
        paths = [folder for folder, _, _ in os.walk(path)]  # a folder's time changes when files come and go
    else:
        paths = []
    for name in sorted(paths):
        status = Path(name).stat()
        changed.append((name, status.st_size, status.st_mtime_ns))
    return json.dumps([data.model_dump(include=fields), str(device), changed], sort_keys=True, default=repr)


def _check_variations(data: Data, preprocess: Preprocess) -> None:
    """Refuse augmentation and mixing that make no sense for these examples, before any training (augmentation says so when it is built)."""
    if preprocess.kind != "image" and data.mix in ("cutmix", "mixup_or_cutmix"):
        raise DataError(f"data.mix: {data.mix} needs images, but {data.source} has {preprocess.kind}; leave it out")
    if preprocess.kind == "text" and data.mix != "none":
        raise DataError(f"data.mix: {data.mix} cannot blend words; leave it out")
