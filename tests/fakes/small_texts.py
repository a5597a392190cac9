"""Small batches of texts, for tests of what changes their words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trials.data import Split, Splits, Target
from trials.data.text import TextPreprocess
from trials.recipe import Data


def random_texts(count: int, length: int, words: int = 50) -> Tensor:
    """Word ids (count, length) from 2 to below ``words``, int32; texts of every length from none to ``length``."""
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(2, words, (count, length), generator=generator, dtype=torch.int32)
    lengths = torch.randint(length + 1, (count, 1), generator=generator)
    return ids.masked_fill(torch.arange(length) >= lengths, 0)


def words_of(ids: Tensor) -> list[list[int]]:
    """The words of each text; padding anywhere but behind them fails."""
    texts = [[word for word in row if word] for row in ids.tolist()]
    assert all(row[: len(text)] == text for row, text in zip(ids.tolist(), texts, strict=True))
    return texts


def text_splits(texts: Sequence[str], max_tokens: int = 8) -> Splits:
    """All three splits are these texts."""
    preprocess = TextPreprocess.fit(texts, Data(source="csv:x", max_tokens=max_tokens))
    split = Split(preprocess.encode(texts), torch.zeros(len(texts), dtype=torch.int64))
    return Splits(split, split, split, preprocess, Target("classification", ("no", "yes")), "", tuple(texts))
