"""Which faults of a database pass by themselves, and which are a full disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator

TRANSIENT_SIGNS = (
    "database is locked",
    "database table is locked",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "Is the server running",
    "No route to host",
    "Network is unreachable",
    "Temporary failure in name resolution",
    "timeout expired",
    "the database system is",  # starting up, shutting down, in recovery mode, not yet accepting connections
    "terminating connection",
    "server closed the connection",
    "SSL connection has been closed",
    "connection is lost",
    "connection is closed",
    "consuming input failed",
    "could not receive data from server",
    "could not send data to server",
)
"""Phrases of SQLite, libpq and psycopg. What a client finds out by itself comes without a code."""

TRANSIENT_CODES = (
    "08",  # connection exceptions
    "25P03",  # a transaction that was idle for too long was ended
    "40001",  # serialization failure
    "40P01",  # deadlock: the other one was let through
    "53300",  # too many connections
    "55P03",  # a lock was not to be had in time
    "57",  # a statement cancelled, the server shut down, crashed or not ready yet
)
"""How PostgreSQL's own codes begin (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


def is_transient(error: BaseException) -> bool:
    """Whether the same call may work in a while, with nobody mending anything."""
    return any(
        getattr(cause, "connection_invalidated", False)
        or str(getattr(cause, "sqlstate", None) or "").startswith(TRANSIENT_CODES)
        or any(sign in str(cause) for sign in TRANSIENT_SIGNS)
        for cause in _causes(error)
    )


def is_no_space(error: BaseException) -> bool:
    """Whether the disk below the database is full."""
    return any(
        getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or getattr(cause, "sqlstate", None) == "53100"
        or "disk is full" in str(cause)
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from: Optuna wraps SQLAlchemy's errors, which wrap the driver's."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
