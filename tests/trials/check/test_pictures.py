import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_images import seeded
from torch import Tensor, nn

from trials.check.pictures import (
    ACTIVATIONS,
    FIRST_LAYER,
    LAYERS_SHOWN,
    LINE_COLOR,
    activations_figure,
    draw_pictures,
    filter_grid,
    first_layer_figure,
    measure_activations,
)


def randomised(model: nn.Module) -> nn.Module:
    generator = seeded(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def small_convnet() -> nn.Module:
    return randomised(
        nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 16, 20), nn.GELU()
        )
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_each_tile_of_the_grid_is_its_filter_scaled_to_its_own_range(channels: int) -> None:
    rows = columns = 3
    filters = torch.randn(7, channels, 4, 5, generator=seeded())
    grid = filter_grid(filters).numpy()
    assert grid.shape == (3, rows * 5 + 1, columns * 6 + 1)
    is_tile = np.zeros(grid.shape[1:], bool)
    for number, weights in enumerate(filters.numpy()):
        top, left = 1 + number // columns * 5, 1 + number % columns * 6
        tile = grid[:, top : top + 4, left : left + 5]
        scaled = (weights - weights.min()) / (weights.max() - weights.min())
        np.testing.assert_allclose(tile, np.broadcast_to(scaled, (3, 4, 5)), atol=1e-6)
        is_tile[top : top + 4, left : left + 5] = True
    # torch makes the tiles that are wanting in the last row of the same lines.
    np.testing.assert_allclose(grid[:, ~is_tile], np.array(LINE_COLOR)[:, None].repeat((~is_tile).sum(), 1))


def test_other_channels_are_gray_tiles_a_filter_a_row() -> None:
    filters = torch.randn(2, 4, 3, 3, generator=seeded())
    grid = filter_grid(filters).numpy()
    assert grid.shape == (3, 2 * 4 + 1, 4 * 4 + 1)
    for row, weights in enumerate(filters.numpy()):
        scaled = (weights - weights.min()) / (weights.max() - weights.min())
        for column in range(4):
            tile = grid[:, 1 + 4 * row : 4 + 4 * row, 1 + 4 * column : 4 + 4 * column]
            np.testing.assert_allclose(tile, np.broadcast_to(scaled[column], (3, 3, 3)), atol=1e-6)


def test_a_filter_of_one_value_is_drawn() -> None:
    assert bool(filter_grid(torch.full((1, 1, 2, 2), 3.0))[:, 1:3, 1:3].eq(0).all())


def test_the_first_layer_is_drawn_as_what_it_is() -> None:
    convnet = small_convnet()
    figure = first_layer_figure(convnet)
    assert figure is not None
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown, filter_grid(convnet[0].weight).permute(1, 2, 0))  # type: ignore[index]

    mlp = randomised(nn.Sequential(nn.Dropout(0.1), nn.Linear(5, 4), nn.Linear(4, 3)))
    figure = first_layer_figure(mlp)
    assert figure is not None
    picture = figure.axes[0].images[0]
    np.testing.assert_array_equal(picture.get_array(), mlp[1].weight.detach())  # type: ignore[index]
    assert picture.norm.vmax == -picture.norm.vmin == float(mlp[1].weight.detach().abs().max())  # type: ignore[index]

    assert first_layer_figure(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))) is None
    assert first_layer_figure(nn.Sequential(nn.BatchNorm1d(4))) is None


def test_counts_and_dead_units_are_those_of_every_output() -> None:
    model, images = small_convnet(), torch.randn(10, 3, 6, 6, generator=seeded())
    model[0].bias.data[:2] = -100.0  # type: ignore[index]
    model[4].bias.data[:5] = -1000.0  # type: ignore[index]
    model.eval()
    with torch.no_grad():
        outputs = [model[0](images)]  # type: ignore[index]
        outputs.append(outputs[0].relu())
        outputs.append(model[2:5](outputs[1]))  # type: ignore[index]
        outputs.append(nn.functional.gelu(outputs[2]))
    layers = measure_activations(model, images)
    assert [layer.name for layer in layers] == ["0 Conv2d", "1 ReLU", "4 Linear", "5 GELU"]
    for layer, output in zip(layers, outputs, strict=True):
        values = output.numpy()
        assert layer.counts.sum() == values.size
        inside = [(values >= low) & (values < high) for low, high in zip(layer.edges, layer.edges[1:], strict=False)]
        # NumPy rounds the edges: a value next to one may be counted on either side of it.
        assert np.abs(np.array([part.sum() for part in inside]) - layer.counts).sum() <= 4
        assert (layer.edges[0], layer.edges[-1]) == (pytest.approx(values.min()), pytest.approx(values.max()))
        dead = sum(not (values[:, unit] > 0).any() for unit in range(values.shape[1]))
        assert (layer.units, layer.dead_units) == (values.shape[1], dead)
    assert layers[0].dead_units == layers[1].dead_units == 2
    assert layers[2].dead_units == layers[3].dead_units >= 5


