from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from sweeper.catalog import Catalog, WeightsRow
from sweeper.errors import StoreError
from sweeper.publish import publish_winner
from sweeper.rank.leaderboard import rank
from sweeper.study_folder import StudyFolder, check_digest
from trials import Recipe, load_model, run_trial, score
from trials.data import load_splits


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Catalog, StudyFolder]]:
    """A catalog that knows one real trial, trained below the study's folder."""
    home = tmp_path_factory.mktemp("home")
    folder = StudyFolder(home, "small")
    catalog = Catalog(f"sqlite:///{home / 'a.db'}")
    study = catalog.add_study("small", digest="d", text="", metric="validation.accuracy", trials_asked=1)
    recipe = Recipe.model_validate(
        {
            "seed": 5,
            "data": {"source": "digits", "validation": 0.4, "confirm": 0.5},
            "model": {"build": "linear"},
            "train": {"epochs": 2, "optimizer": {"name": "adam", "lr": 0.01}, "ema": {"decay": 0.9}},
        }
    )
    result = run_trial(recipe, folder.trial(0), device="cpu")
    trial = catalog.add_trial(study.id, 0, params={}, recipe=json.loads(recipe.model_dump_json()))
    kept = [(file, f"trials/0000/{file.path}", file.metrics["validation.accuracy"]) for file in result.weights]
    catalog.end_trial(trial.id, "complete", value=kept[0][2], weights=kept)
    yield catalog, folder
    catalog.close()


def _publish(finished: tuple[Catalog, StudyFolder]) -> dict[str, object]:
    catalog, folder = finished
    study = catalog.study("small")
    best = rank(catalog.weights(study.id), study.metric)[0]
    return publish_winner(catalog, study, best, folder, file_folder=folder.root)


