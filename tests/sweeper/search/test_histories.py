"""How the histories are reached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from sweeper.search.histories import connected


@pytest.fixture
def said() -> Iterator[list[dict[str, Any]]]:
    """What each connection is made with, from now on."""
    found: list[dict[str, Any]] = []

    def note(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
        found.append(dict(parameters))

    sa.event.listen(sa.Engine, "do_connect", note)
    yield found
    sa.event.remove(sa.Engine, "do_connect", note)


def test_a_server_that_vanishes_is_noticed_as_soon_as_by_the_catalog(
    postgres_url: str, said: list[dict[str, Any]]
) -> None:
    separator = "&" if "?" in postgres_url else "?"
    with connected(f"{postgres_url}{separator}connect_timeout=7") as storage:
        assert storage.get_all_studies() == []
    expected = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
    assert len(said) >= 2, "one to be alone, one of Optuna's"
    for parameters in said:
        assert {name: parameters.get(name) for name in expected} == expected
        assert int(parameters["connect_timeout"]) == 7, "what the URL says goes"
