import numpy as np
import pytest
import torch
from small_images import noise, ramps, seeded, sources_of
from torchvision.transforms.v2 import functional

from trials.data.augment.boxes import draw_boxes
from trials.data.augment.resized_crop import random_resized_crop, resized_crop


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_box_is_resized_as_torchvision_resizes_it_alone(dtype: torch.dtype, channels: int) -> None:
    images = noise(40, channels, 14, 11, dtype)
    boxes = draw_boxes(images, 0.05, 1.0, 0.4, seeded())
    changed = resized_crop(images, boxes)
    assert changed.dtype == dtype
    for row in range(40):
        box = [int(side[row]) for side in (boxes.top, boxes.left, boxes.height, boxes.width)]
        alone = functional.resized_crop(images[row], *box, size=[14, 11], antialias=True)
        torch.testing.assert_close(changed[row], alone, rtol=0, atol=1 if dtype == torch.uint8 else 1e-4)


def test_the_box_of_each_image_is_drawn_from_the_smallest_area_to_the_whole() -> None:
    images = ramps(500, 30, 40)
    sources = sources_of(random_resized_crop(images, 0.1, 0.6, seeded()))
    boxes = draw_boxes(images, 0.1, 1.0, 0.6, seeded())
    np.testing.assert_allclose(sources[:, 0, 0], boxes.width / 40, atol=1e-4)
    np.testing.assert_allclose(sources[:, 1, 1], boxes.height / 30, atol=1e-4)
    np.testing.assert_allclose(sources[:, 0, 2], boxes.left + boxes.width / 2 - 20, atol=1e-3)
    np.testing.assert_allclose(sources[:, 1, 2], boxes.top + boxes.height / 2 - 15, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_whole_area_is_no_change(dtype: torch.dtype) -> None:
    images = noise(50, height=10, width=10, dtype=dtype)
    same = random_resized_crop(images, 1.0, 1.0, seeded())
    torch.testing.assert_close(same, images, rtol=0, atol=0 if dtype == torch.uint8 else 1e-5)


def test_an_image_in_which_no_shape_fits_stays_whole() -> None:
    images = noise(30, height=4, width=40, dtype=torch.float32)
    same = random_resized_crop(images, 0.9, 0.9, seeded())
    torch.testing.assert_close(same, images, rtol=0, atol=1e-5)
