"""What stays on the disk of a study, and what goes when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.catalog import Catalog, StudyRow, WeightsRow
from sweeper.storage import best_trials, keep_resume_points, remove_leftovers
from sweeper.study_folder import StudyFolder
from trials.result import WeightsFile

METRIC = "validation.accuracy"


def _row(trial: int, kind: str, value: float) -> WeightsRow:
    return WeightsRow(trial, kind, f"trials/{trial:04d}/weights/{kind}.safetensors", value, {METRIC: value}, 1, 1, "s")


ROWS = [_row(0, "raw", 0.5), _row(0, "ema", 0.9), _row(1, "raw", 0.8), _row(2, "raw", 0.85), _row(2, "ema", 0.1)]


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)
    return path


def _files(folder: StudyFolder) -> set[str]:
    return {path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """Three trials, each with weights and all that an extension needs."""
    folder = StudyFolder(tmp_path, "small")
    for number in range(3):
        _touch(folder.trial(number) / "checkpoints/epoch-0003/state.pt")
        _touch(folder.trial(number) / "best/epoch-0002.safetensors")
        _touch(folder.trial(number) / "weights/raw.safetensors")
    return folder


def test_a_trial_is_as_good_as_its_best_weights() -> None:
    assert best_trials(ROWS, METRIC) == [0, 2, 1]


@pytest.mark.parametrize(("most", "best"), [(0, set()), (1, {0}), (2, {0, 2}), (9, {0, 1, 2})])
def test_the_best_keep_their_resume_points_and_all_their_weights(
    most: int, best: set[int], folder: StudyFolder
) -> None:
    for _ in range(2):
        kept = keep_resume_points(ROWS, METRIC, most, folder)
        assert kept == [row for row in ROWS if row.trial in best]
        assert {number for number in range(3) if folder.has_resume_point(number, 3)} == best
        assert not any(folder.has_resume_point(number, 2) for number in range(3)), "of another epoch"
        assert {number for number in range(3) if (folder.trial(number) / "best").exists()} == best
        assert all(folder.weights(number) for number in range(3))


def test_a_removal_that_was_cut_off_leaves_no_half_a_checkpoint(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the first file that goes, a trial has no resume point any more; the next removal takes the rest."""
    with monkeypatch.context() as patched:
        patched.setattr("sweeper.study_folder.shutil.rmtree", _killed_in_the_midst)
        with pytest.raises(KeyboardInterrupt):
            folder.remove_resume_point(0)
    assert not folder.has_resume_point(0, 3)
    assert "trials/0000/.checkpoints.tmp/epoch-0003/state.pt" in _files(folder)
    folder.remove_resume_point(0)
    assert {path for path in _files(folder) if "0000" in path} == {"trials/0000/weights/raw.safetensors"}


def _killed_in_the_midst(path: Path, ignore_errors: bool) -> None:
    if path.exists():
        raise KeyboardInterrupt


@pytest.fixture
def study(tmp_path: Path) -> Iterator[tuple[Catalog, StudyRow]]:
    catalog = Catalog(f"sqlite:///{tmp_path / 'a.db'}")
    yield catalog, catalog.add_study("small", digest="d", text="", metric=METRIC, trials_asked=4)
    catalog.close()


def test_what_the_catalog_does_not_name_goes_but_for_a_trial_that_goes_on(
    study: tuple[Catalog, StudyRow], folder: StudyFolder
) -> None:
    catalog, row = study
    for number, state in enumerate(("complete", "complete", "waiting", "pruned", "failed")):
        trial = catalog.add_trial(row.id, number, params={}, recipe={})
        file = WeightsFile(kind="raw", path="", metrics={METRIC: 0.5}, epoch=1, bytes=1, sha256="s")
        named = f"trials/{number:04d}/weights/raw{'' if number == 0 else '-extended-1'}.safetensors"
        kept = [(file, named, 0.5)] if number < 3 else []
        catalog.end_trial(trial.id, state, value=0.5, weights=kept)  # type: ignore[arg-type]
        for name in (
            "weights/raw.safetensors",
            "weights/raw-extended-1.safetensors",
            "checkpoints/epoch-0003/state.pt",
        ):
            _touch(folder.trial(number) / name)
    winner = {"path": "trials/0000/weights/raw.safetensors", "package": 2}
    catalog.set_study(row.id, winner=winner)
    for number in (1, 2, 3):
        _touch(folder.package(number) / "weights.safetensors")
    _touch(folder.root / ".winner.half" / "weights.safetensors")

    for _ in range(2):
        remove_leftovers(catalog, row, folder)
        assert _files(folder) - {path for path in _files(folder) if "/best/" in path} == {
            "trials/0000/weights/raw.safetensors",
            "trials/0000/checkpoints/epoch-0003/state.pt",
            "trials/0001/weights/raw-extended-1.safetensors",
            "trials/0001/checkpoints/epoch-0003/state.pt",
            "trials/0002/weights/raw.safetensors",
            "trials/0002/weights/raw-extended-1.safetensors",
            "trials/0002/checkpoints/epoch-0003/state.pt",
            "trials/0003/weights/raw.safetensors",
            "trials/0003/weights/raw-extended-1.safetensors",
            "trials/0004/weights/raw.safetensors",
            "trials/0004/weights/raw-extended-1.safetensors",
            "winner-2/weights.safetensors",
        }


def test_the_old_file_of_the_winner_stays_until_there_is_another(
    study: tuple[Catalog, StudyRow], folder: StudyFolder
) -> None:
    catalog, row = study
    trial = catalog.add_trial(row.id, 0, params={}, recipe={})
    file = WeightsFile(kind="raw", path="", metrics={METRIC: 0.5}, epoch=1, bytes=1, sha256="s")
    new = _touch(folder.trial(0) / "weights/raw-extended-1.safetensors")
    catalog.end_trial(trial.id, "complete", value=0.5, weights=[(file, new.relative_to(folder.root).as_posix(), 0.5)])
    catalog.set_study(row.id, winner={"path": "trials/0000/weights/raw.safetensors", "package": 1})
    remove_leftovers(catalog, row, folder)
    assert len(folder.weights(0)) == 2
    catalog.set_study(row.id, winner={"path": "trials/0000/weights/raw-extended-1.safetensors", "package": 2})
    remove_leftovers(catalog, row, folder)
    assert folder.weights(0) == [new]


def test_before_there_is_a_winner_none_is_removed(study: tuple[Catalog, StudyRow], folder: StudyFolder) -> None:
    catalog, row = study
    _touch(folder.package(1) / "weights.safetensors")
    before = _files(folder)
    remove_leftovers(catalog, row, folder)
    assert _files(folder) == before
