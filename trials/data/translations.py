"""Texts translated into another language and back, each of them once: what was translated is kept on disk.

Every batch of answers is one file in ``$SWEEPER_DATA/back-translation/KEY``, where KEY stands for the two functions.
It is written whole and never changed, so that a kill loses no more than the batch at hand. Remove the folder when the
functions no longer answer as they did.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from trials.data.datasets import data_folder
from trials.disk import write_whole
from trials.errors import DataError
from trials.locate import locate, one_line

Translate = Callable[[list[str]], list[str]]

_SECONDS_BEFORE_A_WORD = 2.0
_SECONDS_BETWEEN_LINES = 5.0


def translate_there_and_back(texts: Sequence[str], there: str, back: str, batch_size: int, where: str) -> list[str]:
    """Each of ``texts`` as it comes back from ``there`` and ``back``, import paths of functions of a list of texts.

    What these functions have translated before, in this process or another, is read from disk; processes that start
    together wait for the first. Says on stderr how far it is when that takes long. Raises ``DataError`` in one line
    that begins with ``where``: a function that cannot be imported, fails, or does not answer with a text for each text.
    """
    folder = data_folder() / "back-translation" / _digest(json.dumps([there, back]))
    known = _read(folder, where)
    if any(_digest(text) not in known for text in texts):
        translators = [_translator(path, f"{where}: {key}") for key, path in (("there", there), ("back", back))]
        with _one_at_a_time(folder, where):
            known = _read(folder, where)  # again: another process may just have been here
            missing = list(dict.fromkeys(text for text in texts if _digest(text) not in known))
            for batch in _told(missing, batch_size, where):
                answers = batch
                for translate in translators:
                    answers = translate(answers)
                fresh = {_digest(text): answer for text, answer in zip(batch, answers, strict=True)}
                write_whole(folder / f"{_digest(json.dumps(batch))}.json", json.dumps(fresh).encode())
                known |= fresh
    return [known[_digest(text)] for text in texts]


def _translator(path: str, where: str) -> Translate:
    """The function that ``path`` names, with its answers checked: a text, or ``{"translation_text": text}``, each."""
    try:
        function = locate(path)
    except ImportError as error:
        raise DataError(f"{where}: {error}") from error
    if not callable(function):
        raise DataError(f"{where}: {path} is {type(function).__name__}, expected a function")

    def translate(texts: list[str]) -> list[str]:
        try:
            answers = function(list(texts))
        except (DataError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise DataError(f"{where}: {path} raised {type(error).__name__}: {one_line(error)}") from error
        if not isinstance(answers, list) or len(answers) != len(texts):
            found = f"{len(answers)} answers" if isinstance(answers, list) else type(answers).__name__
            raise DataError(f"{where}: {path} returned {found}, expected a list of {len(texts)}, one for each text")
        return [_text(answer, f"{where}: {path}") for answer in answers]

    return translate


def _text(answer: Any, where: str) -> str:
    """The text of one answer; a dict is that of a Hugging Face pipeline."""
    text = answer.get("translation_text") if isinstance(answer, dict) else answer
    if not isinstance(text, str):
        found = f"a dict with {', '.join(map(str, answer))}" if isinstance(answer, dict) else type(answer).__name__
        raise DataError(f"{where} answered with {found}, expected a text or {{'translation_text': text}}")
    return text


def _told(texts: list[str], batch_size: int, where: str) -> Iterator[list[str]]:
    """Batches of ``texts``; says on stderr now and then how many of them are done."""
    due = time.monotonic() + _SECONDS_BEFORE_A_WORD
    for start in range(0, len(texts), batch_size):
        if time.monotonic() >= due:
            print(f"{where}: translated {start} of {len(texts)} texts", file=sys.stderr, flush=True)
            due = time.monotonic() + _SECONDS_BETWEEN_LINES
        yield texts[start : start + batch_size]


@contextlib.contextmanager
def _one_at_a_time(folder: Path, where: str) -> Iterator[None]:
    """Only one process translates into ``folder``; the others wait, and find its answers."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{where}: {folder} cannot be made ({error.strerror}); set SWEEPER_DATA") from error
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=_SECONDS_BEFORE_A_WORD)
    except Timeout:
        print(f"{where}: waiting for another process that translates", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _read(folder: Path, where: str) -> dict[str, str]:
    """All answers in ``folder``, by the digest of the text."""
    known: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            known |= json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(f"{where}: {path} is damaged; remove it, and its texts are translated anew") from error
    return known


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
