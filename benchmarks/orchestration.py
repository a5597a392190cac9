"""What an orchestrator costs per trial: sweeper beside Ray Tune and Optuna alone, with the same trivial objective.

    .venv/bin/python -m benchmarks.orchestration

1. 40 trials that take no time, 2 at a time, the same TPE: the overhead per trial after the first, which is the time
   from the end of the first objective to the end of the last one, divided by the trials between.
2. 24 trials of 1.5 s, 2 at a time: the time from the first objective's start to the last one's end, against 18 s.

Every contestant runs in a process and a folder of its own; the objective holds the clock (`benchmarks.objective`).
Sweeper records every trial in its catalog, in Optuna's RDB storage and in MLflow, all in SQLite. Tune runs as it comes,
with ``reuse_actors``, and with its MLflow callback on top, which is the nearest to the same work. Nothing is pruned.
"""

from __future__ import annotations

import argparse
import functools
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import objective
from benchmarks.results import ROOT, machine, table, write_section

PARALLEL = 2
SEED = 0
SLEEP_SECONDS = 1.5


def sampler() -> Any:
    """The same TPE for everybody: what `sweeper.search` uses."""
    import optuna

    return optuna.samplers.TPESampler(seed=SEED, multivariate=True, group=True, constant_liar=True)


def by_sweeper(trials: int, folder: Path) -> None:
    """`run_study` with the trivial objective in place of `run_trial`, its catalog and MLflow tracking included."""
    from rich.console import Console

    from sweeper.catalog import Catalog
    from sweeper.dispatch import RayWorkers
    from sweeper.run import run_study
    from sweeper.search import Search
    from sweeper.settings import load_settings
    from sweeper.study import load_study
    from sweeper.study_folder import StudyFolder
    from sweeper.tracking import Tracker
    from sweeper.view import Scoreboard, open_view

    path = folder / "study.yaml"
    path.write_text(objective.STUDY.replace("TRIALS", str(trials)))
    study, settings = load_study(path), load_settings(folder / "home")
    name, metric = study.name, study.search.metric
    catalog = Catalog(settings.database_url)
    row = catalog.add_study(name, digest=study.digest, text=study.text, metric=metric, trials_asked=trials)
    tracker = Tracker(settings, catalog, row, study.text, {})
    tracker.start()
    workers = RayWorkers(study.workers, train="benchmarks.objective:trivial")
    search = Search(study, settings.database_url, row.history)
    with open_view(Console(), Scoreboard(name, metric, trials, {})) as view:
        run_study(study, row, search, workers, catalog, view, folder=StudyFolder(settings.home, name))
    workers.close()
    tracker.close()
    tracker.end("FINISHED")
    catalog.close()