def test_the_test_split_is_looked_at_once(
    finished: tuple[Catalog, StudyFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    real = score.score_weights
    monkeypatch.setattr(score, "score_weights", lambda *a, **k: looks.append(a[2]) or real(*a, **k))
    first = _publish(finished)
    assert looks.count("test") == 1
    assert _publish(finished) == first
    assert looks.count("test") == 1, "a restart looks no second time"


def test_what_is_packed_is_worth_what_the_record_says(finished: tuple[Catalog, StudyFolder]) -> None:
    _, folder = finished
    record = _publish(finished)
    package = folder.package(record["package"])

    model, preprocess = load_model(package)
    recipe = Recipe.model_validate_json((package / "recipe.json").read_text())
    test = load_splits(recipe.data, torch.device("cpu")).test
    raw = test.inputs.permute(0, 2, 3, 1).squeeze(-1).numpy()
    hits = int((model(preprocess(raw)).argmax(dim=1) == test.targets).sum())
    scores = record["test"]
    assert isinstance(scores, dict)
    assert scores["test.accuracy"] == hits / len(test)
    assert scores["test.accuracy.low"] < hits / len(test) < scores["test.accuracy.high"]
    card = (package / "README.md").read_text()
    assert f"| test | accuracy | {hits / len(test):.4f} |" in card
    assert str(record["sha256"]) in card
    assert sorted(path.name for path in package.iterdir()) == [
        "README.md",
        "package.json",
        "recipe.json",
        "weights.safetensors",
    ]


def test_record_and_card_say_what_the_winner_is_worth_on_the_confirmation_split(
    finished: tuple[Catalog, StudyFolder],
) -> None:
    catalog, folder = finished
    record = _publish(finished)
    (row,) = [row for row in catalog.weights(catalog.study("small").id) if row.path == record["path"]]
    known = {name: value for name, value in row.metrics.items() if name.startswith("confirm.")}
    assert record["confirmation"] == known
    card = (folder.package(record["package"]) / "README.md").read_text()
    assert f"| confirmation | accuracy | {known['confirm.accuracy']:.4f} |" in card


def test_other_winners_are_looked_at_and_counted_and_none_is_looked_at_twice_in_a_row(
    finished: tuple[Catalog, StudyFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, folder = finished
    first = _publish(finished)
    study = catalog.study("small")
    best, other = rank(catalog.weights(study.id), study.metric)
    # The same weights under another name, as after an extension whose best epoch is an old one.
    again = replace(best, path=f"{best.path}-again")
    shutil.copy(folder.root / best.path, folder.root / again.path)

    looks: list[Path] = []
    real = score.score_weights
    monkeypatch.setattr(score, "score_weights", lambda *a, **k: looks.append(a[1]) or real(*a, **k))
    records = []
    for winner in (again, other, best):
        record = publish_winner(catalog, study, winner, folder, file_folder=folder.root)
        assert record == catalog.study("small").winner
        assert {name: record[name] for name in ("kind", "path", "sha256")} == {
            "kind": winner.kind,
            "path": winner.path,
            "sha256": winner.sha256,
        }
        records.append(record)
        check_digest(folder.package(record["package"]) / "weights.safetensors", winner.sha256)
        assert (folder.package(record["package"] - 1) / "weights.safetensors").exists(), "until it is not needed"
    assert looks == [folder.root / row.path for row in (other, other, best, best)]
    assert [record["test_looks"] for record in (first, *records)] == [1, 1, 2, 3]
    assert [look["path"] for look in records[2]["looks"]] == [first["path"], other.path, best.path], "each is recorded"
    assert records[0]["test"] == records[2]["test"] == first["test"] != records[1]["test"]

    card = (folder.package(records[2]["package"]) / "README.md").read_text()
    assert "The test split was looked at 3 times, each time with the winner that the study had then" in card


@pytest.mark.parametrize("killed_in", ["look", "pack"])
def test_a_look_that_is_cut_off_counts_once_and_before_it_is_taken(
    killed_in: str, finished: tuple[Catalog, StudyFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, folder = finished[0], StudyFolder(tmp_path, "small")
    shutil.copytree(finished[1].trials, folder.trials)
    study = catalog.add_study(killed_in, digest="d", text="", metric="validation.accuracy", trials_asked=1)
    recipe = catalog.trial(catalog.study("small").id, 0).recipe
    best, other = rank(catalog.weights(catalog.study("small").id), study.metric)
    catalog.add_trial(study.id, 0, params={}, recipe=recipe)

    def publish_and_be_killed(winner: WeightsRow) -> None:
        real = score.score_weights

        def look(recipe: Recipe, weights: Path, split: Literal["selection", "test"]) -> dict[str, float]:
            if split == "test":
                assert catalog.study(study.name).looks[-1]["sha256"] == winner.sha256, "recorded before it is taken"
                if killed_in == "look":
                    raise KeyboardInterrupt
            return real(recipe, weights, split)

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(score, "score_weights", look)
            if killed_in == "pack":
                patched.setattr("sweeper.publish.pack", killed)
            with pytest.raises(KeyboardInterrupt):
                publish_winner(catalog, study, winner, folder, file_folder=folder.root)

    for _ in range(2):
        publish_and_be_killed(best)
        row = catalog.study(study.name)
        assert (row.winner, [look["sha256"] for look in row.looks]) == (None, [best.sha256])
    first = publish_winner(catalog, study, best, folder, file_folder=folder.root)
    assert (first["test_looks"], first["looks"]) == (1, row.looks)

    publish_and_be_killed(other)
    said = [best.sha256, other.sha256]
    row = catalog.study(study.name)
    assert row.winner == {**first, "test_looks": 2, "looks": row.looks}, "all else is the winner's that is still packed"
    assert [look["sha256"] for look in row.looks] == said
    second = publish_winner(catalog, study, other, folder, file_folder=folder.root)
    assert (second["test_looks"], [look["sha256"] for look in second["looks"]]) == (2, said)
    card = (folder.package(second["package"]) / "README.md").read_text()
    assert "The test split was looked at 2 times" in card


def test_weights_that_changed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "raw.safetensors"
    path.write_bytes(b"weights")
    check_digest(path, hashlib.sha256(b"weights").hexdigest())
    path.write_bytes(b"weightz")
    with pytest.raises(StoreError, match=r"raw\.safetensors: sha256 \w{12}\.\.\., expected \w{12}\.\.\."):
        check_digest(path, hashlib.sha256(b"weights").hexdigest())
    path.unlink()
    with pytest.raises(StoreError, match="the catalog names these weights, but the file is gone"):
        check_digest(path, "x")
