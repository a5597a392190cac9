"""Commands that look at studies, mend what is recorded of them, and remove them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from sweeper.commands.shared import catalog_of, example, home_option, make_console, settings_of


@click.command("list", epilog=example("sweeper list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@home_option
def list_(as_json: bool, home: Path | None) -> None:
    """List the studies, oldest first."""
    from sweeper import show

    catalog = catalog_of(settings_of(home))
    if as_json:
        click.echo(json.dumps(show.list_studies(catalog), indent=2))
    else:
        show.print_studies(catalog, make_console())


@click.command(epilog=example("sweeper show digits --json"))
@click.argument("study")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for programs.")
@home_option
def show(study: str, as_json: bool, home: Path | None) -> None:
    """Show the trials, the leaderboard and the winner of STUDY."""
    from sweeper import show as shown

    settings = settings_of(home)
    catalog = catalog_of(settings)
    if as_json:
        click.echo(json.dumps(shown.describe_study(catalog, study, settings), indent=2))
    else:
        shown.print_study(catalog, study, settings, make_console())


@click.command(epilog=example("sweeper top\n  sweeper top digits --json"))
@click.argument("study", required=False)
@click.option("--once", is_flag=True, help="Show it once.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list for programs, once.")
@home_option
def top(study: str | None, once: bool, as_json: bool, home: Path | None) -> None:
    """Watch what runs now, on any machine, of STUDY or of all: progress, trials, who runs it; until ctrl-C."""
    from sweeper.top import top as watch

    raise SystemExit(watch(catalog_of(settings_of(home)), make_console(), study, once=once, as_json=as_json))


@click.command(epilog=example("sweeper logs digits -f"))
@click.argument("study")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends, or ctrl-C.")
@home_option
def logs(study: str, follow: bool, home: Path | None) -> None:
    """Show what a detached STUDY prints, from its Ray job."""
    from sweeper.logs import logs as print_logs

    def write(part: str) -> None:
        click.echo(part, nl=False)

    raise SystemExit(print_logs(study, settings_of(home), write, follow=follow))


@click.command(epilog=example("sweeper rank digits --top 5 --latency"))
@click.argument("study")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="The best N; default: all.")
@click.option("--latency", is_flag=True, help="Measure how long each takes for one example on this CPU.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list for programs.")
@home_option
def rank(study: str, top: int | None, latency: bool, as_json: bool, home: Path | None) -> None:
    """Show the whole leaderboard of STUDY, with what each set of weights costs."""
    from sweeper.rank.board import print_board, rows_of
    from sweeper.rank.latency import Latencies
    from sweeper.store.open import open_folder
    from sweeper.user_code import make_importable

    settings = settings_of(home)
    catalog = catalog_of(settings)
    row = catalog.study(study)
    make_importable(row.import_paths)
    rows = rows_of(catalog, study, Latencies(open_folder(settings, study)), top=top, measure=latency)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        print_board(study, row.metric, rows, make_console())


@click.command(epilog=example("sweeper ui --port 5001"))
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 5000, or the next free one.")
@click.option("--browser/--no-browser", default=True, help="Open a browser when the page answers.")
@home_option
def ui(port: int | None, browser: bool, home: Path | None) -> None:
    """Open the MLflow UI on everything logged, on 127.0.0.1, until ctrl-C."""
    from sweeper.ui import serve

    raise SystemExit(serve(settings_of(home), port=port, browse=browser, say=click.echo))


@click.command(epilog=example("sweeper doctor\n  sweeper doctor digits --repair"))
@click.argument("study", required=False)
@click.option("--repair", is_flag=True, help="Mend what can be mended, and look again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for programs.")
@home_option
def doctor(study: str | None, repair: bool, as_json: bool, home: Path | None) -> None:
    """Compare what the catalog, Optuna, MLflow and the files say of STUDY, or of all; exit code 1 if they disagree."""
    from sweeper.doctor import doctor as look

    raise SystemExit(look(study, settings_of(home), make_console(), repair=repair, as_json=as_json))


@click.command(epilog=example("sweeper rm digits --yes"))
@click.argument("study")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--mlflow", "in_mlflow", is_flag=True, help="Delete its runs in MLflow too, and its experiment.")
@home_option
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

    raise SystemExit(remove(study, settings_of(home), make_console(), confirm, in_mlflow=in_mlflow))
