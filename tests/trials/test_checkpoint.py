"""Writes are whole: after a kill at any moment the folder holds one consistent state, the old one or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from trials.checkpoint import Checkpoint, TrialFolder, write_weights
from trials.disk import write_whole
from trials.errors import TrialError
from trials.recipe import Extension, Recipe
from trials.result import TrialResult, WeightsFile

BEST_COUNT = 2
PARTS = {"raw.safetensors", "ema.safetensors", "state.pt", "manifest.json"}


def checkpoint_of(epoch: int, size: int = 64) -> Checkpoint:
    """A state in which every part says of which epoch it is, and which epochs' weights it needs."""
    value = torch.full((size,), float(epoch))
    state = {"epoch": epoch, "momentum": value.clone(), "needs": needed(epoch), "note": None, "rates": [0.1, 0.2]}
    return Checkpoint(epoch, {"raw": {"weight": value}, "ema": {"weight": value + 0.5}}, state)


def needed(epoch: int) -> list[int]:
    """The multiples of three are the best epochs: they come and go, and are not always the newest."""
    return [number for number in range(epoch, 0, -1) if number % 3 == 0][:BEST_COUNT]


def save(folder: TrialFolder, epoch: int, size: int = 64) -> None:
    folder.save(checkpoint_of(epoch, size), best=needed(epoch), best_ema=needed(epoch)[:1])


