from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_training
import pytest

from sweeper.runner import Failed, Job, Reported, Runner
from sweeper.store.index import Index, StoredFile, file_name, index_name
from sweeper.store.mirror import Mirror, Superseded
from sweeper.store.store import Away, Store
from sweeper.store.trial import kept_in_store, needed_weights
from trials.errors import Interrupted
from trials.recipe import Recipe
from trials.result import EpochReport, TrialResult
from trials.train import run_trial


def recipe(**changes: Any) -> Recipe:
    said = {
        "data": {"source": "digits"},
        "model": {"build": "linear"},
        "train": {"epochs": 3, "batch_size": 512, "optimizer": {"name": "sgd", "lr": 0.1}},
    }
    return Recipe.model_validate(said | changes)


def place(tmp_path: Path, number: int = 0) -> str:
    return f"file://{tmp_path}/store/trials/{number:04d}"


def index_of(tmp_path: Path, number: int = 0) -> Index:
    """What a machine elsewhere would see of the trial."""
    return Mirror(Store(f"file://{tmp_path}/store"), f"trials/{number:04d}", tmp_path / "nowhere").look()


class Dies(BaseException):
    """What a process that is killed does not get over."""


def dies_at(epoch: int) -> Callable[[EpochReport], bool]:
    def report(told: EpochReport) -> bool:
        if told.epoch == epoch:
            raise Dies
        return True

    return report


def train(
    tmp_path: Path, machine: str, report: Callable[[EpochReport], bool] = lambda _: True, number: int = 0, **how: Any
) -> TrialResult:
    """Train on a machine of that name, by default with the real training."""
    run = kept_in_store(how.pop("train", run_trial), place(tmp_path, number), 0.0)
    stop = how.pop("stop", lambda: False)
    return run(recipe(**how), tmp_path / machine / f"trials/{number:04d}", report, stop=stop)


def test_an_epoch_is_told_once_the_store_has_it(tmp_path: Path) -> None:
    seen = []

    def report(told: EpochReport) -> bool:
        index = index_of(tmp_path)
        seen.append((told.epoch, index.epoch, f"checkpoints/epoch-{told.epoch:04d}/manifest.json" in index.files))
        return True

    train(tmp_path, "a", report, train=fake_training.instant)
    assert seen == [(1, 1, True), (2, 2, True), (3, 3, True)]
    assert {"weights/raw.safetensors", "weights/ema.safetensors"} <= index_of(tmp_path).files.keys()


def test_what_is_damaged_in_the_store_is_trained_again_to_the_same_bits(tmp_path: Path) -> None:
    undisturbed = run_trial(recipe(), tmp_path / "undisturbed")
    with pytest.raises(Dies):
        train(tmp_path, "a", dies_at(3))
    state = index_of(tmp_path).files["checkpoints/epoch-0003/state.pt"]
    (tmp_path / "store" / file_name("trials/0000", state.sha256)).write_bytes(b"damaged")
    told: list[int] = []
    result = train(tmp_path, "b", lambda report: told.append(report.epoch) or True)
    assert told == [2, 3], "it goes on from the checkpoint before"
    assert result.weights == undisturbed.weights
    lost = "checkpoints/epoch-0003/state.pt was damaged"
    assert [note for note in result.notes if note.startswith(lost)] == [
        f"{lost} (it is gone): set aside, and what was lost with it trained anew",
        f"{lost} in the store (its digest is not that of what was written): set aside",
    ]
    assert train(tmp_path, "c").weights == undisturbed.weights, "a third machine finds it finished"


def test_what_stops_within_an_epoch_is_kept(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Interrupted) as midway:
        train(tmp_path, "a", stop=lambda: next(asked))
    assert midway.value.step
    name = f"checkpoints/epoch-{midway.value.epoch:04d}-step-{midway.value.step:06d}/state.pt"
    assert name in index_of(tmp_path).files
    assert train(tmp_path, "b").weights == run_trial(recipe(), tmp_path / "undisturbed").weights


