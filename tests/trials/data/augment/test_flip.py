import numpy as np
import pytest
import torch
from small_images import image_splits, noise, seeded, unlike_images

from trials.data.augment.flip import build_horizontal_flip, build_vertical_flip, horizontal_flip, vertical_flip
from trials.errors import DataError
from trials.recipe import HorizontalFlip, VerticalFlip


@pytest.mark.parametrize(("flip", "dim"), [(horizontal_flip, 3), (vertical_flip, 2)])
@pytest.mark.parametrize("probability", [0.5, 0.1])
def test_each_image_is_mirrored_or_not_with_its_odds(flip, dim: int, probability: float) -> None:
    images = unlike_images(4000)
    flipped = flip(images, seeded(), probability)
    is_flipped = (flipped == images.flip(dim)).flatten(1).all(1)
    is_same = (flipped == images).flatten(1).all(1)
    assert bool((is_flipped ^ is_same).all())
    spread = np.sqrt(4000 * probability * (1 - probability))
    assert abs(int(is_flipped.sum()) - 4000 * probability) < 4 * spread


@pytest.mark.parametrize("flip", [horizontal_flip, vertical_flip])
def test_at_the_ends_all_or_none_are_mirrored(flip) -> None:
    images = noise(300)
    assert torch.equal(flip(images, seeded(), 0.0), images)
    assert torch.equal(flip(images, seeded(), 1.0), images.flip(3 if flip is horizontal_flip else 2))


@pytest.mark.parametrize(
    ("build", "section", "dim"),
    [
        (build_horizontal_flip, HorizontalFlip(name="horizontal_flip", probability=1.0, except_classes=("d", "b")), 3),
        (build_vertical_flip, VerticalFlip(name="vertical_flip", probability=1.0, except_classes=("d", "b")), 2),
    ],
)
def test_images_of_excepted_classes_stay(build, section, dim: int) -> None:
    images, classes = noise(30), ("a", "b", "c", "d")
    targets = torch.arange(30) % 4
    rows = torch.randperm(30, generator=seeded())[:20]
    flipped = build(section, image_splits(images, targets, classes))(images[rows], rows, seeded())
    for row, image in zip(rows.tolist(), flipped, strict=True):
        assert torch.equal(image, images[row] if classes[row % 4] in "bd" else images[row].flip(dim - 1))


def test_an_unknown_class_is_named_with_the_known_ones() -> None:
    section = HorizontalFlip(name="horizontal_flip", except_classes=("left", "rigth"))
    splits = image_splits(noise(4), torch.arange(4) % 2, ("left", "right"))
    with pytest.raises(DataError) as caught:
        build_horizontal_flip(section, splits)
    assert str(caught.value) == (
        "data.augment: horizontal_flip: except_classes: found 'rigth', expected one of: left, right; did you mean "
        "'right'?"
    )


def test_a_number_has_no_classes_to_except() -> None:
    section = VerticalFlip(name="vertical_flip", except_classes=("left",))
    with pytest.raises(DataError, match=r"^data.augment: vertical_flip: except_classes: found 'left', but a number is"):
        build_vertical_flip(section, image_splits(noise(4)))
