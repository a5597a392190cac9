"""Turns what pydantic says about a recipe into lines about the file that the recipe came from.

A file with ranges stands for many recipes. All are checked by checking some: the plainest one, and for each range the
recipes at its ends or with each of its options, which is enough because each field is bounded on its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sweeper.positions import Document, Fault, Path, listed, near, show, unknown
from sweeper.ranges import is_range
from sweeper.space import TAGS, Decision, Parameter, Space

AnyModel = TypeVar("AnyModel", bound=BaseModel)

Schema = dict[str, Any]

OUTSIDE = "; ranges stand only in data, model, train and average"


def variants(space: Space) -> Iterator[Decision]:
    """The plainest decision, then for each end of each range and each option of each choice one that takes it.

    Where the very kind of a section (its `name` or `build`) is a choice, all others are varied under each kind, because
    the kind decides what the rest of the section may be.
    """
    kinds = [parameter for parameter in space.parameters if parameter.path.rpartition(".")[2] in TAGS]
    yield space.decide(_first({}))
    for parameter in space.parameters:
        for probe in parameter.distribution.probes():
            fixed = {**dict(parameter.when), parameter.name: probe}
            yield space.decide(_first(fixed))
            for kind in kinds:
                for label in kind.distribution.probes():
                    yield space.decide(_first({**dict(kind.when), kind.name: label, **fixed}))


def _first(fixed: dict[str, Any]) -> Any:
    def pick(parameter: Parameter) -> Any:
        return fixed.get(parameter.name, parameter.distribution.probes()[0])

    return pick


def validate(
    model: type[AnyModel], document: Document, decisions: Sequence[Decision]
) -> tuple[list[tuple[Decision, AnyModel]], list[Fault]]:
    """Each decision that is a ``model``, with that, and what is wrong with the others; faults may repeat."""
    valid: list[tuple[Decision, AnyModel]] = []
    faults: list[Fault] = []
    for decision in decisions:
        try:
            valid.append((decision, model.model_validate({**document.data, **decision.sections})))
        except ValidationError as error:
            faults += _Translator(_schema_of(model), document, decision).faults(error)
    return valid, faults


@cache
def _schema_of(model: type[BaseModel]) -> Schema:
    """What the model may be: built at the first fault, since it takes about 30 ms and most files have none."""
    return model.model_json_schema()


class _Translator:
    """Translates the errors of one variant."""

    def __init__(self, schema: Schema, document: Document, decision: Decision) -> None:
        self._schema, self._document, self._decision = schema, document, decision

    def faults(self, error: ValidationError) -> Iterator[Fault]:
        """A fault for each error, but for those of a value in which something is wrong further inside."""
        details = error.errors(include_url=False)
        paths = [self._locate(detail["loc"])[0] for detail in details]
        for path, detail in zip(paths, details, strict=True):
            if not any(len(other) > len(path) and other[: len(path)] == path for other in paths):
                yield self._fault(detail)

    def _fault(self, error: ErrorDetails) -> Fault:
        path, spec, section = self._locate(error["loc"])
        if error["type"] == "missing":
            return self._missing(path, describe(spec, self._schema))
        if error["type"] == "extra_forbidden":
            known = sorted(section["properties"], key=lambda key: key not in TAGS)  # what kind it is comes first
            return self._document.key_fault(
                (*self._decision.origin(path[:-1]), path[-1]), unknown(str(path[-1]), known)
            )
        if _sections_of(spec, self._schema) and isinstance(error["input"], dict):
            return self._kind(path, spec, error["input"])
        if path[-1] in TAGS and isinstance(error["input"], str):
            return self._kind(path[:-1], self._locate(error["loc"][:-2])[1], {path[-1]: error["input"]})
        expected = str(error["ctx"]["error"]) if error["type"] == "value_error" else describe(spec, self._schema)
        at = self._decision.origin(path)
        found = self._document.value(at)
        hint = OUTSIDE if is_range(found) and path not in self._decision.origins else _hint(found, spec)
        return self._document.fault(at, f"found {show(found)}, expected {expected}{hint}")

    def _missing(self, path: Path, expected: str) -> Fault:
        at = (*self._decision.origin(path[:-1]), path[-1])
        return self._document.fault(at, f"found nothing, expected {expected}")

    def _kind(self, path: Path, spec: Schema, section: dict[str, Any]) -> Fault:
        """A section whose `name` or `build` is missing or unknown."""
        key, names = _kinds(spec, self._schema)
        if key not in section:
            meant = next((f"; is {wrong!r} meant as {key!r}?" for wrong in section if near(wrong, [key])), "")
            return self._missing((*path, key), listed(names) + meant)
        found = section[key]
        at = self._decision.origin(path)
        if not isinstance(self._document.value(at), str):  # in the file it may be a bare name
            at = self._decision.origin((*path, key))
        guess = near(found, names) if isinstance(found, str) else ""
        return self._document.fault(at, f"found {show(found)}, expected {listed(names)}{guess}")

    def _locate(self, loc: tuple[int | str, ...]) -> tuple[Path, Schema, Schema]:
        """The path in the recipe of pydantic's ``loc``, what may stand there, and what the section around it may be.

        Pydantic puts into its path which alternative it tried: the kind of a section, the type of a value. The file
        does not.
        """
        path: Path = ()
        spec = section = resolve(self._schema, self._schema)
        for index, step in enumerate(loc):
            if sections := _sections_of(spec, self._schema):
                spec = next(branch for branch in sections if _is_branch(branch, str(step)))
                continue
            options = _options(spec, self._schema)
            if len(options) > 1 and index == len(loc) - 1:
                break
            spec = next((option for option in options if option.get("type") == "array"), options[0])
            if len(options) > 1:
                continue
            section, path = spec, (*path, step)
            spec = section.get("properties", {}).get(step) or section.get("items") or {}
        return path, resolve(spec, self._schema), section


def resolve(spec: Schema, schema: Schema) -> Schema:
    """The definition that ``spec`` refers to, or itself."""
    while "$ref" in spec:
        spec = schema["$defs"][spec["$ref"].rpartition("/")[2]]
    return spec


def describe(spec: Schema, schema: Schema) -> str:
    """What a JSON Schema asks for, in words.

    >>> describe({"type": "integer", "minimum": 1}, {})
    'a whole number >= 1'
    """
    return listed(_alternatives(spec, schema))


def _alternatives(spec: Schema, schema: Schema) -> list[str]:
    spec = resolve(spec, schema)
    if _sections_of(spec, schema):
        key, names = _kinds(spec, schema)
        options = [option for option in spec.get("anyOf", ()) if "oneOf" not in option]
        bare = ", or its name alone" if any("enum" in option for option in options) else ""
        null = ["null"] if {"type": "null"} in options else []
        return [f"a section such as {{{key}: {names[0]}}}{bare}", *null]
    if "anyOf" in spec:
        return [words for option in spec["anyOf"] for words in _alternatives(option, schema)]
    if "enum" in spec:
        return [str(name) for name in spec["enum"]]
    if "pattern" in spec:
        return [str(spec["title"])]
    kind = spec.get("type")
    if kind in ("integer", "number"):
        return [("a whole number" if kind == "integer" else "a number") + _limits(spec)]
    if kind == "array":
        least = " with at least one item" if spec.get("minItems") else ""
        return [f"a list{least}, each item {describe(spec['items'], schema)}"]
    return [{"object": "a section", "string": "text", "boolean": "true or false", "null": "null"}[str(kind)]]


def _limits(spec: Schema) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {spec[key]:g}" for key, sign in signs.items() if key in spec]
    return f" {' and '.join(limits)}" if limits else ""


def _hint(found: Any, spec: Schema) -> str:
    """What to do about a value of the wrong kind."""
    if is_range(found) and ("uniform" in found or "log" in found) and spec.get("type") == "integer":
        return "; write int for whole numbers"
    if (
        isinstance(found, int | float)
        and not isinstance(found, bool)
        and spec.get("type") == "string"
        and "enum" not in spec
    ):
        return f'; put it in quotes: "{found}"'
    if isinstance(found, str) and "enum" in spec:
        return near(found, spec["enum"])
    return ""


def _options(spec: Schema, schema: Schema) -> list[Schema]:
    """What else than null may stand there."""
    spec = resolve(spec, schema)
    options = [resolve(option, schema) for option in spec.get("anyOf", ()) if option.get("type") != "null"]
    return options or [spec]


def _sections_of(spec: Schema, schema: Schema) -> list[Schema]:
    """The sections of several kinds that may stand there, if any may."""
    return [resolve(branch, schema) for option in _options(spec, schema) for branch in option.get("oneOf", ())]


def _kinds(spec: Schema, schema: Schema) -> tuple[str, list[str]]:
    """The key that says of which kind a section is, and the kinds there are."""
    branches = [branch["properties"] for branch in _sections_of(spec, schema)]
    key = next(key for key in TAGS if key in branches[0])
    return key, [str(fields[key].get("const", "module:function")) for fields in branches]


def _is_branch(definition: Schema, tag: str) -> bool:
    fields = definition["properties"]
    const = next(fields[key].get("const") for key in TAGS if key in fields)
    return const == tag if const is not None else True
