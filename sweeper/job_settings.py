"""Which settings go with a detached study, and which are the cluster's own.

Ray shows what a job is given to whoever opens its dashboard, and hands it to all nodes. So of what is set where a study
is detached, that is sent which holds no secret and means the same elsewhere; all the rest is as it is set where Ray was
started. Whether both mean one database the job finds out by itself.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from sweeper.errors import StudyError
from sweeper.settings import Settings, without_password

SENT = (
    "SWEEPER_STORE",
    "SWEEPER_DATA",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_TRACKING_USERNAME",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_REGION",
)
"""What is sent where it is set, beside the places of `Settings`."""
SECRET = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD",
)
"""What is a secret as a whole."""
STOP_SECONDS = 30
"""How long Ray waits for a job that it was told to stop, before it kills it; by default 3 s, in which trials on other
nodes could not save what they are at."""

_HERE = re.compile(r"sqlite|file:|[a-z+0-9]+://([^/@]*@)?(localhost|127\.\d+\.\d+\.\d+|\[::1\])?([:/?]|$)")


@dataclass(frozen=True)
class JobSettings:
    """What a job is told, and what it is not."""

    sent: dict[str, str]
    kept: dict[str, str] = field(default_factory=dict)
    """Variables that are set here and not sent, with the reason."""

    @property
    def line(self) -> str:
        """What the cluster has to say by itself, in one line; empty if that is nothing."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.kept.items():
            reasons.setdefault(reason, []).append(name)
        told = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
        return f"not sent, and taken from where Ray was started: {told}" if told else ""


def cluster_address(environ: Mapping[str, str]) -> str:
    """What was said of the cluster, in Ray's own order.

    Raises:
        StudyError: nothing was.
    """
    address = environ.get("RAY_API_SERVER_ADDRESS") or environ.get("RAY_ADDRESS")
    if not address:
        raise StudyError(
            "RAY_ADDRESS: not set, expected the address of the Ray cluster that runs the study (HOST:6379), or "
            "RAY_API_SERVER_ADDRESS=http://HOST:8265, that of its job server"
        )
    return address


def is_here(address: str) -> bool:
    """Whether an address of a Ray is one of this machine.

    >>> is_here("auto"), is_here("127.0.0.1:6379"), is_here("http://localhost:8265"), is_here("ray://192.0.2.77:10001")
    (True, True, True, False)
    """
    if address in ("auto", "local"):
        return True
    host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    try:
        found = {str(known[4][0]) for known in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    ours = {known.address for addresses in psutil.net_if_addrs().values() for known in addresses}
    return bool(found & ours)


def job_settings(settings: Settings, environ: Mapping[str, str], *, here: bool) -> JobSettings:
    """What to tell a job of the settings of whoever submits it.

    Args:
        settings: of whoever submits it.
        environ: the environment they are from.
        here: whether the job will run on this machine, where every path and address means the same.

    Raises:
        StudyError: the database is a file of this machine, and the job elsewhere.
    """
    if not here and settings.database_url.startswith("sqlite"):
        raise StudyError(
            f"SWEEPER_DATABASE_URL: found {settings.database_url}, a file of this machine, expected postgresql://...: "
            "the study will run on another one"
        )
    places = {
        "SWEEPER_HOME": str(settings.home),
        "SWEEPER_DATABASE_URL": settings.database_url,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
    }
    # What nobody has said follows from the home, here; elsewhere it is the cluster's affair.
    has_home = settings.home != Path(".sweeper").resolve()
    said = {n: value for n, value in places.items() if here or environ.get(n) or (n == "SWEEPER_HOME" and has_home)}
    said |= {name: environ[name] for name in SENT if environ.get(name)}
    kept = {name: "a secret" for name in SECRET if environ.get(name)}
    for name, value in list(said.items()):
        if without_password(value) != value:
            kept[name] = "it holds a secret"
        elif not here and _HERE.match(value):
            kept[name] = "it names this machine"
    sent = {name: value for name, value in said.items() if name not in kept}
    return JobSettings({**sent, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}, kept)
