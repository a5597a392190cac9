"""What is predicted: one of several classes, or a number."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


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

    @property
    def outputs(self) -> int:
        """How many numbers the model gives for an example: one a class, or one."""
        return len(self.classes) if self.task == "classification" else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Target:
        """The inverse of :meth:`to_dict`."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
