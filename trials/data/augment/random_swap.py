"""Let words change places (arXiv:1901.11196)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply
from trials.data.augment.words import count_words, draw, need_texts, place, share_of
from trials.data.splits import Splits
from trials.recipe import RandomSwap


def random_swap(ids: Tensor, share: float, generator: Generator) -> Tensor:
    """In each text of ``ids`` (N, L) let two different random words change places, one pair after another.

    ``share`` of the number of words are the swaps of a text, rounded down, but at least one. A single word stays.
    """
    swapped, words = ids.clone(), count_words(ids)
    swaps = share_of(words, share)
    most = int(share_of(torch.tensor(ids.shape[1]), share))  # by the shape alone, so that no text changes the draws
    for index, (first_draw, second_draw) in enumerate(draw(generator, ids.device, most, 2, len(ids))):
        first = place(first_draw, words)
        distance = 1 + place(second_draw, words - 1)
        second = torch.where((index < swaps) & (words > 1), (first + distance) % words.clamp(min=1), first)
        pair = torch.stack([first, second], dim=1)
        swapped.scatter_(1, pair, swapped.gather(1, pair.flip(1)))
    return swapped


def build_random_swap(section: RandomSwap, splits: Splits) -> Apply:
    """The swaps of ``section``. Raises ``DataError`` for inputs that are no texts."""
    need_texts(section.name, splits)
    return lambda ids, _rows, generator: random_swap(ids, section.share, generator)
