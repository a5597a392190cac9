"""The winner: chosen on the selection split, looked at on the test split, packed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sweeper.beside import folder_beside
from sweeper.catalog import Catalog, StudyRow, WeightsRow
from sweeper.errors import StoreError
from sweeper.model_card import model_card
from sweeper.provenance import git_state
from sweeper.study_folder import StudyFolder
from sweeper.user_code import module_files
from trials.recipe import Recipe

REQUIREMENTS = ("torch", "torchvision", "numpy", "pandas", "pydantic", "safetensors", "pillow")
"""What the `trials` package needs to load and run a model."""


def requirements() -> list[str]:
    """Pip requirements of a published model, as installed here."""
    return [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]


def publish_winner(
    catalog: Catalog,
    study: StudyRow,
    winner: WeightsRow,
    folder: StudyFolder,
    *,
    file_folder: Path,
    verdict: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Look at the test split with the winner, once, and pack it into a folder of its own.

    Returns what the catalog keeps of it: kind, trial, path, sha256, selection and test metrics, number of the package,
    and each look at the test split with a winner of this study: how many, when, with which weights. Weights whose
    scores the catalog holds already are not looked at a second time. A look is recorded before it is taken: whatever
    ends this process, none goes uncounted.

    Args:
        catalog: keeps the record.
        study: the study's row.
        winner: the weights that won.
        folder: the study's.
        file_folder: where its study.yaml is.
        verdict: how the finalists compared, in a study with `finish`.

    Raises:
        StoreError: the weights are gone or are not those the catalog knows.
    """
    known = catalog.study(study.name)
    before = known.winner or {"sha256": None, "package": 0}
    chosen = {"kind": winner.kind, "trial": winner.trial, "path": winner.path, "sha256": winner.sha256}
    if chosen.items() <= before.items() and before.get("verdict") == verdict:
        return before
    weights = folder.fetch(winner.path, winner.sha256)
    recipe = Recipe.model_validate_json(json.dumps(catalog.trial(study.id, winner.trial).recipe))
    looks = known.looks
    if winner.sha256 == before["sha256"]:
        scores = {name: before[name] for name in ("selection", "test")}
    else:
        looks = _recorded_look(catalog, known, chosen)
        scores = _look(recipe, weights)
    counted = {"test_looks": len(looks), "looks": looks}
    record = {**chosen, "metric": study.metric, **scores, **counted, "package": before["package"] + 1}
    record["confirmation"] = of_split("confirm", winner.metrics)
    if verdict is not None:
        record["verdict"] = dict(verdict)
    pack(folder.package(record["package"]), study, record, recipe, weights, git_state(file_folder))
    folder.keep_package(record["package"])
    catalog.set_study(study.id, winner=record)
    return record


def pack_again(catalog: Catalog, study: StudyRow, folder: StudyFolder, *, file_folder: Path) -> None:
    """Pack the winner once more, into a new folder, where its package was lost; nothing is scored for that.

    Raises:
        StoreError: the weights are gone or are not those the catalog knows.
    """
    winner = study.winner
    if winner is None:
        raise StoreError(f"study {study.name!r} has no winner to pack")
    weights = folder.fetch(winner["path"], winner["sha256"])
    recipe = Recipe.model_validate_json(json.dumps(catalog.trial(study.id, winner["trial"]).recipe))
    record = {**winner, "package": winner["package"] + 1}
    pack(folder.package(record["package"]), study, record, recipe, weights, git_state(file_folder))
    folder.keep_package(record["package"])
    catalog.set_study(study.id, winner=record)


def _recorded_look(catalog: Catalog, study: StudyRow, chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All looks at the test split with the one that is about to be taken, which the catalog knows from now on.

    One with the same weights that was cut off before its scores were known is taken again, and is still one.
    """
    if study.looks and study.looks[-1]["sha256"] == chosen["sha256"]:
        return study.looks
    looks = [*study.looks, {**chosen, "at": time.time()}]
    count = {} if study.winner is None else {"test_looks": len(looks)}
    catalog.set_study(study.id, winner={**(study.winner or {}), **count, "looks": looks})
    return looks


def _look(recipe: Recipe, weights: Path) -> dict[str, Any]:
    """What the weights are worth: this is what looks at the test split."""
    from trials.score import score_weights

    return {
        "selection": _as_validation(score_weights(recipe, weights, "selection")),
        "test": score_weights(recipe, weights, "test"),
    }


def pack(
    folder: Path, study: StudyRow, record: Mapping[str, Any], recipe: Recipe, weights: Path, git: Mapping[str, str]
) -> None:
    """Make ``folder`` the package of weights of a study, with a model card by ``record``, whole or not at all.

    Raises:
        TrialError: the data of the recipe cannot be had.
    """
    import torch

    from trials.examples import load_examples
    from trials.package import write_package

    with folder_beside(folder) as temporary:
        package = temporary / "package"
        splits = load_examples(recipe, torch.device("cpu"))
        modules = module_files(json.loads(recipe.model_dump_json()))
        write_package(package, recipe, weights, splits, modules)
        (package / "README.md").write_text(model_card(study, record, recipe, git, splits), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)  # left by an orchestrator that died before it told the catalog
        package.replace(folder)


def _as_validation(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores on the selection split by the names that reports use."""
    return {name.replace("selection.", "validation.", 1): value for name, value in scores.items()}


def of_split(split: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Those metrics of weights that are of one split: ``validation`` or ``confirm``."""
    return {name: value for name, value in metrics.items() if name.startswith(f"{split}.")}
