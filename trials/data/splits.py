"""The splits of a study: stratified by class if there are classes, seeded by the data's own seed, and loaded once a
process."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from trials.data.checks import Source
from trials.data.preprocess import Preprocess
from trials.data.sources import FILES, load_source
from trials.data.target import Target
from trials.data.tensors import Indices, split_inputs
from trials.errors import DataError

if TYPE_CHECKING:
    from trials.recipe import Data

_SHARE_OF_FREE_DEVICE_MEMORY = 0.4


@dataclass(frozen=True, eq=False)
class Split:
    """Examples in their raw dtype, on the device if they fit there. Never written to: trials share them."""

    inputs: Tensor
    """(N, C, H, W) images or (N, F) features, uint8 or float32; (N, F) cells of a table, float64, NaN where a number is
    missing; or (N, T) words, int32."""
    targets: Tensor
    """(N,) class indices, int64; or standardised numbers, float32."""

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
    texts: tuple[str, ...] | None = None
    """The training examples as they were written, if they are texts."""
    confirm: Split | None = None
    """What ``data.confirm`` sets aside of the selection split: no choice looks at it."""


_loaded: dict[str, Splits] = {}
"""At most the one most recent entry: the next trial of a study nearly always wants the same."""


def load_splits(data: Data, device: torch.device) -> Splits:
    """Load, split, measure, and move to ``device`` as ``data.resident`` says.

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
    """Split targets (N,): class indices stratified by class, or numbers (``classes`` is empty) as one whole.

    Each class is shuffled by ``data.seed``; its first rows go to the test split (``data.test`` of all, unless the
    source has one), the next to selection (``data.validation`` of the rest), the others to training, of which the
    first ``data.train_fraction`` are used (so a smaller fraction is a subset of a larger one). Shares are rounded per
    class, but every class is in every split. Raises ``DataError`` for a class with too few examples for that.

    Of the selected rows of each class, the last ``data.confirm`` are set aside to confirm choices on, at least one; but
    a class that has only one keeps it in selection, and is missing there. Raises ``DataError`` when all are.
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(data.seed))
    shuffled = targets[order]
    groups = [(f"class {name!r}", order[shuffled == index]) for index, name in enumerate(classes)]
    train, selection, test, confirm = [], [], [], []
    for name, rows in groups or [("the source", order)]:
        parts = ("training", "selection") if own_test else ("training", "selection", "test")
        if len(rows) < len(parts):
            raise DataError(
                f"{data.source}: {name} has {len(rows)} example(s), expected at least {len(parts)}: one in each of "
                f"{', '.join(parts)}; add examples or leave it out"
            )
        tests = 0 if own_test else _share(len(rows), data.test, spare=2)
        selected = _share(len(rows) - tests, data.validation, spare=1)
        rest = rows[tests + selected :]
        test.append(rows[:tests])
        confirmed = _share(selected, data.confirm, spare=1) if data.confirm else 0
        selection.append(rows[tests : tests + selected - confirmed])
        confirm.append(rows[tests + selected - confirmed : tests + selected])
        train.append(rest[: _share(len(rest), data.train_fraction, spare=0)])
    if data.confirm and not any(map(len, confirm)):
        each = " of each class" if groups else ""
        raise DataError(
            f"{data.source}: data.confirm has nothing to set aside: the selection split has 1 example{each}, expected "
            "at least 2; raise data.validation or add examples"
        )
    return Indices(
        train=torch.cat(train).sort().values,
        selection=torch.cat(selection).sort().values,
        test=None if own_test else torch.cat(test).sort().values,
        confirm=torch.cat(confirm).sort().values if data.confirm else None,
    )


def _share(count: int, fraction: float, spare: int) -> int:
    """``fraction`` of ``count``, rounded half up, at least 1, leaving ``spare``."""
    return min(max(1, int(count * fraction + 0.5)), count - spare)


def _load(data: Data, device: torch.device) -> Splits:
    source = load_source(data)
    targets = torch.from_numpy(source.targets)
    indices = split_indices(targets, data, source.classes, own_test=source.test_inputs is not None)
    digest = _digest(source, indices, data.image_size)
    inputs = split_inputs(source, indices, data)  # on the host: the same numbers for every device
    if data.task == "classification":
        target = Target.of_classes(targets[indices.train], source.classes)
    else:
        target = Target.of_numbers(targets[indices.train], data.source)
    test_targets = targets[indices.test] if source.test_targets is None else torch.from_numpy(source.test_targets)
    splits = [
        Split(inputs.train, target.as_trained(targets[indices.train])),
        Split(inputs.selection, target.as_trained(targets[indices.selection])),
        Split(inputs.test, target.as_trained(test_targets)),
    ]
    if inputs.confirm is not None:
        splits.append(Split(inputs.confirm, target.as_trained(targets[indices.confirm])))
    if _fits(device, splits, data.resident):
        splits = [split.to(device) for split in splits]
    train, selection, test, *confirm = splits
    return Splits(
        train, selection, test, inputs.preprocess, target, digest, inputs.texts, confirm[0] if confirm else None
    )


def _digest(source: Source, indices: Indices, image_size: int | None) -> str:
    digest = hashlib.sha256()
    arrays = [source.inputs, source.targets, source.test_inputs, source.test_targets]
    splits = [rows if rows is None else rows.numpy() for rows in (indices.train, indices.selection, indices.test)]
    if indices.confirm is not None:
        splits.append(indices.confirm.numpy())
    header = [None if array is None else [str(array.dtype), list(array.shape)] for array in [*arrays, *splits]]
    columns = [] if source.columns is None else [[asdict(column) for column in source.columns]]
    digest.update(json.dumps([header, source.classes, image_size, *columns]).encode())
    for array in [*arrays, *splits]:
        if array is None:
            continue
        if array.dtype == object:
            digest.update(json.dumps(array.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _fits(device: torch.device, splits: Sequence[Split], resident: Literal["auto", "device", "host"]) -> bool:
    """Whether the examples are to wait on ``device``."""
    if device.type != "cuda" or resident == "device":
        return True
    if resident == "host":
        return False
    size = sum(split.inputs.nbytes + split.targets.nbytes for split in splits)
    free, _ = torch.cuda.mem_get_info(device)
    return size < _SHARE_OF_FREE_DEVICE_MEMORY * free


def _cache_key(data: Data, device: torch.device) -> str:
    """The fields that decide what is loaded and how it is split, and when the files were last changed."""
    fields = set(type(data).model_fields) - {"augment", "mix", "mix_alpha"}
    changed: list[tuple[str, int, int]] = []
    prefix, _, rest = data.source.partition(":")
    path = Path(rest).expanduser()
    if prefix in FILES and path.is_file():
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
    """Refuse mixing that makes no sense for these examples, before any training."""
    kind = preprocess.spec.kind
    if kind != "image" and data.mix in ("cutmix", "mixup_or_cutmix"):
        raise DataError(f"data.mix: {data.mix} needs images, but {data.source} has {kind}; leave it out")
    if kind == "text" and data.mix != "none":
        raise DataError(f"data.mix: {data.mix} cannot blend words; leave it out")
