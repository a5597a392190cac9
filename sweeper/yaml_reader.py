"""Reads YAML into plain data, keeping the line and column of every key and value.

Scalars follow YAML 1.2's core schema (yaml.org/spec/1.2.2, section 10.3), because YAML 1.1 surprises: ``1e-4`` is a
number, only ``true`` and ``false`` are booleans (``no``, ``off`` and ``on`` are text), ``1:30`` and dates are text.
Anchors, aliases and merge keys work; nothing is ever constructed but plain data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from sweeper.positions import Document, Fault, Path, Position, dotted, show

MOST_VALUES = 100_000
"""Aliases of aliases can make a short file huge; a study has some hundred values."""

DEEPEST = 50
"""Sections within sections; a study has some five."""

TOO_DEEP = f"found values nested deeper than {DEEPEST}, expected a study"

TAG = "tag:yaml.org,2002:"


class YamlFault(Exception):
    """The text is not one YAML document; it holds the one fault that stopped the reading."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.line("<yaml>"))
        self.fault = fault


class _Loader(yaml.SafeLoader):
    """Composes nodes, resolving plain scalars by the core schema of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (PyYAML's own interface)


for _name, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    ("merge", r"<<$", ["<"]),
):
    _Loader.add_implicit_resolver(TAG + _name, re.compile(_pattern), _first)


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _number(text: str) -> float:
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


SCALARS: dict[str, Callable[[str], Any]] = {
    TAG + "null": lambda text: None,  # noqa: ARG005
    TAG + "bool": lambda text: {"true": True, "false": False}[text.lower()],
    TAG + "int": _integer,
    TAG + "float": lambda text: _number(text.lower()),
    TAG + "str": str,
}


def read_yaml(text: str) -> Document:
    """The one document in ``text``. Duplicate keys and the like are in its ``faults``, beside what could be read.

    Raises YamlFault when the text is empty, is not YAML, holds several documents or nests without end.
    """
    try:
        loader = _Loader(text)
        node = loader.get_node() if loader.check_node() else None
        if node is None:
            raise YamlFault(Fault(Position(1, 1), "", "found an empty file, expected a study"))
        if loader.check_node():
            second = _position(loader.get_event().start_mark)  # type: ignore[no-untyped-call]
            raise YamlFault(Fault(second, "", "found a second document, expected one a file"))
    except yaml.reader.ReaderError as error:
        raise YamlFault(_character_fault(error, text)) from None
    except yaml.MarkedYAMLError as error:
        raise YamlFault(_syntax_fault(error)) from None
    except RecursionError:
        raise YamlFault(Fault(Position(1, 1), "", TOO_DEEP)) from None
    walk = _Walk()
    data = walk.value(node, ())
    return Document(data, walk.keys, walk.values, tuple(walk.faults))


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark is not None else Position(1, 1)


def _character_fault(error: yaml.reader.ReaderError, text: str) -> Fault:
    before = text[: error.position]
    position = Position(before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1)
    return Fault(position, "", f"found the control character {text[error.position]!r}, expected printable text")


def _syntax_fault(error: yaml.MarkedYAMLError) -> Fault:
    position = _position(error.problem_mark or error.context_mark)
    problem = (error.problem or "something else").removeprefix("found ")
    if "'\\t'" in problem:
        return Fault(position, "", "found a tab, expected spaces: YAML allows no tabs for indentation")
    context = f" {error.context}" if error.context else ""
    return Fault(position, "", f"found {problem}{context}, expected YAML")


class _Walk:
    """Turns nodes into plain data, noting positions and faults on the way."""

    def __init__(self) -> None:
        self.keys: dict[Path, Position] = {}
        self.values: dict[Path, Position] = {}
        self.faults: list[Fault] = []
        self._around: list[yaml.Node] = []
        self._met = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        position = _position(node.start_mark)
        self.values[path] = position
        # Not how many values there are: sections that are merged again and again stand in each other's place.
        self._met += 1
        if self._met > MOST_VALUES:
            raise YamlFault(Fault(position, dotted(path), f"found more than {MOST_VALUES} values, expected a study"))
        if len(path) > DEEPEST:
            raise YamlFault(Fault(position, "", TOO_DEEP))
        if any(node is other for other in self._around):
            raise YamlFault(Fault(position, dotted(path), "found an alias of a section inside itself, expected none"))
        self._around.append(node)
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self.scalar(node, path)
        finally:
            self._around.pop()

    def scalar(self, node: yaml.Node, path: Path) -> Any:
        construct = SCALARS.get(node.tag) if isinstance(node, yaml.ScalarNode) else None
        if construct is None:
            tag = node.tag.replace(TAG, "!!")
            self._fault(node, path, f"found the tag {tag!r}, expected plain text, numbers, lists and sections")
            return None
        try:
            return construct(node.value)
        except (ValueError, KeyError):
            self._fault(node, path, f"found {show(node.value)}, expected a value of type {node.tag.removeprefix(TAG)}")
            return None

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        merged: list[yaml.Node] = []
        own: list[tuple[yaml.Node, yaml.Node]] = []
        for key_node, value_node in node.value:
            if key_node.tag == TAG + "merge":
                merged.extend(value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node])
            else:
                own.append((key_node, value_node))
        result: dict[str, Any] = {}
        for source in reversed(merged):  # the first source wins over later ones, and own keys over all
            content = self.value(source, path)
            if isinstance(content, dict):
                result |= content
            else:
                self._fault(source, path, f"found {show(content)} after <<, expected a section to merge")
        self.values[path] = _position(node.start_mark)
        return result | self._own_keys(own, path)

    def _own_keys(self, pairs: list[tuple[yaml.Node, yaml.Node]], path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in pairs:
            key = key_node.value
            if key_node.tag != TAG + "str":
                found = show(key) if isinstance(key, str) else "a list or section"
                self._fault(key_node, path, f"found {found} as a key, expected text; put it in quotes")
            elif key in result:
                first = self.keys[*path, key].line
                self._fault(key_node, (*path, key), f"found the key again (first on line {first}), expected it once")
            else:
                self.keys[*path, key] = _position(key_node.start_mark)
                result[key] = self.value(value_node, (*path, key))
        return result

    def _fault(self, node: yaml.Node, path: Path, message: str) -> None:
        self.faults.append(Fault(_position(node.start_mark), dotted(path), message))
