from __future__ import annotations

import io
import json
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeper.catalog import Catalog, WeightsRow
from sweeper.rank.board import print_board, rows_of
from sweeper.rank.latency import Latencies
from sweeper.study_folder import StudyFolder
from trials import WeightsFile, latency
from trials.result import WeightsKind

METRIC = "validation.accuracy"


RECIPE = {"data": {"source": "digits"}, "model": {"build": "linear"}}
INGREDIENTS = ("trials/0007/weights/ema", "trials/100002/weights/raw", "trials/100003/weights/raw")
KEPT = [{"path": f"../../{path}.safetensors", "sha256": "", "name": path} for path in INGREDIENTS]
SOUP = {**RECIPE, "assembly": {"name": "greedy_soup", "ingredients": KEPT, "barrier_tolerance": 0.1}}


@pytest.fixture
def study(tmp_path: Path) -> Iterator[tuple[Catalog, StudyFolder]]:
    """A study whose soup won."""
    catalog = Catalog(f"sqlite:///{tmp_path / 'a.db'}")
    row = catalog.add_study("small", digest="d", text="", metric=METRIC, trials_asked=2)
    kept: list[tuple[int, WeightsKind, float, float, dict[str, Any]]] = [
        (3, "raw", 0.9, 0.5, {"params": {}}),
        (7, "ema", 0.92, 0.4, {"params": {}}),
        (100_001, "soup", 0.95, 0.3, {"params": {"move": "greedy_soup"}, "role": "move"}),
    ]
    for number, kind, value, loss, of_trial in kept:
        trial = catalog.add_trial(row.id, number, recipe=SOUP if kind == "soup" else RECIPE, **of_trial)
        metrics = {METRIC: value, "validation.loss": loss}
        path = f"weights/{kind}.safetensors"
        file = WeightsFile(
            kind=kind, path=path, metrics=metrics, epoch=number % 10, bytes=1_500_000, sha256=f"{number}"
        )
        catalog.end_trial(trial.id, "complete", value=value, weights=[(file, f"trials/{number:04d}/{path}", value)])
    won = "trials/100001/weights/soup.safetensors"
    catalog.set_study(row.id, winner={"path": won, "sha256": "100001", "test": {"test.accuracy": 0.94}})
    folder = StudyFolder(tmp_path, "small")
    folder.root.mkdir(parents=True)
    yield catalog, folder
    catalog.close()


def test_rows_for_programs(study: tuple[Catalog, StudyFolder]) -> None:
    catalog, folder = study
    rows = rows_of(catalog, "small", Latencies(folder))
    assert rows[0] == {
        "place": 1,
        "weights": "soup",
        "trial": 100_001,
        "role": "move",
        "made_by": "greedy_soup",
        "value": 0.95,
        "metrics": {METRIC: 0.95, "validation.loss": 0.3},
        "epochs": 0,
        "bytes": 1_500_000,
        "latency_ms": None,
        "winner": True,
        "test": 0.94,
    }
    assert [(row["place"], row["trial"], row["role"], row["winner"], row["test"]) for row in rows[1:]] == [
        (2, 7, "search", False, None),
        (3, 3, "search", False, None),
    ]
    assert json.loads(json.dumps(rows)) == rows
    assert rows_of(catalog, "small", Latencies(folder), top=2) == rows[:2]


def test_a_soup_costs_the_epochs_that_its_branches_were_trained(study: tuple[Catalog, StudyFolder]) -> None:
    catalog, folder = study
    for number in (100_002, 100_003):
        of_trial: dict[str, Any] = {"role": "move", "params": {"move": "branch"}}
        trial = catalog.add_trial(catalog.study("small").id, number, recipe=RECIPE, **of_trial)
        path, metrics = "weights/raw.safetensors", {METRIC: 0.5}
        file = WeightsFile(kind="raw", path=path, metrics=metrics, epoch=2, bytes=1, sha256=f"{number}")
        kept = [(file, f"trials/{number}/{path}", 0.5)]
        catalog.end_trial(trial.id, "complete", value=0.5, weights=kept, facts={"epochs": 3})
    rows = rows_of(catalog, "small", Latencies(folder))
    assert [(row["trial"], row["epochs"]) for row in rows] == [
        (100_001, 6), (7, 7), (3, 3), (100_002, 2), (100_003, 2)
    ]  # fmt: skip


