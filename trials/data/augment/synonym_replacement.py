"""Replace words by their synonyms (arXiv:1901.11196)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply
from trials.data.augment.synonyms import Synonyms, load_synonyms
from trials.data.augment.words import draw
from trials.data.splits import Splits
from trials.recipe import SynonymReplacement


def synonym_replacement(ids: Tensor, probability: float, synonyms: Synonyms, generator: Generator) -> Tensor:
    """Replace each word of ``ids`` (N, L) with ``probability`` by one of its synonyms, if it has any."""
    decision, choice = draw(generator, ids.device, 2, *ids.shape)
    return torch.where(decision < probability, synonyms.choose(ids, choice), ids)


def build_synonym_replacement(section: SynonymReplacement, splits: Splits) -> Apply:
    """The replacement of ``section``. Raises ``DataError`` for inputs that are no texts, and without synonyms."""
    synonyms = load_synonyms(section.name, section.table, splits)
    return lambda ids, _rows, generator: synonym_replacement(ids, section.probability, synonyms, generator)
