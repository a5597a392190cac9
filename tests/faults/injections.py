"""The faults, each a function that injects one into a study that runs, at a moment that chance decides.

A fault says whether it was injected at all: a study may end before its moment comes.
"""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.faults.checker import ENDED, Snapshot, take_snapshot
from tests.faults.orchestrator import Orchestrator, wait_for
from tests.faults.records import Place, read_catalog
from tests.faults.services import MlflowServer, Postgres, SmallDisk

STOP_SECONDS = 10.0
"""A stop that is asked for takes no longer than this; a busy machine gets half as much again."""


@dataclass
class Scene:
    """A study that is being run, and all that may be done to it."""

    place: Place
    rng: random.Random
    launch: Callable[[], Orchestrator]
    mlflow: MlflowServer
    postgres: Postgres | None
    disk: SmallDisk | None
    clock: Path | None
    """The file that says by how much the clock of the orchestrator is wrong."""
    batches: int
    """How many batches the whole study trains on, uninterrupted."""
    process: Orchestrator
    patience: int = 1
    """How many faults are still to come in this study, this one included."""
    snapshots: list[Snapshot] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)
    returning: list[threading.Thread] = field(default_factory=list)
    """Each brings back a service that is away."""
    wrong: list[str] = field(default_factory=list)
    """What went wrong in the process itself: a hang, an exit code, a stack trace."""

    def remember(self) -> None:
        """Take down what is known now."""
        self.snapshots.append(take_snapshot(self.place))

    def trained(self) -> int:
        """How many batches have been trained on."""
        return self.place.trained.read_bytes().count(b"\n") if self.place.trained.exists() else 0

    def open_trials(self) -> list[int]:
        """The numbers of the trials that have begun and not ended."""
        catalog = read_catalog(self.place)
        return [n for n, row in (catalog.trials if catalog else {}).items() if row["state"] not in ENDED]

    def wait(self, is_so: Callable[[], bool], seconds: float = 120.0) -> bool:
        """Wait until it is so; ``False`` if the process ended before, or it took too long."""
        deadline = time.monotonic() + seconds
        while self.process.runs and time.monotonic() < deadline:
            if is_so():
                return True
            time.sleep(0.02)
        return False

    def pause(self, seconds: float) -> bool:
        """Let the process run for a while; ``False`` if it ended."""
        return wait_for(self.process, seconds) is None

    def await_moment(self, *, training: bool = False) -> bool:
        """Wait for a random moment in the life of the process: as it starts, as it trains, or as it ends.

        Args:
            training: only while it trains.
        """
        kind = "train" if training else self.rng.choices(["start", "train", "end"], [2, 7, 1])[0]
        if kind == "end" and self.patience > 1:
            kind = "train"  # nothing would be left for the faults that are still to come
        if kind == "start":
            return self.pause(self.rng.uniform(0.0, 8.0))
        if kind == "end":
            asked = self.batches
            return self.wait(lambda: self.trained() >= asked * 0.95) and self.pause(self.rng.uniform(0.0, 4.0))
        left = max(4, self.batches - self.trained())
        more = self.trained() + self.rng.randint(1, max(2, int(1.2 * left / (self.patience + 1))))
        return self.wait(lambda: self.trained() >= more) and self.pause(self.rng.uniform(0.0, 0.2))

    def is_held(self) -> bool:
        """Whether the process holds the study: from then on it knows what to do with a signal."""
        catalog = read_catalog(self.place)
        return catalog is not None and catalog.study["owner_pid"] == self.process.pid

    def await_end(self, what: str, codes: set[int], seconds: float) -> None:
        """Wait for the process to end; another exit code, or none, is wrong."""
        code = wait_for(self.process, seconds)
        if code is None:
            self.wrong.append(f"{what}: not ended after {seconds:.0f} s")
            self.process.end_group()
        elif code not in codes:
            self.wrong.append(f"{what}: exit code {code}, expected {' or '.join(map(str, sorted(codes)))}")


def kill_orchestrator(scene: Scene) -> bool:
    """SIGKILL of `sweeper start`."""
    if not scene.await_moment():
        return False
    scene.remember()
    scene.process.signal(signal.SIGKILL)
    scene.process.process.wait()
    return True


