import torch
from small_images import seeded
from small_texts import random_texts, words_of

from trials.data.augment.random_deletion import random_deletion


def test_it_leaves_out_what_a_loop_with_the_same_draws_leaves_out() -> None:
    ids = random_texts(200, 9)
    for probability in (0.0, 0.1, 0.5, 0.95):
        generator = seeded()
        decisions, spared = torch.rand(200, 9, generator=generator), torch.rand(200, generator=generator)
        expected = []
        for row, text in enumerate(words_of(ids)):
            left = [word for place, word in enumerate(text) if decisions[row, place] >= probability]
            expected.append(left or text[int(spared[row] * len(text)) :][:1])
        deleted = random_deletion(ids, probability, seeded())
        assert words_of(deleted) == expected
        assert deleted.dtype == ids.dtype
        assert deleted.shape == ids.shape


def test_the_share_that_is_left_out() -> None:
    ids = torch.full((1000, 50), 7, dtype=torch.int32)
    deleted = int((random_deletion(ids, 0.1, seeded()) == 0).sum())
    assert abs(deleted - 5000) < 4 * (50_000 * 0.1 * 0.9) ** 0.5


def test_one_word_stays_and_each_is_equally_likely() -> None:
    ids = torch.tensor([[2, 3, 4, 0]], dtype=torch.int32).repeat(3000, 1)
    left = random_deletion(ids, 1 - 1e-7, seeded())
    assert all(len(text) == 1 for text in words_of(left))
    counts = torch.bincount(left[:, 0])[2:]
    # chi-square with 2 degrees of freedom exceeds 13.8 once in a thousand
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 13.8
