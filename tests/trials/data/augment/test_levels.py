import pytest
import torch
from small_images import image_splits, noise

from trials.data.augment.levels import Levels, mean_color, measure_levels


def test_levels_are_those_of_bytes_or_of_the_training_split() -> None:
    assert measure_levels(image_splits(noise(5) // 2)) == Levels(0.0, 255.0)
    digits = torch.tensor([0.0, 3.0, 16.0, 1.0]).view(1, 1, 2, 2)
    assert measure_levels(image_splits(digits)) == Levels(0.0, 16.0)
    assert measure_levels(image_splits(digits / 8 - 1)) == Levels(-1.0, 1.0)
    assert measure_levels(image_splits(torch.full((3, 1, 2, 2), 2.0))) == Levels(2.0, 3.0)


@pytest.mark.parametrize("levels", [Levels(), Levels(-1.0, 1.0), Levels(3.0, 19.0)])
def test_the_unit_range_and_back(levels: Levels) -> None:
    values = torch.linspace(levels.black, levels.white, 256).view(1, 1, 16, 16)
    unit = levels.to_unit(values)
    torch.testing.assert_close(unit.flatten(), torch.linspace(0.0, 1.0, 256))
    torch.testing.assert_close(levels.from_unit(unit, torch.float32), values)
    assert levels.to_unit(torch.tensor([-1e3, 1e3])).tolist() == [0.0, 1.0]


def test_every_byte_comes_back_and_others_are_rounded() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(Levels().from_unit(Levels().to_unit(every), torch.uint8), every)
    values = torch.tensor([-0.1, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1.1]).view(1, 1, 1, 5)
    assert Levels().from_unit(values, torch.uint8).flatten().tolist() == [0, 0, 1, 255, 255]


def test_the_mean_colour_is_the_mean_of_all_pixels_of_a_channel() -> None:
    images = noise(5000, height=2, width=3)
    images[4096:] //= 2
    expected = images.double().numpy().mean((0, 2, 3))
    torch.testing.assert_close(mean_color(image_splits(images)).flatten().double(), torch.tensor(expected))
