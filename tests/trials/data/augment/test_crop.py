import numpy as np
import pytest
import torch
from small_images import image_splits, seeded, unlike_images

from trials.data.augment.crop import build_random_crop, random_crop
from trials.errors import DataError
from trials.recipe import RandomCrop


def shift_of(cropped: torch.Tensor, image: torch.Tensor, padding: int) -> tuple[int, int]:
    """The only place in the padded image where ``cropped`` is; fails if there is none."""
    padded = np.pad(image.numpy(), ((0, 0), (padding, padding), (padding, padding)))
    height, width = image.shape[1:]
    places = [
        (top, left)
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
        if np.array_equal(padded[:, top : top + height, left : left + width], cropped.numpy())
    ]
    assert len(places) == 1
    return places[0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_crop_is_a_window_of_its_own_padded_image(dtype: torch.dtype) -> None:
    images = unlike_images(6).to(dtype) + torch.arange(6).view(-1, 1, 1, 1).to(dtype)
    cropped = random_crop(images, 2, seeded())
    assert cropped.dtype == dtype
    assert cropped.shape == images.shape
    places = {shift_of(crop, image, 2) for crop, image in zip(cropped, images, strict=True)}
    assert len(places) > 1  # drawn for each image, not for the batch


def test_all_places_are_equally_likely() -> None:
    images = unlike_images(9 * 400)
    places = [shift_of(crop, images[0], 1) for crop in random_crop(images, 1, seeded())]
    counts = np.bincount([3 * top + left for top, left in places], minlength=9)
    # chi-square with 8 degrees of freedom exceeds 26.1 once in a thousand
    assert ((counts - 400) ** 2 / 400).sum() < 26.1


def test_the_padding_is_the_smallest_value_of_float_images() -> None:
    images = unlike_images(40).float() - 20.0
    apply = build_random_crop(RandomCrop(name="random_crop", padding=3), image_splits(images))
    cropped = apply(images, torch.arange(40), seeded())
    expected = random_crop(unlike_images(40).float() - 1.0, 3, seeded()) - 19.0
    assert torch.equal(cropped, expected)
    assert float(cropped.min()) == -19.0


def test_a_padding_as_wide_as_the_image_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"^data.augment: random_crop: padding: found 4, expected less than the im.* 4$"
    ):
        build_random_crop(RandomCrop(name="random_crop", padding=4), image_splits(unlike_images(3).float()))
