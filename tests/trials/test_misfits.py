"""Values that can never work together: the line that each pair gives, and what gives none."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from trials.recipe import Recipe
from trials.recipe.misfits import Misfit, kind_of_examples, misfits

HOUSES = {"source": "csv:houses.csv", "target": "price"}
REVIEWS = {"source": "parquet:reviews.parquet", "target": "stars", "text": "review"}
WRITTEN = {"name": "back_translation", "there": "a:b", "back": "a:c"}
RESNET = "torchvision.models:resnet18"


def said(data: dict[str, Any], model: dict[str, Any], train: dict[str, Any], metric: str | None) -> list[str]:
    content: dict[str, Any] = {"data": data, "model": model, "train": train}
    return [str(misfit) for misfit in misfits(Recipe.model_validate(content | ({"metric": metric} if metric else {})))]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            {**HOUSES, "target": None},
            "data.target: found nothing, expected the column of csv:houses.csv that is predicted",
        ),
        (
            {"source": "digits", "target": "label"},
            "data.target: found 'label' with digits, expected a source with columns, csv:PATH or parquet:PATH",
        ),
        (
            {"source": "a:b", "drop": ["id", "zip"]},
            "data.drop: found ['id', 'zip'] with a:b, expected a source with columns, csv:PATH or parquet:PATH",
        ),
        ({**REVIEWS, "text": "stars"}, "data.text: found 'stars', expected another column than the target"),
        (
            {**HOUSES, "drop": ["id", "price"]},
            "data.drop[1]: found 'price', expected another column: it is the target",
        ),
        (
            {**HOUSES, "categorical": ["price"]},
            "data.categorical[0]: found 'price', expected another column: it is the target",
        ),
        (
            {**REVIEWS, "drop": ["review"]},
            "data.drop[0]: found 'review', expected another column: it is the text",
        ),
        ({**HOUSES, "image_size": 32}, "data.image_size: found 32, expected none: csv:houses.csv has no images"),
        (
            {"source": "digits", "arguments": {"n_class": 3}},
            "data.arguments: found n_class, expected none: only functions and data sets take any",
        ),
        (
            {"source": "npz:a.npz", "arguments": {"a": 3, "b": 4}},
            "data.arguments: found a, b, expected none: only functions and data sets take any",
        ),
        (
            {**HOUSES, "augment": ["random_swap", "erasing"]},
            "data.augment[0]: found 'random_swap', expected no change of texts: csv:houses.csv has none; say which "
            "column by data.text",
        ),
        (
            {"source": "folder:photos", "augment": ["random_deletion"]},
            "data.augment[0]: found 'random_deletion', expected no change of texts: folder:photos has none",
        ),
        (
            {**REVIEWS, "augment": [WRITTEN, "random_swap", WRITTEN]},
            "data.augment[2]: found 'back_translation' again, expected it once",
        ),
        (
            {"source": "a:b", "augment": [{"name": "erasing", "min_area": 0.5}]},
            "data.augment[0].min_area: found 0.5, expected at most max_area, 0.33",
        ),
        (
            {"source": "a:b", "image_size": 8, "augment": ["horizontal_flip", {"name": "random_crop", "padding": 8}]},
            "data.augment[1].padding: found 8, expected less than the image's side, 8",
        ),
        (
            {"source": "a:b", "task": "regression", "augment": [{"name": "vertical_flip", "except_classes": ["6"]}]},
            "data.augment[0].except_classes: found ['6'], expected none: in regression there are no classes",
        ),
        ({**REVIEWS, "mix": "mixup"}, "data.mix: found 'mixup', expected none: words cannot be blended"),
        (
            {**HOUSES, "mix": "mixup_or_cutmix"},
            "data.mix: found 'mixup_or_cutmix', expected none or mixup: csv:houses.csv has no images to cut",
        ),
    ],
)
def test_data_that_contradict_themselves(data: dict[str, Any], line: str) -> None:
    model = {"build": "a:net"}
    assert said(data, model, {}, None)[:1] == [line]


@pytest.mark.parametrize("name", ["random_crop", "rotation", "trivial_augment"])
@pytest.mark.parametrize("data", [HOUSES, REVIEWS])
def test_changes_of_images_need_images(data: dict[str, Any], name: str) -> None:
    source = data["source"]
    assert said({**data, "augment": [name]}, {"build": "a:net"}, {}, None) == [
        f"data.augment[0]: found {name!r}, expected no change of images: {source} has none"
    ]


@pytest.mark.parametrize(
    ("data", "model", "line"),
    [
        (
            HOUSES,
            {"build": "small_resnet"},
            "model.build: found 'small_resnet', expected linear or mlp: csv:houses.csv has no images",
        ),
        (
            HOUSES,
            {"build": "text_gru"},
            "model.build: found 'text_gru', expected one for tables: there is no text; say which column by data.text",
        ),
        (
            {"source": "digits"},
            {"build": "text_transformer"},
            "model.build: found 'text_transformer', expected one for images: there is no text",
        ),
        (
            REVIEWS,
            {"build": "mlp"},
            "model.build: found 'mlp', expected text_bag, text_gru or text_transformer: the data are texts",
        ),
        (
            REVIEWS,
            {"build": "text_transformer", "width": 30, "heads": 4},
            "model.width: found 30, expected a multiple of heads, 4",
        ),
        (
            {"source": "digits"},
            {"build": "small_resnet", "pretrained": {"weights": "DEFAULT"}},
            "model.pretrained.weights: found 'DEFAULT', expected a file, a folder such as ./best, or "
            "models:/NAME@ALIAS: torchvision has no weights for small_resnet",
        ),
        (
            {"source": "digits"},
            {"build": "mine:net", "pretrained": {"weights": "IMAGENET1K_V1"}},
            "model.pretrained.weights: found 'IMAGENET1K_V1', expected a file, a folder such as ./best, or "
            "models:/NAME@ALIAS: torchvision has no weights for mine:net",
        ),
        (
            {"source": "digits"},
            {"build": RESNET, "pretrained": {"weights": "DEFAULT", "unfreeze_after_epochs": 2}},
            "model.pretrained.unfreeze_after_epochs: found 2, expected freeze beside it: nothing is frozen",
        ),
        (
            {"source": "digits"},
            {"build": RESNET, "pretrained": {"weights": "DEFAULT", "freeze": ["body"], "unfreeze_after_epochs": 10}},
            "model.pretrained.unfreeze_after_epochs: found 10, expected less than the epochs of the trial, 10",
        ),
    ],
)
def test_models_that_do_not_suit(data: dict[str, Any], model: dict[str, Any], line: str) -> None:
    assert said(data, model, {}, None) == [line]


CLASSES = {"source": "digits"}
NUMBERS = {"source": "a:b", "task": "regression"}


@pytest.mark.parametrize(
    ("data", "train", "line"),
    [
        (
            CLASSES,
            {"loss": {"name": "mse"}},
            "train.loss.name: found 'mse', expected cross_entropy, focal or bce: the task is classification",
        ),
        (
            NUMBERS,
            {"loss": {"name": "focal", "class_weights": [1.0, 2.0]}},
            "train.loss.name: found 'focal', expected mse or huber: the task is regression",
        ),
        (
            NUMBERS,
            {"early_stop": {"metric": "validation.accuracy"}},
            "train.early_stop.metric: found 'validation.accuracy', expected validation.mae, validation.rmse, "
            "validation.r2 or validation.loss: the task is regression",
        ),
        (
            CLASSES,
            {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": True}},
            "train.optimizer.nesterov: found true, expected momentum above 0 beside it",
        ),
        (
            CLASSES,
            {"schedule": {"name": "cosine", "warmup": 1.0}},
            "train.schedule.warmup: found 1.0, expected less than 1: no step is left for cosine",
        ),
        (
            CLASSES,
            {
                "schedule": {
                    "name": "sequence",
                    "parts": [
                        {"share": 0.5, "schedule": {"name": "constant", "warmup": 1.0}},
                        {"share": 0.5, "schedule": {"name": "step", "warmup": 1.0}},
                    ],
                }
            },
            "train.schedule.parts[1].schedule.warmup: found 1.0, expected less than 1: no step is left for step",
        ),
        (
            CLASSES,
            {"lr_finder": {"start": 0.1, "end": 0.1}},
            "train.lr_finder.start: found 0.1, expected less than end, 0.1",
        ),
        (
            {**CLASSES, "mix": "cutmix"},
            {"batch_size": 1},
            "train.batch_size: found 1, expected at least 2: cutmix blends pairs of a batch",
        ),
    ],
)
def test_training_that_cannot_be(data: dict[str, Any], train: dict[str, Any], line: str) -> None:
    assert said(data, {"build": "small_convnet"}, train, None) == [line]


def test_batch_norm_of_features_needs_a_batch() -> None:
    line = "train.batch_size: found 1, expected at least 2: model.norm: batch needs examples to compare"
    assert said(CLASSES, {"build": "mlp", "norm": "batch"}, {"batch_size": 1}, None) == [line]
    assert said(CLASSES, {"build": "mlp", "norm": "layer"}, {"batch_size": 1}, None) == []


def test_the_metric_of_the_study_is_one_of_the_task() -> None:
    assert said(CLASSES, {"build": "mlp"}, {}, "validation.r2") == [
        "metric: found 'validation.r2', expected validation.accuracy, validation.balanced_accuracy, "
        "validation.top5_accuracy or validation.loss: the task is classification"
    ]


@pytest.mark.parametrize(
    ("data", "model", "train"),
    [
        (CLASSES, {"build": "mlp"}, {}),
        ({**CLASSES, "mix": "cutmix", "augment": ["random_crop"]}, {"build": "small_convnet"}, {}),
        (
            {**HOUSES, "task": "regression", "mix": "mixup", "drop": ["id"]},
            {"build": "mlp"},
            {"loss": {"name": "huber"}},
        ),
        ({**REVIEWS, "augment": ["random_swap", WRITTEN]}, {"build": "text_gru"}, {"loss": {"name": "focal"}}),
        # What an imported source holds only it knows.
        ({"source": "a:b", "augment": ["random_swap"]}, {"build": "text_gru"}, {}),
        ({"source": "a:b", "augment": ["rotation"], "arguments": {"n": 3}}, {"build": "small_resnet"}, {}),
        (CLASSES, {"build": "mlp"}, {"schedule": {"name": "constant", "warmup": 1.0}}),
        (CLASSES, {"build": RESNET, "pretrained": {"weights": "DEFAULT"}}, {}),
        (CLASSES, {"build": "mlp", "pretrained": {"weights": "models:/digits@best"}}, {}),
        (CLASSES, {"build": "mlp", "pretrained": {"weights": "best.safetensors"}}, {}),
        (
            CLASSES,
            {"build": RESNET, "pretrained": {"weights": "a.pt", "freeze": ["body"], "unfreeze_after_epochs": 9}},
            {"swa": {"start": 0.99}},
        ),
    ],
)
def test_what_works_gives_no_line(data: dict[str, Any], model: dict[str, Any], train: dict[str, Any]) -> None:
    assert said(data, model, train, None) == []


def test_all_misfits_are_told_at_once() -> None:
    recipe = Recipe.model_validate(
        {"data": {**HOUSES, "mix": "cutmix"}, "model": {"build": "text_gru"}, "train": {"loss": {"name": "mse"}}}
    )
    assert [misfit.path for misfit in misfits(recipe)] == [
        ("data", "mix"),
        ("model", "build"),
        ("train", "loss", "name"),
    ]
    assert isinstance(next(misfits(recipe)), Misfit)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"source": "torchvision.datasets:CIFAR10"}, "image"),
        ({"source": "npz:a.npz"}, None),
        ({"source": "csvs.mine:load"}, None),
        (HOUSES, "table"),
        (REVIEWS, "text"),
    ],
)
def test_what_a_source_holds_as_far_as_its_name_tells(data: dict[str, Any], kind: str | None) -> None:
    assert kind_of_examples(Recipe.model_validate({"data": data, "model": {"build": "mlp"}}).data) == kind


def test_they_are_found_without_torch() -> None:
    program = "import sys, trials.recipe.misfits; print(*sorted({'torch', 'numpy', 'pandas'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_a_trunk_leaves_epochs_to_its_branches() -> None:
    def lines(trunk_epochs: int, **start: Any) -> list[str]:
        content = {"data": {"source": "digits"}, "model": {"build": "mlp"}, "train": {"epochs": 4}}
        average = {"trunk_epochs": trunk_epochs}
        return [str(misfit) for misfit in misfits(Recipe.model_validate({**content, "average": average, **start}))]

    weights = {"path": "../0000/weights/raw.safetensors", "sha256": "", "name": "trunk"}
    assert lines(3) == []
    assert lines(4) == [
        "average.trunk_epochs: found 4, expected less than train.epochs (4), of which it takes the first"
    ]
    assert lines(4, start={"weights": weights, "epochs": 4}) == []


KEPT = {"path": "../0001/weights/raw.safetensors", "sha256": "0" * 64, "name": "raw of trial 0001"}


def test_what_is_assembled_trains_nothing() -> None:
    content = {"data": {"source": "digits"}, "model": {"build": "mlp"}}
    member = {"weights": KEPT, "recipe": content}
    soup = {"name": "uniform_soup", "ingredients": [KEPT, KEPT], "barrier_tolerance": 0.1}
    beside: dict[str, Any] = {
        "start": {"weights": KEPT, "epochs": 1},
        "teacher": {"members": [member]},
        "extensions": [{"after_epochs": 10, "epochs": 2}],
    }
    assert list(misfits(Recipe.model_validate(content | beside))) == []
    assert [str(misfit) for misfit in misfits(Recipe.model_validate(content | beside | {"assembly": soup}))] == [
        f"{key}: found one beside assembly, expected none: uniform_soup trains nothing" for key in beside
    ]


def test_a_teacher_answers_the_question_of_its_student() -> None:
    def lines(task: str, *taught: dict[str, Any]) -> list[str]:
        content = {"data": {**HOUSES, "task": task}, "model": {"build": "mlp"}}
        teacher = {"members": [{"weights": KEPT, "recipe": recipe} for recipe in taught]}
        return [str(misfit) for misfit in misfits(Recipe.model_validate({**content, "teacher": teacher}))]

    classes = {"data": {"source": "digits"}, "model": {"build": "mlp"}}
    numbers = {"data": {**HOUSES, "task": "regression"}, "model": {"build": "linear"}}
    assert lines("regression", numbers) == []
    assert lines("classification", classes) == []
    assert lines("regression", numbers, classes) == [
        "teacher.members[1].recipe.data.task: found 'classification', expected 'regression', as the student's"
    ]
