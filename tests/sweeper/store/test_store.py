from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from s3_server import ENVIRONMENT, S3Server

from sweeper.errors import StoreError
from sweeper.store.objects import Objects, OnDisk, OverFsspec
from sweeper.store.store import Absent, Away, Clock, Store, Taken
from trials.errors import NoSpace
from trials.manifest import Damaged


class Waits:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: sum(self.seconds), sleep=self.seconds.append)


class Failing(OnDisk):
    """Objects that fail with the errors of a list, one after another, before they work."""

    def __init__(self, root: Path, *errors: Exception) -> None:
        super().__init__(root)
        self.errors = list(errors)

    def read(self, name: str) -> bytes:
        if self.errors:
            raise self.errors.pop(0)
        return super().read(name)


@pytest.fixture(params=["folder", "s3", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """Every kind of place."""
    if request.param == "s3":
        return OverFsspec(f"s3://{request.getfixturevalue('bucket')}/some/prefix")
    return OnDisk(tmp_path / "store") if request.param == "folder" else OverFsspec(f"memory://{tmp_path}")


def test_every_place_keeps_objects_alike(objects: Objects, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"sent")
    assert objects.sizes("a") == {}
    objects.write("a/b/one", b"1")
    objects.write("a/b/one", b"changed")
    objects.create("a/two", b"22")
    objects.send(tmp_path / "file", "a/three")
    objects.write("ab/other", b"not below a")
    with pytest.raises(FileExistsError):
        objects.create("a/two", b"another")
    assert objects.sizes("a") == {"a/b/one": 7, "a/two": 2, "a/three": 4}
    assert (objects.read("a/b/one"), objects.read("a/two")) == (b"changed", b"22")
    objects.fetch("a/three", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"sent"
    objects.remove(["a/two", "a/gone", "a/b/one"])
    objects.remove(["a/gone"])
    assert objects.sizes("a") == {"a/three": 4}
    for name in ("a/two", "nothing/at/all"):
        with pytest.raises(FileNotFoundError):
            objects.read(name)
        with pytest.raises(FileNotFoundError):
            objects.fetch(name, tmp_path / "fetched")


def test_a_folder_is_left_as_it_was_without_objects(tmp_path: Path) -> None:
    objects = OnDisk(tmp_path / "store")
    objects.create("a/b/c", b"1")
    assert [path.name for path in (tmp_path / "store").rglob("*")] == ["a", "b", "c"], "nothing half written"
    objects.remove(["a/b/c"])
    assert list((tmp_path / "store").iterdir()) == []


def test_waits_grow_until_it_answers(tmp_path: Path) -> None:
    waits = Waits()
    objects = Failing(tmp_path, *[TimeoutError("slow")] * 8)
    objects.write("x", b"1")
    assert Store("s3://b", 100.0, objects, waits.clock).read("x") == b"1"
    assert waits.seconds == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


def test_a_store_that_stays_away_is_one_line_that_may_be_tried_again(tmp_path: Path) -> None:
    waits = Waits()
    refused = ConnectionError("could not connect to\n https://user:s3cret@minio/?X-Amz-Signature=0123abc")
    with pytest.raises(Away) as caught:
        Store("s3://b/p", 3.0, Failing(tmp_path, *[refused] * 9), waits.clock).read("x")
    assert str(caught.value) == (
        "SWEEPER_STORE=s3://b/p: does not answer, tried for 2 s (ConnectionError: could not connect to "
        "https://user:***@minio/?X-Amz-Signature=***)"
    )
    assert caught.value.transient
    assert waits.seconds == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("Access Denied"),
        OSError(errno.EINVAL, "The specified bucket is not valid."),
        type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"),
    ],
)
def test_a_store_that_refuses_is_not_asked_again(tmp_path: Path, error: Exception) -> None:
    waits = Waits()
    with pytest.raises(StoreError, match=r"^SWEEPER_STORE=s3://b: refuses \(.*\); see to the bucket, its") as caught:
        Store("s3://b", 60.0, Failing(tmp_path, error), waits.clock).read("x")
    assert (caught.value.transient, waits.seconds) == (False, [])


def test_a_full_disk_is_none_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="no room"):
        Store("s3://b", 60.0, Failing(tmp_path, NoSpace("no room"))).read("x")


def test_s3_may_fail_and_be_away_for_a_while(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    store = Store(f"s3://{bucket}/p", 20.0)
    failures = iter(["500 Internal Error", "503 Slow Down"])
    s3.answer = lambda _method, _path: next(failures, None)
    store.write("x", b"1")
    assert next(failures, None) is None, "both were met"
    s3.stop()
    with pytest.raises(Away, match=r"EndpointConnectionError: Could not connect to the endpoint URL"):
        Store(f"s3://{bucket}/p", 0.0).read("x")
    asleep = Clock(sleep=lambda _: s3.start())
    assert Store(f"s3://{bucket}/p", 20.0, clock=asleep).read("x") == b"1"


def test_what_s3_says_for_good_is_one_line(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Store("s3://no-such-bucket-there/p")
    for act in (lambda: missing.write("x", b""), lambda: missing.sizes("x"), lambda: missing.read("x")):
        with pytest.raises(
            StoreError,
            match=r"^SWEEPER_STORE=s3://no-such-bucket-there/p: there is no such bucket; make it",
        ):
            act()
    store = Store(f"s3://{bucket}")
    with pytest.raises(Absent, match=f"^s3://{bucket}/x: is gone from the store$"):
        store.read("x")
    store.create("x", b"mine")
    store.create("x", b"mine")
    with pytest.raises(Taken):
        store.create("x", b"another's")
    s3.answer = lambda _method, _path: "403 Forbidden"
    with pytest.raises(StoreError, match="refuses") as caught:
        store.read("x")
    assert not re.search("|".join(ENVIRONMENT.values()), str(caught.value)), "no credentials are shown"


def test_a_server_that_knows_no_conditions_replaces_nothing_either(s3: S3Server, bucket: str) -> None:
    s3.knows_conditions = False
    Store(f"s3://{bucket}").create("x", b"mine")
    with pytest.raises(Taken):
        Store(f"s3://{bucket}").create("x", b"another's")
    assert s3.objects(bucket) == {"x": b"mine"}


def test_who_loses_a_race_is_told_so_by_any_server(s3: S3Server, bucket: str) -> None:
    s3.answer = lambda method, _path: "412 Precondition Failed" if method == "PUT" else None
    with pytest.raises(FileExistsError):
        OverFsspec(f"s3://{bucket}").create("x", b"made by another since it was looked for")


def test_what_is_fetched_is_verified(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    store = Store(f"s3://{bucket}")
    s3.put(bucket, "x", b"changed")
    with pytest.raises(Damaged, match="its digest is not that of what was written"):
        store.fetch("x", tmp_path / "x", "0" * 64)
