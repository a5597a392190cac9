"""Where things live: environment variables and their defaults.

| variable                | default                            | what it is                                 |
|-------------------------|------------------------------------|--------------------------------------------|
| `SWEEPER_HOME`          | `./.sweeper`                       | folder of all state; `--home` overrides it |
| `SWEEPER_DATABASE_URL`  | `sqlite:///$SWEEPER_HOME/sweeper.db` | catalog and Optuna's storage             |
| `MLFLOW_TRACKING_URI`   | `sqlite:///$SWEEPER_HOME/mlflow.db`  | where runs and models are logged         |
| `SWEEPER_STORE`         | the home itself                    | where files are kept, as s3://bucket/x     |
| `RAY_ADDRESS`           | a Ray of our own                   | the cluster whose workers train            |
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

TRACKING_SERVERS = ("http", "https", "databricks", "uc")
"""What the URI of a tracking server begins with."""


_SECRETS = (
    # Up to the last @ before the path: a password may hold one, though none should.
    (re.compile(r"(://[^\s:/@]*):[^\s@]*@(?:[^\s/@]*@)*"), r"\1:***@"),
    (re.compile(r"(https?://)[^\s:/@]+@"), r"\1***@"),
    (
        re.compile(
            r"(\b[\w.-]*(?:password|passwd|token|secret|signature|credential|api_?key)[\w.-]*=|[?&](?:sig|key|pwd)=)"
            r"[^&\s'\"]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
)
"""Where a URL holds a secret, and what is shown of that place."""


@dataclass(frozen=True)
class Settings:
    """The resolved places of one installation."""

    home: Path
    database_url: str
    tracking_uri: str
    ray_address: str | None
    store: str = ""
    """The address of the store that has the files of studies; empty: the home has them."""

    @property
    def artifacts(self) -> Path:
        """Where MLflow keeps files when it runs without a server."""
        return self.home / "mlartifacts"

    @property
    def tracking_is_local(self) -> bool:
        """Whether runs go straight to a database or folder, which shows nothing by itself, instead of to a server."""
        return re.split("[:-]", self.tracking_uri, maxsplit=1)[0].lower() not in TRACKING_SERVERS

    @property
    def tracking_file(self) -> Path | None:
        """The database file that MLflow keeps its runs in; ``None`` if they are elsewhere."""
        found = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", self.tracking_uri)
        return None if found is None else Path(found[1])


def load_settings(home: Path | None = None) -> Settings:
    """Read the environment once; ``home`` is what ``--home`` said."""
    chosen = home or Path(os.environ.get("SWEEPER_HOME") or ".sweeper")
    folder = chosen.expanduser().resolve()
    return Settings(
        home=folder,
        database_url=_psycopg(os.environ.get("SWEEPER_DATABASE_URL") or f"sqlite:///{folder / 'sweeper.db'}"),
        tracking_uri=_psycopg(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"),
        ray_address=os.environ.get("RAY_ADDRESS") or None,
        store=os.environ.get("SWEEPER_STORE", "").rstrip("/"),
    )


def without_password(text: str) -> str:
    """A URL, or words that quote some, as it may be shown and logged.

    >>> without_password("postgresql://ada:secret@db/sweeper")
    'postgresql://ada:***@db/sweeper'
    >>> without_password("https://token@host/?api_key=secret")
    'https://***@host/?api_key=***'
    """
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def _psycopg(url: str) -> str:
    # SQLAlchemy 2.0 reads a bare `postgresql://` as psycopg2 and 2.1 as psycopg 3, the one we depend on.
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
