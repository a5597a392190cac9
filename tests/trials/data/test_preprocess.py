import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from trials.data import Preprocess
from trials.data.preprocess import ArrayPreprocess

GENERATOR = np.random.default_rng(0)
RGB = GENERATOR.integers(0, 256, (50, 6, 5, 3), dtype=np.uint8)
GRAY = GENERATOR.integers(0, 17, (50, 8, 8)).astype(np.float32)
TABLE = GENERATOR.normal(size=(50, 4)).astype(np.float32)


def tensor(images: np.ndarray) -> torch.Tensor:
    images = images[..., None] if images.ndim == 3 else images
    return torch.tensor(images).permute(0, 3, 1, 2).contiguous()


def expected(images: np.ndarray, scale: float) -> np.ndarray:
    """(x / scale - mean) / std per channel, in float64, channels first."""
    scaled = images.astype(np.float64).reshape(*images.shape[:3], -1) / scale
    return ((scaled - scaled.mean((0, 1, 2))) / scaled.std((0, 1, 2))).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(("images", "scale"), [(RGB, 255.0), (GRAY, 1.0)])
def test_images_are_normalised_by_channel(images: np.ndarray, scale: float) -> None:
    preprocess = ArrayPreprocess.fit(tensor(images))
    assert preprocess.scale == scale
    np.testing.assert_allclose(preprocess.mean, (images / scale).reshape(-1, preprocess.shape[0]).mean(0), rtol=1e-6)
    np.testing.assert_allclose(preprocess.std, (images / scale).reshape(-1, preprocess.shape[0]).std(0), rtol=1e-6)
    normalised = preprocess.normalise(tensor(images))
    assert normalised.dtype == torch.float32
    np.testing.assert_allclose(normalised, expected(images, scale), atol=1e-5)


def test_features_are_normalised_one_by_one_and_constants_stay_finite() -> None:
    table = np.concatenate([TABLE, np.full((50, 1), 0.1, np.float32)], axis=1)
    preprocess = ArrayPreprocess.fit(torch.tensor(table))
    assert preprocess.std[-1] == 1.0
    normalised = preprocess(table).numpy()
    np.testing.assert_allclose(normalised[:, :4].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(normalised[:, :4].std(0), 1, atol=1e-5)
    np.testing.assert_allclose(normalised[:, 4], 0, atol=1e-6)


def test_values_far_from_zero_keep_their_digits() -> None:
    far = np.array([[1e6 - 1], [1e6 + 1]], np.float32)
    np.testing.assert_array_equal(ArrayPreprocess.fit(torch.tensor(far))(far), [[-1.0], [1.0]])


def test_normalising_leaves_the_raw_batch_alone() -> None:
    raw = torch.tensor(TABLE)
    ArrayPreprocess.fit(raw).normalise(raw)
    assert torch.equal(raw, torch.tensor(TABLE))


@pytest.mark.parametrize("images", [RGB, GRAY])
def test_raw_arrays_of_every_shape_give_what_training_saw(images: np.ndarray) -> None:
    preprocess = ArrayPreprocess.fit(tensor(images))
    batch = preprocess.normalise(tensor(images))
    assert torch.equal(preprocess(images), batch)
    assert torch.equal(preprocess(images[3]), batch[3:4])
    assert torch.equal(preprocess(list(images[:3])), batch[:3])
    assert torch.equal(preprocess(images[:2].tolist()), batch[:2])
    assert torch.equal(preprocess(images[:2].astype(np.float64)), batch[:2])
    if images.ndim == 3:
        assert torch.equal(preprocess(images[..., None]), batch)
        assert torch.equal(preprocess(images[0, ..., None]), batch[:1])


def test_pil_pictures_are_converted_to_the_channels_of_training() -> None:
    colour, gray = ArrayPreprocess.fit(tensor(RGB)), ArrayPreprocess.fit(tensor(RGB[..., 0]))
    picture = Image.fromarray(RGB[0])
    assert torch.equal(colour(picture), colour(RGB[0]))
    assert torch.equal(colour([picture, Image.fromarray(RGB[1])]), colour(RGB[:2]))
    assert torch.equal(gray(picture), gray(np.asarray(picture.convert("L"))))


def test_features_come_as_one_row_or_many() -> None:
    preprocess = ArrayPreprocess.fit(torch.tensor(TABLE))
    assert torch.equal(preprocess(TABLE[0]), preprocess(TABLE)[:1])
    assert torch.equal(preprocess(TABLE.tolist()), preprocess(TABLE))


def test_image_size_resizes_pictures_of_any_size() -> None:
    preprocess = ArrayPreprocess.fit(tensor(np.full((3, 4, 4), 8, np.uint8)), image_size=4)
    flat = np.full((9, 7), 200, np.uint8)  # a flat picture stays flat
    np.testing.assert_allclose(preprocess(flat), np.full((1, 1, 4, 4), (200 - 8) / 255), rtol=1e-6)
    assert preprocess([Image.fromarray(flat), np.zeros((5, 5), np.uint8)]).shape == (2, 1, 4, 4)


@pytest.mark.parametrize(
    ("fitted", "raw", "message"),
    [
        (RGB, np.zeros((6, 5)), r"found an array of shape \(6, 5\), expected \(6, 5, 3\) or \(N, 6, 5, 3\)"),
        (RGB, np.zeros((3, 6, 5)), r"found an array of shape \(3, 6, 5\)"),
        (GRAY, np.zeros((7, 8)), r"shape \(7, 8\), expected \(8, 8\) or \(N, 8, 8\)"),
        (GRAY, np.zeros((2, 8, 8, 3)), r"shape \(2, 8, 8, 3\), expected \(8, 8\)"),
        (GRAY, [], r"shape \(0,\), expected"),
        (GRAY, np.array(["a"]), "values of type <U1, expected numbers"),
        (TABLE, np.zeros(5), r"shape \(5,\), expected \(4,\) or \(N, 4\)"),
        (TABLE, Image.fromarray(RGB[0]), r"found a picture, expected \(4,\) or \(N, 4\)"),
    ],
)
def test_a_wrong_shape_is_one_clear_line(fitted: np.ndarray, raw: object, message: str) -> None:
    preprocess = ArrayPreprocess.fit(torch.tensor(fitted) if fitted.ndim == 2 else tensor(fitted))
    with pytest.raises(ValueError, match=message) as caught:
        preprocess(raw)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_json_and_pickle_round_trips_give_the_same_tensor() -> None:
    preprocess = ArrayPreprocess.fit(tensor(RGB), image_size=6)
    preprocess(RGB)  # with its constants made
    again = Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict())))
    assert again == preprocess == pickle.loads(pickle.dumps(preprocess))
    assert torch.equal(again(RGB), preprocess(RGB))
