"""What the catalog answers with: one row of each kind, as it stood when it was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

StudyState = Literal["running", "paused", "stopped", "finished", "failed"]
Request = Literal["stop", "pause"]
Failure = Literal["raised", "diverged", "infeasible", "stalled", "lost"]
TrialState = Literal["waiting", "running", "complete", "pruned", "failed"]
Role = Literal["search", "trunk", "move", "seed"]
"""What a trial is for: ``search``: the search asked for it; ``trunk``: others begin from its weights; ``move``: a
finishing move; ``seed``: a trial or a move once more, from a fresh seed."""
FIRST_UNSEARCHED = 100_000
"""Trials that are none of the search's are numbered from here on."""
ENDED: tuple[TrialState, ...] = ("complete", "pruned", "failed")


@dataclass(frozen=True)
class StudyRow:
    """One row of the studies, as it stands."""

    id: int
    name: str
    state: StudyState
    request: Request | None
    """What another terminal asks of whoever runs it."""
    history: str
    """Under which name the search keeps its history: the study's, or where that was rebuilt, ``NAME@2`` and so on."""
    digest: str
    text: str
    metric: str
    trials_asked: int
    created_at: float
    winner: dict[str, Any] | None
    run_id: str | None
    tracking_uri: str | None
    """Which MLflow ``run_id`` is of, without a password."""
    owner: str | None
    owner_host: str | None
    owner_machine: str | None
    owner_pid: int | None
    owner_pid_since: float | None
    owner_since: float | None
    heartbeat_at: float | None
    """When its owner was last heard, by the owner's clock."""
    beats: int
    """Grows with each sign of life of its owner, whatever the clocks do."""
    job: str | None
    """The Ray job that ran it last, by its submission id; ``None`` where that was no job."""
    job_address: str | None
    """Of the job server that took the job, as whoever submitted it reached it; without a password."""
    file: str
    """Where its study.yaml was when it was last started."""
    import_paths: list[str]
    """The folders from which its own modules were imported then."""
    looks: list[dict[str, Any]] = field(default_factory=list)
    """Each look at the test split, recorded before it was taken: with which weights, and when (seconds since 1970)."""


@dataclass(frozen=True)
class TrialRow:
    """One trial, without its epochs and weights."""

    id: int
    study_id: int
    number: int
    role: Role
    state: TrialState
    params: dict[str, Any]
    recipe: dict[str, Any]
    value: float | None
    reason: str | None
    failure: Failure | None
    """Why it failed, if it did; ``reason`` says so in words."""
    attempts: list[dict[str, Any]]
    """Each time that a fault interrupted it: ``at`` (seconds since 1970), ``kind`` (lost, stalled, out_of_memory),
    ``reason``."""
    facts: dict[str, Any]
    started_at: float
    ended_at: float | None
    run_id: str | None
    described: bool
    """Whether the tracker has heard of its recipe."""
    files_delivered: bool
    """Whether the tracker has its recipe as a file, and the traceback if it failed."""
    delivered: bool
    """Whether the tracker has heard of its end."""

    @property
    def tells_search(self) -> bool:
        """Whether the search is to hear of it: it asked for it, and has not heard of its end."""
        return self.role == "search" and not self.is_extended

    @property
    def is_extended(self) -> bool:
        """Whether epochs were added to it after it had finished."""
        return bool(self.recipe.get("extensions"))


@dataclass(frozen=True)
class EpochRow:
    """One reported epoch of a trial."""

    id: int
    trial_id: int
    epoch: int
    metrics: dict[str, float]
    seconds: float
    reported_at: float
    delivered: bool


@dataclass(frozen=True)
class AtWork:
    """A trial that runs, with its newest report: ``None`` before the first."""

    number: int
    params: dict[str, Any]
    recipe: dict[str, Any]
    started_at: float
    epoch: int | None
    metrics: dict[str, float] | None
    reported_at: float | None


@dataclass(frozen=True)
class WeightsRow:
    """One kept file of weights; ``path`` is relative to the study's folder."""

    trial: int
    kind: str
    path: str
    value: float
    metrics: dict[str, float]
    epoch: int
    bytes: int
    sha256: str
    role: Role = "search"
    """Of its trial."""
