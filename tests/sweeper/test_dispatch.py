from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_nodes import add_node, ray_nodes

from sweeper.catalog import Catalog, TrialRow
from sweeper.dispatch import RayWorkers, Workers, import_paths
from sweeper.errors import WorkersError
from sweeper.in_process import InProcessWorkers
from sweeper.run import run_study
from sweeper.runner import Event, Failed, Interrupted, Job, Reported
from sweeper.search import Search
from sweeper.slots import slots, slots_on
from sweeper.study import load_study
from sweeper.study_file import Workers as WorkersSection
from sweeper.study_folder import StudyFolder
from trials.recipe import Recipe

WriteStudy = Callable[..., Path]
PATIENCE_SECONDS = 120.0
"""How long anything may take on a busy machine before it counts as stuck."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray that is there already: to join it takes a second, to start one ten times as long."""
    with ray_nodes(head_cpus=2) as cluster:
        yield cluster


class Quiet:
    """Nobody watches."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


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


def _job(number: int, folder: Path, fakes: Path) -> Job:
    recipe = Recipe.model_validate({"data": {"source": "digits"}, "model": {"build": "linear"}})
    return Job(number, recipe.model_dump_json(), str(folder), (str(fakes),))


def _next(workers: Workers) -> Event:
    event = workers.wait(PATIENCE_SECONDS)
    assert event is not None, "nothing came in time"
    return event


def _begin(workers: Workers, jobs: Iterable[Job]) -> None:
    """Have these trials run until they are in their second epoch."""
    jobs = list(jobs)
    for job in jobs:
        Path(job.folder).mkdir(exist_ok=True)
        workers.submit(job)
    for _ in jobs:
        event = _next(workers)
        assert isinstance(event, Reported), event
        workers.answer(event.number, keep_going=True)


def _interrupt(workers: Workers, numbers: Iterable[int]) -> None:
    workers.interrupt()
    numbers = list(numbers)
    assert {_next(workers).number for _ in numbers} == set(numbers)


def _next_news(workers: Workers) -> str:
    """What there is to hear of the workers themselves, while no trial tells anything."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (news := workers.news()):
        assert workers.wait(0.1) is None
        assert time.monotonic() < until, "nothing came in time"
    return news


def _pids(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in sorted(StudyFolder(folder, "small").trials.glob("*/pid"))]


@pytest.mark.slow
def test_ray_and_this_process_tell_the_same_story(
    tmp_path: Path, fakes: Path, write_study: WriteStudy, cluster: Any
) -> None:
    outcomes: list[Any] = []
    for name in ("ray", "here"):
        folder = tmp_path / name
        workers: Workers = (
            RayWorkers(WorkersSection(concurrent=1), cluster.address, "fake_training:diverges")
            if name == "ray"
            else InProcessWorkers("fake_training:diverges")
        )
        trials, epochs = _run(write_study(trials=8), workers, fakes, folder)
        outcomes.append([(t.number, t.state, t.value, t.params, t.reason, epochs[t.number]) for t in trials])
    assert outcomes[0] == outcomes[1]
    assert {outcome[1] for outcome in outcomes[0]} == {"complete", "failed"}


@pytest.mark.slow
def test_workers_persist_and_one_that_hoards_is_replaced(
    tmp_path: Path, fakes: Path, write_study: WriteStudy, cluster: Any
) -> None:
    section = WorkersSection(concurrent=1)
    roomy = RayWorkers(section, cluster.address, "fake_training:hoards", kept_limit_bytes=1 << 40)
    _run(write_study(trials=3), roomy, fakes, tmp_path / "roomy")
    assert len(set(_pids(tmp_path / "roomy"))) == 1, "one process ran all three"
    assert os.getpid() not in _pids(tmp_path / "roomy")

    strict = RayWorkers(section, cluster.address, "fake_training:hoards", kept_limit_bytes=100 << 20)
    trials, _ = _run(write_study(trials=4), strict, fakes, tmp_path / "strict")
    first, second, third, fourth = _pids(tmp_path / "strict")
    # What the first trial leaves counts as warm; the second's 200 MB on top of it do not.
    assert first == second != third == fourth
    assert [trial.state for trial in trials] == ["complete"] * 4