def assert_whole(folder: TrialFolder) -> int:
    """The epoch of the newest state, all parts of which agree; 0 if there is none yet."""
    found = folder.newest_checkpoint()
    if found is None:
        return 0
    raw, ema = found.models["raw"]["weight"], found.models["ema"]["weight"]
    for part, offset in ((raw, 0.0), (ema, 0.5), (found.state["momentum"], 0.0)):
        assert (part == found.epoch + offset).all()
    assert found.state["epoch"] == found.epoch
    for path in folder.checkpoints.glob("epoch-*"):  # older ones too, while they are being removed
        assert {file.name for file in path.iterdir()} == PARTS
    for number in found.state["needs"]:
        assert (load_file(folder.best_weights(number))["weight"] == number).all()
    for number in found.state["needs"][:1]:
        assert (load_file(folder.best_weights(number, "ema"))["weight"] == number + 0.5).all()
    return found.epoch


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_the_newest_checkpoint_a_spare_and_the_weights_that_they_need_stay(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    for epoch in range(1, 10):
        save(folder, epoch)
        assert assert_whole(folder) == epoch
    best = {"epoch-0009", "epoch-0006", "ema-0009"} | {"epoch-0003", "ema-0006"}  # the spare needs the last two
    assert files(tmp_path) == (
        {f"checkpoints/{name}/{part}" for name in ("epoch-0009", "epoch-0008") for part in PARTS}
        | {f"best/{name}.safetensors" for name in best}
    )
    save(folder, 10)
    assert {path.name for path in folder.checkpoints.iterdir()} == {"epoch-0010", "epoch-0009"}
    assert {path.stem for path in folder.best.iterdir()} == {"epoch-0009", "epoch-0006", "ema-0009"}


def test_to_examine_checkpoints_names_the_damaged_file_and_changes_nothing(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    assert folder.examine_checkpoints() == []
    for epoch in range(1, 7):
        save(folder, epoch)
    newest, spare = folder.checkpoint(6), folder.checkpoint(5)
    assert folder.examine_checkpoints() == [(newest, None), (spare, None)]

    def damaged() -> list[Path | None]:
        return [None if damage is None else damage.path for _, damage in folder.examine_checkpoints()]

    folder.best_weights(6).write_bytes(b"")  # of the newest alone
    assert damaged() == [folder.best_weights(6), None]
    content = bytearray((spare / "ema.safetensors").read_bytes())
    content[-1] ^= 1
    (spare / "ema.safetensors").write_bytes(content)
    (newest / "manifest.json").unlink()
    before = files(tmp_path)
    assert damaged() == [newest / "manifest.json", spare / "ema.safetensors"]
    assert (files(tmp_path), folder.notes) == (before, [])


def test_a_state_in_the_midst_of_an_epoch_is_newer_than_the_epoch_before_and_older_than_its_end(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    save(folder, 3)
    for step in (9, 10):
        folder.save(replace(checkpoint_of(3), step=step), best=[3], best_ema=[3])
        found = folder.newest_checkpoint()
        assert found is not None
        assert (found.epoch, found.step) == (3, step)
    assert {path.name for path in folder.checkpoints.iterdir()} == {"epoch-0004-step-000009", "epoch-0004-step-000010"}
    save(folder, 4)
    assert assert_whole(folder) == 4
    assert {path.name for path in folder.checkpoints.iterdir()} == {"epoch-0004-step-000010", "epoch-0004"}


class Killed(BaseException):
    """Stands for the end of the process: nothing in the code under test may catch it and tidy up."""


def count_down(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Die at the ``moment``-th call of any of the functions that change what is on the disk."""
    calls = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == moment:
                if real is real_fsync and stat.S_ISREG(os.fstat(args[0]).st_mode):
                    os.truncate(args[0], os.fstat(args[0]).st_size // 2)  # what was not synced may be lost
                raise Killed
            return real(*args, **keywords)

        return call

    real_fsync = os.fsync
    for owner, names in ((os, ("fsync", "unlink", "rmdir", "rename", "replace", "mkdir")), (Path, ("open",))):
        for name in names:
            monkeypatch.setattr(owner, name, dying(getattr(owner, name)))


@pytest.mark.parametrize("epoch", [1, 6, 9])
def test_a_kill_before_any_single_change_to_the_disk_leaves_a_whole_state(tmp_path: Path, epoch: int) -> None:
    """Every moment, one by one, of the first save, of one that keeps new weights, and of one that drops old ones."""
    for before in range(1, epoch):
        save(TrialFolder(tmp_path / "before"), before)
    (tmp_path / "before").mkdir(exist_ok=True)
    moment, finished = 0, False
    while not finished:
        moment += 1
        folder = TrialFolder(tmp_path / str(moment))
        shutil.copytree(tmp_path / "before", folder.root)
        with pytest.MonkeyPatch.context() as monkeypatch:
            count_down(monkeypatch, moment)
            with contextlib.suppress(Killed):
                save(folder, epoch)
                finished = True
        assert assert_whole(folder) in ({epoch} if finished else {epoch - 1, epoch})
        folder.remove_leftovers()
        assert not list(folder.root.rglob("*.tmp"))
        for later in range(assert_whole(folder) + 1, epoch + 2):
            save(folder, later)
        assert assert_whole(folder) == epoch + 1
        both = [{*needed(last), *(f"ema {number}" for number in needed(last)[:1])} for last in (epoch, epoch + 1)]
        assert len(files(folder.root)) == 2 * len(PARTS) + len(both[0] | both[1])
    assert moment > 10


def _write_until_killed(root: str, ready: Any) -> None:
    folder = TrialFolder(root)
    folder.remove_leftovers()
    epoch = assert_whole(folder)
    while True:
        epoch += 1
        save(folder, epoch, size=200_000)
        ready.set()


def test_a_killed_process_leaves_a_whole_state(tmp_path: Path) -> None:
    """kill -9 at random moments of a process that does nothing but write, which then goes on from there."""
    killable = multiprocessing.get_context("forkserver")
    killable.set_forkserver_preload(["torch", "trials.checkpoint"])
    moments = random.Random(0)
    folder, epochs = TrialFolder(tmp_path), [0]
    for _ in range(8):
        ready = killable.Event()
        process = killable.Process(target=_write_until_killed, args=(str(tmp_path), ready))
        process.start()
        assert ready.wait(timeout=120)
        time.sleep(moments.uniform(0.02, 0.25))
        assert process.is_alive()
        process.kill()
        process.join()
        epochs.append(assert_whole(folder))
    assert epochs == sorted(set(epochs))


def test_state_is_read_without_running_code_from_it(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return (Path(tmp_path / "ran").touch, ())

    folder = TrialFolder(tmp_path)
    folder.save(Checkpoint(1, {}, {"sound": 1}), best=())
    folder.save(Checkpoint(2, {}, {"planted": Hostile()}), best=())
    found = folder.newest_checkpoint()
    assert found is not None
    assert (found.epoch, found.state) == (1, {"sound": 1})
    assert not (tmp_path / "ran").exists()
    assert folder.notes == [
        "checkpoints/epoch-0002/state.pt was damaged (it holds more than tensors, numbers, texts, lists and dicts): "
        "set aside, and what was lost with it trained anew"
    ]
    assert files(tmp_path) == {"checkpoints/epoch-0001/state.pt", "checkpoints/epoch-0001/manifest.json"}


def test_a_file_is_the_old_one_or_the_new_one_whenever_the_write_is_cut_off(tmp_path: Path) -> None:
    path, contents = tmp_path / "deep" / "file", []
    finished = False
    while not finished:
        write_whole(path, b"the old content")
        with pytest.MonkeyPatch.context() as monkeypatch:
            count_down(monkeypatch, len(contents) + 1)
            with contextlib.suppress(Killed):
                write_whole(path, b"the new content")
                finished = True
        contents.append(path.read_bytes())
    assert set(contents) == {b"the old content", b"the new content"}
    assert contents == sorted(contents, reverse=True)
    assert len(contents) >= 5  # folder, open, sync, replace, sync
    assert files(tmp_path) == {"deep/file"}


def test_tied_and_channels_last_weights_come_back_as_they_were(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))
    model[1].weight = model[0].weight
    model = model.to(memory_format=torch.channels_last)
    write_weights(tmp_path / "weights.safetensors", model.state_dict())
    weights = load_file(tmp_path / "weights.safetensors")
    assert weights.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(weights[name], value)


def _own_until_killed(root: str, ready: Any) -> None:
    with TrialFolder(root).owned():
        ready.set()
        time.sleep(600)


def test_one_process_at_a_time_owns_a_folder_and_a_killed_one_no_more(tmp_path: Path) -> None:
    killable = multiprocessing.get_context("forkserver")
    killable.set_forkserver_preload(["torch", "trials.checkpoint"])
    folder, ready = TrialFolder(tmp_path / "trial"), killable.Event()
    process = killable.Process(target=_own_until_killed, args=(str(folder.root), ready))
    process.start()
    assert ready.wait(timeout=120)
    with pytest.raises(TrialError) as caught, folder.owned(patience_seconds=0.2):
        pass
    assert str(caught.value).startswith(f"{folder.root}: another process trains here, still after 0.2 s of waiting")
    assert "\n" not in str(caught.value)

    killer = threading.Timer(0.3, process.kill)
    killer.start()
    with folder.owned():
        assert not process.is_alive()
    killer.join()
    assert folder.lock.exists(), "left over, and no harm"


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, Killed])
def test_a_folder_is_free_after_any_end(end: type[BaseException] | None, tmp_path: Path) -> None:
    for _ in range(2):
        with contextlib.suppress(KeyboardInterrupt, Killed), TrialFolder(tmp_path).owned(patience_seconds=0.0):
            if end is not None:
                raise end
    with TrialFolder(tmp_path).owned(patience_seconds=0.0):
        assert files(tmp_path) == {".lock"}


def recipe_of(**train: Any) -> Recipe:
    return Recipe.model_validate({"data": {"source": "digits"}, "model": {"build": "mlp"}, "train": train})


def test_a_folder_belongs_to_one_recipe_and_the_difference_is_named(tmp_path: Path) -> None:
    first = recipe_of(epochs=3, ema={"decay": 0.9})
    folder = TrialFolder(tmp_path)
    folder.claim(first)
    folder.claim(recipe_of(epochs=3, ema={"decay": 0.9}))
    with pytest.raises(TrialError) as caught:
        folder.claim(recipe_of(epochs=4))
    message = str(caught.value)
    assert "train.epochs: 3 there, 4 here" in message
    assert 'train.ema: {"decay": 0.9, "warmup": true} there, null here' in message
    assert str(tmp_path / "recipe.json") in message
    assert "\n" not in message
    assert Recipe.model_validate_json(folder.recipe.read_bytes()) == first


def extended(recipe: Recipe, *after_epochs: int) -> Recipe:
    extensions = tuple(Extension(after_epochs=after, epochs=2) for after in after_epochs)
    return recipe.model_copy(update={"extensions": extensions})


def test_a_finished_folder_may_be_claimed_for_one_more_extension_and_is_then_unfinished(tmp_path: Path) -> None:
    folder, recipe = TrialFolder(tmp_path), recipe_of(epochs=3)
    for claimed in (recipe, extended(recipe, 3), extended(recipe, 3, 5)):
        folder.claim(claimed)
        assert folder.read_result() is None
        folder.save(checkpoint_of(claimed.epochs), best=())
        folder.finish(kept_in(folder))
        folder.claim(claimed)
        assert folder.read_result() is not None, "the same recipe again leaves the result"
    with pytest.raises(TrialError, match="another recipe's trial"):
        folder.claim(recipe)
    with pytest.raises(TrialError, match="another recipe's trial"):
        folder.claim(extended(recipe_of(epochs=4), 3, 5, 7))
    assert Recipe.model_validate_json(folder.recipe.read_bytes()) == extended(recipe, 3, 5)


def kept_in(folder: TrialFolder) -> TrialResult:
    """The result of a trial of three epochs, with the weights that it names."""
    write_weights(folder.kept_weights("raw"), {"weight": torch.ones(1)})
    content = folder.kept_weights("raw").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    metrics = {"validation.loss": 0.1}
    kept = WeightsFile(
        kind="raw", path="weights/raw.safetensors", metrics=metrics, epoch=3, bytes=len(content), sha256=digest
    )
    return TrialResult(
        epochs=3, weights=(kept,), parameters=1, seconds=0.1, device="cpu", peak_memory_bytes=0, notes=("a note",)
    )


def test_finishing_keeps_the_result_and_what_an_extension_needs(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    assert folder.read_result() is None
    for epoch in (1, 2, 3):
        save(folder, epoch)
    result = kept_in(folder)
    folder.finish(result)
    assert folder.read_result() == result
    assert assert_whole(folder) == 3
    rest = {"weights/raw.safetensors", "result.json"}
    best = {"best/epoch-0003.safetensors", "best/ema-0003.safetensors"}
    assert files(tmp_path) == {f"checkpoints/epoch-0003/{part}" for part in PARTS} | best | rest
    folder.remove_resume_point()
    assert files(tmp_path) == rest


def test_another_micro_batch_is_the_same_trial_until_it_is_finished(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    for micro_batch in (None, 8, 4):
        claimed = recipe_of(epochs=3, micro_batch=micro_batch)
        folder.claim(claimed)
        assert Recipe.model_validate_json(folder.recipe.read_bytes()) == claimed
    with pytest.raises(TrialError, match=r"another recipe's trial \(train.epochs: 3 there, 4 here\)"):
        folder.claim(recipe_of(epochs=4, micro_batch=8))
    folder.save(checkpoint_of(3), best=())
    folder.finish(kept_in(folder))
    folder.claim(recipe_of(epochs=3))
    assert folder.read_result() is not None
    assert Recipe.model_validate_json(folder.recipe.read_bytes()) == claimed, "it says how it was trained"
    longer = extended(recipe_of(epochs=3, micro_batch=2), 3)
    folder.claim(longer)
    assert folder.read_result() is None
    assert Recipe.model_validate_json(folder.recipe.read_bytes()) == longer
