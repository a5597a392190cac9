"""A study with `finish`, by the installed command on real data: every way to a model is gone, said and taken home."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sweeper_command import SweeperCommand

from trials import load_model
from trials.data import load_splits
from trials.fit.evaluate import wilson_interval
from trials.model.ensemble import Ensemble
from trials.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STUDY = """\
study: small
seed: 1
data: {source: digits, validation: 0.3}
model: {build: mlp, width: 16, norm: batch}
train: {epochs: 3, batch_size: 64, optimizer: {name: adamw, lr: {log: [0.01, 0.05]}}, ema: {decay: 0.9}}
search: {trials: 2, pruner: {name: none}}
average: {best_n: 2, trunk_epochs: 1}
workers: {concurrent: 2, cpus: 0.5}  # one thread each: as many as cores get in each other's way beside other tests
finish: {epochs: 6, branches: 2, pool: 2, finalists: 2, seeds: 2}
"""


@pytest.fixture(scope="module")
def sweeper(tmp_path_factory: pytest.TempPathFactory) -> SweeperCommand:
    folder = tmp_path_factory.mktemp("finish")
    (folder / "study.yaml").write_text(STUDY)
    sweeper = SweeperCommand(folder / "home", folder)
    done = sweeper.run("start", "study.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "out.txt").write_text(done.stdout)
    return sweeper


@pytest.fixture(scope="module")
def shown(sweeper: SweeperCommand) -> dict[str, Any]:
    return sweeper.show("small")


def test_the_leaderboard_holds_every_kind(shown: dict[str, Any]) -> None:
    assert {row["kind"] for row in shown["leaderboard"]} == {"raw", "ema", "best_n", "soup", "ensemble"}
    made = {trial["params"]["move"] for trial in shown["trials"] if set(trial["params"]) == {"move"}}
    assert made == {
        "uniform soup",
        "greedy soup",
        "top ensemble",
        "greedy ensemble",
        "extended",
        "branch 1",
        "branch 2",
        "uniform soup of branches",
        "greedy soup of branches",
        "student",
    }
    assert {trial["state"] for trial in shown["trials"]} == {"complete"}


def test_greedy_ways_are_not_worse_than_the_best_trial_on_the_split_that_chose_them(shown: dict[str, Any]) -> None:
    reached = {way["way"]: way["selection"] for way in shown["winner"]["verdict"]["ways"]}
    for way in ("greedy soup", "greedy ensemble", "top ensemble", "average within a trial"):
        assert reached[way] >= reached["best trial"], way


def test_the_winner_is_the_best_finalist_on_what_was_set_aside_and_is_looked_at_once(
    sweeper: SweeperCommand, shown: dict[str, Any]
) -> None:
    verdict = shown["winner"]["verdict"]
    means = {finalist["way"]: finalist["worth"]["mean"] for finalist in verdict["finalists"]}
    assert verdict["seeds"] == 2
    assert means[verdict["way"]] == max(means.values())
    assert shown["winner"]["test_looks"] == 1
    count = round(shown["winner"]["test_metrics"]["test.count"])
    low, high = wilson_interval(round(shown["winner"]["test"] * count), count)
    out = (sweeper.cwd / "out.txt").read_text()
    assert f"({verdict['way']}), test accuracy {shown['winner']['test']:.4f}" in out
    assert f"(95 % interval {low:.4f} to {high:.4f}), looked at once" in out
    assert "over the best single trial in accuracy" in out or "against the best single trial in accuracy" in out


@pytest.fixture(scope="module")
def pulled(sweeper: SweeperCommand) -> dict[str, Path]:
    """What `--what` hands over, by its name."""
    folders = {}
    for what in ("soup", "ensemble", "student"):
        folders[what] = sweeper.cwd / what
        done = sweeper.run("pull", "small", "--what", what, "-o", folders[what])
        assert done.returncode == 0, done.stderr
    return folders


def test_each_is_taken_home_and_is_worth_what_the_leaderboard_says(
    pulled: dict[str, Path], shown: dict[str, Any]
) -> None:
    students = {trial["number"] for trial in shown["trials"] if trial["params"].get("move") == "student"}
    for what, folder in pulled.items():
        rows = [
            row
            for row in shown["leaderboard"]
            if (row["trial"] in students if what == "student" else row["kind"] == what)
        ]
        model, preprocess = load_model(folder)
        splits = load_splits(
            Recipe.model_validate_json((folder / "recipe.json").read_bytes()).data, torch.device("cpu")
        )
        hits = model(preprocess.normalise(splits.selection.inputs)).argmax(1) == splits.selection.targets
        assert float(hits.double().mean()) == pytest.approx(max(row["value"] for row in rows)), what


def test_the_ensembles_answers_are_the_mean_of_its_members(
    sweeper: SweeperCommand, pulled: dict[str, Path], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 17, (5, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    done = sweeper.run("predict", pulled["ensemble"], tmp_path / "images.npy", "--all")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    said = [[float(row[f"probability of {digit}"]) for digit in range(10)] for row in rows]
    model, preprocess = load_model(pulled["ensemble"])
    ensemble, inputs = model.model, preprocess(images)
    assert isinstance(ensemble, Ensemble)
    answers = torch.stack([member(inputs).softmax(1) for member in ensemble.members])
    mean = (answers * ensemble.shares[:, None, None]).sum(0)
    np.testing.assert_allclose(np.array(said), mean.detach().numpy(), atol=1e-4)


def test_a_finished_study_makes_nothing_again(sweeper: SweeperCommand, shown: dict[str, Any]) -> None:
    again = sweeper.run("start", "study.yaml")
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, "study 'small' is finished; nothing to start")
    assert sweeper.show("small") == shown
