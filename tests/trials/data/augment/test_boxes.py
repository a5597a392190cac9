import math

import numpy as np
import pytest
import torch
from small_images import is_uniform, seeded

from trials.data.augment.boxes import draw_boxes


def test_area_and_shape_are_drawn_as_asked_where_all_shapes_fit() -> None:
    count, side = 4000, 400
    boxes = draw_boxes(torch.empty(count, 1, side, side), 0.05, 0.2, 0.5, seeded())
    height, width = boxes.height.double().numpy(), boxes.width.double().numpy()
    assert bool(boxes.found.all())
    # Sides of 80 to 250 pixels, rounded: areas and ratios are within a percent of what was drawn.
    assert is_uniform(height * width / side**2, 0.05, 0.2)
    assert is_uniform(np.log(width / height), -math.log(2), math.log(2))


def test_every_place_inside_is_equally_likely() -> None:
    boxes = draw_boxes(torch.empty(4000, 1, 9, 7), 0.1, 0.9, 0.4, seeded())
    for start, length, side in [(boxes.top, boxes.height, 9), (boxes.left, boxes.width, 7)]:
        assert int(start.min()) == 0
        assert int((start + length).max()) == side
        for chosen in length.unique().tolist():
            places = np.bincount(start[length == chosen], minlength=side - chosen + 1)
            assert len(places) == side - chosen + 1
            expected = places.sum() / len(places)
            freedom = len(places) - 1
            # The chi-square distribution rarely passes its mean by more than five of its standard deviations.
            assert ((places - expected) ** 2 / expected).sum() <= freedom + 5 * math.sqrt(2 * freedom)


def test_a_shape_that_does_not_fit_is_drawn_again() -> None:
    count = 100_000
    boxes = draw_boxes(torch.empty(1).expand(count, 1, 40, 40), 0.5, 1.0, 0.25, seeded())
    share = float((~boxes.found).double().mean())
    # What fits has both sides at most 40; measured by brute force, one shape at a time.
    generator = np.random.default_rng(0)
    areas, logs = generator.uniform(0.5, 1.0, 10**6), generator.uniform(-math.log(4), math.log(4), 10**6)
    heights, widths = np.round(40 * np.sqrt(areas / np.exp(logs))), np.round(40 * np.sqrt(areas * np.exp(logs)))
    odds = float(((heights <= 40) & (widths <= 40)).mean())
    expected = (1 - odds) ** 10
    assert abs(share - expected) < 5 * math.sqrt(expected / count)
    whole = ~boxes.found
    assert set(boxes.height[whole].tolist()) == set(boxes.width[whole].tolist()) == {40}


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (3, 2)])
def test_the_smallest_images_have_boxes_of_a_pixel_at_least(size: tuple[int, int]) -> None:
    boxes = draw_boxes(torch.empty(200, 3, *size), 0.001, 0.5, 0.3, seeded())
    for start, length, side in [(boxes.top, boxes.height, size[0]), (boxes.left, boxes.width, size[1])]:
        assert int(length.min()) >= 1
        assert int(start.min()) >= 0
        assert int((start + length).max()) <= side
