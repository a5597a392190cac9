"""A slot over two nodes: what dies on any of them is lost, and the trial goes on with a new slot."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import Watcher
from safetensors.torch import load_file

from sweeper.catalog import Catalog
from sweeper.dispatch import RayWorkers
from sweeper.run import run_study
from sweeper.search import Search
from sweeper.study import load_study
from sweeper.study_folder import StudyFolder
from trials import Recipe, run_trial


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # Ray wants one for a dashboard that it does not start
    head = {**node, "include_dashboard": False, "dashboard_port": port}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**node)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)  # four starts of a slot, each of two processes that load torch
def test_whatever_dies_of_a_trial_on_two_nodes_it_goes_on_and_ends_as_on_one(
    tmp_path: Path, fakes: Path, write_study: Callable[..., Path], two_nodes: Any
) -> None:
    file = write_study(trials=1, epochs=4)
    file.write_text(file.read_text().replace("{concurrent: 1}", "{nodes: 2}"))
    study, url, folder = load_study(file), f"sqlite:///{tmp_path / 'a.db'}", StudyFolder(tmp_path, "small")
    workers = RayWorkers(study.workers, two_nodes.address, "dying_nodes:lose_all_once")
    with closing(Catalog(url)) as catalog, closing(Search(study, url, study.name)) as search, closing(workers):
        row = catalog.add_study(study.name, digest="d", text="", metric=study.search.metric, trials_asked=1)
        assert workers.free == 1, "a node each makes one slot of two"
        run_study(study, row, search, workers, catalog, Watcher(), folder=folder, import_paths=(str(fakes),))
        [trial], epochs = catalog.trials(row.id), catalog.epochs(row.id)
        [weights] = catalog.weights(row.id)
    assert (trial.state, [each.epoch for each in epochs[trial.id]]) == ("complete", [1, 2, 3, 4])
    assert [attempt["kind"] for attempt in trial.attempts] == ["lost"] * 3
    rank, launcher, runner = (attempt["reason"] for attempt in trial.attempts)
    assert rank.startswith("ProcessLost: train.data_parallel: process 1 of 2 on ")
    assert "died (SIGKILL)" in rank
    assert launcher.startswith("ProcessLost: train.data_parallel: process 1 of 2 is gone, or its node ")
    assert runner.startswith("the worker died: process ")
    assert (folder.trial(0) / "places").read_text() == "2 True\n" * 4, "two processes, on different nodes"

    alone = run_trial(Recipe.model_validate(trial.recipe), tmp_path / "alone", device="cpu").weights[0]
    assert trial.value == pytest.approx(alone.metrics[study.search.metric], rel=1e-4)
    wanted = load_file(tmp_path / "alone" / alone.path)
    found = load_file(folder.root / weights.path)
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
