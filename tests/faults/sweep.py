"""One study, faults one after another, and at its end the checker."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.checker import Findings, Twin, check, read_twin
from tests.faults.injections import FAULTS, Scene, bomb_went_off
from tests.faults.orchestrator import Orchestrator, launch, wait_for
from tests.faults.records import Place, read_trained
from tests.faults.services import MlflowServer, Postgres, SmallDisk, postgres
from tests.faults.studies import NAME, VARIANTS

STARTS_TO_FINISH = 4
"""How often a study is started after its last fault before it counts as one that does not finish."""
FINISH_SECONDS = 300.0
CLOCK = Path(__file__).with_name("clock")
"""On the path of a process, it makes the clock wrong."""
OWED = "what it is owed is kept"
"""What `sweeper start` says when it ends before MLflow has heard of everything."""


@dataclass(frozen=True)
class Plan:
    """What is to be done to one study."""

    seed: int
    number: int
    variant: str
    with_ray: bool
    with_postgres: bool
    with_small_disk: bool
    with_clock: bool
    kinds: tuple[str, ...]

    def __str__(self) -> str:
        extras = ("ray", "postgres", "small disk", "clock")
        having = (self.with_ray, self.with_postgres, self.with_small_disk, self.with_clock)
        shape = [self.variant, *(name for name, has in zip(extras, having, strict=True) if has)]
        return f"study {self.number} ({', '.join(shape)}): {' '.join(self.kinds)}"


@dataclass
class Outcome:
    """What came of one study."""

    plan: Plan
    injected: list[str] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    kept: Path | None = None
    """Where a violating study is kept for inspection."""


@dataclass
class Lane:
    """Services that studies share one after another, and the twins that they are compared with."""

    folder: Path
    mlflow: MlflowServer
    postgres: Postgres | None
    core: int
    twins: dict[str, tuple[Twin, int]] = field(default_factory=dict)
    """By variant: its twin, and how many batches an epoch has."""

    def twin(self, variant: str) -> tuple[Twin, int]:
        """The variant run once without a fault, in one process."""
        if variant not in self.twins:
            place, file = self.place(f"twin-{variant}", variant)
            logs = place.home.with_name("logs")
            logs.mkdir()
            process = launch(file, logs, self.env(place), ["--in-process"], self.core)
            if wait_for(process, FINISH_SECONDS) != 0:
                process.end_group()
                raise RuntimeError(f"the twin of {variant} does not run: {process.err.read_text()}")
            twin = read_twin(place)
            epochs = sum(len(recorded) for recorded in twin.metrics.values())
            self.twins[variant] = twin, len(read_trained(place)) // epochs
        return self.twins[variant]

    def env(self, place: Place, clock: Path | None = None) -> dict[str, str]:
        """The environment of a start."""
        env = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_REGISTRY_URI")}
        env |= {
            "SWEEPER_HOME": str(place.home),
            "SWEEPER_DATABASE_URL": place.database_url,
            "MLFLOW_TRACKING_URI": self.mlflow.url,
        }
        if clock is not None:
            path = os.pathsep.join(filter(None, [str(CLOCK), os.environ.get("PYTHONPATH")]))
            env |= {"PYTHONPATH": path, "FAULTS_CLOCK": str(clock)}
        return env

    def place(
        self, name: str, variant: str, home: Path | None = None, database: str | None = None
    ) -> tuple[Place, Path]:
        """A folder with the variant's study in it, and where all of it will lie."""
        folder = self.folder / name
        file = VARIANTS[variant].write(folder / "study")
        home = home or folder / "home"
        url = database or f"sqlite:///{home / 'sweeper.db'}"
        return Place(home, NAME, url, self.mlflow.store, file.with_name("trained.log")), file


@contextmanager
def open_lane(folder: Path, core: int, with_postgres: bool) -> Iterator[Lane]:
    """A lane, whose services are gone afterwards."""
    folder.mkdir(parents=True)
    mlflow = MlflowServer(folder)
    mlflow.start()
    try:
        if with_postgres:
            with postgres(folder) as server:
                yield Lane(folder, mlflow, server, core)
        else:
            yield Lane(folder, mlflow, None, core)
    finally:
        mlflow.kill()


