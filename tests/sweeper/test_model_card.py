"""The README of a pulled model says how this very model is asked, and what its answers mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sweeper.catalog import StudyRow
from sweeper.model_card import model_card
from trials.data import load_splits
from trials.package import load_model, write_package
from trials.recipe import Recipe

ROWS = 60


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Houses whose price is 1000 a square metre, and a word of advice on each."""
    rows = [
        f"{50 + index},{'town' if index % 2 else 'field'},{(50 + index) * 1000},{'buy it' if index % 2 else 'no'}"
        for index in range(ROWS)
    ]
    path = tmp_path / "houses.csv"
    path.write_text("\n".join(["size,place,price,advice", *rows]) + "\n")
    return path


def card(data: dict[str, Any], model: str, folder: Path, **more: Any) -> str:
    """The card of an untrained model, packed at ``folder``."""
    import safetensors.torch

    from trials.model.build import build_model

    recipe = Recipe.model_validate({"data": data, "model": {"build": model}})
    splits = load_splits(recipe.data, torch.device("cpu"))
    torch.manual_seed(0)
    module = build_model(recipe.model, splits.preprocess.spec, splits.target.outputs)
    safetensors.torch.save_file(module.state_dict(), folder / "w.safetensors")
    write_package(folder / "FOLDER", recipe, folder / "w.safetensors", splits)
    metric = recipe.metric
    study = StudyRow(1, "houses", "finished", None, "houses", "d", "", metric, 1, 0.0, *[None] * 15)  # type: ignore[arg-type]
    short = metric.removeprefix("validation.")
    record = {
        "kind": "swa",
        "trial": 3,
        "sha256": "abc",
        "selection": {metric: 50123.4},
        "test": {
            f"test.{short}": 51234.56,
            f"test.{short}.low": 48000.4,
            f"test.{short}.high": 54321.9,
            "test.count": 9.0,
        },
        "test_looks": 1,
        **more,
    }
    return model_card(study, record, recipe, {}, splits)


def answered(card: str, **given: Any) -> dict[str, Any]:
    """What the card's own lines of Python give, run beside the package."""
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = dict(given)
    exec(code, names)
    return names


def test_a_number_is_asked_for_and_given_in_its_own_units(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"source": f"csv:{table}", "target": "price", "task": "regression", "drop": ["advice"]}
    text = card(data, "linear", tmp_path)
    assert (
        "values = model(preprocess(rows)).squeeze(1)  # a pandas DataFrame, or rows as dicts, with the columns below"
        in text
    )
    splits = load_splits(Recipe.model_validate({"data": data, "model": {"build": "linear"}}).data, torch.device("cpu"))
    mean, std = splits.target.mean, splits.target.std
    told = f"whose mean in training was {mean:.0f} with a standard deviation of {std:.0f}\n"
    assert f"- values: in units of the column `price`, {told}" in text
    assert "- columns: `size (long)`, `place (string)`\n" in text
    assert "softmax" not in text
    assert "probabilities" not in text
    assert "| selection | loss | 50123 |  |" in text
    assert "| test | loss | 51235 | 48000 to 54322 |" in text
    assert "count" not in text.partition("## Load it")[0]

    names = answered(text, rows=[{"size": 70, "place": "town"}, {"size": 80, "place": "field"}])
    model, preprocess = load_model(tmp_path / "FOLDER")
    rows = np.array([[70, "town"], [80, "field"]], dtype=object)
    assert torch.equal(names["values"], model(preprocess(rows))[:, 0])
    assert names["values"].shape == (2,)


def test_classes_of_texts_are_named_in_order(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = card({"source": f"csv:{table}", "target": "place", "text": "advice"}, "text_gru", tmp_path)
    assert "probabilities = model(preprocess(texts)).softmax(dim=1)  # one text or a list of texts" in text
    assert "- probabilities: one a class of the column `place`, in this order: `field`, `town`\n" in text
    assert "- texts: the column `advice` of the source\n" in text
    assert answered(text, texts="buy it")["probabilities"].sum().item() == pytest.approx(1.0)


def test_a_winner_of_several_ways_says_how_it_was_chosen(table: Path, tmp_path: Path) -> None:
    worth = {"mean": 12.0, "low": 11.0, "high": 13.0, "count": 3}
    finalists = [
        {"way": "greedy soup", "worth": worth, "gain": {**worth, "mean": 2.0, "low": 1.0, "high": 3.0}},
        {"way": "best trial", "worth": {**worth, "mean": 14.0, "low": 13.0, "high": 15.0}, "gain": None},
    ]
    verdict = {"way": "greedy soup", "seeds": 3, "ways": [], "failed": [], "left_out": [], "finalists": finalists}
    data = {"source": f"csv:{table}", "target": "price", "task": "regression", "drop": ["advice"]}
    text = card(data, "linear", tmp_path, verdict=verdict)
    assert 'The `swa` weights of trial 3, to which the way "greedy soup" led: the best of the finalists on' in text
    assert "on the confirmation split, on which nothing else was chosen; then evaluated once" in text
    assert text.partition("## How it was chosen\n\n")[2].partition("\n\n## ")[0].splitlines() == [
        "finalists over 3 fresh seeds: loss on the confirmation split, on which nothing but the winner among them was "
        "chosen, so its own gain is a little optimistic:",
        "",
        "- greedy soup: 12.000 (11.000 to 13.000)",
        "- best trial: 14.000 (13.000 to 15.000)",
        "- greedy soup gained 2.0000 (1.0000 to 3.0000) over the best single trial in loss, paired over 3 seeds",
    ]


def test_images_of_many_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    targets = np.repeat(np.arange(22), 3)
    np.savez(tmp_path / "a.npz", x=np.zeros((66, 4, 4), dtype=np.uint8), y=targets)
    text = card({"source": f"npz:{tmp_path / 'a.npz'}"}, "linear", tmp_path)
    assert "- probabilities: one a class, in this order: `0`, `1`," in text
    assert "`19` and 2 more, in package.json\n" in text
    assert "columns" not in text
    assert answered(text, images=np.zeros((5, 4, 4), dtype=np.uint8))["probabilities"].shape == (5, 22)
