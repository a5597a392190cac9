"""What was tried across studies, on the screen."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeper.soup.outcome import Outcome, judgement, remarks, rows
from trials.result import METRICS


def print_outcome(outcome: Outcome, console: Console) -> None:
    """The ways and their worth as a table, then what was refused and why, then what averaging gained."""

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    lower = " (lower is better)" if METRICS[outcome.metric] == "minimize" else ""
    line(f"soup of {', '.join(outcome.studies)}: {outcome.metric}{lower}")
    columns = ("", "selection", "confirmation", "")
    shown = [index for index in range(len(columns)) if index != 2 or outcome.confirmation is not None]
    table = Table(box=None)
    for index in shown:
        table.add_column(columns[index], justify="right" if columns[index] else "left")
    for row in rows(outcome):
        table.add_row(*(Text(row[index]) for index in shown))
    console.print(table)
    for remark in remarks(outcome):
        line(remark)
    line(judgement(outcome))
