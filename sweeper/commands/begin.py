"""Commands that help to write a study file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from sweeper.commands.shared import example


@click.command(epilog=example("sweeper init houses.csv --target price --task regression -o houses.yaml"))
@click.argument("source", default="digits")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("study.yaml"), show_default=True)
@click.option("--target", metavar="COLUMN", help="The column of a table that is predicted.")
@click.option(
    "--task",
    type=click.Choice(["classification", "regression"]),
    help="What is predicted of a table: a class (the default) or a number.",
)
@click.option("--text", metavar="COLUMN", help="The column of a table that holds texts to read.")
def init(
    source: str,
    out: Path,
    target: str | None,
    task: Literal["classification", "regression"] | None,
    text: str | None,
) -> None:
    """Write a commented study file for SOURCE.

    SOURCE is `digits`, a folder with one sub-folder of images per class, or a table in a .csv or .parquet file.
    """
    from sweeper.errors import StudyError
    from sweeper.starter import starter

    if out.exists():
        raise StudyError(f"{out}: exists already; choose another name with -o")
    out.write_text(starter(source, out, target=target, task=task, text=text), encoding="utf-8")
    click.echo(f"wrote {out}; run it with: sweeper start {out}")


@click.command(epilog=example("sweeper schema > study.schema.json"))
def schema() -> None:
    """Print the JSON Schema of study.yaml, for editors to complete and check it."""
    from sweeper.schema import study_schema

    click.echo(json.dumps(study_schema(), indent=2))
