import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from trials.data import Split, Splits, load_splits
from trials.data import splits as module
from trials.data.preprocess import ArrayPreprocess
from trials.data.splits import split_indices
from trials.data.table import CategoryColumn, NumberColumn, TablePreprocess
from trials.errors import DataError
from trials.recipe import Data

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    module._loaded.clear()


def save(folder: Path, counts: dict[int, int], **more: Any) -> str:
    """One feature, the row's number, so that every example is known wherever it went."""
    labels = np.repeat(list(counts), list(counts.values()))
    labels = np.random.default_rng(0).permutation(labels)
    np.savez(folder / "a.npz", x_train=np.arange(len(labels), dtype=np.float32)[:, None], y_train=labels, **more)
    return f"npz:{folder / 'a.npz'}"


def load(source: str, **fields: Any) -> Splits:
    return load_splits(Data(source=source, **fields), CPU)


def rows(split: Split) -> list[int]:
    return [int(row) for row in split.inputs[:, 0]]


def test_every_row_is_in_one_split_with_its_own_label(tmp_path: Path) -> None:
    source = save(tmp_path, {0: 70, 1: 31, 2: 200})
    splits = load(source)
    labels = np.load(tmp_path / "a.npz")["y_train"]
    parts = (splits.train, splits.selection, splits.test)
    assert sorted(row for part in parts for row in rows(part)) == list(range(301))
    for part in parts:
        np.testing.assert_array_equal(part.targets, labels[rows(part)])
        assert part.targets.dtype == torch.int64


def test_each_class_has_its_share_in_each_split(tmp_path: Path) -> None:
    splits = load(save(tmp_path, {0: 70, 1: 31, 2: 200}), validation=0.25, test=0.2)
    # test: 20 % of all; selection: 25 % of the rest; both rounded half up
    assert Counter(splits.test.targets.tolist()) == {0: 14, 1: 6, 2: 40}
    assert Counter(splits.selection.targets.tolist()) == {0: 14, 1: 6, 2: 40}
    assert Counter(splits.train.targets.tolist()) == {0: 42, 1: 19, 2: 120}


def test_the_sources_own_test_part_stays_whole(tmp_path: Path) -> None:
    source = save(tmp_path, {0: 10, 1: 10}, x_test=np.array([[5.0], [6.0], [7.0]], np.float32), y_test=[1, 1, 0])
    splits = load(source)
    assert rows(splits.test) == [5, 6, 7]
    assert splits.test.targets.tolist() == [1, 1, 0]
    assert sorted(rows(splits.train) + rows(splits.selection)) == list(range(20))


def test_train_fraction_takes_nested_stratified_parts_of_training_only(tmp_path: Path) -> None:
    source = save(tmp_path, {0: 100, 1: 50})
    whole, half, tenth = (load(source, train_fraction=fraction) for fraction in (1.0, 0.5, 0.1))
    assert set(rows(tenth.train)) < set(rows(half.train)) < set(rows(whole.train))
    assert Counter(half.train.targets.tolist()) == {0: 36, 1: 18}
    for part in (half, tenth):
        assert rows(part.selection) == rows(whole.selection)
        assert rows(part.test) == rows(whole.test)


