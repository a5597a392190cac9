"""The runs of one study in MLflow: found by their tags, made, and told what the catalog's rows say.

Whatever is told twice is kept once.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.catalog import EpochRow, StudyRow, TrialRow
from sweeper.mlflow_client import connect
from sweeper.settings import Settings
from sweeper.store.open import open_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

BATCH_METRICS = 1000
BATCH_PARAMS = 100
"""MLflow's own limits for one `log_batch`."""
LONGEST_PARAM, LONGEST_TAG = 1000, 4900
"""Characters, below what MLflow takes (6000 and 5000 where it keeps them in a database)."""
MADE_FROM = ("start", "teacher", "assembly")
"""Sections that hold whole recipes and digests of other trials; `recipe.yaml` has them."""
PAGE_RUNS = 1000
"""Runs that one search answers with."""
MADE_TAG = "sweeper.made"
"""The tag of a run that says when we asked for it, in seconds since 1970: its start is that of its trial."""
RUN_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True)
class RunRecord:
    """A run as MLflow has it."""

    run_id: str
    status: str
    is_active: bool
    """Whether nobody deleted it."""
    tags: dict[str, str]

    @property
    def trial(self) -> int | None:
        """The number of the trial that it is of; ``None`` if it is the study's own."""
        number = self.tags.get("sweeper.trial", "")
        return int(number) if number.isdecimal() else None


