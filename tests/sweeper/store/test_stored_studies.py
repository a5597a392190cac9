"""Studies whose files are in a real S3: gone on with, taken home and cleared from machines that share nothing else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from bench import Bench
from s3_server import S3Server

from sweeper.store.store import Store
from sweeper.store.study import StoredStudyFolder

WriteStudy = Callable[..., Path]
REAL = "trials.train:run_trial"


def folder_on(machine: Path, bucket: str, patience_seconds: float = 5.0) -> StoredStudyFolder:
    """The study as a machine with a home of its own sees it."""
    return StoredStudyFolder(machine, "small", Store(f"s3://{bucket}/sweeps", patience_seconds))


def weights_of(bench: Bench) -> dict[str, str]:
    with closing(bench.catalog()) as catalog:
        return {row.path: row.sha256 for row in catalog.weights(catalog.study("small").id)}


def test_a_study_goes_on_on_another_machine_to_the_same_bits(
    tmp_path: Path, fakes: Path, write_study: WriteStudy, s3: S3Server, bucket: str
) -> None:
    file = write_study(trials=2, epochs=3)
    undisturbed = Bench(tmp_path / "undisturbed", fakes)
    undisturbed.folder.mkdir()
    undisturbed.run(file, REAL)

    there = folder_on(tmp_path / "a", bucket)
    there.begin(is_known=False)
    bench = Bench(tmp_path, fakes, there)
    with pytest.raises(KeyboardInterrupt):
        bench.run(file, REAL, stop_after_reports=2)
    other = folder_on(tmp_path / "b", bucket)
    other.begin(is_known=True)
    bench.files = other
    watcher = bench.run(file, REAL)

    assert watcher.lines[0] == "0 goes on after 2 to 3"
    assert weights_of(bench) == weights_of(undisturbed)
    assert len(weights_of(bench)) == 2
    for path, sha256 in weights_of(bench).items():
        folder_on(tmp_path / "c", bucket).fetch(path, sha256)
