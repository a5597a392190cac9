"""The command line: parse, call, print, exit code."""

from __future__ import annotations

from typing import Any

import click

from sweeper.commands import begin, look, run_studies, soup, take_home


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
      sweeper start study.yaml --detach    as a job of a Ray cluster; then: logs, top
      sweeper ui                     browse it in MLflow
      sweeper pull digits -o best    the winner, with its model card
      sweeper predict best photos/   ask it
    """


for _command in (
    run_studies.start,
    run_studies.extend,
    run_studies.retry,
    run_studies.stop,
    run_studies.pause,
    run_studies.resume,
    run_studies.sync,
    look.list_,
    look.show,
    look.top,
    look.logs,
    look.rank,
    look.ui,
    look.doctor,
    look.rm,
    take_home.pull,
    take_home.predict,
    soup.soup,
    begin.init,
    begin.schema,
):
    main.add_command(_command)
