"""Which words of a vocabulary can stand for each other: from a file of the user's, or from WordNet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trials.data import wordnet
from trials.data.augment.words import need_texts, place
from trials.data.splits import Splits
from trials.data.text import TextPreprocess, tokenise
from trials.errors import DataError


@dataclass(frozen=True, eq=False)
class Synonyms:
    """A table of word ids: the synonyms of word ``i`` are ``words[starts[i] : starts[i] + counts[i]]``."""

    starts: Tensor
    """(V,), int64."""
    counts: Tensor
    """(V,), int64; 0 for a word without a synonym, so for padding and the unknown word."""
    words: Tensor
    """(M + 1,), int32: the lists of all words behind one another, and a last entry that is never chosen."""

    @classmethod
    def of_groups(cls, groups: Iterable[Iterable[str]], preprocess: TextPreprocess) -> Synonyms:
        """Words of one group are synonyms of each other. Unknown words and expressions of several are left out."""
        found: dict[int, set[int]] = defaultdict(set)
        for group in groups:
            tokens = [tokenise(word) for word in group]
            known = {preprocess.ids[token[0]] for token in tokens if len(token) == 1 and token[0] in preprocess.ids}
            for word in known:
                found[word] |= known - {word}
        lists = [sorted(found.get(word, ())) for word in range(preprocess.spec.vocabulary_size)]
        counts = torch.tensor([len(synonyms) for synonyms in lists])
        words = torch.tensor([word for synonyms in lists for word in synonyms] + [0], dtype=torch.int32)
        return cls(counts.cumsum(0) - counts, counts, words)

    def has(self, ids: Tensor) -> Tensor:
        """Which of the words ``ids`` have a synonym: bool, of the same shape."""
        return self.counts.to(ids.device)[ids] > 0

    def choose(self, ids: Tensor, draws: Tensor) -> Tensor:
        """A synonym of each word of ``ids`` by the number in [0, 1) in ``draws``; a word without any is itself."""
        starts, counts, words = (part.to(ids.device) for part in (self.starts, self.counts, self.words))
        return torch.where(counts[ids] > 0, words[starts[ids] + place(draws, counts[ids])], ids)


def load_synonyms(name: str, table: str | None, splits: Splits) -> Synonyms:
    """The synonyms among the known words, from the file ``table``, or from WordNet when it is ``None``.

    ``name`` is the augmentation that asks. Raises ``DataError`` in one line: no texts, no WordNet, a table that cannot
    be read (with the line), or not one known word with a synonym.
    """
    where = f"data.augment: {name}"
    preprocess = need_texts(name, splits)
    groups: Iterable[list[str]]
    if table is not None:
        source, groups = Path(table).expanduser(), read_table(Path(table).expanduser(), f"{where}: table")
    else:
        source = wordnet.find(where)
        groups = _without_stop_words(wordnet.synonym_sets(source))
    synonyms = Synonyms.of_groups(groups, preprocess)
    if not bool(synonyms.counts.any()):
        raise DataError(
            f"{where}: no two known words of the training texts are synonyms in {source}; "
            "expected words in lower case as they stand in the texts, or leave it out"
        )
    return synonyms


def read_table(path: Path, where: str) -> list[list[str]]:
    """Groups of synonyms, one a line, separated by commas; empty lines and lines that begin with ``#`` are passed over.

    Raises ``DataError`` in one line that begins with ``where``.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"{where}: {path} cannot be read ({reason}); expected a text file of synonyms") from error
    groups = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        group = [word.strip() for word in line.split(",")]
        if len(group) < 2 or not all(group):
            what = "a single word" if all(group) else "an empty place between commas"
            raise DataError(f"{where}: {path}:{number}: found {what}, expected synonyms such as film, movie, picture")
        groups.append(group)
    return groups


def _without_stop_words(groups: Iterable[list[str]]) -> Iterator[list[str]]:
    """arXiv:1901.11196 leaves stop words alone; in WordNet "a" is an ampere and "in" an inch."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ([word for word in group if word not in ENGLISH_STOP_WORDS] for group in groups)
