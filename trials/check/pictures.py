"""What a trained model looks like inside: the filters of its first layer, and what its layers put out on one batch.

A first layer that learned something shows edges and colours instead of noise; a layer most of whose units are never
above zero has died.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from trials.average.batch_norm import eval_mode
from trials.disk import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST_LAYER, ACTIVATIONS = "first_layer.png", "activations.png"
LINE_COLOR = (0.75, 0.85, 1.0)
"""Between filters, which may be black, white and gray at their borders."""
BINS = 50
LAYERS_SHOWN = 40
"""More layers than this are shown by an even choice of so many."""

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
_WATCHED = (*_WEIGHTED, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish)


@dataclass(frozen=True, eq=False)
class Activations:
    """What one layer put out on a batch."""

    name: str
    """Its name in the model and its kind: ``stages.0.2 ReLU``; called again in the same pass, with ``(2)``."""
    counts: np.ndarray
    """Finite outputs in each of :data:`BINS` bins."""
    edges: np.ndarray
    """Of the bins, from the smallest output to the largest."""
    units: int
    """Channels of a convolution, features of a linear layer; of a non-linearity, those of the layer before it."""
    dead_units: int
    """Units that are above zero for no example and at no place."""


def draw_pictures(model: nn.Module, inputs: Tensor, folder: Path) -> list[str]:
    """Draw ``model`` into ``folder``; the names of the files written.

    ``inputs`` (N, ...) is one batch as the model takes it, on the model's device; a hundred examples tell enough. A
    compiled model is to be given as it was before.
    """
    drawn = [draw_first_layer(model, folder / FIRST_LAYER), draw_activations(model, inputs, folder / ACTIVATIONS)]
    return [name for name, is_drawn in zip((FIRST_LAYER, ACTIVATIONS), drawn, strict=True) if is_drawn]


def draw_first_layer(model: nn.Module, path: Path) -> bool:
    """Draw the weights of the first convolution or linear layer as a PNG.

    ``False``, and no file, for a model that begins with an embedding or has neither.
    """
    figure = first_layer_figure(model)
    if figure is not None:
        write_figure(figure, path)
    return figure is not None


def draw_activations(model: nn.Module, inputs: Tensor, path: Path) -> bool:
    """Draw a histogram of what each layer puts out on one batch, in eval mode, as a PNG.

    ``False``, and no file, for a model without any known layer.
    """
    layers = measure_activations(model, inputs)
    if layers:
        write_figure(activations_figure(layers), path)
    return bool(layers)


def filter_grid(weight: Tensor) -> Tensor:
    """The filters (K, C, h, w) of a convolution as one picture (3, H, W), each scaled to its own range, 0 to 1.

    A filter is a tile, gray for one channel, coloured for three; with another number of channels it is a row of gray
    tiles, one a channel. Lines of a pixel in :data:`LINE_COLOR` are around the tiles.
    """
    from torchvision.utils import make_grid

    filters, channels = weight.detach().float().cpu(), weight.shape[1]
    low, high = filters.amin((1, 2, 3), keepdim=True), filters.amax((1, 2, 3), keepdim=True)
    scaled = (filters - low) / torch.where(high > low, high - low, 1.0)
    tiles = scaled if channels in (1, 3) else scaled.flatten(0, 1).unsqueeze(1)
    tiles_in_row = math.ceil(math.sqrt(len(filters))) if channels in (1, 3) else channels
    grid: Tensor = make_grid(tiles, nrow=tiles_in_row, padding=1, pad_value=math.nan)
    return torch.where(grid.isnan(), torch.tensor(LINE_COLOR).view(3, 1, 1), grid)


def first_layer_figure(model: nn.Module) -> Figure | None:
    """The weights of the first convolution as a grid of filters, or of the first linear layer as a matrix."""
    kinds = (nn.Conv2d, nn.Linear, nn.Embedding)
    name, layer = next(((name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)), ("", None))
    if isinstance(layer, nn.Conv2d):
        return _filters_figure(name, layer.weight)
    return _matrix_figure(name, layer.weight) if isinstance(layer, nn.Linear) else None


def measure_activations(model: nn.Module, inputs: Tensor) -> list[Activations]:
    """What the layers of ``model`` put out for ``inputs``, in the order in which they run.

    Eval mode, no gradients; the modes of all modules are put back and the hooks removed, also by an error.
    """
    watcher = _Watcher()
    handles = [
        layer.register_forward_hook(watcher.hook(name))
        for name, layer in model.named_modules()
        if isinstance(layer, _WATCHED)
    ]
    try:
        with eval_mode(model), torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return watcher.layers


def activations_figure(layers: list[Activations]) -> Figure:
    """A histogram for each of ``layers``, its dead units in the title."""
    shown = layers
    if len(layers) > LAYERS_SHOWN:
        shown = [layers[round(place)] for place in np.linspace(0, len(layers) - 1, LAYERS_SHOWN)]
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(3.4 * columns, 2.1 * rows + 0.4)
    chosen = f"{len(shown)} of {len(layers)} layers, in their order" if shown != layers else "layer by layer"
    figure.suptitle(f"Outputs on one batch, {chosen}", fontsize=10)
    for place, layer in enumerate(shown, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.stairs(layer.counts, layer.edges, fill=True)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
        axes.axvline(0.0, color="0.3", linewidth=0.6)
        axes.tick_params(labelsize=7)
        axes.set_title(f"{layer.name}\n{layer.dead_units / layer.units:.1%} of {layer.units} units dead", fontsize=8)
    return figure


class _Watcher:
    """Measures outputs as they come: a layer that works in place would overwrite what is kept for later."""

    def __init__(self) -> None:
        self.layers: list[Activations] = []
        self._calls: Counter[str] = Counter()
        self._unit_dim = 1

    def hook(self, name: str) -> Any:
        """A forward hook for the layer ``name``."""

        def measure(layer: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
            if isinstance(layer, _WEIGHTED):
                self._unit_dim = output.ndim - 1 if isinstance(layer, nn.Linear) else 1
            self._calls[name] += 1
            again = f" ({self._calls[name]})" if self._calls[name] > 1 else ""
            self.layers.append(_measured(f"{name} {type(layer).__name__}{again}".strip(), output, self._unit_dim))

        return measure


def _measured(name: str, output: Tensor, unit_dim: int) -> Activations:
    values = output.detach().float()
    is_alive = (values > 0.0).movedim(unit_dim, 0).flatten(1).any(1)
    finite = values[values.isfinite()].cpu().numpy()
    counts, edges = np.histogram(finite, bins=BINS)
    return Activations(name, counts, edges, units=len(is_alive), dead_units=int((~is_alive).sum()))


def _filters_figure(name: str, weight: Tensor) -> Figure:
    count, channels, height, width = weight.shape
    figure = new_figure(7.0, 7.0)
    axes = figure.add_subplot()
    axes.imshow(filter_grid(weight).permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(
        f"{name}: {count} filters of {height}x{width}, {channels} channel{'s' * (channels > 1)}, "
        "each scaled to its own range",
        fontsize=9,
    )
    return figure


def _matrix_figure(name: str, weight: Tensor) -> Figure:
    weights = weight.detach().float().cpu().numpy()
    figure = new_figure(8.0, 5.0)
    axes = figure.add_subplot(xlabel="input", ylabel="unit")
    limit = float(np.abs(weights).max())
    picture = axes.imshow(weights, cmap="coolwarm", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axes.set_title(f"{name}: weights of {weights.shape[0]} units for {weights.shape[1]} inputs", fontsize=9)
    figure.colorbar(picture)
    return figure


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure, apart from pyplot and its global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def write_figure(figure: Figure, path: Path) -> None:
    """Write ``figure`` as a PNG, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)  # type: ignore[no-untyped-call]
    write_whole(path, picture.getvalue())
