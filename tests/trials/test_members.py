"""A student beside its teacher, as a whole trial: who may teach it, what it learns, and that it resumes exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trials import Interrupted, Recipe, TrialError, TrialResult, run_trial
from trials.data import load_splits
from trials.members import load_teacher
from trials.package import model_with_weights

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of numbers, hard to tell apart."""
    draws = np.random.default_rng(0)
    labels = np.arange(120) % 2
    inputs = draws.normal(0, 1, (120, 6)).astype(np.float32) + 0.7 * labels[:, None].astype(np.float32)
    np.savez(tmp_path / "data.npz", x=inputs, y=labels)
    np.savez(tmp_path / "other.npz", x=1.0 + inputs, y=labels)
    np.savez(tmp_path / "named.npz", x=inputs, y=labels, classes=np.array(["cat", "dog"]))
    return tmp_path


def content_of(data: Path, model: dict[str, Any], source: str = "data", **train: Any) -> dict[str, Any]:
    return {
        "data": {"source": f"npz:{data / source}.npz", "validation": 0.3},
        "model": model,
        "train": {"epochs": 2, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.1}, **train},
    }


MLP = {"build": "mlp", "width": 6, "norm": "batch", "dropout": 0.2}


@pytest.fixture
def members(data: Path) -> list[dict[str, Any]]:
    """Two models of different kinds and losses, one of them by a path seen from a trial's folder."""
    contents = [content_of(data, MLP), content_of(data, {"build": "linear"}, loss={"name": "bce"}, micro_batch=4)]
    return [member_of(content, data / f"000{number}") for number, content in enumerate(contents)]


def member_of(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    recipe = Recipe.model_validate(content)
    kept = run_trial(recipe, folder, device="cpu").weights[0]
    path, name = f"../{folder.name}/{kept.path}", f"raw of trial {folder.name}"
    weights = {"path": path, "sha256": kept.sha256, "name": name}
    return {"weights": weights, "recipe": recipe.model_dump(mode="json"), "share": 0.2}


def student_of(data: Path, members: list[dict[str, Any]], train: dict[str, Any] | None = None, **said: Any) -> Recipe:
    content = content_of(data, {"build": "mlp", "width": 4}, **(train or {}))
    return Recipe.model_validate(content | {"seed": 9, "teacher": {"members": members, **said}})


def test_the_teacher_is_the_mean_of_its_members_as_they_were_kept(data: Path, members: list[dict[str, Any]]) -> None:
    members[1]["share"] = 0.6
    recipe = student_of(data, members)
    assert recipe.teacher is not None
    splits = load_splits(recipe.data, CPU)
    teacher = load_teacher(recipe.teacher.members, recipe, data / "student", splits, CPU)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    inputs, said = splits.preprocess.normalise(splits.selection.inputs), []
    for number, member in enumerate(recipe.teacher.members):
        weights = load_file(data / f"000{number}" / "weights" / "raw.safetensors")
        outputs = model_with_weights(Recipe.model_validate(member.recipe), splits.preprocess.spec, 2, weights)(inputs)
        # under bce each class has a sigmoid of its own, scaled to a sum of 1
        said.append(outputs.softmax(1) if number == 0 else outputs.sigmoid() / outputs.sigmoid().sum(1, keepdim=True))
    torch.testing.assert_close(teacher(inputs).exp(), 0.25 * said[0] + 0.75 * said[1])


def test_a_student_of_the_teacher_alone_comes_to_answer_as_it_does(data: Path, members: list[dict[str, Any]]) -> None:
    """A linear teacher of a linear student, and no labels: on every example both say the same in the end."""
    train = {"epochs": 10, "optimizer": {"name": "adam", "lr": 0.05}, "batch_size": 4}
    teacher = member_of(content_of(data, {"build": "linear"}), data / "0002")
    content = content_of(data, {"build": "linear"}, **train) | {"seed": 9}
    said = {"members": [teacher], "hard_fraction": 0.0, "temperature": 3.0}
    recipe = Recipe.model_validate(content | {"teacher": said})
    run_trial(recipe, data / "student", device="cpu")
    splits = load_splits(recipe.data, CPU)
    inputs, answers = splits.preprocess.normalise(splits.selection.inputs), []
    for folder in ("0002", "student"):
        weights = load_file(data / folder / "weights" / "raw.safetensors")
        answers.append(model_with_weights(recipe, splits.preprocess.spec, 2, weights)(inputs).softmax(1))
    torch.testing.assert_close(answers[1], answers[0], rtol=0.0, atol=0.01)


def test_with_labels_alone_the_trial_is_the_plain_one_bit_for_bit(data: Path, members: list[dict[str, Any]]) -> None:
    taught = student_of(data, members, {"ema": {"decay": 0.9}}, hard_fraction=1.0)
    plain = taught.model_copy(update={"teacher": None})
    results = [run_trial(recipe, data / name, device="cpu") for recipe, name in ((taught, "taught"), (plain, "plain"))]
    assert unhurried(results[0]) == unhurried(results[1])


FULL = {"precision": "bf16", "micro_batch": 5, "accumulate": 2, "ema": {"decay": 0.9}}


def test_stopped_between_any_two_updates_it_ends_as_if_it_had_never_stopped(
    data: Path, members: list[dict[str, Any]]
) -> None:
    recipe = student_of(data, members, FULL)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"mix": "mixup"})})
    whole = run_trial(recipe, data / "whole", device="cpu")
    stops, broken = 0, None
    while broken is None:
        try:
            broken = run_trial(recipe, data / "broken", device="cpu", stop=after_one_update())
        except Interrupted:
            stops += 1
    assert stops > 4
    assert unhurried(broken) == unhurried(whole)