def test_the_split_depends_on_its_seed_and_on_nothing_else(tmp_path: Path) -> None:
    source = save(tmp_path, {0: 60, 1: 60})
    first = load(source, seed=3)
    module._loaded.clear()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = load(source, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert rows(again.selection) == rows(first.selection)
    assert again.digest == first.digest
    other = load(source, seed=4)
    assert rows(other.selection) != rows(first.selection)
    assert other.digest != first.digest


def test_the_digest_sees_every_value_and_label(tmp_path: Path) -> None:
    digests = set()
    arrays = {
        "x": np.zeros((12, 2, 2), np.uint8),
        "y": np.arange(12) % 2,
    }
    for change in ("nothing", "value", "label", "class"):
        changed = {name: array.copy() for name, array in arrays.items()}
        if change == "value":
            changed["x"][11, 1, 1] = 1
        if change == "label":
            changed["y"][:2] = changed["y"][1::-1]
        if change == "class":
            changed["classes"] = np.array(["a", "b"])
        np.savez(tmp_path / f"{change}.npz", **changed)
        digests.add(load(f"npz:{tmp_path}/{change}.npz").digest)
    assert len(digests) == 4
    assert all(len(digest) == 64 for digest in digests)


def test_constants_come_from_the_training_split_only(tmp_path: Path) -> None:
    splits = load(save(tmp_path, {0: 30, 1: 30}), validation=0.3)
    values = np.array(rows(splits.train), np.float64)
    assert isinstance(splits.preprocess, ArrayPreprocess)
    np.testing.assert_allclose(splits.preprocess.mean, [values.mean()], rtol=1e-12)
    np.testing.assert_allclose(splits.preprocess.std, [values.std()], rtol=1e-12)


def test_images_are_channels_first_and_resized(tmp_path: Path) -> None:
    pixels = np.arange(20 * 4 * 6 * 3, dtype=np.uint32).reshape(20, 4, 6, 3).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=np.arange(20) % 2, x_test=pixels, y_test=np.arange(20) % 2)
    splits = load(f"npz:{tmp_path}/a.npz")
    assert torch.equal(splits.test.inputs, torch.tensor(pixels.transpose(0, 3, 1, 2)))
    assert splits.test.inputs.is_contiguous()
    small = load(f"npz:{tmp_path}/a.npz", image_size=2)
    assert small.preprocess.spec.shape == (3, 2, 2)
    # what a pulled model is served is what it was tested on
    assert torch.equal(small.preprocess(pixels), small.preprocess.normalise(small.test.inputs))


def test_only_the_latest_is_kept_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    source = save(tmp_path, {0: 10, 1: 10})
    first = load(source)
    assert load(source, mix="mixup") is first  # how examples are varied is no matter of loading
    assert load(source, seed=1) is not first
    assert len(module._loaded) == 1
    second = load(source)
    assert second is not first
    os.utime(tmp_path / "a.npz", ns=(1, 1))
    assert load(source) is not second


