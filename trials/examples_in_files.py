"""Examples that a model is asked about, out of files: pictures, tables, texts, arrays.

Each file is tried, whatever is wrong with those before it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from trials.data import Preprocess
from trials.data.pictures import picture_files, read_picture
from trials.data.preprocess import ArrayPreprocess
from trials.data.table_files import csv_frame, parquet_frame
from trials.errors import DataError
from trials.locate import one_line

PICTURES_AT_A_TIME = 64
ROWS_AT_A_TIME = 1024


@dataclass(frozen=True, eq=False)
class Found:
    """A batch of examples."""

    names: tuple[str, ...]
    """The file of each; where a file holds several, with the number in it, counted from 0: ``houses.csv[3]``."""
    inputs: Tensor
    """(N, ...), as the model takes them, on the host."""


def examples_in(paths: Sequence[Path], preprocess: Preprocess, text: str | None = None) -> Iterator[Found | DataError]:
    """All examples in ``paths`` in their order, and an error for each file that cannot be read.

    Images are pictures, folders of them at any depth, or arrays in .npy files; features are such arrays; tables are
    .csv or .parquet files; texts are lines of a .txt file, or the column ``text`` of a table (default: ``text``).
    """
    is_image = preprocess.kind == "image"
    files = list(_files(paths, folders=is_image))
    if is_image:
        groups = itertools.groupby(files, key=lambda file: isinstance(file, Path) and file.suffix.lower() != ".npy")
        for are_pictures, group in groups:
            read = _read_pictures([*group], preprocess) if are_pictures else _read_arrays(group, preprocess)
            yield from read
    else:
        yield from _read_arrays(files, preprocess, text)


def _files(paths: Sequence[Path], *, folders: bool) -> Iterator[Path | DataError]:
    """The files that are named, those in folders by their names."""
    for path in paths:
        try:
            if path.is_dir():
                found: list[Path | DataError] = [*picture_files(path)] if folders else []
                expected = "pictures in it" if folders else "a file"
                yield from found or [DataError(f"{path}: found a folder, expected {expected}")]
            elif path.is_file():
                yield path
            else:
                yield DataError(f"{path}: no such file or folder")
        except OSError as error:
            yield _unreadable(path, error)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror or one_line(error)}); repair it or leave it out")


def _read_pictures(paths: Sequence[Any], preprocess: Preprocess) -> Iterator[Found | DataError]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # PIL releases the interpreter lock
        for start in range(0, len(paths), PICTURES_AT_A_TIME):
            some = paths[start : start + PICTURES_AT_A_TIME]
            read = list(pool.map(lambda path: _read_picture(path, preprocess), some))
            yield from (found for found in read if isinstance(found, DataError))
            good = [(str(path), found) for path, found in zip(some, read, strict=True) if isinstance(found, Tensor)]
            if good:
                yield Found(tuple(name for name, _ in good), torch.cat([inputs for _, inputs in good]))


def _read_picture(path: Path, preprocess: Preprocess) -> Tensor | DataError:
    """One picture (1, C, H, W) as the model takes it."""
    if any(path.suffix.lower() in readers for readers in READERS.values()):
        return DataError(f"{path}: cannot be read as an image, expected a picture or an array in a .npy file")
    if isinstance(preprocess, ArrayPreprocess) and preprocess.scale != 255.0:
        return DataError(
            f"{path}: the model was trained on images of other numbers than the 0 to 255 of a picture; give it arrays "
            "like those of its data source, in a .npy file"
        )
    try:
        channels = preprocess.spec.shape[0]
        return preprocess(read_picture(path, None, channels if channels in (1, 3) else None))
    except DataError as error:
        return error
    except ValueError as error:
        return DataError(f"{path}: {error}")


def _read_arrays(
    files: Iterable[Path | DataError], preprocess: Preprocess, text: str | None = None
) -> Iterator[Found | DataError]:
    """Files that hold several examples."""
    for file in files:
        if isinstance(file, DataError):
            yield file
            continue
        kinds = READERS[preprocess.kind]
        reader = kinds.get(file.suffix.lower())
        if reader is None:
            yield DataError(f"{file}: cannot be read as {preprocess.kind}, expected {' or '.join(kinds)}")
            continue
        try:
            rows = reader(file, text)
            if isinstance(preprocess, ArrayPreprocess) and rows.ndim == len(preprocess.describe_raw()[1]):
                rows = rows[None]  # one example
            if len(rows) == 0:
                yield DataError(f"{file}: found no examples")
            for start in range(0, len(rows), ROWS_AT_A_TIME):
                inputs = preprocess(rows[start : start + ROWS_AT_A_TIME])
                yield Found(tuple(f"{file}[{row}]" for row in range(start, start + len(inputs))), inputs)
        except DataError as error:
            yield error
        except OSError as error:
            yield _unreadable(file, error)
        except ValueError as error:
            yield DataError(f"{file}: {error}")


def _read_npy(path: Path, _text: str | None) -> np.ndarray:
    try:
        # It reads nothing but .npy, where `np.load` also takes archives and pickles by that name.
        array: np.ndarray = open_memmap(path, mode="r")
    except ValueError as error:
        raise DataError(
            f"{path}: cannot be read ({one_line(error)}); expected an array that numpy.save wrote"
        ) from error
    if array.ndim == 0:
        raise DataError(f"{path}: found a single number, expected an array of examples")
    starts = range(0, len(array), ROWS_AT_A_TIME) if array.dtype.kind == "f" else ()
    if not all(np.isfinite(array[start : start + ROWS_AT_A_TIME]).all() for start in starts):
        raise DataError(f"{path}: found values that are no finite numbers; repair them or leave those examples out")
    return array


def _read_lines(path: Path, _text: str | None) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8; save the file as UTF-8") from error
    return lines if lines[-1] else lines[:-1]


def _texts_of(frame: Any, path: Path, text: str | None) -> list[Any]:
    name = text or "text"
    if name not in frame:
        raise DataError(f"{path}: column {name!r} is missing, which holds the texts; found {', '.join(frame.columns)}")
    return list(frame[name])


READERS: dict[str, dict[str, Callable[[Path, str | None], Any]]] = {
    "image": {".npy": _read_npy},
    "features": {".npy": _read_npy},
    "table": {".csv": csv_frame, ".parquet": lambda path, _text: parquet_frame(path)},
    "text": {
        ".txt": _read_lines,
        ".csv": lambda path, text: _texts_of(csv_frame(path, text or "text"), path, text),
        ".parquet": lambda path, text: _texts_of(parquet_frame(path), path, text),
    },
}
"""What reads a file of several examples, by kind of examples and ending; the name is of the column of texts."""
