"""A whole trial: K1 (same bytes), continuation bit for bit, what is kept and why, and every way to end."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trials import EpochReport, Recipe, TrialResult, run_trial
from trials.checkpoint import TrialFolder
from trials.data import Splits, load_splits
from trials.errors import DataError, Diverged, ModelError, OutOfMemory, Pruned, TrialError
from trials.fit.evaluate import evaluate
from trials.model.build import build_model

CPU = torch.device("cpu")
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    """150 pictures of 8 x 8 pixels in three classes, with a test split of their own."""
    generator = np.random.default_rng(0)
    labels = np.arange(190) % 3
    images = generator.integers(0, 120, (190, 8, 8, 1), dtype=np.uint8)
    for label in range(3):
        images[labels == label, 2 * label : 2 * label + 3] += 60
    path = tmp_path / "pictures.npz"
    np.savez(path, x_train=images[:150], y_train=labels[:150], x_test=images[150:], y_test=labels[150:])
    return f"npz:{path}"


EVERYTHING: dict[str, Any] = {
    "seed": 11,
    "data": {
        "validation": 0.2,
        "augment": [{"name": "random_crop", "padding": 1}, "horizontal_flip"],
        "mix": "mixup",
    },
    "model": {"build": "small_convnet", "width": 4, "depth": 2, "dropout": 0.2},
    "train": {
        "epochs": 4,
        "batch_size": 16,
        "accumulate": 2,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3},
        "schedule": {"name": "one_cycle"},
        "clip_norm": 1.0,
        "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
        "ema": {"decay": 0.9},
    },
    "average": {"best_n": 2, "batch_norm_samples": 100},
}
HALF = {
    "train.precision": "fp16",
    "train.optimizer": {"name": "adamw", "lr": 0.01},
    "train.schedule": {"name": "cosine", "warmup": 0.2},
    "train.early_stop": {"patience_epochs": 3},
    "data.mix": "cutmix",
}


def recipe_of(source: str, changes: dict[str, Any] | None = None) -> Recipe:
    """EVERYTHING on ``source``, with ``changes`` by dotted path."""
    content = copy.deepcopy(EVERYTHING)
    content["data"]["source"] = source
    for path, value in (changes or {}).items():
        *sections, name = path.split(".")
        section = content
        for part in sections:
            section = section[part]
        section[name] = value
    return Recipe.model_validate(content)


class Reports(list[EpochReport]):
    """Keeps what it hears; says stop at an epoch, or fails there as a killed process would."""

    def __init__(self, stop_at: int | None = None, die_at: int | None = None) -> None:
        super().__init__()
        self.stop_at, self.die_at = stop_at, die_at

    def __call__(self, report: EpochReport) -> bool:
        self.append(report)
        if report.epoch == self.die_at:
            raise KeyboardInterrupt
        return report.epoch != self.stop_at


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def weights(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in files(folder).items() if name.startswith("weights/")}


def timeless(result: TrialResult) -> TrialResult:
    return result.model_copy(update={"seconds": 0.0})


@pytest.mark.parametrize("changes", [{}, HALF], ids=["everything", "fp16"])
def test_the_same_recipe_gives_the_same_bytes_also_after_another_trial(
    tmp_path: Path, pictures: str, changes: dict[str, Any]
) -> None:
    first_reports, second_reports = Reports(), Reports()
    first = run_trial(recipe_of(pictures, changes), tmp_path / "first", first_reports, "cpu")
    run_trial(recipe_of(pictures, changes | {"seed": 12, "train.epochs": 1}), tmp_path / "other", device="cpu")
    torch.rand(7)
    second = run_trial(recipe_of(pictures, changes), tmp_path / "second", second_reports, "cpu")
    assert weights(tmp_path / "first") == weights(tmp_path / "second")
    assert weights(tmp_path / "first").keys() >= {"weights/raw.safetensors", "weights/ema.safetensors"}
    assert timeless(first) == timeless(second)
    assert [report.metrics for report in first_reports] == [report.metrics for report in second_reports]
    assert weights(tmp_path / "other") != weights(tmp_path / "first")


@pytest.mark.parametrize("changes", [{}, HALF], ids=["everything", "fp16"])
def test_a_trial_killed_after_any_epoch_continues_bit_for_bit(
    tmp_path: Path, pictures: str, changes: dict[str, Any]
) -> None:
    recipe = recipe_of(pictures, changes)
    whole = Reports()
    expected = run_trial(recipe, tmp_path / "whole", whole, "cpu")
    if "train.precision" in changes:
        assert whole[-1].metrics["train.lr"] > 0
    for killed_after in range(1, recipe.train.epochs + 1):
        folder = tmp_path / str(killed_after)
        before, after = Reports(die_at=killed_after), Reports()
        with pytest.raises(KeyboardInterrupt):
            run_trial(recipe, folder, before, "cpu")
        result = run_trial(recipe, folder, after, "cpu")
        assert weights(folder) == weights(tmp_path / "whole")
        assert timeless(result) == timeless(expected)
        again, last = after[0], before[-1]
        assert (again.epoch, again.metrics) == (last.epoch, last.metrics), (
            "the newest epoch is told again: the kill may have swallowed it"
        )
        heard = [(report.epoch, report.metrics) for report in [*before, *after[1:]]]
        assert heard == [(report.epoch, report.metrics) for report in whole]  # none twice, none left out


def test_killed_again_and_again_it_still_ends_the_same(tmp_path: Path, pictures: str) -> None:
    recipe = recipe_of(pictures)
    run_trial(recipe, tmp_path / "whole", device="cpu")
    for epoch in range(1, 5):
        with pytest.raises(KeyboardInterrupt):
            run_trial(recipe, tmp_path / "broken", Reports(die_at=epoch), "cpu")
    run_trial(recipe, tmp_path / "broken", device="cpu")
    assert weights(tmp_path / "whole") == weights(tmp_path / "broken")


def test_the_callers_random_state_and_settings_are_untouched(tmp_path: Path, pictures: str) -> None:
    def state() -> list[Any]:
        kind, keys, *rest = np.random.get_state()
        return [torch.get_rng_state().tolist(), kind, list(keys), rest, random.getstate(), torch.get_num_threads()]

    before = state()
    run_trial(recipe_of(pictures, {"train.epochs": 1}), tmp_path / "trial", device="cpu")
    assert state() == before
    with pytest.raises(Pruned):
        run_trial(recipe_of(pictures), tmp_path / "pruned", Reports(stop_at=1), "cpu")
    assert state() == before


def test_a_finished_trial_is_not_trained_again(tmp_path: Path, pictures: str) -> None:
    recipe, reports = recipe_of(pictures, {"train.epochs": 1}), Reports()
    first = run_trial(recipe, tmp_path / "trial", device="cpu")
    before = files(tmp_path / "trial")
    assert run_trial(recipe, tmp_path / "trial", reports, "cpu") == first
    assert not reports
    assert files(tmp_path / "trial") == before
    always = {".lock", "recipe.json", "result.json", *weights(tmp_path / "trial")}
    assert {name for name in before if not name.startswith(("checkpoints/", "best/"))} == always


@pytest.mark.parametrize("end", [{}, {"stop_at": 1}, {"die_at": 1}], ids=["done", "pruned", "killed"])
def test_the_folder_is_owned_while_it_trains_and_no_longer(tmp_path: Path, pictures: str, end: dict[str, int]) -> None:
    told = Reports(**end)

    def report(found: EpochReport) -> bool:
        with pytest.raises(TrialError, match="another process trains here"), TrialFolder(tmp_path / "trial").owned(0.0):
            pass
        return told(found)

    with contextlib.suppress(Pruned, KeyboardInterrupt):
        run_trial(recipe_of(pictures, {"train.epochs": 1}), tmp_path / "trial", report, "cpu")
    assert len(told) == 1
    with TrialFolder(tmp_path / "trial").owned(0.0):
        pass


def test_pruned_means_saved_and_stopped_and_can_go_on(tmp_path: Path, pictures: str) -> None:
    recipe = recipe_of(pictures)
    with pytest.raises(Pruned, match="pruned after epoch 2") as caught:
        run_trial(recipe, tmp_path / "pruned", Reports(stop_at=2), "cpu")
    assert caught.value.epoch == 2
    assert (tmp_path / "pruned/checkpoints/epoch-0002/state.pt").exists()
    later = Reports()
    run_trial(recipe, tmp_path / "pruned", later, "cpu")
    assert [report.epoch for report in later] == [2, 3, 4]


def test_another_recipe_and_changed_data_are_refused(tmp_path: Path, pictures: str) -> None:
    with pytest.raises(Pruned):
        run_trial(recipe_of(pictures), tmp_path / "trial", Reports(stop_at=1), "cpu")
    with pytest.raises(TrialError, match=r"another recipe's trial \(seed: 11 there, 12 here\)"):
        run_trial(recipe_of(pictures, {"seed": 12}), tmp_path / "trial", device="cpu")
    path = Path(pictures.removeprefix("npz:"))
    arrays = dict(np.load(path))
    arrays["x_train"][0, 0, 0, 0] ^= 1
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="changed since this trial began"):
        run_trial(recipe_of(pictures), tmp_path / "trial", device="cpu")


def judged(recipe: Recipe, splits: Splits, path: Path) -> dict[str, float]:
    """The independent answer to what a file of weights is worth: a fresh model, the file, the whole split."""
    model = build_model(recipe.model, splits.preprocess.spec, splits.target.outputs)
    model.load_state_dict(load_file(path))
    found = evaluate(model, splits.selection, splits, recipe, CPU)
    return {f"validation.{name}": value for name, value in found.metrics.items()}


@pytest.mark.parametrize("metric", ["validation.accuracy", "validation.loss"])
def test_every_kept_file_is_worth_what_the_result_says_best_first(tmp_path: Path, pictures: str, metric: str) -> None:
    recipe, folder = recipe_of(pictures, {"metric": metric}), tmp_path / "trial"
    result = run_trial(recipe, folder, device="cpu")
    splits = load_splits(recipe.data, CPU)
    for kept in result.weights:
        path = folder / kept.path
        assert kept.metrics == pytest.approx(judged(recipe, splits, path), rel=1e-5)
        assert kept.bytes == path.stat().st_size
        assert kept.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    values = [kept.metrics[metric] for kept in result.weights]
    assert values == sorted(values, reverse=metric == "validation.accuracy")
    assert {"raw", "ema"} <= {kept.kind for kept in result.weights} <= {"raw", "ema", "best_n"}
    model = build_model(recipe.model, splits.preprocess.spec, 3)
    assert result.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (result.epochs, result.device, result.peak_memory_bytes, result.skipped_steps) == (4, "cpu", 0, 0)
    assert result.seconds > 0


def test_averages_carry_the_batch_norm_statistics_of_the_whole_training_split(tmp_path: Path, pictures: str) -> None:
    """The twin: one training batch of all examples, as they are, through the kept weights."""
    changes = {"average.batch_norm_samples": 1000, "train.optimizer.lr": 1.0, "train.schedule": {"name": "constant"}}
    recipe, folder = recipe_of(pictures, changes), tmp_path / "trial"
    result = run_trial(recipe, folder, device="cpu")
    splits = load_splits(recipe.data, CPU)
    for kept in (kept for kept in result.weights if kept.kind != "raw"):
        twin = build_model(recipe.model, splits.preprocess.spec, 3).eval()
        twin.load_state_dict(load_file(folder / kept.path))
        for module in twin.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.train()
                module.momentum = 1.0
        with torch.no_grad():
            twin(splits.preprocess.normalise(splits.train.inputs))
        for name, value in load_file(folder / kept.path).items():
            if name.endswith(("running_mean", "running_var")):
                torch.testing.assert_close(value, twin.get_buffer(name), rtol=1e-4, atol=1e-5, msg=name)


def test_a_report_names_raw_and_average_and_which_leads(tmp_path: Path, pictures: str) -> None:
    reports = Reports()
    result = run_trial(recipe_of(pictures), tmp_path / "trial", reports, "cpu")
    for number, report in enumerate(reports, start=1):
        metrics = report.metrics
        raw, ema = metrics["validation.raw.accuracy"], metrics["validation.ema.accuracy"]
        assert metrics["validation.accuracy"] == max(raw, ema)
        leader = "ema" if ema > raw else "raw"
        assert metrics["validation.loss"] == metrics[f"validation.{leader}.loss"]
        assert metrics.keys() >= {"train.loss", "train.accuracy", "train.lr", "train.gradient_norm"}
        assert (report.epoch, report.epochs) == (number, 4)
        assert report.seconds > 0
    raw_file = next(kept for kept in result.weights if kept.kind == "raw")
    assert raw_file.metrics["validation.loss"] == reports[-1].metrics["validation.raw.loss"]
    assert raw_file.epoch == 4


def snapshots(recipe: Recipe, folder: Path) -> list[dict[str, torch.Tensor]]:
    """The raw weights after each epoch, from the checkpoints that each report finds on the disk."""
    taken = []

    def take(report: EpochReport) -> bool:
        taken.append(load_file(folder / f"checkpoints/epoch-{report.epoch:04d}/raw.safetensors"))
        return True

    run_trial(recipe, folder, take, "cpu")
    return taken


def test_best_n_is_the_mean_of_the_best_epochs_and_kept_only_if_not_worse(tmp_path: Path, pictures: str) -> None:
    """Over several learning rates both outcomes occur; each is checked against its own snapshots."""
    outcomes = set()
    plain = {"train.ema": None, "data.mix": "none", "data.augment": [], "train.schedule": {"name": "constant"}}
    for number, lr in enumerate((0.03, 1.0, 1.5, 2.0)):
        changes = plain | {"train.optimizer.lr": lr, "metric": "validation.loss", "average.best_n": 3}
        recipe, folder, reports = recipe_of(pictures, changes), tmp_path / str(number), Reports()
        run_trial(recipe, tmp_path / f"{number}-reports", reports, "cpu")
        taken = snapshots(recipe, folder)
        result = TrialFolder(folder).read_result()
        assert result is not None
        losses = [report.metrics["validation.loss"] for report in reports]
        best = sorted(range(4), key=losses.__getitem__)[:3]
        file = next((kept for kept in result.weights if kept.kind == "best_n"), None)
        outcomes.add(file is not None)
        if file is None:
            assert len(result.notes) == 1
            assert result.notes[0].startswith("best_n not kept: its validation.loss of ")
            continue
        assert file.metrics["validation.loss"] <= losses[-1]
        assert file.epoch == max(best) + 1
        for name, value in load_file(folder / file.path).items():
            if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
                continue
            mean = torch.stack([taken[index][name].double() for index in best]).mean(0)
            torch.testing.assert_close(value.double(), mean, rtol=1e-6, atol=1e-7, msg=name)
    assert outcomes == {True, False}


def test_early_stopping_goes_back_to_the_best_epoch(tmp_path: Path, pictures: str) -> None:
    changes = {
        "train.epochs": 12,
        "train.early_stop": {"patience_epochs": 2},
        "train.optimizer.lr": 0.5,
        "train.clip_norm": None,
        "metric": "validation.loss",
    }
    recipe, folder = recipe_of(pictures, changes), tmp_path / "trial"
    reports = Reports()
    result = run_trial(recipe, tmp_path / "reports", reports, "cpu")
    taken = snapshots(recipe, folder)
    losses = [report.metrics["validation.loss"] for report in reports]
    best = losses.index(min(losses))
    assert result.epochs == len(losses) == best + 3 < 12
    assert all(loss >= losses[best] for loss in losses[best + 1 :])
    raw = next(kept for kept in result.weights if kept.kind == "raw")
    assert raw.epoch == best + 1
    assert raw.metrics["validation.loss"] == reports[best].metrics["validation.raw.loss"]
    for name, value in load_file(folder / "weights/raw.safetensors").items():
        assert torch.equal(value, taken[best][name])
    assert f"stopped early after epoch {result.epochs} of 12" in result.notes[0]
    assert f"weights are of epoch {best + 1}" in result.notes[0]


def test_a_loss_that_explodes_is_named_with_its_epoch_and_step(tmp_path: Path, pictures: str) -> None:
    changes = {"train.optimizer": {"name": "sgd", "lr": 1e30, "momentum": 0.0}, "train.clip_norm": None}
    with pytest.raises(
        Diverged, match=r"loss became (nan|inf) in epoch 1 step \d+ at learning rate .*; lower"
    ) as caught:
        run_trial(recipe_of(pictures, changes), tmp_path / "trial", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"
        ),
    ],
)
def test_running_out_of_memory_has_one_name(
    tmp_path: Path, pictures: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def short(*_: object) -> None:
        raise error

    monkeypatch.setattr("trials.train.train_epoch", short)
    with pytest.raises(OutOfMemory, match=r"cpu: out of memory; lower train\.micro_batch"):
        run_trial(recipe_of(pictures), tmp_path / "trial", device="cpu")


def test_a_real_allocation_that_cannot_be_met_is_out_of_memory(
    tmp_path: Path, pictures: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trials.train.train_epoch", lambda *_: torch.empty(2**60, dtype=torch.uint8))
    with pytest.raises(OutOfMemory):
        run_trial(recipe_of(pictures), tmp_path / "trial", device="cpu")


def test_other_errors_pass_as_they_are(tmp_path: Path, pictures: str) -> None:
    def failing(_: EpochReport) -> bool:
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        run_trial(recipe_of(pictures), tmp_path / "trial", failing, "cpu")
    with pytest.raises(ModelError):
        run_trial(recipe_of(pictures, {"model": {"build": "no_such_module:f"}}), tmp_path / "model", device="cpu")


def test_plain_python_trains_digits_well(tmp_path: Path) -> None:
    """The script of the README, in a process of its own, and the accuracy that logistic regression is known for."""
    script = """
