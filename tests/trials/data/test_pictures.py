from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trials.data.pictures import picture_array, read_class_folders, read_picture, resize, resize_array, stack_pictures
from trials.errors import DataError

RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]], [[1, 2, 3], [4, 5, 6]]], np.uint8)


def test_rgb_and_gray_pixels_come_as_they_are() -> None:
    np.testing.assert_array_equal(picture_array(Image.fromarray(RGB)), RGB)
    np.testing.assert_array_equal(picture_array(Image.fromarray(RGB[..., 0])), RGB[..., 0])


def test_exif_orientation_turns_the_picture_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", None), np.rot90(RGB, 3))


def test_sixteen_bit_gray_keeps_its_upper_bits() -> None:
    wide = np.array([[0, 255, 256], [32768, 65535, 4096]], np.uint16)
    np.testing.assert_array_equal(picture_array(Image.fromarray(wide)), [[0, 0, 1], [128, 255, 16]])
    assert picture_array(Image.fromarray(wide), channels=3).shape == (2, 3, 3)


def test_palette_with_transparency_keeps_its_colours() -> None:
    palette = Image.fromarray(RGB).quantize(8)
    palette.info["transparency"] = b"\x00\xff"
    np.testing.assert_array_equal(picture_array(palette), np.asarray(palette.convert("RGBA"))[..., :3])


def test_channels_asked_for_are_given() -> None:
    gray = Image.fromarray(RGB[..., 0])
    np.testing.assert_array_equal(picture_array(gray, 3), np.repeat(RGB[..., :1], 3, axis=2))
    np.testing.assert_array_equal(picture_array(Image.fromarray(RGB), 1), np.asarray(Image.fromarray(RGB).convert("L")))


def test_halving_averages_with_the_antialias_triangle() -> None:
    # Halving by a triangle filter weighs the four nearest pixels 1, 3, 3, 1; at the border only those inside count.
    row = torch.tensor([0.0, 8.0, 16.0, 80.0])
    left, right = (3 * 0 + 3 * 8 + 16) / 7, (8 + 3 * 16 + 3 * 80) / 7
    resized = resize(row.expand(1, 1, 4, 4), 2)
    torch.testing.assert_close(resized[0, 0], torch.tensor([[left, right]] * 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_one_picture_resizes_exactly_as_in_a_batch(channels: int) -> None:
    pixels = torch.randint(0, 256, (5, 31, 17, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = resize(pixels.permute(0, 3, 1, 2), 12)
    contiguous = resize(pixels.permute(0, 3, 1, 2).contiguous(), 12)
    assert batch.dtype == torch.uint8
    assert torch.equal(batch, contiguous)
    for row, image in enumerate(pixels.numpy()):
        alone = resize_array(image[..., 0] if channels == 1 else image, 12)
        np.testing.assert_array_equal(alone.reshape(12, 12, channels), batch[row].permute(1, 2, 0).numpy())


def test_resizing_is_within_one_of_pil() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    twin = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize_array(pixels, 16).astype(int) - twin).max() <= 1


def test_all_gray_stays_gray_and_one_colour_picture_makes_all_rgb() -> None:
    gray = np.array([[1, 2]], np.uint8)
    assert stack_pictures([gray, gray], ["a", "b"]).shape == (2, 1, 2)
    colour = np.array([[[7, 8, 9], [4, 5, 6]]], np.uint8)
    expected = [[[[1, 1, 1], [2, 2, 2]]], [[[7, 8, 9], [4, 5, 6]]]]
    np.testing.assert_array_equal(stack_pictures([gray, colour], ["a", "b"]), expected)


def test_different_sizes_name_the_picture_and_the_setting() -> None:
    small, large = np.zeros((2, 3), np.uint8), np.zeros((4, 3), np.uint8)
    with pytest.raises(DataError, match=r"^b: found a picture of 3x4 pixels, but a has 3x2 pixels; set data.image_siz"):
        stack_pictures([small, large], ["a", "b"])


def _save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 2), value, np.uint8)).save(path)


def test_folders_are_read_in_the_order_of_names_and_litter_is_passed_over(tmp_path: Path) -> None:
    for name, value in [("b/2.png", 2), ("b/deep/1.png", 3), ("a/1.png", 1)]:
        _save(tmp_path / name, value)
    for litter in ("a/.DS_Store", "a/Thumbs.db", "README"):
        (tmp_path / litter).write_text("x")
    arrays, names, targets, classes = read_class_folders(tmp_path, None)
    assert classes == ("a", "b")
    assert [int(array[0, 0]) for array in arrays] == [1, 2, 3]
    assert [Path(name).name for name in names] == ["1.png", "2.png", "1.png"]
    np.testing.assert_array_equal(targets, [0, 1, 1])


def test_a_planted_corrupt_file_gives_one_line_with_its_path(tmp_path: Path) -> None:
    _save(tmp_path / "a" / "good.png", 1)
    whole = (tmp_path / "a" / "good.png").read_bytes()
    for bad in (b"no picture", whole[: len(whole) // 2], b""):
        (tmp_path / "a" / "bad.png").write_bytes(bad)
        with pytest.raises(DataError, match=r"^.*/a/bad.png: not a readable picture \(.*\); repair or remove it$"):
            read_class_folders(tmp_path, None)


def test_an_empty_class_and_an_unknown_test_class_are_named(tmp_path: Path) -> None:
    _save(tmp_path / "a" / "1.png", 1)
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="/b: the class is empty"):
        read_class_folders(tmp_path, None)
    with pytest.raises(DataError, match="class 'b' is not among the training classes: a, c"):
        read_class_folders(tmp_path, None, ("a", "c"))
