"""The small real studies that faults are injected into, and the model of theirs that writes down what it trains on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NAME = "faulty"
MARK = "model.arguments.mark"
"""Drawn anew for each trial: what the model writes beside each batch, by which its trial is known."""

MODEL = '''\
"""A linear model that says on which batch of which trial it is trained; slow, so that there is time to be killed."""

import os
import time
from pathlib import Path

import torch
from torch import nn

LOG = Path(__file__).with_name("trained.log")


class Logged(nn.Module):
    def __init__(self, num_classes, mark):
        super().__init__()
        self.mark = mark
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, images):
        if self.training:
            self.batches += 1
            with LOG.open("a") as log:
                log.write(f"{self.mark!r} {int(self.batches)} {os.getpid()}\\n")
            time.sleep(0.02)
        return self.net(images)


def build(num_classes, mark):
    return Logged(num_classes, mark)
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

    def text(self) -> str:
        """study.yaml."""
        return f"""\
study: {NAME}
seed: 7
data: {{source: digits}}
model: {{build: "logged_net:build", arguments: {{mark: {{uniform: [0.0, 1.0]}}}}}}
train:
  epochs: {self.epochs}
  batch_size: 256
  optimizer: {{name: sgd, lr: {{log: [0.01, 0.3]}}, momentum: {{choice: [0.0, 0.9]}}}}
  ema: {{decay: 0.9}}
search: {{trials: {self.trials}, {self.search}}}
workers: {{concurrent: {self.concurrent}, cpus: 0.5}}
average: {{best_n: 3}}
"""

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
}
