"""The command that makes one model of several studies."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from sweeper.commands.shared import catalog_of, example, home_option, make_console, settings_of


@click.command(epilog=example("sweeper soup photos scans -o both\n  sweeper soup photos scans --ensemble"))
@click.argument("studies", nargs=-1, metavar="STUDY STUDY...")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder to make; default: STUDY-STUDY-soup.")
@click.option("--ensemble", is_flag=True, help="Try an ensemble too: several models, whose answers are averaged.")
@home_option
def soup(studies: tuple[str, ...], out: Path | None, ensemble: bool, home: Path | None) -> None:
    """Average the best weights of several finished studies that share a pretrained start or a trunk.

    The uniform and the greedy soup are compared with the best single model on the selection split, which the studies
    must share; the best is written as a folder for `sweeper predict`, beside it a picture of the barriers between the
    weights. The test split is not read, the studies stay as they are.
    """
    from sweeper.soup.make import make
    from sweeper.soup.outcome import name_of
    from sweeper.soup.table import print_outcome

    settings, console = settings_of(home), make_console()
    target = out or Path(name_of(studies))
    status = console.status("reading the catalog") if console.is_terminal else None
    with status or nullcontext():
        outcome = make(
            catalog_of(settings),
            studies,
            settings,
            target,
            ensemble=ensemble,
            say=status.update if status is not None else lambda _: None,
        )
    print_outcome(outcome, console)
    if outcome.barriers is not None:
        click.echo(f"{outcome.barriers}: by how much the loss rises between each two of them")
    if not outcome.made:
        click.echo("error: nothing could be made of these studies together, and no model was written", err=True)
        raise SystemExit(1)
    click.echo(f"{target}: weights, recipe, preprocessing and model card of the {outcome.best.way}")
