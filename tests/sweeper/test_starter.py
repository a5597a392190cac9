"""What `sweeper init` writes is a study that loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.errors import StudyError
from sweeper.starter import starter
from sweeper.study import Study, load_study
from trials.recipe import Recipe


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str, out: str = "study.yaml") -> Study:
    Path(out).write_text(text)
    return load_study(out)


def source(study: Study) -> str:
    decision = study.space.decide(lambda parameter: parameter.distribution.probes()[0])
    return str(decision.sections["data"]["source"])


def folder_of_images(name: str, classes: int = 2) -> None:
    for index in range(classes):
        (Path(name) / f"class {index}").mkdir(parents=True)


def table(name: str = "houses.csv", header: str = "size,price,town,advice") -> None:
    Path(name).write_text(f"{header}\n50,1000.5,Ulm,buy it\n")


def first(study: Study) -> Recipe:
    decision = study.space.decide(lambda parameter: parameter.distribution.probes()[0])
    return study.space.recipe(decision.sections, seed=0, metric=study.search.metric)


def test_a_study_of_digits() -> None:
    study = load(starter("digits"))
    assert (study.name, source(study), study.max_epochs) == ("my-digits", "digits", 12)
    assert {"train.optimizer[sgd].lr", "train.optimizer[adamw].lr"} <= {p.name for p in study.space.parameters}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("photos", "photos"),
        ("my photos: 'best' #1", "my-photos-best-1"),
        ("2024", "images-2024"),
        ("null", "images-null"),
        ("x" * 80, "x" * 64),
        ("фото", "images"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "folder:"])
def test_a_study_of_a_folder(folder: str, name: str, prefix: str, tmp_path: Path) -> None:
    folder_of_images(folder)
    study = load(starter(prefix + folder))
    assert (study.name, source(study)) == (name, f"folder:{tmp_path / folder}")


@pytest.mark.parametrize("out", ["studies/photos.yaml", "linked/photos.yaml", "../photos.yaml"])
@pytest.mark.parametrize("named", ["data/photos", "~/photos", "/"])
def test_the_folder_is_found_from_where_the_file_stands(
    named: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "studies").mkdir(parents=True)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (here / "linked").symlink_to(tmp_path / "far" / "away")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))
    photos = {"data/photos": here / "data" / "photos", "~/photos": tmp_path / "ada" / "photos"}.get(named, here / "p")
    folder_of_images(str(photos))
    study = load(starter(str(photos) if named == "/" else named, Path(out)), out)
    assert Path(source(study).removeprefix("folder:")).resolve() == photos


def test_every_key_of_a_starter_that_could_puzzle_has_a_comment() -> None:
    folder_of_images("photos")
    table()
    texts = starter("houses.csv", target="town", text="advice")
    for text in (starter("digits"), starter("photos"), starter("houses.csv", target="price", task="regression"), texts):
        for key in ("validation", "test", "build", "optimizer", "schedule", "precision", "ema", "pruner", "best_n"):
            line = next(line for line in text.splitlines() if line.strip().startswith(f"{key}:"))
            assert "  # " in line, line


def test_a_folder_that_is_not_one_of_images_is_refused() -> None:
    folder_of_images("single", classes=1)
    with pytest.raises(StudyError) as caught:
        starter("nowhere")
    assert str(caught.value) == (
        "nowhere: found no such folder, expected `digits`, a folder of images, or a .csv or .parquet file"
    )
    with pytest.raises(StudyError) as caught:
        starter("single")
    assert str(caught.value) == ("single: found 1 subfolders, expected a folder with one subfolder of images per class")


def test_a_study_of_a_table(tmp_path: Path) -> None:
    table()
    study = load(starter("houses.csv", target="price", task="regression"))
    recipe = first(study)
    assert (study.name, recipe.data.source) == ("houses", f"csv:{tmp_path / 'houses.csv'}")
    assert (recipe.data.task, recipe.data.target, recipe.data.text) == ("regression", "price", None)
    assert (recipe.model.build, recipe.metric) == ("mlp", "validation.rmse")
    recipe = first(load(starter("houses.csv", target="town")))
    assert (recipe.data.task, recipe.data.target, recipe.metric) == ("classification", "town", "validation.accuracy")


def test_a_study_of_texts(tmp_path: Path) -> None:
    table()
    recipe = first(load(starter("houses.csv", target="town", text="advice")))
    assert (recipe.data.target, recipe.data.text, recipe.model.build) == ("town", "advice", "text_gru")
    assert [section.name for section in recipe.data.augment] == ["random_deletion"]


def test_a_table_in_a_parquet_file_seen_from_where_the_study_stands(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    (tmp_path / "studies").mkdir()
    write_table(pyarrow.table({"size": [50], "price: $": [1000.5]}), "2024.parquet")
    study = load(starter("2024.parquet", Path("studies/table.yaml"), target="price: $"), "studies/table.yaml")
    recipe = first(study)
    assert (study.name, recipe.data.source) == ("table-2024", f"parquet:{tmp_path / '2024.parquet'}")
    assert recipe.data.target == "price: $"


@pytest.mark.parametrize("column", ["no", "2024", "a: b", "'", "größe", "two words", " x", "null", "1e3"])
def test_columns_of_any_name_are_read_back(column: str) -> None:
    import csv

    with Path("t.csv").open("w", newline="") as file:
        csv.writer(file).writerow(["size", column])
    assert first(load(starter("csv:t.csv", target=column))).data.target == column


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({}, "houses.csv: found no --target, expected the column to predict: size, price, town or advice"),
        (
            {"target": "prize"},
            "houses.csv: found --target 'prize', expected one of its columns: size, price, town or advice; "
            "did you mean 'price'?",
        ),
        (
            {"target": "town", "text": "advise"},
            "houses.csv: found --text 'advise', expected one of its columns: size, price, town or advice; "
            "did you mean 'advice'?",
        ),
        (
            {"target": "town", "text": "town"},
            "houses.csv: found 'town' for --text and --target, expected two columns",
        ),
    ],
)
def test_columns_that_are_not_there(arguments: dict[str, str], line: str) -> None:
    table()
    with pytest.raises(StudyError) as caught:
        starter("houses.csv", **arguments)  # type: ignore[arg-type]
    assert str(caught.value) == line


def test_tables_that_cannot_be_read_and_options_without_one() -> None:
    Path("empty.csv").touch()
    Path("latin.csv").write_bytes(b"gr\xf6\xdfe,b\n")
    Path("bad.parquet").write_text("a,b\n")
    for source, line in (
        ("none.csv", "none.csv: found no such file, expected a table"),
        ("empty.csv", "empty.csv: found an empty file, expected a header and rows"),
    ):
        with pytest.raises(StudyError) as caught:
            starter(source, target="b")
        assert str(caught.value) == line
    for source in ("latin.csv", "bad.parquet"):
        with pytest.raises(
            StudyError, match=rf"^{source}: cannot be read \(.*\), expected a table in UTF-8 with a header$"
        ):
            starter(source, target="b")
    with pytest.raises(StudyError) as caught:
        starter("digits", task="regression")
    assert str(caught.value) == ("digits: found --task regression, expected a table beside it: a .csv or .parquet file")
