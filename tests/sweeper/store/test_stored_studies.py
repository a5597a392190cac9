"""Studies whose files are in a real S3: gone on with, taken home and cleared from machines that share nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import Bench
from s3_server import S3Server

from sweeper.errors import StoreError
from sweeper.export.forms import FORMS
from sweeper.publish import publish_winner
from sweeper.pull import pull
from sweeper.rank.leaderboard import rank
from sweeper.storage import remove_leftovers
from sweeper.store.store import Store
from sweeper.store.study import StoredStudyFolder
from trials.checkpoint import TrialFolder

WriteStudy = Callable[..., Path]
REAL = "trials.train:run_trial"


def folder_on(machine: Path, bucket: str, patience_seconds: float = 5.0) -> StoredStudyFolder:
    """The study as a machine with a home of its own sees it."""
    return StoredStudyFolder(machine, "small", Store(f"s3://{bucket}/sweeps", patience_seconds))


def ask_here(form: str, folder: Path, given: Any, _import_paths: Sequence[str]) -> np.ndarray:
    """What the fresh process does, without its start."""
    answers: np.ndarray = FORMS[form].ask(folder, given)
    return answers


def file_bytes(s3: S3Server, bucket: str) -> int:
    return sum(len(content) for name, content in s3.objects(bucket).items() if "/files/" in name)


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


def test_what_a_study_comes_to_is_kept_published_and_removed_in_the_store(
    tmp_path: Path, fakes: Path, write_study: WriteStudy, s3: S3Server, bucket: str
) -> None:
    here = folder_on(tmp_path / "a", bucket)
    here.begin(is_known=False)
    bench = Bench(tmp_path, fakes, here)
    bench.run(write_study(trials=2, epochs=2), REAL)
    with closing(bench.catalog()) as catalog:
        study = catalog.study("small")
        best = rank(catalog.weights(study.id), study.metric)[0]
        record = publish_winner(catalog, study, best, here, file_folder=tmp_path)
        assert (tmp_path / "a/studies/small/winner").is_dir()

        third = folder_on(tmp_path / "c", bucket)
        pulled = pull(catalog, "small", third, tmp_path / "best", answers=ask_here)
        assert pulled.record["sha256"] == record["sha256"] == best.sha256
        pull(catalog, "small", third, tmp_path / "other", what=f"trial:{1 - best.trial}", answers=ask_here)
        assert (tmp_path / "other/weights.safetensors").is_file()

        assert third.used_bytes() == sum(map(len, s3.objects(bucket).values())) - len('{"folder": "0123456789ab"}')
        assert all(third.has_resume_point(number, 2) for number in range(2))
        freed_bytes, before_bytes = third.resume_point_bytes(0), file_bytes(s3, bucket)
        third.remove_resume_point(0)
        assert not here.has_resume_point(0, 2)
        assert before_bytes - file_bytes(s3, bucket) == freed_bytes > 0
        third.bring(1)
        assert [damage for _, damage in TrialFolder(third.trial(1)).examine_checkpoints()] == [None]

        gone = next(row for row in catalog.weights(study.id) if row.trial != best.trial)
        catalog.forget_weights(study.id, [gone.path])
        remove_leftovers(catalog, study, third)
        assert third.weights(gone.trial) == []
        with pytest.raises(StoreError, match=rf"^{gone.path}: the catalog names these weights, but s3://.* is gone"):
            folder_on(tmp_path / "d", bucket).fetch(gone.path, gone.sha256)
    third.clear()
    assert s3.objects(bucket) == {}
    with pytest.raises(
        StoreError, match=r"^SWEEPER_STORE=s3://.*: holds nothing of study 'small', which was begun with"
    ):
        folder_on(tmp_path / "e", bucket).begin(is_known=True)


def test_a_store_that_is_away_for_a_while_costs_a_study_nothing(
    tmp_path: Path, fakes: Path, write_study: WriteStudy, s3: S3Server, bucket: str
) -> None:
    folder = folder_on(tmp_path / "a", bucket)
    folder.begin(is_known=False)
    bench, asked = Bench(tmp_path, fakes, folder), itertools.count()
    s3.answer = lambda _method, _path: "500 Internal Error" if next(asked) % 5 == 4 else None
    watcher = bench.run(write_study(trials=2, epochs=2))
    assert watcher.lines == ["0 started", "0 complete", "1 started", "1 complete"]
    s3.answer = lambda _method, _path: None
    assert len(weights_of(bench)) == 4
    for path, sha256 in weights_of(bench).items():
        folder_on(tmp_path / "b", bucket).fetch(path, sha256)


def test_a_finished_study_keeps_what_its_moves_made_of_the_store(
    tmp_path: Path, fakes: Path, write_study: WriteStudy, s3: S3Server, bucket: str
) -> None:
    file = write_study(trials=2, epochs=2)
    file.write_text(file.read_text() + "finish: {epochs: 6, pool: 2, finalists: 2, seeds: 0}\n")
    folder = folder_on(tmp_path / "a", bucket)
    folder.begin(is_known=False)
    bench = Bench(tmp_path, fakes, folder)
    with pytest.raises(KeyboardInterrupt):
        bench.run(file, "fake_finishing:finishing", stop_after_reports=5)
    bench.files = folder_on(tmp_path / "b", bucket)  # with an empty home
    bench.run(file, "fake_finishing:finishing")
    with closing(bench.catalog()) as catalog:
        study = catalog.study("small")
        assert {trial.state for trial in catalog.trials(study.id)} == {"complete"}
        made = [row for row in catalog.weights(study.id) if row.role != "search"]
    assert {row.kind for row in made} >= {"soup", "ensemble"}
    for row in made:
        folder_on(tmp_path / "c", bucket).fetch(row.path, row.sha256)
