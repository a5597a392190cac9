"""What is said where no job server of Ray answers; one that does is in `tests/end_to_end/test_detached.py`."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from sweeper.errors import WorkersError
from sweeper.jobs import JobState, RayJobs


@pytest.fixture(autouse=True)
def _no_ray_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def other_server() -> Iterator[str]:
    """An HTTP server that is no Ray's, at `HOST:PORT`."""

    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(HTTPStatus.NOT_FOUND)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
@pytest.mark.parametrize("kind", ["", "http://ada:secret@", "ray://"])
def test_an_address_where_nothing_answers_is_named(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv(name, "whatever the caller read there")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shown = kind.replace("secret", "***")
    with pytest.raises(WorkersError) as caught:
        RayJobs(f"{kind}127.0.0.1:{port}")
    assert str(caught.value) == (
        f"no Ray cluster answers at {shown}127.0.0.1:{port} (Connection refused); start it, or correct {name}"
    )


def test_a_server_that_is_no_rays_is_told_in_a_line(other_server: str) -> None:
    with pytest.raises(WorkersError) as caught:
        RayJobs(f"http://{other_server}")
    told = str(caught.value)
    assert told.startswith(f"the job server of the Ray at http://{other_server}: Version check returned 404.")
    assert "\n" not in told


def test_a_job_that_waits_has_not_ended() -> None:
    states = ("PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED")
    assert [JobState(status, "").has_ended for status in states] == [False, False, True, True, True]
