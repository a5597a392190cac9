"""One model of several studies: `sweeper soup`."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from filelock import FileLock
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from sweeper.catalog import Catalog
from sweeper.cli import main
from sweeper.settings import load_settings
from sweeper.soup.ingredients import start_of
from sweeper.soup.make import make
from sweeper.soup.outcome import Attempt, Made, Outcome, judgement
from sweeper.soup.table import print_outcome
from sweeper.study_folder import StudyFolder
from trials import Recipe, load_model, run_trial, score
from trials.data import load_splits
from trials.fit.evaluate import evaluate
from trials.keep import refresh_from_training_split, validation_metrics
from trials.model.build import build_model

CPU = torch.device("cpu")
METRIC = "validation.accuracy"
DIGITS = {"data": {"source": "digits"}, "model": {"build": "linear"}}


class Home:
    """Studies that were really trained, most of them from one file of weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = Catalog(f"sqlite:///{folder / 'sweeper.db'}")
        draws = np.random.default_rng(0)
        table = draws.normal(0, 1, (500, 6)).astype(np.float32)
        score = table[:, 0] * table[:, 1] + 0.3 * table[:, 2] + 0.2 * draws.normal(0, 1, 500)
        self.data = {"source": f"npz:{folder / 'data.npz'}", "validation": 0.4, "confirm": 0.5}
        np.savez(folder / "data.npz", x=table, y=np.digitize(score, [-0.4, 0.4]).astype(np.int64))
        run_trial(self.recipe(epochs=6), folder / "start", device="cpu")
        self.start = {"pretrained": {"weights": str(folder / "start/weights/raw.safetensors")}}
        for name, seeds in (("a", (1, 5)), ("b", (2, 6)), ("one", (5,)), ("other", (3,))):
            self.add(name, [self.recipe(seed=seed, epochs=2, model=self.start) for seed in seeds])
        self.add("strange", [self.recipe(seed=9, epochs=6)])
        self.add("mixed", [self.recipe(seed=9, epochs=20), self.recipe(seed=8, model=self.start)])
        self.add("narrow", [self.recipe(model={"width": 8})])
        self.add("otherwise", [self.recipe(data={"seed": 1})])
        self.add("about-loss", [], metric="validation.loss")
        self.add("unfinished", [], state="stopped")

    def recipe(self, *, seed: int = 0, epochs: int = 1, model: Any = None, data: Any = None) -> Recipe:
        return Recipe.model_validate(
            {
                "seed": seed,
                "data": {**self.data, **(data or {})},
                "model": {"build": "mlp", "width": 16, "norm": "batch", **(model or {})},
                "train": {"epochs": epochs, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}},
            }
        )

    def add(self, name: str, recipes: Sequence[Recipe], metric: str = METRIC, state: str = "finished") -> None:
        """A study with these trials."""
        study = self.catalog.add_study(name, digest="d", text="", metric=metric, trials_asked=len(recipes))
        folder = StudyFolder(self.folder, name)
        for number, recipe in enumerate(recipes):
            result = run_trial(recipe, folder.trial(number), device="cpu")
            trial = self.catalog.add_trial(study.id, number, params={}, recipe=json.loads(recipe.model_dump_json()))
            kept = [(file, folder.named(number, file.path), file.metrics[metric]) for file in result.weights]
            self.catalog.end_trial(trial.id, "complete", value=kept[0][2], weights=kept)
        self.catalog.set_study(study.id, state=state)

    def make(self, out: Path, *names: str, ensemble: bool = False) -> Outcome:
        return make(self.catalog, names, load_settings(self.folder), out, ensemble=ensemble, answers=ask_here)

    def files(self, *names: str) -> list[Path]:
        """The weights of studies, best first."""
        rows = [
            (-row.value, row.metrics["validation.loss"], StudyFolder(self.folder, name).file(row.path))
            for name in names
            for row in self.catalog.weights(self.catalog.study(name).id)
        ]
        return [path for _, _, path in sorted(rows)]

    def values(self, *names: str) -> list[float]:
        """What weights of studies are worth, best first."""
        rows = [row for name in names for row in self.catalog.weights(self.catalog.study(name).id)]
        return sorted((row.value for row in rows), reverse=True)

    def state(self) -> tuple[dict[Path, str], list[Any]]:
        """All that there is of the studies: files by their digests, rows."""
        files = [path for path in (self.folder / "studies").rglob("*") if path.is_file()]
        studies = self.catalog.studies()
        rows = [[study, self.catalog.trials(study.id), self.catalog.weights(study.id)] for study in studies]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}, rows

    def brute_force(self, paths: Sequence[Path], seed: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The mean of files, all in memory, with batch norm measured anew, and what it is worth."""
        recipe = self.recipe(seed=seed)
        splits = load_splits(recipe.data, CPU)
        model = build_model(recipe.model, splits.preprocess.spec, splits.target.outputs)
        files = [load_file(path) for path in paths]
        model.load_state_dict(
            {
                name: torch.stack([file[name].double() for file in files]).mean(0).to(first.dtype)
                if first.is_floating_point()
                else first
                for name, first in files[0].items()
            }
        )
        refresh_from_training_split(model, recipe, splits, CPU)
        return model.state_dict(), validation_metrics(evaluate(model, splits.selection, splits, recipe, CPU))


def ask_here(_form: str, folder: Path, given: Any, _import_paths: Sequence[str]) -> np.ndarray:
    """What the fresh process does, without its start."""
    model, preprocess = load_model(folder)
    with torch.inference_mode():
        answers: np.ndarray = model(preprocess(given)).softmax(dim=1).numpy()
    return answers


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "score_weights", lambda *a, **k: pytest.fail("looked at a split for itself"))
        home = Home(tmp_path_factory.mktemp("home"))
        with closing(home.catalog):
            yield home


@pytest.fixture(scope="module")
def souped(home: Home, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """What came of two studies, and where it was put, where a killed process had left something."""
    leftover = home.folder / "soups" / "a-b" / "greedy-soup" / "recipe.json"
    leftover.parent.mkdir(parents=True)
    leftover.write_text('{"another": "recipe"}')
    out = tmp_path_factory.mktemp("out") / "both"
    before = home.state()
    outcome = home.make(out, "a", "b")
    assert home.state() == before, "the studies stay as they are"
    assert sorted(path.name for path in out.parent.iterdir()) == ["both", "both-barriers.png"]
    assert [path for path in (home.folder / "soups").iterdir() if path.is_dir()] == []
    return outcome, out


def seed_of(path: Path) -> int:
    return int(json.loads((path.parents[1] / "recipe.json").read_bytes())["seed"])


def test_soups_are_the_brute_force_means_and_the_best_is_handed_over(home: Home, souped: tuple[Outcome, Path]) -> None:
    outcome, out = souped
    paths = home.files("a", "b")
    seed = seed_of(paths[0])
    taken, best = [paths[0]], home.brute_force(paths[:1], seed)
    for path in paths[1:]:
        tried = home.brute_force([*taken, path], seed)
        if tried[1][METRIC] >= best[1][METRIC]:
            taken, best = [*taken, path], tried
    uniform = home.brute_force(paths, seed)
    by_way = {made.way: made for made in outcome.made}
    for way, known in (("uniform soup", uniform), ("greedy soup", best)):
        metrics = by_way[way].metrics
        assert {name: metrics[name] for name in known[1]} == pytest.approx(known[1])
    assert len({path.parents[3] for path in taken}) == 2, "with these seeds the greedy soup is of both studies"
    assert len(taken) < len(paths), "with these seeds the greedy soup leaves one out"
    assert outcome.best.way == "greedy soup"
    found = load_file(out / "weights.safetensors")
    for name, tensor in best[0].items():
        torch.testing.assert_close(found[name], tensor, msg=name)
    # On the split that chose it, it is never worse than the best single.
    assert outcome.single.metrics[METRIC] == home.values("a", "b")[0]
    assert outcome.best.metrics[METRIC] >= outcome.single.metrics[METRIC]


def test_card_and_screen_say_what_was_tried_and_what_it_came_to(souped: tuple[Outcome, Path]) -> None:
    outcome, out = souped
    card = (out / "README.md").read_text()
    screen = io.StringIO()
    print_outcome(outcome, Console(file=screen, width=400))
    assert card.startswith("# a-b-soup: the greedy soup\n")
    assert [made.way for made in outcome.made] == ["uniform soup", "greedy soup"]
    lines = [line.split() for line in screen.getvalue().splitlines()]
    for made in (outcome.single, *outcome.made):
        value, confirmed = (f"{made.metrics[name]:.4f}" for name in (METRIC, "confirm.accuracy"))
        assert f"| {made.way} | {value} | {confirmed} | {made.notes[0]} |" in card
        assert [*made.way.split(), value, confirmed] in [line[:4] for line in lines]
    gain = outcome.best.metrics[METRIC] - outcome.single.metrics[METRIC]
    said = f"the greedy soup gained {gain:.4f} in accuracy over {outcome.single.notes[0]} on the selection split, which"
    assert said in card
    assert said in screen.getvalue()
    assert "The test split was not read for this model." in card
    assert "winner" not in card


def test_where_nothing_is_better_the_best_single_is_handed_over(home: Home, tmp_path: Path) -> None:
    outcome = home.make(tmp_path / "out", "one", "other")
    assert [made.way for made in outcome.made] == ["uniform soup", "greedy soup"]
    assert outcome.best is outcome.single, "with these seeds"
    sizes = [(made.notes[0].split(":")[0], made.alone) for made in outcome.made]
    assert sizes == [("2 of 2 ingredients are in the soup", False), ("1 of 2 ingredients are in the soup", True)]
    (path, *_) = home.files("one", "other")
    assert (tmp_path / "out" / "weights.safetensors").read_bytes() == path.read_bytes()
    assert "no mean of several is better than" in (tmp_path / "out" / "README.md").read_text()


def test_an_ensemble_may_be_of_several_architectures_and_a_soup_may_not(home: Home, tmp_path: Path) -> None:
    outcome = home.make(tmp_path / "out", "a", "narrow", ensemble=True)
    by_way = {attempt.way: attempt for attempt in outcome.attempts}
    reason = "raw of trial 0000 of narrow: another architecture (model.width: found 8, expected 16)"
    for soup in ("uniform soup", "greedy soup"):
        assert by_way[soup].made is None
        assert by_way[soup].notes == ("nothing of several studies goes together", reason)
    assert outcome.barriers is None, "nothing was to be averaged"
    ensemble = by_way["greedy ensemble"].made
    assert ensemble is not None
    assert ensemble.metrics[METRIC] >= outcome.single.metrics[METRIC]


def test_what_a_barrier_keeps_apart_is_refused_and_the_barriers_can_be_looked_at(home: Home, tmp_path: Path) -> None:
    done = command(home, "one", "strange", "-o", str(tmp_path / "out"))
    picture = tmp_path / "out-barriers.png"
    assert (done.exit_code, list(tmp_path.iterdir())) == (1, [picture])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"{picture}: by how much the loss rises between each two of them\n" in done.stdout
    assert done.stderr == "error: nothing could be made of these studies together, and no model was written\n"
    best, other = ("strange", "one") if home.values("strange") > home.values("one") else ("one", "strange")
    refusal = (
        f"refused no two of these weights can be averaged: raw of trial 0000 of {other} is kept apart from raw of "
    )
    told = " ".join(done.stdout.split())
    assert told.count(refusal + f"trial 0000 of {best}: on the way between them the loss rises by") == 2
    assert "the studies share neither a trunk nor a pretrained start, so that barriers are to be expected" in told


def test_a_soup_is_of_the_weights_that_share_their_start_though_others_are_better(home: Home, tmp_path: Path) -> None:
    outcome = home.make(tmp_path / "out", "mixed", "other")
    assert "mixed" in outcome.single.notes[0], "with these seeds"
    began_alike = [path for name in ("mixed", "other") for path in home.files(name) if seed_of(path) != 9]
    _, metrics = home.brute_force(began_alike, seed=9)
    uniform = next(made for made in outcome.made if made.way == "uniform soup")
    assert {name: uniform.metrics[name] for name in metrics} == pytest.approx(metrics)
    for attempt in outcome.attempts:
        assert "raw of trial 0000 of mixed: another start than the one that the studies share" in attempt.notes


def test_where_a_training_began() -> None:
    def recipe(**changes: Any) -> Recipe:
        return Recipe.model_validate({"data": {"source": "digits"}, "model": {"build": "mlp"}, **changes})

    def after(sha256: str, **changes: Any) -> Recipe:
        kept = {"path": "p", "sha256": sha256, "name": "n", "value": 0.5}
        return recipe(start={"weights": kept, "epochs": 1}, **changes)

    def soup_of(*sha256: str) -> Recipe:
        ingredients = [{"path": each, "sha256": each, "name": each, "value": 0.5} for each in sha256]
        return recipe(assembly={"name": "uniform_soup", "ingredients": ingredients, "barrier_tolerance": 0.1})

    trunk, trial, longer, alone = "1" * 64, "2" * 64, "3" * 64, "4" * 64
    made_by = {trunk: recipe(), trial: after(trunk), longer: after(trial), alone: recipe()}
    assert start_of(recipe(), made_by) is None
    assert start_of(after(trunk), made_by) == trunk
    assert start_of(after(longer), made_by) == trunk
    assert start_of(soup_of(longer, trial), made_by) == trunk
    assert start_of(after("5" * 64), made_by) == "5" * 64
    tuned = recipe(model={"build": "mlp", "pretrained": {"weights": "/w.safetensors"}})
    assert start_of(tuned, made_by) == "/w.safetensors"
    assert start_of(after(alone), {alone: tuned}) == "/w.safetensors"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "STUDY: found 1, expected at least 2; the soups of a single study are made by `finish`"),
        (["a", "b", "a"], "STUDY: found 'a' 2 times, expected each study once"),
        (["a", "no"], "no study named 'no' here; studies: a, b, "),
        (
            ["a", "unfinished"],
            "study 'unfinished' is stopped, expected it to be finished; finish it with: sweeper start",
        ),
        (
            ["a", "about-loss"],
            "study 'a' is about validation.accuracy, 'about-loss' about validation.loss; expected one",
        ),
        (["a", "otherwise"], "have other splits (data.seed: found "),
    ],
)
def test_studies_that_do_not_go_together_are_told_in_one_line(
    home: Home, tmp_path: Path, names: list[str], message: str
) -> None:
    done = command(home, *names, "-o", str(tmp_path / "out"))
    assert (done.exit_code, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_folder_in_use_is_left_alone_and_so_is_a_soup_that_another_process_makes(home: Home, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = command(home, "a", "b", "-o", str(tmp_path))
    assert (done.exit_code, [path.name for path in tmp_path.iterdir()]) == (2, ["mine.txt"])
    assert "exists and is not an empty folder; choose another with -o" in done.stderr
    with FileLock(home.folder / "soups" / ".a-b.lock"):
        done = command(home, "a", "b", "-o", str(tmp_path / "out"))
    assert done.exit_code == 1
    assert "another process makes this soup; wait for it, or end it" in done.stderr


def made_of(way: str, accuracy: float, loss: float, *, confirmed: float = 0.0, alone: bool = False) -> Made:
    metrics = {METRIC: accuracy, "validation.loss": loss, "confirm.accuracy": confirmed, "confirm.loss": loss}
    return Made(way, "soup", Recipe.model_validate(DIGITS), Path(), "", metrics, ("what it is",), alone)


def outcome_of(single: Made, *made: Made, metric: str = METRIC) -> Outcome:
    return Outcome(("a", "b"), metric, single, tuple(Attempt(each.way, each, each.notes) for each in made))


def test_the_best_on_the_selection_split_is_handed_over_unless_it_loses_on_the_confirmation_split() -> None:
    single = made_of("best single", 0.8, 0.5, confirmed=0.7)
    better = made_of("greedy soup", 0.9, 0.6, confirmed=0.75)
    assert outcome_of(single, better).best is better
    assert judgement(outcome_of(single, better)) == (
        "the greedy soup gained 0.1000 in accuracy over what it is on the selection split, which chose it; on the "
        "confirmation split it gained 0.0500"
    )
    assert outcome_of(single, better, metric="validation.loss").best is single
    lucky = made_of("uniform soup", 0.95, 0.6, confirmed=0.6)
    assert outcome_of(single, better, lucky).best is better
    assert outcome_of(single, lucky).best is single
    assert judgement(outcome_of(single, lucky)) == (
        "the uniform soup gained 0.1500 in accuracy over what it is on the selection split, which chose it, and lost "
        "0.1000 on the confirmation split: the single model is handed over"
    )
    single = made_of("best single", 0.8, 0.5)
    assert outcome_of(single, made_of("soup", 0.8, 0.5)).best is single, "as good is not better"
    lower = made_of("soup", 0.8, 0.4)
    assert outcome_of(single, lower).best is lower
    assert "is as good in accuracy as what it is on the selection split, at a lower loss" in judgement(
        outcome_of(single, lower)
    )
    # One model is no average of several, though its batch norm was measured anew.
    alone = made_of("soup", 0.9, 0.4, alone=True)
    assert outcome_of(single, alone).best is single
    assert judgement(outcome_of(single, alone)) == "no mean of several is better than what it is on the selection split"


def command(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["soup", *arguments, "--home", str(home.folder)])
