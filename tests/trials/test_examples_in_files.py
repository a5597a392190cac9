from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trials import examples_in_files
from trials.data import Preprocess, TablePreprocess, TextPreprocess
from trials.data.preprocess import ArrayPreprocess
from trials.data.table import CategoryColumn, NumberColumn
from trials.errors import DataError
from trials.examples_in_files import Found, examples_in

PICTURES = ArrayPreprocess("image", (1, 2, 2), 255.0, mean=(0.0,), std=(1.0,))


def read(
    paths: list[Path], preprocess: Preprocess, text: str | None = None
) -> tuple[dict[str, list[float]], list[str]]:
    """What was found by name, flat, and the errors."""
    found: dict[str, list[float]] = {}
    errors = []
    for each in examples_in(paths, preprocess, text):
        if isinstance(each, DataError):
            errors.append(str(each))
            continue
        assert isinstance(each, Found)
        found |= {name: row.flatten().tolist() for name, row in zip(each.names, each.inputs, strict=True)}
    return found, errors


def picture(path: Path, value: int, side: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side), value, dtype=np.uint8)).save(path)
    return path


def test_pictures_and_folders_of_them_are_read_and_the_unreadable_cost_only_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples_in_files, "PICTURES_AT_A_TIME", 2)
    one = picture(tmp_path / "one.png", 51)
    deep = picture(tmp_path / "all" / "deep" / "z.png", 102)
    picture(tmp_path / "all" / ".hidden.png", 1)
    broken = tmp_path / "all" / "broken.png"
    broken.write_bytes(deep.read_bytes()[:40])
    large = picture(tmp_path / "all" / "large.png", 255, side=3)
    np.save(tmp_path / "some.npy", np.array([[[0, 0], [0, 0]], [[255, 255], [255, 255]]], dtype=np.uint8))
    (tmp_path / "empty").mkdir()
    absent = tmp_path / "absent.png"
    paths = [one, tmp_path / "all", absent, tmp_path / "some.npy", tmp_path / "empty", one]
    found, errors = read(paths, PICTURES)
    assert {name: values[0] for name, values in found.items()} == {
        str(one): pytest.approx(0.2),
        str(deep): pytest.approx(0.4),
        f"{tmp_path / 'some.npy'}[0]": 0.0,
        f"{tmp_path / 'some.npy'}[1]": 1.0,
    }
    assert errors[0].startswith(f"{broken}: not a readable picture (")
    assert errors[1] == f"{large}: found an array of shape (3, 3), expected (2, 2) or (N, 2, 2)"
    assert errors[2] == f"{absent}: no such file or folder"
    assert errors[3] == f"{tmp_path / 'empty'}: found a folder, expected pictures in it"
    assert len(errors) == 4


def test_a_picture_of_colours_is_read_as_gray_by_a_model_of_gray_ones(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (2, 2), (255, 0, 0)).save(path)
    found, _ = read([path], PICTURES)
    assert found[str(path)] == pytest.approx([76 / 255] * 4)  # 0.299 of 255: ITU-R 601-2


def test_no_picture_is_given_to_a_model_of_other_numbers(tmp_path: Path) -> None:
    numbers = ArrayPreprocess("image", (1, 2, 2), 1.0, mean=(8.0,), std=(2.0,))
    path = picture(tmp_path / "one.png", 51)
    np.save(tmp_path / "one.npy", np.full((2, 2), 12.0))
    found, errors = read([path, tmp_path / "one.npy"], numbers)
    assert found == {f"{tmp_path / 'one.npy'}[0]": [2.0] * 4}
    (error,) = errors
    assert error.startswith(f"{path}: the model was trained on images of other numbers than the 0 to 255 of a picture")


TABLE = TablePreprocess(
    (
        NumberColumn("size", "double", 10.0, 2.0, missing=False),
        CategoryColumn("place", "string", ("field", "town"), missing=False),
    )
)


