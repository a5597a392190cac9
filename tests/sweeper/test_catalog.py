from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest

from sweeper.catalog import Catalog, StudyRow, TrialRow
from sweeper.errors import StoreError, StudyHeld
from trials.result import EpochReport, WeightsFile


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'a.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    catalog = Catalog(url)
    yield catalog
    catalog.close()


def _study(catalog: Catalog, name: str = "digits"):
    return catalog.add_study(
        name,
        digest="d",
        text="study: digits",
        metric="validation.accuracy",
        trials_asked=3,
        file="/a/study.yaml",
        import_paths=["/a", "/b"],
    )


def _report(epoch: int, accuracy: float = 0.5) -> EpochReport:
    return EpochReport(epoch=epoch, epochs=3, metrics={"validation.accuracy": accuracy}, seconds=1.5)


def _file(kind: str, value: float) -> WeightsFile:
    return WeightsFile(
        kind=kind,  # type: ignore[arg-type]
        path=f"weights/{kind}.safetensors",
        metrics={"validation.accuracy": value},
        epoch=3,
        bytes=10,
        sha256="s",
    )


def test_a_study_is_made_once_and_kept_as_it_was(catalog: Catalog) -> None:
    first = _study(catalog)
    assert (first.file, first.import_paths) == ("/a/study.yaml", ["/a", "/b"])
    again = catalog.add_study("digits", digest="other", text="other", metric="validation.loss", trials_asked=9)
    assert (again.id, again.digest, again.metric, again.trials_asked) == (first.id, "d", "validation.accuracy", 3)
    assert [study.name for study in catalog.studies()] == ["digits"]


def test_an_unknown_study_lists_the_known_ones(catalog: Catalog) -> None:
    _study(catalog, "digits")
    _study(catalog, "fashion")
    with pytest.raises(StoreError, match="no study named 'digit' here; studies: digits, fashion"):
        catalog.study("digit")


def test_an_epoch_is_recorded_once(catalog: Catalog) -> None:
    study = _study(catalog)
    trial = catalog.add_trial(study.id, 0, params={"train.lr": 0.1}, recipe={"seed": 1})
    assert catalog.add_epoch(trial.id, _report(1, 0.25))
    assert not catalog.add_epoch(trial.id, _report(1, 0.75))
    assert [e.metrics for e in catalog.epochs(study.id)[trial.id]] == [{"validation.accuracy": 0.25}]


def test_the_end_of_a_trial_and_its_weights_are_one_record(catalog: Catalog) -> None:
    study = _study(catalog)
    trial = catalog.add_trial(study.id, 0, params={}, recipe={"seed": 1})
    kept = [(_file("ema", 0.9), "trials/0000/weights/ema.safetensors", 0.9)]
    catalog.end_trial(trial.id, "complete", value=0.9, facts={"device": "cpu"}, weights=kept)
    row = catalog.trial(study.id, 0)
    assert (row.state, row.value, row.facts) == ("complete", 0.9, {"device": "cpu"})
    assert [(w.trial, w.kind, w.path) for w in catalog.weights(study.id)] == [
        (0, "ema", "trials/0000/weights/ema.safetensors")
    ]
    assert catalog.count_trials(study.id) == {"complete": 1}


def _complete(catalog: Catalog, study: StudyRow, number: int) -> TrialRow:
    """A complete trial with one file of weights, of which the tracker has heard everything."""
    trial = catalog.add_trial(study.id, number, params={}, recipe={"seed": number, "extensions": []})
    kept = [(_file("raw", 0.9), f"trials/{number}/raw", 0.9)]
    catalog.end_trial(trial.id, "complete", value=0.9, facts={"epochs": 3}, weights=kept)
    catalog.set_trial(trial.id, run_id=f"r{number}", described=True, files_delivered=True, delivered=True)
    return catalog.trial(study.id, number)


