"""What `sweeper init` writes is a study that loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.errors import StudyError
from sweeper.starter import starter
from sweeper.study import Study, load_study


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
    for text in (starter("digits"), starter("photos")):
        for key in ("validation", "test", "build", "optimizer", "schedule", "precision", "ema", "pruner", "best_n"):
            line = next(line for line in text.splitlines() if line.strip().startswith(f"{key}:"))
            assert "  # " in line, line


def test_a_folder_that_is_not_one_of_images_is_refused() -> None:
    folder_of_images("single", classes=1)
    with pytest.raises(StudyError) as caught:
        starter("nowhere")
    assert str(caught.value) == "nowhere: found no such folder, expected `digits` or a folder of images"
    with pytest.raises(StudyError) as caught:
        starter("single")
    assert str(caught.value) == ("single: found 1 subfolders, expected a folder with one subfolder of images per class")
