import torch
from small_images import seeded
from small_texts import random_texts, text_splits, words_of

from trials.data.augment.random_insertion import random_insertion
from trials.data.augment.synonyms import Synonyms
from trials.data.text import TextPreprocess


def table() -> tuple[Synonyms, dict[int, list[int]]]:
    """Some of the ids from 2 to 9 have synonyms."""
    preprocess = text_splits(["b c d e f g h i"]).preprocess
    assert isinstance(preprocess, TextPreprocess)
    groups = [["b", "c", "d"], ["e", "f"], ["f", "g"]]
    known: dict[int, set[int]] = {}
    for group in groups:
        ids = {preprocess.ids[word] for word in group}
        for word in ids:
            known[word] = known.get(word, set()) | ids - {word}
    return Synonyms.of_groups(groups, preprocess), {word: sorted(others) for word, others in known.items()}


def test_it_inserts_what_a_loop_with_the_same_draws_inserts() -> None:
    synonyms, known = table()
    ids = random_texts(300, 10, words=10)
    for share in (0.1, 0.5, 0.9):
        most = max(1, int(share * 10))
        which, choices, gaps = torch.rand(3, 300, most, generator=seeded())
        expected = []
        for row, text in enumerate(words_of(ids)):
            new: dict[int, list[int]] = {}
            for number in range(max(1, int(share * len(text))) if text else 0):
                word = text[int(which[row, number] * len(text))]
                if word in known:
                    gap = int(gaps[row, number] * (len(text) + 1))
                    new.setdefault(gap, []).append(known[word][int(choices[row, number] * len(known[word]))])
            longer = [
                word for place in range(len(text) + 1) for word in [*new.get(place, []), *text[place : place + 1]]
            ]
            expected.append(longer[:10])
        inserted = random_insertion(ids, share, synonyms, seeded())
        assert words_of(inserted) == expected
        assert inserted.shape == ids.shape
        assert inserted.dtype == ids.dtype


def test_only_synonyms_come_in_and_the_words_keep_their_order() -> None:
    synonyms, known = table()
    ids = random_texts(300, 20, words=10)
    ids[:, 12:] = 0  # room for all
    changed = 0
    for before, after in zip(words_of(ids), words_of(random_insertion(ids, 0.3, synonyms, seeded())), strict=True):
        left = iter(after)
        assert all(word in left for word in before)  # a subsequence
        possible = {synonym for word in before for synonym in known.get(word, [])}
        extra = list(after)
        for word in before:
            extra.remove(word)
        assert set(extra) <= possible
        assert len(extra) <= max(1, int(0.3 * len(before)))
        changed += bool(extra)
    assert changed > 200


def test_all_gaps_are_equally_likely() -> None:
    synonyms, _ = table()
    ids = torch.tensor([[5, 5, 5, 5, 0, 0]], dtype=torch.int32).repeat(5000, 1)  # e, whose only synonym is f
    inserted = random_insertion(ids, 0.1, synonyms, seeded())
    counts = torch.bincount((inserted == 6).byte().argmax(dim=1), minlength=5)
    # chi-square with 4 degrees of freedom exceeds 18.5 once in a thousand
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 18.5


def test_a_full_text_loses_its_end() -> None:
    synonyms, _ = table()
    ids = torch.tensor([[5, 5, 5, 9]], dtype=torch.int32).repeat(50, 1)
    inserted = words_of(random_insertion(ids, 0.1, synonyms, seeded(3)))
    assert {len(text) for text in inserted} == {4}
    assert [5, 6, 5, 5] in inserted
    assert [5, 5, 5, 9] in inserted  # i was drawn, which has none, or the new word fell off the end