def test_what_is_said_again_because_the_answer_was_lost_is_recorded_once(catalog: Catalog) -> None:
    study = _study(catalog)
    assert _study(catalog) == study
    trial = catalog.add_trial(study.id, 0, params={"train.lr": 0.1}, recipe={"seed": 1})
    assert catalog.add_trial(study.id, 0, params={"train.lr": 0.1}, recipe={"seed": 1}) == trial
    assert [catalog.add_epoch(trial.id, _report(1)) for _ in range(2)] == [True, False]
    epochs = catalog.epochs(study.id)
    kept = [(_file("raw", 0.9), "trials/0000/raw", 0.9), (_file("ema", 0.8), "trials/0000/ema", 0.8)]
    catalog.end_trial(trial.id, "complete", value=0.9, facts={"device": "cpu"}, weights=kept)
    catalog.set_trial(trial.id, run_id="r", described=True, delivered=True)
    ended, weights = catalog.trials(study.id), catalog.weights(study.id)
    catalog.end_trial(trial.id, "complete", value=0.9, facts={"device": "cpu"}, weights=kept)
    assert catalog.trials(study.id) == ended, "ended when it ended, and the tracker has heard of it"
    assert catalog.weights(study.id) == weights
    assert [weight.kind for weight in weights] == ["raw", "ema"]
    assert catalog.epochs(study.id) == epochs


def test_an_extension_is_recorded_as_a_whole_and_takes_nothing_away(catalog: Catalog) -> None:
    study = _study(catalog)
    first, second = (_complete(catalog, study, number) for number in (0, 1))
    catalog.set_study(study.id, state="finished", run_id="p", winner={"trial": 0, "sha256": "s", "model_version": "4"})
    assert not catalog.owes(study.id)
    extension = {"after_epochs": 3, "epochs": 2}
    longer = {"seed": 0, "extensions": [extension]}

    with pytest.raises(TypeError):
        catalog.extend_trials(study.id, {first.id: longer, second.id: None})  # type: ignore[dict-item]
    assert catalog.trials(study.id) == [first, second], "not one without the other"
    assert catalog.study("digits").state == "finished"

    catalog.extend_trials(study.id, {first.id: longer})
    row = catalog.study("digits")
    assert (row.state, row.winner, row.run_id) == ("stopped", {"trial": 0, "sha256": "s"}, "p")
    going = catalog.trial(study.id, 0)
    assert (going.state, going.value, going.facts, going.is_extended) == ("waiting", 0.9, {"epochs": 3}, True)
    assert going.recipe == longer
    assert not second.is_extended
    assert [kept.trial for kept in catalog.weights(study.id)] == [0, 1]
    assert [kept.trial for kept in catalog.weights(study.id, of="complete")] == [1]
    assert [trial.number for trial in catalog.owed_files(study.id)] == [0], "its recipe is another"
    assert catalog.owed_trials(study.id) == [], "its end is not known yet"

    catalog.drop_extension(going, "its extension failed: Diverged")
    dropped = catalog.trial(study.id, 0)
    assert (dropped.state, dropped.recipe, dropped.value) == ("complete", first.recipe, 0.9)
    assert dropped.reason == "its extension failed: Diverged"
    assert [trial.number for trial in catalog.owed_trials(study.id)] == [0]
    catalog.extend_trials(study.id, {first.id: longer})
    assert catalog.trial(study.id, 0).reason is None


def test_what_the_tracker_is_owed_shrinks_as_it_is_delivered(catalog: Catalog) -> None:
    study = _study(catalog)
    trial = catalog.add_trial(study.id, 0, params={}, recipe={"seed": 1})
    for epoch in (1, 2, 3):
        catalog.add_epoch(trial.id, _report(epoch))
    assert catalog.owed_epochs(study.id, most=10) == [], "epochs wait for the run of their trial"
    assert [t.number for t in catalog.owed_trials(study.id)] == [0]

    catalog.set_trial(trial.id, run_id="r")
    assert [t.number for t in catalog.owed_trials(study.id)] == [0], "its recipe"
    catalog.set_trial(trial.id, described=True)
    assert catalog.owed_trials(study.id) == []
    owed = catalog.owed_epochs(study.id, most=2)
    assert [(run, epoch.epoch) for run, epoch in owed] == [("r", 1), ("r", 2)]
    catalog.mark_delivered([epoch.id for _, epoch in owed])
    assert [epoch.epoch for _, epoch in catalog.owed_epochs(study.id, most=2)] == [3]

    catalog.end_trial(trial.id, "pruned", value=0.5)
    assert [t.number for t in catalog.owed_trials(study.id)] == [0]
    catalog.set_trial(trial.id, delivered=True)
    assert catalog.owed_trials(study.id) == []
    catalog.mark_delivered([epoch.id for _, epoch in catalog.owed_epochs(study.id, most=2)])
    assert catalog.owes(study.id), "its recipe as a file"
    assert [t.number for t in catalog.owed_files(study.id)] == [0]
    catalog.set_trial(trial.id, files_delivered=True)
    assert not catalog.owes(study.id)


