"""What a running study consists of: its trials at work, those that wait, and where all of it is told."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sweeper.catalog import Catalog, StudyRow, TrialRow, WeightsRow
from sweeper.dispatch import Workers
from sweeper.runner import Job
from sweeper.search import Proposal, Search
from sweeper.study import Study
from sweeper.study_file import Finish
from sweeper.study_folder import StudyFolder
from trials.result import EpochReport


class Progress(Protocol):
    """Whoever watches a study."""

    def started(self, number: int, params: Mapping[str, Any], epochs: int, after_epochs: int = 0) -> None:
        """A trial began; or one that had finished after ``after_epochs`` goes on to ``epochs``."""

    def reported(self, number: int, report: EpochReport) -> None:
        """A trial finished an epoch."""

    def continued(self, number: int, after: str, *, counted: bool = True) -> None:
        """A trial goes on after a fault, which ``after`` tells in one line; ``counted`` if its worker was at fault."""

    def ended(self, number: int, state: str, value: float | None, reason: str | None) -> None:
        """A trial ended: ``complete``, ``pruned`` or ``failed``."""

    def note(self, text: str) -> None:
        """Something that concerns the study as a whole."""

    def tick(self) -> None:
        """Time passed."""


@dataclass
class Running:
    """A trial that has a worker."""

    row: TrialRow
    value: float | None = None
    """What its newest report says of the study's metric."""
    heard_at: float = field(default_factory=time.monotonic)
    """When it was submitted or last reported, by the monotonic clock."""


@dataclass
class Sweep:
    """What the loop holds while it runs."""

    study: Study
    row: StudyRow
    search: Search
    workers: Workers
    catalog: Catalog
    progress: Progress
    folder: StudyFolder
    import_paths: tuple[str, ...]
    known: dict[int, TrialRow]
    """Trials that an earlier run of this study left in the catalog."""
    extendable: list[WeightsRow]
    """Weights of the best complete trials, which keep what an extension would go on from."""
    blocked: list[Proposal] = field(default_factory=list)
    """Trials that wait for their trunk."""
    known_epochs: dict[int, int] = field(default_factory=dict)
    """After which epoch an interrupted trial goes on."""
    running: dict[int, Running] = field(default_factory=dict)
    waiting: list[Proposal | TrialRow] = field(default_factory=list)
    """Trials to go on with before anything new is asked for."""
    failures: list[str] = field(default_factory=list)
    ended_well: bool = False
    stopping: bool = False
    """Whether no trial may begin or go on any more."""
    told_unplaced: set[int] = field(default_factory=set)
    """Trials of which a person has been told that they wait for a worker."""
    told_of_limit: bool = False
    """Whether a person has been told that the study needs more room than its limit."""

    @property
    def finish(self) -> Finish:
        """What study.yaml says of it, or what holds if it says nothing."""
        return self.study.finish or Finish()

    def submit(self, row: TrialRow) -> None:
        """Give a trial to a free worker; it goes on from its newest whole checkpoint if it has one."""
        job = Job(
            number=row.number,
            # A trial goes on with the recipe it began with, whatever defaults a newer version of sweeper has.
            recipe_json=json.dumps(row.recipe),
            folder=str(self.folder.trial(row.number)),
            import_paths=self.import_paths,
            threads=self.workers.threads,
            must_see=self.folder.must_see,
            store=self.folder.address(row.number),
        )
        self.workers.submit(job)
        self.running[row.number] = Running(row)

    def wait_again(self, number: int) -> None:
        """Take a trial off its worker, to go on another time."""
        self.catalog.set_trial(self.running.pop(number).row.id, state="waiting")
