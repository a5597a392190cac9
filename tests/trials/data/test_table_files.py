from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trials.data import Column, Source, load_source
from trials.errors import DataError
from trials.recipe import Data

PEOPLE = """age,job,member,zip,note,income
25,cook,True,94110,,low
38,baker,False,02139,x,high
,cook,,,,low
47.5,"ba,ker",True,94110,NA,high
"""


def load(path: Path, content: str | bytes, **fields: Any) -> Source:
    file = path / "a.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_source(Data(source=f"csv:{file}", **({"target": "y"} | fields)))


def test_a_csv_becomes_numbers_and_codes_with_gaps(tmp_path: Path) -> None:
    source = load(tmp_path, PEOPLE, target="income", categorical=("zip",))
    assert source.columns == (
        Column("age"),
        Column("job", "string", ("ba,ker", "baker", "cook")),
        Column("member", "boolean", ("False", "True")),
        Column("zip", "double", ("2139", "94110")),
        Column("note", "string", ("x",)),
    )
    nan = np.nan
    expected = [[25, 2, 1, 1, nan], [38, 1, 0, 0, 0], [nan, 2, nan, nan, nan], [47.5, 0, 1, 1, nan]]
    np.testing.assert_array_equal(source.inputs, expected)
    assert source.inputs.dtype == np.float64
    assert source.classes == ("high", "low")
    assert source.targets.tolist() == [1, 0, 1, 0]


def test_columns_are_dropped_and_the_target_may_be_anywhere(tmp_path: Path) -> None:
    source = load(tmp_path, "y,a,b\n1,2,x\n0,4,y\n", drop=("b",))
    assert source.columns == (Column("a", "long"),)
    assert source.inputs.tolist() == [[2], [4]]
    assert source.targets.tolist() == [1, 0]


def test_a_number_is_predicted_as_it_is(tmp_path: Path) -> None:
    source = load(tmp_path, "a,y\n1,2.5\n2,-1e9\n", task="regression")
    assert source.targets.tolist() == [2.5, -1e9]
    assert source.targets.dtype == np.float64
    assert source.classes == ()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [("10 9 10 -1", ("-1", "9", "10")), ("True False", ("False", "True")), ("2.0 1.0", ("1", "2"))],
)
def test_labels_of_every_type_are_classes(tmp_path: Path, labels: str, classes: tuple[str, ...]) -> None:
    source = load(tmp_path, "a,y\n" + "".join(f"1,{label}\n" for label in labels.split()))
    assert source.classes == classes


def test_texts_are_what_was_written(tmp_path: Path) -> None:
    source = load(tmp_path, 'id,t,y\n1,"good, \nvery",1\n2,null,0\n3,12,1\n', text="t")
    assert source.inputs.tolist() == ["good, \nvery", "null", "12"]
    assert source.targets.tolist() == [1, 0, 1]
    assert source.columns is None


def test_parquet_holds_the_same_as_csv(tmp_path: Path) -> None:
    from_csv = load(tmp_path, PEOPLE, target="income", categorical=("zip",))
    frame = pd.read_csv(tmp_path / "a.csv").astype({"job": "category", "age": "float32", "zip": "Int64"})
    frame.to_parquet(tmp_path / "a.parquet")
    source = load_source(Data(source=f"parquet:{tmp_path}/a.parquet", target="income", categorical=("zip",)))
    np.testing.assert_array_equal(source.inputs, from_csv.inputs)
    np.testing.assert_array_equal(source.targets, from_csv.targets)
    assert source.columns == from_csv.columns


