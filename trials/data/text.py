"""From a text to word ids: a regular expression cuts words, the training split decides which of them are known."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from trials.data.preprocess import InputSpec, Preprocess

if TYPE_CHECKING:
    from trials.recipe import Data

PADDING = 0
"""Fills a text that is shorter than ``max_tokens``, always at its end."""
UNKNOWN = 1
"""Stands for every word that is not in the vocabulary."""
FIRST_WORD = 2
"""Id of the most frequent word."""


def tokenise(text: str) -> list[str]:
    """Words and punctuation marks of ``text``, in lower case and in their order.

    A word is a run of letters, digits and underscores with the accents and vowel signs that belong to them; an
    apostrophe inside it, straight or curved, is part of it. Every other character but a space is a word of its own.
    ``<br />``, the line break of texts from the web, is a space. Scripts without spaces must be cut beforehand.

    >>> tokenise("It's 2½ stars.<br />Naïve — don't!")
    ["it's", '2½', 'stars', '.', 'naïve', '—', "don't", '!']
    """
    return list(_words(text))


def _words(text: str) -> Iterator[str]:
    """The words of ``text`` one by one, so that a long text need not be read to its end."""
    straight = unicodedata.normalize("NFC", text).replace(_CURVED_APOSTROPHE, "'")
    plain = _LINE_BREAK.sub(" ", straight).lower()
    return (match[0] for match in _word_pattern().finditer(plain))


_CURVED_APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_BASIC_PLANE = 0x10000


@cache
def _word_pattern() -> re.Pattern[str]:
    """A word or a mark. ``\\w`` has no combining marks, without which most Indian scripts would fall apart."""
    # Of the basic plane only: with the rare marks beyond it, re searches linearly and takes five times as long.
    combining = "".join(char for char in map(chr, range(_BASIC_PLANE)) if unicodedata.category(char).startswith("M"))
    run = rf"\w[\w{combining}]*"
    return re.compile(rf"{run}(?:'{run})*|[^\w\s][{combining}]*")


@dataclass(frozen=True)
class TextPreprocess(Preprocess):
    """Words by their ids: 0 is padding, 1 the unknown word, then the words of ``vocabulary`` in their order.

    A split holds int32 ids (N, max_tokens). Longer texts lose their end; a text without any word is one unknown word.
    """

    max_tokens: int
    vocabulary: tuple[str, ...]
    """The most frequent words of the training split, most frequent first."""
    kind: Literal["text"] = "text"

    @classmethod
    def fit(cls, texts: Sequence[str], data: Data) -> TextPreprocess:
        """Count the words of the training split, as far as they are read, and keep the most frequent ones.

        Words that are equally frequent come in the order of their characters.
        """
        counts = Counter(chain.from_iterable(islice(_words(text), data.max_tokens) for text in texts))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(data.max_tokens, tuple(ranked[: data.vocabulary_size]))

    @property
    def spec(self) -> InputSpec:
        return InputSpec("text", (self.max_tokens,), FIRST_WORD + len(self.vocabulary))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids (N, max_tokens), int32, on the host: what a split holds."""
        ids = np.full((len(texts), self.max_tokens), PADDING, np.int32)
        for row, text in enumerate(texts):
            found = self._ids_of(islice(_words(text), self.max_tokens)) or [UNKNOWN]
            ids[row, : len(found)] = found
        return torch.from_numpy(ids)

    def normalise(self, batch: Tensor) -> Tensor:
        """Ids (N, max_tokens) of any integer type -> int64, as an embedding takes them, on the same device."""
        return batch.long()

    def __call__(self, raw: Any) -> Tensor:
        """Texts -> ids (N, max_tokens), int64, on the host.

        ``raw`` is one text, a list, array or pandas Series of texts, or a DataFrame or dict with a column ``text``.
        Raises ``ValueError`` in one line when there is no such column, or when something in it is no text.
        """
        if isinstance(raw, dict) or hasattr(raw, "columns"):
            if "text" not in raw:
                raise ValueError(f"found the columns {', '.join(map(str, raw))}; expected one of the name 'text'")
            raw = raw["text"]
        texts = [raw] if isinstance(raw, str) else list(raw)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"found {type(text).__name__} in row {row}, expected a text")
        return self.normalise(self.encode(texts))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "max_tokens": self.max_tokens, "vocabulary": list(self.vocabulary)}

    @classmethod
    def read(cls, values: dict[str, Any]) -> TextPreprocess:
        """The inverse of :meth:`to_dict`."""
        return cls(values["max_tokens"], tuple(values["vocabulary"]))

    def describe_raw(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        return np.dtype(object), ()

    def columns(self) -> list[tuple[str, str]]:
        return [("text", "string")]

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each known word."""
        return {word: index for index, word in enumerate(self.vocabulary, start=FIRST_WORD)}

    def _ids_of(self, words: Iterable[str]) -> list[int]:
        return [self.ids.get(word, UNKNOWN) for word in words]


Preprocess._READERS["text"] = TextPreprocess.read
