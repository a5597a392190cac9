"""The modules that go with a detached study: those beside its file that it names, and those that these import."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sweeper.errors import StudyError
from sweeper.paths import FILES
from sweeper.positions import Path as Place
from sweeper.space import Space

LIMIT_BYTES = 10_000_000
LIMIT_FILES = 1000
"""What may go with a study: code. What is larger has data in it, which nodes have to see by themselves."""
INSTALLED_THERE = ("sweeper", "trials", *sys.stdlib_module_names)

_IMPORTABLE = re.compile(r"([A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_][\w.]*")


def named_modules(space: Space) -> list[str]:
    """The modules that a study names as `module:function` anywhere, without what comes after their first dot.

    >>> named_modules(Space({"model": {"build": "my.nets:wide"}, "data": {"source": "csv:houses.csv"}}))
    ['my']
    """
    named: dict[str, None] = {}

    def note(_: Place, value: object) -> object:
        found = _IMPORTABLE.fullmatch(value) if isinstance(value, str) else None
        if found is not None and found[1] not in FILES:
            named[found[1]] = None
        return value

    space.map(note)
    return list(named)


def own_modules(names: Iterable[str], folders: Sequence[Path]) -> dict[str, Path]:
    """Where the files of these modules lie, and of those that they import, by their path below their folder.

    What lies in none of the folders is installed, here or there, and is left out.

    Args:
        names: of modules, without dots.
        folders: where to look, in this order; only those named are looked into.

    Raises:
        StudyError: they are more than `LIMIT_BYTES` or `LIMIT_FILES`.
    """
    files: dict[str, Path] = {}
    bytes_, seen, waiting = 0, set(INSTALLED_THERE), list(names)
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        for below, file in _files_of(name, folders):
            files[below] = file
            bytes_ += file.stat().st_size
            if bytes_ > LIMIT_BYTES or len(files) > LIMIT_FILES:
                raise StudyError(
                    f"{file.parent}: found more than {LIMIT_BYTES // 1_000_000} MB or {LIMIT_FILES} files in the "
                    f"modules of the study, expected code alone: what module {name!r} holds is sent to the cluster; "
                    "move data out of it, or install it on the nodes"
                )
            if file.suffix == ".py":
                waiting += _imported(file)
    return files


def absent_modules(names: Iterable[str], files: Mapping[str, Path]) -> list[str]:
    """Those of the named modules that are neither among the files nor installed here."""
    found = {below.partition("/")[0].removesuffix(".py") for below in files}
    return [name for name in names if name not in found and importlib.util.find_spec(name) is None]


def _files_of(name: str, folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The file of a module, or all those of a package but hidden and compiled ones, from the first folder with it."""
    for folder in folders:
        package = folder / name
        if (package / "__init__.py").is_file() or any(package.glob("*.py")):
            for file in sorted(package.rglob("*")):
                below = file.relative_to(folder)
                is_wanted = not any(part.startswith(".") or part == "__pycache__" for part in below.parts)
                if is_wanted and file.is_file():
                    yield below.as_posix(), file
            return
        if (file := folder / f"{name}.py").is_file():
            yield file.name, file
            return


def _imported(file: Path) -> list[str]:
    """The modules that a file imports, wherever in it; none of one that is no Python, which its trials will say."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names.append(node.module)
    return [name.partition(".")[0] for name in names]
