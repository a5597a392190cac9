"""The token that a Ray cluster may ask for (https://docs.ray.io/en/latest/ray-security/token-auth.html)."""

from __future__ import annotations

import os
from pathlib import Path

PLACE = Path("~/.ray/auth_token")
"""Where Ray keeps it, and looks for it."""


def show_token() -> None:
    """Have Ray show the cluster the token that there is, unless ``RAY_AUTH_MODE`` says what is to be done.

    A head that was started where a token lies asks for it; of itself Ray shows none, and is refused.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH") or PLACE.expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
