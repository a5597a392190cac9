"""The JSON Schema of study.yaml (2020-12), by which editors complete and check it while it is written.

Pydantic's schema of a study without ranges, in which each field of a recipe's sections is given its ranges.
"""

from __future__ import annotations

from typing import Any

from sweeper.space import TAGS
from sweeper.study_file import SECTIONS, StudyFile
from sweeper.validate import resolve

Schema = dict[str, Any]

ABOUT = ("title", "description", "default")
"""What a schema says to people."""


def study_schema() -> Schema:
    """The JSON Schema of study.yaml."""
    plain = StudyFile.model_json_schema()
    definitions: Schema = plain["$defs"]
    fields: Schema = {}
    for name in sorted(_reachable({key: plain["properties"][key] for key in SECTIONS}, plain)):
        _allow_ranges(definitions[name]["properties"], f"{name}.", fields)
    sections = {key: plain["properties"][key] for key in SECTIONS}
    _allow_ranges(sections, "", fields)
    plain["properties"] |= sections
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **plain,
        "$defs": {**definitions, **fields},
        "title": "sweeper study",
    }


def _reachable(spec: Any, schema: Schema) -> set[str]:
    """Names of the definitions that ``spec`` refers to, directly or not."""
    if isinstance(spec, list):
        return set().union(*(_reachable(item, schema) for item in spec))
    if not isinstance(spec, dict):
        return set()
    found = set().union(*(_reachable(item, schema) for item in spec.values()))
    if "$ref" in spec:
        found |= {spec["$ref"].rpartition("/")[2]} | _reachable(resolve(spec, schema), schema)
    return found


def _allow_ranges(properties: Schema, prefix: str, fields: Schema) -> None:
    """Replace each property by a reference to what may stand there, range or not, which is added to ``fields``."""
    for key, spec in properties.items():
        about: Schema = {word: spec[word] for word in ("description", "default") if word in spec}
        properties[key] = {**about, **_ranged(spec, prefix + key, fields)}


def _ranged(spec: Schema, name: str, fields: Schema) -> Schema:
    """A reference to the value or any range of such values, which is added to ``fields`` under ``name``."""
    options = [{word: item for word, item in option.items() if word not in ABOUT} for option in _options(spec)]
    ranges = [kind for option in options for kind in _numeric(option)]
    for option in options:
        if option.get("type") == "array":
            option["items"] = _ranged(option["items"], f"{name}.item", fields)
    reference = {"$ref": f"#/$defs/{name}"}
    fields[name] = {"anyOf": [*options, *ranges, _choice(_chosen(name, reference))]}
    return reference


def _chosen(name: str, reference: Schema) -> Schema:
    """What the options of a choice may be, where ``reference`` may stand."""
    last = name.rpartition(".")[2]
    if last in TAGS:  # chosen among all there are, while the section around it can only know its own
        return {"type": "string"}
    # An item of a list may be chosen to be left out.
    return {"anyOf": [reference, {"type": "null"}]} if last == "item" else reference


def _options(spec: Schema) -> list[Schema]:
    """All that may stand there, alternatives within alternatives included.

    Any of them, never "exactly one": with a choice of names a section may be of several kinds.
    """
    alternatives: list[Schema] = spec.get("oneOf") or spec.get("anyOf") or []
    return [option for alternative in alternatives for option in _options(alternative)] or [spec]


def _choice(option: Schema) -> Schema:
    return _mapping({"choice": {"type": "array", "minItems": 1, "items": option}}, "One of these.")


def _numeric(spec: Schema) -> list[Schema]:
    """The ranges of numbers whose ends may stand where ``spec`` asks for a number."""
    ends, above_zero = _pair(spec), _pair({"allOf": [spec, {"exclusiveMinimum": 0}]})
    steps = {"step": {"type": "integer", "minimum": 1}, "log": {"type": "boolean"}}
    integers = _mapping({"int": _pair({**spec, "type": "integer"})}, "The whole numbers from low to high.", steps)
    if spec.get("type") == "integer":
        return [integers]
    if spec.get("type") == "number":
        return [
            _mapping({"uniform": ends}, "Any number from low to high."),
            _mapping({"log": above_zero}, "Any number from low to high, evenly in its logarithm."),
            integers,
        ]
    return []


def _pair(end: Schema) -> Schema:
    return {"type": "array", "prefixItems": [end, end], "items": False, "minItems": 2}


def _mapping(required: Schema, description: str, optional: Schema | None = None) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }
