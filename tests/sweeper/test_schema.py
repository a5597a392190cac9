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
        HEAD + "train: {loss: {name: bce, label_smoothing: {choice: [0.0, {uniform: [0.01, 0.1]}]}}}\n",
        HEAD + "train: {loss: {name: bce, label_smoothing: {choice: [0.0, {choice: [0.1, {uniform: [0.2, 0.3]}]}]}}}\n",
        HEAD + "train: {loss: null, swa: {lr: {choice: [null, {log: [0.01, 1]}]}}}\n",
        HEAD + "train: {loss: {choice: [null, {name: focal, gamma: {uniform: [0, 5]}}]}}\n",
        HEAD + "train: {loss: {name: {choice: [focal, bce]}, class_weights: {choice: [none, balanced, [1.0, 2]]}}}\n",
        HEAD + "train: {loss: {name: focal, class_weights: [{log: [0.5, 2]}, 1.0]}}\n",
        HEAD + "train: {schedule: {name: multi_step, at: [0.2, {choice: [null, {uniform: [0.5, 0.9]}]}]}}\n",
        HEAD + "train: {schedule: {name: sequence, parts: [{share: 0.3, schedule: {name: constant}}, {share: 1, "
        "schedule: {choice: [{name: cosine}, {name: step, gamma: {uniform: [0.1, 0.5]}}]}, top: {log: [0.1, 1]}}]}}\n",
        HEAD + "train: {compile: true, lr_finder: {steps: {int: [10, 100]}}, early_stop: {metric: validation.loss}}\n",
        "study: s\ndata: {source: 'csv:a.csv', target: y, task: regression, drop: {choice: [[], [id]]}}\n"
        "model: {build: mlp}\nsearch: {metric: validation.rmse}\n",
        "study: s\ndata: {source: 'folder:a', image_size: {choice: [32, 64]}}\n"
        "model: {build: torchvision.models:resnet18, pretrained: {choice: [null, {weights: DEFAULT, freeze: [body], "
        "unfreeze_after_epochs: {int: [1, 5]}, body_lr: {log: [0.01, 1]}}]}}\n",
        "study: s\ndata: {source: digits, augment: [random_crop, {name: rotation, degrees: {uniform: [0, 30]}}]}\n"
        "model: {build: mlp}\n",
        "study: s\ndata: {source: digits, augment: [{name: {choice: [horizontal_flip, vertical_flip]}, "
        "probability: {uniform: [0, 1]}}, {choice: [null, trivial_augment, {name: rand_augment}]}]}\n"
        "model: {build: mlp}\n",
        "study: s\ndata: {source: digits, augment: [{name: custom, function: a.b:c, arguments: {log: 1}}]}\n"
        "model: {build: mlp}\n",
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
        "study: s\ndata: {source: digits, augment: [custom]}\nmodel: {build: mlp}\n",
        "study: s\ndata: {source: digits, augment: [null]}\nmodel: {build: mlp}\n",
        "study: s\ndata: {source: digits, augment: random_crop}\nmodel: {build: mlp}\n",
        "study: s\ndata: {source: digits, augment: [{name: rotation, degree: 3}]}\nmodel: {build: mlp}\n",
        "study: s\ndata: {source: digits, augment: [{name: rotation, degrees: {uniform: [0, 181]}}]}\n"
        "model: {build: mlp}\n",
        "study: s\ndata: {source: digits, augment: [{choice: [random_crop, flip]}]}\nmodel: {build: mlp}\n",
        "study: s\ndata: {source: digits}\nmodel: {build: a.b:c, pretrained: {freeze: [body]}}\n",
        "study: s\ndata: {source: digits}\nmodel: {build: a.b:c, pretrained: {weights: x.pt, freeze: body}}\n",
        HEAD + "train: {loss: {name: bce, label_smoothing: {uniform: [0.0, 1.0]}}}\n",
        HEAD + "train: {loss: {name: bce, gamma: 2}}\n",
        HEAD + "train: {loss: focal}\n",
        HEAD + "train: {loss: {name: focal, class_weights: balansed}}\n",
        HEAD + "train: {loss: {name: focal, class_weights: [1, 0]}}\n",
        HEAD + "train: {schedule: {name: multi_step, at: []}}\n",
        HEAD + "train: {schedule: {name: sequence, parts: []}}\n",
        HEAD + "train: {schedule: {name: sequence, parts: [{share: 1, schedule: {name: sequence}}]}}\n",
        HEAD + "search: {metric: validation.f1}\n",
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
    fields = [name for name in schema["$defs"] if "." in name]
    sections = {name.partition(".")[0] for name in fields} & set(schema["$defs"])
    assert len(sections) > 50, "all sections of a recipe"
    for name in sections:
        for field, spec in schema["$defs"][name]["properties"].items():
            assert spec["description"], f"{name}.{field}"
            *_, choice = schema["$defs"][f"{name}.{field}"]["anyOf"]
            assert choice["required"] == ["choice"], f"{name}.{field}"
