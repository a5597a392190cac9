"""Points to try first: by path in the file, by parameter name for the search."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.ranges import RangeReader
from sweeper.start_with import resolve_points
from sweeper.yaml_reader import read_yaml

SPACE = """\
model: {build: mlp, width: {int: [8, 64], step: 8}, dropout: {choice: [0.0, {uniform: [0.1, 0.5]}]}}
train:
  epochs: 3
  batch_size: {choice: [32, 64]}
  optimizer:
    choice:
      - {name: sgd, lr: {log: [0.01, 1.0]}, momentum: {uniform: [0.8, 0.98]}}
      - {name: adamw, lr: {log: [0.0001, 0.1]}}
"""
OFF = 'model.dropout[{"uniform":[0.1,0.5]}]'
ON = '{"uniform":[0.1,0.5]}'


def resolve(point: str) -> tuple[dict[str, Any], list[str]]:
    document = read_yaml(f"points: [{point}]\n{SPACE}")
    space = RangeReader(document).space(("model", "train"))
    points, faults = resolve_points(document, ("points",), space)
    return points[0], [fault.line("f") for fault in faults]


@pytest.mark.parametrize(
    ("point", "chosen"),
    [
        ("{}", {}),
        ("{model.width: 16, train.batch_size: 64}", {"model.width": 16, "train.batch_size": 64}),
        (
            "{train.optimizer: sgd, train.optimizer.lr: 0.05}",
            {"train.optimizer": "sgd", "train.optimizer[sgd].lr": 0.05},
        ),
        (
            "{train.optimizer.lr: 0.05, train.optimizer: adamw}",
            {"train.optimizer": "adamw", "train.optimizer[adamw].lr": 0.05},
        ),
        # A value that fits one branch only says which branch is meant; one that fits both leaves it open.
        ("{train.optimizer.lr: 1}", {"train.optimizer": "sgd", "train.optimizer[sgd].lr": 1.0}),
        ("{train.optimizer.lr: 0.05}", {"train.optimizer[sgd].lr": 0.05, "train.optimizer[adamw].lr": 0.05}),
        (
            "{train.optimizer.momentum: 0.9, train.optimizer.lr: 0.05}",
            {"train.optimizer": "sgd", "train.optimizer[sgd].momentum": 0.9, "train.optimizer[sgd].lr": 0.05},
        ),
        (
            "{train.optimizer.lr: 0.05, train.optimizer.momentum: 0.9}",
            {"train.optimizer": "sgd", "train.optimizer[sgd].momentum": 0.9, "train.optimizer[sgd].lr": 0.05},
        ),
        ("{'train.optimizer[adamw].lr': 0.05}", {"train.optimizer": "adamw", "train.optimizer[adamw].lr": 0.05}),
        ("{model.dropout: 0.3}", {"model.dropout": ON, OFF: 0.3}),
        ("{model.dropout: 0}", {"model.dropout": 0.0}),
    ],
)
def test_points_are_resolved_to_parameter_names(point: str, chosen: dict[str, Any]) -> None:
    assert resolve(point) == (chosen, [])


@pytest.mark.parametrize(
    ("point", "line"),
    [
        (
            "{model.widht: 16}",
            "f:1:11: points[0].model.widht: found 'model.widht', which has no range, expected model.width, "
            "model.dropout, train.batch_size, train.optimizer, train.optimizer.lr or train.optimizer.momentum; "
            "did you mean 'model.width'?",
        ),
        (
            "{model.width: 12}",
            "f:1:24: points[0].model.width: found 12, expected a whole number from 8 to 64 in steps of 8",
        ),
        ("{train.batch_size: 48}", "f:1:29: points[0].train.batch_size: found 48, expected one of 32 or 64"),
        (
            "{train.optimizer: lion}",
            "f:1:28: points[0].train.optimizer: found 'lion', expected one of 'sgd' or 'adamw'",
        ),
        (
            "{train.optimizer.lr: 5}",
            "f:1:31: points[0].train.optimizer.lr: found 5, expected a number from 0.01 to 1.0 or "
            "a number from 0.0001 to 0.1",
        ),
        (
            "{train.optimizer: adamw, train.optimizer.momentum: 0.9}",
            "f:1:35: points[0].train.optimizer.momentum: found 'train.optimizer.momentum' in a point of another "
            "branch, expected it beside train.optimizer: 'sgd'",
        ),
        (
            "{train.optimizer: adamw, train.optimizer.lr: 0.5}",
            "f:1:55: points[0].train.optimizer.lr: found 0.5, expected a number from 0.0001 to 0.1",
        ),
    ],
)
def test_wrong_points_say_what_was_expected(point: str, line: str) -> None:
    assert resolve(point)[1] == [line]


def test_a_fixed_value_cannot_be_in_a_point() -> None:
    assert "found 'train.epochs', which has no range" in resolve("{train.epochs: 3}")[1][0]
