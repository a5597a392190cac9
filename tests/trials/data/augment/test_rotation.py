import numpy as np
import torch
from small_images import image_splits, is_uniform, noise, ramps, seeded, sources_of
from torchvision.transforms.v2 import InterpolationMode, functional

from trials.data.augment.rotation import build_rotation, random_rotation
from trials.recipe import Rotation


def angles_of(sources: np.ndarray) -> np.ndarray:
    """Anticlockwise, in degrees."""
    return np.degrees(np.arctan2(sources[:, 1, 0], sources[:, 0, 0]))


def test_each_image_is_turned_about_its_centre_by_an_angle_of_its_own() -> None:
    sources = sources_of(random_rotation(ramps(3000, 16, 11), 40.0, seeded()))
    angles = angles_of(sources)
    assert is_uniform(angles, -40.0, 40.0)
    np.testing.assert_allclose(sources[:, :, 2], 0.0, atol=1e-4)
    sines, cosines = np.sin(np.radians(angles)), np.cos(np.radians(angles))
    turns = np.stack([np.stack([cosines, -sines], 1), np.stack([sines, cosines], 1)], 1)
    np.testing.assert_allclose(sources[:, :, :2], turns, atol=1e-4)


def test_an_image_is_turned_as_torchvision_turns_it() -> None:
    images = noise(20, dtype=torch.float32)
    angles = angles_of(sources_of(random_rotation(ramps(20, 12, 9), 180.0, seeded(3))))
    turned = random_rotation(images, 180.0, seeded(3))
    for image, angle, result in zip(images, angles, turned, strict=True):
        alone = functional.rotate(image, float(angle), interpolation=InterpolationMode.BILINEAR)
        torch.testing.assert_close(result, alone, rtol=0, atol=1e-3)


def test_the_corners_are_black() -> None:
    images = noise(200, height=10, width=10, dtype=torch.float32) - 3.0
    turned = build_rotation(Rotation(name="rotation", degrees=45.0), image_splits(images))(
        images, torch.arange(200), seeded()
    )
    sources = sources_of(random_rotation(ramps(200, 10, 10), 45.0, seeded()))
    far = np.abs(np.einsum("nij,j->ni", sources[:, :, :2], [4.5, 4.5])).max(axis=1) > 5.5
    assert far.sum() > 50
    torch.testing.assert_close(turned[torch.from_numpy(far), :, 9, 9], torch.full((int(far.sum()), 3), -3.0))
