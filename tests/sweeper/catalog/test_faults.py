from __future__ import annotations

import errno

import pytest

from sweeper.catalog.faults import is_no_space, is_transient


class FromServer(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__("in the server's language")
        self.sqlstate = sqlstate


PASSES = [
    'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused',
    'connection to server on socket "/a" failed: No such file or directory\n\tIs the server running locally?',
    "FATAL:  the database system is starting up",
    "FATAL:  the database system is shutting down",
    "FATAL:  the database system is not yet accepting connections",
    "terminating connection due to administrator command",
    "server closed the connection unexpectedly",
    "connection timeout expired",
    "database is locked",
]
STAYS = [
    'FATAL:  password authentication failed for user "ada"',
    'FATAL:  database "sweeper" does not exist',
    "file is not a database",
    "UNIQUE constraint failed: sweeper_epochs.trial_id",
    "database or disk is full",
]


@pytest.mark.parametrize("message", PASSES)
def test_what_passes_by_itself(message: str) -> None:
    assert is_transient(Exception(message))


@pytest.mark.parametrize("message", STAYS)
def test_what_somebody_has_to_mend(message: str) -> None:
    assert not is_transient(Exception(message))


def test_the_servers_own_codes() -> None:
    passing = [
        code
        for code in ("08006", "57P01", "40P01", "53300", "23505", "42P01", "53100")
        if is_transient(FromServer(code))
    ]
    assert passing == ["08006", "57P01", "40P01", "53300"]
    assert is_no_space(FromServer("53100"))
    assert not is_no_space(FromServer("53300"))


def test_a_full_disk() -> None:
    assert is_no_space(OSError(errno.ENOSPC, "No space left on device"))
    assert is_no_space(Exception("database or disk is full"))
    assert not is_no_space(OSError(errno.EACCES, "Permission denied"))


def test_the_cause_counts_below_whatever_wraps_it() -> None:
    wrapped = ValueError("An exception is raised during the commit")
    wrapped.__cause__ = RuntimeError("(psycopg.OperationalError)")
    wrapped.__cause__.__cause__ = FromServer("57P03")
    assert is_transient(wrapped)
