"""Files that were made to harm: real pickle bombs that would leave a mark, and JSON of another shape."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_splits import recipe_of, splits_of

from trials import load_model
from trials.data import Split
from trials.data.preprocess import ArrayPreprocess
from trials.data.sources import load_source
from trials.errors import DataError, ModelError, TrialError
from trials.manifest import Damaged, digest
from trials.model.pretrained import load_pretrained
from trials.package import write_package
from trials.recipe import Recipe
from trials.score import score_weights
from trials.tensor_files import read_state, read_weights


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "ran"


def test_the_bomb_is_one(mark: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.is_dir()


@pytest.mark.parametrize("kind", ["torch", "plain"])
def test_a_bomb_as_state_does_not_go_off(kind: str, tmp_path: Path, mark: Path) -> None:
    """Also where its digest is right."""
    path = bomb_at(tmp_path / "state.pt", kind, mark)
    with pytest.raises(Damaged):
        read_state(path, digest(path.read_bytes()))
    assert not mark.exists()


def bomb_at(path: Path, kind: str, mark: Path) -> Path:
    if kind == "torch":
        torch.save({"weight": torch.ones(1), "bomb": Bomb(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(mark)))
    return path


@pytest.mark.parametrize("kind", ["torch", "plain"])
def test_a_bomb_as_weights_does_not_go_off(kind: str, tmp_path: Path, mark: Path) -> None:
    path = bomb_at(tmp_path / "raw.safetensors", kind, mark)
    with pytest.raises(Damaged):
        read_weights(path, digest(path.read_bytes()))
    with pytest.raises(TrialError, match="cannot be read as weights") as caught:
        score_weights(recipe_of(), path, "selection", "cpu")
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["start.pt", "start.pth", "start.safetensors"])
@pytest.mark.parametrize("kind", ["torch", "plain"])
def test_a_bomb_as_pretrained_weights_does_not_go_off(name: str, kind: str, tmp_path: Path, mark: Path) -> None:
    path = bomb_at(tmp_path / name, kind, mark)
    recipe = recipe_of(model={"build": "linear", "pretrained": {"weights": str(path)}})
    splits = splits_of(Split(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])))
    with pytest.raises(ModelError) as caught:
        load_pretrained(torch.nn.Linear(2, 2), recipe.model, splits.preprocess.spec, 2)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_bomb_in_an_archive_of_arrays_does_not_go_off(tmp_path: Path, mark: Path) -> None:
    bombs = np.array([Bomb(mark)] * 4, dtype=object)
    np.savez(tmp_path / "data.npz", x_train=bombs, y_train=np.arange(4))
    with pytest.raises(DataError) as caught:
        load_source(recipe_of(data={"source": f"npz:{tmp_path / 'data.npz'}"}).data)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package as it should be, of a linear model of two features."""
    from safetensors.torch import save_file

    from trials.model.build import build_model

    splits = splits_of(Split(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])))
    assert isinstance(splits.preprocess, ArrayPreprocess)
    recipe = recipe_of()
    save_file(build_model(recipe.model, splits.preprocess.spec, 2).state_dict(), tmp_path / "raw.safetensors")
    write_package(tmp_path / "package", recipe, tmp_path / "raw.safetensors", splits)
    load_model(tmp_path / "package")
    return tmp_path / "package"


GARBLED: list[Any] = [None, [], 7, "text", {}, {"weights_sha256": 7}]


@pytest.mark.parametrize("content", [*(json.dumps(value) for value in GARBLED), "", "{", "[" * 100_000, "\xff"])
@pytest.mark.parametrize("name", ["package.json", "recipe.json"])
def test_a_package_with_other_json_ends_in_one_line(name: str, content: str, package: Path) -> None:
    (package / name).write_text(content, encoding="latin-1")
    with pytest.raises(TrialError, match=r"package.*; pull it again") as caught:
        load_model(package)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", ["preprocess", "target"])
@pytest.mark.parametrize("value", GARBLED)
def test_a_package_with_a_section_of_another_type_ends_in_one_line(section: str, value: Any, package: Path) -> None:
    description = json.loads((package / "package.json").read_bytes())
    (package / "package.json").write_text(json.dumps({**description, section: value}))
    with pytest.raises(TrialError) as caught:
        load_model(package)
    assert "\n" not in str(caught.value)


def test_a_bomb_as_the_weights_of_a_package_does_not_go_off(package: Path, mark: Path) -> None:
    path = bomb_at(package / "weights.safetensors", "torch", mark)
    description = json.loads((package / "package.json").read_bytes())
    description["weights_sha256"] = digest(path.read_bytes())
    (package / "package.json").write_text(json.dumps(description))
    with pytest.raises(TrialError, match="cannot be read as a package"):
        load_model(package)
    assert not mark.exists()


def test_a_recipe_of_another_shape_is_another_trials(tmp_path: Path) -> None:
    from trials.checkpoint import TrialFolder

    recipe: Recipe = recipe_of()
    for content in ({}, {"train": 7}, {"train": {}, "extensions": 7}):
        folder = TrialFolder(tmp_path)
        folder.recipe.write_text(json.dumps(content))
        with pytest.raises(TrialError, match="another recipe's trial"):
            folder.claim(recipe)
