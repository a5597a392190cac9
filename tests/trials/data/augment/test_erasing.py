import numpy as np
import pytest
import torch
from small_images import image_splits, is_uniform, noise, seeded
from torchvision.transforms.v2 import functional

from trials.data.augment.boxes import draw_boxes
from trials.data.augment.erasing import build_erasing, erase, random_erasing
from trials.errors import DataError
from trials.recipe import Erasing


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_boxes_are_erased_as_torchvision_erases_them_alone(dtype: torch.dtype) -> None:
    images = noise(30, dtype=dtype)
    boxes, color = draw_boxes(images, 0.02, 0.5, 0.3, seeded()), torch.tensor([7, 0, 1]).to(dtype).view(3, 1, 1)
    chosen = torch.arange(30) % 3 > 0
    erased = erase(images, boxes, chosen, color)
    assert erased.dtype == dtype
    for row in range(30):
        box = [int(side[row]) for side in (boxes.top, boxes.left, boxes.height, boxes.width)]
        alone = functional.erase(images[row], *box, v=color) if chosen[row] else images[row]
        assert torch.equal(erased[row], alone)


def test_the_share_of_erased_pixels_is_the_drawn_area() -> None:
    count, side = 2000, 100
    images, color = torch.ones(count, 1, side, side), torch.zeros(1, 1, 1)
    erased = random_erasing(images, 0.75, 0.1, 0.3, 0.5, color, seeded())
    shares = (erased == 0).double().mean((1, 2, 3)).numpy()
    hit = shares > 0
    assert abs(hit.sum() - 0.75 * count) < 4 * np.sqrt(count * 0.75 * 0.25)
    assert is_uniform(shares[hit], 0.1, 0.3)


def test_the_box_is_the_mean_colour_of_the_training_split() -> None:
    for dtype in (torch.uint8, torch.float32):
        images = noise(50, dtype=dtype)
        images[0, :, 0, :] = 0  # the mean of red, 127.79, is now nearer to the byte above
        apply = build_erasing(Erasing(name="erasing", probability=1.0, min_area=0.2), image_splits(images))
        erased = apply(images, torch.arange(50), seeded())
        mean = images.double().numpy().mean((0, 2, 3))
        expected = np.round(mean) if dtype == torch.uint8 else mean
        is_box = (erased != images).any(1)
        assert is_box.flatten(1).any(1).all()
        box_colors = erased.permute(0, 2, 3, 1)[is_box].double().numpy()
        np.testing.assert_allclose(box_colors, np.broadcast_to(expected, box_colors.shape), rtol=1e-6)


def test_no_strength_is_no_change() -> None:
    images = noise(20)
    assert torch.equal(random_erasing(images, 0.0, 0.1, 0.3, 0.3, torch.zeros(3, 1, 1).byte(), seeded()), images)


def test_an_image_in_which_no_box_fits_stays() -> None:
    images = noise(20, height=2, width=60)
    assert torch.equal(random_erasing(images, 1.0, 0.9, 0.9, 0.9, torch.zeros(3, 1, 1).byte(), seeded()), images)


def test_areas_the_wrong_way_are_refused() -> None:
    section = Erasing(name="erasing", min_area=0.4)
    with pytest.raises(
        DataError, match=r"^data.augment: erasing: max_area: found 0.33, expected at least min_area, 0.4"
    ):
        build_erasing(section, image_splits(noise(4)))