def numbered(rows: int, cell: str = "{}", label: str = "{}") -> str:
    return "x,y\n" + "".join(f"{cell.format(row)},{label.format(row)}\n" for row in range(rows))


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        ("", {}, r"a.csv: the file is empty; expected a header and rows"),
        ("x,y\n", {}, r"a.csv: found no rows, expected at least one a class and split"),
        ("x,y,x\n1,2,3\n", {}, r"a.csv: two columns are named 'x'; rename one"),
        ("x,y\n1,2\n1,2,3\n", {}, r"cannot be read \(.*line 3.*\); expected commas between columns"),
        ("x,y\n1,2,3\n1,2,3\n", {}, r"cannot be read \(.*does not match length of data.*\); expected commas"),
        ("x,y\n1,a\n2,\xe9\n".encode("latin-1"), {}, r"a.csv:3: not UTF-8; save the file as UTF-8"),
        ("x;y\n1;a\n", {}, r"data.target: csv:.*a.csv has no column 'y'; it has: x;y"),
        ("x,y\n1,a\n", {"target": None}, r"data.target: missing, expected the column of .* one of: x, y"),
        ("age,y\n1,a\n", {"drop": ("agee",)}, r"data.drop: .* no column 'agee' \(did you mean 'age'\?\); it has: age"),
        ("x,y\n1,a\n", {"categorical": ("y",)}, r"data.categorical: 'y' is what is predicted"),
        ("x,y\n1,a\n", {"drop": ("x",)}, r"no columns are left beside 'y', expected at least one feature"),
        ("x,y\n1,a\n2,b\n3,\n4,NA\n", {}, r"column 'y' \(data.target\): found no value in row 2, .* \(2 such\)"),
        ("x,y\n1,a\n2,\n", {"task": "regression"}, r"found no value in row 1, counted from 0 \(1 such\)"),
        ("x,y\n1,3\n2,<4\n", {"task": "regression"}, r"found '<4' in row 1, .* expected a number; for classes"),
        ("x,y\n1,3\n2,inf\n", {"task": "regression"}, r"target inf in row 1 is not a finite number"),
        ("x,y\n1,a\ninf,b\n", {}, r"column 'x': found inf in row 1 \(1 such\), expected a finite number, or none"),
        ("x,y\n1,a\n?,b\n3,a\n", {}, r"column 'x': found '\?' in row 1, .* among numbers; .*data.categorical"),
        (
            numbered(1001, cell="n{}"),
            {"task": "regression"},
            r"column 'x': found 1001 different names, .* at most 1000",
        ),
        (
            "x,y\n" + "".join(f"0,{row % 30 / 8}\n" for row in range(90)),
            {},
            r"found 30 different numbers in 90 rows, .* set data.task: regression",
        ),
        (numbered(30), {}, r"found 30 different numbers in 30 rows, which look like a quantity"),
        ("x,y\n1,a\n2,a\n", {}, r"found 1 class\(es\), expected at least 2"),
        ("x,y\nhi,a\n ,b\n", {"text": "x"}, r"found an empty text in row 1, expected a text"),
    ],
)
def test_each_fault_is_one_line(tmp_path: Path, content: str | bytes, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, content, **fields)
    assert "\n" not in str(caught.value)


def test_many_names_and_words_among_numbers_are_categories_where_one_says_so(tmp_path: Path) -> None:
    source = load(tmp_path, numbered(1001, cell="n{}"), task="regression", categorical=("x",))
    assert source.columns is not None
    assert len(source.columns[0].categories or ()) == 1001
    source = load(tmp_path, "x,y\n1,a\n?,b\n3,a\n", categorical=("x",))
    assert source.columns == (Column("x", "string", ("1", "3", "?")),)


def test_twenty_numbers_and_whole_numbers_that_recur_may_be_classes(tmp_path: Path) -> None:
    few = load(tmp_path, "x,y\n" + "".join(f"0,{row / 8}\n" for row in range(20)))
    many = load(tmp_path, "x,y\n" + "".join(f"0,{row % 30}\n" for row in range(90)))
    assert (len(few.classes), len(many.classes)) == (20, 30)


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    for prefix in ("csv", "parquet"):
        with pytest.raises(DataError, match=f"^{prefix}:{tmp_path}/none: no such file$"):
            load_source(Data(source=f"{prefix}:{tmp_path}/none", target="y"))
    (tmp_path / "a").write_text("hello")
    with pytest.raises(DataError, match=r"^parquet:.*/a: cannot be read .*; expected a Parquet file$"):
        load_source(Data(source=f"parquet:{tmp_path}/a", target="y"))


def test_dates_and_lists_are_no_features(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    for cells, found in ((pd.to_datetime(["2020-01-01", "2021-01-01"]), "datetime64"), ([[1], [2]], "mixed")):
        pd.DataFrame({"when": cells, "y": ["a", "b"]}).to_parquet(file)
        with pytest.raises(DataError, match=f"column 'when': found values of type {found}, expected numbers or names"):
            load_source(Data(source=f"parquet:{file}", target="y"))


@pytest.mark.parametrize("cells", [["a", None], [3, 4]])
def test_a_column_of_texts_holds_texts(tmp_path: Path, cells: list[Any]) -> None:
    pd.DataFrame({"t": cells, "y": ["a", "b"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"found (int|NoneType|float) .* in row [01], expected a text"):
        load_source(Data(source=f"parquet:{tmp_path}/a.parquet", target="y", text="t"))
