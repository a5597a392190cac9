"""Put synonyms of a text's own words at random places (arXiv:1901.11196)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply
from trials.data.augment.synonyms import Synonyms, load_synonyms
from trials.data.augment.words import count_words, draw, place, share_of
from trials.data.splits import Splits
from trials.data.text import PADDING
from trials.recipe import RandomInsertion


def random_insertion(ids: Tensor, share: float, synonyms: Synonyms, generator: Generator) -> Tensor:
    """Insert synonyms of random words of each text of ``ids`` (N, L) at random places, before, between or behind words.

    ``share`` of the number of words are drawn from a text, rounded down, but at least one; a drawn word without a
    synonym inserts nothing. What no longer fits into L words falls off the end.
    """
    count, length = ids.shape
    words = count_words(ids)[:, None]
    most = int(share_of(torch.tensor(length), share))  # by the shape alone, so that no text changes the draws
    which, choice, where = draw(generator, ids.device, 3, count, most)
    drawn = ids.gather(1, place(which, words))
    inserted = torch.arange(most, device=ids.device) < share_of(words, share)
    inserted &= synonyms.has(drawn)
    # Word i stands at 2i + 1, which leaves the even places between the words; padding and what is not inserted go last.
    places = (2 * torch.arange(length, device=ids.device) + 1).expand(count, length)
    gaps = torch.where(inserted, 2 * place(where, words + 1), 2 * length)
    order = torch.cat([places, gaps], dim=1).argsort(dim=1, stable=True)
    new = synonyms.choose(drawn, choice).masked_fill(~inserted, PADDING)
    return torch.cat([ids, new], dim=1).gather(1, order)[:, :length]


def build_random_insertion(section: RandomInsertion, splits: Splits) -> Apply:
    """The insertions of ``section``. Raises ``DataError`` for inputs that are no texts, and without synonyms."""
    synonyms = load_synonyms(section.name, section.table, splits)
    return lambda ids, _rows, generator: random_insertion(ids, section.share, synonyms, generator)
