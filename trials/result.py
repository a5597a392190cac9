"""What a trial tells the outside: a report after each epoch, a result at the end."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Metric = Literal[
    "validation.accuracy",
    "validation.balanced_accuracy",
    "validation.top5_accuracy",
    "validation.loss",
    "validation.mae",
    "validation.rmse",
    "validation.r2",
]

METRICS: dict[str, Literal["maximize", "minimize"]] = {
    "validation.accuracy": "maximize",
    "validation.balanced_accuracy": "maximize",
    "validation.top5_accuracy": "maximize",
    "validation.loss": "minimize",
    "validation.mae": "minimize",
    "validation.rmse": "minimize",
    "validation.r2": "maximize",
}
"""The metrics a study can be about, and which way is better."""

TASK_METRICS: dict[str, tuple[str, ...]] = {
    "classification": (
        "validation.accuracy",
        "validation.balanced_accuracy",
        "validation.top5_accuracy",
        "validation.loss",
    ),
    "regression": ("validation.mae", "validation.rmse", "validation.r2", "validation.loss"),
}
"""The metrics that each task has. ``loss`` is the mean negative log-probability of the right class, or the mean squared
error of the standardised target, whatever loss was minimised, so that trials with different losses can be compared.
``mae`` and ``rmse`` are in units of the target."""

WeightsKind = Literal["raw", "ema", "swa", "best_n", "soup", "ensemble"]
"""``raw``: the weights as trained (of the best epoch under early stopping, else of the last one).
``ema``: their exponential moving average. ``swa``: the plain mean of the last epochs' weights (stochastic weight
averaging). ``best_n``: the mean of the N best epochs' raw weights. ``soup``: the mean of weights of several trials.
``ensemble``: several models whose answers are averaged, in one file."""


class Record(BaseModel):
    """A frozen record that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EpochReport(Record):
    """What a trial says after each epoch.

    ``metrics`` maps dotted names to numbers: ``train.loss``, ``train.accuracy`` (in regression ``train.mae``),
    ``train.lr`` (of the last step), ``train.gradient_norm``, the task's ``validation.*`` and, under EMA,
    ``validation.ema.*`` beside ``validation.raw.*``. ``validation.*`` without a middle name is of the weights (raw or
    EMA) that lead on the recipe's metric.
    """

    epoch: int
    """The epoch just finished, counted from 1."""
    epochs: int
    """How many epochs the recipe asks for."""
    metrics: dict[str, float]
    seconds: float
    """Wall time of this epoch, evaluation and checkpoint included."""


class WeightsFile(Record):
    """One kept file of weights and what it is worth on the selection split, by which it is judged."""

    kind: WeightsKind
    path: str
    """Relative to the trial's folder."""
    metrics: dict[str, float]
    """On the selection split, by the names of a report: ``validation.loss`` and the others of the task. Beside them, on
    the examples that ``data.confirm`` sets aside, ``confirm.loss`` and the others: nothing is chosen by these."""
    epoch: int
    """The epoch the weights are of (for an average: the last one that went in)."""
    bytes: int
    sha256: str


class TrialResult(Record):
    """What a trial that ran to its end leaves behind."""

    epochs: int
    """Epochs really trained: fewer than asked for when stopped early."""
    weights: tuple[WeightsFile, ...]
    """The weights kept, best first by the recipe's metric. Never empty."""
    notes: tuple[str, ...] = ()
    """Plain sentences worth a reader's while: stopped early at epoch 7; best_n not kept because worse; ..."""
    parameters: int
    """Trainable parameters of the model."""
    seconds: float
    """Wall time of training, over all its interruptions."""
    device: str
    """``cpu``, or the name of the GPU."""
    peak_memory_bytes: int
    """Peak memory of the GPU; 0 on a CPU."""
    skipped_steps: int = 0
    """Updates skipped because fp16 gradients overflowed."""
    shares: tuple[float, ...] = ()
    """Of an ensemble: the share of each of its recipe's ``assembly.members``; 0 for those that were left out."""
    lr: float | None = None
    """Learning rate at the top of the schedule: the recipe's, or the one that its range test found."""


def is_better(metric: str, value: float, than: float, min_delta: float = 0.0) -> bool:
    """Whether ``value`` beats ``than`` by more than ``min_delta`` on ``metric``.

    >>> is_better("validation.loss", 0.2, than=0.3)
    True
    """
    sign = 1.0 if METRICS[metric] == "maximize" else -1.0
    return sign * (value - than) > min_delta
