"""`sweeper ui`: MLflow's own pages over the right database, on this machine only."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable
from typing import IO

from sweeper.errors import TrackingError
from sweeper.interrupt import stop_as_interrupt
from sweeper.settings import Settings, without_password

HOST = "127.0.0.1"
START_SECONDS = 90.0


def serve(settings: Settings, *, port: int | None, browse: bool, say: Callable[[str], None]) -> int:
    """Run the MLflow server until it is interrupted; returns its exit code.

    Args:
        settings: which database or folder. A tracking server elsewhere is not started again, only named.
        port: where to listen; ``None`` takes 5000 or the next free port.
        browse: open a browser when the page answers.
        say: how to tell the person.

    Raises:
        TrackingError: the port is taken, or the server did not come up.
    """
    if not settings.tracking_is_local:
        say(f"MLFLOW_TRACKING_URI is set: the pages are at {without_password(settings.tracking_uri)}")
        if browse and settings.tracking_uri.lower().startswith("http"):
            webbrowser.open(settings.tracking_uri)
        return 0
    if settings.tracking_file is not None and not settings.tracking_file.exists():
        raise TrackingError(f"{settings.home}: nothing to show yet; begin with: sweeper start study.yaml")
    chosen = _free_port(port)
    url = f"http://{HOST}:{chosen}"
    say(f"starting the MLflow UI on {url} ...")
    # More than one worker costs ~44 ms a call and shows nothing more.
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(chosen), "--workers", "1"]
    command += ["--artifacts-destination", settings.artifacts.as_uri()]
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    # Not in the command, which everyone on this machine can read: it may hold a password.
    quiet["MLFLOW_BACKEND_STORE_URI"] = settings.tracking_uri
    # Its job runners serve GenAI evaluations: eight idle processes for us.
    quiet["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with (
        stop_as_interrupt(),
        tempfile.TemporaryFile("w+") as log,  # a pipe that nobody reads would fill up and block the server
        subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=log) as server,
    ):
        try:
            _wait_until_it_answers(server, url, log)
            page = _newest_study(url)
            say(f"MLflow UI: {page}   (stop it with ctrl-C)")
            if browse:
                webbrowser.open(page)
            return server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            server.terminate()


def _free_port(port: int | None) -> int:
    for candidate in [port] if port is not None else range(5000, 5100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, candidate))
            except OSError:
                continue
            return candidate
    raise TrackingError(f"port {port or '5000 to 5099'} on {HOST} is taken; choose another with --port")


def _wait_until_it_answers(server: subprocess.Popen[bytes], url: str, log: IO[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            log.seek(0)
            raise TrackingError(f"the MLflow server ended at once: {without_password(_cause(log.read()))}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TrackingError(f"the MLflow server did not answer on {url} within {START_SECONDS:.0f} s")


def _cause(log: str) -> str:
    """The line of a server's log that says what went wrong: the last exception's, else the last.

    >>> _cause("Traceback (most recent call last):\\nsqlite3.DatabaseError: file is not a database\\n(see: a page)")
    'sqlite3.DatabaseError: file is not a database'
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["it said nothing"]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    return (raised or lines)[-1]


def _newest_study(url: str) -> str:
    """The page of the newest study.

    MLflow's own front page, and its experiments when opened from there, show pages for language model applications.
    """
    query = {"max_results": 1, "filter": "name != 'Default'", "order_by": ["creation_time DESC"]}
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/experiments/search",
        data=json.dumps(query).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
            found = json.load(answer).get("experiments", [])
    except OSError:
        return url  # the front page is better than no page
    return f"{url}/#/experiments/{found[0]['experiment_id']}?workflowType=machine_learning" if found else url
