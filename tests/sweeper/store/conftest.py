"""A real S3 on the loopback."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from s3_server import S3Server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One for all tests; whoever stops it, or has it fail, makes it well again."""
    server = S3Server()
    yield server
    server.stop()


_buckets = itertools.count()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server, which this process finds by its environment; it answers."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.requests.clear()
    yield s3_server
    s3_server.answer = lambda _method, _path: None
    s3_server.knows_conditions = True


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """An empty bucket."""
    return s3.make_bucket(f"bucket-{next(_buckets)}")