@pytest.mark.slow
def test_a_trial_whose_worker_was_killed_goes_on(
    tmp_path: Path, fakes: Path, write_study: WriteStudy, cluster: Any
) -> None:
    workers = RayWorkers(WorkersSection(concurrent=2), cluster.address, "fake_training:dies_once")
    trials, epochs = _run(write_study(trials=2, concurrent=2), workers, fakes, tmp_path)
    assert [trial.state for trial in trials] == ["complete"] * 2
    assert epochs == {0: [1, 2, 3, 4], 1: [1, 2, 3, 4]}, "each epoch once and only once"
    for trial in trials:
        [attempt] = trial.attempts
        died = (StudyFolder(tmp_path, "small").trial(trial.number) / "died").read_text()
        assert attempt["kind"] == "lost"
        assert attempt["reason"].startswith(f"the worker died: process {died} on ")
        assert attempt["reason"].endswith(" was killed or crashed")


@pytest.mark.slow
def test_a_trial_that_hangs_is_killed_and_its_folder_is_free(tmp_path: Path, fakes: Path, cluster: Any) -> None:
    workers = RayWorkers(WorkersSection(concurrent=1), cluster.address, "endless_training:hangs")
    try:
        for _ in range(2):
            assert workers.free == 1
            workers.submit(_job(0, tmp_path, fakes))
            assert isinstance(_next(workers), Reported), "it owns the folder"
            workers.answer(0, keep_going=True)
            workers.kill(0)
        assert workers.wait(0.0) is None, "nothing more is heard of it"
    finally:
        workers.close()


@pytest.mark.slow
def test_a_node_that_dies_takes_no_trial_with_it(tmp_path: Path, fakes: Path, cluster: Any) -> None:
    """Three trials on two nodes; one node dies, and for its trial there is no room; then all are asked to save."""
    node = add_node(cluster)
    workers = RayWorkers(WorkersSection(concurrent=8), cluster.address, "endless_training:until_asked")
    try:
        assert (workers.free, workers.news()) == (3, "workers: 3 of 8 places so far")
        jobs = [_job(number, tmp_path / str(number), fakes) for number in range(3)]
        _begin(workers, jobs)
        assert workers.free == 0
        cluster.remove_node(node, allow_graceful=False)
        node = None
        lost = _next(workers)
        assert isinstance(lost, Failed)
        assert lost.kind == "lost"
        assert lost.reason.startswith("the worker died: the node of ")
        workers.submit(jobs[lost.number])
        assert _next_news(workers) == "workers: 2 of 8 places now (3 before)"
        assert workers.free == -1, "one more than there are places"
        assert workers.unplaced(0.0) == (lost.number,)
        assert workers.unplaced(PATIENCE_SECONDS) == ()
        workers.interrupt()
        assert {_next(workers) for _ in jobs} == {Interrupted(0, 0), Interrupted(1, 0), Interrupted(2, 0)}
        assert workers.free == 2
    finally:
        workers.close()
        if node is not None:
            cluster.remove_node(node)


