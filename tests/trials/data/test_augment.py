import numpy as np
import pytest
import torch

from trials.data.augment import AUGMENTS, augment, horizontal_flip, random_crop
from trials.recipe import Data


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unlike_images(count: int, height: int = 5, width: int = 4) -> torch.Tensor:
    """Images (count, 2, H, W) whose pixels are all different and not zero, so that a shift can be read off."""
    return torch.arange(1, 1 + 2 * height * width).view(1, 2, height, width).repeat(count, 1, 1, 1)


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


def test_each_image_is_flipped_or_not_with_even_odds() -> None:
    images = unlike_images(4000)
    flipped = horizontal_flip(images, seeded())
    is_flipped = (flipped == images.flip(3)).flatten(1).all(1)
    is_same = (flipped == images).flatten(1).all(1)
    assert bool((is_flipped ^ is_same).all())
    assert abs(int(is_flipped.sum()) - 2000) < 4 * np.sqrt(4000 / 4)


def test_augment_is_its_parts_in_the_given_order() -> None:
    images = unlike_images(16)
    data = Data(source="digits", augment=("horizontal_flip", "random_crop"), crop_padding=3)
    generator = seeded(5)
    by_hand = random_crop(horizontal_flip(images, generator), 3, generator)
    assert torch.equal(augment(images, data, seeded(5)), by_hand)
    assert augment(images, Data(source="digits"), seeded()) is images


@pytest.mark.parametrize("name", list(AUGMENTS))
def test_only_the_passed_generator_is_drawn_from(name: str) -> None:
    data = Data(source="digits", augment=(name,))  # type: ignore[arg-type]
    images, before = unlike_images(32), torch.get_rng_state()
    first = augment(images, data, seeded(1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, augment(images, data, seeded(1)))
    assert not torch.equal(first, augment(images, data, seeded(2)))
    assert torch.equal(images, unlike_images(32))
