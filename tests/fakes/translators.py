"""Translators for tests: quick functions that remember what they were asked, and some that do not translate."""

from __future__ import annotations

import time
from typing import Any

asked: list[list[str]] = []
"""What ``there`` was asked, batch by batch; tests clear it."""

killed_at_batch: list[int] = []
"""When it holds a number, ``there`` is interrupted as it is asked for that batch (from 0)."""


def there(texts: list[str]) -> list[str]:
    if killed_at_batch and len(asked) == killed_at_batch[0]:
        raise KeyboardInterrupt
    asked.append(list(texts))
    return [f"le {text}" for text in texts]


def back(texts: list[str]) -> list[str]:
    return [f"{text} again" for text in texts]


def slow_there(texts: list[str]) -> list[str]:
    time.sleep(0.02)
    return there(texts)


def pipeline(texts: list[str]) -> list[dict[str, str]]:
    return [{"translation_text": f"le {text}"} for text in texts]


def one_too_few(texts: list[str]) -> list[str]:
    return texts[1:]


def joined(texts: list[str]) -> str:
    return " ".join(texts)


def numbers(texts: list[str]) -> list[Any]:
    return list(range(len(texts)))


def summaries(texts: list[str]) -> list[dict[str, str]]:
    return [{"summary_text": text} for text in texts]


def broken(texts: list[str]) -> list[str]:
    raise RuntimeError("no such\nlanguage")


NOT_A_FUNCTION = "le"
