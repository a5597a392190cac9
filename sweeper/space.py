"""The space of recipes that a study searches: sections of a recipe with ranges in place of values.

A *tree* is plain data (dicts, lists, scalars) in which a value may be a range. The options of a `Choice` are trees
again, so a choice of sections makes the parameters inside it conditional on it. An item of a list that is chosen to be
null is left out, so that each may be switched on and off by itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from sweeper.positions import Path, listed, show
from trials.recipe import Recipe

Label: TypeAlias = bool | int | float | str | None
Tree: TypeAlias = Any

TAGS = ("name", "build")
"""The keys that say which variant a section is."""


@dataclass(frozen=True)
class _Interval:
    low: float
    high: float

    def holds(self, value: Any) -> bool:
        """Whether `value` is a number from `low` to `high`."""
        return _is_number(value) and self.low <= value <= self.high

    def probes(self) -> tuple[Any, ...]:
        """The values at which a bound of the recipe would be broken first."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"a number from {show(self.low)} to {show(self.high)}"


@dataclass(frozen=True)
class Uniform(_Interval):
    """Any number from `low` to `high`, both included."""


@dataclass(frozen=True)
class Log(_Interval):
    """Any number from `low` to `high`, both included and above 0, evenly in its logarithm."""


@dataclass(frozen=True)
class Int:
    """The whole numbers `low`, `low + step`, ..., `high`; evenly in their logarithm when `log`."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of the whole numbers."""
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def probes(self) -> tuple[Any, ...]:
        """The values at which a bound of the recipe would be broken first."""
        return self.low, self.high

    def __str__(self) -> str:
        steps = f" in steps of {self.step}" if self.step != 1 else ""
        return f"a whole number from {self.low} to {self.high}{steps}"


@dataclass(frozen=True)
class Choice:
    """One of several options: scalars, or whole trees with parameters of their own."""

    options: tuple[Tree, ...]
    labels: tuple[Label, ...]
    """What each option is called: never two alike."""

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of the labels."""
        return any(_is_same(value, label) for label in self.labels)

    def probes(self) -> tuple[Any, ...]:
        """The labels of all options."""
        return self.labels

    def __str__(self) -> str:
        return f"one of {listed(show(label) for label in self.labels)}"


Distribution: TypeAlias = Uniform | Log | Int | Choice


@dataclass(frozen=True)
class Parameter:
    """Something that the search decides."""

    name: str
    """Unique in the space, branches included: `train.optimizer[sgd].lr`."""
    path: str
    """Where its value goes in the recipe: `train.optimizer.lr`; branches of one choice may share it."""
    distribution: Distribution
    when: tuple[tuple[str, Label], ...] = ()
    """The choices, by name, that must have fallen on these labels for the parameter to be active."""


Pick: TypeAlias = Callable[[Parameter], Any]


@dataclass(frozen=True)
class Decision:
    """A point of the space."""

    sections: dict[str, Any]
    """The sections of the recipe, as plain data."""
    params: dict[str, Any]
    """What was decided, by dotted path in the recipe; labels for choices of sections."""
    origins: dict[Path, Path] = field(default_factory=dict, repr=False, compare=False)
    """Where each value of the recipe stands in the file it came from."""

    def origin(self, path: Path) -> Path:
        """Where the value at ``path`` of the recipe stands in the file, or would if it were said."""
        rest: Path = ()
        while path and path not in self.origins:
            path, rest = path[:-1], (path[-1], *rest)
        return self.origins.get(path, ()) + rest


class Space:
    """Trees of recipe sections, by section.

    >>> space = Space({"train": {"epochs": Int(1, 3), "precision": "fp32"}})
    >>> [parameter.name for parameter in space.parameters]
    ['train.epochs']
    >>> space.decide(lambda parameter: parameter.distribution.high).sections
    {'train': {'epochs': 3, 'precision': 'fp32'}}
    """

    def __init__(self, sections: dict[str, Tree]) -> None:
        self.sections = sections
        """The trees, by section."""
        self.parameters: tuple[Parameter, ...] = tuple(_parameters(sections, "", (), ()))
        """All parameters of all branches, in the order of the file."""

    def decide(self, pick: Pick) -> Decision:
        """Ask ``pick`` for the value (for a choice: the label) of each active parameter, in the order of the file."""
        walk = _Walk(pick)
        sections = walk.resolve(self.sections, "", (), (), (), ())
        return Decision(sections, walk.params, walk.origins)

    def map(self, change: Callable[[Path, Any], Any]) -> Space:
        """The space with ``change(path, value)`` in place of each plain value; the labels of choices stay."""
        return Space({section: _mapped(tree, (section,), change) for section, tree in self.sections.items()})

    def recipe(self, sections: dict[str, Any], seed: int, metric: str) -> Recipe:
        """The recipe of decided sections. Raises pydantic's ValidationError for sections that are not of this space."""
        return Recipe.model_validate({"seed": seed, "metric": metric, **sections})


