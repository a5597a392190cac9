"""What study.yaml may say: the sections of a recipe, how to look for good ones, and where trials run.

The docstring under a field is its documentation, in the JSON Schema and in docs/recipe.md.
"""

from __future__ import annotations

from string import ascii_letters
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from sweeper.study_folder import NAME
from trials.recipe import DEFAULT_METRICS, Average, Count, Data, Fraction, Model, NotNegative, Positive, Section, Train
from trials.recipe.section import PositiveFraction, WholeNumber
from trials.result import Metric

SECTIONS = ("data", "model", "train", "average")
"""The sections of a recipe, in which ranges may stand."""

Name = Annotated[
    str,
    Field(
        pattern=NAME,
        max_length=64,
        title="at most 64 letters, digits, '.', '_' and '-', beginning with a letter or digit and without '..'",
    ),
]


SIZE_UNITS = {
    f"{prefix}{binary}b": (1024 if binary else 1000) ** power
    for power, prefix in enumerate(("", "k", "m", "g", "t"))
    for binary in ("", "i")
    if prefix or not binary
}
"""Bytes in each unit that a size may be said in: 50 GB are 50 * 1000**3 bytes, 50 GiB are 50 * 1024**3."""

Size = Annotated[
    str,
    Field(pattern=r"^[0-9]+(\.[0-9]+)? ?([kKmMgGtT][iI]?)?[bB]$", title="a size such as 50 GB, 512 MB or 20 GiB"),
]


def size_bytes(size: str) -> int:
    """A size in bytes.

    >>> size_bytes("1.5 GB"), size_bytes("2GiB"), size_bytes("800 B")
    (1500000000, 2147483648, 800)
    """
    number = size.rstrip(ascii_letters)
    return int(float(number) * SIZE_UNITS[size.removeprefix(number).lower()])


def _placeable(amount: float | None) -> float | None:
    if amount is not None and amount > 1 and amount != int(amount):
        raise ValueError("a whole number when above 1")
    return amount


class NoPruner(Section):
    """Every trial runs to its end."""

    name: Literal["none"]
    """Stop nothing. It costs the most and says the most. [optuna.pruners.NopPruner]"""


class Median(Section):
    """Stop a trial that is worse than the median of the others at the same epoch."""

    name: Literal["median"]
    """The median rule. It compares a trial's best value so far with what others had at the same epoch.
    [optuna.pruners.MedianPruner; Golovin et al., Google Vizier, KDD 2017]"""
    startup_trials: Count = 5
    """Trials that must have finished before any is stopped. [optuna.pruners.MedianPruner]"""
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    """Epochs of a trial during which it is not stopped. [optuna.pruners.MedianPruner]"""


class Asha(Section):
    """Asynchronous successive halving: at each rung only the best share goes on."""

    name: Literal["asha"]
    """Asynchronous successive halving. No trial waits for others at a rung.
    [arXiv:1810.05934; optuna.pruners.SuccessiveHalvingPruner]"""
    min_epochs: Count = 1
    """Epochs before the first rung. [arXiv:1810.05934]"""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One trial in this many goes on past a rung; rungs lie this factor apart. [arXiv:1810.05934]"""


class Hyperband(Section):
    """Several successive halvings that differ in how early they begin to stop trials."""

    name: Literal["hyperband"]
    """Hyperband; the default. It hedges between stopping early and letting slow starters show what they can.
    [arXiv:1603.06560; optuna.pruners.HyperbandPruner]"""
    min_epochs: Count = 1
    """Epochs before the first rung of the most eager bracket. [arXiv:1603.06560]"""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One trial in this many goes on past a rung; rungs lie this factor apart. [arXiv:1603.06560]"""


class Patient(Section):
    """Stop a trial that no longer gets better itself."""

    name: Literal["patient"]
    """Patience on the trial's own metric. Other trials do not matter to it. [optuna.pruners.PatientPruner]"""
    patience_epochs: Annotated[int, Field(ge=0)] = 3
    """Epochs without a better value before a trial is stopped. [optuna.pruners.PatientPruner]"""
    min_delta: NotNegative = 0.0
    """How much better a value must be to count. In units of the metric. [optuna.pruners.PatientPruner]"""


