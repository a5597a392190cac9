"""What the commands share: options, the home they work on, where they print."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.catalog import Catalog
    from sweeper.settings import Settings

PIPE_COLUMNS = 400
Command = TypeVar("Command", bound=Callable[..., Any])


def home_option(command: Command) -> Command:
    """The option ``--home``, which a command hands to :func:`settings_of`."""
    return click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of all state; default: $SWEEPER_HOME, else ./.sweeper.",
    )(command)


def example(text: str) -> str:
    """The lines at the end of a command's help."""
    # \b keeps click from re-wrapping the lines of an example.
    return "\b\nExample:\n  " + text


def settings_of(home: Path | None) -> Settings:
    """The settings for a home that was named, or not.

    Raises:
        StudyError: it is no folder, or the store has no address that can be used.
    """
    from sweeper.errors import StudyError
    from sweeper.settings import load_settings

    settings = load_settings(home)
    if settings.home.exists() and not settings.home.is_dir():
        where = "SWEEPER_HOME" if home is None else "--home"
        raise StudyError(f"{where}: found {settings.home}, which is no folder; expected one, or a name for a new one")
    if settings.store:
        from sweeper.store.address import check_address

        return replace(settings, store=check_address(settings.store))
    return settings


def catalog_of(settings: Settings) -> Catalog:
    """The catalog of a home, which must be there.

    Raises:
        StoreError: there is none, or it cannot be reached.
    """
    from sweeper.catalog import Catalog

    return Catalog(settings.database_url, create=False)


def make_console() -> Console:
    """Where people read."""
    from rich.console import Console

    # In a pipe nothing is folded, so that a line can be searched for.
    return Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, emoji=False)
