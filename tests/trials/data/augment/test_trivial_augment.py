import numpy as np
import torch
from small_images import noise, seeded

from trials.data.augment.levels import Levels
from trials.data.augment.operations import OPERATIONS, SIGNED, STRENGTH_STEPS, apply_operations
from trials.data.augment.trivial_augment import LARGEST, trivial_augment


def test_each_image_gets_one_operation_of_a_strength_of_its_own() -> None:
    image = noise(1, height=40, width=40)
    cases = [
        (place, LARGEST.get(name, 0.0), sign * step)
        for place, name in enumerate(OPERATIONS)
        for step in range(STRENGTH_STEPS + 1)
        for sign in ((1, -1) if name in SIGNED else (1,))
    ]
    chosen, largest, steps = (torch.tensor(column) for column in zip(*cases, strict=True))
    known = apply_operations(image.expand(len(cases), -1, -1, -1), chosen, steps / STRENGTH_STEPS * largest, Levels())
    operations_of: dict[bytes, set[int]] = {}
    steps_of: dict[bytes, int] = {}
    for (place, _, step), result in zip(cases, known, strict=True):
        operations_of.setdefault(result.numpy().tobytes(), set()).add(place)
        steps_of[result.numpy().tobytes()] = step

    count = 6000
    changed = [result.numpy().tobytes() for result in trivial_augment(image.repeat(count, 1, 1, 1), seeded())]
    assert set(changed) <= operations_of.keys()
    told_apart = [result for result in changed if len(operations_of[result]) == 1]
    # All but the identity, and what looks like it: strength 0 of eleven operations, some weak strengths.
    assert len(told_apart) > 0.75 * count

    rotate = list(OPERATIONS).index("rotate")
    drawn = np.array([steps_of[result] for result in changed if operations_of[result] == {rotate}])
    assert (drawn.min(), drawn.max()) == (-STRENGTH_STEPS, STRENGTH_STEPS)
    counts = np.bincount(drawn + STRENGTH_STEPS, minlength=2 * STRENGTH_STEPS + 1)
    counts = np.delete(counts, STRENGTH_STEPS)  # strength 0 is the identity
    expected = count / 14 / 31 / 2
    assert abs(counts.mean() - expected) < 4 * np.sqrt(expected / 60)
    # chi-square with 60 degrees of freedom exceeds 99.6 once in a thousand
    assert ((counts - expected) ** 2 / expected).sum() < 99.6
