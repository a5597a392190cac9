from pathlib import Path

import pytest
from real_data import real_data

from trials.data import wordnet
from trials.errors import DataError

LICENCE = "  1 This software and database is being provided to you, the LICENSEE,\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small WordNet in $SWEEPER_DATA."""
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    folder = tmp_path / "wordnet"
    folder.mkdir()
    nouns = (
        "06626286 10 n 04 movie 0 motion_picture 0 picture 0 Film 1 002 @ 06624114 n 0000 ~ 1 n 0000 | a form | of\n"
    )
    (folder / "data.noun").write_text(LICENCE + nouns)
    (folder / "data.verb").write_text("01001294 32 v 01 film 0 001 @ 01000214 v 0000 01 + 08 00 | make a film\n")
    adjectives = "00014490 00 s 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 galore(ip) 0 001 & 00013887 a 0000 | ten\n"
    (folder / "data.adj").write_text(LICENCE + adjectives)
    (folder / "data.adv").write_text(LICENCE)
    return folder


def test_the_words_of_each_set_are_read(folder: Path) -> None:
    assert wordnet.find("x") == folder
    assert list(wordnet.synonym_sets(folder)) == [
        ["movie", "picture", "film"],
        ["film"],
        [*"abcdefghi", "galore"],  # 0a words: the count is hexadecimal
    ]


def test_it_is_found_in_debians_place_too(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordnet, "DEBIAN_WORDNET", folder)
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "nothing"))
    assert wordnet.find("x") == folder


def test_where_it_is_absent_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordnet, "DEBIAN_WORDNET", tmp_path / "debian")
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        wordnet.find("data.augment: random_insertion")
    assert str(caught.value) == (
        "data.augment: random_insertion: WordNet is not installed; install Debian's package wordnet-base, or put "
        f"data.noun, data.verb, data.adj, data.adv into {tmp_path}/wordnet, or name a file of synonyms by table"
    )


@pytest.mark.parametrize("line", ["nonsense", "00000001 10 n xy film 0 000 | a", "00000001 10 n 04 film 0 000"])
def test_a_damaged_file_is_told_by_its_line(folder: Path, line: str) -> None:
    (folder / "data.verb").write_text(LICENCE + line + "\n")
    with pytest.raises(DataError, match=rf"^{folder}/data.verb:2: found '{line[:40]}.*', expected a synset$"):
        list(wordnet.synonym_sets(folder))


def test_the_real_one_has_all_its_synsets() -> None:
    folder = real_data("wordnet", "wordnet")
    groups = list(wordnet.synonym_sets(folder))
    lines = [line for file in sorted(folder.glob("data.*")) for line in file.read_bytes().splitlines()]
    assert len(groups) == sum(not line.startswith(b"  ") for line in lines)
    assert ["movie", "film", "picture", "pic", "flick"] in groups