Pruner = Annotated[NoPruner | Median | Asha | Hyperband | Patient, Field(discriminator="name")]


class Search(Section):
    """How the study looks for good recipes."""

    sampler: Literal["tpe", "random"] = "tpe"
    """How the next trial is chosen: by a tree-structured Parzen estimator, or at random.
    [Bergstra et al., NeurIPS 2011; optuna.samplers.TPESampler]"""
    trials: Count = 20
    """Trials to run, those that are stopped early included. A stopped study that goes on counts those it had.
    [sweeper]"""
    metric: Metric = "validation.accuracy"
    """What "better" means: for the search, early stopping, the best epochs and the leaderboard. Left out, it is
    validation.accuracy for classes and validation.loss for numbers. [sweeper]"""
    pruner: Pruner = Hyperband(name="hyperband")
    """When hopeless trials are stopped. What they had reached still informs the sampler. [optuna.pruners]"""
    start_with: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = ()
    """Points to try first, by dotted path: `{train.optimizer: sgd, train.optimizer.lr: 0.1}`. A point may be partial:
    the rest is sampled. [optuna.study.Study.enqueue_trial]"""


class Workers(Section):
    """Where trials run."""

    concurrent: Count | None = None
    """Trials at a time. Left out, it is one a GPU, or as many as the cores allow. On a cluster it is an upper bound: a
    study begins with the places that there are, and follows the nodes as they come and go. [sweeper]"""
    cpus: Annotated[Positive, AfterValidator(_placeable)] = 1.0
    """Cores for each trial, on each of its nodes. It computes in as many threads. [ray.remote]"""
    gpus: Annotated[NotNegative | None, AfterValidator(_placeable)] = None
    """GPUs for each trial, on each of its nodes, such as 0.5 for two trials on one. Left out, it is 1 where there are
    GPUs. On several a trial has a process each, unless `train.data_parallel` says otherwise. [ray.remote]"""
    nodes: Count = 1
    """Nodes of a Ray cluster (`RAY_ADDRESS`) that train each trial together, on each the `cpus` and `gpus` above. When
    one of them dies, the trial goes on from its newest checkpoint. [ray.util.placement_group]"""
    retries: WholeNumber = 3
    """How often a trial goes on from its newest checkpoint after its worker died; the time after that it has failed.
    Each time is kept with its reason. [ray.remote]"""
    stall_minutes: Positive | None = 120.0
    """Minutes without a report after which a trial counts as stalled: its worker is killed, and the trial goes on once.
    A report comes after each epoch, the first one once the data are loaded too. A soup or an ensemble in the making has
    none to give, and is waited for. `null` waits for ever. [sweeper]"""

    @property
    def processes(self) -> int:
        """How many train a trial whose recipe does not say: one a GPU, or one a node."""
        return self.nodes * max(1, int(self.gpus or 0))


class Storage(Section):
    """What stays on the disk beyond the results."""

    limit: Size | None = None
    """How much of the disk the study may take, such as `50 GB` or `20 GiB`. After each trial that ends, what is over it
    is removed as far as need be: first the states that only `sweeper extend` would go on from, then weights from the
    leaderboard's end; never what a trial that goes on needs, nor the weights that `keep_best` keeps. Left out, there is
    no limit. [sweeper]"""
    keep_best: Count = 10
    """How many weights from the leaderboard's top stay, whatever the limit and however full the disk. [sweeper]"""
    extendable: WholeNumber = 5
    """How many of the best complete trials keep the state that `sweeper extend` goes on from: their newest checkpoint,
    and the weights of their best epochs. With 0 there are none, and a lower number takes effect also on a finished
    study, at its next start. [sweeper]"""

    @property
    def limit_bytes(self) -> int | None:
        """The limit in bytes; ``None`` if there is none."""
        return None if self.limit is None else size_bytes(self.limit)