@pytest.mark.slow
def test_slots_come_and_go_with_the_nodes(tmp_path: Path, fakes: Path, cluster: Any) -> None:
    workers = RayWorkers(WorkersSection(), cluster.address, "endless_training:until_asked")
    node = None
    try:
        jobs = [_job(number, tmp_path / str(number), fakes) for number in range(3)]
        assert (workers.free, workers.news()) == (2, "")
        _begin(workers, jobs[:2])
        node = add_node(cluster)
        assert _next_news(workers) == "workers: 3 places now (2 before)"
        assert workers.free == 1
        _begin(workers, jobs[2:])
        _interrupt(workers, range(3))
        assert workers.free == 3
        # A node goes while it has nothing to do: no trial is given to its slot any more, to be lost.
        cluster.remove_node(node, allow_graceful=False)
        node = None
        assert _next_news(workers) == "workers: 2 places now (3 before)"
        for _ in range(2):
            assert workers.free == 2
            _begin(workers, jobs[:2])
            _interrupt(workers, range(2))
        # One too many, with all slots taken, goes to whichever is free first.
        _begin(workers, jobs[:2])
        workers.submit(jobs[2])
        assert workers.unplaced(0.0) == (2,)
        workers.kill(0)
        assert isinstance(_next(workers), Reported)
        assert workers.unplaced(0.0) == ()
        # A node goes while its slot is coming: the trial that waits has not run, and pays nothing.
        workers.submit(jobs[0])
        node = add_node(cluster)
        assert _next_news(workers) == "workers: 3 places now (2 before)"
        cluster.remove_node(node, allow_graceful=False)
        node = None
        assert _next_news(workers) == "workers: 2 places now (3 before)"
        assert workers.wait(1.0) is None
        assert workers.unplaced(0.0) == (0,)
    finally:
        workers.close()
        if node is not None:
            cluster.remove_node(node)


@pytest.mark.slow
def test_a_ray_of_our_own_that_died_is_said_and_leaves_nothing(tmp_path: Path, fakes: Path) -> None:
    before, others = signal.getsignal(signal.SIGTERM), psutil.Process().children(recursive=True)
    workers = RayWorkers(WorkersSection(concurrent=1), train="endless_training:hangs")
    try:
        assert signal.getsignal(signal.SIGTERM) is before, "Ray leaves it to the study"
        workers.submit(_job(0, tmp_path, fakes))
        assert isinstance(_next(workers), Reported)
        workers.answer(0, keep_going=True)
        ours = [process for process in psutil.Process().children(recursive=True) if process not in others]
        [raylet] = [process for process in ours if process.name() == "raylet"]
        raylet.kill()
        with pytest.raises(WorkersError, match=f"Ray died: its process {raylet.pid} "):  # noqa: PT012
            # That the worker went with it may be heard first.
            assert isinstance(lost := _next(workers), Failed)
            assert lost.kind == "lost"
            _next(workers)
    finally:
        workers.close()
    gone, alive = psutil.wait_procs(ours, timeout=PATIENCE_SECONDS)
    assert len(gone) == len(ours) > 2
    assert not alive


@pytest.mark.slow
def test_what_can_never_be_placed_is_said_before_anything_runs(cluster: Any) -> None:
    # A node that another test killed may still be counted.
    said = r"3 concurrent with 1 CPUs and 0\.5 GPUs each do not fit: Ray has [23] CPUs and 0 GPUs, enough for 0"
    with pytest.raises(WorkersError, match=said):
        RayWorkers(WorkersSection(concurrent=3, gpus=0.5), cluster.address)


def test_each_folder_of_modules_is_named_once_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    assert import_paths([first, second, tmp_path / "b" / ".." / "a"]) == (str(first), str(second))


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "fitting"),
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
def test_slots_are_counted_on_each_node(
    nodes: list[tuple[float, float]], cpus: float, gpus: float, fitting: int
) -> None:
    assert sum(slots_on(*node, cpus, gpus) for node in nodes) == fitting


def test_by_default_there_is_one_slot_a_gpu_or_as_many_as_cores_allow() -> None:
    assert slots(WorkersSection(), [(16, 4)]) == (1, 1, 4)
    assert slots(WorkersSection(cpus=2), [(8, 0)]) == (2, 0, 4)
    assert slots(WorkersSection(gpus=0), [(16, 4)]) == (1, 0, 16)


def test_an_address_where_nothing_listens_is_said_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    for spelled in (address, f"ray://{address}"):
        with pytest.raises(WorkersError, match=rf"RAY_ADDRESS={spelled}: nothing answers there \(Connection refused\)"):
            RayWorkers(WorkersSection(concurrent=1), spelled)
