"""Pictures as arrays: decoding, resizing, and a folder of them per class.

Every way in (a folder, a data set of PIL images, a single picture handed to a pulled model) goes through the same
functions, so that a model is served exactly the pixels it was trained on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from trials.errors import DataError
from trials.locate import one_line

_LEFT_BY_DESKTOPS = {"thumbs.db", "desktop.ini"}
_WIDE_GRAY_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def picture_array(picture: Image.Image, channels: int | None = None) -> np.ndarray:
    """Pixels of a PIL image as uint8: (H, W) if it is gray, else (H, W, 3), turned upright by its EXIF tag.

    ``channels`` 1 or 3 converts to gray or RGB; ``None`` keeps what the picture is. Transparency is dropped, and
    16-bit gray keeps its upper 8 bits (PIL's own conversion would clip it to white).
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in _WIDE_GRAY_MODES:
        gray = (np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2) if channels == 3 else gray
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    is_gray = picture.mode in ("1", "L", "LA", "La")
    wanted = {None: "L" if is_gray else "RGB", 1: "L", 3: "RGB"}[channels]
    return np.asarray(picture.convert(wanted))


def resize(images: torch.Tensor, side: int) -> torch.Tensor:
    """Images (N, C, H, W), uint8 or float, as (N, C, side, side) of the same dtype.

    Bilinear with antialiasing; the whole picture is kept, so the aspect ratio changes when it is not square.
    """
    if images.shape[-2:] == (side, side):
        return images
    # One memory layout for every caller: the kernels for different layouts round uint8 differently.
    images = images.contiguous(memory_format=torch.channels_last)
    resized = torch.nn.functional.interpolate(
        images, (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    return resized.contiguous()


def resize_array(image: np.ndarray, side: int) -> np.ndarray:
    """One image (H, W) or (H, W, C) as (side, side) or (side, side, C) of the same dtype; see :func:`resize`."""
    channels_last = image if image.ndim == 3 else image[..., None]
    batch = torch.tensor(channels_last).permute(2, 0, 1)[None]
    resized = resize(batch, side)[0].permute(1, 2, 0).numpy()
    return resized if image.ndim == 3 else resized[..., 0]


def stack_pictures(arrays: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Arrays (H, W) and (H, W, 3) of one size as one array: (N, H, W) if all are gray, else (N, H, W, 3).

    ``names`` say in an error which picture it was. Raises ``DataError`` when the sizes differ.
    """
    first = arrays[0].shape[:2]
    for array, name in zip(arrays, names, strict=True):
        if array.shape[:2] != first:
            raise DataError(
                f"{name}: found a picture of {_size(array.shape)}, but {names[0]} has {_size(first)}; "
                "set data.image_size to the side in pixels that all pictures are resized to"
            )
    if all(array.ndim == 2 for array in arrays):
        return np.stack(arrays)
    stacked = np.empty((len(arrays), *first, 3), dtype=arrays[0].dtype)
    for row, array in enumerate(arrays):
        stacked[row] = array if array.ndim == 3 else array[..., None]
    return stacked


def read_picture(path: Path, image_size: int | None, channels: int | None = None) -> np.ndarray:
    """Decode one file to (H, W) or (H, W, 3), resized if asked; ``channels`` are those of :func:`picture_array`.

    Raises ``DataError`` naming the path.
    """
    try:
        with Image.open(path) as picture:
            array = picture_array(picture, channels)
    except Exception as error:
        raise DataError(f"{path}: not a readable picture ({one_line(error)}); repair or remove it") from error
    return array if image_size is None else resize_array(array, image_size)


def read_class_folders(
    root: Path, image_size: int | None, classes: Sequence[str] | None = None
) -> tuple[list[np.ndarray], list[str], np.ndarray, tuple[str, ...]]:
    """Read ``root/CLASS/**/picture`` for every class, in the order of names.

    Returns the pictures' arrays, their paths, their class indices (N,) and the classes. Hidden files and what desktops
    leave behind are passed over. Raises ``DataError`` for an empty class, a class that is not in ``classes`` when those
    are given, and an unreadable picture.
    """
    found = subfolders(root)
    classes = tuple(found) if classes is None else tuple(classes)
    for name in found:
        if name not in classes:
            raise DataError(f"{root / name}: class {name!r} is not among the training classes: {', '.join(classes)}")
    paths: list[Path] = []
    targets: list[int] = []
    for index, name in enumerate(classes):
        files = list(picture_files(root / name))
        if not files and name in found:
            raise DataError(f"{root / name}: the class is empty; add pictures or remove the folder")
        paths += files
        targets += [index] * len(files)
    # PIL releases the interpreter lock while it decodes.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        arrays = list(pool.map(lambda path: read_picture(path, image_size), paths))
    return arrays, [str(path) for path in paths], np.array(targets, dtype=np.int64), classes


def subfolders(root: Path) -> list[str]:
    """Names of the visible folders in ``root``, sorted."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def picture_files(folder: Path) -> Iterable[Path]:
    """All files below ``folder`` by name, but for hidden ones and what desktops leave behind."""
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.name.lower() not in _LEFT_BY_DESKTOPS:
            yield path


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
