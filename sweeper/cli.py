"""The command line: parse, call, print, exit code. Heavy modules load inside the commands that need them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.catalog import Catalog
    from sweeper.settings import Settings

PIPE_COLUMNS = 400
Command = TypeVar("Command", bound=Callable[..., Any])


class _Group(click.Group):
    """Turns the errors we raise on purpose into one line and an exit code; ctrl-C is not an error."""

    def invoke(self, ctx: click.Context) -> Any:
        from sweeper.errors import SweeperError
        from trials.errors import TrialError

        try:
            return super().invoke(ctx)
        except SweeperError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except TrialError as error:  # the winner's data or model cannot be had any more
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)
        except OSError as error:
            if error.filename is None and error.errno is None:
                raise
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"error: {where}{error.strerror}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(130)


def _home_option(command: Command) -> Command:
    return click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of all state; default: $SWEEPER_HOME, else ./.sweeper.",
    )(command)


def _example(text: str) -> str:
    # \b keeps click from re-wrapping the lines of an example.
    return "\b\nExample:\n  " + text


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sweeper")
def main() -> None:
    """Sweep hyperparameters on Ray, log to MLflow, average the weights, take the best model home.

    \b
    Example:
      sweeper init digits            write a commented study.yaml
      sweeper start study.yaml       run it, or continue it
      sweeper show digits            trials, leaderboard, winner
      sweeper extend digits --epochs +10   more epochs for the best trial
      sweeper stop digits            from any terminal; pause and resume likewise
      sweeper ui                     browse it in MLflow
      sweeper pull digits -o best    the winner, with its model card
    """


@main.command(epilog=_example("sweeper start studies/digits.yaml"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--in-process", is_flag=True, help="Train in this process, one trial at a time, without Ray.")
@_home_option
def start(file: Path, in_process: bool, home: Path | None) -> None:
    """Run the study that FILE describes to its end, or continue it where it was stopped."""
    # Checked before anything heavy loads, so that a mistake in the file is told at once.
    from sweeper.study import load_study

    load_study(file)
    from sweeper.start import start as start_study

    raise SystemExit(start_study(file, _settings(home), _console(), in_process=in_process))


@main.command(epilog=_example("sweeper extend digits --trials 3 --epochs +10\n  sweeper extend digits --trials +20"))
@click.argument("study")
@click.option("--epochs", type=int, metavar="+N", help="Epochs to add to the best trials of a finished study.")
@click.option(
    "--trials",
    type=int,
    metavar="TOP|+N",
    help="With --epochs, how many of the best trials (1); without, how many trials to add to the study.",
)
@click.option(
    "--trial", "numbers", type=int, multiple=True, metavar="N", help="A trial by its number; may be repeated."
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "constant"]),
    default="cosine",
    show_default=True,
    help="Learning rate over the added epochs: half a cosine from its top to 0, or its top throughout.",
)
@click.option("--lr", type=float, default=0.1, show_default=True, help="That top, as a share of each trial's own.")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="A new version of the study file, with more trials and, if you like, wider ranges.",
)
@click.option("--in-process", is_flag=True, help="Train in this process, one trial at a time, without Ray.")
@_home_option
def extend(
    study: str,
    epochs: int | None,
    trials: int | None,
    numbers: tuple[int, ...],
    schedule: Literal["cosine", "constant"],
    lr: float,
    file: Path | None,
    in_process: bool,
    home: Path | None,
) -> None:
    """Let STUDY go on: longer trials (--epochs), more of them (--trials), or wider ranges (--file).

    The trials there are keep their numbers, and the winner is chosen anew.
    """
    from sweeper.errors import StudyError
    from sweeper.extend import extend as extend_study
    from sweeper.widen import add_trials, widen

    settings, console = _settings(home), _console()
    if file is not None and (epochs is not None or trials is not None or numbers):
        raise StudyError(
            "--file: found beside --epochs, --trials or --trial, expected it alone: it says how many trials"
        )
    if numbers and trials is not None:
        raise StudyError("--trial: found beside --trials, expected one of them: these trials, or so many of the best")
    if numbers and epochs is None:
        raise StudyError("--trial: found without --epochs, expected how many to add to it")
    if file is not None:
        code = widen(study, settings, console, file=file, in_process=in_process)
    elif epochs is not None:
        code = extend_study(
            study,
            settings,
            console,
            epochs=epochs,
            trials=1 if trials is None else trials,
            numbers=numbers,
            schedule=schedule,
            lr=lr,
            in_process=in_process,
        )
    elif trials is not None:
        code = add_trials(study, settings, console, trials=trials, in_process=in_process)
    else:
        raise StudyError("found nothing to add, expected --epochs +N, --trials +N or --file STUDY.YAML")
    raise SystemExit(code)


@main.command(epilog=_example("sweeper retry digits 3 7"))
@click.argument("study")
@click.argument("trials", type=int, nargs=-1, metavar="[TRIAL]...")
@click.option("--in-process", is_flag=True, help="Train in this process, one trial at a time, without Ray.")
@_home_option
def retry(study: str, trials: tuple[int, ...], in_process: bool, home: Path | None) -> None:
    """Train the failed trials of STUDY again, or those that are named, under their own numbers."""
    from sweeper.retry import retry as retry_trials

    raise SystemExit(retry_trials(study, _settings(home), _console(), numbers=trials, in_process=in_process))


@main.command(epilog=_example("sweeper stop digits"))
@click.argument("study")
@_home_option
def stop(study: str, home: Path | None) -> None:
    """Stop STUDY, wherever it runs, as ctrl-C in its own terminal would."""
    from sweeper import control

    raise SystemExit(control.stop(study, _settings(home), _console()))


@main.command(epilog=_example("sweeper pause digits"))
@click.argument("study")
@_home_option
def pause(study: str, home: Path | None) -> None:
    """Have STUDY save what it trains and free its workers, until `sweeper resume`."""
    from sweeper import control

    raise SystemExit(control.pause(study, _settings(home), _console()))


@main.command(epilog=_example("sweeper resume digits"))
@click.argument("study")
@click.option("--in-process", is_flag=True, help="Where it goes on here: without Ray, one trial at a time.")
@_home_option
def resume(study: str, in_process: bool, home: Path | None) -> None:
    """Let a paused STUDY go on where it waits; one that nobody runs goes on in this terminal."""
    from sweeper import control

    settings, console = _settings(home), _console()

    def go_on(file: Path) -> int:
        from sweeper.start import start as start_study

        return start_study(file, settings, console, in_process=in_process)

    raise SystemExit(control.resume(study, settings, console, go_on))


@main.command(epilog=_example("sweeper sync digits"))
@click.argument("study")
@_home_option
def sync(study: str, home: Path | None) -> None:
    """Deliver to MLflow what it missed of STUDY while it was away."""
    from sweeper.sync import sync as sync_study

    raise SystemExit(sync_study(study, _settings(home), _console()))


@main.command(epilog=_example("sweeper doctor\n  sweeper doctor digits --repair"))
@click.argument("study", required=False)
@click.option("--repair", is_flag=True, help="Mend what can be mended, and look again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for programs.")
@_home_option
def doctor(study: str | None, repair: bool, as_json: bool, home: Path | None) -> None:
    """Compare what the catalog, Optuna, MLflow and the files say of STUDY, or of all; exit code 1 if they disagree."""
    from sweeper.doctor import doctor as look

    raise SystemExit(look(study, _settings(home), _console(), repair=repair, as_json=as_json))


@main.command(epilog=_example("sweeper rm digits --yes"))
@click.argument("study")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--mlflow", "in_mlflow", is_flag=True, help="Delete its runs in MLflow too, and its experiment.")
@_home_option
def rm(study: str, yes: bool, in_mlflow: bool, home: Path | None) -> None:
    """Remove STUDY and all that came of it: trials, weights, winner, history."""
    from sweeper.errors import StudyError
    from sweeper.remove import remove

    def confirm(question: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise StudyError(f"{question} found no terminal to ask in; expected --yes")
        return click.confirm(question)

    raise SystemExit(remove(study, _settings(home), _console(), confirm, in_mlflow=in_mlflow))


@main.command("list", epilog=_example("sweeper list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@_home_option
def list_(as_json: bool, home: Path | None) -> None:
    """List the studies, oldest first."""
    from sweeper import show

    catalog = _catalog(_settings(home))
    if as_json:
        click.echo(json.dumps(show.list_studies(catalog), indent=2))
    else:
        show.print_studies(catalog, _console())


@main.command(epilog=_example("sweeper show digits --json"))
@click.argument("study")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for programs.")
@_home_option
def show(study: str, as_json: bool, home: Path | None) -> None:
    """Show the trials, the leaderboard and the winner of STUDY."""
    from sweeper import show as shown

    settings = _settings(home)
    catalog = _catalog(settings)
    if as_json:
        click.echo(json.dumps(shown.describe_study(catalog, study, settings), indent=2))
    else:
        shown.print_study(catalog, study, settings, _console())


@main.command(epilog=_example("sweeper ui --port 5001"))
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 5000, or the next free one.")
@click.option("--browser/--no-browser", default=True, help="Open a browser when the page answers.")
@_home_option
def ui(port: int | None, browser: bool, home: Path | None) -> None:
    """Open the MLflow UI on everything logged, on 127.0.0.1, until ctrl-C."""
    from sweeper.ui import serve

    raise SystemExit(serve(_settings(home), port=port, browse=browser, say=click.echo))


@main.command(epilog=_example("sweeper pull digits -o best"))
@click.argument("study")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder to make; default: STUDY-best.")
@_home_option
def pull(study: str, out: Path | None, home: Path | None) -> None:
    """Copy the winner of STUDY: weights, recipe and model card."""
    from sweeper import publish
    from sweeper.study_folder import StudyFolder

    settings = _settings(home)
    target = out or Path(f"{study}-best")
    publish.pull(_catalog(settings), study, StudyFolder(settings.home, study), target)
    click.echo(f"{target}: weights.safetensors, recipe.json, package.json, README.md (how to load it)")


@main.command(epilog=_example("sweeper init houses.csv --target price --task regression -o houses.yaml"))
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


@main.command(epilog=_example("sweeper schema > study.schema.json"))
def schema() -> None:
    """Print the JSON Schema of study.yaml, for editors to complete and check it."""
    from sweeper.schema import study_schema

    click.echo(json.dumps(study_schema(), indent=2))


def _settings(home: Path | None) -> Settings:
    from sweeper.errors import StudyError
    from sweeper.settings import load_settings

    settings = load_settings(home)
    if settings.home.exists() and not settings.home.is_dir():
        where = "SWEEPER_HOME" if home is None else "--home"
        raise StudyError(f"{where}: found {settings.home}, which is no folder; expected one, or a name for a new one")
    return settings


def _catalog(settings: Settings) -> Catalog:
    from sweeper.catalog import Catalog

    return Catalog(settings.database_url, create=False)


def _console() -> Console:
    from rich.console import Console

    # In a pipe nothing is folded, so that a line can be searched for.
    return Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, emoji=False)
