"""WordNet's sets of synonyms, read from its data files (their format is wndb(5WN), https://wordnet.princeton.edu)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trials.data.datasets import data_folder
from trials.errors import DataError

DEBIAN_WORDNET = Path("/usr/share/wordnet")
"""Where Debian's package wordnet-base puts the files."""

_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")


def find(where: str) -> Path:
    """The folder of WordNet's files: ``$SWEEPER_DATA/wordnet``, else Debian's. Raises ``DataError``, with ``where``."""
    own = data_folder() / "wordnet"
    for folder in (own, DEBIAN_WORDNET):
        if all((folder / name).is_file() for name in _FILES):
            return folder
    raise DataError(
        f"{where}: WordNet is not installed; install Debian's package wordnet-base, or put {', '.join(_FILES)} into "
        f"{own}, or name a file of synonyms by table"
    )


def synonym_sets(folder: Path) -> Iterator[list[str]]:
    """The words of each set of synonyms, in lower case; expressions of several words are left out.

    Raises ``DataError`` in one line for a file that is not WordNet's.
    """
    for name in _FILES:
        with (folder / name).open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if line.startswith("  "):  # the licence at the top
                    continue
                try:
                    words = _words(line)
                except (ValueError, IndexError) as error:
                    raise DataError(f"{folder / name}:{number}: found {line[:40]!r}, expected a synset") from error
                yield [word for word in words if "_" not in word]


def _words(line: str) -> list[str]:
    """The words of one synset.

    >>> _words("00004475 03 n 02 organism 0 being 0 013 @ 00004258 n 0000 | a living thing")
    ['organism', 'being']
    """
    _offset, _file, _kind, count, rest = line.split(" ", 4)
    fields = rest.split(" ", 2 * int(count, 16))  # word, number of its sense, word, ...
    words = [fields[2 * index] for index in range(int(count, 16))]
    return [word.partition("(")[0].lower() for word in words]  # galore(ip): where an adjective may stand
