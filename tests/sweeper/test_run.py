from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, Watcher
from fake_training import accuracy, score

from benchmarks.simulated import Clock, SimulatedWorkers
from sweeper.catalog import Catalog
from sweeper.errors import StoreError, StudyFailed, WorkersError
from sweeper.in_process import InProcessWorkers
from sweeper.run import run_study
from sweeper.runner import Event, Failed
from sweeper.search import Proposal, Search
from sweeper.study import load_study
from sweeper.study_folder import StudyFolder
from trials.checkpoint import TrialFolder
from trials.recipe import Recipe

WriteStudy = Callable[..., Path]


@pytest.fixture
def bench(tmp_path: Path, fakes: Path) -> Bench:
    return Bench(tmp_path, fakes)


def test_catalog_and_history_tell_the_same_story(bench: Bench, write_study: WriteStudy) -> None:
    bench.run(write_study(trials=5))
    catalog = bench.catalog()
    study = catalog.study("small")
    trials, history = catalog.trials(study.id), bench.history()
    assert [trial.state for trial in trials] == ["complete"] * 5
    assert [trial.state.name for trial in history] == ["COMPLETE"] * 5
    for trial, past in zip(trials, history, strict=True):
        lr = trial.params["train.optimizer.lr"]
        assert trial.recipe["train"]["optimizer"]["lr"] == lr == past.params["train.optimizer.lr"]
        assert trial.value == past.value == pytest.approx(score(lr) + 0.01), "the best kept weights are the value"
        epochs = catalog.epochs(study.id)[trial.id]
        values = [epoch.metrics["validation.accuracy"] for epoch in epochs]
        assert values == pytest.approx([score(lr) * e / 4 for e in (1, 2, 3, 4)])
        assert past.intermediate_values == dict(enumerate(values, start=1))
    kinds = [(w.trial, w.kind) for w in catalog.weights(study.id)]
    assert kinds == [(number, kind) for number in range(5) for kind in ("ema", "raw")]
    catalog.close()


def test_a_finished_study_runs_nothing_again(bench: Bench, write_study: WriteStudy) -> None:
    bench.run(write_study(trials=3))
    assert bench.run(write_study(trials=3)).lines == []


def test_pruned_trials_stop_early_and_are_told_as_pruned(bench: Bench, write_study: WriteStudy) -> None:
    bench.run(write_study(trials=12, pruner="{name: asha, reduction: 2}"))
    catalog = bench.catalog()
    study = catalog.study("small")
    trials, history = catalog.trials(study.id), bench.history()
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert pruned, "with these learning rates some are hopeless"
    assert [t.state for t in trials] == [{"COMPLETE": "complete", "PRUNED": "pruned"}[p.state.name] for p in history]
    for trial in pruned:
        epochs = catalog.epochs(study.id)[trial.id]
        assert len(epochs) < 4
        assert trial.value == epochs[-1].metrics["validation.accuracy"] == history[trial.number].value
    catalog.close()


def test_a_diverged_trial_fails_with_its_reason_and_the_study_goes_on(bench: Bench, write_study: WriteStudy) -> None:
    bench.run(write_study(trials=8), train="diverges")
    catalog = bench.catalog()
    trials = catalog.trials(catalog.study("small").id)
    for trial, past in zip(trials, bench.history(), strict=True):
        if trial.params["train.optimizer.lr"] > 0.1:
            # Where not to look is something to learn; a value would be a lie.
            assert (trial.state, trial.failure, past.state.name) == ("failed", "diverged", "PRUNED")
            assert (past.value, past.constraints) == (None, {"feasible": 1.0})
            assert trial.reason == past.user_attrs["reason"] == "Diverged: loss is nan at epoch 2, step 17"
        else:
            assert (trial.state, past.state.name) == ("complete", "COMPLETE")
    assert {trial.state for trial in trials} == {"complete", "failed"}
    catalog.close()


def test_a_study_whose_trials_all_fail_alike_is_stopped(bench: Bench, write_study: WriteStudy) -> None:
    with pytest.raises(StudyFailed, match=r"all trials so far \(3\) failed alike: ValueError: no such column: 'price'"):
        bench.run(write_study(trials=20), train="always_raises")
    catalog = bench.catalog()
    trials = catalog.trials(catalog.study("small").id)
    assert [trial.state for trial in trials] == ["failed"] * 3
    assert "always_raises" in trials[0].facts["traceback"]
    catalog.close()


