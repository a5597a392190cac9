import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from trials.data.preprocess import InputSpec, Preprocess
from trials.data.text import TextPreprocess, tokenise
from trials.recipe import Data

TEXTS = ["the cat, the dog", "the bird and a dog", "", "a zebra"]


def fitted(texts: list[str] = TEXTS, vocabulary_size: int = 20_000, max_tokens: int = 6) -> TextPreprocess:
    return TextPreprocess.fit(texts, Data(source="csv:x", vocabulary_size=vocabulary_size, max_tokens=max_tokens))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Good, BAD!", ["good", ",", "bad", "!"]),
        ("don't 'quote' rock'n'roll", ["don't", "'", "quote", "'", "rock'n'roll"]),
        ("don\N{RIGHT SINGLE QUOTATION MARK}t", ["don't"]),
        ("one<br /><BR>two", ["one", "two"]),
        ("snake_case 3.5", ["snake_case", "3", ".", "5"]),
        ("CAFE\N{COMBINING ACUTE ACCENT}", ["caf\N{LATIN SMALL LETTER E WITH ACUTE}"]),  # however it was typed
        ("Straße ÉCOLE", ["straße", "école"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs are no letters to `re`
        ("привет, мир", ["привет", ",", "мир"]),
        ("\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}!", ["\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}", "!"]),
        (" \t\n", []),
    ],
)
def test_words_and_marks(text: str, words: list[str]) -> None:
    assert tokenise(text) == words


def test_the_most_frequent_words_are_known_and_ties_go_by_their_characters() -> None:
    # the: 3; a, dog: 2; ',', and, bird, cat, zebra: 1
    assert fitted().vocabulary == ("the", "a", "dog", ",", "and", "bird", "cat", "zebra")
    assert fitted(vocabulary_size=4).vocabulary == ("the", "a", "dog", ",")
    assert fitted(TEXTS[::-1]).vocabulary == fitted().vocabulary


def test_words_that_are_never_read_are_not_counted() -> None:
    assert fitted(["the cat sat on the mat"], max_tokens=3).vocabulary == ("cat", "sat", "the")


def test_words_become_ids_with_padding_behind_and_one_id_for_all_others() -> None:
    preprocess = fitted(vocabulary_size=4)  # the 2, a 3, dog 4, comma 5
    ids = preprocess.encode(["The dog, a cat", "one two", "", "the the the the the the the dog"])
    expected = [[2, 4, 5, 3, 1, 0], [1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [2, 2, 2, 2, 2, 2]]
    assert ids.tolist() == expected
    assert ids.dtype == torch.int32
    assert preprocess.spec == InputSpec("text", (6,), 6)
    assert int(fitted().encode(TEXTS).max()) == fitted().spec.vocabulary_size - 1  # every id has its row of embeddings


def test_normalise_gives_the_ids_an_embedding_takes() -> None:
    ids = fitted().encode(TEXTS)
    normalised = fitted().normalise(ids)
    assert normalised.dtype == torch.int64
    assert normalised.tolist() == ids.tolist()


@pytest.mark.parametrize(
    "raw",
    [
        ["a dog", "the cat"],
        np.array(["a dog", "the cat"]),
        np.array(["a dog", "the cat"], dtype=object),
        pd.Series(["a dog", "the cat"], index=[7, 3]),
        pd.DataFrame({"id": [1, 2], "text": ["a dog", "the cat"]}),
        {"text": ["a dog", "the cat"]},
    ],
    ids=["list", "array", "objects", "series", "frame", "dict"],
)
def test_raw_texts_come_in_many_shapes(raw: object) -> None:
    preprocess = fitted()
    assert preprocess(raw).tolist() == preprocess.encode(["a dog", "the cat"]).tolist()
    assert preprocess("a dog").tolist() == preprocess.encode(["a dog"]).tolist()


def test_what_is_no_text_is_named() -> None:
    with pytest.raises(ValueError, match=r"^found float in row 1, expected a text$"):
        fitted()(["a", float("nan")])
    with pytest.raises(ValueError, match=r"^found the columns review, stars; expected one of the name 'text'$"):
        fitted()(pd.DataFrame({"review": ["a"], "stars": [1]}))


def test_it_travels_as_json_and_by_pickle() -> None:
    preprocess = fitted(['say "\N{SNOWMAN}"', "naïve text"])
    back = Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict())))
    for copy in (back, pickle.loads(pickle.dumps(preprocess))):
        assert copy == preprocess
        assert copy.spec == preprocess.spec
        assert copy("naïve \N{SNOWMAN} unseen").tolist() == preprocess("naïve \N{SNOWMAN} unseen").tolist()


def test_its_raw_form_is_one_column_of_strings() -> None:
    assert fitted().describe_raw() == (np.dtype(object), ())
    assert fitted().columns() == [("text", "string")]
