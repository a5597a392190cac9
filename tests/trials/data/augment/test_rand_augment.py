import numpy as np
import torch
from small_images import noise, seeded

from trials.data.augment.levels import Levels
from trials.data.augment.operations import OPERATIONS, SIGNED, apply_operations
from trials.data.augment.rand_augment import LARGEST, rand_augment

HEIGHT, WIDTH = 24, 20
CANDIDATES = [(name, sign) for name in OPERATIONS for sign in ((1, -1) if name in SIGNED else (1,))]


def candidates(image: torch.Tensor, magnitude: int) -> torch.Tensor:
    """The image after each operation of this magnitude, in either direction."""
    largest = {**LARGEST, "translate_x": 150 / 331 * WIDTH, "translate_y": 150 / 331 * HEIGHT}
    chosen = torch.tensor([list(OPERATIONS).index(name) for name, _ in CANDIDATES])
    strengths = magnitude / 30 * torch.tensor([sign * largest.get(name, 0.0) for name, sign in CANDIDATES])
    return apply_operations(image.expand(len(CANDIDATES), -1, -1, -1), chosen, strengths, Levels())


def test_each_image_gets_an_operation_of_the_magnitude_each_as_likely() -> None:
    image = noise(1, height=HEIGHT, width=WIDTH) // 2
    count, known = 7000, candidates(image, 20)
    assert len(known.unique(dim=0)) == len(known), "one can tell them apart"
    changed = rand_augment(image.repeat(count, 1, 1, 1), 1, 20, seeded())
    is_same = (changed[:, None] == known).flatten(2).all(2)
    assert bool((is_same.sum(1) == 1).all())
    counts = is_same.sum(0).numpy()
    expected = np.array([count / 14 / (2 if name in SIGNED else 1) for name, _ in CANDIDATES])
    # chi-square with 22 degrees of freedom exceeds 48.3 once in a thousand
    assert ((counts - expected) ** 2 / expected).sum() < 48.3


def test_operations_follow_each_other() -> None:
    images = noise(40, height=HEIGHT, width=WIDTH)
    generator = seeded(5)
    by_hand = images
    for _ in range(3):
        by_hand = rand_augment(by_hand, 1, 9, generator)
    assert torch.equal(rand_augment(images, 3, 9, seeded(5)), by_hand)


def test_magnitude_zero_changes_only_by_operations_without_a_strength() -> None:
    image = noise(1, height=HEIGHT, width=WIDTH) // 2
    known = torch.stack([candidates(image, 0)[CANDIDATES.index((name, 1))] for name in ("auto_contrast", "equalize")])
    changed = rand_augment(image.repeat(500, 1, 1, 1), 1, 0, seeded())
    is_same = (changed == image).flatten(1).all(1)
    assert abs(int((~is_same).sum()) - 500 * 2 / 14) < 4 * np.sqrt(500 / 7)
    assert bool((changed[~is_same][:, None] == known).flatten(2).all(2).any(1).all())
