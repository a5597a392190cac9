"""A training that begins with weights of another one: they are in place, they stay in place, and it resumes exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from trials import EpochReport, Interrupted, Recipe, TrialError, TrialResult, run_trial
from trials.checkpoint import write_weights
from trials.model.build import build_model
from trials.package import model_with_weights

STILL = {"name": "sgd", "lr": 1e-30, "momentum": 0.0}
"""Updates that are lost to rounding."""


@pytest.fixture
def source(tmp_path: Path) -> str:
    draws = np.random.default_rng(0)
    labels = np.arange(90) % 3
    inputs = draws.normal(0, 1, (90, 4)).astype(np.float32) + labels[:, None].astype(np.float32)
    np.savez(tmp_path / "data.npz", x=inputs, y=labels)
    return f"npz:{tmp_path / 'data.npz'}"


def recipe_of(source: str, model: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    content = {"data": {"source": source, "validation": 0.3}, "model": model or {"build": "mlp", "width": 6}, "seed": 5}
    train = {"epochs": 2, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.1}} | sections.pop("train", {})
    return Recipe.model_validate(content | {"train": train} | sections)


def start_from(path: Path, name: str = "raw of trial 0001", epochs: int = 2, said: str = "") -> dict[str, Any]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"weights": {"path": said or str(path), "sha256": digest, "name": name}, "epochs": epochs}


@pytest.fixture
def trunk(source: str, tmp_path: Path) -> tuple[TrialResult, Path]:
    result = run_trial(recipe_of(source), tmp_path / "0001", device="cpu")
    return result, tmp_path / "0001" / "weights" / "raw.safetensors"


def weights_in(folder: Path) -> dict[str, dict[str, Tensor]]:
    return {path.stem: load_file(path) for path in (folder / "weights").iterdir()}


def test_with_updates_of_nothing_all_kinds_of_weights_are_those_begun_with(
    source: str, trunk: tuple[TrialResult, Path], tmp_path: Path
) -> None:
    trained, path = trunk
    averages = {"ema": {"decay": 0.5}, "swa": {"start": 0.0}}
    recipe = recipe_of(source, train={"optimizer": STILL, **averages}, seed=6, start=start_from(path))
    reports: list[EpochReport] = []
    result = run_trial(recipe, tmp_path / "0002", lambda report: not reports.append(report), "cpu")  # type: ignore[func-returns-value]
    kept, expected = weights_in(tmp_path / "0002"), load_file(path)
    assert kept.keys() == {"raw", "ema", "swa"}
    for name, tensor in expected.items():
        assert torch.equal(kept["raw"][name], tensor)
        for kind in ("ema", "swa"):
            torch.testing.assert_close(kept[kind][name], tensor, rtol=1e-6, atol=1e-7)
    assert [report.metrics["validation.raw.loss"] for report in reports] == [
        trained.weights[0].metrics["validation.loss"]
    ] * 2
    assert result.notes == ("begun from raw of trial 0001, into which 2 epochs went",)


def test_the_first_loss_is_that_of_the_weights_begun_with(
    source: str, trunk: tuple[TrialResult, Path], tmp_path: Path
) -> None:
    """One batch of all: its loss before the first update, by hand."""
    from trials.data import load_splits

    recipe = recipe_of(source, train={"epochs": 1, "batch_size": 1000}, start=start_from(trunk[1]))
    told: list[float] = []
    run_trial(recipe, tmp_path / "0002", lambda report: bool(told.append(report.metrics["train.loss"])) or True, "cpu")  # type: ignore[func-returns-value]
    splits = load_splits(recipe.data, torch.device("cpu"))
    model = model_with_weights(recipe, splits.preprocess.spec, 3, load_file(trunk[1]))
    outputs = model(splits.preprocess.normalise(splits.train.inputs))
    assert told == [pytest.approx(torch.nn.functional.cross_entropy(outputs, splits.train.targets).item(), rel=1e-6)]


def test_a_path_is_seen_from_the_folder_of_the_trial(
    source: str, trunk: tuple[TrialResult, Path], tmp_path: Path
) -> None:
    outcomes = []
    for number, said in enumerate(("", "../0001/weights/raw.safetensors")):
        folder = tmp_path / f"new-{number}"
        run_trial(recipe_of(source, start=start_from(trunk[1], said=said)), folder, device="cpu")
        outcomes.append(weights_in(folder)["raw"])
    assert all(torch.equal(outcomes[0][name], tensor) for name, tensor in outcomes[1].items())
    begun = load_file(trunk[1])
    assert not any(torch.equal(begun[name], tensor) for name, tensor in outcomes[0].items())


def test_stopped_between_any_two_updates_it_ends_as_if_it_had_never_stopped(
    source: str, trunk: tuple[TrialResult, Path], tmp_path: Path
) -> None:
    """A checkpoint made later wins: the weights begun with are loaded first each time."""
    recipe = recipe_of(source, train={"ema": {"decay": 0.9}, "swa": {"start": 0.0}}, start=start_from(trunk[1]))
    whole = run_trial(recipe, tmp_path / "whole", device="cpu")
    stops, broken = 0, None
    while broken is None:
        try:
            broken = run_trial(recipe, tmp_path / "broken", device="cpu", stop=after_one_update())
        except Interrupted:
            stops += 1
    assert stops > 6
    assert whole.model_copy(update={"seconds": 0.0}) == broken.model_copy(update={"seconds": 0.0})


def test_a_trial_with_a_whole_checkpoint_goes_on_without_the_weights_that_it_began_with(
    source: str, trunk: tuple[TrialResult, Path], tmp_path: Path
) -> None:
    """To the same bytes; where no checkpoint is whole it would begin anew, and cannot."""
    recipe = recipe_of(source, train={"ema": {"decay": 0.9}}, start=start_from(trunk[1]))
    whole = run_trial(recipe, tmp_path / "whole", device="cpu")
    for name in ("broken", "damaged"):
        with pytest.raises(Interrupted):
            run_trial(recipe, tmp_path / name, device="cpu", stop=after_one_update())
    trunk[1].unlink()
    broken = run_trial(recipe, tmp_path / "broken", device="cpu")
    assert whole.model_copy(update={"seconds": 0.0}) == broken.model_copy(update={"seconds": 0.0})
    (state,) = (tmp_path / "damaged").glob("checkpoints/*/state.pt")
    state.write_bytes(b"half")
    assert_refused(recipe, tmp_path / "damaged", r"^start\.weights: .* \(it is gone\); put the file back")


def after_one_update() -> Callable[[], bool]:
    """Stop at the second question, the first of which comes before the first update."""
    asked = iter([False])
    return lambda: next(asked, True)


def test_frozen_stages_thaw_so_many_epochs_after_the_pretrained_weights_whichever_trial_trained_them(
    source: str, tmp_path: Path
) -> None:
    """The file with the pretrained weights need not be there any more; the head is known all the same."""
    section = {"weights": "gone.safetensors", "freeze": ["body"], "unfreeze_after_epochs": 2}
    model = {"build": "mlp", "width": 6, "depth": 1, "pretrained": section}
    plain = recipe_of(source, model={"build": "mlp", "width": 6, "depth": 1})
    net = build_model(plain.model, _spec(), 3)
    write_weights(tmp_path / "begin.safetensors", net.state_dict())
    learnt = {}
    for before, epochs in ((0, 3), (1, 1), (2, 1), (1, 2)):
        start = start_from(tmp_path / "begin.safetensors", epochs=before)
        recipe = recipe_of(source, model=model, train={"epochs": epochs}, start=start)
        folder = tmp_path / f"{before}-{epochs}"
        run_trial(recipe, folder, device="cpu")
        kept = weights_in(folder)["raw"]
        moved = [not torch.equal(kept[name], tensor) for name, tensor in net.state_dict().items()]
        assert moved[-1], "the head always learns"
        learnt[before, epochs] = moved[0]
    assert learnt == {(0, 3): True, (1, 1): False, (2, 1): True, (1, 2): True}


def _spec() -> Any:
    from trials.data import InputSpec

    return InputSpec("features", (4,))


def test_weights_that_are_gone_changed_or_of_another_model_are_refused_in_one_line(
    source: str, trunk: tuple[TrialResult, Path], tmp_path: Path
) -> None:
    start = start_from(trunk[1], name="raw of trial 7")
    wider = recipe_of(source, model={"build": "mlp", "width": 7}, start=start)
    assert_refused(
        wider,
        tmp_path / "wider",
        r"^start\.weights: .*raw\.safetensors: raw of trial 7 is of another model, expected weights of this mlp "
        r"\(.*size mismatch for .*\)$",
    )
    trunk[1].write_bytes(trunk[1].read_bytes()[:-1] + b"\x07")
    recipe = recipe_of(source, start=start)
    changed = r"^start\.weights: .*raw\.safetensors: cannot be used as raw of trial 7 \(its digest is not that of what "
    assert_refused(recipe, tmp_path / "changed", changed)
    trunk[1].unlink()
    gone = r"^start\.weights: .*raw\.safetensors: cannot be used as raw of trial 7 \(it is gone\); put the file back"
    assert_refused(recipe, tmp_path / "gone", gone)
    trunk[1].write_bytes(b"torch.save's, say")
    assert_refused(recipe_of(source, start=start_from(trunk[1])), tmp_path / "pickle", r"\(not weights\)")


def assert_refused(recipe: Recipe, folder: Path, line: str) -> None:
    with pytest.raises(TrialError, match=line) as caught:
        run_trial(recipe, folder, device="cpu")
    assert "\n" not in str(caught.value)
