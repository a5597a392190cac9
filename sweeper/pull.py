"""A model of a study, taken home: chosen by kind, in the form that is asked for, and checked by a fresh process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.beside import folder_beside
from sweeper.catalog import Catalog, StudyRow
from sweeper.errors import StudyError
from sweeper.export.forms import FORMS
from sweeper.export.verify import Answers, compare, fresh_answers
from sweeper.model_card import with_use
from sweeper.provenance import git_state
from sweeper.publish import of_split, pack, requirements
from sweeper.rank.choice import Choice, choose
from sweeper.rank.leaderboard import leaderboard
from sweeper.study_folder import StudyFolder, check_digest
from sweeper.user_code import make_importable
from trials.errors import DataError, ModelError
from trials.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

CHECKED_EXAMPLES = 64
"""Examples of the selection split, at most, on which what was written is compared with the weights."""


@dataclass(frozen=True)
class Pulled:
    """What was taken home."""

    record: dict[str, Any]
    """Of the weights: ``kind``, ``trial``, ``path``, ``sha256``, ``metric``, ``selection``; the winner's has more."""
    title: str
    """Such as ``the winner``."""
    checked: int
    """On how many examples a fresh process gave the answers of the weights."""
    unchecked_because: str | None = None
    """Why on none."""
    needs: tuple[str, ...] = ()
    """Folders of the user's own modules without which it cannot be loaded."""


def pull(
    catalog: Catalog,
    name: str,
    folder: StudyFolder,
    out: Path,
    *,
    what: str = "best",
    form: str = "safetensors",
    say: Callable[[str], None] = lambda _: None,
    answers: Answers = fresh_answers,
) -> Pulled:
    """Put a model of a study at ``out``, whole or not at all.

    Args:
        catalog: knows the study.
        name: of the study.
        folder: of the study.
        out: a folder to make; an empty one may be there.
        what: ``best`` is the winner; ``soup``, ``ensemble``, ``student`` and ``trial:N`` are the best of that kind on
            the selection split, for which the test split is not read.
        form: a key of ``FORMS``.
        say: is told what is being done.
        answers: what asks the model that was written.

    Raises:
        StoreError: no such study, or its files are gone, or what was written answers otherwise than the weights.
        StudyError: there is no such model, or ``out`` holds something else.
        TrialError: the data is gone from which the model is packed or checked, or it cannot be exported.
    """
    study = catalog.study(name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StudyError(f"{out}: exists and is not an empty folder; choose another with -o")
    make_importable(study.import_paths)
    choice = _chosen(catalog, study, what)
    with folder_beside(out) as temporary:
        package = temporary / "package"
        say("packing the weights")
        title, record = _fill(package, catalog, study, folder, choice)
        made = package
        if form != "safetensors":
            say(f"writing it as {form}")
            made = temporary / form
            FORMS[form].write(package, made, requirements())
        card = (package / "README.md").read_text(encoding="utf-8")
        (made / "README.md").write_text(with_use(card, form), encoding="utf-8")
        held, because = _examples(package, may_be_gone=form == "safetensors")
        if held is not None:
            say("loading it in a fresh process, to compare its answers with those of the weights")
            alone = compare(form, package, made, held, answers, study.import_paths)
        made.replace(out)
    if held is None:
        return Pulled(record, title, 0, because)
    return Pulled(record, title, len(held), needs=() if alone else tuple(study.import_paths))


def _chosen(catalog: Catalog, study: StudyRow, what: str) -> Choice | None:
    """The weights that are asked for; ``None`` where they are the winner's."""
    if what == "best":
        if study.winner is None:
            raise StudyError(f"study {study.name!r} has no winner yet: see its trials with `sweeper show`")
        return None
    trials = {trial.number: trial for trial in catalog.trials(study.id)}
    choice = choose(leaderboard(catalog.weights(study.id), study.metric), trials, what)
    row, winner = choice.weights, study.winner
    return None if winner is not None and (row.path, row.sha256) == (winner["path"], winner["sha256"]) else choice


def _fill(
    package: Path, catalog: Catalog, study: StudyRow, folder: StudyFolder, choice: Choice | None
) -> tuple[str, dict[str, Any]]:
    """Make the package of what was chosen; its title and its record."""
    if choice is not None:
        row = choice.weights
        weights = folder.fetch(row.path, row.sha256)
        recipe = Recipe.model_validate_json(json.dumps(catalog.trial(study.id, row.trial).recipe))
        record = {
            "kind": row.kind,
            "trial": row.trial,
            "path": row.path,
            "sha256": row.sha256,
            "metric": study.metric,
            "selection": of_split("validation", row.metrics),
            "confirmation": of_split("confirm", row.metrics),
            "title": choice.title,
        }
        pack(package, study, record, recipe, weights, git_state(Path(study.file).parent))
        return f"{choice.title}, which is not the winner", record
    assert study.winner is not None
    winner = folder.fetch_package(study.winner["package"])
    check_digest(winner / "weights.safetensors", study.winner["sha256"])
    shutil.copytree(winner, package)
    check_digest(package / "weights.safetensors", study.winner["sha256"])
    return "the winner", study.winner


def _examples(package: Path, *, may_be_gone: bool) -> tuple[Tensor | None, str | None]:
    """Examples of the selection split as a split holds them; or why there are none."""
    import torch

    from trials.examples import load_examples

    recipe = Recipe.model_validate_json((package / "recipe.json").read_bytes())
    try:
        return load_examples(recipe, torch.device("cpu")).selection.inputs[:CHECKED_EXAMPLES], None
    except (DataError, ModelError) as error:
        if not may_be_gone:
            raise
        return None, str(error)
