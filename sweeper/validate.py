"""Turns what pydantic says about a recipe into lines about the file that the recipe came from.

A file with ranges stands for many recipes. All are checked by checking some: the plainest one, and for each range the
recipes at its ends or with each of its options, which is enough because each field is bounded on its own.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def validate(model: type[AnyModel], document: Document, space: Space) -> tuple[list[AnyModel], list[Fault]]:
    """Every variant as ``model``, or what is wrong with them; faults may repeat."""
    valid: list[AnyModel] = []
    faults: list[Fault] = []
    for decision in variants(space):
        try:
            valid.append(model.model_validate({**document.data, **decision.sections}))
        except ValidationError as error:
            translate = _Translator(_schema_of(model), document, decision)
            faults += [translate(detail) for detail in error.errors(include_url=False)]
    return valid, faults


@cache
def _schema_of(model: type[BaseModel]) -> Schema:
    """What the model may be: built at the first fault, since it takes about 30 ms and most files have none."""
    return model.model_json_schema()


class _Translator:
    """Translates the errors of one variant."""

    def __init__(self, schema: Schema, document: Document, decision: Decision) -> None:
        self._schema, self._document, self._decision = schema, document, decision

    def __call__(self, error: ErrorDetails) -> Fault:
        path, spec, section = self._locate(error["loc"])
        if error["type"] == "missing":
            return self._missing(path, describe(spec, self._schema))
        if error["type"] == "extra_forbidden":
            return self._document.key_fault(self._at(path), unknown(str(path[-1]), section["properties"]))
        if _variants_of(spec) and isinstance(error["input"], dict):
            return self._kind(path, spec, error["input"])
        if path[-1] in TAGS and isinstance(error["input"], str):
            return self._kind(path[:-1], self._locate(error["loc"][:-2])[1], {path[-1]: error["input"]})
        expected = str(error["ctx"]["error"]) if error["type"] == "value_error" else describe(spec, self._schema)
        at = self._at(path)
        found = self._document.value(at)
        hint = OUTSIDE if is_range(found) and path not in self._decision.origins else _hint(found, spec)
        return self._document.fault(at, f"found {show(found)}, expected {expected}{hint}")

    def _missing(self, path: Path, expected: str) -> Fault:
        at = (*self._at(path[:-1]), path[-1])
        return self._document.fault(at, f"found nothing, expected {expected}")

    def _kind(self, path: Path, spec: Schema, section: dict[str, Any]) -> Fault:
        """A section whose `name` or `build` is missing or unknown."""
        key = _tag_key(_variants_of(spec), self._schema)
        names = _tag_names(spec, self._schema)
        if key not in section:
            meant = next((f"; is {wrong!r} meant as {key!r}?" for wrong in section if near(wrong, [key])), "")
            return self._missing((*path, key), listed(names) + meant)
        found = section[key]
        guess = near(found, names) if isinstance(found, str) else ""
        return self._document.fault(self._at((*path, key)), f"found {show(found)}, expected {listed(names)}{guess}")

    def _at(self, path: Path) -> Path:
        """Where a value of the recipe stands in the file."""
        rest: Path = ()
        while path and path not in self._decision.origins:
            path, rest = path[:-1], (path[-1], *rest)
        return self._decision.origins.get(path, ()) + rest

    def _locate(self, loc: tuple[int | str, ...]) -> tuple[Path, Schema, Schema]:
        """The path in the recipe of pydantic's ``loc``, what may stand there, and what the section around it may be."""
        path: Path = ()
        spec = section = resolve(self._schema, self._schema)
        for step in loc:
            spec = _not_null(spec, self._schema)
            if branches := [resolve(branch, self._schema) for branch in _variants_of(spec)]:
                spec = next(branch for branch in branches if _is_branch(branch, str(step)))
                continue  # pydantic puts the kind of a section into its path; the file does not
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
    spec = resolve(spec, schema)
    if "anyOf" in spec:
        return listed(describe(option, schema) for option in spec["anyOf"])
    if _variants_of(spec):
        key = _tag_key(_variants_of(spec), schema)
        return f"a section such as {{{key}: {_tag_names(spec, schema)[0]}}}"
    if "enum" in spec:
        return listed(str(name) for name in spec["enum"])
    if "pattern" in spec:
        return str(spec["title"])
    kind = spec.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _limits(spec)
    if kind == "array":
        return f"a list, each item {describe(spec['items'], schema)}"
    return {"object": "a section", "string": "text", "boolean": "true or false", "null": "null"}[str(kind)]


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


def _variants_of(spec: Schema) -> list[Schema]:
    return list(spec.get("oneOf", ()))


def _not_null(spec: Schema, schema: Schema) -> Schema:
    spec = resolve(spec, schema)
    options = [option for option in spec.get("anyOf", ()) if option.get("type") != "null"]
    return resolve(options[0], schema) if options else spec


def _tag_key(branches: list[Schema], schema: Schema) -> str:
    return next(key for key in TAGS if key in resolve(branches[0], schema)["properties"])


def _tag_names(spec: Schema, schema: Schema) -> list[str]:
    branches = [resolve(branch, schema)["properties"] for branch in _variants_of(spec)]
    key = _tag_key(_variants_of(spec), schema)
    return [str(fields[key].get("const", "module:function")) for fields in branches]


def _is_branch(definition: Schema, tag: str) -> bool:
    fields = definition["properties"]
    const = next(fields[key].get("const") for key in TAGS if key in fields)
    return const == tag if const is not None else True
