"""What holds of all image augmentations together, and of their order."""

import pytest
import torch
from small_images import image_splits, noise, seeded

from trials.data.augment import AUGMENTS, Augmentation
from trials.data.augment.crop import random_crop
from trials.data.augment.flip import horizontal_flip
from trials.errors import DataError
from trials.recipe import Data

COLORS = {"color_jitter", "rand_augment", "trivial_augment"}
GEOMETRY = {"random_crop", "random_resized_crop", "horizontal_flip", "vertical_flip", "rotation", "affine", "erasing"}
IMAGES = sorted(COLORS | GEOMETRY)
EVERY_ROW = torch.arange(32)


def augmentation(inputs: torch.Tensor, *sections: object) -> Augmentation:
    data = Data.model_validate({"source": "digits", "augment": list(sections)})
    return Augmentation(data, image_splits(inputs))


def test_the_parts_run_in_the_given_order() -> None:
    images = noise(32)
    generator = seeded(5)
    by_hand = random_crop(horizontal_flip(images, generator), 3, generator)
    augment = augmentation(images, "horizontal_flip", {"name": "random_crop", "padding": 3})
    assert torch.equal(augment(images, EVERY_ROW, seeded(5)), by_hand)


def test_nothing_is_nothing() -> None:
    images = noise(32)
    nothing = augmentation(images)
    assert not nothing
    assert augmentation(images, "horizontal_flip")
    assert nothing(images, EVERY_ROW, seeded()) is images


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("name", IMAGES)
def test_the_result_is_of_the_same_kind_and_the_argument_stays(name: str, dtype: torch.dtype, channels: int) -> None:
    if name in COLORS and channels > 3:
        with pytest.raises(
            DataError, match=rf"^data.augment: {name} needs images with 1 or 3 channels, but the data has"
        ):
            augmentation(noise(32, channels), name)
        return
    images, kept = noise(32, channels, dtype=dtype), noise(32, channels, dtype=dtype)
    changed = augmentation(images, name)(images, EVERY_ROW, seeded())
    assert (changed.dtype, changed.shape, changed.device) == (images.dtype, images.shape, images.device)
    assert not torch.equal(changed, kept)
    assert float(changed.min()) >= float(kept.min()) - 1e-5
    assert float(changed.max()) <= float(kept.max()) + 1e-5
    assert torch.equal(images, kept)


@pytest.mark.parametrize("name", IMAGES)
def test_equal_images_of_a_batch_become_different_ones(name: str) -> None:
    images = noise(1).repeat(32, 1, 1, 1)
    changed = augmentation(images, name)(images, EVERY_ROW, seeded())
    assert len(changed.unique(dim=0)) >= (2 if "flip" in name else 8)


@pytest.mark.parametrize("name", IMAGES)
def test_only_the_passed_generator_is_drawn_from(name: str) -> None:
    images, before = noise(32), torch.get_rng_state()
    augment = augmentation(images, name)
    first = augment(images, EVERY_ROW, seeded(1))
    assert torch.equal(first, augment(images, EVERY_ROW, seeded(1)))
    assert not torch.equal(first, augment(images, EVERY_ROW, seeded(2)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", IMAGES)
def test_features_are_refused(name: str) -> None:
    with pytest.raises(
        DataError, match=rf"^data.augment: {name} needs images, but the data has features; leave it out$"
    ):
        AUGMENTS[name](
            Data.model_validate({"source": "x", "augment": [name]}).augment[0], image_splits(torch.rand(9, 4))
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", IMAGES)
def test_a_gpu_changes_images_as_the_host_does(name: str) -> None:
    images = noise(32)
    augment = augmentation(images, name)
    # The host's generator serves both, so that both draw the same numbers; a GPU's own is used in training.
    on_gpu = augment(images.cuda(), EVERY_ROW, seeded()).cpu()
    apart = (on_gpu.int() - augment(images, EVERY_ROW, seeded()).int()).abs()
    assert float((apart > 1).float().mean()) < 0.005
    own = augmentation(images.cuda(), name)(images.cuda(), EVERY_ROW.cuda(), torch.Generator("cuda").manual_seed(0))
    assert own.is_cuda
