from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sweeper.search import Search
from sweeper.search.held import HeldHistory
from sweeper.search.histories import close_storage, open_storage
from sweeper.study import load_study

DISTRIBUTIONS = {
    "rate": (FloatDistribution(0.001, 1.0, log=True), 0.0625),
    "width": (IntDistribution(16, 64), 48.0),
    "kind": (CategoricalDistribution(("sgd", "adamw")), 1.0),
}

READS_TRIALS = "ORDER BY trials.trial_id"
"""What the statement alone says by which Optuna reads the trials that may have changed."""


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[optuna.storages.RDBStorage]:
    opened = open_storage(f"sqlite:///{tmp_path / 'sweeper.db'}")
    yield opened
    close_storage(opened)


def _facts(trial: FrozenTrial) -> dict[str, Any]:
    """All of a trial but its times, which the database notes by itself."""
    return {name: value for name, value in vars(trial).items() if "datetime" not in name}


def test_what_is_held_is_what_the_database_says(storage: optuna.storages.RDBStorage) -> None:
    held = HeldHistory(storage)
    study_id = optuna.create_study(study_name="small", storage=held, direction="maximize")._study_id
    assert held.get_all_trials(study_id) == []
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, None)
    for end in states:
        trial_id = held.create_new_trial(study_id)
        for name, (distribution, internal) in DISTRIBUTIONS.items():
            held.set_trial_param(trial_id, name, internal, distribution)
        held.set_trial_system_attr(trial_id, "rung", 0.5)
        for epoch, value in ((1, 0.25), (2, float("inf")), (3, 0.75)):
            held.set_trial_intermediate_value(trial_id, epoch, value)
        held.set_trial_user_attr(trial_id, "reason", "why")
        if end is not None:
            held.set_trial_state_values(trial_id, end, [0.75] if end is TrialState.COMPLETE else None)
    point = optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"rate": 0.5}})
    queued = held.create_new_trial(study_id, point)
    assert held.set_trial_state_values(queued, TrialState.RUNNING)
    found = held.get_all_trials(study_id, deepcopy=False)
    assert found[0].params == {"rate": 0.0625, "width": 48, "kind": "adamw"}
    assert found[0].intermediate_values == {1: 0.25, 2: float("inf"), 3: 0.75}
    assert [_facts(trial) for trial in found] == [_facts(trial) for trial in storage.get_all_trials(study_id)]
    assert [held.get_trial(trial._trial_id) is trial for trial in found] == [True] * 5
    assert [trial.number for trial in held.get_all_trials(study_id, states=(TrialState.RUNNING,))] == [3, 4]


def test_what_another_process_wrote_is_seen_when_it_is_looked_for(storage: optuna.storages.RDBStorage) -> None:
    held = HeldHistory(storage)
    study_id = optuna.create_study(study_name="small", storage=held, direction="maximize")._study_id
    ours = held.create_new_trial(study_id)
    assert len(held.get_all_trials(study_id)) == 1
    theirs = storage.create_new_trial(study_id)
    storage.set_trial_intermediate_value(ours, 1, 0.5)
    assert held.reread(ours).intermediate_values == held.get_trial(ours).intermediate_values == {1: 0.5}
    held.refresh()
    assert [trial._trial_id for trial in held.get_all_trials(study_id)] == [ours, theirs]


def test_trials_that_were_handed_out_stay_as_they_were(storage: optuna.storages.RDBStorage) -> None:
    held = HeldHistory(storage)
    study_id = optuna.create_study(study_name="small", storage=held, direction="maximize")._study_id
    trial_id = held.create_new_trial(study_id)
    [before] = held.get_all_trials(study_id, deepcopy=False)
    held.set_trial_intermediate_value(trial_id, 1, 0.5)
    assert before.intermediate_values == {}
    assert held.get_trial(trial_id).intermediate_values == {1: 0.5}


def test_after_a_write_whose_answer_was_lost_the_database_is_asked(
    storage: optuna.storages.RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldHistory(storage)
    study_id = optuna.create_study(study_name="small", storage=held, direction="maximize")._study_id
    trial_id = held.create_new_trial(study_id)
    held.get_all_trials(study_id)

    write = storage.set_trial_intermediate_value

    def lost(trial_id: int, step: int, value: float) -> None:
        write(trial_id, step, value)
        raise ConnectionError("server closed the connection")

    monkeypatch.setattr(storage, "set_trial_intermediate_value", lost)
    with pytest.raises(ConnectionError):
        held.set_trial_intermediate_value(trial_id, 1, 0.5)
    assert held.get_all_trials(study_id)[0].intermediate_values == {1: 0.5}


@contextmanager
def _counted(engine: sa.Engine) -> Iterator[list[str]]:
    """The statements that are sent to a database meanwhile."""
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def test_neither_a_proposal_nor_a_report_reads_the_trials_again(tmp_path: Path, write_study: Any) -> None:
    study = load_study(write_study(sampler="tpe", trials=60, pruner="{name: median}"))
    with closing(Search(study, f"sqlite:///{tmp_path / 'sweeper.db'}", "small")) as search:
        with _counted(search._storage.engine) as said:
            search.running()
        reading = [line for line in said if READS_TRIALS in line]
        assert len(reading) == 1
        for _ in range(12):  # enough for the sampler to begin to think
            search.complete(search.ask().number, 0.5)
        with _counted(search._storage.engine) as said:
            for _ in range(5):
                search.report(search.ask().number, 1, 0.5)
        assert not [line for line in said if READS_TRIALS in line]
