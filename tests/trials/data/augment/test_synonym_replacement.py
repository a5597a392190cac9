from collections import Counter

import torch
from small_images import seeded
from small_texts import text_splits

from trials.data.augment.synonym_replacement import synonym_replacement
from trials.data.augment.synonyms import Synonyms
from trials.data.text import TextPreprocess

SPLITS = text_splits(["film movie show actor"])


def table() -> tuple[Synonyms, dict[str, int]]:
    assert isinstance(SPLITS.preprocess, TextPreprocess)
    groups = [["film", "movie"], ["film", "show"]]
    return Synonyms.of_groups(groups, SPLITS.preprocess), SPLITS.preprocess.ids


def test_it_replaces_what_a_loop_with_the_same_draws_replaces() -> None:
    synonyms, words = table()
    known = {words["film"]: sorted([words["movie"], words["show"]])}
    known |= {words["movie"]: [words["film"]], words["show"]: [words["film"]]}
    ids = torch.randint(0, 6, (100, 7), generator=seeded(), dtype=torch.int32)
    decisions, choices = torch.rand(2, 100, 7, generator=seeded(1))
    expected = ids.tolist()
    for row, text in enumerate(expected):
        for place, word in enumerate(text):
            if decisions[row, place] < 0.4 and word in known:
                text[place] = known[word][int(choices[row, place] * len(known[word]))]
    replaced = synonym_replacement(ids, 0.4, synonyms, seeded(1))
    assert replaced.tolist() == expected
    assert replaced.dtype == torch.int32


def test_the_share_that_is_replaced_and_that_synonyms_are_equally_likely() -> None:
    synonyms, words = table()
    film = words["film"]
    ids = torch.full((1000, 20), film, dtype=torch.int32)
    counts = Counter(synonym_replacement(ids, 0.1, synonyms, seeded()).flatten().tolist())
    assert set(counts) == {film, words["movie"], words["show"]}
    assert abs(20_000 - counts[film] - 2000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5
    assert abs(counts[words["movie"]] - counts[words["show"]]) < 4 * 2000**0.5
