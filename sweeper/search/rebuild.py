"""A history written anew from the catalog: what the search would know had it been told all of it as it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweeper.catalog import EpochRow, TrialRow
from sweeper.study import Study


def rebuild(
    study: Study, url: str, name: str, trials: Sequence[TrialRow], epochs: Mapping[int, list[EpochRow]]
) -> None:
    """Write the history ``name`` from rows of the catalog."""
    raise NotImplementedError
