import math

import pytest
import torch
from small_images import noise
from torchvision.transforms.v2 import RandAugment, TrivialAugmentWide, functional

from trials.data.augment import rand_augment, trivial_augment
from trials.data.augment.levels import Levels
from trials.data.augment.operations import OPERATIONS, SIGNED, STRENGTH_STEPS, apply_operations

STILL = [0, 0]


def degrees(slope: float) -> float:
    return math.degrees(math.atan(slope))


def shear(image: torch.Tensor, x: float, y: float) -> torch.Tensor:
    return functional.affine(image, 0.0, STILL, 1.0, [degrees(x), degrees(y)], center=[0, 0])


TORCHVISION = {
    "identity": lambda image, strength: image,
    "shear_x": lambda image, strength: shear(image, strength, 0.0),
    "shear_y": lambda image, strength: shear(image, 0.0, strength),
    "translate_x": lambda image, strength: functional.affine(image, 0.0, [int(strength), 0], 1.0, [0.0, 0.0]),
    "translate_y": lambda image, strength: functional.affine(image, 0.0, [0, int(strength)], 1.0, [0.0, 0.0]),
    "rotate": functional.rotate,
    "brightness": lambda image, strength: functional.adjust_brightness(image, 1.0 + strength),
    "saturation": lambda image, strength: functional.adjust_saturation(image, 1.0 + strength),
    "contrast": lambda image, strength: functional.adjust_contrast(image, 1.0 + strength),
    "sharpness": lambda image, strength: functional.adjust_sharpness(image, 1.0 + strength),
    "posterize": lambda image, strength: functional.posterize(image, round(8 - strength)),
    "solarize": lambda image, strength: functional.solarize(
        image, (255 if image.dtype == torch.uint8 else 1) * (1 - strength)
    ),
    "auto_contrast": lambda image, strength: functional.autocontrast(image),
    "equalize": lambda image, strength: functional.equalize(image),
}
TORCHVISION_NAMES = {"color": "saturation", "autocontrast": "auto_contrast"}
BY_PIXEL = {"identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "solarize", "equalize"}
"""What moves values about, or maps bytes to bytes: exact."""


def strengths_of(name: str) -> torch.Tensor:
    """From the largest negative strength to the largest, or from none; none at which a rotation lands on a tie."""
    largest = trivial_augment.LARGEST.get(name, 0.0)
    return torch.linspace(-largest if name in SIGNED else largest * 0.1, largest, 16)


def place_of(name: str) -> int:
    return list(OPERATIONS).index(name)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_torchvisions_for_each_image_alone(name: str, channels: int) -> None:
    images, strengths = noise(16, channels, 13, 16), strengths_of(name)
    chosen = torch.full((16,), place_of(name))
    changed = apply_operations(images, chosen, strengths, Levels())
    floats = apply_operations(images / 255, chosen, strengths, Levels(0.0, 1.0))
    for row, strength in enumerate(strengths.tolist()):
        twin = TORCHVISION[name](images[row], strength).int()
        if name in BY_PIXEL:
            assert torch.equal(changed[row].int(), twin)
        else:  # torchvision cuts fractions off, also those of the gray in between; here the result alone is rounded
            assert int((changed[row].int() - twin).abs().max()) <= (2 if name in ("saturation", "contrast") else 1)
        if name != "posterize" or strength >= 0.5:  # torchvision cuts floats to 8 bits even so
            float_twin = TORCHVISION[name](images[row] / 255, strength)
            torch.testing.assert_close(floats[row], float_twin, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", OPERATIONS)
def test_white_may_lie_anywhere(name: str) -> None:
    unit, levels = noise(16, dtype=torch.float32), Levels(-2.0, 6.0)
    chosen, strengths = torch.full((16,), place_of(name)), strengths_of(name)
    expected = apply_operations(unit, chosen, strengths, Levels(0.0, 1.0)) * 8 - 2
    changed = apply_operations(unit * 8 - 2, chosen, strengths, levels)
    # Where a value lies next to a step (solarize, posterize, equalize), rounding may take it to the other side.
    assert float(((changed - expected).abs() > 1e-4).float().mean()) < 0.01


def test_images_of_a_batch_have_operations_of_their_own() -> None:
    images = noise(56, height=8, width=8)
    chosen = torch.arange(56) % 14
    strengths = torch.tensor([trivial_augment.LARGEST.get(name, 0.0) / 2 for name in OPERATIONS])[chosen]
    changed = apply_operations(images, chosen, strengths, Levels())
    for row in range(56):
        only = slice(row, row + 1)
        assert torch.equal(changed[only], apply_operations(images[only], chosen[only], strengths[only], Levels()))


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ("auto_contrast", "equalize")])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_strength_is_no_change(name: str, dtype: torch.dtype) -> None:
    images = noise(10, dtype=dtype)
    images[0, 0, 0, 0] = 255 if dtype == torch.uint8 else 1
    same = apply_operations(images, torch.full((10,), place_of(name)), torch.zeros(10), Levels(0, float(images.max())))
    torch.testing.assert_close(same, images, rtol=0, atol=0 if dtype == torch.uint8 else 1e-6)


@pytest.mark.parametrize(
    ("theirs", "largest"),
    [
        (RandAugment, {**rand_augment.LARGEST, "translate_x": 150 / 331 * 40, "translate_y": 150 / 331 * 50}),
        (TrivialAugmentWide, trivial_augment.LARGEST),
    ],
)
def test_the_operations_and_their_strengths_are_torchvisions(theirs: type, largest: dict[str, float]) -> None:
    space = theirs._AUGMENTATION_SPACE
    names = []
    for their_name, (strengths, signed) in space.items():
        lower = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in their_name).lstrip("_")
        name = TORCHVISION_NAMES.get(lower, lower)
        names.append(name)
        assert signed == (name in SIGNED)
        values = strengths(STRENGTH_STEPS + 1, 50, 40)
        ours = torch.arange(STRENGTH_STEPS + 1) / STRENGTH_STEPS * largest.get(name, 0.0)
        if values is None:
            assert name not in largest
        elif name == "posterize":
            assert torch.equal((8 - ours).round().int(), values)
        else:
            torch.testing.assert_close(1 - ours if name == "solarize" else ours, values)
    assert names == list(OPERATIONS)
