"""The learning rate range test: raise the learning rate batch by batch, and see where the loss falls fastest.

Sources: arXiv:1506.01186 (the test), arXiv:1803.09820 (how it is read), and fast.ai's ``lr_find`` (smoothing, the end).
"""

from __future__ import annotations

import copy
import io
import itertools
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trials.disk import write_whole
from trials.errors import TrialError
from trials.fit.fitting import Fitting
from trials.fit.micro_batch import batch_sizes
from trials.fit.step import Variation, gather_gradient
from trials.recipe import Constant, LrFinder
from trials.seed import generator, seed_global_state

if TYPE_CHECKING:  # loaded when something is drawn
    from matplotlib.figure import Figure

SKIPPED_FRACTION = 0.1
"""Share of the steps at the start that are not judged: there the running mean is of few batches."""
NOISE_DEVIATIONS = 4.0
"""How many standard deviations of the smoothed loss a fall must have, so that it is one."""


@dataclass(frozen=True)
class LrCurve:
    """What a range test saw, step by step, up to where the loss ran away."""

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    """Of each step's batch, before the update."""
    mean_lrs: tuple[float, ...]
    """Running geometric mean of the learning rates: where ``smoothed`` lies, for both are means of the same steps."""
    smoothed: tuple[float, ...]
    """Running mean of the losses."""
    suggestion: float | None
    """Learning rate at which the smoothed loss fell most for each factor of the learning rate."""
    reason: str = ""
    """Why there is no suggestion, where there is none."""


def ramp(section: LrFinder) -> list[float]:
    """The learning rate of each step, from ``start`` to ``end``, each the same multiple of the one before.

    >>> [round(lr, 6) for lr in ramp(LrFinder(start=1e-5, end=1e4, steps=10))][:3]
    [1e-05, 0.0001, 0.001]
    """
    if section.end <= section.start:
        raise TrialError(
            f"train.lr_finder.end: found {section.end:g}, expected more than train.lr_finder.start, {section.start:g}"
        )
    last = section.steps - 1
    return [section.start * (section.end / section.start) ** (step / last) for step in range(section.steps)]


class RunningMean:
    """The mean of the values so far, each with ``smoothing`` times the weight of the next one.

    >>> mean = RunningMean(smoothing=0.5)
    >>> [mean.add(4.0), mean.add(1.0)]
    [4.0, 2.0]
    """

    def __init__(self, smoothing: float) -> None:
        self._smoothing = smoothing
        self._total = self._weight = 0.0

    def add(self, value: float) -> float:
        """The mean once ``value`` has joined."""
        self._total = self._smoothing * self._total + value
        self._weight = self._smoothing * self._weight + 1.0
        return self._total / self._weight


def range_test(section: LrFinder, train_step: Callable[[float], float]) -> LrCurve:
    """Take a step at each learning rate of the ramp, until the loss runs away.

    ``train_step`` makes one update at the learning rate it is given and returns its batch's loss from before. The test
    ends before a loss that is not finite, and after a smoothed loss of more than ``stop_at`` times the smallest.
    """
    lrs: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    # A running mean shows a fall late. Set against the mean of the same steps' learning rates, it does not.
    logs: list[float] = []
    mean_loss, mean_log = RunningMean(section.smoothing), RunningMean(section.smoothing)
    lowest = math.inf
    for lr in ramp(section):
        loss = train_step(lr)
        if not math.isfinite(loss):
            break
        lrs.append(lr)
        losses.append(loss)
        smoothed.append(mean_loss.add(loss))
        logs.append(mean_log.add(math.log(lr)))
        lowest = min(lowest, smoothed[-1])
        if smoothed[-1] > section.stop_at * lowest:
            break
    place, reason = _steepest(section, logs, losses, smoothed)
    mean_lrs = [math.exp(log) for log in logs]
    suggestion = None if place is None else mean_lrs[place]
    return LrCurve(tuple(lrs), tuple(losses), tuple(mean_lrs), tuple(smoothed), suggestion, reason)


def _steepest(
    section: LrFinder, logs: list[float], losses: list[float], smoothed: list[float]
) -> tuple[int | None, str]:
    """The step at which the smoothed loss falls fastest on its way to its smallest value; if none, why."""
    first = max(1, round(SKIPPED_FRACTION * section.steps))
    if len(smoothed) <= first:
        return None, f"the loss ran away within {len(smoothed) + 1} step(s); lower train.lr_finder.start"
    lowest = min(range(first, len(smoothed)), key=smoothed.__getitem__)
    fall = smoothed[first] - smoothed[lowest]
    if fall <= NOISE_DEVIATIONS * _deviation(losses[: lowest + 1], section.smoothing):
        return None, f"the loss never fell by more than the noise of its batches (from {smoothed[first]:.4g})"

    def slope(step: int) -> float:
        return (smoothed[step + 1] - smoothed[step - 1]) / (logs[step + 1] - logs[step - 1])

    return min(range(first, lowest), key=slope), ""


