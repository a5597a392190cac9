"""A home in which small studies are run with trials that take no time, by the loop alone: no lease, no MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from sweeper.catalog import Catalog
from sweeper.in_process import InProcessWorkers
from sweeper.run import run_study
from sweeper.search import Search
from sweeper.study import load_study
from sweeper.study_folder import StudyFolder
from trials.result import EpochReport


@dataclass
class Watcher:
    """Notes what it is told."""

    lines: list[str] = field(default_factory=list)
    stop_after_reports: int | None = None
    reports: int = 0
    on_report: Callable[[int], None] = lambda _: None
    on_continue: Callable[[str], None] = lambda _: None
    on_end: Callable[[], None] = lambda: None
    asked: str | None = None
    """What the study was asked for from outside, if it returned because of that."""

    def started(self, number: int, params: Mapping[str, Any], epochs: int, after_epochs: int = 0) -> None:
        self.lines.append(f"{number} goes on after {after_epochs} to {epochs}" if after_epochs else f"{number} started")

    def reported(self, number: int, report: EpochReport) -> None:
        self.reports += 1
        self.on_report(number)
        if self.reports == self.stop_after_reports:
            raise KeyboardInterrupt

    def continued(self, number: int, after: str, *, counted: bool = True) -> None:
        self.lines.append(f"{number} {after}")
        self.on_continue(after)

    def note(self, text: str) -> None:
        self.lines.append(text)

    def ended(self, number: int, state: str, value: float | None, reason: str | None) -> None:
        self.lines.append(f"{number} {state}" + (f": {reason}" if state == "complete" and reason else ""))
        self.on_end()

    def tick(self) -> None:
        pass


@dataclass
class Bench:
    """One home in which studies are run, again and again if need be."""

    folder: Path
    fakes: Path
    files: StudyFolder | None = None
    """Where the study's files are, if not below ``folder``."""

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'a.db'}"

    def run(self, file: Path, train: str = "instant", **watching: Any) -> Watcher:
        study, watcher = load_study(file), Watcher(**watching)
        catalog, search = Catalog(self.url), Search(study, self.url, study.name)
        workers = InProcessWorkers(train if ":" in train else f"fake_training:{train}")
        row = catalog.add_study(
            study.name, digest="d", text="", metric=study.search.metric, trials_asked=study.search.trials
        )
        try:
            watcher.asked = run_study(
                study,
                row,
                search,
                workers,
                catalog,
                watcher,
                folder=self.files or StudyFolder(self.folder, "small"),
                import_paths=(str(self.fakes),),
            )
        finally:
            workers.close()
            search.close()
            catalog.close()
        return watcher

    def extend(self, *numbers: int, epochs: int) -> None:
        """What `sweeper extend` records."""
        with closing(self.catalog()) as catalog:
            study, recipes = catalog.study("small"), {}
            for number in numbers:
                trial = catalog.trial(study.id, number)
                extension = {"after_epochs": trial.facts["epochs"], "epochs": epochs, "schedule": "cosine", "lr": 0.1}
                recipes[trial.id] = {**trial.recipe, "extensions": [*trial.recipe["extensions"], extension]}
            catalog.extend_trials(study.id, recipes)

    def catalog(self) -> Catalog:
        return Catalog(self.url)

    def history(self) -> list[optuna.trial.FrozenTrial]:
        storage = optuna.storages.RDBStorage(self.url)
        try:
            return optuna.load_study(study_name="small", storage=storage).trials
        finally:
            storage.remove_session()
            storage.engine.dispose()
