"""Ranks beside the test's own, and what a test has all of them do: real processes in a real process group."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from small_splits import features, random_split, recipe_of, splits_of
from torch import Tensor, nn
from torch.distributed import FileStore

from trials.begin import begin
from trials.checkpoint import TrialFolder
from trials.data import Split, Splits, Target
from trials.examples import load_examples
from trials.fit.distributed import Averaged, Ranks
from trials.fit.evaluate import Evaluation, evaluate
from trials.fit.fitting import Fitting
from trials.fit.step import Variation, steps_per_epoch, train_epoch
from trials.fit.tally import EpochTraining
from trials.parallel import process_group
from trials.recipe import Recipe
from trials.seed import seed_global_state

CPU = torch.device("cpu")
FEATURES, CLASSES = 5, 3
SEED = 3

Work = Callable[..., Any]
"""Takes the ranks as seen from one of them, and more."""


@dataclass
class Team:
    """This process is rank 0; the others wait to be told what to run."""

    size: int
    others: list[Connection]

    def run(self, work: Work, *arguments: Any) -> list[Any]:
        """What each rank made of ``work(ranks, *arguments)``, by rank: its result, or what it raised."""
        for other in self.others:
            other.send((work, arguments))
        return [_outcome(work, Ranks(0, self.size), arguments), *(other.recv() for other in self.others)]


@contextlib.contextmanager
def team(size: int, store: Path) -> Iterator[Team]:
    context, others, processes = multiprocessing.get_context("spawn"), [], []
    for rank in range(1, size):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=_serve, args=(Ranks(rank, size), theirs, str(store)), daemon=True))
        processes[-1].start()
        theirs.close()
        others.append(ours)
    try:
        with process_group(Ranks(0, size), CPU, FileStore(str(store), size)):
            yield Team(size, others)
            for other in others:
                other.send(None)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve(ranks: Ranks, orders: Connection, store: str) -> None:
    torch.set_num_threads(1)
    with process_group(ranks, CPU, FileStore(store, ranks.size)):
        while (order := orders.recv()) is not None:
            work, arguments = order
            orders.send(_outcome(work, ranks, arguments))


def _outcome(work: Work, ranks: Ranks, arguments: tuple[Any, ...]) -> Any:
    try:
        return work(ranks, *arguments)
    except Exception as error:  # noqa: BLE001  the test says which one it expects
        return error


@dataclass
class Trained:
    """What one rank has after its training."""

    state: dict[str, Tensor]
    averages: dict[str, dict[str, Tensor]]
    epochs: list[EpochTraining]
    steps: int


class InDoubles(nn.Module):
    """Computes in float64, so that sums in another order agree to many digits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.double()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.inner(inputs.double())
        return outputs


class WithSpare(nn.Module):
    """Has a layer that takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(FEATURES, CLASSES), nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.used(inputs)
        return outputs


def plain() -> nn.Module:
    return InDoubles(nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES)))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))


def dropping() -> nn.Module:
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(FEATURES, CLASSES))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "normed": normed,
    "dropping": dropping,
    "with_spare": WithSpare,
}


def train(
    ranks: Ranks,
    model: str,
    split: Split,
    section: dict[str, Any],
    epochs: int = 1,
    data: dict[str, Any] | None = None,
    model_section: dict[str, Any] | None = None,
) -> Trained:
    """Train ``model`` on ``split`` for some epochs."""
    sections = {"seed": SEED} if model_section is None else {"seed": SEED, "model": model_section}
    recipe = recipe_of({"epochs": epochs} | section, data, **sections)
    splits = all_of(split)
    torch.manual_seed(0)
    steps = steps_per_epoch(len(split), recipe.train)
    fitting = Fitting(MODELS[model](), recipe, splits.target, steps, CPU, head="inner.2", ranks=ranks)
    vary = Variation(splits, recipe, CPU, ranks)
    trained = [train_epoch(fitting, splits, vary, epoch, recipe) for epoch in range(1, epochs + 1)]
    averages = {kind: average.state_dict() for kind, average in fitting.averages().items()}
    return Trained(fitting.model.state_dict(), averages, trained, fitting.steps)


def judge(ranks: Ranks, model: str, split: Split, batch_size: int) -> Evaluation:
    """What ``model`` is worth as it starts out."""
    torch.manual_seed(0)
    return evaluate(MODELS[model](), split, all_of(split), recipe_of({"batch_size": batch_size}), CPU, ranks)


def draw_dropout(ranks: Ranks, place: str) -> Tensor:
    """What dropout leaves of ten ones, and what a generator of the epoch's gives."""
    seed_global_state(CPU, SEED, place, *ranks.place)
    return nn.functional.dropout(torch.ones(64), 0.5)


def gather_twice(ranks: Ranks, batches: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The gradient of a weight after each of two batches, of which each rank takes row number ``rank``."""
    weight = nn.Linear(1, 1, bias=False)
    averaged, gradients = Averaged(weight, weight, CPU), []
    for batch, is_last in zip(batches, (False, True), strict=True):
        with averaged.batch(is_last):
            averaged(batch[ranks.rank]).sum().backward()
        assert weight.weight.grad is not None
        gradients.append(weight.weight.grad.clone())
    return gradients


def decide(ranks: Ranks) -> str:
    return ranks.agree(lambda: f"decided by rank {ranks.rank}")


def begin_from_files(ranks: Ranks, recipe: Recipe, folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    """The weights that a training begins with, those of its teacher, and notes; the files are rank 0's alone."""
    where = TrialFolder(folder if ranks.leads else folder / "another" / "node")
    fitting, notes = begin(recipe, where, load_examples(recipe, CPU), CPU, ranks)
    assert fitting.distillation is not None
    return fitting.model.state_dict(), fitting.distillation.teacher.state_dict(), notes


def some_rows(count: int) -> Split:
    return random_split(count, FEATURES, CLASSES)


def all_of(split: Split) -> Splits:
    """Every split is ``split``, some of whose classes may not occur."""
    counts = torch.bincount(split.targets, minlength=CLASSES)
    target = Target("classification", tuple("abc"), tuple(counts.tolist()))
    return splits_of(split, features(FEATURES), target)
