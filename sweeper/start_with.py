"""The points of the space that a study tries first.

A point maps dotted paths to values: ``{train.optimizer: sgd, train.optimizer.lr: 0.1}``. It may be partial: the search
samples the rest. A value that fits only one branch of a choice says by itself which branch is meant.
"""

from __future__ import annotations

from typing import Any

from sweeper.positions import Document, Fault, Path, listed, near, show
from sweeper.space import Choice, Int, Parameter, Space

Point = dict[str, Any]
"""From parameter name to value; to the label for a choice."""


def resolve_points(document: Document, at: Path, space: Space) -> tuple[tuple[Point, ...], list[Fault]]:
    """The points listed at ``at`` in the document, by parameter name, and what is wrong with them."""
    if at not in document.values:
        return (), []
    points = [_Resolver(document, (*at, index), space) for index in range(len(document.value(at)))]
    return tuple(point.chosen for point in points), [fault for point in points for fault in point.faults]


class _Resolver:
    """Resolves one point."""

    def __init__(self, document: Document, at: Path, space: Space) -> None:
        self.chosen: Point = {}
        self.faults: list[Fault] = []
        self._document, self._at, self._space = document, at, space
        fitting = {key: self._fitting(key, value) for key, value in document.value(at).items()}
        # What is said outright counts first, then what it implies, then what is left open.
        for key, parameters in fitting.items():
            if len(parameters) == 1:
                self.chosen[parameters[0].name] = _converted(parameters[0], document.value((*at, key)))
        for key, parameters in sorted(fitting.items(), key=lambda item: len(item[1])):
            if parameters:
                self._place(key, parameters)

    def _known(self, key: str) -> list[Parameter]:
        return [parameter for parameter in self._space.parameters if key in (parameter.path, parameter.name)]

    def _fitting(self, key: str, value: Any) -> list[Parameter]:
        """The parameters that ``key`` may mean and that can take the value; none, with a fault, if it is wrong."""
        known = self._known(key)
        fitting = [parameter for parameter in known if parameter.distribution.holds(value)]
        if not known:
            paths = dict.fromkeys(parameter.path for parameter in self._space.parameters)
            expected = listed(paths) if paths else "no point, since nothing varies"
            self._fault(key, f"found {key!r}, which has no range, expected {expected}{near(key, paths)}")
        elif not fitting:
            self._value_fault(key, known)
        return fitting

    def _place(self, key: str, parameters: list[Parameter]) -> None:
        """Choose the value for each parameter it may be meant for, and the branch if only one is left."""
        possible = [parameter for parameter in parameters if self._may_be_active(parameter)]
        for parameter in possible:
            self.chosen[parameter.name] = _converted(parameter, self._document.value((*self._at, key)))
        if len(possible) == 1:
            self.chosen.update(possible[0].when)
        if not possible and (active := [parameter for parameter in self._known(key) if self._may_be_active(parameter)]):
            self._value_fault(key, active)
        elif not possible:
            needed = listed(dict.fromkeys(f"{name}: {show(label)}" for p in parameters for name, label in p.when))
            self._fault(key, f"found {key!r} in a point of another branch, expected it beside {needed}")

    def _may_be_active(self, parameter: Parameter) -> bool:
        return all(self.chosen.get(name, label) == label for name, label in parameter.when)

    def _value_fault(self, key: str, parameters: list[Parameter]) -> None:
        at = (*self._at, key)
        expected = listed(dict.fromkeys(str(parameter.distribution) for parameter in parameters))
        self.faults.append(self._document.fault(at, f"found {show(self._document.value(at))}, expected {expected}"))

    def _fault(self, key: str, message: str) -> None:
        self.faults.append(self._document.key_fault((*self._at, key), message))


def _converted(parameter: Parameter, value: Any) -> Any:
    match parameter.distribution:
        case Choice(_, labels):
            return next(label for label in labels if label == value)
        case Int():
            return int(value)
        case _:
            return float(value)