def after_one_update() -> Callable[[], bool]:
    """Stop at the second question, the first of which comes before the first update."""
    asked = iter([False])
    return lambda: next(asked, True)


def unhurried(result: TrialResult) -> TrialResult:
    """But for its seconds; the digests of the weights are part of it."""
    return result.model_copy(update={"seconds": 0.0})


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            "other",
            r"^teacher\.members\[1\]: raw of trial 0003 takes inputs that are prepared otherwise \(another mean.*\), ",
        ),
        ("named", r"^teacher\.members\[1\]: raw of trial 0003 predicts other classes, or a number on another scale, "),
    ],
)
def test_who_answers_other_questions_is_refused(
    source: str, line: str, data: Path, members: list[dict[str, Any]]
) -> None:
    stranger = member_of(content_of(data, {"build": "linear"}, source), data / "0003")
    assert_refused(student_of(data, [members[0], stranger]), data / "student", line)


def test_a_recipe_that_varies_its_examples_and_sets_others_aside_teaches_all_the_same(data: Path) -> None:
    content = content_of(data, {"build": "linear"})
    content["data"] |= {"confirm": 0.5, "mix": "mixup", "resident": "host"}
    teacher = member_of(content, data / "0004")
    result = run_trial(student_of(data, [teacher]), data / "student", device="cpu")
    assert result.epochs == 2


def test_members_that_are_gone_changed_or_of_another_model_are_refused_in_one_line(
    data: Path, members: list[dict[str, Any]]
) -> None:
    path = data / "0001" / "weights" / "raw.safetensors"
    swapped = [{**members[0], "recipe": members[1]["recipe"]}, members[1]]
    other = (
        r"^teacher\.members\[0\]\.weights: .*: raw of trial 0000 is of another model, expected weights of this linear"
    )
    assert_refused(student_of(data, swapped), data / "a", other)
    unread = [{**members[0], "recipe": {"data": {"source": "digits"}, "model": {"build": "giant"}}}]
    assert_refused(student_of(data, unread), data / "b", r"^raw of trial 0000: its recipe cannot be read \(")
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    changed = r"^teacher\.members\[1\]\.weights: .*: cannot be used as raw of trial 0001 \(its digest is not that of "
    assert_refused(student_of(data, members), data / "c", changed)
    path.unlink()
    gone = r"^teacher\.members\[1\]\.weights: .*: cannot be used as raw of trial 0001 \(it is gone\)"
    assert_refused(student_of(data, members), data / "d", gone)


def assert_refused(recipe: Recipe, folder: Path, line: str) -> None:
    with pytest.raises(TrialError, match=line) as caught:
        run_trial(recipe, folder, device="cpu")
    assert "\n" not in str(caught.value)
