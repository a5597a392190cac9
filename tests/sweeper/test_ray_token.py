from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeper.ray_token import show_token


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder, with no token in it nor in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "to be put back")
    monkeypatch.delenv("RAY_AUTH_MODE")
    return tmp_path


def test_where_there_is_no_token_nothing_is_said(folder: Path) -> None:
    show_token()
    assert "RAY_AUTH_MODE" not in os.environ


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_that_is_named_is_shown(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "of whatever kind")
    show_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_a_token_that_lies_where_ray_keeps_it_is_shown_unless_the_user_says_otherwise(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text("0" * 64)
    show_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    show_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
