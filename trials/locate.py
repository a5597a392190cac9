"""Find what an import path names: how recipes refer to a user's own data, models and to torchvision's."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
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


@contextlib.contextmanager
def own_modules(folder: Path) -> Iterator[None]:
    """Let the modules in ``folder``, if there is one, be imported in place of any others of their names.

    Those of their names that were imported before are the known ones again in the end. No bytecode is left there.
    """
    before = {path.stem: sys.modules.pop(path.stem, None) for path in folder.glob("*.py")}
    if not before:
        yield
        return
    place, writes_none = str(folder.resolve()), sys.dont_write_bytecode
    sys.path.insert(0, place)
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_none
        sys.path.remove(place)
        sys.modules |= {name: module for name, module in before.items() if module is not None}


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's own words on one line, at most ``limit`` characters."""
    words = " ".join(str(error).split())
    return words if len(words) <= limit else words[: limit - 3] + "..."
