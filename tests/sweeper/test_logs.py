from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from fake_jobs import FakeJobs

from sweeper.catalog import Catalog
from sweeper.errors import StudyError, WorkersError
from sweeper.jobs import JobState
from sweeper.lease import Lease
from sweeper.logs import logs
from sweeper.settings import load_settings

JOB = "sweeper-digits-1"


@pytest.fixture
def catalog(home: Path):  # type: ignore[no-untyped-def]
    """A study that a job ran."""
    with closing(Catalog(load_settings().database_url)) as catalog:
        study = catalog.add_study("digits", digest="d", text="t", metric="validation.accuracy", trials_asked=1)
        catalog.set_study(study.id, job=JOB, job_address="http://head:8265")
        yield catalog


def _logs(jobs: FakeJobs, environ: dict[str, str] | None = None, **said: bool) -> tuple[list[str], list[str]]:
    """What was written, and which addresses were asked."""
    written: list[str] = []
    asked: list[str] = []

    def open_jobs(address: str) -> FakeJobs:
        asked.append(address)
        return jobs

    assert logs("digits", load_settings(), written.append, environ=environ or {}, open_jobs=open_jobs, **said) == 0
    return written, asked


def test_the_output_of_the_job_as_it_is(catalog: Catalog) -> None:
    jobs = FakeJobs(states={JOB: JobState("RUNNING", "")}, printed={JOB: "one\ntwo\n"})
    assert _logs(jobs) == (["one\ntwo\n"], ["http://head:8265"])
    assert _logs(jobs, follow=True)[0] == ["one\n", "two\n"]


def test_a_way_to_the_cluster_that_is_said_here_goes_before_the_submitters(catalog: Catalog) -> None:
    jobs = FakeJobs(states={JOB: JobState("RUNNING", "")}, printed={JOB: ""})
    assert _logs(jobs, {"RAY_ADDRESS": "tunnel:6379"})[1] == ["tunnel:6379"]
    catalog.set_study(catalog.study("digits").id, job_address=None)  # a RayJob of KubeRay
    with pytest.raises(StudyError, match=r"^RAY_ADDRESS: not set"):
        _logs(jobs)


def test_a_cluster_that_never_had_the_job_says_so(catalog: Catalog) -> None:
    with pytest.raises(
        WorkersError, match=rf"^the Ray at http://head:8265 does not know job {JOB} of study 'digits': it"
    ):
        _logs(FakeJobs())


def test_a_study_that_no_job_runs_has_its_output_elsewhere(catalog: Catalog) -> None:
    with (
        Lease(catalog, "digits"),
        pytest.raises(StudyError, match=r"process \d+ on \S+ prints where it was started; `sw"),
    ):
        _logs(FakeJobs())
    with pytest.raises(StudyError, match=r"^study 'digits' is run by no Ray job: nobody runs it now"):
        _logs(FakeJobs())
