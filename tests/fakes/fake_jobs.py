"""A job server in memory, of which a test decides what comes of what is submitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweeper.jobs import JobState


@dataclass(frozen=True)
class Submitted:
    """What came with a job."""

    job: str
    command: str
    files: dict[str, str]
    env: dict[str, str]
    metadata: dict[str, str]


@dataclass
class FakeJobs:
    """Implements `sweeper.jobs.Jobs`."""

    address: str = "http://head:8265"
    states: dict[str, JobState] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)
    submitted: list[Submitted] = field(default_factory=list)
    begins: Callable[[Submitted], str] = lambda _: "PENDING"
    """What a job does when it is submitted, and its status from then on."""

    def submit(
        self, job: str, command: str, *, folder: Path, env: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        files = {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}
        self.submitted.append(Submitted(job, command, files, dict(env), dict(metadata)))
        self.states[job] = JobState(self.begins(self.submitted[-1]), "")

    def find(self, job: str) -> JobState | None:
        return self.states.get(job)

    def output(self, job: str) -> str:
        return self.printed[job]

    def follow(self, job: str) -> Iterator[str]:
        yield from self.printed[job].splitlines(keepends=True)
