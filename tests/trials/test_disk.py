"""A full disk: one clear line, nothing half-written, and what was saved before is whole."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trials import NoSpace, Recipe, TrialResult, run_trial
from trials.checkpoint import Checkpoint, TrialFolder, write_weights
from trials.disk import write_whole


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("not allowed to mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def checkpoint_of(epoch: int, numbers: int) -> Checkpoint:
    return Checkpoint(epoch, {"raw": {"weight": torch.full((numbers,), float(epoch))}}, {"epoch": epoch})


def test_on_a_full_disk_the_older_checkpoints_stay_whole_and_no_part_of_a_new_one(tiny_disk: Path) -> None:
    folder = TrialFolder(tiny_disk / "trial")
    for epoch in (1, 2):
        folder.save(checkpoint_of(epoch, 10_000), best=[])
    before = sorted(folder.root.rglob("*"))
    with pytest.raises(NoSpace) as caught:
        folder.save(checkpoint_of(3, 500_000), best=[])
    assert str(caught.value) == (
        f"{folder.checkpoint(3)}: no space left on the disk, or in its quota; nothing saved before is lost; make room, "
        "then start again"
    )
    with pytest.raises(NoSpace):
        folder.save(checkpoint_of(3, 500_000), best=[3])
    assert sorted(folder.root.rglob("*")) in (before, sorted([*before, folder.best]))
    found = folder.newest_checkpoint()
    assert found is not None
    assert found.epoch == 2
    folder.save(checkpoint_of(3, 10_000), best=[])


def test_a_trial_on_a_full_disk_goes_on_bit_for_bit_once_there_is_room(tiny_disk: Path, tmp_path: Path) -> None:
    data = {"source": "digits", "train_fraction": 0.1}
    model = {"build": "mlp", "width": 64, "depth": 1}
    recipe = Recipe.model_validate({"data": data, "model": model, "train": {"epochs": 4}})
    filler = tiny_disk / "filler"

    def fill(report: Any) -> bool:
        if report.epoch == 2:
            filler.write_bytes(b"\0" * (_free(tiny_disk) - 20_000))
        return True

    with pytest.raises(NoSpace, match="epoch-0003: no space left on the disk"):
        run_trial(recipe, tiny_disk / "trial", fill, "cpu")
    assert not list((tiny_disk / "trial").rglob("*.tmp"))
    filler.unlink()
    assert _digests(run_trial(recipe, tiny_disk / "trial", device="cpu")) == _digests(
        run_trial(recipe, tmp_path / "whole", device="cpu")
    )


def _free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def _digests(result: TrialResult) -> set[str]:
    return {kept.sha256 for kept in result.weights}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_old_file_stays_and_the_new_one_leaves_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_weights(tmp_path / "w.safetensors", {"weight": torch.ones(3)})
    before = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match=r"w\.safetensors: no space left"):
        write_weights(tmp_path / "w.safetensors", {"weight": torch.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    assert hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest() == before


def test_other_faults_of_a_disk_keep_their_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "file" / "below", b"")
