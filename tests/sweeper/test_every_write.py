"""A study that is killed before any of its writes, whichever, ends as if it had not been."""

from __future__ import annotations

import gc
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from camera import watched
from optuna.storages._rdb.storage import _VersionManager

from sweeper.storage import remove_leftovers
from sweeper.study_folder import StudyFolder

WriteStudy = Callable[..., Path]
TRIALS = 4
# The fakes make a fair trial of the first of these learning rates, and of the third one that is pruned. The fourth is
# drawn, as is all else.
START_WITH = "".join(f"\n    - {{train.optimizer.lr: {lr}}}" for lr in (0.002, 0.01, 0.001))
PAST = {
    "trials": "state",
    "trial_values": "value",
    "trial_params": "param_name, param_value",
    "trial_intermediate_values": "step, intermediate_value",
    "trial_user_attributes": "key, value_json",
    "trial_system_attributes": "key, value_json",
}
"""Optuna's tables, and what of them does not differ from run to run."""


@pytest.fixture(autouse=True)
def in_little_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Do once what takes long and does not matter here, and would be done for each of the kills."""
    # After a trial that ran out of memory all garbage is collected, among all that is imported.
    import_module("torch")
    gc.freeze()
    # Optuna reads all its migrations to know which is the newest.
    read, known = _VersionManager.get_head_version, []
    monkeypatch.setattr(
        _VersionManager, "get_head_version", lambda manager: (known or known.append(read(manager)) or known)[0]
    )
    yield
    gc.unfreeze()


@pytest.fixture
def study_file(write_study: WriteStudy) -> Path:
    pruner = "{name: median, startup_trials: 1, warmup_epochs: 0}"
    path = write_study(trials=TRIALS, epochs=2, sampler="tpe", pruner=pruner)
    said = path.read_text().replace("workers: {concurrent: 1}", "workers: {concurrent: 1, retries: 1}")
    path.write_text(said.replace("\nworkers:", f"\n  start_with:{START_WITH}\nworkers:"))
    return path


@pytest.mark.slow
def test_a_study_killed_before_any_write_ends_as_if_it_had_not_been(
    tmp_path: Path, fakes: Path, study_file: Path
) -> None:
    whole = Bench(tmp_path / "whole", fakes)
    whole.folder.mkdir()
    with watched(whole.folder, tmp_path / "killed") as camera:
        whole.run(study_file, "eventful_training:eventful")
    expected = _story(whole)
    ends = Counter((trial["state"], trial["failure"]) for trial in expected["trials"])
    assert ends == {("complete", None): 1, ("pruned", None): 1, ("failed", "lost"): 1, ("failed", "diverged"): 1}
    assert [{attempt["kind"] for attempt in trial["attempts"]} for trial in expected["trials"]] == [
        {"out_of_memory"},
        {"lost"},
        set(),
        set(),
    ]
    assert len(camera.copies) > 60
    for copy in camera.copies:
        assert _continued(Bench(copy, fakes), study_file) == expected, copy.name


def test_an_extension_killed_before_any_write_ends_as_if_it_had_not_been(
    tmp_path: Path, fakes: Path, study_file: Path
) -> None:
    whole = Bench(tmp_path / "whole", fakes)
    whole.folder.mkdir()
    whole.run(study_file, "eventful_training:eventful")
    whole.extend(0, epochs=2)
    with watched(whole.folder, tmp_path / "killed") as camera:
        whole.run(study_file, "eventful_training:eventful")
    expected = _story(whole)
    assert len(expected["trials"][0]["epochs"]) == 4
    assert len(camera.copies) > 10
    for copy in camera.copies:
        assert _continued(Bench(copy, fakes), study_file) == expected, copy.name


@pytest.mark.slow
def test_a_study_killed_before_any_write_is_finished_as_if_it_had_not_been(
    tmp_path: Path, fakes: Path, write_study: WriteStudy
) -> None:
    file = write_study(trials=2, epochs=2)
    file.write_text(file.read_text() + "average: {trunk_epochs: 1}\nfinish: {finalists: 2, seeds: 1}\n")
    whole = Bench(tmp_path / "whole", fakes)
    whole.folder.mkdir()
    # The files come and go as those of the study above.
    with watched(whole.folder, tmp_path / "killed", commits_alone=True) as camera:
        whole.run(file, "fake_finishing:finishing")
    expected = _story(whole)
    ends = Counter((trial["role"], trial["state"]) for trial in expected["trials"])
    assert ends == {
        ("search", "complete"): 2,
        ("trunk", "complete"): 2,
        ("move", "complete"): 4,
        ("seed", "complete"): 3,
    }
    assert len(camera.copies) > 40
    for copy in camera.copies:
        assert _continued(Bench(copy, fakes), file, "fake_finishing:finishing") == expected, copy.name


def _continued(bench: Bench, study_file: Path, train: str = "eventful_training:eventful") -> dict[str, Any]:
    bench.run(study_file, train)
    story = _story(bench)
    shutil.rmtree(bench.folder)
    return story


def _story(bench: Bench) -> dict[str, Any]:
    """All that the catalog, Optuna and the files say, but for times and traces."""
    folder = StudyFolder(bench.folder, "small")
    with closing(bench.catalog()) as catalog:
        study = catalog.study("small")
        remove_leftovers(catalog, study, folder)  # as `sweeper start` does in the end
        epochs = catalog.epochs(study.id)
        trials = [
            {
                "number": trial.number,
                "role": trial.role,
                "state": trial.state,
                "value": trial.value,
                "reason": trial.reason,
                "failure": trial.failure,
                "attempts": [{**attempt, "at": None} for attempt in trial.attempts],
                "params": trial.params,
                "recipe": trial.recipe,
                "facts": {name: fact for name, fact in trial.facts.items() if name != "traceback"},
                "epochs": [(epoch.epoch, epoch.metrics, epoch.seconds) for epoch in epochs.get(trial.id, [])],
            }
            for trial in catalog.trials(study.id)
        ]
        weights = catalog.weights(study.id)
    files = sorted(path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*"))
    assert {row.path for row in weights} <= set(files)
    return json.loads(
        json.dumps({"trials": trials, "past": _past(bench), "files": files, "weights": [*map(str, weights)]})
    )


def _past(bench: Bench) -> dict[str, list[Any]]:
    """What Optuna's own tables say of each trial: read from outside, since to open its storage takes half a second."""
    with closing(sqlite3.connect(bench.folder / "a.db")) as database:
        return {
            table: database.execute(
                f"SELECT number, {columns} FROM {table} {'' if table == 'trials' else 'JOIN trials USING (trial_id)'} "
                f"ORDER BY number, {columns}"
            ).fetchall()
            for table, columns in PAST.items()
        }
