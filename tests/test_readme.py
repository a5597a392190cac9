"""The README is true: its commands exist, its study loads, its Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from sweeper.cli import main
from sweeper.errors import StudyError
from sweeper.study import load_study
from trials import Recipe, run_trial

README = (Path(__file__).parents[1] / "README.md").read_text()
MAKEFILE = (Path(__file__).parents[1] / "Makefile").read_text()


def _commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    quoted = re.findall(r"`((?:sweeper|make) [^`]+)`", README)
    return sorted(set(lines + quoted))


@pytest.mark.parametrize("command", _commands())
def test_each_command_is_one(command: str) -> None:
    program, *words = shlex.split(command.split(" > ")[0])
    if program == "make":
        assert re.search(rf"^{words[0]}:", MAKEFILE, re.MULTILINE), f"the Makefile has no {words[0]}"
        return
    assert program == "sweeper"
    known = main.commands[words[0]]
    # Parses the words against the command's own options without running it.
    context = known.make_context(words[0], words[1:], resilient_parsing=False)
    assert isinstance(context, click.Context)


def test_the_study_in_it_loads(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "study.yaml").write_text(text)
    study = load_study(tmp_path / "study.yaml")
    assert study.name == "fashion"
    assert study.start_with == ({"train.optimizer": "adamw", "train.optimizer[adamw].lr": 0.003},)


def test_the_error_in_it_is_the_error_one_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = re.findall(r"^error: (study\.yaml:.*)$", README, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(
        "study: a\ndata:\n  source: digits\nmodel:\n  build: linear\n"
        "train:\n  epochs: 3\n  optimizer:\n    name: sgd\n    lr: fast\n"
    )
    with pytest.raises(StudyError) as caught:
        load_study("study.yaml")
    assert str(caught.value) == line


def _python(containing: str) -> str:
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if containing in block]
    return str(code)


def test_the_users_own_module_in_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_task.py").write_text(_python("my_task.py"))
    recipe = Recipe.model_validate(
        {
            "data": {"source": "my_task:shapes"},
            "model": {"build": "my_task:net", "arguments": {"width": 8}},
            "train": {"epochs": 2, "optimizer": {"name": "adam", "lr": 0.01}},
        }
    )
    result = run_trial(recipe, tmp_path / "trial")
    assert result.parameters == 256 * 8 + 8 + 8 * 2 + 2
    assert result.weights[0].metrics["validation.accuracy"] > 0.95


def test_the_single_trial_in_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(_python("run_trial"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["1", "2", "3"], "one line an epoch"
    assert "validation.accuracy" in lines[3]
