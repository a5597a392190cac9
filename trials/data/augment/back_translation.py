"""Replace texts by their translation into another language and back (arXiv:1511.06709; arXiv:1904.12848)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply
from trials.data.augment.words import draw, need_texts
from trials.data.splits import Splits
from trials.data.translations import translate_there_and_back
from trials.recipe import BackTranslation


def replace_texts(ids: Tensor, others: Tensor, probability: float, generator: Generator) -> Tensor:
    """Each text of ``ids`` (N, L), or with ``probability`` the one at its place in ``others`` (N, L)."""
    replaced = draw(generator, ids.device, len(ids)) < probability
    return torch.where(replaced[:, None], others, ids)


def build_back_translation(section: BackTranslation, splits: Splits) -> Apply:
    """The translations of all training texts, made or read from disk now, and the choice between both in each batch.

    Raises ``DataError`` in one line for inputs that are no texts, and for functions that do not translate.
    """
    preprocess = need_texts(section.name, splits)
    assert splits.texts is not None
    where = f"data.augment: {section.name}"
    answers = translate_there_and_back(splits.texts, section.there, section.back, section.batch_size, where)
    translated = preprocess.encode(answers).to(splits.train.inputs.device)

    def apply(ids: Tensor, rows: Tensor, generator: Generator) -> Tensor:
        others = translated[rows.to(translated.device)].to(ids.device)
        return replace_texts(ids, others, section.probability, generator)

    return apply
