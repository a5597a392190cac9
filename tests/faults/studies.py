"""The small real studies that faults are injected into, and the model of theirs that writes down what it trains on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NAME = "faulty"

MODEL = '''\
"""A linear model that says on which batch of which trial it is trained; slow, so that there is time to be killed.

The trial is the one whose folder this process has locked. Batches are counted by the weights, so that those count too
that were trained on before a trial began from other weights.
"""

import os
import re
import time
from pathlib import Path

import torch
from torch import nn

LOG = Path(__file__).with_name("trained.log")


def trial():
    opened = []
    for file in os.listdir("/proc/self/fd"):
        try:
            opened.append(os.readlink(f"/proc/self/fd/{file}"))
        except OSError:  # closed since
            pass
    [number] = {int(found[1]) for path in opened if (found := re.search(r"/trials/(\\d+)/\\.lock$", path))}
    return number


class Logged(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, images):
        if self.training:
            self.batches += 1
            with LOG.open("a") as log:
                log.write(f"{trial()} {int(self.batches)} {os.getpid()}\\n")
            time.sleep(0.02)
        return self.net(images)


def build(num_classes):
    return Logged(num_classes)
'''


@dataclass(frozen=True)
class Variant:
    """A study; in all of them an uninterrupted run is deterministic, whatever the timing."""

    name: str
    search: str
    trials: int
    epochs: int
    concurrent: int
    """Trials at a time; more than one only where nothing sampled depends on what has ended before."""
    average: str = "best_n: 3"
    finish: str | None = None
    """What comes after the search, if anything."""

    def text(self) -> str:
        """study.yaml."""
        finish = "" if self.finish is None else f"finish: {{{self.finish}}}\n"
        return f"""\
study: {NAME}
seed: 7
data: {{source: digits}}
model: {{build: "logged_net:build"}}
train:
  epochs: {self.epochs}
  batch_size: 256
  optimizer: {{name: sgd, lr: {{log: [0.01, 0.3]}}, momentum: {{choice: [0.0, 0.9]}}}}
  ema: {{decay: 0.9}}
search: {{trials: {self.trials}, {self.search}}}
workers: {{concurrent: {self.concurrent}, cpus: 0.5}}
average: {{{self.average}}}
{finish}"""

    def write(self, folder: Path) -> Path:
        """study.yaml and its model in a folder of their own; the path of the former."""
        folder.mkdir(parents=True)
        (folder / "logged_net.py").write_text(MODEL)
        path = folder / "study.yaml"
        path.write_text(self.text())
        return path


VARIANTS = {
    "wide": Variant("wide", "sampler: random, pruner: {name: none}", trials=5, epochs=8, concurrent=2),
    # More trials than the ten that TPE starts with, and a pruner: both go by the whole history.
    "guided": Variant(
        "guided", "sampler: tpe, pruner: {name: median, startup_trials: 3}", trials=13, epochs=4, concurrent=1
    ),
    # Beside the search's trials: a trunk, soups, ensembles, longer training, students, and all of it from a fresh seed.
    "finished": Variant(
        "finished",
        "sampler: random, pruner: {name: none}",
        trials=3,
        epochs=4,
        concurrent=2,
        average="trunk_epochs: 1, best_n: 2",
        finish="epochs: 6, pool: 3, branches: 2, finalists: 2, seeds: 1",
    ),
}