def _deviation(losses: list[float], smoothing: float) -> float:
    """Standard deviation of the running mean of losses that go nowhere, from how far each is from the next.

    The median, so that neither a steep fall nor an odd batch counts as noise.
    """
    jumps = [abs(after - before) for before, after in itertools.pairwise(losses)]
    of_one_loss = statistics.median(jumps) / (0.6745 * math.sqrt(2.0)) if jumps else 0.0
    return of_one_loss * math.sqrt((1.0 - smoothing) / (1.0 + smoothing))


def find_lr(fitting: Fitting, vary: Variation) -> LrCurve:
    """The range test of ``fitting`` as it stands, by the recipe's ``train.lr_finder``.

    It is made on a copy of the model with an optimizer of its own, so that nothing of ``fitting`` changes. Batches are
    drawn from a generator of their own; ``vary`` and the global random state must be set up anew before the training,
    which each epoch does. All ranks make the test together, and all find the same.
    """
    section = fitting.recipe.train.lr_finder
    assert section is not None, "a range test is asked for"
    probe = _probe(fitting, vary)
    seed_global_state(fitting.device, fitting.recipe.seed, "lr_finder", *fitting.ranks.place)
    groups = _groups_of_batches(probe, vary)

    def train_step(lr: float) -> float:
        group = next(groups)
        examples = sum(map(len, group))
        loss = torch.zeros((), device=probe.device)
        probe.top_lr = lr
        for rows in group:
            share = len(rows) / examples
            loss += share * gather_gradient(probe, vary, rows, share, is_last=rows is group[-1]).loss
        probe.update()
        return probe.ranks.sum_up(loss).item()

    return range_test(section, train_step)


def _probe(fitting: Fitting, vary: Variation) -> Fitting:
    """A twin of ``fitting`` that trains at exactly its top learning rate and averages nothing."""
    recipe = fitting.recipe
    plain = {"schedule": Constant(name="constant"), "ema": None, "swa": None, "compile": False}
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=plain), "extensions": ()})
    model, target = copy.deepcopy(fitting.model), vary.splits.target
    steps, teaching = fitting.steps_per_epoch, fitting.distillation
    probe = Fitting(model, recipe, target, steps, fitting.device, fitting.head, fitting.ranks, teaching)
    probe.begin_epoch(1)
    return probe


def _groups_of_batches(fitting: Fitting, vary: Variation) -> Iterator[tuple[Tensor, ...]]:
    """The rows of each batch of one update after the other, pass after pass over the training split, without end."""
    section, split = fitting.recipe.train, vary.splits.train
    sizes, home = batch_sizes(len(split), section.batch_size), split.inputs.device
    for number in itertools.count():
        vary.begin_epoch(-number)  # draws that no epoch of a training makes
        draws = generator(home, fitting.recipe.seed, "lr_finder", number)
        batches = torch.split(torch.randperm(len(split), generator=draws, device=home), sizes)
        for start in range(0, len(batches), section.accumulate):
            yield batches[start : start + section.accumulate]


def draw(curve: LrCurve, path: Path) -> None:
    """Write the losses over the learning rate as a PNG, with the suggestion marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure_of(curve)).print_png(picture)  # type: ignore[no-untyped-call]
    write_whole(path, picture.getvalue())


def figure_of(curve: LrCurve) -> Figure:
    """The losses over the logarithm of the learning rate, apart from pyplot and its global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.plot(curve.lrs, curve.losses, color="0.75", linewidth=1, label="each batch")
    axes.plot(curve.mean_lrs, curve.smoothed, color="tab:blue", label="running mean")
    if curve.suggestion is None:
        axes.set_title(f"no suggestion: {curve.reason}", fontsize="small")
    else:
        height = curve.smoothed[curve.mean_lrs.index(curve.suggestion)]
        axes.plot([curve.suggestion], [height], "o", color="tab:red", label=f"steepest fall: {curve.suggestion:.3g}")
    if curve.smoothed:  # a batch far off must not flatten the curve
        low, high = min(curve.smoothed), max(curve.smoothed)
        margin = 0.1 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.legend()
    return figure