def test_units_are_the_last_dimension_behind_a_linear_layer() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix, self.act = nn.Embedding(9, 4), nn.Linear(4, 6), nn.ReLU()

        def forward(self, words: Tensor) -> Tensor:
            return self.act(self.act(self.mix(self.embed(words))) - 100.0)

    layers = measure_activations(randomised(Words()), torch.arange(9).view(3, 3))
    assert [layer.name for layer in layers] == ["mix Linear", "act ReLU", "act ReLU (2)"]
    assert [layer.units for layer in layers] == [6, 6, 6]
    assert layers[2].dead_units == 6
    assert layers[2].counts.sum() == 3 * 3 * 6


def test_what_is_not_finite_is_left_out() -> None:
    values = torch.tensor([[math.nan, 1.0], [math.inf, -2.0]])
    (layer,) = measure_activations(nn.ReLU(), values)
    assert layer.counts.sum() == 2
    assert (layer.edges[0], layer.edges[-1]) == (0.0, 1.0)


def test_the_model_is_left_as_it_was() -> None:
    model = small_convnet().train()
    model[3].eval()  # type: ignore[index]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError):
        measure_activations(model, torch.zeros(2, 3, 5, 5))  # the wrong size
    measure_activations(model, torch.randn(4, 3, 6, 6, generator=seeded()))
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_gradients_are_prepared() -> None:
    class Probe(nn.ReLU):
        def forward(self, inputs: Tensor) -> Tensor:
            assert not inputs.requires_grad
            return super().forward(inputs)

    assert len(measure_activations(nn.Sequential(nn.Linear(3, 3), Probe()), torch.rand(2, 3))) == 2


def test_a_histogram_shows_the_counts_and_says_what_is_dead() -> None:
    (layer,) = measure_activations(nn.ReLU(), torch.tensor([[-1.0, 2.0, 3.0, -1.0], [-2.0, 5.0, 0.0, -1.0]]))
    figure = activations_figure([layer])
    axes = figure.axes[0]
    counts, edges, _ = axes.patches[0].get_data()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(counts, layer.counts)
    np.testing.assert_array_equal(edges, layer.edges)
    assert axes.get_title() == "ReLU\n50.0% of 4 units dead"


def test_of_many_layers_an_even_choice_is_shown() -> None:
    layers = measure_activations(nn.Sequential(*[nn.ReLU() for _ in range(100)]), torch.rand(2, 3))
    figure = activations_figure(layers)
    numbers = [int(axes.get_title().split()[0]) for axes in figure.axes]
    assert len(numbers) == LAYERS_SHOWN
    assert (numbers[0], numbers[-1]) == (0, 99)
    assert set(np.diff(numbers)) <= {2, 3}


def test_both_pictures_are_whole_png_files(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    assert draw_pictures(small_convnet(), torch.rand(4, 3, 6, 6), folder) == [FIRST_LAYER, ACTIVATIONS]
    assert sorted(path.name for path in folder.iterdir()) == [ACTIVATIONS, FIRST_LAYER]
    for name in (FIRST_LAYER, ACTIVATIONS):
        with Image.open(folder / name) as picture:
            assert picture.format == "PNG"
            assert len(picture.convert("RGB").getcolors(2**24)) > 10
    words = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    assert draw_pictures(words, torch.arange(4), tmp_path / "words") == [ACTIVATIONS]
    assert draw_pictures(nn.Sequential(nn.Flatten()), torch.rand(2, 2), tmp_path / "nothing") == []
    assert not (tmp_path / "nothing").exists()