def kill_worker(scene: Scene) -> bool:
    """SIGKILL of a process that trains."""
    return _kill_one(scene, Orchestrator.workers)


def kill_raylet(scene: Scene) -> bool:
    """SIGKILL of the process that keeps Ray's workers."""
    if not _kill_one(scene, Orchestrator.raylets):
        return False
    # Whether it can go on without is not the point: it may stop, with a line.
    scene.await_end("after the raylet was killed", {0, 1}, 120.0)
    return True


def _kill_one(scene: Scene, of: Callable[[Orchestrator], list[psutil.Process]]) -> bool:
    if not scene.await_moment(training=True):
        return False
    found = of(scene.process)
    if not found:
        return False
    scene.remember()
    try:
        scene.rng.choice(found).kill()
    except psutil.NoSuchProcess:
        return False
    return True


def terminate(scene: Scene) -> bool:
    """SIGTERM of `sweeper start`."""
    return _stop(scene, "SIGTERM", lambda: scene.process.signal(signal.SIGTERM))


def interrupt(scene: Scene) -> bool:
    """Ctrl-C."""
    return _stop(scene, "ctrl-C", scene.process.press_ctrl_c)


def interrupt_twice(scene: Scene) -> bool:
    """Ctrl-C, and another a moment later."""

    def press_twice() -> None:
        scene.process.press_ctrl_c()
        scene.pause(scene.rng.uniform(0.0, 2.0))
        scene.process.press_ctrl_c()

    return _stop(scene, "two ctrl-C", press_twice)


def _stop(scene: Scene, what: str, stop: Callable[[], object]) -> bool:
    if not scene.wait(scene.is_held) or not scene.await_moment():
        return False
    scene.remember()
    began = time.monotonic()
    stop()
    # SIGTERM as the results are being shown, with all done, ends a process as it ends any.
    scene.await_end(what, {0, 130, -signal.SIGTERM}, 60.0)
    took = time.monotonic() - began
    if took > 1.5 * STOP_SECONDS:
        scene.wrong.append(f"{what}: {took:.0f} s until it had stopped, expected {STOP_SECONDS:.0f} s at the most")
    return True


def kill_mlflow(scene: Scene) -> bool:
    """SIGKILL of the MLflow server, which comes back some time later."""
    if scene.returning or not scene.await_moment():
        return False
    scene.remember()
    scene.mlflow.kill()
    away_seconds = scene.rng.uniform(0.0, 20.0)

    def come_back() -> None:
        time.sleep(away_seconds)
        scene.mlflow.start()

    # Other faults may come while it is away.
    scene.returning.append(threading.Thread(target=come_back))
    scene.returning[-1].start()
    return True


def restart_postgres(scene: Scene) -> bool:
    """PostgreSQL stopped at once, and started some time later."""
    if scene.postgres is None or not scene.await_moment():
        return False
    scene.remember()
    scene.postgres.stop()
    scene.pause(scene.rng.choice([0.0, scene.rng.uniform(0.0, 8.0)]))
    scene.postgres.start()
    return True


def fill_disk(scene: Scene) -> bool:
    """No space left on the device of the home; given back once the study has stopped, or after a while."""
    if scene.disk is None or not scene.await_moment(training=True):
        return False
    scene.remember()
    scene.disk.fill()
    scene.pause(30.0)
    scene.disk.free()
    return True


def truncate_checkpoint(scene: Scene) -> bool:
    """The newest checkpoint of an interrupted trial has lost its end."""

    def truncate(folder: Path) -> None:
        file = scene.rng.choice(sorted(folder.iterdir()))
        os.truncate(file, scene.rng.randrange(file.stat().st_size))

    return _damage(scene, truncate)


def flip_a_bit(scene: Scene) -> bool:
    """One bit of the newest checkpoint of an interrupted trial is another."""

    def flip(folder: Path) -> None:
        file = scene.rng.choice(sorted(folder.iterdir()))
        content = bytearray(file.read_bytes())
        content[scene.rng.randrange(len(content))] ^= 1 << scene.rng.randrange(8)
        file.write_bytes(content)

    return _damage(scene, flip)


