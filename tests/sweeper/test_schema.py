"""The JSON Schema accepts what loads and refuses what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sweeper.errors import StudyError
from sweeper.schema import study_schema
from sweeper.study import load_study
from sweeper.yaml_reader import read_yaml

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(study_schema())

HEAD = "study: s\ndata: {source: digits}\nmodel: {build: mlp}\n"


def accepts(text: str) -> bool:
    return bool(VALIDATOR.is_valid(read_yaml(text).data))


def loads(text: str, folder: Path) -> bool:
    path = folder / "study.yaml"
    path.write_text(text)
    try:
        load_study(path)
    except StudyError:
        return False
    return True


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(study_schema())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_example_studies_are_accepted(path: Path) -> None:
    assert list(VALIDATOR.iter_errors(read_yaml(path.read_text()).data)) == []


@pytest.mark.parametrize(
    "text",
    [
        HEAD,
        HEAD + "train: {epochs: {int: [2, 8]}}\n",
        HEAD + "train: {epochs: {int: [2, 8], step: 2, log: false}}\n",
        HEAD + "train: {label_smoothing: {choice: [0.0, {uniform: [0.01, 0.1]}]}}\n",
        HEAD + "train: {label_smoothing: {choice: [0.0, {choice: [0.1, {uniform: [0.2, 0.3]}]}]}}\n",
        HEAD + "train: {ema: {choice: [null, {decay: {uniform: [0.9, 0.99]}}]}}\n",
        HEAD + "train: {clip_norm: {choice: [null, 1.0, {log: [0.1, 10]}]}}\n",
        HEAD + "train: {optimizer: {choice: [{name: sgd, lr: {log: [0.01, 1]}}, {name: adamw}]}}\n",
        HEAD + "train: {optimizer: {name: {choice: [adam, adamw]}, lr: {log: [0.001, 0.1]}}}\n",
        HEAD + "train: {choice: [{epochs: 3}, {epochs: {int: [4, 5]}}]}\n",
        HEAD + "search: {pruner: {name: asha, reduction: 2}, start_with: [{}]}\nworkers: {gpus: 0.5}\n",
        "study: s\ndata: {source: 'npz:a.npz'}\nmodel: {choice: [{build: mlp}, {build: a.b:c}]}\n",
        "study: s\ndata: {source: digits, augment: [{choice: [random_crop, horizontal_flip]}]}\nmodel: {build: mlp}\n",
        "study: s\ndata: {source: digits, augment: {choice: [[], [random_crop]]}}\nmodel: {build: linear}\n",
        "study: s\ndata: {source: digits}\nmodel: {build: a.b:c, arguments: {log: true, widths: {choice: [1, [2]]}}}\n",
    ],
)
def test_what_loads_is_accepted(text: str, tmp_path: Path) -> None:
    assert loads(text, tmp_path)
    assert accepts(text)


@pytest.mark.parametrize(
    "text",
    [
        "study: s\ndata: {source: digits}\n",
        "study: a..b\ndata: {source: digits}\nmodel: {build: mlp}\n",
        "study: s\ndata: {source: digits}\nmodel: {build: mpl}\n",
        "study: s\ndata: {source: digits}\nmodel: {build: mlp, blocks: 3}\n",
        "study: s\ndata: {source: digits, validation: 1.0}\nmodel: {build: mlp}\n",
        "study: s\ndata: {source: digits, augment: [flip]}\nmodel: {build: mlp}\n",
        HEAD + "sede: 1\n",
        HEAD + "seed: {int: [1, 2]}\n",
        HEAD + "train: {epochs: 0}\n",
        HEAD + "train: {epochs: {uniform: [1, 2]}}\n",
        HEAD + "train: {epochs: {int: [0, 2]}}\n",
        HEAD + "train: {epochs: {int: [1, 2, 3]}}\n",
        HEAD + "train: {epochs: {int: [1, 3], stepp: 2}}\n",
        HEAD + "train: {epochs: {choice: []}}\n",
        HEAD + "train: {epochs: {choice: [1, two]}}\n",
        HEAD + "train: {label_smoothing: {uniform: [0.0, 1.0]}}\n",
        HEAD + "train: {clip_norm: {log: [0, 1]}}\n",
        HEAD + "train: {optimizer: {name: sgd}}\n",
        HEAD + "train: {optimizer: sgd}\n",
        HEAD + "train: {optimizer: {choice: [{name: adamw, momentum: 0.9}]}}\n",
        HEAD + "train: {optimizer: {choice: [{name: adam, lr: {log: [0, 1]}}]}}\n",
        HEAD + "train: {optimizer: {name: adam, weight_decay: {log: [0, 1]}}}\n",
        HEAD + "train: {precision: {uniform: [0, 1]}}\n",
        HEAD + "search: {trials: {int: [1, 2]}}\n",
        HEAD + "search: {pruner: {name: hyperbnd}}\n",
        HEAD + "workers: {cpus: 0}\n",
        HEAD + "average: {soup: greedy}\n",
    ],
)
def test_what_does_not_load_is_refused(text: str, tmp_path: Path) -> None:
    assert not loads(text, tmp_path)
    assert not accepts(text)


def test_every_field_of_a_recipe_says_what_it_is_and_takes_a_choice() -> None:
    schema: dict[str, Any] = study_schema()
    for name in ("Data", "Mlp", "SmallConvnet", "Imported", "Train", "Sgd", "AdamW", "OneCycle", "Ema", "Average"):
        for field, spec in schema["$defs"][name]["properties"].items():
            assert spec["description"], f"{name}.{field}"
            *_, choice = schema["$defs"][f"{name}.{field}"]["anyOf"]
            assert choice["required"] == ["choice"], f"{name}.{field}"
