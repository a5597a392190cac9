"""One epoch of training: shuffle, vary, forward, backward, and an update for each group of batches.

The last group of batches may be short: every batch counts by its number of examples, so that a group gives the
gradient of one batch of all its examples.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trials.data import Splits
from trials.data.augment import Augmentation
from trials.data.mix import MIXES
from trials.errors import OutOfMemory, TrialError
from trials.fit.distributed import ALONE, Ranks
from trials.fit.evaluate import model_inputs, on_device
from trials.fit.fitting import Fitting
from trials.fit.loss import absolute_error, correct_count, mean_loss
from trials.fit.micro_batch import batch_sizes, chunk_sizes
from trials.fit.precision import autocast
from trials.fit.tally import EpochTraining, Tally
from trials.recipe import Recipe, Train
from trials.seed import generator, random_state, set_random_state

_STEPS_BETWEEN_READS = 20
"""On a GPU, losses are read this often: each read waits for the device. On a CPU, after every step."""


def steps_per_epoch(count: int, section: Train) -> int:
    """Updates in one pass over ``count`` examples."""
    return math.ceil(len(batch_sizes(count, section.batch_size)) / section.accumulate)


@dataclass(frozen=True)
class Midway:
    """An epoch between two of its updates: what goes on from here, beside the fitting itself."""

    steps: int
    """Updates of the epoch so far."""
    state: dict[str, Any]
    """Sums and random states: tensors, numbers, strings, lists and dicts only."""


def train_epoch(
    fitting: Fitting,
    splits: Splits,
    vary: Variation,
    epoch: int,
    recipe: Recipe,
    midway: Midway | None = None,
    after_update: Callable[[Callable[[], Midway]], None] = lambda _: None,
) -> EpochTraining:
    """Train ``fitting`` on all of the training split once, in an order drawn from the recipe's seed and ``epoch``.

    Dropout draws from the global generator, which the caller seeds. ``after_update`` is called after every update with
    what tells where the epoch stands; it may end the epoch by raising. Called again with that as ``midway``, and the
    ``fitting`` of that moment, an epoch goes on as if it had never stopped. Raises :class:`Diverged` within the epoch
    when the loss becomes NaN or infinite.
    """
    section, device = recipe.train, fitting.device
    count, home = len(splits.train), splits.train.inputs.device
    vary.begin_epoch(epoch)
    fitting.begin_epoch(epoch)
    # Drawn on the host wherever the examples are: where they fit depends on what else a GPU holds.
    order = torch.randperm(count, generator=generator(torch.device("cpu"), recipe.seed, "order", epoch)).to(home)
    batches = torch.split(order, batch_sizes(count, section.batch_size))
    score = SCORES[splits.target.task]
    reads_wait = device.type == "cuda" or fitting.ranks.size > 1
    tally = Tally(epoch, fitting.ranks, steps_between_reads=_STEPS_BETWEEN_READS if reads_wait else 1)
    lr, begun = fitting.lr, 0
    if midway is not None:
        lr, begun = _go_on(midway, tally, vary)
    for step, start in enumerate(range(0, len(batches), section.accumulate), start=1):
        if step <= begun:
            continue
        group = batches[start : start + section.accumulate]
        examples = sum(map(len, group))
        for rows in group:
            batch = gather_gradient(fitting, vary, rows, share=len(rows) / examples, is_last=rows is group[-1])
            counted = score.function(batch.outputs, batch.targets, batch.blend)
            tally.add_batch(len(rows), batch.loss, counted if batch.copies == 1 else counted / batch.copies)
        lr = fitting.lr
        tally.add_step(*fitting.update(), lr=lr)
        after_update(functools.partial(_midway, step, lr, tally, vary))
    fitting.end_epoch(epoch)
    return tally.close(lr, score.name, splits.target.std)


def _midway(step: int, lr: float, tally: Tally, vary: Variation) -> Midway:
    state = {"lr": lr, "tally": tally.state(), "variation": vary.state(), "random": random_state(vary.device)}
    return Midway(step, state)


def _go_on(midway: Midway, tally: Tally, vary: Variation) -> tuple[float, int]:
    """Put everything back as it was; the learning rate of the update before, and how many there have been.

    An epoch that one process began may be ended by several: the draws go on in the first, the others begin their own.
    """
    tally.load_state(midway.state["tally"], vary.device)
    if vary.ranks.leads:
        vary.load_state(midway.state["variation"])
        set_random_state(vary.device, midway.state["random"])
    lr: float = midway.state["lr"]
    return lr, midway.steps


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch that has been through the model, or this rank's part of it."""

    loss: Tensor
    """Mean over its examples, a scalar; with several ranks this one's part, which sums to it over all."""
    outputs: Tensor
    """(N, K), float32."""
    targets: Tensor
    """(N,)."""
    blend: tuple[Tensor, float] | None
    """Other targets (N,) and the share of ``targets``, where examples were mixed."""
    copies: int = 1
    """How many ranks have these same examples."""


