"""Train one recipe: the straight line from data to weights worth keeping."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from trials.assemble import assemble
from trials.begin import begin
from trials.check.lr_finder import draw, find_lr
from trials.check.pictures import draw_pictures
from trials.checkpoint import TrialFolder
from trials.data import Splits
from trials.device import pick_device
from trials.disk import named_no_space
from trials.errors import DataError, Diverged, Interrupted, OutOfMemory, Pruned, TrialError, says_out_of_memory
from trials.examples import load_examples
from trials.fit.distributed import Ranks
from trials.fit.evaluate import evaluate, evaluation_batch_size, model_inputs
from trials.fit.fitting import Fitting
from trials.fit.precision import arithmetic
from trials.fit.step import Midway, Variation, train_epoch
from trials.history import History
from trials.keep import keep_weights, validation_metrics
from trials.locate import one_line
from trials.nodes import THIS_NODE, Nodes
from trials.parallel import all_ranks
from trials.recipe import Recipe
from trials.recipe.misfits import misfits
from trials.result import EpochReport, TrialResult, is_better
from trials.resume import resume, save
from trials.seed import kept_random_state, seed_global_state


def run_trial(
    recipe: Recipe,
    folder: Path | str,
    report: Callable[[EpochReport], bool] = lambda _: True,
    device: str | torch.device | None = None,
    stop: Callable[[], bool] = lambda: False,
    nodes: Nodes = THIS_NODE,
) -> TrialResult:
    """Train ``recipe`` in ``folder`` and return what it left there.

    Continues from the folder's newest checkpoint if there is one, bit for bit as if it had never stopped; returns the
    result at once if the trial is finished. ``report`` hears of every epoch once its state is saved, and stops the
    trial by answering ``False``; a continued trial first tells its newest epoch again, lest a kill swallowed it.
    ``stop`` is asked after every update; when it answers ``True``, the trial saves its state in the midst of the epoch
    and stops for now; run again, it ends with the same bytes as an unbroken one. With several processes it is asked
    only between epochs: each holds state of its own within one.
    A recipe with an ``assembly`` trains nothing and reports nothing: its soup or ensemble is made at once.
    ``device`` is a GPU when there is one, unless said otherwise. The caller's random state and torch's settings are
    left as they were.

    With ``train.data_parallel``, or ``nodes`` where that is left out, this process is the first of those that train
    together, on this node and on others; they end with this call. A trial may go on with another number of them.

    Raises :class:`TrialError` for keys that cannot go together, for a folder that belongs to another recipe or in which
    another process trains, :class:`DataError`, :class:`ModelError`, :class:`Diverged`, :class:`OutOfMemory`,
    :class:`ProcessLost` when one of the processes dies, :class:`Pruned` after a ``False``, :class:`Interrupted`
    after a ``True`` of ``stop``, and :class:`NoSpace` when the disk is full. A damaged checkpoint is no error:
    the trial goes on from the one before it, or begins anew, and tells again of the epochs that it trains again.

    >>> from trials import Recipe, run_trial
    >>> recipe = Recipe.model_validate_json('{"data": {"source": "digits"}, "model": {"build": "mlp"}}')
    >>> run_trial(recipe, "my-trial").weights[0].metrics  # doctest: +SKIP
    {'validation.loss': 0.14, 'validation.accuracy': 0.97}
    """
    check_recipe(recipe)
    where = TrialFolder(folder)
    with named_no_space(where.root), where.owned():
        where.set_aside_garbled_recipe()
        where.claim(recipe)
        result = where.read_result()
        if result is not None:
            return result
        where.remove_leftovers()
        place = pick_device(device)
        with kept_random_state(place), arithmetic(recipe.train.precision, place), _named_out_of_memory(place):
            splits = load_examples(recipe, place)
            result = _assemble_or_train(recipe, where, report, stop, splits, place, nodes)
        where.finish(result)
    return result


def _assemble_or_train(
    recipe: Recipe,
    where: TrialFolder,
    report: Callable[[EpochReport], bool],
    stop: Callable[[], bool],
    splits: Splits,
    place: torch.device,
    nodes: Nodes,
) -> TrialResult:
    """Make the soup or ensemble that the recipe asks for, or train."""
    if recipe.assembly is not None:
        return assemble(recipe, where, splits, place)
    with all_ranks(recipe, where.root, len(splits.train), place, nodes) as ranks, _named_out_of_memory(place):
        return _train(recipe, where, report, stop, splits, place, ranks)


def train_along(recipe: Recipe, folder: Path, splits: Splits, device: torch.device, ranks: Ranks) -> None:
    """Train as one of the ranks beside rank 0, which alone reads and writes the folder, and reports."""
    with arithmetic(recipe.train.precision, device), _named_out_of_memory(device):
        _train_epochs(recipe, TrialFolder(folder), lambda _: True, lambda: False, splits, device, ranks)


def _train(
    recipe: Recipe,
    where: TrialFolder,
    report: Callable[[EpochReport], bool],
    stop: Callable[[], bool],
    splits: Splits,
    place: torch.device,
    ranks: Ranks,
) -> TrialResult:
    fitting, history, notes = _train_epochs(recipe, where, report, stop, splits, place, ranks)
    started = time.perf_counter()
    weights, decisions = keep_weights(where, recipe, fitting, splits, history)
    if recipe.train.pictures:
        _draw(where, fitting, splits)
    return TrialResult(
        epochs=history.epochs,
        weights=weights,
        notes=(*notes, *_lr_note(fitting), *decisions, *where.notes),
        parameters=sum(parameter.numel() for parameter in fitting.parameters if parameter.requires_grad),
        seconds=history.seconds + time.perf_counter() - started,
        device=torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
        peak_memory_bytes=torch.cuda.max_memory_allocated(place) if place.type == "cuda" else 0,
        skipped_steps=fitting.skipped_steps,
        lr=fitting.top_lr,
    )


def check_recipe(recipe: Recipe) -> None:
    """Raise :class:`TrialError`, before anything is loaded, for keys of ``recipe`` that cannot go together."""
    found = "; ".join(map(str, misfits(recipe)))
    if found:
        raise TrialError(found)


def _train_epochs(
    recipe: Recipe,
    where: TrialFolder,
    report: Callable[[EpochReport], bool],
    stop: Callable[[], bool],
    splits: Splits,
    place: torch.device,
    ranks: Ranks,
) -> tuple[Fitting, History, tuple[str, ...]]:
    """All epochs that are still to train: what was fitted, how it went, and notes."""
    if ranks.agree(lambda: splits.digest) != splits.digest:
        raise DataError(
            f"{recipe.data.source}: found other data in each process of train.data_parallel, expected the same; "
            "seed what is random in it"
        )
    vary = Variation(splits, recipe, place, ranks)
    fitting, notes = begin(recipe, where, splits, place, ranks)
    history, midway = resume(where, recipe, fitting, splits.digest)
    if recipe.train.lr_finder is not None and not history.epochs and midway is None:
        _find_lr(where, fitting, vary)
    if history.epochs:
        # A kill may have come between the newest checkpoint and its report.
        _tell(report, history, ranks)
    while not history.over:
        if ranks.agree(stop):
            raise Interrupted(history.epochs + 1, 0 if midway is None else midway.steps)
        started = time.perf_counter() - history.begun_seconds
        after_update = functools.partial(_stop_midway, stop, where, fitting, history, splits.digest, started)
        _train_and_evaluate(recipe, fitting, splits, vary, history, midway, after_update)
        midway, history.begun_seconds = None, 0.0
        history.epoch_seconds.append(time.perf_counter() - started)
        if ranks.leads:
            save(where, fitting, history, splits.digest)
        history.epoch_seconds[-1] = time.perf_counter() - started
        _tell(report, history, ranks)
    return fitting, history, notes


def _stop_midway(
    stop: Callable[[], bool],
    where: TrialFolder,
    fitting: Fitting,
    history: History,
    data_digest: str,
    started: float,
    now: Callable[[], Midway],
) -> None:
    """If the outside says so, save where the epoch that began at ``started`` stands now, and end it."""
    if fitting.ranks.size > 1 or not stop():
        return
    midway = now()
    history.begun_seconds = time.perf_counter() - started
    save(where, fitting, history, data_digest, midway)
    raise Interrupted(history.epochs + 1, midway.steps)


def _find_lr(where: TrialFolder, fitting: Fitting, vary: Variation) -> None:
    """Train at the learning rate that a range test suggests, if it suggests one, and draw what it saw."""
    curve = find_lr(fitting, vary)
    if fitting.ranks.leads:
        draw(curve, where.pictures / "lr_finder.png")
    if curve.suggestion is not None:
        fitting.top_lr = curve.suggestion


def _lr_note(fitting: Fitting) -> tuple[str, ...]:
    train = fitting.recipe.train
    if train.lr_finder is None:
        return ()
    if fitting.top_lr == train.optimizer.lr:
        return (f"the range test found no learning rate (its picture says why), {fitting.top_lr:g} is the optimizer's",)
    return (f"learning rate {fitting.top_lr:.3g} found by the range test",)


def _draw(where: TrialFolder, fitting: Fitting, splits: Splits) -> None:
    """Draw what a trained model has learnt to look at."""
    examples = splits.selection.inputs[: evaluation_batch_size(fitting.recipe)]
    inputs = model_inputs(examples, splits.preprocess, fitting.device, fitting.recipe.train.channels_last)
    draw_pictures(fitting.model, inputs, where.pictures)


def _train_and_evaluate(
    recipe: Recipe,
    fitting: Fitting,
    splits: Splits,
    vary: Variation,
    history: History,
    midway: Midway | None,
    after_update: Callable[[Callable[[], Midway]], None],
) -> None:
    """Train one more epoch, from ``midway`` on if it was begun, and add what it came to to the history."""
    epoch, device = history.epochs + 1, fitting.device
    seed_global_state(device, recipe.seed, "epoch", epoch, *fitting.ranks.place)
    trained = train_epoch(fitting, splits, vary, epoch, recipe, midway, after_update)
    metrics = trained.metrics()
    models = {"raw": fitting.model} if fitting.ema is None else {"raw": fitting.model, "ema": fitting.ema.model}
    leading: dict[str, float] = {}
    for kind, model in models.items():
        evaluation = evaluate(model, splits.selection, splits, recipe, device, fitting.ranks)
        if not math.isfinite(evaluation.loss):
            raise Diverged(
                f"the validation loss ({kind}) became {evaluation.loss} after epoch {epoch}; "
                "lower train.optimizer.lr or set train.clip_norm"
            )
        found = validation_metrics(evaluation)
        if fitting.ema is not None:
            metrics |= {name.replace(".", f".{kind}."): value for name, value in found.items()}
        if not leading or is_better(recipe.metric, found[recipe.metric], than=leading[recipe.metric]):
            leading = found
    history.metrics.append(metrics | leading)


def _tell(report: Callable[[EpochReport], bool], history: History, ranks: Ranks) -> None:
    """Report the newest epoch; stop the trial, on all ranks, if the answer is no."""
    told = EpochReport(
        epoch=history.epochs,
        epochs=history.recipe.epochs,
        metrics=history.metrics[-1],
        seconds=history.epoch_seconds[-1],
    )
    if not ranks.agree(lambda: bool(report(told))):
        raise Pruned(history.epochs)


@contextlib.contextmanager
def _named_out_of_memory(device: torch.device) -> Iterator[None]:
    """Raise :class:`OutOfMemory` for each of the ways in which torch and Python say that memory is short."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or says_out_of_memory(error):
            raise OutOfMemory(
                f"{device}: out of memory; lower train.micro_batch, which keeps the gradient the same, or the model's "
                f"width ({one_line(error, limit=200)})"
            ) from error
        raise
