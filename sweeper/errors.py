"""Everything that can go wrong outside a trial, in one tree.

    SweeperError
    ├── StudyError       study.yaml cannot be read, or says something impossible (exit code 2)
    ├── StudyHeld        another process runs the study
    ├── StudyFailed      the study cannot get anywhere: its trials all fail alike
    ├── StoreError       the databases, or the files under SWEEPER_HOME or in SWEEPER_STORE, cannot be used
    │   ├── NoStudy      there is no study of that name (exit code 2)
    │   └── NoRoom       the disk is full, and nothing more can be removed from it
    ├── WorkersError     the workers cannot be started, or do not answer
    └── TrackingError    MLflow cannot be used

Each message is made of whole lines: what, where, what was expected, what to do.
"""

from __future__ import annotations

from typing import ClassVar


class SweeperError(Exception):
    """The base of all errors that sweeper raises on purpose."""

    exit_code: ClassVar[int] = 1
    """What the command line returns when this error ends it."""


class StudyError(SweeperError):
    """A study file cannot be read, or says something impossible; all its faults at once, one a line."""

    exit_code = 2


class StudyHeld(SweeperError):
    """Another process runs the study; the message says which, where and since when."""


class StudyFailed(SweeperError):
    """The study cannot get anywhere: its trials all fail alike."""


class StoreError(SweeperError):
    """The databases, or the files under SWEEPER_HOME or in SWEEPER_STORE, cannot be used.

    Args:
        message: what, where, what to do.
        transient: the same call may work in a while by itself: the database or the store is away, starting or locked.
        no_space: the disk is full.
    """

    def __init__(self, message: str, *, transient: bool = False, no_space: bool = False) -> None:
        super().__init__(message)
        self.transient = transient
        self.no_space = no_space


class NoStudy(StoreError):
    """There is no study of that name; the message lists those there are."""

    exit_code = 2


class NoRoom(StoreError):
    """The disk is full, and nothing more can be removed from it; the message says where."""

    def __init__(self, message: str) -> None:
        super().__init__(message, no_space=True)


class WorkersError(SweeperError):
    """The workers cannot be started, or do not answer."""


class TrackingError(SweeperError):
    """MLflow cannot be used."""
