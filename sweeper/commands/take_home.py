"""Commands that take a model home and use it there."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import click

from sweeper.commands.shared import catalog_of, example, home_option, make_console, settings_of


@click.command(
    epilog=example(
        "sweeper pull digits -o best\n  sweeper pull digits --what soup --as onnx\n  sweeper pull digits --what trial:7"
    )
)
@click.argument("study")
@click.option(
    "--what",
    metavar="best|soup|ensemble|student|trial:N",
    default="best",
    show_default=True,
    help="The winner; or the best of a kind, or of a trial, by the selection split.",
)
@click.option(
    "--as",
    "form",
    type=click.Choice(["safetensors", "onnx", "torch-export", "mlflow"]),
    default="safetensors",
    show_default=True,
    help="What to write. A fresh process loads it, and must answer as the weights do.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder to make; default: STUDY-WHAT.")
@home_option
def pull(study: str, what: str, form: str, out: Path | None, home: Path | None) -> None:
    """Take a model of STUDY home: its winner, or the best soup, ensemble, student or weights of a trial."""
    from sweeper.export.forms import FORMS
    from sweeper.pull import pull as pull_model
    from sweeper.store.open import open_folder

    settings, console = settings_of(home), make_console()
    name = f"{study}-{what.replace(':', '-')}"
    target = out or Path(name if form == "safetensors" else f"{name}-{form}")
    status = console.status("reading the catalog") if console.is_terminal else None
    with status or nullcontext():
        pulled = pull_model(
            catalog_of(settings),
            study,
            open_folder(settings, study),
            target,
            what=what,
            form=form,
            say=status.update if status is not None else lambda _: None,
        )
    click.echo(f"{target}: {FORMS[form].contents}")
    record = pulled.record
    click.echo(f"it is {pulled.title}: {record['kind']} of trial {record['trial']:04d}")
    if pulled.unchecked_because is None:
        click.echo(
            f"a fresh process gave the answers of the weights to {pulled.checked} examples of the selection split"
        )
    else:
        click.echo(f"its answers were compared with nothing: {pulled.unchecked_because}", err=True)
    if pulled.needs:
        click.echo(f"it needs more of your modules than lie in its code/, from {', '.join(pulled.needs)}", err=True)


@click.command(
    epilog=example("sweeper predict best photos/\n  sweeper predict best houses.csv --as json -o prices.json")
)
@click.argument("model")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--as", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
@click.option("--all", "all_classes", is_flag=True, help="The probability of each class, not of the likeliest alone.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: to the screen.")
@home_option
def predict(
    model: str,
    paths: tuple[Path, ...],
    form: Literal["csv", "json"],
    all_classes: bool,
    out: Path | None,
    home: Path | None,
) -> None:
    """Ask MODEL about the examples in PATHS.

    MODEL is a folder that `sweeper pull` made, or a registered model: models:/NAME@best. PATHS are pictures or folders
    of them, tables (.csv, .parquet), texts (.txt, one a line; or a table with a column of them) or arrays (.npy).
    """
    from sweeper.predict import predict as predict_all

    raise SystemExit(predict_all(model, paths, settings_of(home), form=form, all_classes=all_classes, out=out))
