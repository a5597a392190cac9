from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from sweeper.errors import StoreError
from sweeper.search import Search
from sweeper.search.histories import connected
from sweeper.study import Study, load_study

WriteStudy = Callable[..., Path]
OpenSearch = Callable[[Study, str], Search]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'a.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def local(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'local.db'}"


@pytest.fixture
def open_search() -> Iterator[Callable[[Study, str], Search]]:
    opened = []

    def open_one(study: Study, url: str) -> Search:
        opened.append(Search(study, url, study.name))
        return opened[-1]

    yield open_one
    for search in opened:
        search.close()


def _history(url: str) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(url)
    try:
        return optuna.load_study(study_name="small", storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _propose(search: Search, count: int) -> list[dict[str, Any]]:
    proposals = []
    for _ in range(count):
        proposal = search.ask()
        proposals.append(proposal.params)
        search.complete(proposal.number, 0.5)
    return proposals


def test_each_outcome_is_stored_as_what_it_was(url: str, write_study: WriteStudy, open_search: OpenSearch) -> None:
    search = open_search(load_study(write_study()), url)
    good, hopeless, broken, open_ = (search.ask() for _ in range(4))
    for epoch, value in ((1, 0.3), (2, 0.4)):
        search.report(hopeless.number, epoch, value)
    search.complete(good.number, 0.9)
    search.prune(hopeless.number)
    search.fail(broken.number, "ValueError: no such column")

    states = [trial.state.name for trial in _history(url)]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert _history(url)[0].value == 0.9
    assert _history(url)[1].intermediate_values == {1: 0.3, 2: 0.4}
    assert _history(url)[1].value == 0.4, "the last report is the value of a pruned trial"
    assert _history(url)[2].user_attrs["reason"] == "ValueError: no such column"
    assert not any(trial.constraints for trial in _history(url))
    assert search.running() == [open_.number]


def test_what_is_the_recipes_fault_ends_as_a_broken_constraint_without_a_value(
    url: str, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    search = open_search(load_study(write_study()), url)
    number = search.ask().number
    search.report(number, 1, 0.8)
    search.fail(number, "Diverged: loss is nan", infeasible=True)
    [trial] = _history(url)
    assert (trial.state.name, trial.values, trial.constraints) == ("PRUNED", None, {"feasible": 1.0})
    assert trial.user_attrs["reason"] == "Diverged: loss is nan"
    assert trial.intermediate_values == {1: 0.8}
    assert search.running() == []


def test_the_sampler_keeps_away_from_where_trials_are_infeasible(
    tmp_path: Path, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    """Better and better up to a rate of 0.3, above which all diverge: 0.17 of the range."""

    def diverged(*, infeasible: bool) -> int:
        study = load_study(write_study(sampler="tpe"))
        search = open_search(study, f"sqlite:///{tmp_path / str(infeasible)}.db")
        rates = []
        for _ in range(24):
            proposal = search.ask()
            rates.append(proposal.recipe.train.optimizer.lr)
            if rates[-1] > 0.3:
                search.fail(proposal.number, "nan", infeasible=infeasible)
            else:
                search.complete(proposal.number, 0.9 - 0.2 * abs(math.log10(rates[-1] / 0.3)))
        return sum(rate > 0.3 for rate in rates)

    informed, uninformed = diverged(infeasible=True), diverged(infeasible=False)
    # Told as failures, which Optuna leaves out, they draw the sampler on: beside the best there is nothing bad.
    assert (informed, uninformed) == (4, 13)


@contextmanager
def _lost_answer(search: Search, nth: int) -> Iterator[list[str]]:
    """The database is lost when it has done its ``nth`` commit, before it can say so; yields what notes that."""
    lost: list[str] = []
    commits = itertools.count(1)

    def lose(connection: sa.Connection) -> None:
        if next(commits) == nth:
            lost.append("lost")
            connection.connection.commit()
            raise sa.exc.OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

    sa.event.listen(search._storage.engine, "commit", lose)
    try:
        yield lost
    finally:
        sa.event.remove(search._storage.engine, "commit", lose)


@pytest.mark.parametrize("end", ["complete", "prune", "fail", "infeasible"])
def test_what_was_told_may_be_told_again_wherever_the_answer_was_lost(
    end: str, url: str, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    study = load_study(write_study(pruner="{name: asha, reduction: 2}"))

    def tell_end(search: Search, number: int) -> None:
        match end:
            case "complete":
                search.complete(number, 0.75)
            case "prune":
                search.prune(number)
            case _:
                search.fail(number, "why", infeasible=end == "infeasible")

    def tell(search: Search, number: int) -> None:
        search.report(number, 1, 0.5)
        tell_end(search, number)

    search, later = open_search(study, url), open_search(study, url)
    for nth in itertools.count(1):
        number = search.ask().number
        with _lost_answer(search, nth) as lost:
            if nth == 1:
                with pytest.raises(StoreError, match=r": server closed the connection unexpectedly") as caught:
                    tell(search, number)
                assert caught.value.transient
            else:
                with suppress(StoreError):
                    tell(search, number)
        if not lost:
            break
        # By the same process, and by one that knows nothing of it.
        again = search if nth % 2 else later
        if number in again.running():
            again.reopen(number)
            tell(again, number)
        tell_end(again, number)
        tell_end(search, number)
    assert nth > 3
    known = [(trial.state, trial.values, trial.constraints, trial.intermediate_values) for trial in _history(url)]
    assert len(known) == nth
    assert all(trial == known[-1] for trial in known)
    assert known[-1][0].is_finished()
    assert known[-1][3] == {1: 0.5}


def test_a_proposal_whose_answer_was_lost_is_found_and_is_what_it_would_have_been(
    url: str, tmp_path: Path, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    study = load_study(write_study(sampler="tpe"))
    unbroken, search = open_search(study, f"sqlite:///{tmp_path / 'unbroken.db'}"), open_search(study, url)
    known = 11  # enough for the sampler to begin to think
    assert _propose(search, known) == _propose(unbroken, known)
    for nth in itertools.count(1):
        with _lost_answer(search, nth) as lost, suppress(StoreError):
            search.ask()
        # Whatever was made is found, and nothing that was made is counted twice.
        running = search.running()
        assert running == list(range(known, search.asked))
        for number in running:
            expected = unbroken.ask()
            assert search.reopen(number) == expected
            assert search.reopen(number) == expected
            for each in (search, unbroken):
                each.complete(number, 0.5)
        known = search.asked
        if not lost:
            break
    assert nth > 3
    assert known > 14


def test_an_end_that_contradicts_the_history_is_told_in_one_line(
    local: str, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    search = open_search(load_study(write_study()), local)
    number = search.ask().number
    search.complete(number, 0.5)
    line = (
        "trial 0000 of study 'small': found COMPLETE in the search's history, expected FAIL; "
        "mend it with: sweeper doctor small --repair"
    )
    with pytest.raises(StoreError, match=f"^{line}$"):
        search.fail(number, "why")
    assert [(trial.state.name, trial.value, trial.user_attrs) for trial in _history(local)] == [("COMPLETE", 0.5, {})]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_same_seed_and_history_give_the_same_proposals(
    sampler: str, tmp_path: Path, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    def run(file: str, seed: int) -> list[dict[str, Any]]:
        study = load_study(write_study(sampler=sampler, seed=seed))
        return _propose(open_search(study, f"sqlite:///{tmp_path / file}"), 14)

    first, again, other = run("1.db", 7), run("2.db", 7), run("3.db", 8)
    assert first == again
    assert first != other


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_restart_changes_no_proposal(
    sampler: str, tmp_path: Path, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    study = load_study(write_study(sampler=sampler))
    unbroken = _propose(open_search(study, f"sqlite:///{tmp_path / '1.db'}"), 12)
    restarted = [_propose(open_search(study, f"sqlite:///{tmp_path / '2.db'}"), 1)[0] for _ in range(12)]
    assert restarted == unbroken
    learning_rates = [params["train.optimizer.lr"] for params in restarted]
    assert len(set(learning_rates)) == 12, "no start-up sample is drawn twice"


def test_seeds_of_trials_differ_and_are_stable(local: str, write_study: WriteStudy, open_search: OpenSearch) -> None:
    search = open_search(load_study(write_study(seed=3)), local)
    seeds = [search.ask().recipe.seed for _ in range(5)]
    assert len(set(seeds)) == 5
    assert open_search(load_study(write_study(seed=3)), local).reopen(2).recipe.seed == seeds[2]


def test_an_interrupted_trial_is_proposed_again_as_it_was(
    local: str, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    study = load_study(write_study(sampler="tpe"))
    before = [open_search(study, local).ask() for _ in range(3)]
    again = open_search(study, local)
    assert again.running() == [0, 1, 2]
    assert again.reopen(1) == before[1]
    again.complete(1, 0.5)
    assert [trial.state.name for trial in _history(local)] == ["RUNNING", "COMPLETE", "RUNNING"]


def test_points_to_start_with_come_first_and_only_once(
    local: str, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    path = write_study()
    path.write_text(
        path.read_text().replace(
            "search:\n",
            "search:\n  start_with:\n    - {train.optimizer.lr: 0.1, train.batch_size: 128}\n"
            "    - {train.optimizer.lr: 0.02}\n",
        )
    )
    study = load_study(path)
    search = open_search(study, local)
    assert search.asked == 0
    assert search.ask().params == {"train.optimizer.lr": 0.1, "train.batch_size": 128}
    restarted = open_search(study, local)
    assert restarted.ask().params["train.optimizer.lr"] == 0.02
    third = open_search(study, local).ask()
    assert third.number == 2
    assert third.params["train.optimizer.lr"] not in (0.1, 0.02)


def _feed(search: Search, values: list[list[float]]) -> list[int]:
    """Run trials that report these values; the number of epochs each was allowed."""
    allowed = []
    for reports in values:
        trial = search.ask()
        kept = True
        for epoch, value in enumerate(reports, start=1):
            kept = search.report(trial.number, epoch, value)
            if not kept:
                break
        if kept:
            search.complete(trial.number, reports[-1])
        else:
            search.prune(trial.number)
        allowed.append(epoch)
    return allowed


GOOD, BAD, WORSE = [0.5, 0.6, 0.7, 0.8], [0.1, 0.1, 0.1, 0.1], [0.5, 0.4, 0.3, 0.2]


@pytest.mark.parametrize(
    ("pruner", "values", "allowed"),
    [
        ("{name: none}", [GOOD, GOOD, BAD], [4, 4, 4]),
        # Worse than the median of two at the first epoch after the warm-up.
        ("{name: median, startup_trials: 2, warmup_epochs: 2}", [GOOD, GOOD, BAD], [4, 4, 2]),
        # The first rung is epoch 1: of two trials seen there only the better half goes on.
        ("{name: asha, reduction: 2}", [GOOD, BAD], [4, 1]),
        # Worse than the best before for patience + 1 epochs.
        ("{name: patient, patience_epochs: 2}", [GOOD, WORSE], [4, 4]),
        ("{name: patient, patience_epochs: 1}", [GOOD, WORSE], [4, 3]),
    ],
)
def test_pruners_stop_what_their_rule_says(
    pruner: str,
    values: list[list[float]],
    allowed: list[int],
    local: str,
    write_study: WriteStudy,
    open_search: OpenSearch,
) -> None:
    study = load_study(write_study(pruner=pruner))
    assert _feed(open_search(study, local), values) == allowed


@pytest.mark.parametrize(
    ("pruner", "allowed"),
    [("{name: median, startup_trials: 2, warmup_epochs: 2}", 2), ("{name: asha, reduction: 2}", 1)],
)
def test_infeasible_trials_make_no_pruner_stop_others_or_spare_them(
    pruner: str, allowed: int, local: str, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    search = open_search(load_study(write_study(pruner=pruner)), local)

    def infeasible() -> None:
        search.fail(search.ask().number, "Diverged: loss is nan", infeasible=True)

    infeasible()
    infeasible()
    assert _feed(search, [GOOD]) == [4]
    infeasible()
    assert _feed(search, [GOOD, BAD]) == [4, allowed]


def test_hyperband_stops_the_hopeless_and_spares_the_best(
    local: str, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    study = load_study(write_study(pruner="{name: hyperband, reduction: 3}", epochs=9))
    values = [[(0.9 if i % 5 == 0 else 0.1 - i / 1000) * epoch / 9 for epoch in range(1, 10)] for i in range(40)]
    allowed = _feed(open_search(study, local), values)
    assert all(epochs == 9 for epochs in allowed[::5]), "the best of every five always goes on"
    assert sum(epochs < 9 for epochs in allowed) >= 10
    assert set(allowed) <= {1, 3, 9}, "rungs lie a factor 3 apart"


def test_a_minimised_metric_turns_the_pruner_round(
    local: str, write_study: WriteStudy, open_search: OpenSearch
) -> None:
    path = write_study(pruner="{name: asha, reduction: 2}")
    path.write_text(path.read_text().replace("search:\n", "search:\n  metric: validation.loss\n"))
    assert _feed(open_search(load_study(path), local), [BAD, GOOD]) == [4, 1]


def test_a_database_that_is_away_is_one_line(write_study: WriteStudy, open_search: OpenSearch) -> None:
    with pytest.raises(StoreError, match=r"^database postgresql\+psycopg://ada:\*\*\*@127.0.0.1:1/x: [^\n]+$"):
        open_search(load_study(write_study()), "postgresql+psycopg://ada:secret@127.0.0.1:1/x")


def test_studies_that_start_at_once_in_a_new_home_make_the_tables_once(url: str) -> None:
    begin = threading.Barrier(3)

    def open_and_close() -> None:
        begin.wait()
        with connected(url):
            pass

    with ThreadPoolExecutor(3) as pool:
        for opened in [pool.submit(open_and_close) for _ in range(3)]:
            opened.result()
