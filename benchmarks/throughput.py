"""Examples per second of `run_trial` beside a loop written by hand and beside Lightning, all doing the same work.

    python ../shared/data/fetch.py cifar10
    .venv/bin/python -m benchmarks.throughput
    .venv/bin/python -m benchmarks.throughput --options

A small ResNet on a part of CIFAR-10 with crops, flips and a moving average of the weights (`benchmarks.loops` says what
the work is). The three take turns, each time in another order. A rate is taken over whole epochs, evaluation and
checkpoint included, after a first epoch that warms up. A ratio compares neighbours: what a turn of `run_trial` did to
what the others did in the same round; the median over the rounds is what counts. With `--options`, `run_trial` runs
beside itself instead, one speed option changed at a time (`benchmarks.speed_options`).
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import speed_options
from benchmarks.loops import Timeline, Work, bare_loop, lightning_loop
from benchmarks.results import machine, table, write_section
from trials.data import load_splits
from trials.data.preprocess import ArrayPreprocess
from trials.model.build import build_model
from trials.recipe import Recipe
from trials.result import EpochReport
from trials.train import run_trial

CIFAR10 = Path(os.environ.get("SWEEPER_DATA", "~/.cache/sweeper-data")).expanduser() / "cifar10.npz"
OURS, BARE, LIGHTNING = "run_trial", "bare loop", "Lightning"


def part_of_cifar10(examples: int, path: Path) -> None:
    """Write the first training examples, with ten times fewer test examples that nobody looks at."""
    if not CIFAR10.exists():
        sys.exit(f"{CIFAR10} is missing; lay it out with: python ../shared/data/fetch.py cifar10")
    with np.load(CIFAR10) as whole:
        test = max(10, examples // 10)
        limits = {"x_train": examples, "y_train": examples, "x_test": test, "y_test": test}
        np.savez(path, **{name: whole[name][:limit] for name, limit in limits.items()})


def recipe_of(path: Path, arguments: argparse.Namespace) -> Recipe:
    """The work in a recipe's words."""
    return Recipe.model_validate(
        {
            "data": {"source": f"npz:{path}", "validation": 0.1, "augment": ["random_crop", "horizontal_flip"]},
            "model": {"build": "small_resnet", "width": arguments.width, "blocks": arguments.blocks},
            "train": {
                "epochs": arguments.epochs + 1,
                "batch_size": arguments.batch_size,
                "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
                "schedule": {"name": "cosine"},
                "precision": arguments.precision,
                "ema": {"decay": 0.99},
            },
        }
    )


def work_of(recipe: Recipe, device: torch.device) -> Work:
    """The same work for the other loops: the same split, network and numbers."""
    splits = load_splits(recipe.data, device)
    preprocess, optimizer = splits.preprocess, recipe.train.optimizer
    assert isinstance(preprocess, ArrayPreprocess)
    scale = torch.tensor(preprocess.scale, device=device)
    assert optimizer.name == "sgd"
    assert recipe.train.ema is not None
    return Work(
        images=splits.train.inputs,
        targets=splits.train.targets,
        validation_images=splits.selection.inputs,
        validation_targets=splits.selection.targets,
        mean=scale * torch.tensor(preprocess.mean, device=device).view(1, -1, 1, 1),
        std=scale * torch.tensor(preprocess.std, device=device).view(1, -1, 1, 1),
        make_model=functools.partial(build_model, recipe.model, preprocess.spec, splits.target.outputs),
        epochs=recipe.train.epochs,
        batch_size=recipe.train.batch_size,
        lr=optimizer.lr,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        ema_decay=recipe.train.ema.decay,
        bf16=recipe.train.precision == "bf16",
    )


def our_trial(recipe: Recipe, device: torch.device, folder: Path) -> Timeline:
    """`run_trial`, timed by its own reports."""
    timeline = Timeline()

    def report(epoch: EpochReport) -> bool:
        timeline.note(epoch.metrics["validation.ema.accuracy"])
        return True

    run_trial(recipe, folder / "trial", report, device)
    return timeline


def rate(timeline: Timeline, examples: int) -> float:
    """Examples per second over all epochs but the first."""
    epochs = len(timeline.seconds) - 1
    return epochs * examples / (timeline.seconds[-1] - timeline.seconds[0])


def compare(recipe: Recipe, device: torch.device, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Rates of each contestant by round, and the last accuracy of each."""
    work = work_of(recipe, device)
    contestants: dict[str, Callable[[Path], Timeline]] = {
        OURS: functools.partial(our_trial, recipe, device),
        BARE: functools.partial(bare_loop, work),
        LIGHTNING: functools.partial(lightning_loop, work),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    accuracies: dict[str, float] = {}
    names = list(contestants)
    for turn in range(rounds):
        for name in names[turn % 3 :] + names[: turn % 3]:
            with tempfile.TemporaryDirectory() as folder:
                timeline = contestants[name](Path(folder))
            if len(timeline.seconds) != work.epochs:
                sys.exit(f"{name} noted {len(timeline.seconds)} epochs, expected {work.epochs}")
            rates[name].append(rate(timeline, len(work.images)))
            accuracies[name] = timeline.accuracies[-1]
        print(", ".join(f"{name} {values[-1]:.0f}/s" for name, values in rates.items()), flush=True)
    return rates, accuracies


def report_of(rates: dict[str, list[float]], accuracies: dict[str, float], what: str) -> str:
    """The medians as a table, and the two ratios that matter."""
    rows = [
        (
            name,
            f"{statistics.median(values):.0f}",
            f"{min(values):.0f} to {max(values):.0f}",
            f"{accuracies[name]:.3f}",
        )
        for name, values in rates.items()
    ]
    against = {
        name: statistics.median(ours / theirs for ours, theirs in zip(rates[OURS], rates[name], strict=True))
        for name in (BARE, LIGHTNING)
    }
    return "\n".join(
        [
            what + "\n",
            table(("by", "examples/s (median)", "range", "accuracy of the average, last round"), rows),
            f"run_trial: {against[BARE]:.3f} of the bare loop (wanted: at least 0.95), "
            f"{against[LIGHTNING]:.3f} of Lightning (wanted: above 1); medians over {len(rates[OURS])} rounds.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--examples", type=int, default=5000, help="training and validation examples")
    parser.add_argument("--epochs", type=int, default=2, help="epochs measured, after one that warms up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--options", action="store_true", help="compare the speed options of a recipe instead")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on a CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cifar10-part.npz"
        part_of_cifar10(arguments.examples, path)
        recipe = recipe_of(path, arguments)
        examples = len(load_splits(recipe.data, device).train)
        if arguments.options:
            measure = functools.partial(rate, examples=examples)
            options = speed_options.compare(recipe, device, arguments.rounds, our_trial, measure)
        else:
            rates, accuracies = compare(recipe, device, arguments.rounds)
    what = (
        f"Small ResNet (width {arguments.width}, {arguments.blocks} blocks a stage), {arguments.examples} examples of "
        f"CIFAR-10, batches of {arguments.batch_size}, {arguments.precision}, {arguments.rounds} rounds of "
        f"{arguments.epochs} epochs:"
    )
    command = " ".join([".venv/bin/python -m benchmarks.throughput", *sys.argv[1:]])
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    where = machine(("torch", "lightning"), gpu)
    body = speed_options.report_of(options, what) if arguments.options else report_of(rates, accuracies, what)
    print(body)
    title = "Speed options" if arguments.options else "Throughput"
    write_section(f"{title} ({'GPU' if device.type == 'cuda' else 'CPU'})", command, where, body)


if __name__ == "__main__":
    main()
