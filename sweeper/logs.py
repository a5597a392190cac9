"""`sweeper logs`: what the orchestrator of a detached study has printed, wherever it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing

from sweeper.catalog import Catalog, StudyRow
from sweeper.errors import StudyError, WorkersError
from sweeper.job_settings import cluster_address
from sweeper.jobs import Jobs, RayJobs
from sweeper.lease import is_held
from sweeper.settings import Settings


def logs(
    name: str,
    settings: Settings,
    write: Callable[[str], object],
    *,
    follow: bool = False,
    environ: Mapping[str, str] = os.environ,
    open_jobs: Callable[[str], Jobs] = RayJobs,
) -> int:
    """Write what the newest job of a study has printed; returns the exit code.

    Args:
        name: of the study.
        settings: where things live.
        write: takes the text in pieces, line ends included.
        follow: go on until the job ends.
        environ: where another way to the cluster may be said than that of whoever submitted the job.
        open_jobs: the job server at an address.

    Raises:
        StoreError: there is no such study, or the database cannot be used.
        StudyError: it is run by no job.
        WorkersError: the cluster does not answer, or does not know the job.
    """
    with closing(Catalog(settings.database_url, create=False)) as catalog:
        study = catalog.study(name)
    if study.job is None:
        raise StudyError(f"study {name!r} is run by no Ray job: {_where(study)}; `sweeper start --detach` makes it one")
    jobs = open_jobs(_address(study, environ))
    if jobs.find(study.job) is None:
        raise WorkersError(
            f"the Ray at {jobs.address} does not know job {study.job} of study {name!r}: it is another Ray than the "
            "job's, or its head was started anew, and the output went with the one before"
        )
    if follow:
        for part in jobs.follow(study.job):
            write(part)
    else:
        write(jobs.output(study.job))
    return 0


def _address(study: StudyRow, environ: Mapping[str, str]) -> str:
    """The way to the cluster that is said here, else that of whoever submitted the job."""
    if study.job_address is not None and not (environ.get("RAY_API_SERVER_ADDRESS") or environ.get("RAY_ADDRESS")):
        return study.job_address
    return cluster_address(environ)


def _where(study: StudyRow) -> str:
    if is_held(study):
        return f"process {study.owner_pid} on {study.owner_host} prints where it was started"
    return "nobody runs it now"
