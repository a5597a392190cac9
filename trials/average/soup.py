"""Soups: the mean of weights of several trials, uniform or greedy, streamed from file to file (arXiv:2203.05482).

A part of one file is in memory at a time, whatever the number of ingredients, and each of them is read once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from trials.average.stored import Numbers, StoredWeights, Wide, as_bytes, combined, numbers, opened_alike, rounded
from trials.disk import named_no_space, remove, sync, temporary_for, temporary_name
from trials.result import is_better

SOUP = "soup.safetensors"


def mean_of_files(paths: Sequence[Path], out: Path) -> None:
    """Write the arithmetic mean of safetensors files as one, whole or not at all.

    Sums in float64, rounded once; what is not floating point (counters), and metadata, are the first file's. Raises
    :class:`TrialError` unless all have the same names, shapes and types, :class:`NoSpace` when the disk is full.
    """
    with opened_alike(paths) as files, temporary_for(out) as temporary:
        with temporary.open("wb") as file:
            file.write(files[0].header)
            for _, _, values in combined(files, mean):
                file.write(as_bytes(values))
        sync(temporary)
        temporary.replace(out)
        sync(out.parent)


def mean(parts: Iterator[Numbers]) -> Wide:
    """The arithmetic mean of arrays of one shape, of which one is in memory at a time.

    >>> mean(iter([np.array([1.0, 2.0]), np.array([2.0, 4.0])])).tolist()
    [1.5, 3.0]
    """
    total, count = np.add(next(parts), 0.0, dtype=np.float64), 1  # makes -0.0 a 0.0, as any sum from nothing does
    for part in parts:
        total += part
        count += 1
    total /= count
    return total


def greedy_soup(
    ingredients: Sequence[Path], worth: Callable[[Path], float], metric: str, folder: Path
) -> tuple[tuple[int, ...], Path]:
    """The indices of the ingredients chosen, and the file in ``folder`` with their mean, as :func:`mean_of_files`.

    ``ingredients`` are safetensors files, best first. Each is kept if the mean of those kept so far and it is not worse
    by ``metric`` (a key of :data:`trials.result.METRICS`); the first always is, so that the soup is never worse than
    that one. ``worth`` is told a file that is there until it returns, and answers with the metric's value; NaN is worse
    than any number. Raises :class:`TrialError` unless all files have the same names, shapes and types.

    Source: arXiv:2203.05482, recipe 1. The sum of those kept lies in ``folder`` while this runs, as float64: to try an
    ingredient is to read it and that sum once; one that is kept is read once more, and the sum written.
    """
    scratch = temporary_name(folder / "greedy_soup")
    candidate, kept = scratch / "candidate.safetensors", scratch / SOUP
    chosen: list[int] = []
    best = math.nan
    remove(scratch)
    with opened_alike(ingredients) as files, named_no_space(folder):
        running = _RunningSum(scratch / "sum", files[0])
        scratch.mkdir(parents=True)
        try:
            for index, file in enumerate(files):
                running.write_mean_with(file, candidate)
                value = worth(candidate)
                if not chosen or value == best or is_better(metric, value, than=best):
                    best = value
                    chosen.append(index)
                    running.take(file)
                    candidate.replace(kept)
            sync(kept)
            kept.replace(folder / SOUP)
            sync(folder)
        finally:
            remove(scratch)
    return tuple(chosen), folder / SOUP


class _RunningSum:
    """The sum of the ingredients taken, on disk: the float64 of all floating point tensors, one after another.

    The one taken last is added as the next one is tried: to write takes longer than to read, and most are not taken.
    """

    def __init__(self, path: Path, first: StoredWeights) -> None:
        self._path, self._first = path, first
        self._summed = 0
        self._to_add: StoredWeights | None = None

    def take(self, file: StoredWeights) -> None:
        """Let the one tried last be among those taken."""
        self._to_add = file

    def write_mean_with(self, file: StoredWeights, out: Path) -> None:
        """Write the mean of those taken and ``file``. Not synced: it is for one look."""
        with self._path.open("r+b" if self._summed else "w+b") as sums, out.open("wb") as candidate:
            candidate.write(self._first.header)
            for name, stored in self._first.tensors.items():
                for part in stored.parts():
                    if stored.dtype.is_floating_point:
                        values = rounded(self._mean_with(file, name, part, sums), stored.dtype)
                    else:
                        values = self._first.read(name, part)
                    candidate.write(as_bytes(values))
        self._summed += self._to_add is not None
        self._to_add = None

    def _mean_with(self, file: StoredWeights, name: str, part: slice, sums: BinaryIO) -> Wide:
        """One part of the mean; ``sums`` is where that part of the sum is, and then behind it."""
        total, count, place = np.zeros(part.stop - part.start), self._summed, sums.tell()
        if count:
            sums.readinto(total.data)  # type: ignore[attr-defined]
        if self._to_add is not None:
            total += numbers(self._to_add.read(name, part))
            count += 1
            sums.seek(place)
            sums.write(total.data)
        total += numbers(file.read(name, part))
        total /= count + 1
        return total
