"""What is made of the weights of several studies, compared with the best of them, and the best handed over.

All is made in a folder of its own below the home, which is removed in the end; what a process that was killed there has
left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from sweeper.beside import folder_beside
from sweeper.catalog import Catalog
from sweeper.errors import StudyError, StudyHeld
from sweeper.export.verify import Answers, compare, fresh_answers
from sweeper.finish.recipes import handed_on
from sweeper.provenance import git_state
from sweeper.publish import of_split, pack
from sweeper.pull import CHECKED_EXAMPLES
from sweeper.settings import Settings
from sweeper.soup.card import card
from sweeper.soup.ingredients import (
    Candidate,
    Examples,
    candidates,
    check_same_splits,
    finished_studies,
    pick,
    shared_start,
)
from sweeper.soup.outcome import SINGLE, Attempt, Made, Outcome
from sweeper.study_file import Finish
from sweeper.user_code import make_importable
from trials.errors import DataError, ModelError, NoSpace, OutOfMemory, TrialError
from trials.recipe import GreedyEnsemble, GreedySoup, Member, Recipe, UniformSoup

MOST_LETTERS = 100
"""Of the name of the folder in which the work is done."""
MEASURED = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm keeps beside its weights."""


@dataclass(frozen=True)
class _Plan:
    """One way to a model, or why it cannot be gone."""

    way: str
    recipe: Recipe | None
    refused: tuple[str, ...]


def make(
    catalog: Catalog,
    names: Sequence[str],
    settings: Settings,
    out: Path,
    *,
    ensemble: bool = False,
    say: Callable[[str], None] = lambda _: None,
    answers: Answers = fresh_answers,
) -> Outcome:
    """Average the best weights of studies, and put what is best on the selection split at ``out``.

    The best of all single models is compared with the soups, and is handed over where none is better; the test split
    is not read. Where nothing can be made, nothing is handed over. The picture of the barriers is put beside ``out`` in
    any case, as ``OUT-barriers.png``.

    Args:
        catalog: knows the studies; it is read only.
        names: of the studies.
        settings: where things live.
        out: a folder to make, whole or not at all; an empty one may be there.
        ensemble: try an ensemble too, which may be of several architectures.
        say: is told what is being done.
        answers: what asks the model that was written.

    Raises:
        NoStudy: there is no study of a name.
        StudyError: the studies do not go together, or one is not finished, or ``out`` holds something else.
        StudyHeld: another process makes the same soup.
        StoreError: weights are gone or were changed.
        TrialError: the data of a study is gone, or the disk is full.
    """
    studies = finished_studies(catalog, names)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StudyError(f"{out}: exists and is not an empty folder; choose another with -o")
    make_importable(path for study in studies for path in study.import_paths)
    say("reading the data, to compare the splits")
    ranked, examples = candidates(catalog, studies, settings), Examples()
    check_same_splits(ranked, examples)
    best = ranked[0]
    single = Made(SINGLE, best.row.kind, best.recipe, best.path, best.row.sha256, best.row.metrics, (best.name,))
    with _workplace(settings.home / "soups", "-".join(names)[:MOST_LETTERS]) as folder:
        attempts = tuple(_attempt(plan, folder, say) for plan in _plans(ranked, examples, ensemble=ensemble))
        outcome = Outcome(tuple(names), studies[0].metric, single, attempts)
        if outcome.made:
            say(f"packing the {outcome.best.way}")
            _hand_over(outcome, best, out, answers, [path for study in studies for path in study.import_paths])
        return replace(outcome, barriers=_keep_barriers(folder, out))


