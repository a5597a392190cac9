"""`sweeper ui`, looked at with a real browser."""

from __future__ import annotations

import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient
from sweeper_command import FinishedStudy, Running

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(finished: FinishedStudy, port: int) -> Iterator[Running]:
    """The MLflow pages of the finished study."""
    with finished.sweeper.running("ui", "--no-browser", "--port", str(port)) as ui:
        ui.wait_until(lambda: "MLflow UI: " in ui.out.read_text())
        yield ui


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """An empty page of a browser that has never seen MLflow; what it shows at the end is kept as a picture."""
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM} here: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: install the test extra")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        browser.close()


def test_the_address_it_tells_leads_to_the_runs_of_the_study(
    finished: FinishedStudy, served: Running, page: Page
) -> None:
    page.goto(address(served))
    study = page.get_by_role("gridcell").filter(has=page.get_by_role("link", name="small", exact=True)).first
    study.wait_for()
    # One parent run, its trials folded below it.
    assert page.get_by_text("trial 0002").count() == 0
    study.get_by_role("button").click()
    for number in range(5):
        page.get_by_role("link", name=f"trial {number:04d}", exact=True).wait_for()


def test_the_parent_run_shows_what_the_winner_is_worth(finished: FinishedStudy, served: Running, page: Page) -> None:
    open_run(page, served, finished, "small")
    assert metric(page, "winner.test.accuracy") == finished.shown["winner"]["test"]
    page.get_by_role("link", name="trial 0003").wait_for()
    page.get_by_text("git.commit").first.wait_for()


def test_a_trial_shows_its_values_and_its_curves(finished: FinishedStudy, served: Running, page: Page) -> None:
    trial = finished.shown["trials"][2]
    open_run(page, served, finished, "trial 0002")
    assert metric(page, "train.loss") == trial["epochs"][-1]["metrics"]["train.loss"]
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_placeholder("Search metric charts").fill("train.accuracy")
    page.get_by_text("epoch.seconds").first.wait_for(state="detached")
    dots = page.locator(".scatterlayer .point")
    dots.first.wait_for(state="attached")
    assert dots.count() == len(trial["epochs"]) == 3


def test_the_model_is_registered_as_best(finished: FinishedStudy, served: Running, page: Page) -> None:
    page.goto(f"{origin(served)}/#/models/small")
    page.get_by_text("Version 1").first.wait_for()
    row = page.get_by_role("row").filter(has_text="Version 1")
    assert "@ best" in row.inner_text().replace("\N{NO-BREAK SPACE}", " ")


def test_a_port_that_is_taken_is_said(finished: FinishedStudy, served: Running, port: int) -> None:
    done = finished.sweeper.run("ui", "--no-browser", "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: port {port} on 127.0.0.1 is taken; choose another with --port\n"


def test_pages_of_a_server_elsewhere_are_named_not_served(finished: FinishedStudy) -> None:
    done = finished.sweeper.run("ui", "--no-browser", MLFLOW_TRACKING_URI="http://ada:secret@mlflow.invalid:5000")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "MLFLOW_TRACKING_URI is set: the pages are at http://ada:***@mlflow.invalid:5000\n"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda stop: stop.name)
def test_nothing_is_left_when_it_is_stopped(finished: FinishedStudy, stop: signal.Signals) -> None:
    port = free_port()
    with finished.sweeper.running("ui", "--no-browser", "--port", str(port)) as ui:
        ui.wait_until(lambda: "MLflow UI: " in ui.out.read_text())
        assert origin(ui) == f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{origin(ui)}/health") as answer:
            assert answer.read() == b"OK"
        # To the command alone, not to its group: it has to stop the server itself.
        ui.process.send_signal(stop)
        assert ui.process.wait(timeout=60) == 0
        assert ui.err.read_text() == ""
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def address(ui: Running) -> str:
    """The address that the command told."""
    return ui.out.read_text().split("MLflow UI: ")[1].split()[0]


def origin(ui: Running) -> str:
    return address(ui).split("/#/")[0]


def open_run(page: Page, ui: Running, finished: FinishedStudy, name: str) -> None:
    client = MlflowClient(finished.sweeper.tracking_uri, finished.sweeper.tracking_uri)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    page.goto(f"{origin(ui)}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}")


def metric(page: Page, name: str) -> float:
    """The value that the page of a run shows beside the name of a metric."""
    row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True)).first
    row.wait_for()
    return float(row.inner_text().split()[-1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
