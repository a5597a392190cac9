from typing import Literal

import pytest
import torch
from torch import nn

from trials.model.norm import MOST_GROUPS, group_count, norm_layer
from trials.recipe import Norm

EXAMPLE = torch.tensor([1.0, 3.0, 5.0, 7.0])
NORMALISED = torch.tensor([-1.342, -0.447, 0.447, 1.342])


def norm(values: torch.Tensor) -> torch.Tensor:
    """Less the mean, over the biased deviation, by hand; torch adds 1e-5 to the variance."""
    mean = sum(values.flatten().tolist()) / values.numel()
    variance = sum((value - mean) ** 2 for value in values.flatten().tolist()) / values.numel()
    return (values - mean) / (variance + 1e-5) ** 0.5


@pytest.mark.parametrize("over", ["features", "maps"])
def test_batch_norm_on_the_worked_example(over: Literal["features", "maps"]) -> None:
    """Inputs 1, 3, 5, 7: mean 4, biased variance 5; the running variance takes the unbiased 20 / 3."""
    layer = norm_layer("batch", 1, over)
    shape = (4, 1) if over == "features" else (4, 1, 1, 1)
    torch.testing.assert_close(layer(EXAMPLE.view(shape)).flatten(), NORMALISED, atol=5e-4, rtol=0)
    torch.testing.assert_close(layer.running_mean, torch.tensor([0.1 * 4.0]))
    torch.testing.assert_close(layer.running_var, torch.tensor([0.9 * 1.0 + 0.1 * 20 / 3]))


@pytest.mark.parametrize(("name", "channels", "groups"), [("layer", 6, 1), ("group", 6, 6), ("group", 12, 6)])
def test_maps_are_normalised_over_each_group_of_each_image(name: Norm, channels: int, groups: int) -> None:
    images = torch.randn(3, channels, 4, 5, generator=torch.Generator().manual_seed(0)) * 3 + 2
    size = channels // groups
    expected = images.clone()
    for image in range(3):
        for group in range(groups):
            place = (image, slice(group * size, (group + 1) * size))
            expected[place] = norm(images[place])
    torch.testing.assert_close(norm_layer(name, channels, "maps")(images), expected)


@pytest.mark.parametrize(("name", "groups"), [("layer", 1), ("group", 6)])
def test_features_are_normalised_over_each_group_of_each_example(name: Norm, groups: int) -> None:
    rows = torch.randn(5, 12, generator=torch.Generator().manual_seed(0)) * 3 + 2
    size = 12 // groups
    expected = torch.stack([torch.cat([norm(part) for part in row.split(size)]) for row in rows])
    torch.testing.assert_close(norm_layer(name, 12, "features")(rows), expected)


@pytest.mark.parametrize("over", ["features", "maps"])
@pytest.mark.parametrize("name", ["batch", "layer", "group"])
def test_a_norm_has_one_gain_and_one_shift_per_channel(name: Norm, over: Literal["features", "maps"]) -> None:
    layer = norm_layer(name, 12, over)
    assert {key: value.tolist() for key, value in layer.named_parameters()} == {
        "weight": [1.0] * 12,
        "bias": [0.0] * 12,
    }


def test_no_norm_passes_its_input_through() -> None:
    layer = norm_layer("none", 4, "maps")
    assert layer(EXAMPLE) is EXAMPLE
    assert not isinstance(layer, nn.modules.batchnorm._NormBase)


def test_groups_are_as_many_as_divide_the_channels() -> None:
    for channels in range(1, 100):
        groups = group_count(channels)
        assert channels % groups == 0
        assert all(channels % more for more in range(groups + 1, MOST_GROUPS + 1))
