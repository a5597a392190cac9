"""How ranges are written, and the line that each mistake gives."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.positions import near
from sweeper.ranges import RANGES, RangeReader
from sweeper.schema import study_schema
from sweeper.space import Choice, Int, Log, Uniform
from sweeper.yaml_reader import read_yaml


def read(text: str) -> tuple[Any, list[str]]:
    document = read_yaml(text)
    reader = RangeReader(document)
    tree = reader.tree(document.data, ())
    return tree, [fault.line("f") for fault in reader.faults]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("{uniform: [0, 1]}", Uniform(0.0, 1.0)),
        ("{log: [1e-4, 0.1]}", Log(1e-4, 0.1)),
        ("{int: [1, 5]}", Int(1, 5)),
        ("{int: [1, 5], step: 2}", Int(1, 5, step=2)),
        ("{int: [1, 500], log: true}", Int(1, 500, log=True)),
        ("{int: [1, 500], step: 1, log: true}", Int(1, 500, log=True)),
        ("{choice: [16, 32]}", Choice((16, 32), (16, 32))),
        ("{choice: [0.0, {log: [1, 2]}]}", Choice((0.0, Log(1.0, 2.0)), (0.0, '{"log":[1,2]}'))),
        ("[1, {int: [1, 2]}]", [1, Int(1, 2)]),
        ("{a: {b: {uniform: [0, 1]}}}", {"a": {"b": Uniform(0.0, 1.0)}}),
    ],
)
def test_ranges_are_read(text: str, tree: Any) -> None:
    assert read(f"x: {text}") == ({"x": tree}, [])


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("{uniform: [1, 0]}", ["f:1:14: x.uniform: found [1, 0], expected low < high"]),
        ("{uniform: [1, 1]}", ["f:1:14: x.uniform: found [1, 1], expected low < high"]),
        ("{uniform: [1]}", ["f:1:14: x.uniform: found [1], expected [low, high]"]),
        ("{uniform: [1, 2, 3]}", ["f:1:14: x.uniform: found [1, 2, 3], expected [low, high]"]),
        ("{uniform: 3}", ["f:1:14: x.uniform: found 3, expected [low, high]"]),
        (
            "{uniform: [a, .inf]}",
            [
                "f:1:15: x.uniform[0]: found 'a', expected a number",
                "f:1:18: x.uniform[1]: found Infinity, expected a number",
            ],
        ),
        ("{uniform: [false, 1]}", ["f:1:15: x.uniform[0]: found false, expected a number"]),
        ("{log: [0, 1]}", ["f:1:11: x.log[0]: found 0, expected a low end > 0 for a log range"]),
        ("{log: [-1, 1]}", ["f:1:11: x.log[0]: found -1, expected a low end > 0 for a log range"]),
        ("{int: [1.5, 3]}", ["f:1:11: x.int[0]: found 1.5, expected a whole number"]),
        (
            "{int: [1, 99999999999999999999]}",
            ["f:1:14: x.int[1]: found 99999999999999999999, expected a whole number"],
        ),
        ("{int: [1, 6], step: 2}", ["f:1:24: x.step: found 2, expected a step that divides high - low = 5"]),
        ("{int: [1, 6], step: 0}", ["f:1:24: x.step: found 0, expected a whole number >= 1"]),
        ("{int: [1, 6], step: 0.5}", ["f:1:24: x.step: found 0.5, expected a whole number >= 1"]),
        ("{int: [1, 6], log: 3}", ["f:1:23: x.log: found 3, expected true or false"]),
        (
            "{int: [1, 5], step: 2, log: true}",
            ["f:1:24: x.step: found 2 beside log: true, expected only one of the two"],
        ),
        ("{int: [0, 5], log: true}", ["f:1:11: x.int[0]: found 0, expected a low end > 0 for a log range"]),
        ("{choice: []}", ["f:1:13: x.choice: found [], expected a list of options"]),
        ("{choice: 3}", ["f:1:13: x.choice: found 3, expected a list of options"]),
        ("{choice: [a, b, a]}", ["f:1:20: x.choice[2]: found 'a' again (as option 0), expected it once"]),
        ("{choice: [1, 1.0]}", ["f:1:17: x.choice[1]: found 1.0 again (as option 0), expected it once"]),
        (
            "{choice: [{a: 1, b: 2}, {b: 2, a: 1}]}",
            ["f:1:28: x.choice[1]: found {b: 2, a: 1} again (as option 0), expected it once"],
        ),
        (
            "{int: [1, 5], stepp: 2}",
            ["f:1:18: x.stepp: found unknown key 'stepp', expected int, step or log; did you mean 'step'?"],
        ),
        ("{uniform: [0, 1], step: 2}", ["f:1:22: x.step: found unknown key 'step', expected uniform"]),
        ("{choice: [1], uniform: [0, 1]}", ["f:1:18: x.uniform: found unknown key 'uniform', expected choice"]),
        (
            "{unifrom: [0, 1]}",
            [
                "f:1:5: x.unifrom: found unknown key 'unifrom', expected choice, int, uniform or log; "
                "did you mean 'uniform'?"
            ],
        ),
        (
            "{choice: [{lr: {log: [0, 1]}}]}",
            ["f:1:26: x.choice[0].lr.log[0]: found 0, expected a low end > 0 for a log range"],
        ),
    ],
)
def test_each_mistake_gives_one_line(text: str, lines: list[str]) -> None:
    assert read(f"x: {text}")[1] == lines


def test_a_function_may_have_arguments_called_like_a_range() -> None:
    text = "arguments: {log: true, choice: 3}"
    assert read(text) == ({"arguments": {"log": True, "choice": 3}}, [])
    assert read("arguments: {widths: {choice: [1, 2]}}")[0] == {"arguments": {"widths": Choice((1, 2), (1, 2))}}
    assert isinstance(read("arguments: {choice: [{a: 1}, {a: 2}]}")[0]["arguments"], Choice)


def test_two_parameters_of_one_name_are_refused() -> None:
    document = read_yaml("data: {a.b: {int: [1, 2]}, a: {b: {int: [1, 2]}}}")
    reader = RangeReader(document)
    reader.space(("data",))
    assert [fault.line("f") for fault in reader.faults] == [
        "f:1:1: found two parameters called 'data.a.b', expected keys that tell them apart"
    ]


def test_no_field_that_takes_a_list_is_called_anything_like_a_range() -> None:
    definitions = study_schema()["$defs"]
    lists = {name.rpartition(".")[2] for name in definitions if f"{name}.item" in definitions}
    assert {"augment", "at", "parts", "freeze"} <= lists
    assert [name for name in lists if near(name, RANGES)] == []


def test_a_section_of_one_key_is_none_however_the_key_is_called() -> None:
    assert read("{compile: true}") == ({"compile": True}, [])
    assert read("{low: 0.1}") == ({"low": 0.1}, [])
