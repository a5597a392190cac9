"""The short version of `make faults`: each kind of fault that a continuous integration has time for."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import ray

from sweeper.dispatch import RayWorkers
from sweeper.study_file import Workers
from tests.faults.__main__ import plans, table
from tests.faults.checker import Findings
from tests.faults.injections import FAULTS, NEEDS_CLOCK, NEEDS_POSTGRES, NEEDS_RAY, NEEDS_SMALL_DISK
from tests.faults.sweep import Lane, Outcome, Plan, open_lane, sweep

SEED = 4


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    with open_lane(
        tmp_path_factory.mktemp("faults") / "lane", core=min(os.sched_getaffinity(0)), with_postgres=True
    ) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "plan",
    [
        Plan(SEED, 0, "guided", False, False, False, False, ("orchestrator", "bomb", "mlflow", "sigterm")),
        Plan(SEED, 1, "guided", False, True, False, False, ("postgres", "two-starts", "ctrl-c")),
        Plan(SEED, 2, "finished", True, False, False, False, ("worker", "orchestrator")),
    ],
    ids=["in one process", "PostgreSQL", "Ray"],
)
def test_a_study_ends_as_if_nothing_had_happened(lane: Lane, plan: Plan) -> None:
    outcome = sweep(lane, plan)
    assert outcome.findings == Findings(), f"kept in {outcome.kept}"
    assert outcome.injected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # stopped in the midst of an import
def test_sigterm_while_ray_starts_stops_as_ever() -> None:
    """Found by these faults: Ray holds the handler while it starts, and made an exit code of its own."""
    ours = signal.getsignal(signal.SIGTERM)
    given_up = threading.Event()

    def terminate_once_ray_has_the_handler() -> None:
        while not given_up.is_set():
            if signal.getsignal(signal.SIGTERM) != ours:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.001)

    sender = threading.Thread(target=terminate_once_ray_has_the_handler)
    sender.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            RayWorkers(Workers(concurrent=1, cpus=0.5))
    finally:
        given_up.set()
        sender.join()
        ray.shutdown()
    assert signal.getsignal(signal.SIGTERM) == ours


def test_every_kind_of_fault_is_planned_as_often_as_any_other_and_only_where_it_can_happen() -> None:
    endless = plans(1, list(FAULTS))
    some = [next(endless) for _ in range(200)]
    counts = {kind: sum(plan.kinds.count(kind) for plan in some) for kind in FAULTS}
    assert max(counts.values()) <= min(counts.values()) * 1.6, counts
    for plan in some:
        assert plan.with_ray or not NEEDS_RAY & set(plan.kinds)
        assert plan.with_postgres or not NEEDS_POSTGRES & set(plan.kinds)
        assert plan.with_small_disk or not NEEDS_SMALL_DISK & set(plan.kinds)
        assert plan.with_clock or not NEEDS_CLOCK & set(plan.kinds)
    assert some == [plan for plan, _ in zip(plans(1, list(FAULTS)), some, strict=False)]


def test_the_table_counts_what_was_injected_and_what_came_of_it() -> None:
    plan = Plan(1, 0, "wide", True, False, False, False, ("worker", "mlflow"))
    well = Outcome(plan, ["worker", "worker", "mlflow"])
    ill = Outcome(plan, ["mlflow"], Findings(["trial 1: epoch 2 is missing in MLflow"], lost_epochs=1))
    assert table([well, ill]).splitlines()[2:] == [
        "| mlflow | 2 | 1 | 1 | 0 |",
        "| worker | 2 | 2 | 0 | 0 |",
        "| all, in 2 studies | 4 | 3 | 1 | 0 |",
    ]