def test_all_that_was_delivered_is_owed_again_to_another_tracker(catalog: Catalog) -> None:
    study = _study(catalog)
    other = catalog.add_study("other", digest="d", text="t", metric="validation.loss", trials_asked=1)
    for row in (study, other):
        trial = catalog.add_trial(row.id, 0, params={}, recipe={"seed": 1})
        catalog.add_epoch(trial.id, _report(1))
        catalog.end_trial(trial.id, "complete", value=0.5)
        catalog.set_trial(trial.id, run_id="r", described=True, files_delivered=True, delivered=True)
        catalog.mark_delivered([epoch.id for epoch in catalog.epochs(row.id)[trial.id]])
        catalog.set_study(row.id, run_id="p", tracking_uri="http://here", winner={"trial": 0, "model_version": "1"})

    catalog.owe_again(study.id, "http://there")
    row = catalog.study("digits")
    assert (row.run_id, row.tracking_uri, row.winner) == (None, "http://there", {"trial": 0})
    assert [t.run_id for t in catalog.owed_trials(study.id)] == [None]
    catalog.set_trial(catalog.trial(study.id, 0).id, run_id="new")
    assert [(run, epoch.epoch) for run, epoch in catalog.owed_epochs(study.id, most=10)] == [("new", 1)]
    assert [t.number for t in catalog.owed_files(study.id)] == [0]
    assert not catalog.owes(other.id)
    assert catalog.study("other").winner == {"trial": 0, "model_version": "1"}


def test_only_one_of_many_takes_the_owner_over(catalog: Catalog) -> None:
    study = _study(catalog)
    start, won = threading.Barrier(8), []

    def take(me: str) -> None:
        start.wait()
        if catalog.swap_owner(study.id, expected=None, owner=me):
            won.append(me)

    threads = [threading.Thread(target=take, args=(f"owner {i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert catalog.study("digits").owner == won[0]


def test_looking_at_a_home_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'nowhere' / 'a.db'}", create=False)
    assert catalog.studies() == []
    assert not (tmp_path / "nowhere").exists()
    catalog.close()


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreError, match=r"a\.db: file is not a database; move that file away"):
        Catalog(f"sqlite:///{path}")


def test_a_password_is_not_told() -> None:
    with pytest.raises(StoreError) as caught:
        Catalog("postgresql+psycopg://ada:secret@127.0.0.1:1/sweeper")
    assert "ada:***@127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_whoever_lost_the_study_writes_nothing_more(catalog: Catalog) -> None:
    study = _study(catalog)
    trial = catalog.add_trial(study.id, 0, params={}, recipe={"seed": 1})
    catalog.swap_owner(study.id, expected=None, owner="me")
    catalog.fence(study.id, "me")
    assert catalog.add_epoch(trial.id, _report(1))
    with closing(Catalog(catalog.url)) as other:
        other.set_study(study.id, request="stop")
        other.swap_owner(study.id, expected="me", owner="another", owner_pid=7, owner_host="there")
    writes = [
        lambda: catalog.add_epoch(trial.id, _report(2)),
        lambda: catalog.add_trial(study.id, 1, params={}, recipe={}),
        lambda: catalog.set_trial(trial.id, state="failed"),
        lambda: catalog.end_trial(trial.id, "complete", value=0.5),
        lambda: catalog.set_study(study.id, state="finished"),
        lambda: catalog.mark_delivered([1]),
    ]
    for write in writes:
        with pytest.raises(StudyHeld, match="study 'digits' was taken over by process 7 on there"):
            write()
    assert catalog.trials(study.id) == [trial]
    assert [epoch.epoch for epoch in catalog.epochs(study.id)[trial.id]] == [1]
    assert not catalog.swap_owner(study.id, expected="me", heartbeat_at=1.0), "the lease asks by itself"


def test_a_database_that_is_locked_or_away_is_a_transient_fault(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Catalog("postgresql+psycopg://ada:secret@127.0.0.1:1/sweeper")
    assert (caught.value.transient, caught.value.no_space) == (True, False)
    with pytest.raises(StoreError) as caught:
        Catalog(f"sqlite:///{tmp_path}")
    assert (caught.value.transient, caught.value.no_space) == (False, False)