import sys
from trials import Recipe, run_trial
recipe = Recipe.model_validate({"data": {"source": "digits"}, "model": {"build": "linear"},
                                "train": {"epochs": 20, "batch_size": 64, "optimizer": {"name": "adam", "lr": 0.01}}})
print(run_trial(recipe, sys.argv[1], device="cpu").weights[0].metrics["validation.accuracy"])
"""
    command: list[str] = [sys.executable, "-c", script, str(tmp_path / "trial")]
    accuracy = float(subprocess.run(command, check=True, capture_output=True, text=True, env=ONE_THREAD).stdout)
    assert 0.93 < accuracy <= 1.0


def test_a_stopped_process_is_the_twin_of_a_stopped_report(
    tmp_path: Path, pictures: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while averaging, after the last checkpoint: the end is made again from it, nothing is trained."""
    recipe, real = recipe_of(pictures), __import__("trials.train", fromlist=["keep_weights"]).keep_weights

    def killed(*arguments: Any) -> Callable[..., Any]:
        real(*arguments)
        raise KeyboardInterrupt

    run_trial(recipe, tmp_path / "whole", device="cpu")
    monkeypatch.setattr("trials.train.keep_weights", killed)
    with pytest.raises(KeyboardInterrupt):
        run_trial(recipe, tmp_path / "broken", device="cpu")
    monkeypatch.undo()
    reports = Reports()
    run_trial(recipe, tmp_path / "broken", reports, "cpu")
    assert [report.epoch for report in reports] == [recipe.train.epochs], "only told again"
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
