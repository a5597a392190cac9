"""A study that is submitted as a job: what is checked before, what goes with it, what is said of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from fake_jobs import FakeJobs, Submitted
from rich.console import Console

from sweeper import detached, lease
from sweeper import start as start_module
from sweeper.catalog import Catalog, StudyRow
from sweeper.detached import detach, next_job, run_submitted
from sweeper.errors import StoreError, StudyError, StudyHeld, WorkersError
from sweeper.interrupt import STOPPED
from sweeper.jobs import JobState
from sweeper.provenance import versions
from sweeper.settings import Settings, load_settings
from sweeper.study import Study, load_study

HERE = {"RAY_ADDRESS": "127.0.0.1:6379"}
VERSION = versions()["sweeper"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached, "LOOK_SECONDS", 0.001)


@pytest.fixture
def study(home: Path, write_study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study whose model is built by a module beside it, seen from another folder."""
    file = write_study()
    file.write_text(file.read_text().replace("build: linear", "build: my_far_task:net"))
    (file.parent / "my_far_task.py").write_text("def net(num_classes): ...\n")
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    return load_study(file)


@pytest.fixture
def jobs(home: Path) -> FakeJobs:
    """A cluster where a job takes the study as soon as it is submitted."""

    def takes_it(submitted: Submitted) -> str:
        _own(load_settings(), owner="the job's", job=submitted.job, owner_host="head", owner_pid=7)
        return "RUNNING"

    return FakeJobs(begins=takes_it)


def _own(settings: Settings, name: str = "small", owner: str | None = "x", **columns: object) -> None:
    with closing(Catalog(settings.database_url)) as catalog:
        row = catalog.study(name)
        assert catalog.swap_owner(row.id, expected=row.owner, owner=owner, **columns)


def _row(name: str = "small") -> StudyRow:
    with closing(Catalog(load_settings().database_url)) as catalog:
        return catalog.study(name)


def _detach(study: Study, jobs: FakeJobs, **said: object) -> tuple[int, list[str]]:
    out = io.StringIO()
    patience = {"environ": HERE, "open_jobs": lambda _: jobs, "patience_seconds": 5.0}
    code = detach(study, load_settings(), Console(file=out, width=400), **patience | said)  # type: ignore[arg-type]
    return code, out.getvalue().splitlines()


def test_a_job_is_submitted_with_all_that_it_needs(study: Study, jobs: FakeJobs, home: Path) -> None:
    code, said = _detach(study, jobs)
    assert code == 0
    assert said == [
        "study 'small' was submitted to the Ray at http://head:8265 as job sweeper-small-1",
        "it runs on head, and goes on when this terminal is closed; follow it with: sweeper logs small -f",
    ]
    (job,) = jobs.submitted
    assert job.command == f"exec sweeper start {home}/study.yaml --submitted"
    assert job.files == {"study.yaml": study.text, "my_far_task.py": "def net(num_classes): ...\n"}
    assert job.env["SWEEPER_HOME"] == str(home)
    assert job.metadata["study"] == "small"
    assert job.metadata["sweeper"] == VERSION
    assert job.metadata["import_paths"] == f"{home}:{home}/elsewhere"
    row = _row()
    assert (row.job, row.job_address, row.file) == ("sweeper-small-1", "http://head:8265", f"{home}/study.yaml")


def test_modules_that_are_not_here_are_named(study: Study, jobs: FakeJobs) -> None:
    """As where a study is resumed on a machine that has seen nothing of it but the database."""
    (study.path.parent / "my_far_task.py").unlink()
    said = _detach(study, jobs)[1]
    assert said[1] == "not sent, since not here: my_far_task; the nodes have to have what is called so"
    assert jobs.submitted[0].files.keys() == {"study.yaml"}


def test_one_that_runs_is_not_submitted_again_and_says_where_it_is(study: Study, jobs: FakeJobs) -> None:
    _detach(study, jobs)
    with pytest.raises(
        StudyHeld,
        match=r"^study 'small' runs already: Ray job sweeper-small-1 at http://head:8265 \(running\); see: sweeper",
    ):
        _detach(study, jobs)
    assert len(jobs.submitted) == 1


