"""What was made of weights in place of a training."""

from __future__ import annotations

from dataclasses import dataclass

from trials.result import WeightsKind


@dataclass(frozen=True)
class Assembled:
    """What was made of weights; it lies at ``TrialFolder.kept_weights(kind)``."""

    kind: WeightsKind
    notes: tuple[str, ...]
    shares: tuple[float, ...] = ()
    """Of an ensemble, in the order of its recipe's members."""
