"""Safetensors files of which a part is in memory at a time, whatever the size of a tensor and the number of files.

Plain reads, by offset: the pages of a file that is mapped, as safetensors itself does, count as memory.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from trials.errors import TrialError
from trials.manifest import Damaged

PART_ELEMENTS = 2**18
"""Numbers read at a time: 1 MiB of float32, 2 MiB of the sums; few enough to stay in the processor's caches."""

Numbers = NDArray[np.floating[Any]]
Wide = NDArray[np.float64]

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is, and what it is."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin_bytes: int
    """Offset in the file."""

    def parts(self) -> Iterator[slice]:
        """The elements, in their order, at most :data:`PART_ELEMENTS` at a time."""
        elements = math.prod(self.shape)
        for start in range(0, elements, PART_ELEMENTS):
            yield slice(start, min(start + PART_ELEMENTS, elements))

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {list(self.shape)}"


class StoredWeights:
    """An open safetensors file.

    Raises :class:`Damaged` for what is none, and :class:`TrialError` for numbers of which no mean is known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check(path)
        with path.open("rb") as file:
            length = file.read(8)
            self.header = length + file.read(int.from_bytes(length, "little"))
            """What a file with the same tensors begins with: their names, types, shapes and places."""
        self.tensors = dict(self._places())
        """By name, in the order of their places."""
        self._file = path.open("rb", buffering=0)

    @property
    def metadata(self) -> dict[str, str]:
        """Texts about the tensors."""
        said: dict[str, str] = json.loads(self.header[8:]).get("__metadata__", {})
        return said

    def _places(self) -> Iterator[tuple[str, StoredTensor]]:
        header: dict[str, dict[str, Any]] = json.loads(self.header[8:])
        header.pop("__metadata__", None)
        for name, said in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
            dtype, begin = said["dtype"], said["data_offsets"][0]
            if dtype not in _DTYPES:
                raise TrialError(f"{self.path}: tensor {name} is {dtype}, expected one of {', '.join(_DTYPES)}")
            yield name, StoredTensor(_DTYPES[dtype], tuple(said["shape"]), len(self.header) + begin)

    def read(self, name: str, part: slice) -> Tensor:
        """Elements of a tensor, as one dimension."""
        stored = self.tensors[name]
        values = torch.empty(part.stop - part.start, dtype=stored.dtype)
        memory = as_bytes(values)
        self._file.seek(stored.begin_bytes + part.start * stored.dtype.itemsize)
        while memory:
            count = self._file.readinto(memory)
            if not count:
                raise Damaged(self.path, "cut short")
            memory = memory[count:]
        return values

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextlib.contextmanager
def opened_alike(paths: Sequence[Path]) -> Iterator[list[StoredWeights]]:
    """The files, open. Raises :class:`TrialError` unless all have the same names, shapes and types."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(contextlib.closing(StoredWeights(path))) for path in paths]
        for other in files[1:]:
            _require_alike(files[0], other)
        yield files


def combined(
    files: Sequence[StoredWeights], combine: Callable[[Iterator[Numbers]], Wide], counters_of: int = 0
) -> Iterator[tuple[str, slice, Tensor]]:
    """Part by part, in the order of the first file, what ``combine`` makes of the same part of each file.

    ``combine`` takes one file's part after another and answers in float64, which is rounded once. What is not floating
    point (counters) is that of the file with the index ``counters_of``.
    """
    for name, stored in files[0].tensors.items():
        for part in stored.parts():
            if stored.dtype.is_floating_point:
                yield name, part, rounded(combine(numbers(file.read(name, part)) for file in files), stored.dtype)
            else:
                yield name, part, files[counters_of].read(name, part)


def in_memory(model: StoredWeights, parts: Iterator[tuple[str, slice, Tensor]]) -> dict[str, Tensor]:
    """The parts of all tensors of ``model``, put together."""
    weights = {name: torch.empty(stored.shape, dtype=stored.dtype) for name, stored in model.tensors.items()}
    for name, part, values in parts:
        weights[name].view(-1)[part] = values
    return weights


def numbers(values: Tensor) -> Numbers:
    """Floating point numbers for numpy, which unlike torch starts no threads to add a few thousand; none changes."""
    return values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy()


def rounded(values: Wide, dtype: torch.dtype) -> Tensor:
    """``values`` as ``dtype``, each rounded once, to the nearest."""
    if dtype == torch.float64:
        return torch.from_numpy(values)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if dtype != torch.float32:
        # Torch goes to half precision by way of float32: what was cut off on that way is to be seen in its last bit.
        bits = single.view(np.int32)
        bits -= np.abs(single) > np.abs(values)
        bits |= single != values
    return torch.from_numpy(single).to(dtype)


def as_bytes(values: Tensor) -> memoryview:
    """The memory of a tensor of one dimension, as it is in a file."""
    return values.view(torch.uint8).numpy().data


def _check(path: Path) -> None:
    """Raise :class:`Damaged` unless the header is sound and the file as long as it says."""
    try:
        with safetensors.safe_open(path, framework="pt"):
            pass
    except FileNotFoundError as error:
        raise Damaged(path, "it is gone") from error
    except SafetensorError as error:
        raise Damaged(path, "not weights") from error


def _require_alike(first: StoredWeights, other: StoredWeights) -> None:
    for name in sorted(first.tensors.keys() | other.tensors.keys()):
        here, there = first.tensors.get(name), other.tensors.get(name)
        if here is None or there is None or (here.dtype, here.shape) != (there.dtype, there.shape):
            raise TrialError(
                f"tensor {name} is {here or 'missing'} in {first.path}, but {there or 'missing'} in {other.path}; "
                "expected weights of one architecture; leave one of them out"
            )
