"""A history written anew from the catalog: it must be the original in all that a sampler or a pruner looks at."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeper.catalog import Catalog
from sweeper.errors import StoreError
from sweeper.history import remove_old, write_anew
from sweeper.search import Search, forget, forget_others, rebuild
from sweeper.search.rebuild import by_name
from sweeper.space import Choice, Log, Space
from sweeper.study import Study, load_study
from trials.result import EpochReport

WriteStudy = Callable[..., Path]
EPOCHS = 9
POINTS = """\
  start_with:
    - {train.optimizer.lr: 0.1, train.batch_size: 128}
    - {train.optimizer.lr: 0.02}
    - {train.optimizer.lr: 0.1, train.batch_size: 128}
    - {train.optimizer.lr: 0.3}
"""
BRANCHES = """\
  optimizer:
    choice:
      - {name: sgd, lr: {log: [0.001, 1.0]}, momentum: {uniform: [0.5, 0.9]}}
      - {name: adamw, lr: {log: [0.0001, 0.1]}}
  ema: {choice: [null, {decay: {choice: [0.5, {uniform: [0.9, 0.99]}]}}]}
"""


class Told:
    """A study whose search and catalog are told the same, in numbers that follow from the learning rate."""

    def __init__(self, study: Study, url: str) -> None:
        self.study, self.url = study, url
        with ExitStack() as stack:
            self.catalog = stack.enter_context(closing(Catalog(url)))
            self.search = stack.enter_context(closing(Search(study, url, study.name)))
            self.row = self.catalog.add_study(
                study.name, digest=study.digest, text=study.text, metric=study.search.metric, trials_asked=99
            )
            self._open = stack.pop_all()

    def close(self) -> None:
        self._open.close()

    def trial(self, end: str | None = None) -> None:
        """The next trial, to its end by the pruner's mind, or to another."""
        proposal = self.search.ask()
        number, lr = proposal.number, proposal.recipe.train.optimizer.lr
        recipe = json.loads(proposal.recipe.model_dump_json())
        row = self.catalog.add_trial(self.row.id, number, params=proposal.params, recipe=recipe)
        value = 0.0
        for epoch in range(1, EPOCHS + 1 if end is None else 4):
            value = (0.9 - 0.2 * abs(math.log10(lr) + 1)) * epoch / EPOCHS
            metrics = {"validation.accuracy": value}
            self.catalog.add_epoch(row.id, EpochReport(epoch=epoch, epochs=EPOCHS, metrics=metrics, seconds=0.1))
            if not self.search.report(number, epoch, value) and end is None:
                self.catalog.end_trial(row.id, "pruned", value=value)
                self.search.prune(number)
                return
        if end is None:
            self.catalog.end_trial(row.id, "complete", value=value, facts={"epochs": EPOCHS})
            self.search.complete(number, value)
        elif end != "running":
            self.catalog.end_trial(row.id, "failed", reason="why")
            self.catalog.set_trial(row.id, failure=end)
            self.search.fail(number, "why", infeasible=end in ("diverged", "infeasible"))

    def rebuild(self, name: str = "small@2", study: Study | None = None) -> None:
        rebuild(study or self.study, self.url, name, self.catalog.trials(self.row.id), self.catalog.epochs(self.row.id))


@pytest.fixture
def tell() -> Iterator[Callable[[Study, str], Told]]:
    with ExitStack() as stack:
        yield lambda study, url: stack.enter_context(closing(Told(study, url)))


@pytest.fixture
def local(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'local.db'}"


