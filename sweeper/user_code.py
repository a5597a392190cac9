"""The user's own modules that a recipe names: found where a study had them, and as files to go with a model."""

from __future__ import annotations

import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeper.paths import FILES


def make_importable(folders: Iterable[str]) -> None:
    """Let modules in ``folders`` be imported in this process, before others of their names."""
    sys.path[:0] = [folder for folder in dict.fromkeys(folders) if folder not in sys.path]


def module_files(recipe: Mapping[str, Any]) -> list[Path]:
    """The files of the modules that ``model.build`` and ``data.source`` name as `module:function`, also for each member
    of an ensemble.

    Only a module that is a single file of the user's: a package, or what pip installed, is not copied.
    """
    members = (recipe.get("assembly") or {}).get("members", ())
    recipes = [recipe, *(member["recipe"] for member in members)]
    names = [name for each in recipes for name in (each["model"]["build"], each["data"]["source"])]
    files = (_module_file(str(name)) for name in names)
    return list(dict.fromkeys(file for file in files if file is not None))


def _module_file(name: str) -> Path | None:
    module, colon, _ = name.partition(":")
    if not colon or module in FILES or not module.isidentifier():
        return None
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # a module made by hand
        return None
    if spec is None or spec.origin is None or spec.submodule_search_locations is not None:
        return None
    file = Path(spec.origin)
    paths = sysconfig.get_paths()
    installed = [paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")] + [site.getusersitepackages()]
    return file if file.suffix == ".py" and not any(file.is_relative_to(folder) for folder in installed) else None
