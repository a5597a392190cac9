"""The README of what was made of several studies: that of any model, with what it was compared with in place of where
it stands in its study."""

from __future__ import annotations

from sweeper.soup.outcome import Outcome, judgement, remarks, rows

_SCORES = "| split | metric |"
"""How the table of a model card begins: what stands before it is of one study."""


def card(outcome: Outcome, of_model: str) -> str:
    """The card of the best of ``outcome``, made from the one that `sweeper.publish.pack` wrote of it."""
    _, scores, rest = of_model.partition(_SCORES)
    best = outcome.best
    lines = [
        f"# {outcome.name}: the {best.way}",
        "",
        f"Made by `sweeper soup {' '.join(outcome.studies)}`: {best.notes[0]}. It was chosen on the selection split, "
        "which the studies share, among:",
        "",
        "| way | selection | confirmation | what it is |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows(outcome)),
        "",
        f"By {outcome.metric}: {judgement(outcome)}.",
        "",
        *(f"- {remark}" for remark in remarks(outcome)),
        "",
        "",
    ]
    return "\n".join(lines) + scores + rest