class _Walk:
    """Decides a tree, keeping what was decided and where it came from."""

    def __init__(self, pick: Pick) -> None:
        self._pick = pick
        self.params: dict[str, Any] = {}
        self.origins: dict[Path, Path] = {}

    def resolve(
        self, tree: Tree, name: str, path: Path, place: Path, at: Path, when: tuple[tuple[str, Label], ...]
    ) -> Any:
        """The value of ``tree``, which stands at ``at`` in the file.

        ``path`` and ``place`` are where it goes in the recipe, before and after items of lists are left out.
        """
        self.origins[place] = at
        if isinstance(tree, dict):
            return {
                key: self.resolve(item, _join(name, key), (*path, key), (*place, key), (*at, key), when)
                for key, item in tree.items()
            }
        if isinstance(tree, list):
            items: list[Any] = []
            for index, item in enumerate(tree):
                inside = (*place, len(items))
                value = self.resolve(item, _join(name, index), (*path, index), inside, (*at, index), when)
                if value is not None or not isinstance(item, Choice) or "arguments" in path:
                    items.append(value)
            return items
        if not isinstance(tree, Distribution):
            return tree
        picked = self._pick(Parameter(name, _path_text(path), tree, when))
        self.params[_path_text(path)] = picked
        if not isinstance(tree, Choice):
            return picked
        index = next(i for i, label in enumerate(tree.labels) if _is_same(label, picked))
        branch, label = _branch(name, tree.labels[index]), tree.labels[index]
        return self.resolve(tree.options[index], branch, path, place, (*at, "choice", index), (*when, (name, label)))


def _mapped(tree: Tree, path: Path, change: Callable[[Path, Any], Any]) -> Tree:
    match tree:
        case dict():
            return {key: _mapped(item, (*path, key), change) for key, item in tree.items()}
        case list():
            return [_mapped(item, (*path, index), change) for index, item in enumerate(tree)]
        case Choice():
            return replace(tree, options=tuple(_mapped(option, path, change) for option in tree.options))
        case Uniform() | Log() | Int():
            return tree
        case _:
            return change(path, tree)


def _parameters(tree: Tree, name: str, path: Path, when: tuple[tuple[str, Label], ...]) -> Iterator[Parameter]:
    if isinstance(tree, dict):
        for key, item in tree.items():
            yield from _parameters(item, _join(name, key), (*path, key), when)
    elif isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from _parameters(item, _join(name, index), (*path, index), when)
    elif isinstance(tree, Distribution):
        yield Parameter(name, _path_text(path), tree, when)
        if isinstance(tree, Choice):
            for label, option in zip(tree.labels, tree.options, strict=True):
                yield from _parameters(option, _branch(name, label), path, (*when, (name, label)))


def choice_labels(options: list[Any]) -> tuple[Label, ...]:
    """What the options of a choice, as written in the file, are called.

    A scalar is its own label; a section is called by its `name` or `build` when that tells the options apart, else by
    its compact JSON text.

    >>> choice_labels([{"name": "sgd", "lr": 0.1}, {"name": "adamw"}])
    ('sgd', 'adamw')
    >>> choice_labels([None, {"decay": 0.99}])
    (None, '{"decay":0.99}')
    """
    named = tuple(_tag(option) if isinstance(option, dict) else option for option in options)
    scalars = all(not isinstance(label, dict | list) for label in named)
    if scalars and all(isinstance(n, str) for n, o in zip(named, options, strict=True) if isinstance(o, dict)):
        texts = [json.dumps(label) for label in named]
        if len(set(texts)) == len(texts):
            return named
    return tuple(compact(option) if isinstance(option, dict | list) else option for option in options)


def compact(value: Any) -> str:
    """The compact JSON text of plain data."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _tag(section: dict[str, Any]) -> Any:
    return next((section[key] for key in TAGS if key in section), None)


def _join(name: str, step: str | int) -> str:
    return f"{name}.{step}" if name else str(step)


def _branch(name: str, label: Label) -> str:
    return f"{name}[{label if isinstance(label, str) else compact(label)}]"


def _path_text(path: Path) -> str:
    return ".".join(str(step) for step in path)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_same(value: Any, label: Label) -> bool:
    """Equality that tells ``True`` from 1, and does not care whether a number is written 1 or 1.0."""
    return isinstance(value, bool) == isinstance(label, bool) and bool(value == label)
