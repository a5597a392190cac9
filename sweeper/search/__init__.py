"""What to train next, whether it goes on, and what came of it. The only package that knows Optuna.

Optuna keeps the history of a study in its own tables (RDB storage), under a name that the catalog tells: the study's
own, or ``NAME@2``, ``NAME@3``... after it was written anew from the catalog.
"""

from __future__ import annotations

from sweeper.search.histories import forget, forget_others, told_values
from sweeper.search.rebuild import rebuild
from sweeper.search.records import Told, expected, histories, read_history
from sweeper.search.search import Proposal, Search

__all__ = [
    "Proposal",
    "Search",
    "Told",
    "expected",
    "forget",
    "forget_others",
    "histories",
    "read_history",
    "rebuild",
    "told_values",
]
