"""Commands that take a model home and use it there."""

from __future__ import annotations

from pathlib import Path

import click

from sweeper.commands.shared import catalog_of, example, home_option, settings_of


@click.command(epilog=example("sweeper pull digits -o best"))
@click.argument("study")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder to make; default: STUDY-best.")
@home_option
def pull(study: str, out: Path | None, home: Path | None) -> None:
    """Copy the winner of STUDY: weights, recipe and model card."""
    from sweeper import publish
    from sweeper.study_folder import StudyFolder

    settings = settings_of(home)
    target = out or Path(f"{study}-best")
    publish.pull(catalog_of(settings), study, StudyFolder(settings.home, study), target)
    click.echo(f"{target}: weights.safetensors, recipe.json, package.json, README.md (how to load it)")