def sweep(lane: Lane, plan: Plan) -> Outcome:
    """Run one study to its end through all its faults, and check it."""
    twin, batches_per_epoch = lane.twin(plan.variant)
    name = f"study-{plan.number:04d}"
    folder = lane.folder / name
    disk = SmallDisk(folder / "disk") if plan.with_small_disk else None
    database = lane.postgres.new_database() if plan.with_postgres and lane.postgres else None
    place, file = lane.place(name, plan.variant, None if disk is None else disk.folder / "home", database)
    clock = folder / "clock" if plan.with_clock else None
    if clock is not None:
        clock.write_text("+0\n")
    logs = folder / "logs"
    logs.mkdir()
    launched: list[Orchestrator] = []

    def start() -> Orchestrator:
        options = [] if plan.with_ray else ["--in-process"]
        launched.append(launch(file, logs, lane.env(place, clock), options, lane.core, cold=plan.with_clock))
        return launched[-1]

    outcome = Outcome(plan)
    scene = Scene(
        place=place,
        rng=random.Random(f"{plan.seed}/{plan.number}"),
        launch=start,
        mlflow=lane.mlflow,
        postgres=lane.postgres,
        disk=disk,
        clock=clock,
        batches=sum(len(epochs) for epochs in twin.metrics.values()) * batches_per_epoch,
        process=start(),
    )
    try:
        _inject(scene, plan.kinds, outcome)
        if _finish(scene):
            outcome.findings = check(
                place,
                batches_per_epoch=batches_per_epoch,
                before=scene.snapshots,
                twin=twin,
                damaged=scene.damaged,
            )
    finally:
        for process in launched:
            process.end_group()
        for service in scene.returning:
            service.join()
    outcome.findings.violations[:0] = [*scene.wrong, *_cries(launched)]
    if bomb_went_off(place):
        outcome.findings.violations.append("a pickle in a checkpoint was run")
    if outcome.findings.violations:
        outcome.kept = folder
    if disk is not None:
        disk.close(keep_in=folder / "disk-was" if outcome.findings.violations else None)
    if not outcome.findings.violations:
        shutil.rmtree(folder)
    return outcome


def _inject(scene: Scene, kinds: Sequence[str], outcome: Outcome) -> None:
    """One fault after another, each into a study that runs."""
    for position, kind in enumerate(kinds):
        if not scene.process.runs:
            if scene.process.process.returncode == 0:
                return
            scene.remember()
            scene.process = scene.launch()
        scene.patience = len(kinds) - position
        if FAULTS[kind](scene):
            outcome.injected.append(kind)


def _finish(scene: Scene) -> bool:
    """Continue the study until a start returns 0 and MLflow is owed nothing; whether it came to that."""
    for _ in range(STARTS_TO_FINISH):
        code = wait_for(scene.process, FINISH_SECONDS)
        if code is None:
            scene.wrong.append(f"a start hangs: {scene.process.out.read_text()[-300:]}")
            return False
        if code == 0 and OWED not in scene.process.out.read_text():
            return True
        for service in scene.returning:
            service.join()
        scene.remember()
        scene.process = scene.launch()
    last = scene.process
    code = wait_for(last, FINISH_SECONDS)
    if code == 0:
        return True
    scene.wrong.append(f"{STARTS_TO_FINISH} starts did not finish it; exit code {code}: {last.err.read_text()[-500:]}")
    return False


def _cries(launched: Sequence[Orchestrator]) -> list[str]:
    """Stack traces that a user would have seen, and what others print into the lines of `sweeper start`."""
    cries = []
    for process in launched:
        text = process.err.read_text(errors="replace")
        if process.out.read_text(errors="replace").count("View run"):
            cries.append(f"MLflow's own lines in {process.out.name}")
        if "Traceback (most recent call last)" in text:
            cries.append(f"a stack trace in {process.err.name}: {text.strip().splitlines()[-1]}")
    return cries
