"""Study files, right and wrong: the lines that a person sees are asserted as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.errors import StudyError
from sweeper.space import Choice, Int, Log, Uniform
from sweeper.study import Study, load_study
from sweeper.study_file import Asha, Hyperband, Median, NoPruner, Patient

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))

AUGMENTS = (
    "random_crop, random_resized_crop, horizontal_flip, vertical_flip, rotation, affine, color_jitter, erasing, "
    "rand_augment, trivial_augment, random_deletion, random_swap, random_insertion, synonym_replacement, "
    "back_translation or custom"
)
OPTIMIZERS = "sgd, adam, adamw, nadam, radam, rmsprop, adagrad or muon"

MINIMAL = """\
study: small
data: {source: digits}
model: {build: mlp}
"""

DESIGN = """\
study: fashion
seed: 0
data:
  source: torchvision.datasets:FashionMNIST
  validation: 0.1
  augment: [random_crop, horizontal_flip]
  mix: {choice: [none, mixup, cutmix]}
model:
  build: small_resnet
  width: {choice: [16, 32]}
train:
  epochs: 12
  batch_size: {choice: [128, 256, 512]}
  optimizer:
    choice:
      - {name: sgd, lr: {log: [0.01, 1.0]}, momentum: {uniform: [0.8, 0.98]}, weight_decay: {log: [1.0e-5, 1.0e-2]}}
      - {name: adamw, lr: {log: [1.0e-4, 1.0e-2]}}
  schedule: {name: one_cycle, warmup: 0.2}
  precision: bf16
  ema: {decay: 0.999}
search:
  sampler: tpe
  trials: 50
  metric: validation.accuracy
  pruner: {name: hyperband}
workers: {concurrent: 4, gpus: 0.5}
average: {best_n: 3}
"""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str) -> Study:
    Path("study.yaml").write_text(text)
    return load_study("study.yaml")


def faults(text: str) -> list[str]:
    with pytest.raises(StudyError) as caught:
        load(text)
    return str(caught.value).splitlines()


def with_train(train: str) -> str:
    return f"{MINIMAL}train: {train}\n"


def test_the_study_of_the_design_loads() -> None:
    study = load(DESIGN)
    assert (study.name, study.seed, study.max_epochs) == ("fashion", 0, 12)
    assert (study.text, study.path) == (DESIGN, Path("study.yaml").resolve())
    assert (study.search.sampler, study.search.trials, study.search.metric) == ("tpe", 50, "validation.accuracy")
    assert study.search.pruner == Hyperband(name="hyperband", min_epochs=1, reduction=3)
    assert (study.workers.concurrent, study.workers.cpus, study.workers.gpus) == (4, 1.0, 0.5)
    assert {parameter.name: parameter.distribution for parameter in study.space.parameters} == {
        "data.mix": Choice(("none", "mixup", "cutmix"), ("none", "mixup", "cutmix")),
        "model.width": Choice((16, 32), (16, 32)),
        "train.batch_size": Choice((128, 256, 512), (128, 256, 512)),
        "train.optimizer": Choice(
            (
                {
                    "name": "sgd",
                    "lr": Log(0.01, 1.0),
                    "momentum": Uniform(0.8, 0.98),
                    "weight_decay": Log(1e-5, 1e-2),
                },
                {"name": "adamw", "lr": Log(1e-4, 1e-2)},
            ),
            ("sgd", "adamw"),
        ),
        "train.optimizer[sgd].lr": Log(0.01, 1.0),
        "train.optimizer[sgd].momentum": Uniform(0.8, 0.98),
        "train.optimizer[sgd].weight_decay": Log(1e-5, 1e-2),
        "train.optimizer[adamw].lr": Log(1e-4, 1e-2),
    }


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_example_studies_load(path: Path) -> None:
    study = load_study(path)
    assert study.name == path.stem
    first = study.space.decide(lambda parameter: parameter.distribution.probes()[0])
    recipe = study.space.recipe(first.sections, seed=1, metric=study.search.metric)
    assert recipe.train.epochs <= study.max_epochs


def test_what_is_not_said_has_its_default() -> None:
    study = load(MINIMAL)
    assert (study.seed, study.max_epochs, study.space.parameters, study.start_with) == (0, 10, (), ())
    assert (study.search.sampler, study.search.trials, study.search.pruner.name) == ("tpe", 20, "hyperband")
    assert (study.workers.concurrent, study.workers.cpus, study.workers.gpus) == (None, 1.0, None)


@pytest.mark.parametrize(
    ("text", "pruner"),
    [
        ("{name: none}", NoPruner(name="none")),
        ("{name: median}", Median(name="median", startup_trials=5, warmup_epochs=1)),
        ("{name: asha}", Asha(name="asha", min_epochs=1, reduction=3)),
        ("{name: hyperband}", Hyperband(name="hyperband", min_epochs=1, reduction=3)),
        ("{name: patient}", Patient(name="patient", patience_epochs=3, min_delta=0.0)),
    ],
)
def test_pruners(text: str, pruner: object) -> None:
    assert load(f"{MINIMAL}search: {{pruner: {text}}}\n").search.pruner == pruner


def test_all_faults_at_once_in_the_order_of_the_file() -> None:
    text = """\
