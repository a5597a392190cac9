"""Every command, as a person or a program uses it, over one finished study."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from sweeper_command import FinishedStudy, SweeperCommand

from sweeper import load_model
from sweeper.cli import main
from sweeper.study import load_study
from sweeper.yaml_reader import read_yaml
from trials.data import Split, load_splits
from trials.recipe import Data

pytestmark = pytest.mark.slow

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


def test_a_study_ends_with_its_results_and_the_lines_to_go_on(finished: FinishedStudy) -> None:
    winner, out = finished.shown["winner"], finished.done.stdout
    assert finished.done.stderr == ""
    assert "trial 0003 pruned after 1 epoch: validation.accuracy " in out
    assert "5/5 trials, 0 running, 4 complete, 1 pruned, best validation.accuracy " in out
    assert "averaging gained " in out
    assert f"winner: {winner['kind']} of trial {winner['trial']:04d}, test accuracy {winner['test']:.4f} (95 %" in out
    assert "pull it:   sweeper pull small -o small-best\n" in out
    assert "browse it: sweeper ui\n" in out


def test_list_for_programs(finished: FinishedStudy) -> None:
    (study,) = json.loads(finished.sweeper.run("list", "--json").stdout)
    age = datetime.now().astimezone() - datetime.fromisoformat(study.pop("created"))
    assert timedelta(0) <= age < timedelta(hours=1)
    assert study == {
        "study": "small",
        "state": "finished",
        "trials_asked": 5,
        "trials": {"complete": 4, "pruned": 1},
        "metric": "validation.accuracy",
        "best": finished.shown["leaderboard"][0]["value"],
    }


def test_list_and_show_for_people(finished: FinishedStudy) -> None:
    best = finished.shown["leaderboard"][0]
    _, line = finished.sweeper.run("list").stdout.splitlines()
    assert line.split()[:5] == ["small", "finished", "5/5", f"{best['value']:.4f}", "validation.accuracy"]
    shown = finished.sweeper.run("show", "small").stdout
    assert shown.startswith("small: finished\n")
    assert ["0003", "pruned", "1"] in [row.split()[:3] for row in shown.splitlines()]
    first_place = ["1", best["kind"], f"{best['trial']:04d}", f"{best['value']:.4f}"]
    assert first_place in [row.split() for row in shown.splitlines()]


def test_show_for_programs_has_the_documented_shape(finished: FinishedStudy) -> None:
    study = finished.shown
    assert {"study", "state", "trials", "leaderboard", "winner"} <= study.keys()
    assert (study["study"], study["state"], study["metric"]) == ("small", "finished", "validation.accuracy")
    assert [trial["number"] for trial in study["trials"]] == [0, 1, 2, 3, 4]
    # The first four are the points of start_with, each better than the one before but for the last, which is hopeless.
    assert [trial["state"] for trial in study["trials"]] == ["complete", "complete", "complete", "pruned", "complete"]
    for trial in study["trials"]:
        assert {"number", "state", "value", "params", "epochs"} <= trial.keys()
        epochs = [epoch["epoch"] for epoch in trial["epochs"]]
        assert epochs == ([1] if trial["state"] == "pruned" else [1, 2, 3])
        assert all(math.isfinite(v) for epoch in trial["epochs"] for v in epoch["metrics"].values())
    for row in study["leaderboard"]:
        assert row.keys() == {"kind", "trial", "value", "path"}
    assert {"kind", "trial", "selection", "test"} <= study["winner"].keys()


def test_params_are_those_of_the_points_to_try_first_and_of_the_recipe(finished: FinishedStudy) -> None:
    tried = [dict(trial["params"]) for trial in finished.shown["trials"]]
    assert tried[0] == {"model": "linear", "train.batch_size": 64, "train.optimizer.lr": 0.0005}
    assert tried[3] == {"model": "mlp", "model.width": 16, "train.batch_size": 64, "train.optimizer.lr": 0.0001}
    for number, params in enumerate(tried):
        folder = finished.sweeper.home / "studies" / "small" / "trials" / f"{number:04d}"
        recipe = json.loads((folder / "recipe.json").read_text())
        assert params.pop("model") == recipe["model"]["build"]
        assert ("model.width" in params) == (recipe["model"]["build"] == "mlp")
        assert {path: at(recipe, path) for path in params} == params


def test_the_leaderboard_holds_all_weights_kept_best_first(finished: FinishedStudy) -> None:
    board = finished.shown["leaderboard"]
    values = [row["value"] for row in board]
    assert values == sorted(values, reverse=True)
    assert {Path(row["path"]) for row in board} == set(finished.sweeper.home.rglob("weights/*.safetensors"))
    assert len({(row["trial"], row["kind"]) for row in board}) == len(board)
    for trial in finished.shown["trials"]:
        kept = [row["value"] for row in board if row["trial"] == trial["number"]]
        assert kept == [] if trial["state"] == "pruned" else max(kept) == trial["value"]


def test_the_winner_is_worth_what_is_said_of_it(finished: FinishedStudy) -> None:
    winner, first = finished.shown["winner"], finished.shown["leaderboard"][0]
    assert (winner["kind"], winner["trial"]) == (first["kind"], first["trial"])
    assert winner["selection"] == pytest.approx(first["value"], abs=1e-12)
    splits = load_splits(Data(source="digits"), torch.device("cpu"))
    for split, metrics in (("selection", winner["selection_metrics"]), ("test", winner["test_metrics"])):
        prefix = "validation" if split == "selection" else "test"
        hits, count, loss, low, high = by_hand(finished.pulled, getattr(splits, split))
        assert metrics[f"{prefix}.count"] == count
        assert winner[split] == metrics[f"{prefix}.accuracy"] == pytest.approx(hits / count, abs=1e-12)
        assert metrics[f"{prefix}.loss"] == pytest.approx(loss, rel=1e-5)
        assert metrics[f"{prefix}.accuracy.low"] == pytest.approx(low, abs=1e-6)
        assert metrics[f"{prefix}.accuracy.high"] == pytest.approx(high, abs=1e-6)


def test_what_is_pulled_is_the_winner_byte_for_byte(finished: FinishedStudy) -> None:
    assert {p.name for p in finished.pulled.iterdir()} == {
        "weights.safetensors",
        "recipe.json",
        "package.json",
        "README.md",
    }
    digest = sha256(finished.pulled / "weights.safetensors")
    assert digest == sha256(Path(finished.shown["leaderboard"][0]["path"]))
    assert digest == json.loads((finished.pulled / "package.json").read_text())["weights_sha256"]
    card, winner = (finished.pulled / "README.md").read_text(), finished.shown["winner"]
    assert digest in card
    assert f"| test | accuracy | {winner['test']:.4f} |" in card
    assert finished.commit in card
    assert "`digits`" in card


def test_pull_leaves_a_folder_that_holds_something_alone(finished: FinishedStudy, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = finished.sweeper.run("pull", "small", "-o", tmp_path)
    assert_refused(done, 2, f"{tmp_path}: exists and is not an empty folder; choose another with -o")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("notes.txt", "mine")]


def test_pull_refuses_weights_that_were_damaged(finished: FinishedStudy, tmp_path: Path) -> None:
    weights = finished.sweeper.home / "studies" / "small" / "winner" / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        done = finished.sweeper.run("pull", "small", "-o", tmp_path / "new")
    finally:
        weights.write_bytes(whole)
    assert_refused(done, 1, f"{weights}: sha256 ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["show", "pull"])
def test_an_unknown_study_is_answered_with_those_there_are(finished: FinishedStudy, command: str) -> None:
    assert_refused(finished.sweeper.run(command, "smal"), 2, "no study named 'smal' here; studies: small")


def test_starting_a_finished_study_starts_nothing(finished: FinishedStudy) -> None:
    before = files(finished.sweeper.home / "studies")
    done = finished.sweeper.run("start", finished.file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("study 'small' is finished; nothing to start\n")
    assert "winner: " in done.stdout
    assert files(finished.sweeper.home / "studies") == before
    assert finished.sweeper.show("small") == finished.shown


def test_a_different_file_of_the_same_name_is_refused_with_the_difference(
    finished: FinishedStudy, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(finished.file.read_text().replace("epochs: 3", "epochs: 4"))
    done = finished.sweeper.run("start", other, "--in-process")
    assert_refused(done, 2, f"{other}: a study named 'small' was started from a different file")
    changed = [line for line in done.stderr.splitlines() if line.startswith(("-", "+"))]
    assert changed == ["--- started before", f"+++ {other}", "-  epochs: 3", "+  epochs: 4"]
    assert finished.sweeper.show("small") == finished.shown


def test_the_option_wins_over_the_environment_and_looking_leaves_no_trace(
    finished: FinishedStudy, sweeper: SweeperCommand
) -> None:
    assert json.loads(sweeper.run("list", "--json").stdout) == []
    assert sweeper.run("list").stdout == f"no studies yet in {sweeper.home / 'sweeper.db'}; begin with: sweeper init\n"
    nothing = f"no study named 'small' here; studies: none yet in {sweeper.home / 'sweeper.db'}"
    assert_refused(sweeper.run("show", "small"), 2, nothing)
    assert not sweeper.home.exists()
    (study,) = json.loads(sweeper.run("list", "--json", "--home", finished.sweeper.home).stdout)
    assert study["study"] == "small"


def test_init_writes_a_file_that_loads_and_never_over_another(sweeper: SweeperCommand, tmp_path: Path) -> None:
    for animal in ("cat", "dog"):
        (tmp_path / "pets" / animal).mkdir(parents=True)
    validator = jsonschema.Draft202012Validator(json.loads(sweeper.run("schema").stdout))
    for source, name in (("digits", "my-digits"), ("pets", "pets")):
        done = sweeper.run("init", source, "-o", f"{name}.yaml")
        assert done.stdout == f"wrote {name}.yaml; run it with: sweeper start {name}.yaml\n"
        path = tmp_path / f"{name}.yaml"
        assert load_study(path).name == name
        assert list(validator.iter_errors(read_yaml(path.read_text()).data)) == []
        path.write_text("mine")
        again = sweeper.run("init", source, "-o", path.name)
        assert_refused(again, 2, f"{name}.yaml: exists already; choose another name with -o")
        assert path.read_text() == "mine"


def test_the_schema_accepts_the_example_studies_and_refuses_a_slip(sweeper: SweeperCommand) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(sweeper.run("schema").stdout))
    for path in STUDIES:
        study: dict[str, Any] = read_yaml(path.read_text()).data
        assert list(validator.iter_errors(study)) == [], path
        assert not validator.is_valid(study | {"serach": {}})


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_has_an_example(sweeper: SweeperCommand, command: str) -> None:
    done = sweeper.run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Example:\n    sweeper {command}" in done.stdout


def test_help_of_the_whole_names_all_commands(sweeper: SweeperCommand) -> None:
    done = sweeper.run("--help")
    assert done.returncode == 0
    assert set(main.commands) == {
        "start",
        "stop",
        "pause",
        "resume",
        "retry",
        "extend",
        "list",
        "show",
        "top",
        "logs",
        "doctor",
        "sync",
        "ui",
        "pull",
        "predict",
        "rank",
        "rm",
        "init",
        "schema",
        "soup",
    }
    listed = [line for line in done.stdout.split("Commands:\n")[1].splitlines() if line[2:3].strip()]
    assert [line.split()[0] for line in listed] == sorted(main.commands)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["start", "absent.yaml"], 2, "absent.yaml"),
        (["start", "broken.yaml"], 2, "broken.yaml:3:16: model.build: "),
        (["start", "fine.yaml", "--home", "fine.yaml"], 2, "'fine.yaml' is a file"),
        (["start", "fine.yaml", "--home", "fine.yaml/below"], 1, "fine.yaml"),
        (["start", "."], 2, "."),
        (["ui"], 1, "nothing to show yet; begin with: sweeper start study.yaml"),
        (["init", "absent/"], 2, "absent: found no such folder, expected `digits`, a folder of images, or a .csv"),
        (["init", "-o", "absent/study.yaml"], 1, "absent/study.yaml: No such file or directory"),
        (["pull"], 2, "Missing argument 'STUDY'"),
        (["strat"], 2, "strat"),
    ],
)
def test_mistakes_are_answered_in_a_line(
    sweeper: SweeperCommand, arguments: list[str], exit_code: int, said: str
) -> None:
    fine = "study: fine\ndata: {source: digits}\nmodel: {build: linear}\n"
    (sweeper.cwd / "fine.yaml").write_text(fine)
    (sweeper.cwd / "broken.yaml").write_text(fine.replace("linear", "liner"))
    assert_refused(sweeper.run(*arguments), exit_code, said)
    assert not sweeper.home.exists()


def assert_refused(done: Any, exit_code: int, said: str) -> None:
    assert said in done.stderr
    assert done.returncode == exit_code
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout == ""


def by_hand(package: Path, split: Split) -> tuple[int, int, float, float, float]:
    """Hits, count, mean cross-entropy and the 95 % Wilson interval, one example after another."""
    model, preprocess = load_model(package)
    hits, loss = 0, 0.0
    for raw, target in zip(split.inputs, split.targets.tolist(), strict=True):
        with torch.no_grad():
            logits = model(preprocess(raw[0].numpy()))[0].double()
        hits += int(logits.argmax() == target)
        loss += float(logits.logsumexp(0) - logits[target])
    n, z = len(split), 1.959963984540054
    p = hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return hits, n, loss / n, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def at(tree: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path) -> dict[Path, tuple[int, str]]:
    """Every file below with its time of change and its digest."""
    return {p: (p.stat().st_mtime_ns, sha256(p)) for p in folder.rglob("*") if p.is_file()}
