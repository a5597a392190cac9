from pathlib import Path

import pytest
import torch
from real_data import real_data
from small_texts import text_splits

from trials.data import wordnet
from trials.data.augment.synonyms import Synonyms, load_synonyms, read_table
from trials.data.text import TextPreprocess
from trials.errors import DataError

TEXTS = ["film film film movie movie a show plays", "the actor don't"]


def preprocess() -> TextPreprocess:
    splits = text_splits(TEXTS)
    assert isinstance(splits.preprocess, TextPreprocess)
    return splits.preprocess


def found(synonyms: Synonyms) -> dict[str, set[str]]:
    """The table as words."""
    words = ["padding", "unknown", *preprocess().vocabulary]
    chosen = {}
    for index, (start, count) in enumerate(zip(synonyms.starts.tolist(), synonyms.counts.tolist(), strict=True)):
        if count:
            chosen[words[index]] = {words[synonym] for synonym in synonyms.words[start : start + count].tolist()}
    return chosen


def test_known_words_of_a_group_are_synonyms_of_each_other() -> None:
    groups = [
        ["film", "movie", "flick"],  # an unknown word
        ["Film", "show", "motion picture"],  # another sense of the same word; an expression of two words
        ["actor", "player"],  # the only known one
        ["movie", "film"],  # told twice
    ]
    table = found(Synonyms.of_groups(groups, preprocess()))
    assert table == {"film": {"movie", "show"}, "movie": {"film"}, "show": {"film"}}


def test_each_synonym_is_chosen_by_its_part_of_the_draws() -> None:
    words = preprocess().ids
    synonyms = Synonyms.of_groups([["film", "movie"], ["film", "show"], ["film", "plays"]], preprocess())
    film, actor = words["film"], words["actor"]
    ids = torch.tensor([film, film, film, film, actor, 0, 1], dtype=torch.int32)
    chosen = synonyms.choose(ids, torch.tensor([0.0, 0.3333, 0.3334, 0.9999, 0.5, 0.5, 0.5]))
    first, second, third = sorted(words[word] for word in ("movie", "show", "plays"))
    assert chosen.tolist() == [first, first, second, third, actor, 0, 1]
    assert chosen.dtype == torch.int32
    assert synonyms.has(ids).tolist() == [True] * 4 + [False] * 3


def test_a_table_has_a_group_a_line(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("# of films\nfilm, movie ,motion picture\n\n  \nactor,player\n", encoding="utf-8")
    assert read_table(path, "x") == [["film", "movie", "motion picture"], ["actor", "player"]]
    table = load_synonyms("random_insertion", str(path), text_splits(TEXTS))
    assert found(table) == {"film": {"movie"}, "movie": {"film"}}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"film,movie\nactor\n", ":2: found a single word, expected synonyms such as film, movie, picture"),
        (
            b"\nfilm,,movie",
            ":2: found an empty place between commas, expected synonyms such as film, movie, picture",
        ),
        (b"film,\xff\xfe", " cannot be read (it is not UTF-8); expected a text file of synonyms"),
        (None, " cannot be read (No such file or directory); expected a text file of synonyms"),
    ],
)
def test_a_faulty_table_is_told_by_its_line(tmp_path: Path, content: bytes | None, fault: str) -> None:
    path = tmp_path / "synonyms.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_synonyms("random_insertion", str(path), text_splits(TEXTS))
    assert str(caught.value) == f"data.augment: random_insertion: table: {path}{fault}"


def test_a_table_of_strange_words_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("cat,feline", encoding="utf-8")
    with pytest.raises(DataError, match=r"no two known words of the training texts are synonyms in .*synonyms.txt; "):
        load_synonyms("random_insertion", str(path), text_splits(TEXTS))


def test_stop_words_of_wordnet_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    (tmp_path / "wordnet").mkdir()
    for name in ("data.verb", "data.adj", "data.adv"):
        (tmp_path / "wordnet" / name).touch()
    (tmp_path / "wordnet" / "data.noun").write_text(
        "13658027 23 n 02 a 0 show 0 000 | an ampere\n00000001 10 n 02 film 0 movie 0 000 | a picture\n"
    )
    assert found(load_synonyms("synonym_replacement", None, text_splits(TEXTS))) == {
        "film": {"movie"},
        "movie": {"film"},
    }


def test_real_wordnet_knows_films(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = real_data("wordnet", "wordnet")
    assert wordnet.find("x") == folder
    assert found(load_synonyms("synonym_replacement", None, text_splits(TEXTS))) == {
        "film": {"movie"},
        "movie": {"film"},
    }