def by_optuna(trials: int, folder: Path) -> None:
    """Optuna alone: two processes that share an SQLite storage."""
    import optuna

    url = f"sqlite:///{folder / 'optuna.db'}"
    optuna.create_study(study_name="orchestration", storage=url, direction="maximize")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_optuna_worker, args=(url, trials // PARALLEL)) for _ in range(PARALLEL)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _optuna_worker(url: str, trials: int) -> None:
    import optuna

    study = optuna.load_study(study_name="orchestration", storage=url, sampler=sampler())
    study.optimize(
        lambda trial: objective.value(
            trial.suggest_float("lr", *objective.LR, log=True),
            trial.suggest_float("momentum", *objective.MOMENTUM),
            trial.suggest_categorical("width", objective.WIDTHS),
        ),
        n_trials=trials,
    )


def by_tune(trials: int, folder: Path, reuse_actors: bool = False, mlflow: bool = False) -> None:
    """Ray Tune with OptunaSearch."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    ray.init(num_cpus=PARALLEL, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    space = {
        "lr": tune.loguniform(*objective.LR),
        "momentum": tune.uniform(*objective.MOMENTUM),
        "width": tune.choice(objective.WIDTHS),
    }
    tracker = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", experiment_name="orchestration")
    tuner = tune.Tuner(
        lambda config: tune.report({"value": objective.value(**config)}),
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(sampler=sampler()),
            metric="value",
            mode="max",
            num_samples=trials,
            max_concurrent_trials=PARALLEL,
            reuse_actors=reuse_actors,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "tune"), verbose=0, callbacks=[tracker] if mlflow else None
        ),
    )
    tuner.fit()
    ray.shutdown()


CONTESTANTS: dict[str, Callable[[int, Path], None]] = {
    "sweeper": by_sweeper,
    "Optuna alone, 2 processes": by_optuna,
    "Ray Tune, reuse_actors": functools.partial(by_tune, reuse_actors=True),
    "Ray Tune, reuse_actors, MLflow": functools.partial(by_tune, reuse_actors=True, mlflow=True),
    "Ray Tune, as it comes": by_tune,
}


class Run:
    """What the clock of one contestant's run says, in seconds."""

    def __init__(self, spans: list[tuple[float, float]], wall_seconds: float) -> None:
        self.trials = len(spans)
        self.wall_seconds = wall_seconds
        self.starts, self.ends = sorted(start for start, _ in spans), sorted(end for _, end in spans)

    @property
    def overhead_seconds(self) -> float:
        """Per trial after the first; for objectives that take no time."""
        return (self.ends[-1] - self.ends[0]) / (self.trials - 1)

    @property
    def span_seconds(self) -> float:
        """From the first objective's start to the last one's end."""
        return self.ends[-1] - self.starts[0]


def measure(name: str, trials: int, seconds: float) -> Run:
    """Run one contestant in a fresh process and a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "clock"
        environment = os.environ | {
            "ORCHESTRATION_CLOCK": str(clock),
            "ORCHESTRATION_SECONDS": str(seconds),
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        command = [sys.executable, "-m", "benchmarks.orchestration", "--contestant", name, "--trials", str(trials)]
        began = time.time()
        done = subprocess.run(
            [*command, "--folder", folder], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        wall_seconds = time.time() - began
        lines = clock.read_text().splitlines() if clock.exists() else []
        if done.returncode or len(lines) != trials:
            sys.exit(f"{name}: {len(lines)} of {trials} trials ran, exit code {done.returncode}\n{done.stderr[-3000:]}")
        spans = [(float(start), float(end)) for start, end in (line.split() for line in lines)]
        return Run(spans, wall_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", choices=CONTESTANTS, help="contestants to run; all by default")
    parser.add_argument("--trials", type=int, default=40, help="trials that take no time")
    parser.add_argument("--sleepers", type=int, default=24, help="trials of 1.5 s; 0 leaves that part out")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        CONTESTANTS[arguments.contestant](arguments.trials, arguments.folder)
        return
    names = arguments.only or list(CONTESTANTS)
    trivial, sleepers = {}, {}
    for name in names:
        trivial[name] = measure(name, arguments.trials, 0.0)
        print(f"{name}: {trivial[name].overhead_seconds:.3f} s a trial", flush=True)
    for name in names if arguments.sleepers else []:
        sleepers[name] = measure(name, arguments.sleepers, SLEEP_SECONDS)
        print(f"{name}: {sleepers[name].span_seconds:.1f} s for {arguments.sleepers} of {SLEEP_SECONDS} s", flush=True)
    command = " ".join([".venv/bin/python -m benchmarks.orchestration", *sys.argv[1:]])
    where = machine(("optuna", "ray", "mlflow"))
    write_section("Orchestration", command, where, report(trivial, sleepers))


def report(trivial: dict[str, Run], sleepers: dict[str, Run]) -> str:
    """Both parts as tables, and how sweeper compares with Tune's best."""
    count = next(iter(trivial.values())).trials
    parts = [
        f"{count} trials that take no time, {PARALLEL} at a time:\n",
        table(
            ("by", "overhead per trial after the first, s", "whole command, s"),
            [(name, f"{run.overhead_seconds:.3f}", f"{run.wall_seconds:.1f}") for name, run in trivial.items()],
        ),
    ]
    tune = {name: run.overhead_seconds for name, run in trivial.items() if "Tune" in name}
    if tune and "sweeper" in trivial:
        ours = trivial["sweeper"].overhead_seconds
        ratios = ", ".join(f"{name} {theirs / ours:.1f}" for name, theirs in tune.items())
        parts.append(
            f"sweeper: {ours:.3f} s (wanted: at most 0.1). As multiples of it (wanted: at least 10): {ratios}.\n"
        )
    if sleepers:
        count = next(iter(sleepers.values())).trials
        ideal = count * SLEEP_SECONDS / PARALLEL
        parts += [
            f"{count} trials of {SLEEP_SECONDS} s, {PARALLEL} at a time, ideally {ideal:g} s "
            "(wanted: at most 1.05 times):\n",
            table(
                ("by", "first start to last end, s", "times the ideal", "whole command, s"),
                [
                    (name, f"{run.span_seconds:.1f}", f"{run.span_seconds / ideal:.3f}", f"{run.wall_seconds:.1f}")
                    for name, run in sleepers.items()
                ],
            ),
        ]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
