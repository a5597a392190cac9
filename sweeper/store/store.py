"""A store that is away for a while is tried again; what stays wrong is one line."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sweeper.errors import StoreError
from sweeper.settings import without_password
from sweeper.store.address import VARIABLE
from sweeper.store.objects import Objects, open_objects
from trials.errors import NoSpace
from trials.manifest import digest, verify

T = TypeVar("T")

PATIENCE_SECONDS = 20.0
"""How long a command tries; an orchestrator then waits for the store as it does for its database."""
WORKER_PATIENCE_SECONDS = 180.0
"""How long a trial tries, which would lose what it has trained since its last checkpoint."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.25, 15.0
_FINAL_ERRNO = {
    getattr(errno, name, errno.EINVAL) for name in ("EINVAL", "EPERM", "EACCES", "EROFS", "ENOSYS", "EREMCHG")
}
_FINAL_TYPES = (PermissionError, ImportError, TypeError, ValueError, AttributeError, NotImplementedError)
_FINAL_NAMES = ("CredentialsError", "ProfileNotFound", "NoRegionError", "ParamValidationError", "TokenRetrievalError")
"""Errors of the libraries, by the ends of their names, by which no later attempt fares better."""


class Away(StoreError):
    """The store has not answered for as long as it was waited for; it may in a while."""

    def __init__(self, message: str) -> None:
        super().__init__(message, transient=True)


class Absent(StoreError):
    """There is no object of that name."""


class Taken(StoreError):
    """There is an object of that name already."""


@dataclass(frozen=True)
class Clock:
    """Where the time between two attempts comes from."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Store:
    """Objects below an address, by names with slashes.

    All methods raise `StoreError`: `Away` where the store was away for longer than ``patience_seconds``.

    Args:
        address: as `check_address` gives it.
        patience_seconds: how long it is tried, with growing waits.
        objects: where they lie.
        clock: the time.
    """

    def __init__(
        self,
        address: str,
        patience_seconds: float = PATIENCE_SECONDS,
        objects: Objects | None = None,
        clock: Clock = Clock(),
    ) -> None:
        self.address = address
        self.patience_seconds = patience_seconds
        self._objects, self._clock = objects, clock

    def read(self, name: str) -> bytes:
        """All of an object. Raises `Absent`."""
        return self._try(lambda objects: objects.read(name), name, reads=True)

    def write(self, name: str, content: bytes) -> None:
        """Put an object, in place of whatever is there."""
        self._try(lambda objects: objects.write(name, content), name)

    def create(self, name: str, content: bytes) -> None:
        """Put an object where there is none. Raises `Taken`; ``content`` must be nobody else's."""
        try:
            self._try(lambda objects: objects.create(name, content), name)
        except Taken:
            # Where only the answer was lost, the attempt before has made it.
            if self.read(name) != content:
                raise

    def send(self, path: Path, name: str) -> None:
        """Put a file as an object."""
        self._try(lambda objects: objects.send(path, name), name)

    def fetch(self, name: str, path: Path, sha256: str) -> None:
        """Write an object to a file that nobody reads yet.

        Raises:
            Absent: it is gone.
            Damaged: it is not what was put there.
            NoSpace: the disk here is full.
        """
        self._try(lambda objects: objects.fetch(name, path), name, reads=True)
        verify(path, sha256)

    def digest_of(self, name: str) -> str:
        """The SHA-256 of an object. Raises `Absent`."""
        return digest(self.read(name))

    def sizes(self, below: str) -> dict[str, int]:
        """Bytes of each object whose name begins with ``below/``."""
        return self._try(lambda objects: objects.sizes(below), below)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, as far as they are there."""
        listed = list(names)
        if listed:
            self._try(lambda objects: objects.remove(listed), listed[0])

    def _try(self, act: Callable[[Objects], T], name: str, *, reads: bool = False) -> T:
        began, wait_seconds = self._clock.monotonic(), FIRST_WAIT_SECONDS
        while True:
            try:
                if self._objects is None:
                    self._objects = open_objects(self.address)
                return act(self._objects)
            except NoSpace:
                raise
            except FileExistsError as error:
                raise Taken(f"{self.address}/{name}: is there already") from error
            except FileNotFoundError as error:
                if reads and "bucket does not exist" not in str(error):
                    raise Absent(f"{self.address}/{name}: is gone from the store") from error
                raise StoreError(
                    f"{VARIABLE}={self.address}: there is no such bucket; make it, or correct its name"
                ) from error
            except Exception as error:  # each library has errors of its own
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    raise
                passed_seconds = self._clock.monotonic() - began
                if _is_final(error):
                    raise StoreError(
                        f"{VARIABLE}={self.address}: refuses ({_cause(error)}); see to the bucket, its rights and the "
                        "credentials in this process's environment"
                    ) from error
                if passed_seconds + wait_seconds > self.patience_seconds:
                    raise Away(
                        f"{VARIABLE}={self.address}: does not answer, tried for {passed_seconds:.0f} s "
                        f"({_cause(error)})"
                    ) from error
            self._clock.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, LONGEST_WAIT_SECONDS)


def _is_final(error: Exception) -> bool:
    """Whether another attempt would end as this one did."""
    return (
        isinstance(error, _FINAL_TYPES)
        or type(error).__name__.endswith(_FINAL_NAMES)
        or (isinstance(error, OSError) and error.errno in _FINAL_ERRNO)
    )


def _cause(error: Exception) -> str:
    """An error of a library in one line, without what a URL in it may hold."""
    words = " ".join(without_password(str(error)).split())
    return f"{type(error).__name__}: {words}"[:300]
