"""Rows as the catalog answers with them, of which a test says only what it is about."""

from __future__ import annotations

from typing import Any

from sweeper.catalog import TrialRow


def trial_row(number: int = 0, **said: Any) -> TrialRow:
    """A complete trial of the search of which nothing else is known, but for what is ``said``."""
    row: dict[str, Any] = {
        "id": number,
        "study_id": 1,
        "number": number,
        "role": "search",
        "state": "complete",
        "params": {},
        "recipe": {},
        "value": None,
        "reason": None,
        "failure": None,
        "attempts": [],
        "facts": {},
        "started_at": 0.0,
        "ended_at": None,
        "run_id": None,
        "described": False,
        "files_delivered": False,
        "delivered": False,
    }
    return TrialRow(**row | said)
