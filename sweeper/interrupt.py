"""Ctrl-C and SIGTERM stop a command alike, so that what it started is stopped with it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STOPPED = 130
"""Exit code of a command that was interrupted: 128 + SIGINT, as shells have it."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h\n"
_last_words = bytearray()
"""What a second signal says before it leaves; made ready beforehand, so that its handler has little to do."""


@contextmanager
def stop_as_interrupt(*, second_leaves: str | None = None) -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the main thread when the process is asked to stop.

    Also where a shell started it in the background, deaf to ctrl-C's signal.

    Args:
        second_leaves: a second signal ends the process at once, with this line, whatever is still being put away: for
            commands whose records are right at any moment.
    """

    def interrupt(*_: object) -> None:
        if second_leaves is not None:
            for number in SIGNALS:
                signal.signal(number, _leave)
        raise KeyboardInterrupt

    _last_words[:] = f"{second_leaves or ''}\n".encode()
    before = [signal.signal(number, interrupt) for number in SIGNALS]
    try:
        yield
    finally:
        _last_words.clear()
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A stretch that a signal does not tear apart: it takes effect at the end of the stretch.

    A second one in the midst of it leaves at once: the stretch may hang. Only for the main thread.
    """
    noted: list[int] = []

    def note(number: int, _: object) -> None:
        if noted:
            _leave()
        noted.append(number)

    before = [signal.signal(number, note) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
        if noted:
            signal.raise_signal(noted[0])


def _leave(*_: object) -> None:
    shown = _SHOW_CURSOR if os.isatty(1) else b""  # the live view had hidden it
    with suppress(OSError, ValueError):
        # Nobody waits for a pipe that is not read.
        if select.select([], [1], [], 0.0)[1]:
            os.write(1, shown + _last_words)
    os._exit(STOPPED)
