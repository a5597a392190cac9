"""How the model is fitted, and what is averaged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trials.recipe.loss import Loss
from trials.recipe.optimizer import Adam, Optimizer
from trials.recipe.schedule import Constant, Schedule
from trials.recipe.section import (
    BelowOne,
    Count,
    NotNegative,
    OpenFraction,
    Positive,
    PositiveFraction,
    Section,
    WholeNumber,
)
from trials.result import Metric


class Ema(Section):
    """Exponential moving average of the weights, evaluated beside them."""

    decay: OpenFraction = 0.999
    """Share of the average that is kept at each step. 0.999 remembers about a thousand steps.
    [Polyak and Juditsky, 1992; torch.optim.swa_utils]"""
    warmup: bool = True
    """Use min(decay, (1 + n) / (10 + n)) at step n, so that the random start is forgotten soon.
    [tf.train.ExponentialMovingAverage, `num_updates`]"""


class Swa(Section):
    """Stochastic weight averaging: the plain mean of the weights along the last part of the training."""

    start: BelowOne = 0.75
    """Share of the epochs after which averaging begins. [arXiv:1803.05407]"""
    every_epochs: Count = 1
    """Epochs between two snapshots; the first is taken after the first whole epoch past `start`. [arXiv:1803.05407]"""
    lr: PositiveFraction | None = 0.05
    """Constant learning rate from `start` on, as a share of the optimizer's; null keeps the schedule.
    [arXiv:1803.05407; torch.optim.swa_utils.SWALR]"""


class EarlyStop(Section):
    """Stop when a metric no longer gets better, and go back to the best weights."""

    patience_epochs: Count = 5
    """Epochs without a better value before training stops. The weights of the best epoch are kept.
    [Prechelt, 1998]"""
    min_delta: NotNegative = 0.0
    """How much better a value must be to count. In units of the metric. [sweeper]"""
    metric: Metric | None = None
    """What is watched; left out, the metric of the study. Whether more or less is better follows from it. [sweeper]"""


class LrFinder(Section):
    """A learning rate range test before the training."""

    start: Positive = 1e-6
    """Learning rate of the first step. [arXiv:1506.01186]"""
    end: Positive = 10.0
    """Learning rate of the last step. It rises by the same factor at each step. [arXiv:1506.01186]"""
    steps: Annotated[int, Field(ge=10)] = 100
    """Steps of the test. Each takes one batch. [arXiv:1803.09820]"""
    smoothing: BelowOne = 0.9
    """Share of the running mean of the loss that is kept at each step. [arXiv:1803.09820]"""
    stop_at: Annotated[float, Field(gt=1.0)] = 4.0
    """Stop when the smoothed loss is this many times its smallest value. [fast.ai, `lr_find`]"""


class Train(Section):
    """How the model is fitted."""

    epochs: Count = 10
    """Passes over the training split. [sweeper]"""
    batch_size: Count = 128
    """Examples in each batch, whatever processes share it. More than the data has is all of it. [sweeper]"""
    micro_batch: Count | None = None
    """Most examples that pass through the model at once, for batches that do not fit into memory; null passes the whole
    batch. A batch is drawn and varied as ever, then passed in chunks whose gradients sum to its own; only batch norm
    sees a chunk where it would have seen the batch. A last chunk of one joins the one before. With `data_parallel`,
    the most that each process passes at once. [arXiv:1811.06965]"""
    accumulate: Count = 1
    """Batches whose gradients are gathered before each update: the gradient of an `accumulate` times larger batch.
    A last, partial group counts by its examples. [arXiv:1711.00489]"""
    loss: Loss | None = None
    """What is minimised. Left out: cross_entropy for classes, mse for numbers. [sweeper]"""
    optimizer: Optimizer = Adam(name="adam")
    """The update rule. [torch.optim]"""
    schedule: Schedule = Constant(name="constant")
    """The learning rate over the steps of the whole training. [torch.optim.lr_scheduler]"""
    lr_finder: LrFinder | None = None
    """Find the learning rate by a range test before the training, and use it in place of the optimizer's. The weights
    are put back afterwards. [arXiv:1506.01186]"""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass. fp16 scales the loss, and skips updates that overflow without moving the
    schedule. [arXiv:1710.03740; torch.amp]"""
    clip_norm: Positive | None = None
    """Largest allowed norm of the whole gradient, after unscaling. [arXiv:1211.5063; torch.nn.utils.clip_grad_norm_]"""
    clip_value: Positive | None = None
    """Largest allowed magnitude of each gradient entry, after unscaling. [torch.nn.utils.clip_grad_value_]"""
    ema: Ema | None = None
    """Keep an exponential moving average of the weights. [torch.optim.swa_utils]"""
    swa: Swa | None = None
    """Keep the plain mean of the weights along the last epochs, and evaluate it at the end. [arXiv:1803.05407]"""
    early_stop: EarlyStop | None = None
    """Stop when nothing gets better. [Prechelt, 1998]"""
    data_parallel: Count | None = None
    """Processes that train one trial together, one a GPU: each takes its part of every batch, and blends among these
    examples. How many there are does not change what is trained, but for rounding, what is drawn, and batch norm on
    CPUs: on GPUs it is over the whole batch, on CPUs over each process's part, and the first one's statistics are kept.
    Left out, it is one for each of `workers.gpus` on each of `workers.nodes`.
    [torch.nn.parallel.DistributedDataParallel; torch.nn.SyncBatchNorm]"""
    compile: bool = False
    """Compile the model. It takes a minute at first and pays on a GPU. [torch.compile]"""
    channels_last: bool = True
    """Keep images with their channels last in memory, in which convolutions are fastest. [torch.channels_last]"""
    pictures: bool = False
    """Draw the first layer's filters and histograms of each layer's activations at the end of the trial. They lie in
    its folder and in MLflow. [torchvision.utils.make_grid]"""


class Average(Section):
    """What is averaged at the end of a trial."""

    best_n: Annotated[int, Field(ge=0)] = 0
    """Average the raw weights of this many best epochs; 0 or 1 averages nothing. Kept only if not worse.
    [arXiv:1706.03762, section 6.1]"""
    trunk_epochs: WholeNumber = 0
    """Epochs that all trials of one architecture share: trained once, as a trunk, from which each goes on with what is
    left of `train.epochs`. Weights that branched from one trunk can be averaged. 0 has each trial begin anew.
    [arXiv:1912.05671]"""
    batch_norm_samples: Count = 2048
    """Training examples over which batch norm statistics are measured anew after averaging. [arXiv:2105.07576]"""