study: ../x
sede: 0
data:
  source: digts
  validation: 0.0
  augment: [random_crop, flip]
  mix: {choice: [none, mixupp]}
  mix: none
model:
  choice:
    - {build: small_resnet, blocks: {int: [0, 4]}, width: {log: [8, 32]}}
    - {build: mpl}
    - {build: "a:b-c"}
    - {width: 3}
train:
  epochs: ten
  batch_size: {choice: [128, 0, 128]}
  accumulate: {int: [1, 6], step: 2}
  optimizer:
    choice:
      - {name: sgd, momentum: {uniform: [0.8, 1.0]}, lr: {log: [0, 1.0]}}
      - {name: adamw, lr: {unifrom: [1.0e-4, 1.0e-2]}, momentum: 0.9}
  schedule: {nam: one_cycle, warmup: 0.2}
  precision: bf32
  ema: 3
  clip_norm: -1
  early_stop:
    patience: 3
search:
  sampler: tpee
  trials: {int: [1, 3]}
  pruner: {name: hyperbnd}
workers: {concurrent: no, gpus: 1.5}
average: {best_n: 3, soup: greedy}
"""
    kinds = "linear, mlp, small_convnet, small_resnet, text_bag, text_gru, text_transformer or module:function"
    assert faults(text) == [
        "study.yaml:1:8: study: found '../x', expected at most 64 letters, digits, '.', '_' and '-', beginning with "
        "a letter or digit and without '..'",
        "study.yaml:2:1: sede: found unknown key 'sede', expected study, seed, data, model, train, search, workers, "
        "average, finish or storage; did you mean 'seed'?",
        "study.yaml:4:11: data.source: found 'digts', expected digits, npz:PATH, folder:PATH, csv:PATH, parquet:PATH "
        "or module:function; did you mean 'digits'?",
        "study.yaml:5:15: data.validation: found 0.0, expected a number > 0 and < 1",
        f"study.yaml:6:26: data.augment[1]: found 'flip', expected {AUGMENTS}; "
        "did you mean 'horizontal_flip' or 'vertical_flip'?",
        "study.yaml:7:24: data.mix.choice[1]: found 'mixupp', expected none, mixup, cutmix or mixup_or_cutmix; "
        "did you mean 'mixup'?",
        "study.yaml:8:3: data.mix: found the key again (first on line 7), expected it once",
        "study.yaml:11:37: model.choice[0].blocks: found {int: [0, 4]}, expected a whole number >= 1",
        "study.yaml:11:59: model.choice[0].width: found {log: [8, 32]}, expected a whole number >= 1; "
        "write int for whole numbers",
        f"study.yaml:12:15: model.choice[1].build: found 'mpl', expected {kinds}; did you mean 'mlp'?",
        f"study.yaml:13:15: model.choice[2].build: found 'a:b-c', expected {kinds}",
        f"study.yaml:14:7: model.choice[3].build: found nothing, expected {kinds}",
        "study.yaml:16:11: train.epochs: found 'ten', expected a whole number >= 1",
        "study.yaml:17:30: train.batch_size.choice[1]: found 0, expected a whole number >= 1",
        "study.yaml:17:33: train.batch_size.choice[2]: found 128 again (as option 0), expected it once",
        "study.yaml:18:35: train.accumulate.step: found 2, expected a step that divides high - low = 5",
        "study.yaml:21:31: train.optimizer.choice[0].momentum: found {uniform: [0.8, 1.0]}, "
        "expected a number >= 0 and < 1",
        "study.yaml:21:65: train.optimizer.choice[0].lr.log[0]: found 0, expected a low end > 0 for a log range",
        "study.yaml:22:28: train.optimizer.choice[1].lr.unifrom: found unknown key 'unifrom', expected choice, int, "
        "uniform or log; did you mean 'uniform'?",
        "study.yaml:22:56: train.optimizer.choice[1].momentum: found unknown key 'momentum', expected name, "
        "weight_decay, decay_all, lr, beta1, beta2 or eps",
        "study.yaml:23:13: train.schedule.name: found nothing, expected constant, step, multi_step, exponential, "
        "cyclic, cosine, cosine_restarts, polynomial, one_cycle or sequence; is 'nam' meant as 'name'?",
        "study.yaml:24:14: train.precision: found 'bf32', expected fp32, tf32, bf16 or fp16; did you mean 'tf32'?",
        "study.yaml:25:8: train.ema: found 3, expected a section or null",
        "study.yaml:26:14: train.clip_norm: found -1, expected a number > 0 or null",
        "study.yaml:28:5: train.early_stop.patience: found unknown key 'patience', expected patience_epochs, "
        "min_delta or metric; did you mean 'patience_epochs'?",
        "study.yaml:30:12: search.sampler: found 'tpee', expected tpe or random; did you mean 'tpe'?",
        "study.yaml:31:11: search.trials: found {int: [1, 3]}, expected a whole number >= 1; "
        "ranges stand only in data, model, train and average",
        "study.yaml:32:18: search.pruner.name: found 'hyperbnd', expected none, median, asha, hyperband or patient; "
        "did you mean 'hyperband'?",
        "study.yaml:33:23: workers.concurrent: found 'no', expected a whole number >= 1 or null",
        "study.yaml:33:33: workers.gpus: found 1.5, expected a whole number when above 1",
        "study.yaml:34:22: average.soup: found unknown key 'soup', expected best_n, trunk_epochs or batch_norm_samples",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "study.yaml:1:1: found an empty file, expected a study"),
        ("- 1\n", "study.yaml:1:1: found [1], expected a study: sections such as data and model"),
        ("just text\n", "study.yaml:1:1: found 'just text', expected a study: sections such as data and model"),
        (f"{MINIMAL}---\n{MINIMAL}", "study.yaml:4:1: found a second document, expected one a file"),
        ("study:\n\tx: 1\n", "study.yaml:2:1: found a tab, expected spaces: YAML allows no tabs for indentation"),
        (
            MINIMAL.replace("small", "123"),
            "study.yaml:1:8: study: found 123, expected at most 64 letters, digits, '.', '_' and '-', beginning with "
            "a letter or digit and without '..'; put it in quotes: \"123\"",
        ),
        (MINIMAL + "seed: -1\n", "study.yaml:4:7: seed: found -1, expected a whole number >= 0"),
        (MINIMAL + "train:\n", "study.yaml:4:7: train: found null, expected a section"),
        (MINIMAL + "train: [1]\n", "study.yaml:4:8: train: found [1], expected a section"),
        (
            with_train("{data_parallel: {choice: [4, 3]}}") + "workers: {nodes: 2}\n",
            "study.yaml:4:37: train.data_parallel.choice[1]: found 3, expected a multiple of workers.nodes, 2, or "
            "nothing",
        ),
        (
            MINIMAL + "workers: {nodes: 0}\n",
            "study.yaml:4:18: workers.nodes: found 0, expected a whole number >= 1",
        ),
        (with_train("{epochs: 2.0}"), "study.yaml:4:17: train.epochs: found 2.0, expected a whole number >= 1"),
        (with_train("{epochs: true}"), "study.yaml:4:17: train.epochs: found true, expected a whole number >= 1"),
        (with_train("{ema: {warmup: yes}}"), "study.yaml:4:23: train.ema.warmup: found 'yes', expected true or false"),
        (
            with_train("{optimizer: sgd}"),
            "study.yaml:4:20: train.optimizer: found 'sgd', expected a section such as {name: sgd}",
        ),
        (
            with_train("{optimizer: {name: sgd}}"),
            "study.yaml:4:20: train.optimizer.lr: found nothing, expected a number > 0",
        ),
        (
            with_train("{optimizer: {name: adam, lr: .inf}}"),
            "study.yaml:4:37: train.optimizer.lr: found Infinity, expected a number > 0",
        ),
        (
            with_train("{optimizer: {name: 3}}"),
            f"study.yaml:4:27: train.optimizer.name: found 3, expected {OPTIMIZERS}",
        ),
        (
            with_train("{optimizer: {name: {choice: [sgd, sdg]}, lr: 0.1}}"),
            f"study.yaml:4:42: train.optimizer.name.choice[1]: found 'sdg', expected {OPTIMIZERS}; did you mean 'sgd'?",
        ),
        (
            with_train("{optimizer: {name: {choice: [sgd, adam]}, lr: 0.1, momentum: 0.9}}"),
            "study.yaml:4:59: train.optimizer.momentum: found unknown key 'momentum', expected name, "
            "weight_decay, decay_all, lr, beta1, beta2 or eps",
        ),
        # 1.0 is a good warm-up for cosine but not for one-cycle: found although neither end nor option alone shows it.
        (
            with_train("{schedule: {name: {choice: [cosine, one_cycle]}, warmup: {uniform: [0.2, 1.0]}}}"),
            "study.yaml:4:65: train.schedule.warmup: found {uniform: [0.2, 1.0]}, expected a number > 0 and < 1",
        ),
        (
            with_train("{batch_size: {uniform: [8, 16]}}"),
            "study.yaml:4:21: train.batch_size: found {uniform: [8, 16]}, expected a whole number >= 1; "
            "write int for whole numbers",
        ),
        (
            with_train("{batch_size: [8, 16]}"),
            "study.yaml:4:21: train.batch_size: found [8, 16], expected a whole number >= 1",
        ),
        (
            with_train("{bach: {choice: [1, 2]}}"),
            "study.yaml:4:9: train.bach: found unknown key 'bach', expected epochs, batch_size, micro_batch, "
            "accumulate, loss, optimizer, schedule, lr_finder, precision, clip_norm, clip_value, ema, swa, early_stop, "
            "data_parallel, compile, channels_last or pictures",
        ),
        (
            with_train("{loss: {name: bce, label_smoothing: {choice: [0.0, {uniform: [0.5, 1.5]}]}}}"),
            "study.yaml:4:59: train.loss.label_smoothing.choice[1]: found {uniform: [0.5, 1.5]}, "
            "expected a number >= 0 and < 1",
        ),
        (
            with_train("{epochs: {int: [2, 8]}}") + "search: {pruner: {name: asha, min_epochs: 9}}\n",
            "study.yaml:5:43: search.pruner.min_epochs: found 9, expected at most the epochs of a trial, 8",
        ),
        (
            with_train("{epochs: {int: [2, 8]}}") + "search: {start_with: [{train.epochs: 9}]}\n",
            "study.yaml:5:38: search.start_with[0].train.epochs: found 9, expected a whole number from 2 to 8",
        ),
        (
            MINIMAL + "search: {start_with: {}}\n",
            "study.yaml:4:22: search.start_with: found {}, expected a list, each item a section",
        ),
        (
            MINIMAL.replace("digits}", "digits, validation: {uniform: [0.1, 0.2]}}"),
            "study.yaml:2:36: data.validation: found a range, expected one value: trials are compared on one "
            "selection split",
        ),
        (
            MINIMAL.replace("{source: digits}", "{choice: [{source: digits}, {source: digits, seed: 1}]}"),
            "study.yaml:2:58: data.choice[1].seed: found a range, expected one value: trials are compared on one "
            "selection split",
        ),
        (
            MINIMAL.replace("digits}", "digits, confirm: {uniform: [0.1, 0.2]}}"),
            "study.yaml:2:33: data.confirm: found a range, expected one value: trials are compared on one "
            "selection split",
        ),
        (
            MINIMAL.replace("digits}", "digits, confirm: 0.0}") + "finish: {}\n",
            "study.yaml:2:33: data.confirm: found 0, expected more than 0 in a study with finish; leave it out for 0.5",
        ),
        (
            with_train("{epochs: {int: [2, 8]}}") + "average: {trunk_epochs: 2}\n",
            "study.yaml:5:25: average.trunk_epochs: found 2, expected less than train.epochs (2), of which it takes "
            "the first",
        ),
        (
            MINIMAL + "recipe: {seed: 1}\n",
            "study.yaml:4:1: recipe: found unknown key 'recipe', expected study, seed, data, model, train, search, "
            "workers, average, finish or storage",
        ),
    ],
)
def test_one_fault_gives_one_line(text: str, line: str) -> None:
    assert faults(text) == [line]


@pytest.mark.parametrize(
    ("data", "confirm"),
    [
        ("data: {source: digits}", 0.5),
        ("data: {source: digits, confirm: 0.3}", 0.3),
        ("data: {choice: [{source: digits}, {source: digits, mix: mixup}]}", 0.5),
    ],
)
def test_a_study_with_finish_sets_examples_aside_to_confirm_on(data: str, confirm: float) -> None:
    def confirms(text: str) -> set[float]:
        return {
            load(text).space.decide(pick).sections["data"].get("confirm", 0.0)
            for pick in (lambda p: p.distribution.labels[0], lambda p: p.distribution.labels[-1])
        }

    text = MINIMAL.replace("data: {source: digits}", data)
    assert confirms(text + "finish: {}\n") == {confirm}
    assert confirms(text) == {0.3 if "confirm" in data else 0.0}


def with_augment(augment: str) -> str:
    return f"study: small\ndata:\n  source: digits\n  augment: {augment}\nmodel: {{build: small_convnet}}\n"


@pytest.mark.parametrize(
    ("augment", "line"),
    [
        ("[custom]", "4:13: data.augment[0].function: found nothing, expected module:function"),
        (
            "[random_crop, {name: rotate}]",
            f"4:33: data.augment[1].name: found 'rotate', expected {AUGMENTS}; did you mean 'rotation'?",
        ),
        (
            "[{nam: rotation}]",
            f"4:13: data.augment[0].name: found nothing, expected {AUGMENTS}; is 'nam' meant as 'name'?",
        ),
        (
            "[{name: rotation, degree: 3}]",
            "4:30: data.augment[0].degree: found unknown key 'degree', expected name or degrees; "
            "did you mean 'degrees'?",
        ),
        (
            "[random_crop, {name: rotation, degrees: {uniform: [0, 181]}}]",
            "4:52: data.augment[1].degrees: found {uniform: [0, 181]}, expected a number >= 0 and <= 180",
        ),
        (
            "[{name: {choice: [horizontal_flip, vertical_flop]}}]",
            f"4:47: data.augment[0].name.choice[1]: found 'vertical_flop', expected {AUGMENTS}; "
            "did you mean 'vertical_flip'?",
        ),
        (
            "{choice: [[random_crop], [flip]]}",
            f"4:38: data.augment.choice[1][0]: found 'flip', expected {AUGMENTS}; "
            "did you mean 'horizontal_flip' or 'vertical_flip'?",
        ),
        (
            "[null]",
            "4:13: data.augment[0]: found null, expected a section such as {name: random_crop}, or its name alone",
        ),
        (
            "random_crop",
            "4:12: data.augment: found 'random_crop', expected a list, each item a section such as "
            "{name: random_crop}, or its name alone",
        ),
        # Behind an item that is left out, places in the recipe are not those in the file.
        (
            "[{choice: [null, random_crop]}, {choice: [null, {name: rotation, degrees: 200}]}]",
            "4:86: data.augment[1].choice[1].degrees: found 200, expected a number >= 0 and <= 180",
        ),
        (
            "[{choice: [random_crop, {name: erasing, min_area: {uniform: [0.1, 0.5]}}]}]",
            "4:62: data.augment[0].choice[1].min_area: found 0.5, expected at most max_area, 0.33",
        ),
    ],
)
def test_mistakes_in_a_list_of_sections(augment: str, line: str) -> None:
    assert faults(with_augment(augment)) == [f"study.yaml:{line}"]


@pytest.mark.parametrize(
    ("train", "line"),
    [
        ("{loss: focal}", "4:15: train.loss: found 'focal', expected a section such as {name: cross_entropy} or null"),
        (
            "{loss: {name: focall}}",
            "4:22: train.loss.name: found 'focall', expected cross_entropy, focal, bce, mse or huber; "
            "did you mean 'focal'?",
        ),
        (
            "{loss: {gamma: 2}}",
            "4:15: train.loss.name: found nothing, expected cross_entropy, focal, bce, mse or huber",
        ),
        (
            "{loss: {name: {choice: [focal, mse]}}}",
            "4:39: train.loss.name.choice[1]: found 'mse', expected cross_entropy, focal or bce: "
            "the task is classification",
        ),
        (
            "{loss: {name: focal, class_weights: balansed}}",
            "4:44: train.loss.class_weights: found 'balansed', expected none, balanced or a list, "
            "each item a number > 0",
        ),
        (
            "{loss: {name: focal, class_weights: 3}}",
            "4:44: train.loss.class_weights: found 3, expected none, balanced or a list, each item a number > 0",
        ),
        (
            "{loss: {name: focal, class_weights: [1, 0]}}",
            "4:48: train.loss.class_weights[1]: found 0, expected a number > 0",
        ),
        (
            "{schedule: {name: sequence, parts: [{share: 1, schedule: {name: sequence}}]}}",
            "4:72: train.schedule.parts[0].schedule.name: found 'sequence', expected constant, step, multi_step, "
            "exponential, cyclic, cosine, cosine_restarts, polynomial or one_cycle",
        ),
        (
            "{schedule: {name: sequence, parts: [{share: {uniform: [0.5, 2]}, schedule: {name: constant}}]}}",
            "4:52: train.schedule.parts[0].share: found {uniform: [0.5, 2]}, expected a number > 0 and <= 1",
        ),
        (
            "{schedule: {name: sequence, parts: []}}",
            "4:43: train.schedule.parts: found [], expected a list with at least one item, each item a section",
        ),
        (
            "{schedule: {name: multi_step, at: [0.3, 1.0]}}",
            "4:48: train.schedule.at[1]: found 1.0, expected a number > 0 and < 1",
        ),
        (
            "{ema: {choice: [null, {decay: {uniform: [0.9, 1.0]}}]}}",
            "4:38: train.ema.choice[1].decay: found {uniform: [0.9, 1.0]}, expected a number > 0 and < 1",
        ),
        (
            "{swa: {lr: {choice: [null, 2]}}}",
            "4:35: train.swa.lr.choice[1]: found 2, expected a number > 0 and <= 1 or null",
        ),
        (
            "{epochs: {int: [1, 3]}, lr_finder: {start: {log: [0.1, 20]}}}",
            "4:51: train.lr_finder.start: found 20, expected less than end, 10",
        ),
    ],
)
def test_mistakes_in_nested_sections(train: str, line: str) -> None:
    assert faults(with_train(train)) == [f"study.yaml:{line}"]


TABLE = "study: small\ndata: {source: 'csv:a.csv', target: y, task: regression}\nmodel: {build: mlp}\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            TABLE + "search: {metric: validation.accuracy}\n",
            [
                "4:18: search.metric: found 'validation.accuracy', expected validation.mae, validation.rmse, "
                "validation.r2 or validation.loss: the task is regression"
            ],
        ),
        (
            TABLE.replace(", target: y", ""),
            ["2:7: data.target: found nothing, expected the column of csv:a.csv that is predicted"],
        ),
        (
            TABLE.replace("target: y", "target: {choice: [y, z]}"),
            ["2:37: data.target: found a range, expected one value: trials are compared on one selection split"],
        ),
        (
            TABLE.replace("mlp", "small_resnet") + "train: {loss: {name: bce}}\n",
            [
                "3:16: model.build: found 'small_resnet', expected linear or mlp: csv:a.csv has no images",
                "4:22: train.loss.name: found 'bce', expected mse or huber: the task is regression",
            ],
        ),
        (
            "study: small\ndata: {source: digits}\n"
            "model: {build: a:b, pretrained: {weights: x.pt, freezes: [body], unfreeze_after_epochs: 3}}\n",
            [
                "3:49: model.pretrained.freezes: found unknown key 'freezes', expected weights, head, freeze, "
                "unfreeze_after_epochs, body_lr or normalisation; did you mean 'freeze'?"
            ],
        ),
        (
            "study: small\ndata: {source: digits}\nmodel: {build: mlp, pretrained: {weights: 'models:/digits'}}\n",
            [
                "3:43: model.pretrained.weights: found 'models:/digits', expected models:/NAME@ALIAS or "
                "models:/NAME/VERSION"
            ],
        ),
        (
            "study: small\ndata: {source: digits}\n"
            "model: {build: a:b, pretrained: {weights: x.pt, unfreeze_after_epochs: 3}}\n",
            ["3:72: model.pretrained.unfreeze_after_epochs: found 3, expected freeze beside it: nothing is frozen"],
        ),
    ],
)
def test_values_that_do_not_go_together(text: str, lines: list[str]) -> None:
    assert faults(text) == [f"study.yaml:{line}" for line in lines]


def test_the_metric_left_out_is_that_of_the_task() -> None:
    assert load(MINIMAL).search.metric == "validation.accuracy"
    assert load(TABLE).search.metric == "validation.loss"
    assert load(TABLE + "search: {trials: 3}\n").search.metric == "validation.loss"
    assert load(TABLE + "search: {metric: validation.r2}\n").search.metric == "validation.r2"


def test_what_the_network_sees_of_an_example_may_vary() -> None:
    images = "study: small\ndata: {source: 'folder:a', image_size: {choice: [32, 64]}}\nmodel: {build: a:b}\n"
    assert [parameter.name for parameter in load(images).space.parameters] == ["data.image_size"]
    table = TABLE.replace("target: y", "target: y, drop: {choice: [[], [id]]}, train_fraction: {uniform: [0.1, 1]}")
    assert [parameter.name for parameter in load(table).space.parameters] == ["data.drop", "data.train_fraction"]


def test_missing_sections_are_named() -> None:
    assert faults("seed: 1\n") == [
        "study.yaml:1:1: data: found nothing, expected a section",
        "study.yaml:1:1: model: found nothing, expected a section such as {build: linear}",
        "study.yaml:1:1: study: found nothing, expected at most 64 letters, digits, '.', '_' and '-', beginning with "
        "a letter or digit and without '..'",
    ]


def test_a_fault_in_an_alias_stands_where_the_anchor_does() -> None:
    text = "study: s\ndata: {source: digits}\nmodel: {build: mlp}\ntrain: {ema: {decay: &d 2}, swa: {start: *d}}\n"
    assert faults(text) == [
        "study.yaml:4:22: train.ema.decay: found 2, expected a number > 0 and < 1",
        "study.yaml:4:22: train.swa.start: found 2, expected a number >= 0 and < 1",
    ]


def test_files_that_cannot_be_read() -> None:
    with pytest.raises(StudyError) as caught:
        load_study("none.yaml")
    assert str(caught.value) == (
        "none.yaml: found no such file, expected a study; `sweeper init` writes one to start from"
    )
    with pytest.raises(
        StudyError, match=r"^\.: found a file that cannot be read \(Is a directory\), expected a study$"
    ):
        load_study(".")
    Path("latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(StudyError) as caught:
        load_study("latin.yaml")
    assert str(caught.value) == "latin.yaml:2:4: found the byte 0xe9, expected text in UTF-8"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["a", "a.b", "7x", "a_b-c.d", "x" * 64])
def test_good_names(name: str) -> None:
    assert load(MINIMAL.replace("small", name)).name == name


@pytest.mark.parametrize("name", ["''", ".a", "-a", "_a", "a..b", "a/b", "a b", "x" * 65, "é"])
def test_bad_names(name: str) -> None:
    assert [
        line.split(",")[0][: len("study.yaml:1:8: study: found")] for line in faults(MINIMAL.replace("small", name))
    ] == ["study.yaml:1:8: study: found"]


def test_the_digest_is_of_what_the_file_says() -> None:
    same = "# a comment\nstudy: 'small'\ndata:\n    source: digits\nmodel:\n    build: mlp\n"
    assert load(same).digest == load(MINIMAL).digest
    assert load(MINIMAL + "seed: 1\n").digest != load(MINIMAL).digest
    assert load(MINIMAL.replace("mlp", "linear")).digest != load(MINIMAL).digest
    elsewhere = load(MINIMAL + "workers: {cpus: 2}\nstorage: {extendable: 0}\n")
    assert elsewhere.digest == load(MINIMAL).digest
    assert (elsewhere.storage.extendable, load(MINIMAL).storage.extendable) == (0, 5)


def test_what_a_file_said_before_is_read_as_if_it_still_said_so(tmp_path: Path) -> None:
    before = load_study(tmp_path / "gone.yaml", MINIMAL.replace("digits", "'npz:a.npz'"))
    assert (before.path, before.text) == (tmp_path / "gone.yaml", MINIMAL.replace("digits", "'npz:a.npz'"))
    assert before.space.decide(lambda _: None).sections["data"]["source"] == f"npz:{tmp_path}/a.npz"
    with pytest.raises(StudyError, match=r"gone\.yaml:\d+:\d+: data\.source: "):
        load_study(tmp_path / "gone.yaml", MINIMAL.replace("digits", "digts"))


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    Path("deep").mkdir()
    Path("deep/study.yaml").write_text(MINIMAL.replace("digits", "'npz:../a.npz'"))
    sections = load_study("deep/study.yaml").space.decide(lambda _: None).sections
    assert sections["data"]["source"] == f"npz:{tmp_path}/a.npz"


@pytest.mark.parametrize(
    ("epochs", "most"),
    [("7", 7), ("{int: [2, 8]}", 8), ("{choice: [5, 9, 3]}", 9), ("{choice: [1, {int: [2, 20]}]}", 20)],
)
def test_the_most_epochs_of_any_trial(epochs: str, most: int) -> None:
    assert load(with_train(f"{{epochs: {epochs}}}")).max_epochs == most


def test_points_to_start_with() -> None:
    text = DESIGN.replace(
        "  trials: 50\n", "  trials: 50\n  start_with:\n    - {train.optimizer: sgd, train.optimizer.lr: 0.1}\n"
    )
    assert load(text).start_with == ({"train.optimizer": "sgd", "train.optimizer[sgd].lr": 0.1},)


def test_ranges_of_whole_numbers() -> None:
    study = load(with_train("{batch_size: {int: [16, 64], step: 16}, epochs: {int: [1, 100], log: true}}"))
    assert [parameter.distribution for parameter in study.space.parameters] == [
        Int(16, 64, step=16),
        Int(1, 100, log=True),
    ]


def test_reading_a_study_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(DESIGN)
    program = (
        "import sys, sweeper.study, sweeper.schema\n"
        "sweeper.schema.study_schema()\n"
        "sweeper.study.load_study('study.yaml')\n"
        "print(*sorted({'torch', 'ray', 'mlflow', 'optuna', 'sqlalchemy', 'numpy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
