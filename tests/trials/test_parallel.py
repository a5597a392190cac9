"""The processes of a data parallel trial: they train as one, go on bit for bit, and are gone when it is over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import safetensors.torch
import torch
import torch.distributed as dist

from trials import DataError, EpochReport, ProcessLost, Pruned, Recipe, TrialError, run_trial
from trials.parallel import rank_devices

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 20.0


def recipe_of(size: int, batch_size: int, **changed: Any) -> Recipe:
    train = {
        "epochs": 2,
        "batch_size": batch_size,
        "data_parallel": size,
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
        **changed.pop("train", {}),
    }
    content = {"seed": 5, "data": {"source": "digits"}, "model": {"build": "mlp", "norm": "none"}, "train": train}
    return Recipe.model_validate(content | changed)


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "weights").iterdir()}


def others() -> list[psutil.Process]:
    """The child processes of this one that are ranks."""
    return [child for child in psutil.Process().children() if "trials.parallel" in " ".join(child.cmdline())]


def test_two_processes_train_like_one_on_the_same_batches(tmp_path: Path) -> None:
    """1293 examples in batches of 64, gathered by twos: the last group is of one batch, with 13 examples."""
    before, seen = (torch.get_num_threads(), sys.excepthook), []

    def look(report: EpochReport) -> bool:
        seen.append((len(others()), report.metrics))
        return True

    section = {"train": {"accumulate": 2, "ema": {"decay": 0.9}}}
    together = run_trial(recipe_of(2, 64, **section), tmp_path / "two", look, "cpu")
    assert [count for count, _ in seen] == [1, 1]
    assert (others(), dist.is_initialized()) == ([], False)
    assert (torch.get_num_threads(), sys.excepthook) == before
    alone = run_trial(recipe_of(1, 64, **section), tmp_path / "one", look, "cpu")
    for (_, found), (_, wanted) in zip(seen[:2], seen[2:], strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)
    for ours, theirs in zip(together.weights, alone.weights, strict=True):
        found, wanted = (
            safetensors.torch.load_file(tmp_path / name / file.path) for name, file in (("two", ours), ("one", theirs))
        )
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_trial_that_lost_a_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    recipe = recipe_of(
        2,
        32,
        data={"source": "digits", "augment": ["random_crop"], "mix": "mixup"},
        model={"build": "small_convnet", "width": 4, "depth": 2, "dropout": 0.2},
        train={
            "epochs": 3,
            "accumulate": 2,
            "ema": {"decay": 0.9},
            "swa": {"start": 0.3},
            "schedule": {"name": "one_cycle"},
        },
        average={"best_n": 2},
    )
    run_trial(recipe, tmp_path / "whole", device="cpu")
    killed = []

    def kill(report: EpochReport) -> bool:
        killed.extend(others())
        killed[0].kill()
        return True

    started = time.monotonic()
    with pytest.raises(ProcessLost) as lost:
        run_trial(recipe, tmp_path / "broken", kill, "cpu")
    assert str(lost.value) == (
        "train.data_parallel: process 1 of 2 died (SIGKILL); start again to go on from the newest checkpoint"
    )
    assert time.monotonic() - started < PATIENCE_SECONDS + 10
    assert (others(), dist.is_initialized()) == ([], False)
    with pytest.raises(Pruned):
        run_trial(recipe, tmp_path / "broken", lambda report: report.epoch < 3, "cpu")
    assert (others(), dist.is_initialized()) == ([], False)
    run_trial(recipe, tmp_path / "broken", device="cpu")
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


SCRIPT = """
import sys
from pathlib import Path
from trials import Recipe, run_trial

def wait_to_be_killed(report):
    Path("ready").touch()
    return True

recipe = Recipe.model_validate_json(sys.argv[1])
run_trial(recipe, "trial", wait_to_be_killed, "cpu")
"""


@pytest.mark.slow
def test_no_process_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    """Killed in the midst of training, as a script without ``if __name__ == "__main__"``."""
    (tmp_path / "script.py").write_text(SCRIPT)
    recipe = recipe_of(2, 4, train={"epochs": 1000, "optimizer": {"name": "adam", "lr": 1e-5}}).model_dump_json()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    script = subprocess.Popen([sys.executable, "script.py", recipe], cwd=tmp_path, env=environment)
    try:
        _wait_until((tmp_path / "ready").exists, 200)
        children = psutil.Process(script.pid).children(recursive=True)
        assert len(children) == 1
        os.kill(script.pid, signal.SIGKILL)
    finally:
        script.kill()
        script.wait()
    _, alive = psutil.wait_procs(children, PATIENCE_SECONDS)
    assert alive == []
    assert list(tmp_path.glob("sweeper-*")) == []


def _wait_until(happened: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_another_process_raises_is_raised_here_in_one_line(tmp_path: Path) -> None:
    recipe = recipe_of(2, 32, model={"build": "odd_ranks:FailsAway"})
    with pytest.raises(TrialError) as failed:
        run_trial(recipe, tmp_path / "trial", device="cpu")
    assert str(failed.value) == "train.data_parallel: process 1 of 2 raised KeyError: 'no such layer'"
    assert others() == []


def test_data_that_differs_between_processes_is_an_error(tmp_path: Path) -> None:
    recipe = recipe_of(2, 4, data={"source": "odd_ranks:of_this_process"})
    with pytest.raises(DataError) as failed:
        run_trial(recipe, tmp_path / "trial", device="cpu")
    assert str(failed.value) == (
        "odd_ranks:of_this_process: found other data in each process of train.data_parallel, expected the same; seed "
        "what is random in it"
    )


def test_more_processes_than_examples_or_gpus_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(TrialError) as few:
        run_trial(recipe_of(2000, 1), tmp_path / "trial", device="cpu")
    assert str(few.value) == (
        "train.data_parallel: found 2000 processes, expected at most one for each of the 1293 training examples; "
        "lower it"
    )
    gpus = torch.cuda.device_count()
    with pytest.raises(TrialError) as many:
        rank_devices(gpus + 1, 1000, torch.device("cuda", 0))
    assert str(many.value) == (
        f"train.data_parallel: found {gpus + 1} processes, expected at most {gpus}, one a GPU from cuda:0 on; lower "
        "it, or give each trial more GPUs (workers.gpus)"
    )
    assert rank_devices(2, 2, torch.device("cpu")) == [torch.device("cpu")] * 2


def test_a_folder_of_one_process_is_not_for_two(tmp_path: Path) -> None:
    run_trial(recipe_of(1, 64, train={"epochs": 1}), tmp_path, device="cpu")
    with pytest.raises(TrialError, match=r"train.data_parallel: 1 there, 2 here.*use a new folder"):
        run_trial(recipe_of(2, 64, train={"epochs": 1}), tmp_path, device="cpu")
    assert json.loads((tmp_path / "recipe.json").read_bytes())["train"]["data_parallel"] == 1
