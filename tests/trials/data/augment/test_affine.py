import numpy as np
import pytest
import torch
from small_images import image_splits, is_uniform, noise, ramps, seeded, sources_of
from torchvision.transforms.v2 import InterpolationMode, functional

from trials.data.augment.affine import affine, build_affine, random_affine, warp
from trials.recipe import Affine

COUNT = 24


def drawn(count: int, *limits: float) -> list[torch.Tensor]:
    generator = seeded(1)
    return [(torch.rand(count, generator=generator) * 2 - 1) * limit for limit in limits]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_image_is_changed_as_torchvision_changes_it_alone(dtype: torch.dtype, channels: int) -> None:
    images = noise(COUNT, channels, dtype=dtype)
    angles, x, y, factors, shears = drawn(COUNT, 180.0, 4.0, 5.0, 0.5, 30.0)
    changed = affine(images, angles, torch.stack([x, y]), 1.0 + factors, shears)
    assert changed.dtype == dtype
    for row in range(COUNT):
        alone = functional.affine(
            images[row],
            angle=float(angles[row]),
            translate=[float(x[row]), float(y[row])],
            scale=float(1.0 + factors[row]),
            shear=[float(shears[row]), 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        torch.testing.assert_close(changed[row], alone, rtol=0, atol=1 if dtype == torch.uint8 else 1e-4)
        if dtype == torch.uint8:  # a tie may round either way
            assert float((changed[row] != alone).float().mean()) < 0.01


def test_quarter_turns_and_shifts_by_whole_pixels_are_exact() -> None:
    images = noise(4, height=8, width=8)
    zeros, ones = torch.zeros(4), torch.ones(4)
    turned = affine(images, torch.tensor([0.0, 90.0, 180.0, 270.0]), torch.zeros(2, 4), ones, zeros)
    for row in range(4):
        assert torch.equal(turned[row], images[row].rot90(-row, (1, 2)))  # clockwise
    moved = affine(images, zeros, torch.tensor([[1.0, 0.0, -3.0, 2.0], [0.0, 2.0, 1.0, -1.0]]), ones, zeros)
    for row, (right, down) in enumerate([(1, 0), (0, 2), (-3, 1), (2, -1)]):
        for y in range(8):
            for x in range(8):
                inside = 0 <= y - down < 8 and 0 <= x - right < 8
                assert torch.equal(
                    moved[row, :, y, x], images[row, :, y - down, x - right] if inside else torch.zeros(3).byte()
                )


def test_each_number_is_uniform_and_drawn_for_each_image() -> None:
    count, (height, width) = 3000, (20, 30)
    changed = random_affine(ramps(count, height, width), 30.0, 0.2, 0.25, 20.0, seeded())
    sources = sources_of(changed)
    forward = np.linalg.inv(sources[:, :, :2])
    shifts = -np.einsum("nij,nj->ni", forward, sources[:, :, 2])
    # forward = factor * turn * shear; the shear keeps its first column's length, and its determinant is 1.
    angles = np.degrees(np.arctan2(forward[:, 1, 0], forward[:, 0, 0]))
    factors = np.hypot(forward[:, 0, 0], forward[:, 1, 0])
    across = (forward[:, 0, 0] * forward[:, 0, 1] + forward[:, 1, 0] * forward[:, 1, 1]) / factors**2
    assert is_uniform(angles, -30.0, 30.0)
    assert is_uniform(factors, 0.75, 1.25)
    assert is_uniform(-np.degrees(np.arctan(across)), -20.0, 20.0)
    assert is_uniform(shifts[:, 0], -0.2 * width, 0.2 * width)
    assert is_uniform(shifts[:, 1], -0.2 * height, 0.2 * height)
    correlations = np.corrcoef([angles, factors, across, shifts[:, 0], shifts[:, 1]])
    assert np.abs(correlations - np.eye(5)).max() < 0.1


def test_what_comes_in_from_outside_is_black() -> None:
    images = torch.full((1, 1, 4, 4), 3.0)
    zeros = torch.zeros(1)
    moved = affine(images, zeros, torch.tensor([[1.5], [0.0]]), zeros + 1.0, zeros, black=-5.0)
    # The pixel that is half outside is half black.
    torch.testing.assert_close(moved[0, 0], torch.tensor([-5.0, -1.0, 3.0, 3.0]).expand(4, 4))

    levels = noise(8, dtype=torch.float32) * 4.0 - 2.0
    apply = build_affine(Affine(name="affine", translate=0.9), image_splits(levels))
    assert float(apply(levels, torch.arange(8), seeded()).min()) == -2.0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_strength_is_no_change(dtype: torch.dtype) -> None:
    images = noise(5, dtype=dtype)
    same = random_affine(images, 0.0, 0.0, 0.0, 0.0, seeded())
    torch.testing.assert_close(same, images, rtol=0, atol=0 if dtype == torch.uint8 else 1e-5)


def test_the_nearest_pixel_is_taken_where_asked() -> None:
    image = torch.arange(8.0).view(1, 1, 1, 8)
    back = torch.tensor([[[1.0, 0.0, 2.4], [0.0, 1.0, 0.0]]])
    assert warp(image, back, mode="nearest").flatten().tolist() == [2, 3, 4, 5, 6, 7, 0, 0]
    np.testing.assert_allclose(warp(image, back).flatten()[:5], [2.4, 3.4, 4.4, 5.4, 6.4], rtol=1e-5)
