"""What stays on the disk of a study, and what goes when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.catalog import Catalog, Role, StudyRow, WeightsRow
from sweeper.finish.board import read_board
from sweeper.storage import (
    Freed,
    Removable,
    best_trials,
    collect,
    enough,
    ingredients,
    keep_resume_points,
    removables,
    remove_leftovers,
)
from sweeper.study_file import Finish, Storage, size_bytes
from sweeper.study_folder import StudyFolder
from trials.recipe import Recipe
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


def test_all_is_needed_that_finishing_may_be_made_of(study: tuple[Catalog, StudyRow]) -> None:
    """The best two of the best one's architecture, the best two of any, the best average; and what was made."""
    catalog, row = study
    said = [(0, "wide", 0.9), (1, "slim", 0.8), (2, "slim", 0.7), (3, "wide", 0.6), (4, "wide", 0.5), (5, "slim", 0.4)]
    for number, build, value in said:
        recipe = Recipe.model_validate({"data": {"source": "digits"}, "model": {"build": f"my:{build}"}})
        _end(catalog, row, number, recipe, raw=value, **({"ema": 0.41} if number == 5 else {}))
    _end(catalog, row, 100_000, recipe, soup=0.1)
    needed = ingredients(read_board(catalog, row, Finish(pool=2), seed=0))
    trials = {int(path.split("/")[1]) for path in needed}
    # An ensemble may be of any architecture.
    assert trials == {0, 1, 3, 5, 100_000}


def _end(catalog: Catalog, row: StudyRow, number: int, recipe: Recipe, **values: float) -> None:
    content = recipe.model_dump(mode="json")
    role: Role = "search" if number < 100_000 else "move"
    trial = catalog.add_trial(row.id, number, params={}, recipe=content, role=role)
    kept = [
        (
            WeightsFile(kind=kind, path="", metrics={METRIC: value}, epoch=1, bytes=1, sha256="s"),  # type: ignore[arg-type]
            f"trials/{number:04d}/weights/{kind}.safetensors",
            value,
        )
        for kind, value in values.items()
    ]
    catalog.end_trial(trial.id, "complete", value=0.5, weights=kept)


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


def _resume(trial: int, size: int = 10) -> Removable:
    return Removable("resume_point", trial, size)


def _weights(trial: int, kind: str) -> Removable:
    return Removable("weights", trial, 1, f"trials/{trial:04d}/weights/{kind}.safetensors")


def test_what_may_go_goes_in_order() -> None:
    """The leaderboard of ROWS: 0 ema, 2 raw, 1 raw, 0 raw, 2 ema; the best trials: 0, 2, 1."""
    found = removables(ROWS, METRIC, Storage(keep_best=2), {0: 10, 1: 10, 2: 10})
    assert found == [
        *(_resume(1), _resume(2), _resume(0)),
        *(_weights(2, "ema"), _weights(0, "raw"), _weights(1, "raw")),
    ]


def test_the_top_and_the_winner_stay_and_so_does_what_there_is_not() -> None:
    kept = removables(ROWS, METRIC, Storage(keep_best=5), {2: 10})
    assert kept == [_resume(2)]
    winner = "trials/0002/weights/ema.safetensors"
    assert removables(ROWS, METRIC, Storage(keep_best=3), {}, {winner}) == [_weights(0, "raw")]


def test_a_trial_whose_weights_have_gone_loses_its_resume_point_first() -> None:
    assert removables(ROWS, METRIC, Storage(), {0: 10, 7: 10, 5: 10}) == [_resume(5), _resume(7), _resume(0)]


@pytest.mark.parametrize(("surplus", "count"), [(0, 0), (1, 1), (10, 1), (11, 2), (30, 3), (31, 4), (1e9, 4)])
def test_no_more_goes_than_must(surplus: int, count: int) -> None:
    order = [_resume(1), _resume(2), _resume(0), _weights(2, "ema")]
    assert enough(order, surplus) == order[:count]


@pytest.mark.parametrize(
    ("size", "count"),
    [("50 GB", 50_000_000_000), ("20GiB", 21_474_836_480), ("1.5 kb", 1500), ("0 B", 0), ("2 TiB", 2_199_023_255_552)],
)
def test_sizes(size: str, count: int) -> None:
    assert size_bytes(size) == count
    assert Storage(limit=size).limit_bytes == count


KILOBYTE = 1000


@pytest.fixture
def full(study: tuple[Catalog, StudyRow], tmp_path: Path) -> tuple[Catalog, StudyRow, StudyFolder]:
    """Four complete trials of accuracies 0.0 to 0.3, one that runs and one that was pruned, 1 kB a file."""
    catalog, row = study
    folder = StudyFolder(tmp_path, "small")
    for number, state in enumerate(("complete",) * 4 + ("running", "pruned")):
        trial = catalog.add_trial(row.id, number, params={}, recipe={})
        for name in ("checkpoints/epoch-0003/state.pt", "best/epoch-0002.safetensors", "weights/raw.safetensors"):
            _touch(folder.trial(number) / name).write_bytes(bytes(KILOBYTE))
        if state == "complete":
            path = folder.named(number, "weights/raw.safetensors")
            metrics = {METRIC: number / 10}
            file = WeightsFile(kind="raw", path="", metrics=metrics, epoch=1, bytes=KILOBYTE, sha256="s")
            facts = {"weights": {f"weights.raw.{METRIC}": number / 10}}
            catalog.end_trial(trial.id, "complete", value=number / 10, facts=facts, weights=[(file, path, number / 10)])
        elif state == "pruned":
            catalog.end_trial(trial.id, "pruned", value=0.5)
    return catalog, row, folder