class Distil(Section):
    """A student that learns from the ensemble's answers."""

    temperature: Positive = 2.0
    """Softens the answers of teacher and student alike; numbers are learnt as they are. [arXiv:1503.02531]"""
    hard_fraction: Fraction = 0.1
    """Share of the loss that is of the true labels. The rest is of the teacher's answers. [arXiv:1503.02531]"""
    compare: bool = False
    """Train the same student without a teacher too, for the same epochs from the same seed; where the student is a
    finalist, from the fresh seeds too. It tells what distilling was worth. [sweeper]"""


Move = Literal["extend", "branch", "distil"]


class Finish(Section):
    """What is tried after the sweep, to make one model better than the best trial's, and how the winner is found."""

    epochs: WholeNumber = 0
    """Epochs to spend on `moves`, in equal parts. With 0 only soups and ensembles are made, which need no training.
    [sweeper]"""
    moves: Annotated[tuple[Move, ...], Field(strict=False)] = ("extend", "branch", "distil")
    """How they are spent: on more epochs for the best trial, on short branches of it that are then averaged, on a
    student of the ensemble. [arXiv:2203.05482; arXiv:1503.02531]"""
    pool: Annotated[int, Field(ge=2)] = 5
    """The best so many trials are the ingredients of soups and ensembles. A soup is made of at most 8 of the weights
    that they have kept. [arXiv:2203.05482]"""
    ensemble_size: Count = 5
    """Most models in an ensemble. [Caruana et al., ICML 2004]"""
    barrier_tolerance: NotNegative = 0.2
    """How much higher the loss may be on the straight line between two weights than between their own losses, as a
    share of these; weights further apart are not averaged. [arXiv:1912.05671]"""
    branches: Annotated[int, Field(ge=2)] = 3
    """Branches of the best trial, at learning rates in even steps from half of its own to twice as much, its own among
    them where their number is odd; each has a seed of its own. [arXiv:2203.05482]"""
    lr: PositiveFraction = 0.1
    """Learning rate at the start of extensions and branches, as a share of the trial's own. It falls to 0 by a cosine.
    [arXiv:1803.05407]"""
    distil: Distil = Distil()
    """How the student learns. [arXiv:1503.02531]"""
    finalists: Annotated[int, Field(ge=2)] = 3
    """So many of the ways to a model are gone again from fresh seeds: the best single trial's, the one that came
    furthest, the best average and the best ensemble while there is room, then the next best. [sweeper]"""
    seeds: WholeNumber = 3
    """Fresh seeds for each finalist. Trainings that finalists share are done once; 0 compares what there is.
    [arXiv:2103.03098]"""


class StudyFile(Section):
    """A study: what to train, what to vary, how to search."""

    study: Name
    """The study's name: what its results, its MLflow experiment and its model are filed under. [sweeper]"""
    seed: Annotated[int, Field(ge=0)] = 0
    """Everything random in the study follows from it. The splits of the data follow from `data.seed` alone.
    [sweeper]"""
    data: Data
    """Where the examples come from and how they are split and varied. [sweeper]"""
    model: Model
    """What is trained: a built-in, or anything importable. [sweeper]"""
    train: Train = Train()
    """How the model is fitted. [sweeper]"""
    search: Search = Search()
    """How the study looks for good recipes. [sweeper]"""
    workers: Workers = Workers()
    """Where trials run. It is no part of what a study is: it may change when a study goes on. [sweeper]"""
    average: Average = Average()
    """What is averaged at the end of a trial. [sweeper]"""
    finish: Finish | None = None
    """What is tried after the sweep: soups, ensembles, longer training, a student; and how the winner is confirmed.
    Left out, the winner is the best of the weights that trials kept. [sweeper]"""
    storage: Storage = Storage()
    """What stays on the disk beyond the results. Like `workers` it is no part of what a study is. [sweeper]"""

    @model_validator(mode="before")
    @classmethod
    def _metric_of_task(cls, content: Any) -> Any:
        """Where nothing is said, the metric is the task's own."""
        if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
            return content
        metric = DEFAULT_METRICS.get(str(content["data"].get("task")))
        search = content.get("search", {})
        if metric is None or not isinstance(search, dict) or "metric" in search:
            return content
        return {**content, "search": {**search, "metric": metric}}
