"""A5: barriers equal their closed forms, and what a barrier keeps apart is not averaged."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from torch import Tensor

from trials.average.barrier import (
    FRACTIONS,
    Matrix,
    Refusal,
    barrier,
    barrier_matrix,
    barriers_figure,
    draw_barriers,
    interpolated,
    kept_apart,
)
from trials.average.filling import Parts
from trials.average.stored import StoredWeights, in_memory, opened_alike
from trials.errors import TrialError
from trials.tensor_files import Weights


def write(path: Path, weights: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file(weights, path)
    return path


def at(folder: Path, *places: float) -> list[Path]:
    """Models of one weight each."""
    return [write(folder / f"{n}.safetensors", {"w": torch.tensor([place])}) for n, place in enumerate(places)]


def double_well(weights: Weights) -> float:
    """Minima of loss 1 at -1 and 1, a hill of loss 2 at 0."""
    w = weights["w"].item()
    return 1.0 + (1.0 - w * w) ** 2


def parabola(weights: Weights) -> float:
    w = weights["w"].item()
    return 0.5 + (w - 0.3) ** 2


def whole(loss: Callable[[Weights], float]) -> Callable[[StoredWeights, Parts], float]:
    """A loss of weights that are all in memory."""
    return lambda file, parts: loss(in_memory(file, parts))


def interpolate(a: Path, b: Path, fraction: float) -> dict[str, Tensor]:
    with opened_alike([a, b]) as files:
        return in_memory(files[0], interpolated(files, fraction))


def test_two_minima_of_a_double_well_are_apart_by_its_hill(tmp_path: Path) -> None:
    matrix = barrier_matrix(at(tmp_path, -1.0, 1.0), whole(double_well))
    assert matrix.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_between_uneven_ends_the_rise_is_above_the_line_between_their_losses(tmp_path: Path) -> None:
    """From -1 (loss 1) to 0 (loss 2): f(w) = 1 + (1 - w^2)^2 rises above the line 2 + w by most at w = -1/4, of the
    three places: 1 + (15/16)^2 - 7/4 = 33/256, of a mean loss of 3/2."""
    matrix = barrier_matrix(at(tmp_path, -1.0, 0.0), whole(double_well))
    assert matrix[0, 1] == pytest.approx(33 / 256 / 1.5, rel=1e-12)
    assert barrier([double_well({"w": torch.tensor(w)}) for w in (-1.0, -0.25, 0.0)], [0.0, 0.75, 1.0]) == matrix[0, 1]


def test_a_convex_loss_has_no_barrier(tmp_path: Path) -> None:
    matrix = barrier_matrix(at(tmp_path, -1.0, 0.25, 4.0), whole(parabola))
    assert matrix.tolist() == [[0.0] * 3] * 3


def test_symmetrical_and_each_place_is_measured_once(tmp_path: Path) -> None:
    asked: list[float] = []

    def noted(weights: Weights) -> float:
        asked.append(weights["w"].item())
        return double_well(weights)

    places = (-1.0, 1.0, 0.5, 3.0)
    matrix = barrier_matrix(at(tmp_path, *places), whole(noted))
    assert np.array_equal(matrix, matrix.T)
    assert not matrix.diagonal().any()
    assert asked[:4] == list(places)
    assert asked[4:7] == [-0.5, 0.0, 0.5]  # from the first to the second
    assert len(asked) == 4 + 6 * len(FRACTIONS)


def test_no_line_of_numbers_is_a_barrier_without_end() -> None:
    ends = [0.0, 0.5, 1.0]
    for broken in (math.nan, math.inf):
        assert barrier([1.0, broken, 1.0], ends) == math.inf
        assert barrier([broken, 1.0, 1.0], ends) == math.inf
    assert barrier([0.0, 0.0, 0.0], ends) == 0.0
    assert barrier([0.0, 0.1, 0.0], ends) == math.inf
    assert barrier([1.0, 0.5, 1.0], ends) == 0.0


@pytest.mark.parametrize("fractions", [(0.25, 0.5, 0.75), (0.0, 0.5), (0.5, 1.0)])
def test_the_ends_belong_to_the_losses(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must begin with 0 and end with 1, got"):
        barrier([1.0] * len(fractions), fractions)


def test_interpolated_weights_are_those_of_numpy_in_float64(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [
        {
            "conv": torch.randn(4, 3, 3, generator=generator),
            "brain": torch.randn(9, generator=generator).bfloat16(),
            "counter": torch.tensor(number),
        }
        for number in (7, 8)
    ]
    a, b = (write(tmp_path / str(of["counter"].item()), of) for of in weights)
    found = interpolate(a, b, 0.3)
    for name in ("conv", "brain"):
        one, other = (of[name].double().numpy() for of in weights)
        assert torch.equal(found[name], torch.from_numpy(0.7 * one + 0.3 * other).to(weights[0][name].dtype))
    assert found["counter"] == 7
    for fraction, end in ((0.0, weights[0]), (1.0, weights[1])):
        assert torch.equal(interpolate(a, b, fraction)["conv"], end["conv"])


def test_files_that_do_not_fit_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    paths = [*at(tmp_path, 0.0, 1.0), write(tmp_path / "other", {"w": torch.zeros(2)})]
    with pytest.raises(TrialError, match=r"tensor w is float32 \[1\] in .*, but float32 \[2\] in .*other; "):
        barrier_matrix(paths, lambda *_: pytest.fail("measured"))


def matrix_of(entry: Callable[[], float], count: int) -> Matrix:
    upper: Matrix = np.triu([[entry() for _ in range(count)] for _ in range(count)], 1)
    return upper + upper.T


@pytest.mark.parametrize("seed", range(10))
def test_kept_apart_equals_its_definition(seed: int) -> None:
    rng, count, tolerance = random.Random(seed), 7, 0.2
    matrix = matrix_of(lambda: rng.choice([0.0, 0.1, 0.2, 0.3, math.inf]), count)
    accepted, refusals = kept_apart(matrix, tolerance)
    assert sorted([*accepted, *(refusal.refused for refusal in refusals)]) == list(range(count))
    assert accepted[0] == 0
    for index in range(count):
        before = [matrix[index, other] for other in accepted if other < index]
        assert (index in accepted) == all(value <= tolerance for value in before)
    for index, other, value in refusals:
        assert other in accepted
        assert value == matrix[index, other] == max(matrix[index, one] for one in accepted if one < index)


def test_one_refused_keeps_no_other_out() -> None:
    """1 is apart from 0, and 2 from 1 alone."""
    matrix = np.array([[0.0, 0.3, 0.0], [0.3, 0.0, 0.9], [0.0, 0.9, 0.0]])
    assert kept_apart(matrix, 0.1) == ((0, 2), (Refusal(1, 0, 0.3),))
    assert kept_apart(matrix, 0.3) == ((0, 1), (Refusal(2, 1, 0.9),))
    assert kept_apart(np.zeros((0, 0)), 0.1) == ((), ())


def test_the_picture_says_each_number_in_its_cell() -> None:
    matrix = np.array([[0.0, 0.0123, math.inf], [0.0123, 0.0, 2.0], [math.inf, 2.0, 0.0]])
    axes = barriers_figure(matrix, ["a", "b", "c"]).axes[0]
    cells = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert cells[1, 0] == cells[0, 1] == ("0.012", "black")
    assert cells[2, 1] == ("2", "white")
    assert cells[2, 0] == ("inf", "white")
    assert cells[0, 0] == ("0", "black")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    colored = axes.images[0].get_array()
    assert colored is not None
    assert colored.tolist() == [[0.0, 0.0123, 2.0], [0.0123, 0.0, 2.0], [2.0, 2.0, 0.0]]
    assert axes.images[0].norm.vmax == 2.0


def test_the_picture_is_written_also_without_any_barrier(tmp_path: Path) -> None:
    draw_barriers(np.zeros((2, 2)), ["one", "two"], tmp_path / "pictures" / "barriers.png")
    picture = imread(tmp_path / "pictures" / "barriers.png")
    assert picture.shape[0] > 200
    assert (np.abs(picture[:, :, :3] - np.array(to_rgb("white"))).max(-1) > 0.3).mean() > 0.005  # something is drawn