def _trials(url: str, name: str) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(url)
    try:
        return optuna.load_study(study_name=name, storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _names(url: str) -> list[str]:
    storage = optuna.storages.RDBStorage(url)
    try:
        return sorted(optuna.get_all_study_names(storage))
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _known(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """All that a sampler or a pruner reads off a trial."""
    return {
        "number": trial.number,
        "state": trial.state.name,
        "values": trial.values,
        "params": trial.params,
        "distributions": trial.distributions,
        "intermediate": trial.intermediate_values,
        "constraints": trial.constraints,
        "reason": trial.user_attrs.get("reason"),
        "noted": {key: said for key, said in trial.system_attrs.items() if not key.startswith("tpe:")},
    }


def _next(study: Study, url: str, name: str, count: int = 3) -> list[tuple[Any, ...]]:
    """The next proposals, and how far the pruner lets each go."""
    told = []
    with closing(Search(study, url, name)) as search:
        for _ in range(count):
            proposal = search.ask()
            kept = [search.report(proposal.number, epoch, 0.01 * epoch) for epoch in range(1, EPOCHS + 1)]
            told.append((proposal, kept))
    return told


def _study(write_study: WriteStudy, pruner: str, *, points: bool = False, branches: bool = False) -> Study:
    path = write_study(sampler="tpe", pruner=pruner, epochs=EPOCHS)
    text = path.read_text()
    if points:
        text = text.replace("search:\n", "search:\n" + POINTS)
    if branches:
        text = text.replace("  optimizer: {name: sgd, lr: {log: [0.001, 1.0]}}\n", BRANCHES)
    path.write_text(text)
    return load_study(path)


@pytest.mark.parametrize(
    ("pruner", "branches"), [("hyperband", False), ("hyperband", True), ("asha", False), ("median", False)]
)
def test_a_sampler_proposes_from_the_copy_what_it_would_from_the_original(
    pruner: str, branches: bool, local: str, write_study: WriteStudy, tell: Callable[[Study, str], Told]
) -> None:
    study = _study(write_study, f"{{name: {pruner}}}", points=not branches, branches=branches)
    told = tell(study, local)
    for end in (*[None] * 10, "raised", "diverged", None, "infeasible", None, None):
        told.trial(end)
    if not branches:
        told.trial("running")
    told.rebuild()
    original, copy = _trials(local, "small"), _trials(local, "small@2")
    assert [_known(trial) for trial in copy] == [_known(trial) for trial in original]
    assert {"COMPLETE", "PRUNED", "FAIL"} <= {trial.state.name for trial in original}
    expected = _next(study, local, "small")
    assert _next(study, local, "small@2") == expected
    assert len({proposal.recipe.train.optimizer.lr for proposal, _ in expected}) == 3


def test_points_that_were_not_asked_yet_stay_queued_and_those_that_were_do_not_come_again(
    local: str, write_study: WriteStudy, tell: Callable[[Study, str], Told]
) -> None:
    study = _study(write_study, "{name: none}", points=True)
    told = tell(study, local)
    told.trial()
    told.trial()
    told.rebuild()
    assert [trial.state.name for trial in _trials(local, "small@2")] == ["COMPLETE", "COMPLETE", "WAITING"]
    with closing(Search(study, local, "small@2")) as search:
        assert search.asked == 2
        rates = [search.ask().recipe.train.optimizer.lr for _ in range(2)]
    assert rates[0] == 0.3
    assert rates[1] not in (0.1, 0.02, 0.3)


def test_a_waiting_trial_goes_on_with_the_epochs_it_has(
    local: str, write_study: WriteStudy, tell: Callable[[Study, str], Told]
) -> None:
    told = tell(_study(write_study, "{name: none}"), local)
    told.trial()
    told.trial("running")
    [_, row] = told.catalog.trials(told.row.id)
    told.catalog.set_trial(row.id, state="waiting")
    told.rebuild()
    with closing(Search(told.study, local, "small@2")) as search:
        assert search.running() == [1]
        again = search.reopen(1)
        assert (again.params, json.loads(again.recipe.model_dump_json())) == (row.params, row.recipe)
        assert search.report(1, 3, 0.123), "known already"
        search.report(1, 4, 0.456)
    [_, trial] = _trials(local, "small@2")
    assert trial.intermediate_values[3] != 0.123
    assert trial.intermediate_values[4] == 0.456


def test_the_search_hears_nothing_of_extensions(
    local: str, write_study: WriteStudy, tell: Callable[[Study, str], Told]
) -> None:
    told = tell(_study(write_study, "{name: none}"), local)
    for _ in range(3):
        told.trial()
    extended, going_on, dropped = told.catalog.trials(told.row.id)
    before = _trials(local, "small")
    for row in (extended, going_on, dropped):
        metrics = {"validation.accuracy": 0.99}
        report = EpochReport(epoch=EPOCHS + 1, epochs=EPOCHS + 1, metrics=metrics, seconds=0.1)
        told.catalog.add_epoch(row.id, report)
    recipe = {**extended.recipe, "extensions": [{"after_epochs": EPOCHS, "epochs": 1}]}
    told.catalog.set_trial(extended.id, recipe=recipe, value=0.99, facts={"epochs": EPOCHS + 1})
    told.catalog.set_trial(going_on.id, recipe=recipe, state="waiting")
    name = write_anew(told.catalog, told.row, told.study, told.catalog.trials(told.row.id))
    assert name == "small@2"
    assert [_known(trial) for trial in _trials(local, name)] == [_known(trial) for trial in before]
    # Where the old history is lost, the value is that of the best epoch before the extension: here the same.
    forget("small", local)
    told.rebuild("small@3")
    assert [trial.value for trial in _trials(local, "small@3")] == [trial.value for trial in before]


def test_a_kill_between_any_two_steps_leaves_one_history_in_use_and_leftovers_that_go(
    local: str, write_study: WriteStudy, tell: Callable[[Study, str], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tell(_study(write_study, "{name: none}"), local)
    for _ in range(3):
        told.trial()
    expected = [_known(trial) for trial in _trials(local, "small")]
    trials, row = told.catalog.trials(told.row.id), told.row

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trials", killed)
        with pytest.raises(KeyboardInterrupt):
            write_anew(told.catalog, row, told.study, trials)
    assert _names(local) == ["small", "small@2"], "half written, and not in use"
    # The same again writes it whole, in its place.
    assert write_anew(told.catalog, row, told.study, trials) == "small@2"
    assert [_known(trial) for trial in _trials(local, "small@2")] == expected
    remove_old(told.catalog, row)
    assert _names(local) == ["small"], "it was not in use yet"
    told.catalog.set_study(row.id, history=write_anew(told.catalog, row, told.study, trials))
    assert _names(local) == ["small", "small@2"]
    remove_old(told.catalog, row)
    assert _names(local) == ["small@2"]
    row = told.catalog.study("small")
    told.catalog.set_study(row.id, history=write_anew(told.catalog, row, told.study, trials))
    remove_old(told.catalog, row)
    assert _names(local) == ["small@3"]
    assert [_known(trial) for trial in _trials(local, "small@3")] == expected


def test_only_histories_of_the_study_itself_are_forgotten(
    local: str, write_study: WriteStudy, tell: Callable[[Study, str], Told]
) -> None:
    study = _study(write_study, "{name: none}")
    for name in ("small", "small@2", "small@12", "small2", "small.b@2", "smalls"):
        Search(replace(study, name=name), local, name).close()
    forget_others("small", local, keep="small@12")
    assert _names(local) == ["small.b@2", "small2", "small@12", "smalls"]
    forget("small", local)
    assert _names(local) == ["small.b@2", "small2", "smalls"]


def test_a_gap_in_the_numbers_is_told(local: str, write_study: WriteStudy, tell: Callable[[Study, str], Told]) -> None:
    told = tell(_study(write_study, "{name: none}"), local)
    for _ in range(3):
        told.trial()
    first, _, third = told.catalog.trials(told.row.id)
    with pytest.raises(StoreError, match=r"^trial 0001 of study 'small' is missing in the catalog$"):
        rebuild(told.study, local, "small@2", [first, third], {})


def test_a_number_says_which_of_several_ranges_it_was_drawn_from() -> None:
    ranges = Choice((0.5, Log(0.001, 0.01), Log(0.1, 1.0)), (0.5, "low", "high"))
    space = Space({"train": {"lr": ranges}})
    for value, label in ((0.5, 0.5), (0.002, "low"), (0.7, "high")):
        params, _ = by_name(space, {"train.lr": value})
        assert params["train.lr"] == label
        if isinstance(label, str):
            assert params[f"train.lr[{label}]"] == value
    with pytest.raises(StoreError, match=r"found the value 0\.05 in the catalog, expected one of 0\.5"):
        by_name(space, {"train.lr": 0.05})
