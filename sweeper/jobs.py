"""The jobs of a Ray cluster: how a study gets a process there that goes on when this terminal is closed."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from sweeper.errors import WorkersError
from sweeper.pulse import knock
from sweeper.settings import without_password

ENDED = ("STOPPED", "SUCCEEDED", "FAILED")
"""What Ray calls a job of which nothing runs any more."""
TOKEN = Path("~/.ray/auth_token")
"""Where Ray keeps the token of a cluster that asks for one."""


@dataclass(frozen=True)
class JobState:
    """What Ray says of a job."""

    status: str
    """PENDING, RUNNING, or one of `ENDED`."""
    message: str

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


class Jobs(Protocol):
    """The job server of a cluster."""

    @property
    def address(self) -> str:
        """Its URL, without a password."""

    def submit(
        self, job: str, command: str, *, folder: Path, env: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """Have a shell on the head run ``command``, in a copy of ``folder`` that all nodes get."""

    def find(self, job: str) -> JobState | None:
        """What is known of a job; ``None`` if this cluster never had it."""

    def output(self, job: str) -> str:
        """All that a job has printed so far."""

    def follow(self, job: str) -> Iterator[str]:
        """What a job has printed and prints, as it comes, until it ends."""


class RayJobs:
    """The job server of the Ray at an address.

    Args:
        address: of its GCS (`HOST:PORT`), of its job server (`http://HOST:8265`), of a Ray client server
            (`ray://HOST:10001`), or `auto`. As Ray has it, what the environment says in RAY_API_SERVER_ADDRESS or
            RAY_ADDRESS goes before.

    Raises:
        WorkersError: nothing answers there, or not to us; so for all of its methods.
    """

    def __init__(self, address: str) -> None:
        self._asked = without_password(address)
        refusal = knock(_host_and_port(address))
        if refusal is not None:
            name = "RAY_API_SERVER_ADDRESS" if os.environ.get("RAY_API_SERVER_ADDRESS") else "RAY_ADDRESS"
            raise WorkersError(f"no Ray cluster answers at {self._asked} ({refusal}); start it, or correct {name}")
        # Where one lies, a head that `ray start` began asks for it.
        if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN.expanduser().exists():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        with self._told_in_a_line():
            from ray.dashboard.utils import get_address_for_submission_client
            from ray.job_submission import JobSubmissionClient

            for handler in logging.getLogger("ray").handlers:
                handler.setLevel(logging.ERROR)
            url = get_address_for_submission_client(address)
            refusal = knock(_host_and_port(url))
            if refusal is not None:
                raise WorkersError(
                    f"the Ray cluster at {self._asked} has its job server at {url}, where nothing answers from here "
                    f"({refusal}); start the head with --dashboard-host 0.0.0.0, or say RAY_API_SERVER_ADDRESS"
                )
            self._client = JobSubmissionClient(url)
        self.address: str = without_password(url)

    def submit(
        self, job: str, command: str, *, folder: Path, env: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        with self._told_in_a_line():
            self._client.submit_job(
                entrypoint=command,
                submission_id=job,
                runtime_env={"working_dir": str(folder), "env_vars": dict(env)},
                metadata=dict(metadata),
            )

    def find(self, job: str) -> JobState | None:
        with self._told_in_a_line():
            try:
                known = self._client.get_job_info(job)
            except RuntimeError as error:
                if "does not exist" in str(error):
                    return None
                raise
        return JobState(str(known.status), known.message or "")

    def output(self, job: str) -> str:
        with self._told_in_a_line():
            return str(self._client.get_job_logs(job))

    def follow(self, job: str) -> Iterator[str]:
        parts = self._client.tail_job_logs(job)

        async def next_part() -> str | None:
            return await anext(parts, None)

        # It ends what is under way on ctrl-C, too.
        with self._told_in_a_line(), asyncio.Runner() as runner:
            while (part := runner.run(next_part())) is not None:
                yield part

    @contextmanager
    def _told_in_a_line(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError, ValueError, ImportError, _ray_error()) as error:
            cause = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise WorkersError(f"the job server of the Ray at {self._asked}: {without_password(cause)}") from error


def _ray_error() -> type[Exception]:
    from ray.exceptions import RayError

    error: type[Exception] = RayError
    return error


def _host_and_port(address: str) -> str:
    """What `knock` takes; `auto` stays `auto`."""
    if "://" not in address:
        return address
    url = urlsplit(address)
    ports = {"http": 80, "https": 443}
    return f"{url.hostname}:{url.port or ports.get(url.scheme, '')}"
