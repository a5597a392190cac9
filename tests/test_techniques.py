"""docs/techniques.md names keys that a study file has and tests that are there, and leaves no kind of section out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper.study_file import StudyFile

ROOT = Path(__file__).parent.parent
ROWS = re.findall(r"^\| (?!technique|---)(.+?) \| (.+?) \| (.+?) \|$", (ROOT / "docs/techniques.md").read_text(), re.M)
SCHEMA = StudyFile.model_json_schema()


def sections(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every section that may stand where ``spec`` says."""
    if "$ref" in spec:
        yield from sections(SCHEMA["$defs"][spec["$ref"].rpartition("/")[2]])
    for option in (*spec.get("oneOf", ()), *spec.get("anyOf", ()), *([spec["items"]] if "items" in spec else ())):
        yield from sections(option)
    if "properties" in spec:
        yield spec


def has_key(path: str) -> bool:
    found = [SCHEMA]
    *parts, last = path.split(".")
    for part in parts:
        found = [
            inner for outer in found if part in outer["properties"] for inner in sections(outer["properties"][part])
        ]
    return any(last in section["properties"] for section in found)


@pytest.mark.parametrize(("technique", "keys", "proof"), ROWS, ids=[row[0] for row in ROWS])
def test_a_technique_has_its_keys_and_its_proof(technique: str, keys: str, proof: str) -> None:
    named = [key for key in re.findall(r"`([^`]+)`", keys) if not key.startswith("sweeper ")]
    assert named
    assert [key for key in named if not has_key(key)] == []
    tests = re.findall(r"`(tests/[^`]+)`", proof)
    assert tests
    assert [path for path in tests if not (ROOT / path).is_file()] == []


def test_the_whole_list_is_there() -> None:
    """F1 to F11, R1 to R12 (mixup and cutmix share a row) and A1 to A4."""
    assert len(ROWS) == 11 + 11 + 4 + 7
    assert not has_key("train.swa.nonsense")
    assert not has_key("nonsense.lr")