def test_what_a_recipe_names_of_other_trials_is_brought(tmp_path: Path) -> None:
    singles = [train(tmp_path, "a", number=number, seed=number).weights[0] for number in range(2)]
    files = [
        {"path": f"../../trials/{number:04d}/{file.path}", "sha256": file.sha256, "name": "raw", "value": 0.9}
        for number, file in enumerate(singles)
    ]
    assembly = {"name": "uniform_soup", "ingredients": files, "barrier_tolerance": 100.0}
    made = train(tmp_path, "b", number=2, assembly=assembly)
    assert made.weights[0].kind == "soup"
    assert (tmp_path / "b/trials/0001" / singles[1].path).is_file()

    (tmp_path / "store" / file_name("trials/0001", singles[1].sha256)).unlink()
    with pytest.raises(Exception, match=r"^assembly\.ingredients.*trials/0001/weights/raw.safetensors.*it is gone"):
        train(tmp_path, "c", number=3, assembly=assembly)


def test_all_kinds_of_needed_weights_are_known() -> None:
    kept = [{"path": f"../../trials/{n:04d}/w", "sha256": f"{n:064d}", "name": str(n), "value": 0.5} for n in range(4)]
    member = recipe(start={"weights": kept[3], "epochs": 1}).model_dump(mode="json")
    taught = recipe(
        start={"weights": kept[0], "epochs": 1},
        teacher={"members": [{"weights": kept[1], "recipe": member}, {"weights": kept[2], "recipe": member}]},
    )
    assert [weights.name for weights in needed_weights(taught)] == ["0", "1", "2"], "not what made its teachers"


def test_a_worker_that_wakes_up_late_changes_nothing(tmp_path: Path) -> None:
    def sleeps(told: EpochReport) -> bool:
        if told.epoch == 1:
            train(tmp_path, "b", train=fake_training.instant)  # meanwhile, elsewhere
        return True

    with pytest.raises(Superseded, match="another process has taken it since; this one stops") as caught:
        train(tmp_path, "a", sleeps, train=fake_training.instant)
    assert caught.value.transient, "no fault of the trial: whoever is meant to train it goes on"
    assert (index_of(tmp_path).epoch, index_of(tmp_path).attempt) == (3, 2)


def test_files_that_only_this_machine_has_do_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "a/trials/0000"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "epochs").write_text("2")  # of a study of that name that was removed elsewhere
    told: list[int] = []
    train(tmp_path, "a", lambda report: told.append(report.epoch) or True, train=fake_training.instant)
    assert told == [1, 2, 3]


def test_a_store_that_is_away_is_no_fault_of_the_trial(tmp_path: Path, fakes: Path) -> None:
    (tmp_path / "away.py").write_text(
        "from sweeper.store.store import Away\n"
        "def loses_the_store(recipe, folder, report, *, stop):\n"
        "    raise Away('SWEEPER_STORE=s3://b: does not answer, tried for 180 s (TimeoutError: )')\n"
    )
    assert Away("x").transient
    runner = Runner("away:loses_the_store")
    event = runner.start(Job(0, recipe().model_dump_json(), str(tmp_path / "trial"), (str(tmp_path),)))
    assert isinstance(event, Failed)
    assert (event.kind, event.traceback) == ("lost", "")
    assert event.reason == "SWEEPER_STORE=s3://b: does not answer, tried for 180 s (TimeoutError: )"
    runner.close()


def test_a_runner_keeps_its_trial_where_the_job_says(tmp_path: Path, fakes: Path) -> None:
    runner = Runner("fake_training:instant")
    job = Job(0, recipe().model_dump_json(), str(tmp_path / "a"), (str(fakes),), store=place(tmp_path))
    assert isinstance(runner.start(job), Reported)
    assert index_of(tmp_path).epoch == 1
    runner.close()


def test_an_index_that_names_files_elsewhere_brings_none(tmp_path: Path) -> None:
    index = Index.model_construct(files={"../../escaped": StoredFile(bytes=1, sha256="0" * 64)})
    Store(f"file://{tmp_path}/store").create(index_name("trials/0000", 1), index.content())
    train(tmp_path, "a", train=fake_training.instant)
    assert not list(tmp_path.rglob("escaped"))
