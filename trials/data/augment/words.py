"""What the augmentations of texts share: batches of word ids (N, L), int32, padding (0) at the end of each text."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trials.data.splits import Splits
from trials.data.text import PADDING, TextPreprocess
from trials.errors import DataError


def need_texts(name: str, splits: Splits) -> TextPreprocess:
    """What knows the words. Raises ``DataError`` if the examples are something else than texts."""
    preprocess = splits.preprocess
    if not isinstance(preprocess, TextPreprocess):
        raise DataError(f"data.augment: {name} needs texts, but the data has {preprocess.spec.kind}; leave it out")
    return preprocess


def count_words(ids: Tensor) -> Tensor:
    """How many words each text has (N,)."""
    return (ids != PADDING).sum(dim=1)


def share_of(counts: Tensor, share: float) -> Tensor:
    """``share`` of ``counts``, rounded down, but at least 1 as long as ``share`` is not 0 (as arXiv:1901.11196 does).

    >>> share_of(torch.tensor([4, 19, 20]), 0.1)
    tensor([1, 1, 2])
    """
    return (counts.double() * share).long().clamp(min=1 if share > 0.0 else 0)


def draw(generator: Generator, device: torch.device, *shape: int) -> Tensor:
    """Numbers from 0 to below 1, float32 on ``device``, wherever the generator lives."""
    return torch.rand(shape, generator=generator, device=generator.device).to(device)


def place(draws: Tensor, counts: Tensor) -> Tensor:
    """Numbers in [0, 1) -> whole numbers from 0 to below ``counts``, all equally likely; 0 where there is none."""
    return (draws * counts).long()


def pack(ids: Tensor, keep: Tensor) -> Tensor:
    """The words where ``keep`` (N, L) is true, moved together, with padding behind them.

    >>> pack(torch.tensor([[7, 8, 9, 0]]), torch.tensor([[True, False, True, False]]))
    tensor([[7, 9, 0, 0]])
    """
    order = (~keep).byte().argsort(dim=1, stable=True)
    return ids.masked_fill(~keep, PADDING).gather(1, order)
