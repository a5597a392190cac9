"""`sweeper start --detach`: a study whose orchestrator is a job of the Ray cluster, so that the terminal may close.

Whoever detaches checks all that can be checked here, writes into the catalog under which name the job will be found,
and submits it with the study file and the modules beside it. The job is `sweeper start` again (`run_submitted`), on the
head of the cluster: it makes sure that it is the same sweeper over the same database, and takes the study's lease.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from rich.console import Console

from sweeper.catalog import Catalog, StudyRow
from sweeper.control import say
from sweeper.errors import StoreError, StudyError, StudyHeld, WorkersError
from sweeper.job_settings import cluster_address, is_here, job_settings
from sweeper.jobs import Jobs, JobState, RayJobs
from sweeper.lease import held, is_held
from sweeper.own_modules import absent_modules, named_modules, own_modules
from sweeper.provenance import git_state, ray_job, user, versions
from sweeper.settings import Settings, without_password
from sweeper.show import command
from sweeper.start import check_same, said, start
from sweeper.study import Study

PATIENCE_SECONDS = 180.0
"""How long a job may take to begin: a node may have to come up for it, or the lease of a dead one to run out."""
LOOK_SECONDS = 0.5
STUDY_FILE = "study.yaml"
"""What the study file is called where the job begins."""


def detach(
    study: Study,
    settings: Settings,
    console: Console,
    *,
    environ: Mapping[str, str] = os.environ,
    open_jobs: Callable[[str], Jobs] = RayJobs,
    patience_seconds: float = PATIENCE_SECONDS,
) -> int:
    """Have the Ray cluster run a study, or go on with it; returns with the exit code once it runs there.

    Args:
        study: as its file has it.
        settings: where things live, seen from here.
        console: where to say what comes of it.
        environ: where the cluster and the settings to send are looked up.
        open_jobs: the job server at an address.
        patience_seconds: how long to wait for the job to begin; it stays submitted.

    Raises:
        StudyError: no cluster is named, the study cannot be run elsewhere, or its file is not that of the study.
        StudyHeld: it is run already; the message says where.
        StoreError: the database cannot be used.
        WorkersError: the cluster does not answer, or the job ended before it had the study.
    """
    asked = cluster_address(environ)
    given = job_settings(settings, environ, here=is_here(asked))
    named = named_modules(study.space)
    modules = own_modules(named, [study.path.parent, Path.cwd()])
    with closing(Catalog(settings.database_url)) as catalog:
        row = catalog.add_study(study.name, **said(study))
        check_same(catalog, row, study, settings)
        if row.state == "finished":
            say(console, f"study {study.name!r} is finished; nothing to start")
            return 0
        jobs = open_jobs(asked)
        _check_free(row, jobs)
        job, metadata = next_job(row, jobs), _metadata(study, jobs.address)
        if not catalog.set_job(row, job, jobs.address):
            raise StudyHeld(f"study {study.name!r} was begun by somebody else just now; see: sweeper top {study.name}")
        with tempfile.TemporaryDirectory(prefix="sweeper-job-") as folder:
            _fill(Path(folder), study, modules)
            jobs.submit(
                job,
                shlex.join(["exec", "sweeper", "start", str(study.path), "--submitted"]),
                folder=Path(folder),
                env=given.sent,
                metadata=metadata,
            )
        say(console, f"study {study.name!r} was submitted to the Ray at {jobs.address} as job {job}")
        if absent := absent_modules(named, modules):
            say(console, f"not sent, since not here: {', '.join(absent)}; the nodes have to have what is called so")
        if given.line:
            say(console, given.line)
        return _wait(catalog, row, jobs, job, settings, console, patience_seconds)


def run_submitted(path: Path, settings: Settings, console: Console) -> int:
    """What the job does: run the study that was submitted with it; returns the exit code.

    Args:
        path: where the study file was when it was submitted; what it said then lies in the working folder.
        settings: where things live, seen from the cluster.
        console: where to show progress.

    Raises:
        WorkersError: the cluster has another sweeper.
        StudyError: nobody says where the cluster keeps its files.
        StoreError: it uses another database.
        SweeperError: whatever `sweeper.start.start` raises.
    """
    told, file = ray_job(), Path(STUDY_FILE)
    if "sweeper" not in told or not file.is_file():
        raise StudyError("--submitted: found no Ray job around it, expected what `sweeper start --detach` submits")
    if told["sweeper"] != _version():
        raise WorkersError(
            f"this cluster has sweeper {_version()}, and the study was submitted by sweeper "
            f"{told['sweeper']}; install the same on both"
        )
    if not os.environ.get("SWEEPER_HOME"):
        raise StudyError(
            "SWEEPER_HOME: set neither where the study was submitted nor where Ray was started, expected a folder that "
            "all nodes share"
        )
    _check_database(settings, told["study"], told["job_submission_id"])
    return start(path, settings, console, text=file.read_text(encoding="utf-8"))


def next_job(row: StudyRow, jobs: Jobs) -> str:
    """The name of the next job of a study: `sweeper-digits-2` after `sweeper-digits-1`, unless the cluster had that."""
    prefix = f"sweeper-{row.name}-"
    last = (row.job or "").removeprefix(prefix)
    number = int(last) + 1 if last.isdigit() else 1
    while jobs.find(f"{prefix}{number}") is not None:
        number += 1
    return f"{prefix}{number}"


def _check_free(row: StudyRow, jobs: Jobs) -> None:
    """Raise StudyHeld if the study is run somewhere, or about to be."""
    if row.job is not None and row.job_address == jobs.address:
        known = jobs.find(row.job)
        if known is not None and not known.has_ended:
            raise StudyHeld(
                f"study {row.name!r} runs already: Ray job {row.job} at {jobs.address} ({known.status.lower()}); "
                f"see: sweeper logs {row.name}"
            )
        # Its job has ended. If it still seems to be held, that is by a dead process, whose lease the new job watches.
        return
    if is_held(row):
        raise held(row)


def _check_database(settings: Settings, name: str, job: str) -> None:
    with closing(Catalog(settings.database_url, create=False)) as catalog:
        row = catalog.find_study(name)
        if row is None or row.job != job:
            raise StoreError(
                f"SWEEPER_DATABASE_URL: {catalog.place}, seen from the cluster, is not the database of whoever "
                f"submitted job {job}; set the same where Ray is started (one with a password is not sent)"
            )


def _fill(folder: Path, study: Study, modules: Mapping[str, Path]) -> None:
    (folder / STUDY_FILE).write_text(study.text, encoding="utf-8")
    for below, file in modules.items():
        (folder / below).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / below)


def _metadata(study: Study, address: str) -> dict[str, str]:
    """What is said of the job, for all to see."""
    return {
        "study": study.name,
        "sweeper": _version(),
        "job_address": address,
        "import_paths": os.pathsep.join(said(study)["import_paths"]),
        "mlflow.user": user(),
        **git_state(study.path.parent),
    }


def _version() -> str:
    return versions().get("sweeper", "of no known version")


def _wait(
    catalog: Catalog,
    before: StudyRow,
    jobs: Jobs,
    job: str,
    settings: Settings,
    console: Console,
    patience_seconds: float,
) -> int:
    """Until the job has the study, or has ended, or takes too long."""
    follow = f"follow it with: {command(settings, 'logs', before.name, '-f')}"
    until = time.monotonic() + patience_seconds
    while time.monotonic() < until:
        row, known = catalog.study(before.name), jobs.find(job)
        if row.job == job and row.owner not in (None, before.owner):
            say(console, f"it runs on {row.owner_host}, and goes on when this terminal is closed; {follow}")
            return 0
        if known is None or known.has_ended:
            if known is not None and known.status == "SUCCEEDED":
                say(console, f"it has ended already; {follow}")
                return 0
            raise WorkersError(f"Ray job {job} ended before it had the study: {_last_words(jobs, job, known)}")
        time.sleep(LOOK_SECONDS)
    say(console, f"it has not begun after {patience_seconds:.0f} s, and stays submitted; {follow}")
    return 0


def _last_words(jobs: Jobs, job: str, known: JobState | None) -> str:
    """Why a job ended, in one line: the error that it told, else its last line, else what Ray says."""
    if known is None:
        return "the cluster does not know it any more"
    lines = [line for line in jobs.output(job).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error: ")] or lines or known.message.splitlines()
    last = without_password((told or [known.status])[-1]).removeprefix("error: ")
    if "sweeper" in last and "not found" in last:
        return f"{last}; expected sweeper on the PATH where Ray was started on the head"
    return last