def test_a_table_for_people(study: tuple[Catalog, StudyFolder]) -> None:
    catalog, folder = study
    rows = rows_of(catalog, "small", Latencies(folder), top=2)
    text = io.StringIO()
    print_board("small", METRIC, rows, Console(file=text, width=200))
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert lines == [
        "leaderboard of small: validation.accuracy on the selection split",
        "weights trial role accuracy loss epochs MB test",
        "1 soup 100001 greedy_soup 0.9500 0.3000 0 1.50 0.9400",
        "2 ema 0007 search 0.9200 0.4000 7 1.50",
    ]
    text.truncate(0)
    print_board("small", METRIC, [{**rows[0], "latency_ms": 1.234}, rows[1]], Console(file=text, width=200))
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert lines[1:3] == [
        "weights trial role accuracy loss epochs MB ms test",
        "1 soup 100001 greedy_soup 0.9500 0.3000 0 1.50 1.23 0.9400",
    ]


def test_latencies_are_measured_once_a_machine(
    study: tuple[Catalog, StudyFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, folder = study
    measured: list[Path] = []
    monkeypatch.setattr(latency, "latency_of_weights", lambda recipe, path: measured.append(path) or 0.002)
    (best, *_) = sorted(catalog.weights(catalog.study("small").id), key=lambda row: -row.value)
    row = _with_file(folder, best)
    trial = replace(catalog.trial(catalog.study("small").id, best.trial), recipe=RECIPE)
    for _ in range(2):
        latencies = Latencies(folder)
        assert latencies.measured(row, trial) == 2.0
        assert latencies.known(row) == 2.0
    assert measured == [folder.root / row.path]
    monkeypatch.setattr(platform, "node", lambda: "another machine")
    assert Latencies(folder).known(row) is None
    Latencies(folder).measured(row, trial)
    assert len(measured) == 2
    assert len(json.loads((folder.root / "latency.json").read_text())) == 2
    for damaged in ([], 3, {"another machine": []}, {"another machine": {row.sha256: "fast"}}):
        (folder.root / "latency.json").write_text(json.dumps(damaged))
        assert Latencies(folder).known(row) is None
    (folder.root / "latency.json").write_text("{")
    assert Latencies(folder).known(row) is None


def test_two_that_measure_at_once_keep_what_each_has_found(
    study: tuple[Catalog, StudyFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, folder = study
    trial = replace(catalog.trial(catalog.study("small").id, 3), recipe=RECIPE)
    rows = catalog.weights(catalog.study("small").id)[:2]
    one, other = (_with_file(folder, row, content) for row, content in zip(rows, (b"one", b"other"), strict=True))
    measuring = Latencies(folder)

    def measure(_recipe: object, _path: Path) -> float:
        """The other process measures meanwhile, and both write."""
        monkeypatch.setattr(latency, "latency_of_weights", lambda *_: 0.003)
        Latencies(folder).measured(other, trial)
        return 0.002

    monkeypatch.setattr(latency, "latency_of_weights", measure)
    measuring.measured(one, trial)
    after = Latencies(folder)
    assert (after.known(one), after.known(other)) == (2.0, 3.0)
    assert [path.name for path in folder.root.iterdir() if "latency" in path.name] == ["latency.json"]


def _with_file(folder: StudyFolder, row: WeightsRow, content: bytes = b"weights") -> WeightsRow:
    """The row, with a file behind it."""
    import hashlib

    path = folder.root / row.path
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return replace(row, sha256=hashlib.sha256(content).hexdigest())
