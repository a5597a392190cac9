"""docs/recipe.md: every key of study.yaml, from what its fields say of themselves.

`python -m sweeper.reference > docs/recipe.md` (or `make docs`) writes it; a test keeps it in step.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sweeper.positions import show
from sweeper.reference_examples import EXAMPLES
from sweeper.space import TAGS
from sweeper.study_file import StudyFile
from sweeper.validate import describe, resolve

Schema = dict[str, Any]

INTRODUCTION = """\
# Every key of study.yaml

A study file has the sections below; only `study`, `data` and `model` must be there. Each table gives a key, what it is
when it is left out, what it may be, what it does, and where that comes from. This page is made from the code
(`make docs`); `sweeper schema` prints the same for editors.

In `data`, `model`, `train` and `average` a range may stand wherever a value stands, at any depth:

| range | what is drawn |
|---|---|
| `{uniform: [low, high]}` | any number from low to high |
| `{log: [low, high]}` | any number from low to high, evenly in its logarithm |
| `{int: [low, high], step: 2}` | a whole number; `step` and `log: true` may be left out |
| `{choice: [a, b, {name: c, lr: {log: [0.01, 1]}}]}` | one of these: values, or sections with ranges of their own |

Whole sections are switched on and off by `{choice: [null, {...}]}`, items of a list likewise: an item that is chosen to
be null is left out, as in `augment: [random_crop, {choice: [null, trivial_augment]}]`. Paths of files are taken from
the folder of the study file.
"""


@dataclass(frozen=True)
class Part:
    """One heading of the page: a section, or one kind of a section that has several."""

    title: str
    fields: Schema
    """Its keys; none where it only gathers its kinds."""
    about: str
    """What it is, with its source in brackets where it has one."""

    @property
    def group(self) -> str:
        """Where in study.yaml it stands."""
        return self.title.partition(": ")[0]

    @property
    def kind(self) -> str:
        """Which kind it is, where there are several."""
        return self.title.partition(": ")[2]


def anchor(title: str) -> str:
    """What links to a heading, as GitHub makes it.

    >>> anchor("data.augment: random_crop")
    'dataaugment-random_crop'
    """
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def reference() -> str:
    """The whole page."""
    schema = StudyFile.model_json_schema()
    parts = [Part("study.yaml", schema["properties"], schema["description"]), *_parts(schema, schema, "", set())]
    known = {id(part.fields): part for part in parts if part.fields}
    lines = [INTRODUCTION, *_contents(parts), ""]
    for part in parts:
        lines += _part(part, schema, known)
    return "\n".join(lines).rstrip() + "\n"


def _parts(section: Schema, schema: Schema, path: str, seen: set[int]) -> Iterator[Part]:
    """All sections within ``section``, which stands at ``path``, but for those that were ``seen``."""
    for key, spec in section["properties"].items():
        inner = f"{path}.{key}".removeprefix(".")
        sections = list(_sections(spec, schema))
        fresh = [found for found in sections if id(found) not in seen]
        seen.update(map(id, fresh))
        if fresh and len(sections) == 1:
            yield Part(inner, fresh[0]["properties"], fresh[0]["description"])
        elif fresh:
            yield Part(inner, {}, spec["description"])
            for found in fresh:
                tag = found["properties"][next(key for key in TAGS if key in found["properties"])]
                yield Part(f"{inner}: {tag.get('const', 'module:function')}", found["properties"], tag["description"])
        for found in fresh:
            yield from _parts(found, schema, inner, seen)


def _sections(spec: Schema, schema: Schema) -> Iterator[Schema]:
    """The sections that may stand where ``spec`` says, alone or as items of a list."""
    spec = resolve(spec, schema)
    for option in spec.get("oneOf") or spec.get("anyOf") or []:
        yield from _sections(option, schema)
    if "items" in spec:
        yield from _sections(spec["items"], schema)
    if "properties" in spec:
        yield spec


def _contents(parts: list[Part]) -> Iterator[str]:
    """A line for each section, with its kinds behind it."""
    for group in dict.fromkeys(part.group for part in parts):
        kinds = [f"[{part.kind}](#{anchor(part.title)})" for part in parts if part.group == group and part.kind]
        yield f"- [{group}](#{anchor(group)})" + (f": {', '.join(kinds)}" if kinds else "")


def _part(part: Part, schema: Schema, parts: dict[int, Part]) -> Iterator[str]:
    text, source = split_source(part.about)
    yield f"{'###' if part.kind else '##'} {part.title}"
    yield ""
    yield text + (f" ({source_links(source)})" if source not in ("", "sweeper") else "")
    yield ""
    keys = {key: spec for key, spec in part.fields.items() if key not in TAGS}
    if keys:
        yield "| key | default | value | what it does | source |"
        yield "|---|---|---|---|---|"
        for key, spec in keys.items():
            text, source = split_source(spec["description"])
            cells = [f"`{key}`", _default(spec), _value(spec, schema, parts), text, source_links(source)]
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""
    if part.title in EXAMPLES:
        yield from ("```yaml", EXAMPLES[part.title].rstrip(), "```", "")


def split_source(description: str) -> tuple[str, str]:
    """What a description says, and the source in brackets at its end.

    >>> split_source("Multiply by `gamma`.\\n[torch.optim; arXiv:1]")
    ('Multiply by `gamma`.', 'torch.optim; arXiv:1')
    """
    found = re.fullmatch(r"(.*?)\s*(?:\[([^\[\]]+)\])?", " ".join(description.split()))
    assert found is not None
    return found[1], found[2] or ""


def source_links(source: str) -> str:
    """Sources as Markdown: papers and pages as links, names in code as code.

    >>> source_links("arXiv:1512.03385, section 4.2; torch.optim.SGD; Prechelt, 1998")
    '[arXiv:1512.03385](https://arxiv.org/abs/1512.03385), section 4.2; `torch.optim.SGD`; Prechelt, 1998'
    """
    source = re.sub(r"(?<![\w/])https?://[^\s;]+", r"<\g<0>>", source)
    source = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)
    return re.sub(r"\b(?:torch|torchvision|optuna|ray|tf)\.[\w.]*\w", r"`\g<0>`", source)


def _default(spec: Schema) -> str:
    if "default" not in spec:
        # A default that is made anew each time is an empty one.
        return "`{}`" if spec.get("type") == "object" else "must be given"
    default = spec["default"]
    if isinstance(default, dict):
        tag = next((key for key in TAGS if key in default), None)
        return f"`{{{tag}: {default[tag]}}}`" if tag else "its own defaults"
    if isinstance(default, float):
        return f"`{default:.4g}`"
    return f"`{default}`" if isinstance(default, str) else f"`{show(default)}`"


def _value(spec: Schema, schema: Schema, parts: dict[int, Part]) -> str:
    """What a key may be, in words, with links to the sections it may be."""
    sections = list(_sections(spec, schema))
    if not sections:
        return describe(spec, schema)
    known = [parts[id(section["properties"])] for section in sections]
    group = known[0].group
    if len(known) == sum(part.group == group for part in parts.values()):
        words = f"[a section](#{anchor(group)})"
    else:
        words = ", ".join(f"[{part.kind}](#{anchor(part.title)})" for part in known)
    resolved = resolve(spec, schema)
    if resolved.get("type") == "array":
        words = f"a list, each item {words}"
    return words + (" or null" if {"type": "null"} in resolved.get("anyOf", ()) else "")


if __name__ == "__main__":
    sys.stdout.write(reference())
