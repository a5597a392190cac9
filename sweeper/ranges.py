"""How ranges are written in study.yaml, and what can be wrong with them.

{uniform: [low, high]}    {log: [low, high]}    {int: [low, high], step: 2, log: true}    {choice: [a, b, {...}]}
"""

from __future__ import annotations

import math
from typing import Any

from sweeper.positions import Document, Fault, Path, near, show, unknown
from sweeper.space import Choice, Int, Log, Space, Tree, Uniform, choice_labels

RANGES: dict[str, tuple[str, ...]] = {"choice": (), "int": ("step", "log"), "uniform": (), "log": ()}
"""The kinds of range, and which keys may stand beside each. In a mapping with several, the first of these is meant."""

LARGEST_WHOLE = 2**53
"""The search stores numbers as 64-bit floats, which count exactly up to here."""


def is_range(value: Any) -> bool:
    """Whether a value in the file is meant as a range."""
    return isinstance(value, dict) and any(kind in value for kind in RANGES)


class RangeReader:
    """Turns sections of a document into trees with ranges, collecting every fault on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.faults: list[Fault] = []
        self.broken: set[Path] = set()
        """Where ranges stand that could not be understood; their tree is None."""

    def space(self, sections: tuple[str, ...]) -> Space:
        """The space of those sections that the document has."""
        data = self._document.data
        space = Space({section: self.tree(data[section], (section,)) for section in sections if section in data})
        names = [parameter.name for parameter in space.parameters]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._fault((), f"found two parameters called {name!r}, expected keys that tell them apart")
        return space

    def tree(self, value: Any, path: Path) -> Tree:
        """The value at ``path`` with its ranges understood."""
        if is_range(value) and not _is_plain_arguments(value, path):
            before = len(self.faults)
            tree = self._range(value, path)
            if tree is None and len(self.faults) > before:
                self.broken.add(path)
            return tree
        if isinstance(value, dict):
            lone = next(iter(value)) if len(value) == 1 and "arguments" not in path else ""
            if isinstance(value.get(lone), list) and near(lone, RANGES):  # misspelt: no field with a list is like one
                self.faults.append(self._document.key_fault((*path, lone), unknown(lone, RANGES)))
                self.broken.add(path)
                return None
            return {key: self.tree(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.tree(item, (*path, index)) for index, item in enumerate(value)]
        return value

    def _range(self, value: dict[str, Any], path: Path) -> Tree:
        kind = next(kind for kind in RANGES if kind in value)
        known = (kind, *RANGES[kind])
        for key in value:
            if key not in known:
                self.faults.append(self._document.key_fault((*path, key), unknown(key, known)))
        if kind == "choice":
            return self._choice(value["choice"], (*path, "choice"))
        bounds = self._bounds(value[kind], (*path, kind), whole=kind == "int")
        if kind == "int":
            return self._int(value, bounds, path)
        if bounds and kind == "log" and bounds[0] <= 0:
            low = value["log"][0]
            self._fault((*path, "log", 0), f"found {show(low)}, expected a low end > 0 for a log range")
            return None
        return bounds and (Log if kind == "log" else Uniform)(float(bounds[0]), float(bounds[1]))

    def _bounds(self, value: Any, path: Path, whole: bool) -> tuple[Any, Any] | None:
        if not isinstance(value, list) or len(value) != 2:
            self._fault(path, f"found {show(value)}, expected [low, high]")
            return None
        wanted = "a whole number" if whole else "a number"
        wrong = [i for i, end in enumerate(value) if not _is_number(end, whole)]
        for index in wrong:
            self._fault((*path, index), f"found {show(value[index])}, expected {wanted}")
        if wrong:
            return None
        low, high = value
        if low >= high:
            self._fault(path, f"found {show(value)}, expected low < high")
            return None
        return low, high

    def _int(self, value: dict[str, Any], bounds: tuple[int, int] | None, path: Path) -> Int | None:
        before = len(self.faults)
        step, log = value.get("step", 1), value.get("log", False)
        if not _is_number(step, whole=True) or step < 1:
            self._fault((*path, "step"), f"found {show(step)}, expected a whole number >= 1")
        elif bounds and (bounds[1] - bounds[0]) % step:
            width = bounds[1] - bounds[0]
            self._fault((*path, "step"), f"found {step}, expected a step that divides high - low = {width}")
        if not isinstance(log, bool):
            self._fault((*path, "log"), f"found {show(log)}, expected true or false")
        elif log and step != 1:
            self._fault((*path, "step"), f"found {show(step)} beside log: true, expected only one of the two")
        elif log and bounds and bounds[0] <= 0:
            self._fault((*path, "int", 0), f"found {bounds[0]}, expected a low end > 0 for a log range")
        return Int(*bounds, step=step, log=log) if bounds and len(self.faults) == before else None

    def _choice(self, options: Any, path: Path) -> Choice | None:
        if not isinstance(options, list) or not options:
            self._fault(path, f"found {show(options)}, expected a list of options")
            return None
        for index, option in enumerate(options):
            if option in options[:index]:
                first = options.index(option)
                self._fault((*path, index), f"found {show(option)} again (as option {first}), expected it once")
        trees = tuple(self.tree(option, (*path, index)) for index, option in enumerate(options))
        return Choice(trees, choice_labels(options))

    def _fault(self, path: Path, message: str) -> None:
        self.faults.append(self._document.fault(path, message))


def _is_number(value: Any, whole: bool) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= LARGEST_WHOLE
    return not whole and isinstance(value, float) and math.isfinite(value)


def _is_plain_arguments(value: dict[str, Any], path: Path) -> bool:
    """A user's function may have arguments called `log` or `int`: so `arguments` is only ever a choice of sections."""
    if path[-1] != "arguments":
        return False
    options = value.get("choice")
    return len(value) != 1 or not isinstance(options, list) or not all(isinstance(item, dict) for item in options)
