"""Commands that make a study go on, or hold it up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from sweeper.commands.shared import example, home_option, make_console, settings_of

if TYPE_CHECKING:
    from sweeper.catalog import StudyRow


@click.command(epilog=example("sweeper start studies/digits.yaml"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--in-process", is_flag=True, help="Train in this process, one trial at a time, without Ray.")
@click.option("--detach", is_flag=True, help="Have the Ray cluster run it as a job; this terminal may close.")
@click.option("--submitted", is_flag=True, hidden=True, help="This is that job.")
@home_option
def start(file: Path, in_process: bool, detach: bool, submitted: bool, home: Path | None) -> None:
    """Run the study that FILE describes to its end, or continue it where it was stopped."""
    if submitted:
        from sweeper.detached import run_submitted

        raise SystemExit(run_submitted(file, settings_of(home), make_console()))
    # Checked before anything heavy loads, so that a mistake in the file is told at once.
    from sweeper.study import load_study

    study = load_study(file)
    if detach:
        from sweeper.errors import StudyError

        if in_process:
            raise StudyError("--in-process: found beside --detach, expected one of them: in this process, or in a job")
        from sweeper.detached import detach as detach_study

        raise SystemExit(detach_study(study, settings_of(home), make_console()))
    from sweeper.start import start as start_study

    raise SystemExit(start_study(file, settings_of(home), make_console(), in_process=in_process))


@click.command(epilog=example("sweeper extend digits --trials 3 --epochs +10\n  sweeper extend digits --trials +20"))
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
@home_option
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

    settings, console = settings_of(home), make_console()
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


@click.command(epilog=example("sweeper retry digits 3 7"))
@click.argument("study")
@click.argument("trials", type=int, nargs=-1, metavar="[TRIAL]...")
@click.option("--in-process", is_flag=True, help="Train in this process, one trial at a time, without Ray.")
@home_option
def retry(study: str, trials: tuple[int, ...], in_process: bool, home: Path | None) -> None:
    """Train the failed trials of STUDY again, or those that are named, under their own numbers."""
    from sweeper.retry import retry as retry_trials

    raise SystemExit(retry_trials(study, settings_of(home), make_console(), numbers=trials, in_process=in_process))


@click.command(epilog=example("sweeper stop digits"))
@click.argument("study")
@home_option
def stop(study: str, home: Path | None) -> None:
    """Stop STUDY, wherever it runs, as ctrl-C in its own terminal would."""
    from sweeper import control

    raise SystemExit(control.stop(study, settings_of(home), make_console()))


@click.command(epilog=example("sweeper pause digits"))
@click.argument("study")
@home_option
def pause(study: str, home: Path | None) -> None:
    """Have STUDY save what it trains and free its workers, until `sweeper resume`."""
    from sweeper import control

    raise SystemExit(control.pause(study, settings_of(home), make_console()))


@click.command(epilog=example("sweeper resume digits"))
@click.argument("study")
@click.option("--in-process", is_flag=True, help="Where nobody runs it: here, without Ray, one trial at a time.")
@home_option
def resume(study: str, in_process: bool, home: Path | None) -> None:
    """Let a paused STUDY go on where it waits; one that nobody runs goes on here, or as a job if it was one."""
    from sweeper import control

    settings, console = settings_of(home), make_console()

    def go_on(study: StudyRow) -> int:
        from sweeper.start import start as start_study
        from sweeper.start import text_of

        if study.job is not None and not in_process:
            from sweeper.detached import detach
            from sweeper.study import load_study

            return detach(load_study(study.file, text_of(study)), settings, console)
        return start_study(Path(study.file), settings, console, text=text_of(study), in_process=in_process)

    raise SystemExit(control.resume(study, settings, console, go_on))


@click.command(epilog=example("sweeper sync digits"))
@click.argument("study")
@home_option
def sync(study: str, home: Path | None) -> None:
    """Deliver to MLflow what it missed of STUDY while it was away."""
    from sweeper.sync import sync as sync_study

    raise SystemExit(sync_study(study, settings_of(home), make_console()))
