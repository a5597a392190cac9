"""Files that a study names are found from the folder of the study file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.paths import with_absolute_paths
from sweeper.space import Choice, Space

HERE = Path("/studies/deep")


def absolute(sections: dict[str, Any]) -> dict[str, Any]:
    return with_absolute_paths(Space(sections), HERE).sections


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("digits", "digits"),
        ("npz:a.npz", "npz:/studies/deep/a.npz"),
        ("folder:../b", "folder:/studies/b"),
        ("csv:c.csv", "csv:/studies/deep/c.csv"),
        ("parquet:./d", "parquet:/studies/deep/d"),
        ("npz:~/c.npz", "npz:/home/someone/c.npz"),
        ("npz:/d.npz", "npz:/d.npz"),
        ("a.b:c", "a.b:c"),
    ],
)
def test_sources(written: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert absolute({"data": {"source": written}}) == {"data": {"source": read}}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("DEFAULT", "DEFAULT"),
        ("IMAGENET1K_V1", "IMAGENET1K_V1"),
        ("models:/digits@best", "models:/digits@best"),
        ("models:/digits/3", "models:/digits/3"),
        ("a.safetensors", "/studies/deep/a.safetensors"),
        ("../a.pt", "/studies/a.pt"),
        ("a.pth", "/studies/deep/a.pth"),
        ("./winner", "/studies/deep/winner"),
    ],
)
def test_weights(written: str, read: str) -> None:
    assert absolute({"model": {"pretrained": {"weights": written}}}) == {"model": {"pretrained": {"weights": read}}}


def test_tables_of_synonyms_in_every_branch_of_a_choice() -> None:
    swap, replace = {"name": "random_swap"}, {"name": "synonym_replacement", "table": "words.txt"}
    tree = {"data": {"augment": ["random_swap", Choice((swap, replace), ("a", "b"))], "table": "not a path"}}
    changed = Choice((swap, {**replace, "table": "/studies/deep/words.txt"}), ("a", "b"))
    assert absolute(tree) == {"data": {"augment": ["random_swap", changed], "table": "not a path"}}


def test_labels_stay_as_they_are_written() -> None:
    choice = Choice(("a.pt", "models:/b@best"), ("a.pt", "models:/b@best"))
    found = absolute({"model": {"pretrained": {"weights": choice}}})["model"]["pretrained"]["weights"]
    assert found == Choice(("/studies/deep/a.pt", "models:/b@best"), ("a.pt", "models:/b@best"))