@pytest.mark.parametrize("after", [1, 2, 5, 8])
def test_an_interrupted_study_goes_on_where_it_was(after: int, bench: Bench, write_study: WriteStudy) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.run(write_study(trials=3), stop_after_reports=after)
    bench.run(write_study(trials=3))
    catalog = bench.catalog()
    study = catalog.study("small")
    assert [(t.number, t.state) for t in catalog.trials(study.id)] == [(n, "complete") for n in range(3)]
    assert [trial.state.name for trial in bench.history()] == ["COMPLETE"] * 3
    for trial in catalog.trials(study.id):
        assert [e.epoch for e in catalog.epochs(study.id)[trial.id]] == [1, 2, 3, 4], "each epoch once and only once"
    catalog.close()


def test_a_trial_that_goes_on_says_after_which_epoch(bench: Bench, write_study: WriteStudy) -> None:
    file, train = write_study(trials=1, epochs=3), "trials.train:run_trial"
    with pytest.raises(KeyboardInterrupt):
        bench.run(file, train, stop_after_reports=2)
    assert bench.run(file, train).lines[0] == "0 goes on after 2 to 3"


def test_an_end_that_only_the_catalog_heard_of_is_told_to_the_search(bench: Bench, write_study: WriteStudy) -> None:
    study = load_study(write_study(trials=3))
    catalog, search = bench.catalog(), Search(study, bench.url, study.name)
    row = catalog.add_study("small", digest="d", text="", metric="validation.accuracy", trials_asked=3)
    for state, value in (("complete", 0.7), ("pruned", 0.2), ("failed", None)):
        proposal = search.ask()
        trial = catalog.add_trial(row.id, proposal.number, params={}, recipe={"seed": 1})
        if state == "pruned":
            search.report(proposal.number, 1, 0.2)
        catalog.end_trial(trial.id, state, value=value, reason="broke" if state == "failed" else None)  # type: ignore[arg-type]
    search.close()
    catalog.close()
    assert bench.run(write_study(trials=3)).lines == [], "nothing is run twice"
    past = bench.history()
    assert [trial.state.name for trial in past] == ["COMPLETE", "PRUNED", "FAIL"]
    assert (past[0].value, past[1].value, past[2].user_attrs["reason"]) == (0.7, 0.2, "broke")


def _trial_of(recipe: dict[str, Any]) -> Recipe:
    return Recipe.model_validate_json(json.dumps(recipe))


def test_extended_trials_go_on_and_the_search_hears_nothing_of_it(bench: Bench, write_study: WriteStudy) -> None:
    """Under a pruner that would stop them at once: what they reach is not comparable with trials of fewer epochs."""
    file = write_study(trials=4, pruner="{name: patient, patience_epochs: 0, min_delta: 0.01}")
    bench.run(file)
    before = bench.history()
    bench.extend(1, 2, epochs=3)
    assert bench.run(file).lines == ["1 goes on after 4 to 7", "1 complete", "2 goes on after 4 to 7", "2 complete"]
    bench.extend(2, epochs=1)
    assert bench.run(file).lines == ["2 goes on after 7 to 8", "2 complete"]
    assert bench.run(file).lines == []
    assert bench.history() == before

    catalog = bench.catalog()
    study = catalog.study("small")
    for trial, past, epochs in zip(catalog.trials(study.id), before, (4, 7, 8, 4), strict=True):
        recipe = _trial_of(trial.recipe)
        assert (trial.state, trial.facts["epochs"], recipe.epochs) == ("complete", epochs, epochs)
        assert trial.value == pytest.approx(accuracy(recipe, epochs) + 0.01)
        assert past.value == pytest.approx(score(trial.params["train.optimizer.lr"]) + 0.01)
        curve = {e.epoch: e.metrics["validation.accuracy"] for e in catalog.epochs(study.id)[trial.id]}
        assert curve == pytest.approx({epoch: accuracy(recipe, epoch) for epoch in range(1, epochs + 1)})
        last = {4: "", 7: "-extended-1", 8: "-extended-2"}[epochs]
        assert [
            (kept.kind, kept.path, kept.epoch) for kept in catalog.weights(study.id) if kept.trial == trial.number
        ] == [(kind, f"trials/000{trial.number}/weights/{kind}{last}.safetensors", epochs) for kind in ("ema", "raw")]
    catalog.close()


