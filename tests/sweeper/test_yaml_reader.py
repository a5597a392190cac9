"""Plain data with positions, by the core schema of YAML 1.2."""

from __future__ import annotations

import math

import pytest

from sweeper.positions import Position
from sweeper.yaml_reader import MOST_VALUES, YamlFault, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-5", 1e-5),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("+7", 7),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("off", "off"),
        ("on", "on"),
        ("y", "y"),
        ("none", "none"),
        ("null", None),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("-.inf", -math.inf),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    read = read_yaml(f"key: {text}\n").data["key"]
    assert read == value
    assert type(read) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(read_yaml("key: .nan").data["key"])


def test_every_key_and_value_has_its_position() -> None:
    document = read_yaml("a:\n  b: [10, {c: 20}]\nd: x\n")
    assert document.data == {"a": {"b": [10, {"c": 20}]}, "d": "x"}
    assert document.keys == {
        ("a",): Position(1, 1),
        ("a", "b"): Position(2, 3),
        ("a", "b", 1, "c"): Position(2, 12),
        ("d",): Position(3, 1),
    }
    assert document.values == {
        (): Position(1, 1),
        ("a",): Position(2, 3),
        ("a", "b"): Position(2, 6),
        ("a", "b", 0): Position(2, 7),
        ("a", "b", 1): Position(2, 11),
        ("a", "b", 1, "c"): Position(2, 15),
        ("d",): Position(3, 4),
    }


def test_a_missing_value_stands_where_its_section_does() -> None:
    document = read_yaml("a:\n  b: 1\n")
    assert document.position(("a", "missing")) == Position(2, 3)
    assert document.position(("missing",)) == Position(1, 1)


def test_anchors_aliases_and_merge_keys() -> None:
    text = "base: &base {x: 1, y: 2}\nsame: *base\nmore: {<<: *base, y: 3, z: 4}\nboth: {<<: [{x: 5}, *base]}\n"
    document = read_yaml(text)
    assert document.faults == ()
    assert document.data["same"] == {"x": 1, "y": 2}
    assert document.data["more"] == {"x": 1, "y": 3, "z": 4}
    assert document.data["both"] == {"x": 5, "y": 2}
    assert document.position(("more", "y")) == Position(3, 22)
    assert document.position(("more", "x")) == Position(1, 17)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", ["f:3:1: a: found the key again (first on line 1), expected it once"]),
        ("s: {1: x}\n", ["f:1:5: s: found '1' as a key, expected text; put it in quotes"]),
        ("? [a, b]\n: 1\n", ["f:1:3: found a list or section as a key, expected text; put it in quotes"]),
        (
            "a: !!python/object:os.system x\n",
            ["f:1:4: a: found the tag '!!python/object:os.system', expected plain text, numbers, lists and sections"],
        ),
        ("a: !!int x\n", ["f:1:4: a: found 'x', expected a value of type int"]),
        ("a: {<<: 3}\n", ["f:1:9: a: found 3 after <<, expected a section to merge"]),
        (
            "a: 1\na: 2\nb: 1\nb: 2\n",
            [
                "f:2:1: a: found the key again (first on line 1), expected it once",
                "f:4:1: b: found the key again (first on line 3), expected it once",
            ],
        ),
    ],
)
def test_faults_that_leave_the_rest_readable(text: str, lines: list[str]) -> None:
    assert [fault.line("f") for fault in read_yaml(text).faults] == lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "f:1:1: found an empty file, expected a study"),
        ("# only a comment\n", "f:1:1: found an empty file, expected a study"),
        ("a: 1\n---\nb: 2\n", "f:2:1: found a second document, expected one a file"),
        ("a:\n\tb: 1\n", "f:2:1: found a tab, expected spaces: YAML allows no tabs for indentation"),
        ("a: 1\nb: \x07\n", "f:2:4: found the control character '\\x07', expected printable text"),
        ("a: &a [*a]\n", "f:1:4: a[0]: found an alias of a section inside itself, expected none"),
        ("a: [" + "[" * 3000 + "]" * 3001, "f:1:1: found values nested deeper than 50, expected a study"),
        ("[" * 60 + "]" * 60, "f:1:52: found values nested deeper than 50, expected a study"),
    ],
)
def test_faults_that_end_the_reading(text: str, line: str) -> None:
    with pytest.raises(YamlFault) as caught:
        read_yaml(text)
    assert caught.value.fault.line("f") == line


@pytest.mark.parametrize(
    ("text", "position"), [("a: [1, 2\nb: 3\n", (2, 2)), ("a: *b\n", (1, 4)), ("a: 1\n b: 2\n", (2, 3))]
)
def test_what_is_not_yaml_is_placed(text: str, position: tuple[int, int]) -> None:
    with pytest.raises(YamlFault) as caught:
        read_yaml(text)
    assert caught.value.fault.position == position
    assert caught.value.fault.message.startswith("found ")


def test_aliases_of_aliases_cannot_fill_the_memory() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 10):
        bomb += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    with pytest.raises(YamlFault, match=f"more than {MOST_VALUES} values"):
        read_yaml(bomb)
