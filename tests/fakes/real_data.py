"""Real data for tests, where it has been laid out: none of it is in the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real_data(name: str, file: str) -> Path:
    """The file of the data set ``name`` in $SWEEPER_DATA; the test is skipped where it is not there."""
    path = Path(os.environ.get("SWEEPER_DATA", "~/.cache/sweeper-data")).expanduser() / file
    if not path.exists():
        # CI, where the data cannot be, knows such a skip by its first words: see tests/conftest.py.
        pytest.skip(f"real data: {path} is not there; python ../shared/data/fetch.py {name} lays it out")
    return path