class _Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self._path), "w")


def plant_a_bomb(scene: Scene) -> bool:
    """The state of an interrupted trial is a pickle that runs code."""
    crater = scene.place.trained.with_name("crater")

    def plant(folder: Path) -> None:
        (folder / "state.pt").write_bytes(pickle.dumps(_Bomb(crater)))

    return _damage(scene, plant)


def bomb_went_off(place: Place) -> bool:
    """Whether a planted pickle has been run."""
    return place.trained.with_name("crater").exists()


def _damage(scene: Scene, damage: Callable[[Path], None]) -> bool:
    """Damage a checkpoint, when nobody is left who writes one."""
    if not scene.await_moment(training=True):
        return False
    scene.process.end_group()
    while any(worker.is_running() for worker in _stray_workers(scene)):
        time.sleep(0.1)
    found = [path for n in scene.open_trials() for path in _checkpoints(scene.place, n)]
    if not found:
        return False
    scene.remember()
    chosen = scene.rng.choice(found)
    scene.damaged.add(int(chosen.parent.parent.name))
    damage(chosen)
    return True


def _checkpoints(place: Place, number: int) -> list[Path]:
    """The newest checkpoint of a trial, if it has one."""
    return sorted((place.folder / f"trials/{number:04d}/checkpoints").glob("epoch-*"))[-1:]


def _stray_workers(scene: Scene) -> list[psutil.Process]:
    """Workers of a Ray that is gone, which have the study's log open or are about to end."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        line, environ = process.info["cmdline"] or [""], process.info["environ"] or {}
        if line[0].startswith("ray::Runner") and environ.get("SWEEPER_HOME") == str(scene.place.home):
            found.append(process)
    return found


def start_twice(scene: Scene) -> bool:
    """Two orchestrators started on one study at the same instant."""
    scene.remember()
    if not scene.await_moment(training=True):
        return False
    scene.process.signal(signal.SIGKILL)
    scene.process.process.wait()
    both = [scene.launch(), scene.launch()]
    deadline = time.monotonic() + 120.0
    while all(process.runs for process in both) and time.monotonic() < deadline:
        time.sleep(0.05)
    if all(process.runs for process in both):
        scene.wrong.append("two orchestrators run one study")
    refused = [process for process in both if not process.runs and "is run by process" in process.err.read_text()]
    if len(refused) != 1 or refused[0].process.returncode != 1:
        scene.wrong.append(f"of two orchestrators {len(refused)} were refused, expected one, with exit code 1")
    scene.process = next(process for process in both if process not in refused)
    return True


def jump_clock(scene: Scene) -> bool:
    """The clock of the orchestrator jumps, forwards or backwards."""
    if scene.clock is None or not scene.await_moment(training=True):
        return False
    scene.remember()
    scene.clock.write_text(scene.rng.choice(["-86400\n", "-40\n", "+40\n", "+86400\n"]))
    return True


FAULTS: dict[str, Callable[[Scene], bool]] = {
    "orchestrator": kill_orchestrator,
    "worker": kill_worker,
    "raylet": kill_raylet,
    "sigterm": terminate,
    "ctrl-c": interrupt,
    "two-ctrl-c": interrupt_twice,
    "mlflow": kill_mlflow,
    "postgres": restart_postgres,
    "disk": fill_disk,
    "truncated": truncate_checkpoint,
    "flipped": flip_a_bit,
    "bomb": plant_a_bomb,
    "two-starts": start_twice,
    "clock": jump_clock,
}
NEEDS_RAY = {"worker", "raylet"}
NEEDS_POSTGRES = {"postgres"}
NEEDS_SMALL_DISK = {"disk"}
NEEDS_CLOCK = {"clock"}


def available() -> list[str]:
    """The faults that this machine can inject: a small disk takes root."""
    missing = set() if os.geteuid() == 0 and shutil.which("mount") else NEEDS_SMALL_DISK
    return [kind for kind in FAULTS if kind not in missing]
