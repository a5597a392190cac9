from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeper.catalog import Catalog, TrialRow
from sweeper.dispatch import InProcessWorkers, RayWorkers, Workers, _slots, _slots_on, import_paths
from sweeper.errors import StudyFailed, WorkersError
from sweeper.run import RETRIES, run_study
from sweeper.search import Search
from sweeper.study import load_study
from sweeper.study_file import Workers as WorkersSection
from sweeper.study_folder import StudyFolder

WriteStudy = Callable[..., Path]


class Quiet:
    """Nobody watches."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def _run(file: Path, workers: Workers, fakes: Path, folder: Path) -> tuple[list[TrialRow], dict[int, list[int]]]:
    """Run a study; its trials, and the epochs recorded for each by number."""
    study, url = load_study(file), f"sqlite:///{folder / 'a.db'}"
    catalog, search = Catalog(url), Search(study, url, study.name)
    row = catalog.add_study(study.name, digest="d", text="", metric=study.search.metric, trials_asked=1)
    try:
        run_study(
            study,
            row,
            search,
            workers,
            catalog,
            Quiet(),
            folder=StudyFolder(folder, "small"),
            import_paths=(str(fakes),),
        )
        trials, epochs = catalog.trials(row.id), catalog.epochs(row.id)
        return trials, {trial.number: [e.epoch for e in epochs.get(trial.id, [])] for trial in trials}
    finally:
        workers.close()
        search.close()
        catalog.close()


def _pids(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in sorted(StudyFolder(folder, "small").trials.glob("*/pid"))]


@pytest.mark.slow
def test_ray_and_this_process_tell_the_same_story(tmp_path: Path, fakes: Path, write_study: WriteStudy) -> None:
    outcomes: list[Any] = []
    for name in ("ray", "here"):
        folder = tmp_path / name
        workers: Workers = (
            RayWorkers(WorkersSection(concurrent=1), train="fake_training:diverges")
            if name == "ray"
            else InProcessWorkers("fake_training:diverges")
        )
        trials, epochs = _run(write_study(trials=8), workers, fakes, folder)
        outcomes.append([(t.number, t.state, t.value, t.params, t.reason, epochs[t.number]) for t in trials])
    assert outcomes[0] == outcomes[1]
    assert {outcome[1] for outcome in outcomes[0]} == {"complete", "failed"}


@pytest.mark.slow
def test_workers_persist_and_one_that_hoards_is_replaced(tmp_path: Path, fakes: Path, write_study: WriteStudy) -> None:
    section = WorkersSection(concurrent=1)
    roomy = RayWorkers(section, train="fake_training:hoards", kept_limit_bytes=1 << 40)
    _run(write_study(trials=3), roomy, fakes, tmp_path / "roomy")
    assert len(set(_pids(tmp_path / "roomy"))) == 1, "one process ran all three"
    assert os.getpid() not in _pids(tmp_path / "roomy")

    strict = RayWorkers(section, train="fake_training:hoards", kept_limit_bytes=100 << 20)
    trials, _ = _run(write_study(trials=4), strict, fakes, tmp_path / "strict")
    first, second, third, fourth = _pids(tmp_path / "strict")
    # What the first trial leaves counts as warm; the second's 200 MB on top of it do not.
    assert first == second != third == fourth
    assert [trial.state for trial in trials] == ["complete"] * 4


@pytest.mark.slow
def test_a_trial_whose_worker_was_killed_goes_on(tmp_path: Path, fakes: Path, write_study: WriteStudy) -> None:
    workers = RayWorkers(WorkersSection(concurrent=2), train="fake_training:dies_once")
    trials, epochs = _run(write_study(trials=2, concurrent=2), workers, fakes, tmp_path)
    assert [trial.state for trial in trials] == ["complete"] * 2
    assert epochs == {0: [1, 2, 3, 4], 1: [1, 2, 3, 4]}, "each epoch once and only once"


@pytest.mark.slow
def test_a_trial_that_always_kills_its_worker_fails_in_the_end(
    tmp_path: Path, fakes: Path, write_study: WriteStudy
) -> None:
    workers = RayWorkers(WorkersSection(concurrent=1), train="fake_training:dies_always")
    with pytest.raises(
        StudyFailed, match=rf"all trials so far \(1\) failed alike: the worker died: .* \({RETRIES + 1} times\)"
    ):
        _run(write_study(trials=1), workers, fakes, tmp_path)


@pytest.mark.slow
def test_what_can_never_be_placed_is_said_before_anything_runs() -> None:
    with pytest.raises(WorkersError, match=r"3 concurrent with 1 CPUs and 0\.5 GPUs each do not fit: Ray has \d+ CPUs"):
        RayWorkers(WorkersSection(concurrent=3, gpus=0.5))


def test_each_folder_of_modules_is_named_once_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    assert import_paths([first, second, tmp_path / "b" / ".." / "a"]) == (str(first), str(second))


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "slots"),
    [
        ([(16, 2)], 1, 0.6, 2),  # a share of a GPU never spans two: one slot on each, 0.4 left over twice
        ([(16, 2)], 1, 0.5, 4),
        ([(16, 8)], 1, 3, 2),
        ([(2, 0), (2, 0)], 3, 0, 0),  # four cores, but none has three
        ([(4, 1), (8, 4)], 2, 1, 5),
        ([(3, 10)], 1, 0.1, 3),
        ([(10, 1)], 0.1, 0.1, 10),
    ],
)
def test_slots_are_counted_on_each_node(nodes: list[tuple[float, float]], cpus: float, gpus: float, slots: int) -> None:
    assert sum(_slots_on(*node, cpus, gpus) for node in nodes) == slots


def test_by_default_there_is_one_slot_a_gpu_or_as_many_as_cores_allow() -> None:
    assert _slots(WorkersSection(), [(16, 4)]) == (1, 1, 4)
    assert _slots(WorkersSection(cpus=2), [(8, 0)]) == (2, 0, 4)
    assert _slots(WorkersSection(gpus=0), [(16, 4)]) == (1, 0, 16)


@pytest.mark.slow
def test_ray_leaves_sigterm_to_the_study() -> None:
    before = signal.getsignal(signal.SIGTERM)
    workers = RayWorkers(WorkersSection(concurrent=1))
    try:
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        workers.close()


def test_an_address_where_nothing_listens_is_said_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    for spelled in (address, f"ray://{address}"):
        with pytest.raises(WorkersError, match=rf"RAY_ADDRESS={spelled}: nothing answers there \(Connection refused\)"):
            RayWorkers(WorkersSection(concurrent=1), spelled)
