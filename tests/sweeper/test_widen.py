"""`sweeper extend` with more trials or a wider file, in one process and with trials that take no time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from sweeper.catalog import Catalog, StudyRow, TrialRow
from sweeper.cli import main
from sweeper.errors import StudyError
from sweeper.settings import Settings, load_settings
from sweeper.start import start
from sweeper.study import load_study
from sweeper.widen import add_trials, check_wider, widen

STUDY = """\
study: small
data: {source: digits}
model: {build: linear}
train:
  epochs: 3
  batch_size: {choice: [64, 128]}
  optimizer:
    choice:
      - {name: sgd, lr: {log: [0.01, 0.2]}, momentum: {uniform: [0.5, 0.9]}}
      - {name: adamw, lr: {log: [0.001, 0.01]}}
  ema: {decay: {choice: [0.5, 0.9]}}
  clip_norm: {int: [2, 8], step: 2}
search: {sampler: random, trials: 4, pruner: {name: none}}
"""
INSTANT = "fake_training:instant"

REFUSED = {
    "a narrower range": (
        ("log: [0.01, 0.2]", "log: [0.05, 10.0]"),
        "train.optimizer.choice[0].lr: found {log: [0.05, 10.0]}, "
        "expected a range of its kind that holds all of {log: [0.01, 0.2]}",
    ),
    "another kind": (
        ("uniform: [0.5, 0.9]", "log: [0.1, 0.99]"),
        "train.optimizer.choice[0].momentum: found {log: [0.1, 0.99]}, "
        "expected a range of its kind that holds all of {uniform: [0.5, 0.9]}",
    ),
    "steps that miss old values": (
        ("int: [2, 8], step: 2", "int: [1, 9], step: 2"),
        "train.clip_norm: found {int: [1, 9], step: 2}, "
        "expected a range of its kind that holds all of {int: [2, 8], step: 2}",
    ),
    "an option that is gone": (
        ("choice: [64, 128]", "choice: [128, 256]"),
        "train.batch_size.choice: found {choice: [128, 256]}, expected the option 64 among them",
    ),
    "options in another order": (
        ("choice: [64, 128]", "choice: [128, 64, 256]"),
        "train.batch_size.choice: found {choice: [128, 64, 256]}, "
        "expected the old options in their order: {choice: [64, 128]}",
    ),
    "a value where a range was": (
        ("{choice: [0.5, 0.9]}", "0.5"),
        "train.ema.decay: found 0.5, expected {choice: [0.5, 0.9]}",
    ),
    "a range where a value was": (
        ("epochs: 3", "epochs: {int: [3, 5]}"),
        "train.epochs: found {int: [3, 5]}, expected 3",
    ),
    "another value": (("build: linear", "build: mlp"), "model.build: found 'mlp', expected 'linear'"),
    "a new key": (
        ("  epochs: 3\n", "  epochs: 3\n  swa: {start: 0.5}\n"),
        "train.swa: found {start: 0.5}, expected nothing",
    ),
    "a key that is gone": (
        ("  clip_norm: {int: [2, 8], step: 2}\n", ""),
        "train.clip_norm: found nothing, expected {int: [2, 8], step: 2}",
    ),
    "another sampler": (
        ("sampler: random", "sampler: tpe"),
        "search.sampler: found 'tpe', expected 'random', as the study has it",
    ),
    "another seed": (("study: small\n", "study: small\nseed: 5\n"), "seed: found 5, expected 0, as the study has it"),
}
WHY = ": otherwise what its trials have shown would not fit"


def _row(state: str = "finished", trials_asked: int = 4) -> Any:
    class Row:
        pass

    row = Row()
    row.state, row.trials_asked = state, trials_asked  # type: ignore[attr-defined]
    return row


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_wider_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    (before, after), line = REFUSED[case]
    file = tmp_path / "study.yaml"
    old = load_study(file, STUDY)
    assert before in STUDY
    with pytest.raises(StudyError) as caught:
        check_wider(old, load_study(file, STUDY.replace("trials: 4", "trials: 8").replace(before, after)), _row())
    assert str(caught.value) == f"{file}: {line}{WHY}"


def test_all_that_is_not_wider_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    text = STUDY.replace("trials: 4", "trials: 3").replace("sampler: random", "sampler: tpe")
    text = text.replace("[0.01, 0.2]", "[0.1, 0.2]")
    with pytest.raises(StudyError) as caught:
        check_wider(load_study(file, STUDY), load_study(file, text), _row())
    keys = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert keys == ["search.sampler", "train.optimizer.choice[0].lr", "search.trials"]


WIDER = (
    STUDY.replace("trials: 4", "trials: 12")
    .replace("log: [0.01, 0.2]", "log: [0.0001, 10.0]")
    .replace("uniform: [0.5, 0.9]", "uniform: [0.4, 0.95]")
    .replace("choice: [64, 128]", "choice: [32, 64, 128, 256]")
    .replace("int: [2, 8], step: 2", "int: [1, 9]")
    .replace(
        "adamw, lr: {log: [0.001, 0.01]}}\n", "adamw, lr: {log: [0.001, 0.01]}}\n      - {name: rmsprop, lr: 0.001}\n"
    )
)


def test_more_of_every_kind_is_wider(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    check_wider(load_study(file, STUDY), load_study(file, WIDER), _row())


class Life:
    """A study in a home of its own, run by trials that take no time."""

    def __init__(self, settings: Settings, file: Path) -> None:
        self.settings, self.file = settings, file
        self.catalog = Catalog(settings.database_url)
        self.lines: list[str] = []

    def __call__(self, act: Any, *said: Any, **words: Any) -> int:
        out = io.StringIO()
        words = {"in_process": True, "train": INSTANT, **words}
        code: int = act(*said, self.settings, Console(file=out, width=200), **words)
        self.lines = out.getvalue().splitlines()
        return code

    @property
    def row(self) -> StudyRow:
        return self.catalog.study("small")

    @property
    def trials(self) -> list[TrialRow]:
        return self.catalog.trials(self.row.id)


@pytest.fixture
def life(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    monkeypatch.setattr("sweeper.carry_out.publish_winner", lambda *_, **__: None)  # there is no model in fake weights
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    life = Life(load_settings(), file)
    with closing(life.catalog):
        assert life(start, file) == 0
        yield life


def _kept(trial: TrialRow) -> tuple[Any, ...]:
    return trial.number, trial.state, trial.params, trial.recipe, trial.value, trial.facts, trial.ended_at


def test_a_wider_range_is_tried_and_old_trials_are_what_they_were(life: Life) -> None:
    before = [_kept(trial) for trial in life.trials]
    assert len(before) == 4
    life.file.write_text(WIDER)
    with pytest.raises(StudyError) as caught:
        life(start, life.file)
    assert f"sweeper extend small --file {life.file}" in str(caught.value)
    assert life(widen, "small", file=life.file) == 0
    assert life.lines[0] == f"study 'small' goes on as {life.file} says: 8 more trials, 12 in all"
    assert [_kept(trial) for trial in life.trials[:4]] == before
    assert [trial.number for trial in life.trials] == list(range(12))
    assert all(trial.state == "complete" for trial in life.trials)
    rates = [t.recipe["train"]["optimizer"]["lr"] for t in life.trials[4:] if t.params["train.optimizer"] == "sgd"]
    assert any(not 0.01 <= rate <= 0.2 for rate in rates)
    assert (life.row.state, life.row.trials_asked, life.row.history) == ("finished", 12, "small@2")
    assert life.row.text == WIDER
    assert life(start, life.file) == 0
    assert life.lines[0] == "study 'small' is finished; nothing to start"


def test_trials_are_added_as_if_they_had_been_asked_for_at_once(life: Life, tmp_path: Path) -> None:
    before = [_kept(trial) for trial in life.trials]
    assert life(add_trials, "small", trials=3) == 0
    assert life.lines[0] == "adding 3 trials to study 'small': 7 in all"
    assert (life.row.state, life.row.trials_asked, life.row.history) == ("finished", 7, "small")
    assert [_kept(trial) for trial in life.trials[:4]] == before
    # The file says 4 as ever: starting it is no reason to forget the others.
    assert life(start, life.file) == 0
    assert life.row.trials_asked == 7
    at_once = tmp_path / "at_once.yaml"
    at_once.write_text(STUDY.replace("study: small", "study: once").replace("trials: 4", "trials: 7"))
    assert life(start, at_once) == 0
    once = life.catalog.trials(life.catalog.study("once").id)
    assert [trial.params for trial in once] == [trial.params for trial in life.trials]


def test_what_makes_no_sense_is_refused_in_one_line(life: Life) -> None:
    def refused(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["extend", "small", *words])
        assert done.stdout == ""
        return done.exit_code, done.stderr.removeprefix("error: ").rstrip("\n")

    assert refused() == (2, "found nothing to add, expected --epochs +N, --trials +N or --file STUDY.YAML")
    assert refused("--trials", "0") == (2, "--trials: found 0, expected at least 1")
    assert refused("--trial", "1") == (2, "--trial: found without --epochs, expected how many to add to it")
    assert refused("--file", str(life.file), "--trials", "3") == (
        2,
        "--file: found beside --epochs, --trials or --trial, expected it alone: it says how many trials",
    )
    assert refused("--file", str(life.file)) == (
        2,
        f"{life.file}: search.trials: found 4, expected more: the study is finished, "
        "and only another trial can try what is new",
    )
    life.catalog.set_study(life.row.id, state="failed")
    again = "train what failed again with: sweeper retry small"
    assert refused("--trials", "+3") == (2, f"study 'small' failed, expected one that works; {again}")
    assert life.row.trials_asked == 4
