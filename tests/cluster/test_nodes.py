"""A real study, by the command, on a real Ray whose nodes come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_nodes import add_node, ray_nodes
from sweeper_command import PATIENCE_SECONDS, Running, SweeperCommand

from tests.faults.checker import Findings, Snapshot, check, take_snapshot
from tests.faults.records import Place, read_catalog, read_trained
from tests.faults.studies import MODEL, NAME

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 8
STUDY = f"""\
study: {NAME}
seed: 7
data: {{source: digits}}
model: {{build: "logged_net:build"}}
train:
  epochs: {EPOCHS}
  batch_size: 256
  optimizer: {{name: sgd, lr: {{log: [0.01, 0.3]}}, momentum: {{choice: [0.0, 0.9]}}}}
search: {{trials: 4, sampler: random, pruner: {{name: none}}}}
"""


HOLD = """\
            while self.batches > 12 and not LOG.with_name("go").exists():
                time.sleep(0.05)
"""
"""In the third of its epochs, of five batches each, the model waits until it may go on: no trial ends before."""


@dataclass
class Study:
    """A study whose trials wait in the midst of training until they may go on."""

    sweeper: SweeperCommand
    file: Path
    place: Place
    before: list[Snapshot] = field(default_factory=list)
    """What was known before each fault."""

    def let_go(self) -> None:
        self.file.with_name("go").touch()

    def remember(self) -> None:
        self.before.append(take_snapshot(self.place))

    def workers(self) -> set[int]:
        """The processes that have trained so far."""
        return {batch.pid for batch in read_trained(self.place)}

    def losses(self) -> list[str]:
        """Why trials have lost their workers so far."""
        catalog = read_catalog(self.place)
        attempts = [attempt for row in catalog.trials.values() for attempt in row["attempts"]] if catalog else []
        return [attempt["reason"] for attempt in attempts if attempt["kind"] == "lost"]

    def findings(self) -> Findings:
        """What is wrong with it, once it has ended."""
        batches_per_epoch, rest = divmod(max(batch.batch for batch in read_trained(self.place)), EPOCHS)
        assert rest == 0
        return check(self.place, batches_per_epoch=batches_per_epoch, before=self.before)

    def leftovers(self) -> list[psutil.Process]:
        """What still runs of all that trained, after a while in which it may end."""
        alive = [psutil.Process(pid) for pid in self.workers() if psutil.pid_exists(pid)]
        return psutil.wait_procs(alive, timeout=PATIENCE_SECONDS)[1]


@pytest.fixture
def study(tmp_path: Path) -> Callable[[str], Study]:
    """Makes the study, with what it says of its workers."""

    def made(workers: str) -> Study:
        folder = tmp_path / "study"
        folder.mkdir()
        (folder / "logged_net.py").write_text(MODEL.replace("            time.sleep(0.02)\n", HOLD))
        (folder / "study.yaml").write_text(f"{STUDY}workers: {workers}\n")
        home = tmp_path / "home"
        place = Place(home, NAME, f"sqlite:///{home / 'sweeper.db'}", home / "mlflow.db", folder / "trained.log")
        return Study(SweeperCommand(home, tmp_path), folder / "study.yaml", place)

    return made


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    """A head that trains nothing, as on Kubernetes."""
    with ray_nodes(head_cpus=0) as cluster:
        yield cluster


@pytest.fixture
def cluster(head: Any) -> Iterator[Any]:
    """The head, without nodes to begin with."""
    yield head
    for node in list(head.worker_nodes):
        head.remove_node(node)


def ended(started: Running) -> tuple[int, str, str]:
    """The exit code, and what was said and cried."""
    code = started.process.wait(PATIENCE_SECONDS)
    return code, started.out.read_text(), started.err.read_text()


def test_a_study_goes_on_while_nodes_come_and_go(cluster: Any, study: Callable[[str], Study]) -> None:
    """One node joins, one is killed, one is told to go, another joins."""
    it, nodes = study("{cpus: 1}"), [add_node(cluster), add_node(cluster)]
    with it.sweeper.running("start", it.file, RAY_ADDRESS=cluster.address) as started:
        started.wait_until(lambda: len(it.workers()) == 2)
        nodes.append(add_node(cluster))
        started.wait_until(lambda: len(it.workers()) == 3)
        it.remember()
        cluster.remove_node(nodes[0], allow_graceful=False)
        started.wait_until(lambda: len(it.losses()) == 1 and "2 places now" in started.out.read_text())
        it.remember()
        cluster.remove_node(nodes[1], allow_graceful=True)
        started.wait_until(lambda: len(it.losses()) == 2 and "1 place now" in started.out.read_text())
        it.remember()
        add_node(cluster)
        started.wait_until(lambda: len(it.workers()) == 4)
        it.let_go()
        code, said, cried = ended(started)
    assert (code, cried) == (0, "")
    notes = [line.partition("workers: ")[2] for line in said.splitlines() if "workers: " in line]
    assert notes == [
        "3 places now (2 before)",
        "2 places now (3 before)",
        "1 place now (2 before)",
        "2 places now (1 before)",
    ]
    assert it.findings() == Findings()
    assert len(it.losses()) == 2, "each node that went cost the trial on it one retry, and nothing else"
    assert all(reason.startswith("the worker died: the node of ") for reason in it.losses())
    assert it.leftovers() == []


def test_a_study_begins_with_the_places_there_are_and_outlives_all_its_nodes(
    cluster: Any, study: Callable[[str], Study]
) -> None:
    it = study("{concurrent: 3, cpus: 1}")
    with it.sweeper.running("start", it.file, RAY_ADDRESS=cluster.address) as started:
        started.wait_until(lambda: started.out.exists() and "workers: 0 of 3 places so far" in started.out.read_text())
        node = add_node(cluster)
        started.wait_until(lambda: len(it.workers()) == 1)
        it.remember()
        cluster.remove_node(node, allow_graceful=True)
        started.wait_until(lambda: len(it.losses()) == 1 and "0 of 3 places now" in started.out.read_text())
        it.remember()
        it.let_go()
        add_node(cluster, cpus=2)
        code, said, cried = ended(started)
    assert (code, cried) == (0, "")
    assert "workers: 0 of 3 places now (1 before)" in said
    assert "workers: 2 of 3 places now (0 before)" in said
    assert it.findings() == Findings()
    assert it.leftovers() == []


def test_a_head_that_dies_is_said_and_with_a_new_one_the_study_goes_on(study: Callable[[str], Study]) -> None:
    it = study("{concurrent: 1, cpus: 1}")
    with ray_nodes(head_cpus=1) as cluster:
        address = cluster.address
        with it.sweeper.running("start", it.file, RAY_ADDRESS=address) as started:
            started.wait_until(lambda: len(read_trained(it.place)) > 0)
            it.remember()
            cluster.remove_node(cluster.head_node, allow_graceful=False)
            code, said, cried = ended(started)
    lost = f"the Ray cluster at {address} has not answered for "
    assert code == 1
    assert lost in said
    assert cried.startswith(f"error: RAY_ADDRESS={address}: nothing answers there (Connection refused); start that Ray")
    assert "Traceback" not in cried
    assert it.sweeper.show(NAME)["state"] == "stopped"
    assert len(it.losses()) == 1, "it costs the trial that ran one retry"
    it.remember()
    it.let_go()
    with ray_nodes(head_cpus=1) as cluster:
        done = it.sweeper.run("start", it.file, RAY_ADDRESS=cluster.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert it.findings() == Findings()
    assert it.leftovers() == []