def _left(folder: StudyFolder) -> dict[int, str]:
    """What each trial has left: Checkpoint, Best epochs, Weights."""
    names = {"checkpoints": "C", "best": "B", "weights": "W"}
    return {
        number: "".join(
            sign for name, sign in names.items() if any(f.is_file() for f in (folder.trial(number) / name).rglob("*"))
        )
        for number in range(6)
    }


@pytest.mark.parametrize(
    ("limit", "complete"),
    [
        (None, ["CBW", "CBW", "CBW", "CBW"]),
        ("18 kB", ["CBW", "CBW", "CBW", "CBW"]),
        ("17999 B", ["W", "CBW", "CBW", "CBW"]),
        ("16 kB", ["W", "CBW", "CBW", "CBW"]),
        ("12 kB", ["W", "W", "W", "CBW"]),
        ("10 kB", ["W", "W", "W", "W"]),
        ("9 kB", ["", "W", "W", "W"]),
        ("8 kB", ["", "", "W", "W"]),
    ],
)
def test_the_limit_is_kept_and_no_more_goes_than_must(
    limit: str | None, complete: list[str], full: tuple[Catalog, StudyRow, StudyFolder]
) -> None:
    catalog, row, folder = full
    before = folder.used_bytes()
    assert before == 18 * KILOBYTE
    for _ in range(2):
        freed = collect(catalog, row, Storage(limit=limit, keep_best=2), folder)
        assert list(_left(folder).values()) == [*complete, "CBW", "CBW"]
        assert [weights.trial for weights in catalog.weights(row.id)] == [n for n, left in enumerate(complete) if left]
        assert freed == Freed(before - folder.used_bytes())
        before = folder.used_bytes()
    assert catalog.trial(row.id, 0).facts["weights"] == {f"weights.raw.{METRIC}": 0.0}, "what it was worth stays"


def test_below_what_is_needed_nothing_goes_and_it_is_said(full: tuple[Catalog, StudyRow, StudyFolder]) -> None:
    catalog, row, folder = full
    for expected in (10 * KILOBYTE, 0):
        freed = collect(catalog, row, Storage(limit="1 kB", keep_best=2), folder)
        assert freed == Freed(
            expected,
            "study 'small' needs more than its storage.limit of 1 kB, and nothing more can go; raise the limit, or "
            "lower storage.keep_best (2)",
        )
        assert list(_left(folder).values()) == ["", "", "W", "W", "CBW", "CBW"]


@pytest.mark.parametrize("limit", [None, "1 TB"])
def test_out_of_space_all_that_is_not_needed_goes(
    limit: str | None, full: tuple[Catalog, StudyRow, StudyFolder]
) -> None:
    catalog, row, folder = full
    assert collect(catalog, row, Storage(limit=limit, keep_best=2), folder, out_of_space=True) == Freed(12 * KILOBYTE)
    assert list(_left(folder).values()) == ["", "", "W", "W", "CBW", "W"], "the pruned trial's state was a leftover"
    assert collect(catalog, row, Storage(limit=limit, keep_best=2), folder, out_of_space=True) == Freed(0)


def test_a_trunk_stays_until_the_study_is_finished(full: tuple[Catalog, StudyRow, StudyFolder]) -> None:
    catalog, row, folder = full
    trunk = catalog.add_trial(row.id, 100_000, params={}, recipe={}, role="trunk")
    path = folder.named(100_000, "weights/raw.safetensors")
    file = WeightsFile(kind="raw", path="", metrics={METRIC: 0.0}, epoch=1, bytes=KILOBYTE, sha256="s")
    catalog.end_trial(trunk.id, "complete", value=0.0, weights=[(file, path, 0.0)])
    _touch(folder.file(path))
    storage = Storage(limit="1 kB", keep_best=2)
    for out_of_space in (False, True):
        collect(catalog, row, storage, folder, out_of_space=out_of_space)
        assert [weights.trial for weights in catalog.weights(row.id)] == [2, 3, 100_000]
        assert folder.file(path).is_file()
    catalog.set_study(row.id, state="finished")
    collect(catalog, row, storage, folder)
    assert [weights.trial for weights in catalog.weights(row.id)] == [2, 3]
    assert not folder.file(path).exists()


def test_a_kill_between_row_and_file_leaves_no_row_without_its_file(
    full: tuple[Catalog, StudyRow, StudyFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, row, folder = full

    def killed(self: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(catalog, row, Storage(limit="8 kB", keep_best=2), folder)
    named = [folder.root / weights.path for weights in catalog.weights(row.id)]
    assert [path.is_file() for path in named] == [True, True]
    assert len(folder.weights(0)) == 1, "its file is still there"
    remove_leftovers(catalog, row, folder)
    assert list(_left(folder).values())[:4] == ["", "", "W", "W"]
