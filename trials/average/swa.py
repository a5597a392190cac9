"""Stochastic weight averaging: the plain mean of the weights along the last part of a training (arXiv:1803.05407)."""

from __future__ import annotations

from torch.optim.swa_utils import get_swa_multi_avg_fn

from trials.average.follow import Follower
from trials.recipe import Swa


def first_averaged_epoch(section: Swa, epochs: int) -> int:
    """The first epoch (from 1) that is trained after the share ``start`` of ``epochs`` has passed.

    >>> first_averaged_epoch(Swa(start=0.75), epochs=12)
    10
    """
    # Rounded first: 0.7 * 10 is a little less than 7 in floating point.
    return int(round(section.start * epochs, 9)) + 1


def snapshots_until(epoch: int, section: Swa, epochs: int) -> int:
    """How many snapshots have been taken once ``epoch`` (from 1) is over.

    >>> [snapshots_until(epoch, Swa(start=0.5, every_epochs=2), epochs=6) for epoch in range(1, 7)]
    [0, 0, 0, 1, 1, 2]
    """
    since = epoch - first_averaged_epoch(section, epochs)
    return 0 if since < 0 else since // section.every_epochs + 1


class WeightSwa(Follower):
    """A copy of a model whose weights are the mean of the snapshots taken of it.

    It holds no count of its own: the caller says how many snapshots there are, so that loading the copy's weights
    continues exactly. Its batch norm statistics are those of no model, and must be measured anew before it is used.
    """

    def take(self, snapshots_before: int) -> None:
        """Take the weights of now as one more snapshot: ``mean += (w - mean) / (snapshots_before + 1)``."""
        self.follow(get_swa_multi_avg_fn(), snapshots_before)  # type: ignore[no-untyped-call]
