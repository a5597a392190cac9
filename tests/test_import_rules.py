"""What is instant stays instant: --help, validation and the schema load none of the heavy libraries.

The static half of the rules (which module may import what) is import-linter's, in pyproject.toml. This is the other
half: what a fresh interpreter has really loaded.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "ray", "mlflow", "optuna", "sqlalchemy", "sklearn")


@pytest.mark.parametrize(
    "module",
    ["sweeper", "sweeper.cli", "sweeper.study", "sweeper.space", "sweeper.schema", "trials", "trials.recipe"],
)
def test_loads_nothing_heavy(module: str) -> None:
    script = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


@pytest.mark.parametrize("arguments", [["--help"], ["start", "--help"], ["schema"]])
def test_command_loads_nothing_heavy(arguments: list[str]) -> None:
    script = (
        f"import sys; sys.argv = ['sweeper', *{arguments!r}]\n"
        "from sweeper.cli import main\n"
        "try:\n    main()\n"
        f"finally:\n    print(*sorted({set(HEAVY)!r} & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.split()) == (0, [])
    assert done.stdout


def test_what_works_from_anywhere_needs_the_database_alone(tmp_path: Path) -> None:
    """No Ray, no MLflow, and the study file is not looked for."""
    script = """
import sys
from pathlib import Path
from sweeper.catalog import Catalog
from sweeper.cli import main
home = Path(sys.argv[1])
catalog = Catalog(f"sqlite:///{home}/sweeper.db")
catalog.add_study("digits", digest="d", text="", metric="validation.accuracy", trials_asked=1, file="/not/here.yaml")
for words in ("list", "top --json", "show digits", "stop digits", "pause digits"):
    try:
        main([*words.split(), "--home", str(home)])
    except SystemExit as end:
        assert not end.code, words
catalog.set_study(1, state="finished")
try:
    main(["resume", "digits", "--home", str(home)])
except SystemExit as end:
    assert not end.code
print(*sorted({"ray", "mlflow", "torch"} & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.split()) == (0, []), done.stderr
    assert done.stdout.splitlines()[-1] == "study 'digits' is finished; nothing to resume"