def test_rows_of_tables_are_read_a_part_at_a_time_with_columns_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples_in_files, "ROWS_AT_A_TIME", 2)
    rows = pd.DataFrame({"place": ["town", "field", "moon"], "price": [1, 2, 3], "size": [12.0, 10.0, 8.0]})
    rows.to_csv(tmp_path / "a.csv", index=False)
    rows.to_parquet(tmp_path / "b.parquet")
    found, errors = read([tmp_path / "a.csv", tmp_path / "b.parquet"], TABLE)
    expected = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]
    assert found == {
        f"{tmp_path / file}[{row}]": values for file in ("a.csv", "b.parquet") for row, values in enumerate(expected)
    }
    assert errors == []


def test_what_is_wrong_with_a_table_is_said_in_a_line_and_the_next_is_read(tmp_path: Path) -> None:
    (tmp_path / "lacks.csv").write_text("size\n12\n")
    (tmp_path / "words.csv").write_text("size,place\nbig,town\n")
    (tmp_path / "no_rows.csv").write_text("size,place\n")
    (tmp_path / "fine.csv").write_text("size,place\n12,town\n")
    (tmp_path / "notes.txt").write_text("size")
    names = ["lacks.csv", "words.csv", "no_rows.csv", "notes.txt", "fine.csv"]
    found, errors = read([tmp_path / name for name in names], TABLE)
    assert list(found) == [f"{tmp_path / 'fine.csv'}[0]"]
    assert errors[0] == f"{tmp_path / 'lacks.csv'}: column 'place' is missing; expected the columns size, place"
    assert errors[1].startswith(f"{tmp_path / 'words.csv'}: column 'size': ")
    assert errors[2] == f"{tmp_path / 'no_rows.csv'}: found no examples"
    assert errors[3] == f"{tmp_path / 'notes.txt'}: cannot be read as table, expected .csv or .parquet"


def test_texts_are_lines_or_a_column(tmp_path: Path) -> None:
    preprocess = TextPreprocess(3, ("good", "film", "1"))
    (tmp_path / "a.txt").write_text("good film\n\nbad\n")
    (tmp_path / "b.csv").write_text("review,stars\n1,5\ngood,4\n")
    (tmp_path / "c.csv").write_text("words\ngood\n")
    paths = [tmp_path / "a.txt", tmp_path / "b.csv", tmp_path / "c.csv"]
    found, errors = read(paths, preprocess, text="review")
    assert list(found.values()) == [[2, 3, 0], [1, 0, 0], [1, 0, 0], [4, 0, 0], [2, 0, 0]]
    assert list(found)[:3] == [f"{tmp_path / 'a.txt'}[{line}]" for line in range(3)]
    assert errors == [f"{tmp_path / 'c.csv'}: column 'review' is missing, which holds the texts; found words"]


def test_an_array_that_is_none_costs_nothing_else(tmp_path: Path) -> None:
    numbers = ArrayPreprocess("features", (2,), 1.0, mean=(0.0,), std=(1.0,))
    (tmp_path / "empty.npy").touch()
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, a=np.zeros((2, 2)))
    (tmp_path / "half_an_archive.npy").write_bytes((tmp_path / "archive.npy").read_bytes()[:60])
    np.save(tmp_path / "single.npy", np.array(1.0))
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "good.npy", np.array([[1.0, 2.0]]))
    (tmp_path / "bad_disk.npy").symlink_to("/proc/self/mem")  # an I/O error, whoever reads it
    names = ["empty", "archive", "half_an_archive", "single", "pickled", "bad_disk", "x" * 300, "good"]
    paths = [tmp_path / f"{name}.npy" for name in names]
    found, errors = read(paths, numbers)
    assert found == {f"{tmp_path / 'good.npy'}[0]": [1.0, 2.0]}
    assert [error.partition(": ")[0] for error in errors] == [str(path) for path in paths[:-1]]
    said = [error.partition(": ")[2] for error in errors]
    for line in said[:3]:
        assert line.startswith("cannot be read (")
        assert line.endswith("); expected an array that numpy.save wrote")
    assert said[3] == "found a single number, expected an array of examples"
    assert "Python objects" in said[4]
    assert said[5] == "cannot be read (Input/output error); repair it or leave it out"
    assert said[6] == "cannot be read (File name too long); repair it or leave it out"
