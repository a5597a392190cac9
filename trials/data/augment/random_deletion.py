"""Leave words out (arXiv:1901.11196)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply
from trials.data.augment.words import count_words, draw, need_texts, pack, place
from trials.data.splits import Splits
from trials.data.text import PADDING
from trials.recipe import RandomDeletion


def random_deletion(ids: Tensor, probability: float, generator: Generator) -> Tensor:
    """Leave each word of ``ids`` (N, L) out with ``probability``; of a text that would lose all, a random one stays."""
    count, length = ids.shape
    kept = (draw(generator, ids.device, count, length) >= probability) & (ids != PADDING)
    spared = place(draw(generator, ids.device, count), count_words(ids))
    is_spared = torch.arange(length, device=ids.device) == spared[:, None]
    return pack(ids, kept | (is_spared & ~kept.any(dim=1, keepdim=True)))


def build_random_deletion(section: RandomDeletion, splits: Splits) -> Apply:
    """The deletion of ``section``. Raises ``DataError`` for inputs that are no texts."""
    need_texts(section.name, splits)
    return lambda ids, _rows, generator: random_deletion(ids, section.probability, generator)
