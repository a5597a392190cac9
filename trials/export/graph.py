"""What an exported model takes and gives, and the module that is exported: preprocessing and answers inside."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trials.data import Preprocess, TablePreprocess
from trials.data.preprocess import ArrayPreprocess
from trials.data.table import CategoryColumn
from trials.package import Answering

RAW = {
    "image": "images as the data source gives them, channels last; the graph scales and normalises them",
    "features": "numbers as the data source gives them; the graph normalises them",
    "table": "cells in the order of the columns, NaN where one is missing; the graph normalises them",
}
"""What a graph takes that does its own preprocessing, by kind of examples."""

PREPROCESSED = {
    "table": "rows after preprocessing: the graph cannot read names; `preprocess(rows)` of package.json makes them",
    "text": "word ids after preprocessing: the graph cannot read texts; `preprocess(texts)` of package.json makes them",
}
"""What a graph takes where preprocessing is more than arithmetic."""


@dataclass(frozen=True)
class Facts:
    """What whoever calls a graph needs to know; -1 stands for any number of examples."""

    input_name: str
    input_type: str
    input_shape: tuple[int, ...]
    input_meaning: str
    output_name: str
    output_shape: tuple[int, ...]
    output_meaning: str
    output_type: str = "float32"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for package.json."""
        return asdict(self)


class Graph(nn.Module):
    """A batch of examples -> float32 probabilities (N, classes), or values (N, 1) in units of the target.

    What a batch is, :func:`facts_of` says.
    """

    def __init__(self, answering: Answering, preprocess: Preprocess) -> None:
        super().__init__()
        self.answering = answering
        self._preprocess = preprocess
        # Its constants are made at the first use, which must not be the one that is recorded.
        preprocess.normalise(_held_zeros(preprocess, 1))

    def forward(self, batch: Tensor) -> Tensor:
        """``batch`` as :func:`batch_of` makes it."""
        if isinstance(self._preprocess, ArrayPreprocess) and self._preprocess.kind == "image":
            batch = (batch[..., None] if self._preprocess.shape[0] == 1 else batch).permute(0, 3, 1, 2)
        inputs = self._preprocess.normalise(batch) if takes_raw(self._preprocess) else batch
        outputs: Tensor = self.answering(inputs).float()
        return outputs.softmax(dim=1) if self.answering.target.task == "classification" else outputs


def takes_raw(preprocess: Preprocess) -> bool:
    """Whether the preprocessing is plain arithmetic, which a graph can hold."""
    if isinstance(preprocess, TablePreprocess):
        return not any(isinstance(column, CategoryColumn) for column in preprocess.fields)
    return isinstance(preprocess, ArrayPreprocess)


def batch_of(preprocess: Preprocess, held: Tensor) -> Tensor:
    """Examples as a split holds them (N, ...) -> what a :class:`Graph` takes."""
    if not takes_raw(preprocess):
        return preprocess.normalise(held)
    if isinstance(preprocess, ArrayPreprocess) and preprocess.kind == "image":
        channels_last = held.permute(0, 2, 3, 1)
        return (channels_last.squeeze(3) if preprocess.shape[0] == 1 else channels_last).contiguous()
    return held


def example_batch(preprocess: Preprocess, count: int = 2) -> Tensor:
    """``count`` examples of nothing, as a :class:`Graph` takes them."""
    return batch_of(preprocess, _held_zeros(preprocess, count))


def facts_of(answering: Answering, preprocess: Preprocess) -> Facts:
    """What the :class:`Graph` of this model takes and gives."""
    batch, target = example_batch(preprocess), answering.target
    raw, is_classes = takes_raw(preprocess), target.task == "classification"
    meaning = (RAW if raw else PREPROCESSED)[preprocess.kind]
    if isinstance(preprocess, ArrayPreprocess) and preprocess.image_size is not None:
        meaning += f"; resized to {preprocess.image_size} x {preprocess.image_size} pixels before"
    return Facts(
        input_name={"image": "images", "text": "words"}.get(preprocess.kind, "rows"),
        input_type=str(batch.dtype).removeprefix("torch."),
        input_shape=(-1, *batch.shape[1:]),
        input_meaning=meaning,
        output_name="probabilities" if is_classes else "values",
        output_shape=(-1, target.outputs),
        output_meaning="one a class, in the order of target.classes" if is_classes else "in units of the target",
    )


def _held_zeros(preprocess: Preprocess, count: int) -> Tensor:
    """``count`` examples of zeros as a split holds them."""
    if isinstance(preprocess, TablePreprocess):
        return torch.zeros(count, len(preprocess.fields), dtype=torch.float64)
    if not isinstance(preprocess, ArrayPreprocess):
        return preprocess.spec.example(count).int()
    is_bytes = preprocess.scale == 255.0
    return torch.zeros(count, *preprocess.shape, dtype=torch.uint8 if is_bytes else torch.float32)