@pytest.mark.parametrize("after", [1, 2, 4, 5])
def test_an_interrupted_extension_goes_on_where_it_was(after: int, bench: Bench, write_study: WriteStudy) -> None:
    bench.run(write_study(trials=2))
    bench.extend(0, 1, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        bench.run(write_study(trials=2), stop_after_reports=after)
    lines = bench.run(write_study(trials=2)).lines
    assert lines == [
        line
        for number in ((0, 1) if after <= 3 else (1,))
        for line in (f"{number} goes on after 4 to 6", f"{number} complete")
    ]
    catalog = bench.catalog()
    study = catalog.study("small")
    for trial in catalog.trials(study.id):
        assert trial.state == "complete"
        assert [e.epoch for e in catalog.epochs(study.id)[trial.id]] == [1, 2, 3, 4, 5, 6], "each epoch once"
    catalog.close()


def test_a_trial_whose_extension_fails_is_what_it_was(bench: Bench, write_study: WriteStudy) -> None:
    bench.run(write_study(trials=2))
    catalog = bench.catalog()
    study = catalog.study("small")
    before, weights = catalog.trials(study.id), catalog.weights(study.id)
    bench.extend(0, epochs=3)
    assert catalog.trial(study.id, 0).state == "waiting"
    assert catalog.weights(study.id) == weights
    lines = bench.run(write_study(trials=2), train="fails_to_go_on").lines
    assert lines == ["0 goes on after 4 to 7", "0 complete: its extension failed: Diverged: loss is nan"]
    after = catalog.trials(study.id)
    assert after[0].reason == "its extension failed: Diverged: loss is nan"
    assert [replace(trial, reason=None, delivered=False, files_delivered=False) for trial in after] == before
    assert catalog.weights(study.id) == weights
    assert [e.epoch for e in catalog.epochs(study.id)[before[0].id]] == [1, 2, 3, 4, 5], (
        "what was trained is not denied"
    )
    assert bench.run(write_study(trials=2)).lines == []
    catalog.close()


def test_only_the_best_trials_keep_what_an_extension_goes_on_from(bench: Bench, write_study: WriteStudy) -> None:
    file = write_study(trials=8, seed=2, pruner="{name: asha, reduction: 2}")
    file.write_text(file.read_text() + "storage: {extendable: 2}\n")
    held: list[set[str]] = []

    def holders() -> set[str]:
        return {path.parent.name for path in (bench.folder / "studies/small/trials").glob("*/checkpoints")}

    bench.run(file, on_end=lambda: held.append(holders()))
    catalog = bench.catalog()
    trials = catalog.trials(catalog.study("small").id)
    complete = [trial for trial in trials if trial.state == "complete"]
    assert 2 < len(complete) < len(trials)
    for ended in range(1, len(trials) + 1):
        best = sorted((trial for trial in trials[:ended] if trial in complete), key=lambda t: -(t.value or 0.0))[:2]
        assert held[ended - 1] == {f"{trial.number:04d}" for trial in best}

    # A process that was killed before it removed anything, and a study that keeps fewer from now on.
    for trial in trials:
        (bench.folder / f"studies/small/trials/{trial.number:04d}/checkpoints/epoch-0004").mkdir(
            parents=True, exist_ok=True
        )
    file.write_text(file.read_text().replace("extendable: 2", "extendable: 1"))
    bench.run(file)
    left = {int(name) for name in holders()} & {trial.number for trial in complete}
    assert left == {max(complete, key=lambda trial: trial.value or 0.0).number}
    catalog.close()


@pytest.mark.parametrize("lost", [1, 2])
def test_an_epoch_that_could_not_be_recorded_is_told_again(
    lost: int, bench: Bench, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also the last one, after which the trial would be finished, and a trial that is finished tells nothing.
    add, calls = Catalog.add_epoch, []

    def away_once(catalog: Catalog, *said: Any) -> bool:
        calls.append(said)
        if len(calls) == lost:
            raise StoreError("database there: Connection refused", transient=True)
        return add(catalog, *said)

    monkeypatch.setattr(Catalog, "add_epoch", away_once)
    file, train = write_study(trials=1, epochs=2), "trials.train:run_trial"
    with pytest.raises(StoreError):
        bench.run(file, train)
    bench.run(file, train)
    with closing(bench.catalog()) as catalog:
        study = catalog.study("small")
        [trial] = catalog.trials(study.id)
        assert trial.state == "complete"
        assert [epoch.epoch for epoch in catalog.epochs(study.id)[trial.id]] == [1, 2]
    assert sorted(bench.history()[0].intermediate_values) == [1, 2]


def test_ctrl_c_stops_a_study_whose_database_is_away(
    bench: Bench, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else the study would wait for the database and then go on, against what it was told.
    set_trial, away = Catalog.set_trial, [True]

    def fail_once(catalog: Catalog, trial_id: int, **columns: Any) -> None:
        if columns == {"state": "waiting"} and away and away.pop():
            raise StoreError("database there: Connection refused", transient=True)
        set_trial(catalog, trial_id, **columns)

    monkeypatch.setattr(Catalog, "set_trial", fail_once)
    with pytest.raises(KeyboardInterrupt):
        bench.run(write_study(trials=2), stop_after_reports=1)
    assert not away
    bench.run(write_study(trials=2))
    assert [trial.state.name for trial in bench.history()] == ["COMPLETE"] * 2


# The trial's thread is ended wherever it is, which may be between opening a file and closing it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_stops_a_study_whose_workers_end_with_it(
    bench: Bench, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SIGTERM for a whole group of processes, as Slurm and systemd send it, ends Ray too: the study is not to go on.
    class Dying(InProcessWorkers):
        def interrupt(self) -> None:
            raise WorkersError("Ray died: its process 71 is gone")

    class Lost(InProcessWorkers):
        is_stopping = False

        def interrupt(self) -> None:
            self.is_stopping = True
            super().interrupt()

        def wait(self, timeout_seconds: float) -> Event | None:
            return Failed(0, "the worker died", kind="lost") if self.is_stopping else super().wait(timeout_seconds)

    file = write_study(trials=2)
    for workers in (Dying, Lost):
        monkeypatch.setattr("bench.InProcessWorkers", workers)
        with pytest.raises(KeyboardInterrupt):
            bench.run(file, stop_after_reports=1)
    with closing(bench.catalog()) as catalog:
        [trial] = catalog.trials(catalog.study("small").id)
    assert (trial.state, trial.attempts) == ("waiting", []), "it has cost none of the retries"
    monkeypatch.undo()
    bench.run(file)
    assert [trial.state.name for trial in bench.history()] == ["COMPLETE"] * 2


@pytest.mark.parametrize("has_worker", [True, False])
def test_workers_that_are_gone_cost_a_retry_only_what_ran(
    bench: Bench, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch, has_worker: bool
) -> None:
    class Gone(InProcessWorkers):
        def unplaced(self, for_seconds: float) -> tuple[int, ...]:
            return () if has_worker or self.free else (0,)

        def wait(self, timeout_seconds: float) -> Event | None:
            if self.free:
                return None
            raise WorkersError("the Ray cluster has not answered for 20 s")

    monkeypatch.setattr("bench.InProcessWorkers", Gone)
    with pytest.raises(WorkersError):
        bench.run(write_study(trials=1))
    with closing(bench.catalog()) as catalog:
        [trial] = catalog.trials(catalog.study("small").id)
    assert trial.state == "waiting"
    assert [attempt["reason"] for attempt in trial.attempts] == (
        ["the Ray cluster has not answered for 20 s"] if has_worker else []
    )


def test_what_there_is_to_hear_of_the_workers_is_told_once(
    bench: Bench, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["workers: 1 of 4 places so far"]

    class Growing(InProcessWorkers):
        def news(self) -> str:
            return lines.pop() if lines else ""

    monkeypatch.setattr("bench.InProcessWorkers", Growing)
    watcher = bench.run(write_study(trials=1))
    assert [line for line in watcher.lines if line.startswith("workers")] == ["workers: 1 of 4 places so far"]


def test_the_rate_that_a_range_test_found_is_kept_for_whoever_goes_on(bench: Bench, write_study: WriteStudy) -> None:
    file = write_study(trials=1, epochs=1)
    file.write_text(file.read_text().replace("epochs: 1", "epochs: 1\n  lr_finder: {steps: 30}"))
    bench.run(file, "trials.train:run_trial")
    with closing(bench.catalog()) as catalog:
        [trial] = catalog.trials(catalog.study("small").id)
    result = TrialFolder(bench.folder / "studies/small/trials/0000").read_result()
    assert result is not None
    assert isinstance(result.lr, float)
    assert trial.facts["lr"] == result.lr


def test_whoever_waits_for_an_answer_goes_before_a_trial_that_is_to_be_proposed(
    tmp_path: Path, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proposal takes 40 s here, an epoch 48 to 72 s: six proposals at a stretch would keep the first one waiting."""
    passed_seconds, ask = 0.0, Search.ask

    def think(search: Search) -> Proposal:
        nonlocal passed_seconds
        passed_seconds += 40.0
        return ask(search)

    monkeypatch.setattr(Search, "ask", think)
    study, url = load_study(write_study(trials=12, concurrent=6)), f"sqlite:///{tmp_path / 'sweeper.db'}"
    workers = SimulatedWorkers(6, Clock(lambda: passed_seconds), epoch_seconds=60.0, generator=random.Random(0))
    with closing(Catalog(url)) as catalog, closing(Search(study, url, study.name)) as search:
        row = catalog.add_study(
            study.name, digest=study.digest, text=study.text, metric=study.search.metric, trials_asked=12
        )
        run_study(study, row, search, workers, catalog, Watcher(), folder=StudyFolder(tmp_path, study.name))
    assert len(workers.answer_seconds) == 12 * 4
    assert 0.0 < max(workers.answer_seconds) <= 40.0, "nobody waits for more than one proposal"
