"""What a teacher is worth where labels are wrong: a student with one beside the same student without, paired by seed.

    .venv/bin/python -m benchmarks.wrong_labels --seeds 8

Digits of scikit-learn, two fifths of whose training labels are wrong; those of the test split are right. Teachers and
students are of one recipe and differ by their seeds, so that a teacher has nothing before its student but the number of
its members. (arXiv:2301.13304 has theory for one teacher of its student's kind, where labels are wrong.)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import machine, table, write_section
from sweeper.finish.verdict import mean_interval
from trials import Recipe, run_trial
from trials.data import Source
from trials.data.sources import load_source
from trials.examples import load_examples
from trials.fit.evaluate import evaluate
from trials.members import load_teacher
from trials.recipe import Data
from trials.score import score_weights

WRONG_FRACTION = 0.4
MEMBERS = 5


def digits(seed: int) -> Source:
    """Half of the digits to train on, `WRONG_FRACTION` of their labels wrong, and half to test, all by ``seed``.

    Each label is wrong with that probability, independently, and then any of the nine other classes alike.
    """
    plain, draws = load_source(Data(source="digits")), np.random.default_rng(seed)
    order = draws.permutation(len(plain.targets))
    train, test = np.array_split(order, 2)
    wrong = draws.random(len(train)) < WRONG_FRACTION
    off = np.where(wrong, draws.integers(1, 10, len(train)), 0)
    labels = (plain.targets[train] + off) % 10
    return Source(plain.inputs[train], labels, plain.classes, plain.inputs[test], plain.targets[test])


@dataclass(frozen=True)
class Outcome:
    """Accuracies on the test split, whose labels are right and which nothing was chosen on."""

    taught: float
    alone: float
    teacher: float
    """Of the ensemble that taught."""


def compare(seed: int, folder: Path) -> Outcome:
    """Train a teacher and both students in ``folder``, on the digits of ``seed``: distilled by the defaults."""
    members = [member(seed, 1000 * seed + number, folder / f"member-{number}") for number in range(MEMBERS)]
    alone = recipe_of(seed, seed)
    taught = Recipe.model_validate({**alone.model_dump(mode="json"), "teacher": {"members": members}})
    return Outcome(
        taught=accuracy(taught, folder / "taught"),
        alone=accuracy(alone, folder / "alone"),
        teacher=accuracy_of_teacher(taught, folder / "taught"),
    )


def recipe_of(digits_seed: int, seed: int) -> Recipe:
    """What members and students train alike."""
    content = {
        "data": {"source": "benchmarks.wrong_labels:digits", "arguments": {"seed": digits_seed}},
        "model": {"build": "mlp", "width": 64},
        "train": {
            "epochs": 20,
            "batch_size": 64,
            "optimizer": {"name": "adam", "lr": 3e-3},
            "schedule": {"name": "cosine"},
        },
    }
    return Recipe.model_validate({**content, "seed": seed})


def member(digits_seed: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train one member of a teacher, as `teacher.members` names it from a folder beside."""
    recipe = recipe_of(digits_seed, seed)
    kept = run_trial(recipe, folder, device="cpu").weights[0]
    weights = {"path": f"../{folder.name}/{kept.path}", "sha256": kept.sha256, "name": folder.name}
    return {"weights": weights, "recipe": recipe.model_dump(mode="json")}


def accuracy(recipe: Recipe, folder: Path) -> float:
    """Train, and judge the last weights on the test split."""
    kept = run_trial(recipe, folder, device="cpu").weights[0]
    return score_weights(recipe, folder / kept.path, "test", device="cpu")["test.accuracy"]


def accuracy_of_teacher(recipe: Recipe, folder: Path) -> float:
    """The mean of the members' answers, on the test split."""
    assert recipe.teacher is not None
    place = torch.device("cpu")
    splits = load_examples(recipe, place)
    teacher = load_teacher(recipe.teacher.members, recipe, folder, splits, place)
    return evaluate(teacher, splits.test, splits, recipe, place).metrics["accuracy"]


def report(outcomes: Sequence[Outcome], first: int) -> str:
    """A table, a row for what was trained and a column for each seed."""
    gains = [outcome.taught - outcome.alone for outcome in outcomes]
    values = {
        "student": [outcome.taught for outcome in outcomes],
        "student without teacher": [outcome.alone for outcome in outcomes],
        f"its teacher, {MEMBERS} of the same recipe": [outcome.teacher for outcome in outcomes],
    }
    rows = [(way, *(f"{value:.4f}" for value in found), str(mean_interval(found))) for way, found in values.items()]
    rows.append(("gain of the teacher", *(f"{gain:+.4f}" for gain in gains), str(mean_interval(gains))))
    seeds = (f"seed {first + index}" for index in range(len(outcomes)))
    return table(("", *seeds, "mean (95 % interval)"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=1, help="the first seed; other ones than 1 are not written down")
    arguments = parser.parse_args()
    outcomes = []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(compare(seed, Path(folder)))
        print(f"seed {seed}: {outcomes[-1]}", file=sys.stderr, flush=True)
    body = f"Accuracy on test labels that are right:\n\n{report(outcomes, arguments.first)}"
    if arguments.first == 1:
        command = f".venv/bin/python -m benchmarks.wrong_labels --seeds {arguments.seeds}"
        write_section("Distillation where labels are wrong", command, machine(("torch",)), body)
    print(body)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
