from __future__ import annotations

import itertools
import json
import math
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from small_packages import CLASSES, EYE, linear_package
from small_splits import numbers_target

from sweeper.cli import main
from sweeper.predict import predict
from sweeper.settings import load_settings
from trials.data import TablePreprocess
from trials.data.preprocess import ArrayPreprocess
from trials.data.table import NumberColumn

FIELDS = (NumberColumn("a", "double", 0.0, 1.0, missing=False), NumberColumn("b", "double", 0.0, 1.0, missing=False))
LN3 = float(np.log(3.0))


@pytest.fixture
def asked(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model of two numbers, whose scores they are, and a table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sweeper.predict.PATIENCE_SECONDS", math.inf)  # on a machine of any speed
    linear_package(tmp_path / "model", TablePreprocess(FIELDS), CLASSES, EYE, (0.0, 0.0))
    Path("rows.csv").write_text(f"a,b\n{LN3!r},0\n0,{LN3!r}\n1,1\n")
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, output, errors of `sweeper predict`."""
    done = CliRunner().invoke(main, ["predict", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_csv_to_the_letter(asked: Path) -> None:
    assert run("model", "rows.csv") == (
        0,
        "example,class,probability\nrows.csv[0],no,0.75\nrows.csv[1],yes,0.75\nrows.csv[2],no,0.5\n",
        "",
    )
    assert run("model", "rows.csv", "--all")[1] == (
        "example,class,probability,probability of no,probability of yes\n"
        "rows.csv[0],no,0.75,0.75,0.25\nrows.csv[1],yes,0.75,0.25,0.75\nrows.csv[2],no,0.5,0.5,0.5\n"
    )


def test_json_is_a_list_of_objects(asked: Path) -> None:
    code, out, err = run("model", "rows.csv", "--as", "json", "--all", "-o", "found.json")
    assert (code, out, err) == (0, "", "")
    found = json.loads(Path("found.json").read_text())
    assert len(found) == 3
    assert found[1] == {
        "example": "rows.csv[1]",
        "class": "yes",
        "probability": 0.75,
        "probabilities": {"no": 0.25, "yes": 0.75},
    }
    assert json.loads(run("model", "rows.csv", "--as", "json")[1])[0] == {
        "example": "rows.csv[0]",
        "class": "no",
        "probability": 0.75,
    }


def test_a_number_is_given_in_units_of_the_target(asked: Path) -> None:
    target = numbers_target(mean=100.0, std=10.0)
    linear_package(asked / "prices", TablePreprocess(FIELDS), target, ((1.0, 2.0),), (0.5,))
    Path("rows.csv").write_text("a,b\n1,2\n0,-0.25\n")
    assert run("prices", "rows.csv")[1] == "example,value\nrows.csv[0],155.0\nrows.csv[1],100.0\n"


def test_json_knows_no_nan(asked: Path) -> None:
    linear_package(asked / "endless", TablePreprocess(FIELDS), CLASSES, ((float("inf"), 0.0), (0.0, 1.0)), (0.0, 0.0))
    code, out, _ = run("endless", "rows.csv", "--as", "json", "--all")
    assert code == 0
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (found[0]["probability"], found[0]["probabilities"]) == (None, {"no": None, "yes": None})


def test_what_cannot_be_read_costs_nothing_else(asked: Path) -> None:
    linear_package(
        asked / "pictures", ArrayPreprocess("image", (1, 1, 2), 255.0, (0.0,), (1.0,)), CLASSES, EYE, (0.0, 0.0)
    )
    Image.fromarray(np.array([[255, 0]], dtype=np.uint8)).save("good.png")
    Path("bad.png").write_bytes(b"none")
    Image.fromarray(np.array([[0, 0, 0]], dtype=np.uint8)).save("wide.png")
    code, out, err = run("pictures", "bad.png", "good.png", "wide.png", "absent.png", "-o", "found.csv")
    assert (code, out) == (1, "")
    assert Path("found.csv").read_text() == "example,class,probability\ngood.png,no,0.731059\n"  # e / (1 + e)
    lines = err.splitlines()
    assert [line.split(": ")[1] for line in lines[:3]] == ["bad.png", "wide.png", "absent.png"]
    assert lines[3:] == ["error: 3 could not be read, 1 examples were"]


def test_how_far_it_is_is_told_when_it_takes_long(
    asked: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.predict.PATIENCE_SECONDS", 2.0)
    ticks = itertools.count()  # it is looked at once before, and after each batch
    code = predict("model", [Path("rows.csv")] * 5, load_settings(None), clock=lambda: next(ticks))
    assert code == 0
    assert capsys.readouterr().err.splitlines() == ["6 examples in 2 s", "12 examples in 4 s"]


def test_a_file_is_there_only_when_it_is_whole(asked: Path) -> None:
    Path("found.csv").write_text("older")
    (asked / "model" / "weights.safetensors").write_bytes(b"none")
    code, _, err = run("model", "rows.csv", "-o", "found.csv")
    assert (code, Path("found.csv").read_text()) == (1, "older")
    assert "not the file that package.json describes" in err
    assert {path.name for path in asked.iterdir() if "found" in path.name} == {"found.csv"}


def test_what_is_no_file_is_written_to_and_never_replaced(asked: Path) -> None:
    os.mkfifo("pipe")
    heard: list[str] = []
    listener = threading.Thread(target=lambda: heard.append(Path("pipe").read_text()))
    listener.start()
    assert run("model", "rows.csv", "-o", "pipe") == (0, "", "")
    listener.join()
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)
    Path("found.csv").symlink_to("kept.csv")
    assert run("model", "rows.csv", "-o", "found.csv") == (0, "", "")
    assert Path("found.csv").is_symlink()
    assert heard == [Path("kept.csv").read_text()]
    assert heard[0].startswith("example,class,probability\nrows.csv[0],no,0.75\n")
    full = Path("/dev/full")
    code, _, err = run("model", "rows.csv", "-o", str(full))
    assert code == 1
    assert "No space left" in err
    assert stat.S_ISCHR(full.stat().st_mode)


def test_what_is_wrong_with_an_input_is_said(asked: Path) -> None:
    linear_package(
        asked / "pictures", ArrayPreprocess("image", (1, 1, 2), 255.0, (0.0,), (1.0,)), CLASSES, EYE, (0.0, 0.0)
    )
    arrays = np.zeros((3, 1, 2), dtype=np.float32)
    np.save("good.npy", arrays)
    arrays[1, 0, 1] = np.nan
    np.save("holed.npy", arrays)
    Path("words.csv").write_text("a,b\n1,2\n3,big\n")
    code, out, err = run("pictures", "holed.npy", "rows.csv", "good.npy")
    assert (code, len(out.splitlines())) == (1, 1 + 3)
    assert err.splitlines()[:2] == [
        "error: holed.npy: found values that are no finite numbers; repair them or leave those examples out",
        "error: rows.csv: cannot be read as an image, expected a picture or an array in a .npy file",
    ]
    code, _, err = run("model", "words.csv")
    assert code == 1
    assert "column 'b': found 'big' in row 1, counted from 0, expected numbers" in err


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("absent", "error: absent: no such folder; expected one that `sweeper pull` made, or models:/NAME@best\n"),
        ("empty", "error: empty: no weights.safetensors found, expected a folder written by `sweeper pull`\n"),
        (
            "garbled",
            "error: garbled: cannot be read as a package (JSONDecodeError: Expecting property name enclosed in double "
            "quotes: line 1 column 2 (char 1)); pull it again\n",
        ),
        (
            "list",
            "error: list: cannot be read as a package (TypeError: list indices must be integers or slices, not str); "
            "pull it again\n",
        ),
        ("graph", "error: graph: holds the model as onnx, for other programs; to predict, pull it as safetensors\n"),
    ],
)
def test_what_is_no_model_is_said_in_a_line(asked: Path, model: str, said: str) -> None:
    Path("empty").mkdir()
    Path("graph").mkdir()
    Path("graph/package.json").write_text('{"graph": {"form": "onnx"}}')
    for name, content in (("garbled", "{"), ("list", '["graph"]')):
        Path(name).mkdir()
        Path(name, "package.json").write_text(content)
    code, out, err = run(model, "rows.csv")
    assert code in (1, 2)
    assert (out, err) == ("", said)
