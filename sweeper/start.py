"""`sweeper start`: from a study file to a published winner, or to a line that says how to go on."""

from __future__ import annotations

import difflib
import os
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeper.carry_out import Call, carry_out, deliver, remove_what_is_not_needed
from sweeper.catalog import Catalog, StudyRow
from sweeper.control import say
from sweeper.dispatch import import_paths
from sweeper.errors import StudyError
from sweeper.interrupt import STOPPED
from sweeper.lease import Lease
from sweeper.pretrained import with_fetched_models
from sweeper.provenance import git_state, host, ray_job, user, versions
from sweeper.runner import TRAIN
from sweeper.settings import Settings
from sweeper.show import command
from sweeper.store.open import open_folder
from sweeper.study import Study, load_study
from sweeper.tracking import Tracker
from sweeper.user_code import make_importable

SUBMITTED_TAGS = ("git.commit", "git.dirty", "mlflow.user")
"""What a job says of whoever submitted it, that goes with the runs of the study."""


def start(
    path: Path,
    settings: Settings,
    console: Console,
    *,
    text: str | None = None,
    in_process: bool = False,
    train: str = TRAIN,
) -> int:
    """Run the study of that file to its end, or continue it; returns the exit code.

    Args:
        path: study.yaml.
        settings: where things live.
        console: where to show progress.
        text: what the file says, where it cannot be read from here.
        in_process: train in this process, one trial at a time, without Ray.
        train: `module:function` that trains one recipe.

    Raises:
        StudyError: the file is wrong, or differs from the study of that name.
        StudyHeld: another orchestrator runs it.
        StudyFailed: no trial worked.
        NoRoom: the disk is full; the study is paused.
        StoreError: the database or the disk fails.
        WorkersError: Ray does not answer or cannot place the trials.
    """
    study = load_study(path, text)
    with closing(Catalog(settings.database_url)) as catalog:
        catalog.add_study(study.name, **said(study))
        with Lease(catalog, study.name, partial(say, console)) as lease:
            row = _same_study(catalog, study, settings)
            if row.state != "finished":
                open_folder(settings, study.name).begin(is_known=bool(catalog.trials(row.id)))
                study = with_models(study, settings)
            call = open_call(study, row, settings, catalog, console, in_process=in_process, train=train)
            if row.state != "finished":
                code = carry_out(call, lease)
                # A job that was stopped, as it was told to, has not failed: where failed jobs are begun again, it
                # would be.
                return 0 if code == STOPPED and ray_job() else code
            call.say(f"study {study.name!r} is finished; nothing to start")
            remove_what_is_not_needed(call)
            deliver(call)
            return 0


def open_call(
    study: Study, row: StudyRow, settings: Settings, catalog: Catalog, console: Console, *, in_process: bool, train: str
) -> Call:
    """All that is needed to carry out the study, whose own modules can be imported from now on."""
    # The winner is scored and registered in this process, and may be a user's own `module:function`.
    make_importable(row.import_paths)
    study = _with_trials(study, row.trials_asked)
    tracker = Tracker(settings, catalog, row, study.text, _tags(study))
    return Call(study, row, settings, catalog, tracker, console, in_process, train)


def text_of(row: StudyRow) -> str | None:
    """What its file said when it was last started, where the file itself is not to be seen from here."""
    return None if Path(row.file).exists() else row.text


def load_started(row: StudyRow, settings: Settings) -> Study:
    """The study as its file was when it was last started, wherever that is now.

    Raises:
        StudyError: a registered model that it begins from cannot be had any more.
        TrackingError: MLflow cannot be reached; it is asked only for a model that is not there yet.
    """
    study = load_study(row.file, row.text)
    return with_models(study, settings)


def with_models(study: Study, settings: Settings) -> Study:
    """The study with its registered models where its trials find them."""
    folder = open_folder(settings, study.name)
    return replace(study, space=with_fetched_models(study.space, folder, settings))


def _with_trials(study: Study, count: int) -> Study:
    return replace(study, search=study.search.model_copy(update={"trials": count}))


def said(study: Study) -> dict[str, Any]:
    """What the catalog keeps of a study file; of one that was submitted, as it was there."""
    submitted = ray_job().get("import_paths")
    folders = [study.path.parent, Path.cwd()] if submitted is None else map(Path, submitted.split(os.pathsep))
    return {
        "digest": study.digest,
        "text": study.text,
        "metric": study.search.metric,
        "trials_asked": study.search.trials,
        "file": str(study.path),
        "import_paths": list(import_paths(folders)),
    }


def _same_study(catalog: Catalog, study: Study, settings: Settings) -> StudyRow:
    """The study's row, brought up to date with the file if both say the same study.

    A study of which nothing has come is begun anew: from a new file, or from the same one after it failed, as it does
    when the data or the user's own code were not right yet.
    """
    row = catalog.study(study.name)
    check_same(catalog, row, study, settings)
    if (row.digest != study.digest or row.state == "failed") and not _has_come_to_something(catalog, row):
        from sweeper.search import forget

        open_folder(settings, study.name).clear()
        forget(study.name, settings.database_url)
        catalog.reset_study(row.id)
    else:
        # `sweeper extend --trials` may have added some, of which the file says nothing.
        study = _with_trials(study, row.trials_asked)
    catalog.set_study(row.id, **said(study))
    return catalog.study(study.name)


def check_same(catalog: Catalog, row: StudyRow, study: Study, settings: Settings) -> None:
    """Raise StudyError if a different file of that name was started, and something has come of it."""
    if row.digest != study.digest and _has_come_to_something(catalog, row):
        difference = difflib.unified_diff(
            row.text.splitlines(), study.text.splitlines(), "started before", str(study.path), lineterm="", n=1
        )
        raise StudyError(
            f"{study.path}: a study named {study.name!r} was started from a different file; give this one another "
            "name (`study:`) or start the old file; more trials and wider ranges may be added to it with: "
            + command(settings, "extend", study.name, "--file", str(study.path))
            + "; the difference:\n"
            + "\n".join(difference)
        )


def _has_come_to_something(catalog: Catalog, row: StudyRow) -> bool:
    """Whether beginning anew would lose work: a trial that ended well, or one with epochs to go on from."""
    known = catalog.epochs(row.id)
    return row.state == "finished" or any(
        trial.state in ("complete", "pruned") or (trial.state != "failed" and trial.id in known)
        for trial in catalog.trials(row.id)
    )


def _tags(study: Study) -> dict[str, str]:
    return {
        **git_state(study.path.parent),
        **{f"version.{name}": number for name, number in versions().items()},
        "host": host(),
        "study.seed": str(study.seed),
        "mlflow.user": user(),
        "mlflow.source.name": f"sweeper start {study.path.name}",
        "mlflow.source.type": "LOCAL",
        # Of one that was submitted, whoever did it knew the commit.
        **{key: value for key, value in ray_job().items() if key in SUBMITTED_TAGS},
    }