def gather_gradient(fitting: Fitting, vary: Variation, rows: Tensor, share: float, is_last: bool = True) -> Batch:
    """Add ``share`` of the gradient of the examples in ``rows`` (N,) to what the next update applies.

    Each rank takes its part of ``rows``, which are the same on all. ``is_last`` is true for the last batch before an
    update: only then do the ranks share what they gathered. What is drawn for a batch is drawn for all of it; then it
    passes through the model in chunks of ``train.micro_batch``.
    """
    ranks, section = fitting.ranks, fitting.recipe.train
    part = ranks.part(rows)
    count = len(part.rows)
    inputs, targets, blend = vary(part.rows)
    loss, outputs, end = torch.zeros((), device=fitting.device), [], 0
    for size in chunk_sizes(count, count if part.copies > 1 else len(rows) // ranks.size, section):
        start, end = end, end + size
        chunk_blend = None if blend is None else (blend[0][start:end], blend[1])
        with fitting.batch(is_last and end == count):
            with autocast(section.precision, fitting.device), _named_small_batch(size, count):
                chunk_outputs = fitting.forward(inputs[start:end])
            chunk_outputs = chunk_outputs.float()
            mean = mean_loss(fitting.loss, chunk_outputs, targets[start:end], chunk_blend)
            if fitting.distillation is not None:
                mean = fitting.distillation.total_loss(mean, chunk_outputs, inputs[start:end])
            chunk_loss = _times(mean, part.share(len(rows)) * (size / count))
            # The gradient becomes the mean over the ranks, each of which has only its part of the loss.
            fitting.scaler.scale(_times(chunk_loss, share * ranks.size)).backward()  # type: ignore[no-untyped-call]
        loss += chunk_loss.detach()
        outputs.append(chunk_outputs.detach())
    return Batch(loss, torch.cat(outputs), targets, blend, part.copies)


def _times(value: Tensor, factor: float) -> Tensor:
    return value if factor == 1 else value * factor


@dataclass(frozen=True)
class Score:
    """What is counted while training, beside the loss: a sum over the examples of a batch."""

    name: str
    function: Callable[[Tensor, Tensor, tuple[Tensor, float] | None], Tensor]


SCORES = {"classification": Score("accuracy", correct_count), "regression": Score("mae", absolute_error)}


@contextlib.contextmanager
def _named_small_batch(size: int, batch: int) -> Iterator[None]:
    """Say in our words that batch norm cannot take the variance of a single value a channel."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        # Of a smaller chunk: a larger one does not fit into memory, which is why there are chunks.
        key, kind = ("batch_size", TrialError) if size == batch else ("micro_batch", OutOfMemory)
        raise kind(
            f"train.{key}: found a batch of {size} example(s), over which batch norm has no variance; expected "
            "at least 2; raise it, or set model.norm to layer or group"
        ) from error


class Variation:
    """What happens to the examples of a batch before the model sees them: augment, normalise, mix."""

    def __init__(self, splits: Splits, recipe: Recipe, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.splits = splits
        self.recipe = recipe
        self.device = device
        self.ranks = ranks
        self._augmentation = Augmentation(recipe.data, splits)
        self.begin_epoch(1)

    def begin_epoch(self, epoch: int) -> None:
        """Draw what ``epoch`` draws, whatever was drawn before."""
        seed, place = self.recipe.seed, self.ranks.place
        self._augment = generator(self.device, seed, "augment", epoch, *place)
        # On the host: the blend ratio is needed there, and reading it from a GPU would wait for all queued work.
        self._mix = generator(torch.device("cpu"), seed, "mix", epoch, *place)

    def state(self) -> dict[str, Tensor]:
        """Where the draws of an epoch stand."""
        return {"augment": self._augment.get_state(), "mix": self._mix.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of :meth:`state`."""
        self._augment.set_state(state["augment"])
        self._mix.set_state(state["mix"])

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, float] | None]:
        """Rows (N,) of the training split -> the model's inputs, targets, and the blend with other targets."""
        data, split = self.recipe.data, self.splits.train
        raw = split.inputs[rows]
        if self._augmentation:
            raw = self._augmentation(on_device(raw, self.device), on_device(rows, self.device), self._augment)
        inputs = model_inputs(raw, self.splits.preprocess, self.device, self.recipe.train.channels_last)
        targets = on_device(split.targets[rows], self.device)
        if data.mix == "none":
            return inputs, targets, None
        mixed = MIXES[data.mix](inputs, targets, data.mix_alpha, self._mix)
        return mixed.inputs, mixed.targets_a, (mixed.targets_b, mixed.lam)
