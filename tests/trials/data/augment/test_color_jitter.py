import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_images import image_splits, is_uniform, noise, seeded
from torchvision.transforms.v2 import functional

from trials.data.augment.color_jitter import adjust, build_color_jitter, color_jitter, turn_hue
from trials.data.augment.levels import Levels
from trials.recipe import ColorJitter

ADJUST = {
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "sharpness": functional.adjust_sharpness,
}


@pytest.mark.parametrize("operation", ADJUST.values(), ids=ADJUST)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_adjustment_is_torchvisions_for_each_image_alone(operation: Callable, channels: int) -> None:
    images = noise(30, channels, dtype=torch.float32)
    factors = torch.rand(30, generator=seeded()) * 2
    adjusted = adjust(images, operation, factors)
    for image, factor, result in zip(images, factors, adjusted, strict=True):
        torch.testing.assert_close(result, operation(image, float(factor)), rtol=0, atol=1e-6)


def test_hue_is_turned_as_torchvision_turns_it() -> None:
    images, turns = noise(30, dtype=torch.float32), torch.rand(30, generator=seeded()) - 0.5
    for image, turn, result in zip(images, turns, turn_hue(images, turns), strict=True):
        torch.testing.assert_close(result, functional.adjust_hue(image, float(turn)), rtol=0, atol=1e-5)


def test_hue_is_turned_as_the_standard_library_does() -> None:
    colors = [(1.0, 0.0, 0.0), (0.2, 0.9, 0.4), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (0.3, 0.1, 0.7), (1.0, 1.0, 0.0)]
    pixels = torch.tensor(colors).T.view(1, 3, 1, 6)
    for turn in (-0.4, 1 / 3, 0.5):
        turned = turn_hue(pixels, torch.tensor([turn]))[0, :, 0].T
        for color, found in zip(colors, turned.tolist(), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*color)
            np.testing.assert_allclose(found, colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), atol=1e-6)


@pytest.mark.parametrize("levels", [Levels(), Levels(-1.0, 1.0), Levels(0.0, 16.0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_changes_follow_each_other_in_the_order_of_the_docs(levels: Levels, channels: int) -> None:
    count, generator = 30, seeded(3)
    dtype = torch.uint8 if levels == Levels() else torch.float32
    images = levels.from_unit(noise(count, channels, dtype=torch.float32), dtype)
    changed = color_jitter(images, 0.3, 1.5, 0.4, 0.2, seeded(3), levels)
    assert changed.dtype == dtype
    unit = levels.to_unit(images)
    for name, strength in [("brightness", 0.3), ("contrast", 1.5), ("saturation", 0.4)][: 3 if channels == 3 else 2]:
        low = max(0.0, 1 - strength)
        factors = low + (1 + strength - low) * torch.rand(count, generator=generator)
        unit = torch.stack([ADJUST[name](one, float(factor)) for one, factor in zip(unit, factors, strict=True)])
    if channels == 3:
        turns = torch.rand(count, generator=generator) * 0.4 - 0.2
        unit = torch.stack([functional.adjust_hue(one, float(turn)) for one, turn in zip(unit, turns, strict=True)])
    twin = levels.from_unit(unit, dtype)
    span = levels.white - levels.black
    torch.testing.assert_close(changed, twin, rtol=0, atol=1 if dtype == torch.uint8 else 1e-5 * span)


def test_each_factor_is_uniform_and_drawn_for_each_image() -> None:
    count = 3000
    gray = torch.full((count, 3, 2, 2), 0.25)
    bright = color_jitter(gray, 0.4, 0, 0, 0, seeded(), Levels(0.0, 1.0))
    assert is_uniform(bright[:, 0, 0, 0] / 0.25, 0.6, 1.4)
    assert is_uniform(color_jitter(gray, 1.5, 0, 0, 0, seeded(), Levels(0.0, 1.0))[:, 0, 0, 0] / 0.25, 0.0, 2.5)

    halves = torch.tensor([0.4, 0.6]).view(1, 1, 1, 2).repeat(count, 3, 2, 1)
    contrast = color_jitter(halves, 0, 0.5, 0, 0, seeded(), Levels(0.0, 1.0))
    assert is_uniform((contrast[:, 0, 0, 1] - contrast[:, 0, 0, 0]) / 0.2, 0.5, 1.5)

    red = torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1).repeat(count, 1, 2, 2)
    saturation = color_jitter(red, 0, 0, 0.5, 0, seeded(), Levels(0.0, 1.0))
    assert is_uniform((saturation[:, 0, 0, 0] - saturation[:, 1, 0, 0]) / 0.2, 0.5, 1.5)

    turned = color_jitter(red, 0, 0, 0, 0.3, seeded(), Levels(0.0, 1.0))[:, :, 0, 0]
    hues = np.array([colorsys.rgb_to_hsv(*color)[0] for color in turned.tolist()])
    assert is_uniform((hues + 0.5) % 1 - 0.5, -0.3, 0.3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_strength_is_no_change(dtype: torch.dtype) -> None:
    images = noise(5, dtype=dtype)
    assert torch.equal(color_jitter(images, 0.0, 0.0, 0.0, 0.0, seeded(), Levels(0.1, 0.7)), images)


def test_the_white_level_is_the_training_splits() -> None:
    digits = noise(40, 1, 8, 8, torch.float32) * 16
    section = ColorJitter(name="color_jitter", brightness=1.0, contrast=0.0)
    changed = build_color_jitter(section, image_splits(digits))(digits, torch.arange(40), seeded())
    factors = torch.rand(40, generator=seeded()).view(-1, 1, 1, 1) * 2
    torch.testing.assert_close(changed, (digits * factors).clamp(max=16.0))
