"""What the loop of a study asks of the workers, wherever they run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from sweeper.runner import Event, Job


class Workers(Protocol):
    """Slots that run trials."""

    @property
    def free(self) -> int:
        """How many trials may be submitted now."""

    @property
    def threads(self) -> int:
        """Threads a trial may use: its share of the cores, at least one."""

    def news(self) -> str:
        """What a person should hear of the workers, once; nothing mostly."""

    def unplaced(self, for_seconds: float) -> tuple[int, ...]:
        """Trials that were submitted that long ago or longer, and have no worker yet: no node has room for one."""

    def submit(self, job: Job) -> None:
        """Start a trial on a free slot."""

    def wait(self, timeout_seconds: float) -> Event | None:
        """The next event of any trial, or ``None`` when none came in time.

        Raises:
            WorkersError: nothing will ever come any more; these workers can only be closed.
        """

    def answer(self, number: int, keep_going: bool) -> None:
        """Answer the report of a trial, which waits for it."""

    def interrupt(self) -> None:
        """Ask all that run to save their state and stop, without waiting for it.

        For each an event follows as always: `Interrupted`, unless another came first. A report that has not been
        answered counts as not recorded: the trial stops there, and tells of it again when it goes on.
        """

    def kill(self, number: int) -> None:
        """Kill the worker of a trial, and replace it; no event of that trial follows."""

    def close(self) -> None:
        """Stop what runs; checkpoints stay."""


def import_paths(folders: Iterable[Path]) -> tuple[str, ...]:
    """Folders from which a user's own `module:function` may come, in order, each once."""
    return tuple(dict.fromkeys(str(folder.resolve()) for folder in folders))
