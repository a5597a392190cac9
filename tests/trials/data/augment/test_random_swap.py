import torch
from small_images import seeded
from small_texts import random_texts, words_of

from trials.data.augment.random_swap import random_swap


def test_it_swaps_what_a_loop_with_the_same_draws_swaps() -> None:
    ids = random_texts(200, 12)
    for share in (0.1, 0.3, 0.9):
        most = max(1, int(share * 12))
        draws = torch.rand(most, 2, 200, generator=seeded())
        expected = words_of(ids)
        for row, text in enumerate(expected):
            for swap in range(max(1, int(share * len(text))) if len(text) > 1 else 0):
                first = int(draws[swap, 0, row] * len(text))
                others = [(first + distance) % len(text) for distance in range(1, len(text))]
                second = others[int(draws[swap, 1, row] * len(others))]
                text[first], text[second] = text[second], text[first]
        swapped = random_swap(ids, share, seeded())
        assert words_of(swapped) == expected
        assert swapped.dtype == ids.dtype


def test_every_text_keeps_its_words() -> None:
    ids = random_texts(500, 20)
    for before, after in zip(words_of(ids), words_of(random_swap(ids, 0.4, seeded())), strict=True):
        assert sorted(before) == sorted(after)


def test_a_swap_moves_exactly_two_words_and_all_pairs_are_equally_likely() -> None:
    ids = torch.tensor([[2, 3, 4, 5, 0]], dtype=torch.int32).repeat(6000, 1)
    moved = random_swap(ids, 0.1, seeded()) != ids
    assert bool((moved.sum(dim=1) == 2).all())
    pairs = torch.bincount((moved * 2 ** torch.arange(5)).sum(dim=1))
    counts = pairs[pairs > 0]
    assert len(counts) == 6
    # chi-square with 5 degrees of freedom exceeds 20.5 once in a thousand
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 20.5


def test_no_share_swaps_nothing() -> None:
    ids = random_texts(50, 9)
    assert torch.equal(random_swap(ids, 0.0, seeded()), ids)
