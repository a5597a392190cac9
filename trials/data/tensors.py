"""A source's inputs as tensors of the three splits, with the preprocessing measured on the training split alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trials.data.checks import Column, Source
from trials.data.pictures import resize
from trials.data.preprocess import ArrayPreprocess, Preprocess
from trials.data.table import TablePreprocess

if TYPE_CHECKING:
    from trials.recipe import Data


@dataclass(frozen=True, eq=False)
class Indices:
    """Rows of each split, ascending. ``test`` is ``None`` when the source has a test split of its own."""

    train: Tensor
    selection: Tensor
    test: Tensor | None
    confirm: Tensor | None = None
    """Set aside from the selection split; ``None`` unless ``data.confirm`` says so."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs of each split on the host, as a ``Split`` holds them, and what turns them into the model's input."""

    train: Tensor
    selection: Tensor
    test: Tensor
    preprocess: Preprocess
    texts: tuple[str, ...] | None = None
    """The training examples as they were written, if they are texts."""
    confirm: Tensor | None = None


def split_inputs(source: Source, indices: Indices, data: Data) -> Inputs:
    """Cut the inputs of ``source`` at ``indices`` and measure the training split. Raises ``DataError``."""
    if source.columns is not None:
        return _table_inputs(source, source.columns, indices)
    if source.is_text:
        return _text_inputs(source, indices, data)
    inputs = _as_tensor(source.inputs, data.image_size)
    own_test = None if source.test_inputs is None else _as_tensor(source.test_inputs, data.image_size)
    train, selection, test, confirm = _cut(inputs, own_test, indices)
    return Inputs(train, selection, test, ArrayPreprocess.fit(train, data.image_size), confirm=confirm)


def _table_inputs(source: Source, columns: Sequence[Column], indices: Indices) -> Inputs:
    preprocess = TablePreprocess.fit(source.inputs[indices.train.numpy()], columns)
    inputs = preprocess.recode(source.inputs, columns)
    own_test = None if source.test_inputs is None else preprocess.recode(source.test_inputs, columns)
    train, selection, test, confirm = _cut(inputs, own_test, indices)
    return Inputs(train, selection, test, preprocess, confirm=confirm)


def _text_inputs(source: Source, indices: Indices, data: Data) -> Inputs:
    from trials.data.text import TextPreprocess

    texts = tuple(source.inputs[indices.train.numpy()])
    preprocess = TextPreprocess.fit(texts, data)
    inputs = preprocess.encode(list(source.inputs))
    own_test = None if source.test_inputs is None else preprocess.encode(list(source.test_inputs))
    train, selection, test, confirm = _cut(inputs, own_test, indices)
    return Inputs(train, selection, test, preprocess, texts, confirm)


def _cut(inputs: Tensor, own_test: Tensor | None, indices: Indices) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    test = inputs[indices.test] if own_test is None else own_test
    confirm = None if indices.confirm is None else inputs[indices.confirm]
    return inputs[indices.train], inputs[indices.selection], test, confirm


def _as_tensor(inputs: np.ndarray, image_size: int | None) -> Tensor:
    """Images as (N, C, H, W), resized if asked; features as they are."""
    array = inputs[..., None] if inputs.ndim == 3 else inputs
    tensor = torch.tensor(array)  # a copy: a user's arrays may be read-only or reused
    if tensor.ndim == 2:
        return tensor
    images = tensor.permute(0, 3, 1, 2)
    return images.contiguous() if image_size is None else resize(images, image_size).contiguous()
