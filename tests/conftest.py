"""What all tests share: a home of their own, and skips that count as failures where nothing may be missing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# A shell that starts the tests in the background makes them, and all they start, deaf to ctrl-C's signal.
signal.signal(signal.SIGINT, signal.default_int_handler)

MAY_BE_WANTING = ("CUDA", "real data:", "allowed to mount")
"""What the reason of a skip may name that CI does not have either: a GPU, data sets that nobody may hand on, a root who
may mount a small disk."""

FORBID_SKIPS = os.environ.get("SWEEPER_FORBID_SKIPS") == "1"


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure, unless what `MAY_BE_WANTING` names is wanting (and leave ``xfail`` alone)."""
    if not FORBID_SKIPS or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(wanting in reason for wanting in MAY_BE_WANTING):
        report.outcome = "failed"
        report.longrepr = f"{reason}\nSWEEPER_FORBID_SKIPS=1 allows no skip: install what is missing."


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.fixture(autouse=True)
def no_tracking_server_for_the_next_test() -> Iterator[None]:
    """MLflow keeps the server that was named last for the whole process, and for those that it starts."""
    yield
    if "mlflow" in sys.modules:
        import mlflow

        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri("")
        os.environ.pop("MLFLOW_REGISTRY_URI", None)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty SWEEPER_HOME, with nothing pointing at a service elsewhere."""
    elsewhere = ("SWEEPER_DATABASE_URL", "SWEEPER_STORE", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "RAY_ADDRESS")
    for name in elsewhere:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path))
    return tmp_path
