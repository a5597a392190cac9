"""What `sweeper doctor` finds and mends of files in a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from bench import Bench

from sweeper.catalog import Catalog
from sweeper.doctor.findings import Examination
from sweeper.doctor.of_checkpoints import check_checkpoints
from sweeper.doctor.of_files import check_files
from sweeper.doctor.repair import Surgery
from sweeper.settings import Settings
from sweeper.store.open import open_folder
from sweeper.store.study import StoredStudyFolder
from sweeper.study import load_study


class Ward:
    """A study with two trials in a store, which is looked at from a machine that has nothing of it."""

    def __init__(self, bench: Bench, file: Path, settings: Settings, catalog: Catalog) -> None:
        self._file, self._settings, self.catalog = file, settings, catalog
        (begun,) = (bench.folder / "store/studies/small").glob("*/trials")
        self.place = begun.parent
        self.row = catalog.study("small")

    def examine(self) -> Examination:
        trials, epochs, weights = (
            self.catalog.trials(self.row.id),
            self.catalog.epochs(self.row.id),
            self.catalog.weights(self.row.id),
        )
        seen = Examination(
            self._settings, self.row, trials, epochs, weights, False, time.time(), lambda: load_study(self._file)
        )
        check_files(seen)
        check_checkpoints(seen)
        return seen

    def lines(self) -> list[str]:
        return [finding.line for finding in self.examine().findings]


@pytest.fixture
def ward(tmp_path: Path, fakes: Path, write_study: Callable[..., Path]) -> Iterator[Ward]:
    settings = Settings(tmp_path / "b", "", "", None, f"file://{tmp_path}/store")
    there = open_folder(Settings(tmp_path / "a", "", "", None, settings.store), "small")
    there.begin(is_known=False)
    bench, file = Bench(tmp_path, fakes, there), write_study(trials=2, epochs=2)
    bench.run(file)
    with closing(bench.catalog()) as catalog:
        yield Ward(bench, file, settings, catalog)


def test_what_is_whole_is_no_finding(ward: Ward) -> None:
    seen = ward.examine()
    assert seen.findings == []
    assert (seen.checked["files"], seen.checked["checkpoints"]) == (4, 2)


def test_what_nobody_needs_is_found_and_goes(ward: Ward) -> None:
    killed = ward.place / f"trials/0000/files/{'0' * 64}"
    killed.write_bytes(b"half a checkpoint")
    unknown = ward.place / f"trials/0007/files/{'1' * 64}"
    unknown.parent.mkdir(parents=True)
    unknown.write_bytes(b"of another study")
    package = ward.place / f"winners/3/files/{'2' * 64}"
    package.parent.mkdir(parents=True)
    package.write_bytes(b"made by a process that was killed")
    (row,) = [row for row in ward.catalog.weights(ward.row.id) if row.path == "trials/0001/weights/ema.safetensors"]
    ward.catalog.forget_weights(ward.row.id, [row.path])

    seen = ward.examine()
    assert [finding.line for finding in seen.findings] == [
        "winner-3: a package that is not the winner's; --repair removes it",
        f"trials/0000/files/{'0' * 64}: sent to the store by a process that was killed; --repair removes it",
        "trials/0001/weights/ema.safetensors: weights that the catalog does not name; --repair removes it",
        "trials/0007: a trial that the catalog does not know; --repair removes it",
    ]
    surgery = Surgery(seen, ward.catalog)
    for finding in seen.findings:
        surgery.remove(finding.subject)
    assert ward.lines() == []
    assert not any(path.exists() for path in (killed, unknown, package, ward.place / f"trials/0001/files/{row.sha256}"))


def test_what_is_damaged_there_is_found_and_mended(ward: Ward) -> None:
    damaged, gone = (row for row in ward.catalog.weights(ward.row.id) if row.kind == "raw")
    object_of = {row.path: ward.place / f"trials/{row.trial:04d}/files/{row.sha256}" for row in (damaged, gone)}
    content = object_of[damaged.path].read_bytes()
    object_of[damaged.path].write_bytes(b"other bytes")
    object_of[gone.path].unlink()
    assert ward.lines() == [
        f"{damaged.path}: damaged in the store (its digest is not that of what was written); --repair drops them from "
        "the leaderboard",
        f"{gone.path}: in the catalog, but the file is gone from the store; --repair drops them from the leaderboard",
    ]
    folder = ward.examine().folder
    assert isinstance(folder, StoredStudyFolder)
    folder.restore(damaged.path, content)  # as from the winner's package
    Surgery(ward.examine(), ward.catalog).forget_weights(gone.path)
    assert ward.lines() == []
    assert object_of[damaged.path].read_bytes() == content