@dataclass
class StudyRuns:
    """The parent run of a study, and a child run for each trial.

    Args:
        settings: where MLflow is.
        study: the study's row.
        tags: commit, versions, host and the like, for every run.
    """

    settings: Settings
    study: StudyRow
    tags: Mapping[str, str]
    _client: MlflowClient | None = None
    _experiment_id: str | None = None

    @property
    def client(self) -> MlflowClient:
        """The client, connected at first use.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        if self._client is None:
            self._client = connect(self.settings)
        return self._client

    def look_up_anew(self) -> None:
        """Forget the experiment: it may be gone."""
        self._experiment_id = None

    def find_parent(self) -> str | None:
        """The study's own run, if there is one."""
        return self._find("sweeper.role", "study")

    def make_parent(self) -> str:
        """Make the study's own run, which began when the study did."""
        return self._make(self.study.name, self.study.created_at, {"sweeper.role": "study"})

    def find_child(self, trial: TrialRow) -> str | None:
        """The run of a trial, if there is one."""
        return self._find("sweeper.trial", str(trial.number))

    def make_child(self, trial: TrialRow, parent: str) -> str:
        """Make the run of a trial below ``parent``."""
        tags = {
            "mlflow.parentRunId": parent,
            "sweeper.role": "trial",
            "sweeper.trial": str(trial.number),
            "seed": str(trial.recipe["seed"]),
        }
        if trial.role != "search":
            made = " ".join(f"{name}={value}" for name, value in trial.params.items())
            tags |= {"role": trial.role, "made": made}
        return self._make(f"trial {trial.number:04d}", trial.started_at, tags)

    def delete_duplicates(self, known: Collection[str]) -> None:
        """Delete the runs of this study that are not ``known``.

        A server that is slow may make a run after its caller has given up, looked for it in vain and made another.
        """
        for run_id in self._search(f"tags.`sweeper.begun` = '{self._begun}'"):
            if run_id not in known:
                self.client.delete_run(run_id)

    def delete_all(self) -> int:
        """Delete all runs of this study, and their experiment unless it holds others too; says how many runs."""
        found = self.client.get_experiment_by_name(self.study.name)
        if found is None or found.lifecycle_stage != "active":
            return 0
        runs = self._search(f"tags.`sweeper.begun` = '{self._begun}'")
        for run_id in runs:
            self.client.delete_run(run_id)
        if not self._search(""):
            # Under another name first: a deleted experiment would keep its own from the next study.
            self.client.rename_experiment(found.experiment_id, f"{self.study.name} (removed {time.time():.0f})")
            self.client.delete_experiment(found.experiment_id)
        return len(runs)

    def records(self) -> list[RunRecord]:
        """All runs of this study, deleted ones too, in the order in which they were asked for."""
        from mlflow.entities import ViewType

        found = self.client.get_experiment_by_name(self.study.name)
        if found is None:  # to look must leave no trace
            return []
        query = f"tags.`sweeper.begun` = '{self._begun}'"
        return [
            RunRecord(
                str(run.info.run_id),
                str(run.info.status),
                str(run.info.lifecycle_stage) == "active",
                dict(run.data.tags),
            )
            for run in self._pages(str(found.experiment_id), query, ViewType.ALL)
        ]

    def logged(self, run_id: str, name: str) -> dict[int, list[float]]:
        """What a run has of a metric: by epoch, one value if nothing is there twice."""
        values: dict[int, list[float]] = {}
        for metric in self.client.get_metric_history(run_id, name):
            values.setdefault(metric.step, []).append(metric.value)
        return values

    def describe(self, run_id: str, trial: TrialRow) -> None:
        """Log the recipe that the trial began with as params."""
        from mlflow.entities import Param

        began_with = {name: section for name, section in trial.recipe.items() if name not in ("extensions", *MADE_FROM)}
        flat = flatten(began_with) | made_from(trial.recipe)
        # A param cannot be changed, and the micro-batch may have been since it was first told.
        told = self.client.get_run(run_id).data.params
        new = [Param(name, str(value)) for name, value in flat.items() if name not in told]
        for start in range(0, len(new), BATCH_PARAMS):
            self.client.log_batch(run_id, params=new[start : start + BATCH_PARAMS])

    def log_epochs(self, run_id: str, epochs: Sequence[EpochRow]) -> None:
        """Log the metrics of epochs, each at the time of its report."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(epoch.reported_at * 1000), epoch.epoch)
            for epoch in epochs
            for name, value in {**epoch.metrics, "epoch.seconds": epoch.seconds}.items()
        ]
        for start in range(0, len(metrics), BATCH_METRICS):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])

    def end_child(self, run_id: str, trial: TrialRow) -> None:
        """Log how a trial ended, and with what extensions: a param cannot be changed, and one that fails is dropped."""
        from mlflow.entities import Metric, Param, RunTag

        ended_ms = int((trial.ended_at or time.time()) * 1000)
        facts = {name: fact for name, fact in trial.facts.items() if name != "traceback"}
        numbers: dict[str, float] = {} if trial.value is None else {"value": trial.value}
        numbers |= facts.pop("weights", {})
        tags = [
            RunTag("state", trial.state),
            *[RunTag(name, str(value)[:LONGEST_TAG]) for name, value in facts.items()],
        ]
        if trial.reason or trial.is_extended or trial.attempts:  # what it failed of before holds no more
            tags.append(RunTag("reason", (trial.reason or "")[:LONGEST_TAG]))
        extensions = trial.recipe.get("extensions", ())
        params = flatten({f"extensions.{number}": section for number, section in enumerate(extensions, start=1)})
        self.client.log_batch(
            run_id,
            metrics=[Metric(name, value, ended_ms, len(extensions)) for name, value in numbers.items()],
            params=[Param(name, str(value)) for name, value in params.items()],
            tags=tags,
        )
        self.client.set_terminated(run_id, RUN_STATUS[trial.state], end_time=ended_ms)

    def store_files(self, run_id: str, trial: TrialRow) -> None:
        """Store a trial's recipe, its traceback if it failed, and what was drawn of it."""
        self.client.log_dict(run_id, trial.recipe, "recipe.yaml")
        if trial.facts.get("traceback"):
            self.client.log_text(run_id, trial.facts["traceback"], "traceback.txt")
        for picture in self.pictures(trial):
            self.client.log_artifact(run_id, str(picture), "pictures")

    def pictures(self, trial: TrialRow) -> list[Path]:
        """What was drawn of a trial so far."""
        return open_folder(self.settings, self.study.name).pictures(trial.number)

    def _experiment(self) -> str:
        if self._experiment_id is None:
            found = self.client.get_experiment_by_name(self.study.name)
            where = self.settings.artifacts.as_uri() if self.settings.tracking_is_local else None
            if found is None:
                made = self.client.create_experiment(self.study.name, artifact_location=where)
            elif found.lifecycle_stage == "deleted":  # by a person, who goes on with the study all the same
                self.client.restore_experiment(found.experiment_id)
            self._experiment_id = str(made if found is None else found.experiment_id)
        return self._experiment_id

    def _find(self, tag: str, value: str) -> str | None:
        """The run with that tag; of several, those made later are deleted."""
        found = self._search(f"tags.`sweeper.begun` = '{self._begun}' and tags.`{tag}` = '{value}'")
        for later in found[1:]:
            self.client.delete_run(later)
        return found[0] if found else None

    def _search(self, query: str) -> list[str]:
        """The runs that match, in the order in which they were asked for."""
        return [str(run.info.run_id) for run in self._pages(self._experiment(), query)]

    def _pages(self, experiment_id: str, query: str, view: int = 1) -> list[Run]:
        """The runs that match, of all pages; ``view`` is MLflow's `ViewType`, at first that of runs not deleted."""
        found: list[Run] = []
        page: str | None = None
        while page is None or page:
            answer = self.client.search_runs([experiment_id], query, view, max_results=PAGE_RUNS, page_token=page)
            found, page = [*found, *answer], answer.token or ""
        found.sort(key=lambda run: (run.data.tags.get(MADE_TAG, ""), run.info.run_id))
        return found

    def _make(self, name: str, began_at: float, tags: Mapping[str, str]) -> str:
        ours = {"sweeper.study": self.study.name, "sweeper.begun": self._begun, MADE_TAG: f"{time.time():.3f}"}
        run = self.client.create_run(
            self._experiment(),
            start_time=int(began_at * 1000),
            tags={**self.tags, **ours, **tags},
            run_name=name,
        )
        return str(run.info.run_id)

    @property
    def _begun(self) -> str:
        """What tells this study from another of its name: one begun anew, or one of another home."""
        return str(self.study.created_at)


def made_from(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe begins or is made from, as params: for each file of weights its name alone.

    >>> member = {"weights": {"name": "ema of trial 0003", "sha256": "..."}, "recipe": {}, "share": 0.5}
    >>> made_from({"assembly": {"name": "top_ensemble", "members": [member], "most": 5}})
    {'assembly.name': 'top_ensemble', 'assembly.members': 'ema of trial 0003', 'assembly.most': 5}
    """
    sections = {name: recipe[name] for name in MADE_FROM if recipe.get(name) is not None}
    if "start" in sections:
        sections["start"] = {**sections["start"], "weights": [sections["start"]["weights"]]}
    return {name: _names(value) for name, value in flatten(sections).items()}


def _names(value: Any) -> Any:
    """A list of files of weights as their names, the first of them if there are many."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    names = ", ".join(item.get("weights", item)["name"] for item in value)
    return names if len(names) <= LONGEST_PARAM else f"{names[:LONGEST_PARAM]}..., {len(value)} in all"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted paths.

    >>> flatten({"train": {"ema": None, "optimizer": {"lr": 0.1}}})
    {'train.ema': None, 'train.optimizer.lr': 0.1}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = value
    return flat
