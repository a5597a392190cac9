"""What is predicted: one of several classes, or a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from trials.data.moments import moments
from trials.errors import DataError


@dataclass(frozen=True)
class Target:
    """What the model's output means, with numbers taken from the training split only.

    Travels as JSON with the weights.
    """

    task: Literal["classification", "regression"]
    classes: tuple[str, ...] = ()
    """Names of the classes, by index; none in regression."""
    counts: tuple[int, ...] = ()
    """Training examples of each class."""
    mean: float = 0.0
    """Of the training targets in regression. The model predicts ``(target - mean) / std``."""
    std: float = 1.0
    """Population standard deviation, likewise."""

    @classmethod
    def of_classes(cls, indices: Tensor, classes: Sequence[str]) -> Target:
        """Count the training split: ``indices`` (N,) int64 into ``classes``."""
        counts = torch.bincount(indices, minlength=len(classes)).tolist()
        return cls("classification", tuple(classes), tuple(counts))

    @classmethod
    def of_numbers(cls, numbers: Tensor, where: str) -> Target:
        """Measure the training split: ``numbers`` (N,) float64. Raises ``DataError`` if they are all alike."""
        mean, std = moments(numbers.numpy())
        if std == 0:
            raise DataError(f"{where}: all {len(numbers)} training targets are {mean:g}; there is nothing to learn")
        return cls("regression", mean=mean, std=std)

    @property
    def outputs(self) -> int:
        """How many numbers the model gives for an example: one a class, or one."""
        return len(self.classes) if self.task == "classification" else 1

    def as_trained(self, targets: Tensor) -> Tensor:
        """Class indices as they are; numbers (N,) float64 -> standardised float32."""
        return targets if self.task == "classification" else ((targets - self.mean) / self.std).float()

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Target:
        """The inverse of :meth:`to_dict`."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**fields)
