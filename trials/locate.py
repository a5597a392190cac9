"""Find what an import path names: how recipes refer to a user's own data, models and to torchvision's."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import Any


def locate(path: str) -> Any:
    """Import ``module:name`` and return the object.

    Raises ``ImportError`` in one line: the module is missing or fails to import, or has no such name.

    >>> locate("math:sqrt")(9.0)
    3.0
    """
    module_name, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ImportError(f"{path}: module {module_name} cannot be imported ({reason})") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ImportError(f"{path}: {module_name} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's own words on one line, at most ``limit`` characters."""
    words = " ".join(str(error).split())
    return words if len(words) <= limit else words[: limit - 3] + "..."