@contextlib.contextmanager
def _workplace(soups: Path, name: str) -> Iterator[Path]:
    """A folder that no other process uses, gone in the end."""
    folder, lock = soups / name, FileLock(soups / f".{name}.lock")
    soups.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StudyHeld(f"{folder}: another process makes this soup; wait for it, or end it") from error
    try:
        shutil.rmtree(folder, ignore_errors=True)  # left by a process that was killed here
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _plans(ranked: Sequence[Candidate], examples: Examples, *, ensemble: bool) -> list[_Plan]:
    """The ways to a model of several studies."""
    best, ways = ranked[0].recipe, Finish()
    picked, refused = pick(ranked, examples, averaged=True)
    soups: dict[str, Recipe | None] = {"uniform soup": None, "greedy soup": None}
    if _of_several(picked):
        files = tuple(candidate.kept for candidate in picked)
        tolerance = ways.barrier_tolerance
        uniform = UniformSoup(name="uniform_soup", ingredients=files, barrier_tolerance=tolerance)
        greedy = GreedySoup(name="greedy_soup", ingredients=files, barrier_tolerance=tolerance)
        soups = {"uniform soup": handed_on(best, assembly=uniform), "greedy soup": handed_on(best, assembly=greedy)}
    if _of_several(picked) and shared_start(picked) is None:
        refused.append("the studies share neither a trunk nor a pretrained start, so that barriers are to be expected")
    plans = [_Plan(way, recipe, tuple(refused)) for way, recipe in soups.items()]
    if ensemble:
        picked, refused = pick(ranked, examples, averaged=False)
        members = tuple(
            Member(weights=candidate.kept, recipe=json.loads(candidate.recipe.model_dump_json()))
            for candidate in picked
        )
        recipe = None
        if _of_several(picked):
            together = GreedyEnsemble(name="greedy_ensemble", members=members, most=ways.ensemble_size)
            recipe = handed_on(best, assembly=together)
        plans.append(_Plan("greedy ensemble", recipe, tuple(refused)))
    return plans


def _of_several(picked: Sequence[Candidate]) -> bool:
    return len({candidate.study.name for candidate in picked}) > 1


def _attempt(plan: _Plan, folder: Path, say: Callable[[str], None]) -> Attempt:
    """Go one way, as far as it leads."""
    from trials import run_trial

    if plan.recipe is None:
        return Attempt(plan.way, None, ("nothing of several studies goes together", *plan.refused))
    say(f"making the {plan.way}")
    where = folder / plan.way.replace(" ", "-")
    try:
        result = run_trial(plan.recipe, where)
    except (DataError, ModelError, NoSpace, OutOfMemory):
        raise
    except TrialError as error:
        # The key of the recipe that names the ingredients is nobody's but ours.
        return Attempt(plan.way, None, (str(error).removeprefix("assembly.ingredients: "), *plan.refused))
    file = result.weights[0]
    notes = (*result.notes, *plan.refused)
    path = where / file.path
    alone = sum(share > 0 for share in result.shares) == 1 if result.shares else _is_one_of(plan.recipe, path)
    made = Made(plan.way, file.kind, plan.recipe, path, file.sha256, file.metrics, result.notes, alone)
    return Attempt(plan.way, made, notes)


def _keep_barriers(folder: Path, out: Path) -> Path | None:
    """Put the picture of the barriers beside ``out``: each soup has drawn the same."""
    from trials.average.barrier import BARRIERS

    drawn = next(iter(sorted(folder.glob(f"*/pictures/{BARRIERS}"))), None)
    if drawn is None:
        return None
    out.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(drawn, out.with_name(f"{out.name}-{BARRIERS}")))


def _is_one_of(recipe: Recipe, soup: Path) -> bool:
    """Whether a soup is one of its ingredients."""
    assert isinstance(recipe.assembly, UniformSoup | GreedySoup)
    return any(_same_but_batch_norm(soup, Path(kept.path)) for kept in recipe.assembly.ingredients)


def _same_but_batch_norm(soup: Path, single: Path) -> bool:
    """Whether a soup has the weights of one file, apart from what batch norm measures."""
    from safetensors import safe_open

    with safe_open(soup, "pt") as made, safe_open(single, "pt") as alone:
        names = [name for name in made.keys() if name.rpartition(".")[2] not in MEASURED]  # noqa: SIM118  no mapping
        return all(bool((made.get_tensor(name) == alone.get_tensor(name)).all()) for name in names)


def _hand_over(outcome: Outcome, single: Candidate, out: Path, answers: Answers, import_paths: Sequence[str]) -> None:
    """Put a package of the best at ``out``, once a fresh process has given its answers."""
    import torch

    from trials.examples import load_examples

    best, study = outcome.best, replace(single.study, name=outcome.name)
    record = {
        "kind": best.kind,
        "trial": single.row.trial,
        "sha256": best.sha256,
        "metric": outcome.metric,
        "title": best.way,
        "selection": of_split("validation", best.metrics),
        "confirmation": of_split("confirm", best.metrics),
    }
    with folder_beside(out) as temporary:
        package = temporary / "package"
        pack(package, study, record, best.recipe, best.path, git_state(Path(study.file).parent))
        readme = package / "README.md"
        readme.write_text(card(outcome, readme.read_text(encoding="utf-8")), encoding="utf-8")
        held = load_examples(best.recipe, torch.device("cpu")).selection.inputs[:CHECKED_EXAMPLES]
        compare("safetensors", package, package, held, answers, import_paths)
        package.replace(out)