def test_a_new_picture_in_a_folder_is_seen(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(np.full((2, 2), number, np.uint8)).save(tmp_path / name / f"{number}.png")
    source = f"folder:{tmp_path}"
    first = load(source)
    assert load(source) is first
    Image.fromarray(np.full((2, 2), 9, np.uint8)).save(tmp_path / "bee" / "9.png")
    os.utime(tmp_path / "bee", ns=(1, 1))
    again = load(source)
    assert sum(map(len, (again.train, again.selection, again.test))) == 7


def save_numbers(folder: Path, rows: int, **more: Any) -> str:
    """One feature, the row's number, and ten times that to predict."""
    numbers = np.arange(rows, dtype=np.float32)
    np.savez(folder / "n.npz", x_train=numbers[:, None], y_train=10.0 * numbers, **more)
    return f"npz:{folder / 'n.npz'}"


def test_numbers_are_split_as_one_shuffled_whole(tmp_path: Path) -> None:
    source = save_numbers(tmp_path, 203)
    splits = load(source, task="regression", validation=0.25, test=0.2, seed=5, train_fraction=0.5)
    order = torch.randperm(203, generator=torch.Generator().manual_seed(5)).tolist()
    # 20 % of 203 is 40.6; 25 % of the 162 left is 40.5; half of the 121 left is 60.5: all rounded half up
    assert rows(splits.test) == sorted(order[:41])
    assert rows(splits.selection) == sorted(order[41:82])
    assert rows(splits.train) == sorted(order[82:143])
    whole = load(source, task="regression", validation=0.25, test=0.2, seed=5)
    assert rows(whole.train) == sorted(order[82:])
    assert rows(whole.selection) == rows(splits.selection)


def test_numbers_are_standardised_by_the_training_split_alone(tmp_path: Path) -> None:
    splits = load(save_numbers(tmp_path, 100), task="regression")
    trained = 10.0 * np.array(rows(splits.train), np.float64)
    assert (splits.target.mean, splits.target.std) == (pytest.approx(trained.mean()), pytest.approx(trained.std()))
    for part in (splits.train, splits.selection, splits.test):
        wanted = (10.0 * np.array(rows(part)) - trained.mean()) / trained.std()
        assert part.targets.dtype == torch.float32
        np.testing.assert_allclose(part.targets, wanted, rtol=1e-6)


def test_numbers_of_the_sources_own_test_part_are_standardised_likewise(tmp_path: Path) -> None:
    more = {"x_test": np.array([[0.0], [1.0]], np.float32), "y_test": [0.0, 10.0]}
    splits = load(save_numbers(tmp_path, 50, **more), task="regression")
    assert sorted(rows(splits.train) + rows(splits.selection)) == list(range(50))
    np.testing.assert_allclose(
        splits.test.targets * splits.target.std + splits.target.mean, [0, 10], rtol=1e-6, atol=1e-5
    )


def test_two_numbers_are_too_few_for_three_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the source has 2 example\(s\), expected at least 3: one in each of training"):
        load(save_numbers(tmp_path, 2), task="regression")
    assert [len(part) for part in _parts(load(save_numbers(tmp_path, 4), task="regression"))] == [2, 1, 1]
    with pytest.raises(DataError, match=r"all 1 training targets are .*; there is nothing to learn"):
        load(save_numbers(tmp_path, 3), task="regression")


def _parts(splits: Splits) -> tuple[Split, Split, Split]:
    return splits.train, splits.selection, splits.test


def save_table(folder: Path, count: int = 60) -> Path:
    """A CSV whose column `row` is the row's number; every seventh pay is missing, and a city occurs but once."""
    file = folder / "t.csv"
    lines = [
        f"{row},{'' if row % 7 == 0 else row / 8},{'Rome' if row % 2 else 'Oslo'},{row % 3}\n" for row in range(count)
    ]
    file.write_text("row,pay,city,y\n" + "".join(lines) + "99,1.0,Bern,0\n")
    return file


def test_a_tables_frame_gives_exactly_the_training_tensors(tmp_path: Path) -> None:
    file = save_table(tmp_path)
    splits = load(f"csv:{file}", target="y")
    frame = pd.read_csv(file)
    seen = 0
    for part in _parts(splits):
        found = rows(part)
        place = [60 if row == 99 else row for row in found]
        shuffled = frame.iloc[place][["y", "city", "row", "pay"]]
        assert torch.equal(splits.preprocess(shuffled), splits.preprocess.normalise(part.inputs))
        assert part.targets.tolist() == frame["y"].iloc[place].tolist()
        seen += len(found)
    assert seen == 61


def test_what_a_table_is_measured_by_is_the_training_split_alone(tmp_path: Path) -> None:
    splits = load(f"csv:{save_table(tmp_path)}", target="y", validation=0.4)
    preprocess = splits.preprocess
    assert isinstance(preprocess, TablePreprocess)
    trained = np.array(rows(splits.train), np.float64)
    field = preprocess.fields[0]
    assert isinstance(field, NumberColumn)
    assert (field.mean, field.std) == (pytest.approx(trained.mean()), pytest.approx(trained.std()))
    pay = splits.train.inputs[:, 1].numpy()
    np.testing.assert_array_equal(np.isnan(pay), trained % 7 == 0)
    city = preprocess.fields[2]
    assert isinstance(city, CategoryColumn)
    assert city.categories == (("Bern", "Oslo", "Rome") if 99 in trained else ("Oslo", "Rome"))


def test_texts_are_word_ids_and_the_training_ones_are_kept(tmp_path: Path) -> None:
    words = [f"word{row} is {'good' if row % 2 else 'bad'}" for row in range(40)]
    file = tmp_path / "t.csv"
    file.write_text("t,y\n" + "".join(f"{text},{row % 2}\n" for row, text in enumerate(words)))
    splits = load(f"csv:{file}", target="y", text="t", max_tokens=5)
    assert splits.preprocess.spec.kind == "text"
    assert splits.texts is not None
    assert set(splits.texts) < set(words)
    assert torch.equal(splits.preprocess(list(splits.texts)), splits.preprocess.normalise(splits.train.inputs))
    assert [int("good" in text) for text in splits.texts] == splits.train.targets.tolist()
    assert sum(len(part) for part in _parts(splits)) == 40
    with pytest.raises(DataError, match=r"data.mix: mixup cannot blend words"):
        load(f"csv:{file}", target="y", text="t", max_tokens=5, mix="mixup")


def test_what_decides_the_tensors_loads_them_again(tmp_path: Path) -> None:
    file = save_table(tmp_path)
    fields: dict[str, Any] = {"target": "y"}
    first = load(f"csv:{file}", **fields)
    assert load(f"csv:{file}", **fields, mix="mixup", mix_alpha=0.3) is first
    for change in (
        {"task": "regression"},
        {"target": "row", "task": "regression"},
        {"drop": ("city",)},
        {"categorical": ("row",)},
        {"resident": "host"},
    ):
        first = load(f"csv:{file}", **fields)
        assert load(f"csv:{file}", **(fields | change)) is not first
    before = load(f"csv:{file}", **fields)
    os.utime(file, ns=(1, 1))
    assert load(f"csv:{file}", **fields) is not before


def test_the_digest_sees_the_names_of_columns_and_categories_and_every_text(tmp_path: Path) -> None:
    def digest(content: str, **fields: Any) -> str:
        (tmp_path / "d.csv").write_text(content)
        module._loaded.clear()
        return load(f"csv:{tmp_path}/d.csv", target="y", **fields).digest

    table = "a,b,y\n" + "1,x,0\n2,z,1\n" * 4
    contents = [table, table.replace("a,", "c,", 1), table.replace("z", "w"), table.replace("2,", "3,", 1)]
    assert len({digest(content) for content in contents}) == 4
    assert digest(table) == digest(table)
    assert digest(table, text="b") != digest(table.replace("z", "w", 1), text="b")


def test_a_part_of_each_class_of_the_selection_split_is_set_aside_and_nothing_else_changes(tmp_path: Path) -> None:
    source = save(tmp_path, {0: 70, 1: 31, 2: 200})
    whole, parted = load(source, validation=0.25), load(source, validation=0.25, confirm=0.4)
    assert whole.confirm is None
    assert parted.confirm is not None
    # of 14, 6 and 40 selected, 40 % are 5.6, 2.4 and 16, rounded half up
    assert Counter(parted.confirm.targets.tolist()) == {0: 6, 1: 2, 2: 16}
    assert sorted(rows(parted.selection) + rows(parted.confirm)) == rows(whole.selection)
    labels = np.load(tmp_path / "a.npz")["y_train"]
    np.testing.assert_array_equal(parted.confirm.targets, labels[rows(parted.confirm)])
    assert (rows(parted.train), rows(parted.test)) == (rows(whole.train), rows(whole.test))
    assert parted.preprocess == whole.preprocess
    assert len({whole.digest, parted.digest, load(source, validation=0.25, confirm=0.5).digest}) == 3


def test_numbers_tables_and_texts_are_set_aside_too(tmp_path: Path) -> None:
    file = save_table(tmp_path)
    for fields in ({"target": "y", "task": "regression"}, {"target": "y"}, {"target": "y", "text": "city"}):
        whole = load(f"csv:{file}", validation=0.4, **fields)
        parted = load(f"csv:{file}", validation=0.4, confirm=0.25, **fields)
        assert parted.confirm is not None
        classes = Counter([0] * len(whole.selection) if "task" in fields else whole.selection.targets.tolist())
        assert len(parted.confirm) == sum(int(count / 4 + 0.5) for count in classes.values())
        joined = torch.cat([parted.selection.inputs, parted.confirm.inputs]).double().nan_to_num(-1.0)
        expected = whole.selection.inputs.double().nan_to_num(-1.0)
        assert sorted(joined.tolist()) == sorted(expected.tolist())
        targets = torch.cat([parted.selection.targets, parted.confirm.targets])
        assert sorted(targets.tolist()) == sorted(whole.selection.targets.tolist())


def test_with_nothing_set_aside_the_digest_is_as_it_was_before_anything_could_be(tmp_path: Path) -> None:
    """By the digest's own definition, of the source and three splits, from before there was a fourth."""
    splits = load(save(tmp_path, {0: 12, 1: 8}))
    arrays = np.load(tmp_path / "a.npz")
    inputs, labels = arrays["x_train"], arrays["y_train"].astype(np.int64)
    parts = [np.array(rows(part)) for part in (splits.train, splits.selection, splits.test)]
    header = [["float32", [20, 1]], ["int64", [20]], None, None, *(["int64", [len(part)]] for part in parts)]
    digest = hashlib.sha256(json.dumps([header, ["0", "1"], None]).encode())
    for array in (inputs, labels, *parts):
        digest.update(array.data)
    assert splits.digest == digest.hexdigest()


def test_a_class_with_one_selected_example_keeps_it(tmp_path: Path) -> None:
    source = save(tmp_path, {0: 100, 1: 5})
    splits = load(source, validation=0.1, confirm=0.9)
    assert splits.confirm is not None
    assert Counter(splits.selection.targets.tolist()) == {0: 1, 1: 1}
    assert Counter(splits.confirm.targets.tolist()) == {0: 7}
    # of two, one is set aside however small the share
    least = load(source, validation=0.5, confirm=0.01)
    assert least.confirm is not None
    assert Counter(least.confirm.targets.tolist()) == {0: 1, 1: 1}


def test_where_nothing_can_be_set_aside_it_is_said(tmp_path: Path) -> None:
    advice = "expected at least 2; raise data.validation or add examples"
    with pytest.raises(DataError, match=rf"confirm has nothing to .*: the selection split has 1 example, {advice}"):
        load(save_numbers(tmp_path, 9), task="regression", confirm=0.5)
    with pytest.raises(DataError, match=rf"the selection split has 1 example of each class, {advice}"):
        load(save(tmp_path, {0: 10, 1: 10}), confirm=0.5)


@pytest.mark.parametrize(("own_test", "enough"), [(False, 3), (True, 2)])
def test_a_class_needs_one_example_in_each_split(own_test: bool, enough: int) -> None:
    data = Data(source="s", validation=0.9, test=0.9, train_fraction=0.01)
    targets = torch.tensor([0] * 10 + [1] * enough)
    indices = split_indices(targets, data, ("many", "few"), own_test)
    held = [indices.train, indices.selection] + ([] if indices.test is None else [indices.test])
    assert all(set(targets[part].tolist()) == {0, 1} for part in held)
    with pytest.raises(DataError, match=rf"s: class 'few' has {enough - 1} example\(s\), expected at least {enough}"):
        split_indices(targets[:-1], data, ("many", "few"), own_test)


def test_a_class_that_nobody_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"class '1' has 0 example\(s\)"):
        load(save(tmp_path, {0: 10, 2: 10}))


def test_cutmix_is_refused_for_features(tmp_path: Path) -> None:
    source = save(tmp_path, {0: 10, 1: 10})
    with pytest.raises(DataError, match=r"data.mix: cutmix needs images, but npz:.* has features; leave it out"):
        load(source, mix="cutmix")
    assert load(source, mix="mixup").preprocess.spec.kind == "features"


def test_data_goes_to_the_gpu_only_below_two_fifths_of_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(torch.zeros(100, 8), torch.zeros(100, dtype=torch.int64))  # 3200 + 800 bytes
    for free, fits in ((10_001, True), (10_000, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device, free=free: (free, 80_000))
        assert module._fits(torch.device("cuda"), (split,), "auto") is fits
        assert module._fits(torch.device("cuda"), (split,), "device")
        assert not module._fits(torch.device("cuda"), (split,), "host")
    assert module._fits(CPU, (split,), "host")