def test_one_that_waits_to_begin_counts_as_running(study: Study, jobs: FakeJobs) -> None:
    jobs.begins = lambda _: "PENDING"
    code, said = _detach(study, jobs, patience_seconds=0.0)
    assert code == 0
    assert said[1].startswith("it has not begun after 0 s, and stays submitted; follow it with: sweeper logs small -f")
    with pytest.raises(StudyHeld, match=r"\(pending\)"):
        _detach(study, jobs)


def test_of_two_that_submit_it_at_once_one_does(study: Study, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other has read the study, when the first one notes its job."""
    other, look = FakeJobs(), detached.next_job

    def after_the_first(row: StudyRow, asked: FakeJobs) -> str:
        if asked is other:
            _detach(study, jobs)
            _own(load_settings(), owner=None)
        return look(row, asked)

    monkeypatch.setattr(detached, "next_job", after_the_first)
    with pytest.raises(StudyHeld, match=r"^study 'small' was begun by somebody else just now; see: sweeper top small"):
        _detach(study, other)
    assert (len(jobs.submitted), len(other.submitted)) == (1, 0)


def test_one_that_runs_in_a_terminal_is_left_there(study: Study, jobs: FakeJobs) -> None:
    _detach(study, jobs)
    with closing(Catalog(load_settings().database_url)) as catalog:
        _own(load_settings(), owner=None)
        with lease.Lease(catalog, "small"), pytest.raises(StudyHeld, match=r"is run by process \d+ on \S+ since"):
            _detach(study, jobs)


def test_after_the_loss_of_the_head_a_new_one_goes_on(study: Study, jobs: FakeJobs) -> None:
    """Its last owner still seems to live: a moment ago its heart beat on a machine that is gone."""
    _detach(study, jobs)
    _own(load_settings(), owner="the job's", owner_machine="gone", heartbeat_at=lease.Clock().now())
    assert lease.is_held(_row())
    jobs.states.clear()
    code, said = _detach(study, jobs)
    assert (code, _row().job) == (0, "sweeper-small-2")
    assert said[0].endswith("as job sweeper-small-2")


def test_names_that_the_cluster_has_had_are_not_used_again(study: Study, jobs: FakeJobs) -> None:
    """The study was removed, and begun anew under its old name."""
    jobs.states = {f"sweeper-small-{number}": JobState("SUCCEEDED", "") for number in (1, 2)}
    _detach(study, jobs)
    assert _row().job == "sweeper-small-3" == jobs.submitted[0].job
    assert next_job(_row(), jobs) == "sweeper-small-4"


@pytest.mark.parametrize(
    ("printed", "message", "told"),
    [
        ("Running entrypoint\nerror: SWEEPER_HOME: set neither\nbye\n", "", "SWEEPER_HOME: set neither"),
        (
            "/bin/sh: 1: exec: sweeper: not found\n",
            "",
            "/bin/sh: 1: exec: sweeper: not found; expected sweeper on the PATH where Ray was started on the head",
        ),
        ("Traceback\nKeyError: 'x'\n", "", "KeyError: 'x'"),
        (
            "",
            "Job failed:\nruntime_env setup failed at postgresql://a:b@c",
            "runtime_env setup failed at postgresql://a:***@c",
        ),
        ("", "", "FAILED"),
    ],
)
def test_a_job_that_ends_at_once_says_why(study: Study, jobs: FakeJobs, printed: str, message: str, told: str) -> None:
    jobs.begins = lambda _: "FAILED"
    jobs.printed["sweeper-small-1"] = printed

    class Talking(FakeJobs):
        def find(self, job: str) -> JobState | None:
            known = super().find(job)
            return known and JobState(known.status, message)

    talking = Talking(begins=jobs.begins, printed=jobs.printed)
    with pytest.raises(WorkersError) as caught:
        _detach(study, talking)
    assert str(caught.value) == f"Ray job sweeper-small-1 ended before it had the study: {told}"


def test_a_study_that_ended_meanwhile_is_no_error(study: Study, jobs: FakeJobs) -> None:
    jobs.begins = lambda _: "SUCCEEDED"
    assert _detach(study, jobs)[1][1] == "it has ended already; follow it with: sweeper logs small -f"


def test_a_finished_study_is_not_submitted(study: Study, jobs: FakeJobs) -> None:
    _detach(study, jobs)
    with closing(Catalog(load_settings().database_url)) as catalog:
        catalog.set_study(catalog.study("small").id, state="finished", owner=None)
    assert _detach(study, jobs) == (0, ["study 'small' is finished; nothing to start"])
    assert len(jobs.submitted) == 1


def test_a_different_file_is_refused_before_anything_is_submitted(study: Study, jobs: FakeJobs) -> None:
    _detach(study, jobs)
    with closing(Catalog(load_settings().database_url)) as catalog:
        trial = catalog.add_trial(catalog.study("small").id, 0, params={}, recipe={})
        catalog.end_trial(trial.id, "pruned")
    other = load_study(study.path, study.text.replace("epochs: 4", "epochs: 5"))
    jobs.states.clear()
    with pytest.raises(StudyError, match="a study named 'small' was started from a different file"):
        _detach(other, jobs)
    assert len(jobs.submitted) == 1


def test_without_a_cluster_nothing_is_looked_up(study: Study, home: Path) -> None:
    with pytest.raises(StudyError, match="RAY_ADDRESS: not set"):
        _detach(study, FakeJobs(), environ={})
    with pytest.raises(StudyError, match="a file of this machine, expected postgresql"):
        _detach(study, FakeJobs(), environ={"RAY_ADDRESS": "198.51.100.7:6379"})
    assert not (home / "sweeper.db").exists()


def _in_job(monkeypatch: pytest.MonkeyPatch, folder: Path, study: Study, **told: str) -> None:
    """The surroundings of a submitted job."""
    (folder / "study.yaml").write_text(study.text)
    monkeypatch.chdir(folder)
    said = {
        "study": "small",
        "sweeper": VERSION,
        "job_submission_id": "sweeper-small-1",
        "import_paths": "/a:/b",
    } | told
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": said}))


def _run(study: Study) -> int:
    return run_submitted(study.path, load_settings(), Console(file=io.StringIO(), width=400))


def test_the_job_is_the_study_of_whoever_submitted_it(
    study: Study, jobs: FakeJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _detach(study, jobs)
    _own(load_settings(), owner=None)
    (tmp_path / "job").mkdir()
    _in_job(monkeypatch, tmp_path / "job", study)
    study.path.write_text("mended after it was submitted: no study at all")
    began: list[tuple[Path, str | None]] = []

    def start(path: Path, settings: Settings, console: Console, *, text: str | None) -> int:
        began.append((path, text))
        return 7

    monkeypatch.setattr(detached, "start", start)
    assert _run(study) == 7
    assert began == [(study.path, study.text)]


def test_the_record_of_a_submitted_study_is_that_of_its_submission(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeper.start import said

    (tmp_path / "job").mkdir()
    _in_job(monkeypatch, tmp_path / "job", study)
    assert said(study)["import_paths"] == ["/a", "/b"]
    assert said(study)["file"] == str(study.path)


def test_a_job_that_was_stopped_has_not_failed(study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Elsewhere than in a job it ends with the exit code of ctrl-C."""
    monkeypatch.setattr(start_module, "carry_out", lambda call, lease: STOPPED)
    console = Console(file=io.StringIO(), width=400)
    assert start_module.start(study.path, load_settings(), console) == STOPPED
    (tmp_path / "job").mkdir()
    _in_job(monkeypatch, tmp_path / "job", study)
    assert start_module.start(study.path, load_settings(), console) == 0


def test_a_job_of_another_sweeper_database_or_home_says_so(
    study: Study, jobs: FakeJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _detach(study, jobs)
    (tmp_path / "job").mkdir()
    _in_job(monkeypatch, tmp_path / "job", study, sweeper="0.0.7")
    with pytest.raises(
        WorkersError, match=r"^this cluster has sweeper \S+, and the study was submitted by sweeper 0\.0\.7"
    ):
        _run(study)
    _in_job(monkeypatch, tmp_path / "job", study, job_submission_id="sweeper-small-9")
    with pytest.raises(StoreError, match=r"is not the database of whoever submitted job sweeper-small-9; set the same"):
        _run(study)
    _in_job(monkeypatch, tmp_path / "job", study)
    monkeypatch.setenv("SWEEPER_DATABASE_URL", f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(StoreError, match=r"none\.db, seen from the cluster, is not the database"):
        _run(study)
    monkeypatch.delenv("SWEEPER_HOME")
    with pytest.raises(StudyError, match=r"^SWEEPER_HOME: set neither where the study was submitted nor where Ray"):
        _run(study)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    with pytest.raises(StudyError, match=r"^--submitted: found no Ray job around it"):
        _run(study)
