"""Everything that can go wrong inside a trial, in one tree.

    TrialError
    ├── DataError      the data cannot be read, or does not fit the recipe
    ├── ModelError     the model cannot be built, or does not fit the data
    ├── Diverged       the loss became NaN or infinite
    ├── OutOfMemory    the device or the host ran out of memory
    ├── ProcessLost    a process of a data parallel trial died
    ├── NoSpace        the disk is full
    ├── Pruned         the outside said stop (an outcome, not a fault)
    └── Interrupted    the outside said not now (a pause, not a fault)

Each message is one line: what, where, what was expected, what to do.
"""

from __future__ import annotations


class TrialError(Exception):
    """The base of all errors that a trial raises on purpose."""


class DataError(TrialError):
    """The data cannot be read, or does not fit the recipe."""


class ModelError(TrialError):
    """The model cannot be built, or does not fit the data."""


class Diverged(TrialError):
    """The loss became NaN or infinite."""


class OutOfMemory(TrialError):
    """The device or the host ran out of memory."""


class ProcessLost(TrialError):
    """A process of a data parallel trial died; nothing is wrong with the trial itself."""


class NoSpace(TrialError):
    """The disk, or the share of it that is the user's, is full; what was saved before is whole."""


class Pruned(TrialError):
    """The outside answered a report with ``False``; the trial has saved its state and stopped."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"pruned after epoch {epoch}")
        self.epoch = epoch

    def __reduce__(self) -> tuple[type[Pruned], tuple[int]]:
        return type(self), (self.epoch,)


class Interrupted(TrialError):
    """The outside asked the trial to stop for now; it has saved its state, and goes on from there when run again."""

    def __init__(self, epoch: int, step: int) -> None:
        where = f"in epoch {epoch} after {step} of its updates" if step else f"before epoch {epoch}"
        super().__init__(f"interrupted {where}; it goes on from there when it is started again")
        self.epoch = epoch
        """The epoch that goes on next, counted from 1."""
        self.step = step
        """Updates of that epoch that are made and saved."""

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int, int]]:
        return type(self), (self.epoch, self.step)


def says_out_of_memory(error: BaseException) -> bool:
    """Whether it is one of the ways in which Python, torch and CUDA say that memory is short."""
    signs = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
