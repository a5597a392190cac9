"""Where a study came from: commit, versions, host. Logged with every run and written into the model card."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("sweeper", "torch", "torchvision", "optuna", "mlflow", "ray", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, str]:
    """The commit that ``folder`` is at and whether files differ from it; empty outside a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = _git(folder, "status", "--porcelain")
    return {"git.commit": commit, "git.dirty": str(bool(changes)).lower()}


def host() -> str:
    """The name of this machine."""
    return socket.gethostname()


def user() -> str:
    """Who runs this; a number where the machine has no name for it, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def ray_job() -> dict[str, str]:
    """What was said of the Ray job that this process is, its ``job_submission_id`` among it; empty if it is none."""
    said: dict[str, str] = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}").get("metadata") or {}
    return said


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
