"""docs/recipe.md says all there is to say, and nothing that is not so."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper.reference import anchor, reference, split_source
from sweeper.reference_examples import EXAMPLES
from sweeper.study import load_study
from sweeper.study_file import StudyFile
from sweeper.yaml_reader import read_yaml

PAGE = Path(__file__).parents[1] / "docs" / "recipe.md"
SCHEMA = StudyFile.model_json_schema()
SECTIONS: dict[str, Any] = {**SCHEMA["$defs"], "StudyFile": SCHEMA}

BASE = {
    "study": "study: example\n",
    "data": "data: {source: digits}\n",
    "model": "model: {build: small_convnet}\n",
}
"""What an example may leave out."""


def fields() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, section in SECTIONS.items():
        for key, spec in section["properties"].items():
            yield f"{name}.{key}", spec


def headings() -> list[str]:
    return re.findall(r"^##+ (.*)$", reference(), re.MULTILINE)


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "bring it up to date with: make docs"


def test_every_field_says_what_it_does_and_where_that_comes_from() -> None:
    """Whole sentences, then the source in brackets."""
    said = {name: split_source(spec["description"]) for name, spec in fields()}
    assert [name for name, (text, _) in said.items() if not re.fullmatch(r"[^\s].{10,}[.]", text)] == []
    assert [name for name, (_, source) in said.items() if not source] == []


def test_every_key_of_every_section_is_on_the_page_once() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", reference(), re.MULTILINE)
    keys = [key for section in SECTIONS.values() for key in section["properties"] if key not in ("name", "build")]
    assert sorted(rows) == sorted(keys)
    assert len(keys) > 150


def test_every_kind_has_a_heading_of_its_own() -> None:
    found = headings()
    assert len(set(map(anchor, found))) == len(found)
    kinds = [heading.rpartition(": ")[2] for heading in found if ": " in heading]
    tags = [
        section["properties"][tag].get("const", "module:function")
        for section in SECTIONS.values()
        for tag in ("name", "build")
        if tag in section["properties"]
    ]
    assert sorted(kinds) == sorted(tags)


def test_links_within_the_page_lead_somewhere() -> None:
    links = set(re.findall(r"\]\(#([^)]+)\)", reference()))
    assert links == set(map(anchor, headings()))


def test_defaults_and_ranges_are_those_of_the_code() -> None:
    page = reference()
    for row in (
        "| `lr` | `0.0003` | a number > 0 | Learning rate at the top of the schedule. | `torch.optim.Adam` |",
        "| `lr` | must be given | a number > 0 | Learning rate at the top of the schedule. | `torch.optim.SGD` |",
        "| `reduction` | `3` | a whole number >= 2 | One trial in this many goes on past a rung; rungs lie this factor "
        "apart. | [arXiv:1810.05934](https://arxiv.org/abs/1810.05934) |",
        "| `gpus` | `null` | a number >= 0 or null | GPUs for each trial, on each of its nodes, such as 0.5 for two "
        "trials on one. Left out, it is 1 where there are GPUs. On several a trial has a process each, unless "
        "`train.data_parallel` says otherwise. | `ray.remote` |",
    ):
        assert f"\n{row}\n" in page
    for beginning in (
        "| `augment` | `[]` | a list, each item [a section](#dataaugment) |",
        "| `optimizer` | `{name: adam}` | [a section](#trainoptimizer) |",
        "| `ema` | `null` | [a section](#trainema) or null |",
        "| `at` | `[0.5, 0.75]` | a list with at least one item, each item a number > 0 and < 1 |",
        "| `class_weights` | `none` | none, balanced or a list, each item a number > 0 |",
    ):
        assert f"\n{beginning}" in page


def test_every_section_and_kind_has_an_example_which_stands_there() -> None:
    assert set(EXAMPLES) == set(headings())
    assert re.findall(r"```yaml\n(.*?)```", reference(), re.DOTALL) == [EXAMPLES[heading] for heading in headings()]


@pytest.mark.parametrize("title", EXAMPLES)
def test_every_example_loads_and_shows_what_it_is_about(title: str, tmp_path: Path) -> None:
    example = EXAMPLES[title]
    said = read_yaml(example).data
    (tmp_path / "study.yaml").write_text("".join(text for key, text in BASE.items() if key not in said) + example)
    load_study(tmp_path / "study.yaml")
    group, _, kind = title.partition(": ")
    if group != "study.yaml":
        assert re.search(rf"\b{group.rpartition('.')[2]}:\s", example)
    if kind == "module:function":
        assert re.search(r"build: [\"\w.]+:\w+", example)
    elif kind:
        assert re.search(rf"\b(?:name|build): {kind}\b|\[null, {kind}\]", example)


NAMED_IN_CODE = sorted(
    {
        name
        for _, spec in fields()
        for name in re.findall(r"\b(?:torch|torchvision|optuna|ray)\.[\w.]*\w", split_source(spec["description"])[1])
    }
)


@pytest.mark.parametrize("name", NAMED_IN_CODE)
def test_what_a_source_names_in_code_exists(name: str) -> None:
    module, parts = name, []
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            parts.insert(0, last)
    for part in parts:
        found = getattr(found, part)


def test_papers_and_pages_are_links() -> None:
    page = reference()
    assert not re.search(r"(?<!\[)arXiv:\d", page), "each paper is a link"
    assert "<https://kellerjordan.github.io/posts/muon/>" in page
