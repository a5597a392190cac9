from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.errors import TrackingError
from sweeper.mlflow_client import connect, is_active_run
from sweeper.settings import Settings


def test_a_local_store_is_made_at_first_use(tmp_path: Path) -> None:
    settings = Settings(tmp_path, "", f"sqlite:///{tmp_path / 'mlflow.db'}", None)
    assert connect(settings).search_experiments()[0].name == "Default"
    assert (tmp_path / "mlflow.db").exists()


def test_a_store_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    settings = Settings(tmp_path, "", "nosuchthing://ada:secret@host/x", None)
    with pytest.raises(TrackingError) as caught:
        connect(settings)
    assert str(caught.value).startswith("MLflow at nosuchthing://ada:***@host/x: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_run_that_is_deleted_or_unknown_is_not_active(tmp_path: Path) -> None:
    client = connect(Settings(tmp_path, "", f"sqlite:///{tmp_path / 'mlflow.db'}", None))
    run_id = client.create_run("0").info.run_id
    assert is_active_run(client, run_id)
    client.delete_run(run_id)
    assert not is_active_run(client, run_id)
    assert not is_active_run(client, "0" * 32)


def test_postgresql_is_a_store_too(tmp_path: Path, postgres_url: str) -> None:
    assert connect(Settings(tmp_path, "", postgres_url, None)).search_experiments()[0].name == "Default"
