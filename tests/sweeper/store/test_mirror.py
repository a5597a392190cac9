from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from sweeper.errors import StoreError
from sweeper.store.index import Index, index_name
from sweeper.store.mirror import Mirror, Superseded
from sweeper.store.objects import OnDisk
from sweeper.store.store import Store
from trials.manifest import sealed

NAME = "trials/0007"


class Watched(OnDisk):
    """Objects in a folder; notes what is done to them, and may be stopped before."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.done: list[str] = []
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None

    def create(self, name: str, content: bytes) -> None:
        self._note(f"create {name}")
        super().create(name, content)
        self.after(f"create {name}")

    def send(self, path: Path, name: str) -> None:
        self._note(f"send {path.name}")
        super().send(path, name)

    def remove(self, names: Iterable[str]) -> None:
        names = list(names)
        self._note(f"remove {len(names)}")
        super().remove(names)

    def _note(self, what: str) -> None:
        self.before(what)
        self.done.append(what)


@pytest.fixture
def objects(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "store")


@pytest.fixture
def store(objects: Watched) -> Store:
    return Store("file:///nowhere", 0.0, objects)


def mirror(store: Store, folder: Path) -> Mirror:
    """Of somebody who has just taken the folder."""
    taken = Mirror(store, NAME, folder)
    assert taken.take() == []
    return taken


def write(folder: Path, **files: str) -> Path:
    """Files named ``a__b`` for ``a/b``."""
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def read(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def brought(store: Store, folder: Path) -> dict[str, str]:
    """What a machine with an empty home is brought."""
    seen = Mirror(store, NAME, folder)
    seen.look()
    assert seen.pull() == []
    return read(folder)


def place(content: str) -> str:
    return f"{NAME}/files/{hashlib.sha256(content.encode()).hexdigest()}"


def test_what_is_pushed_is_pulled_elsewhere(tmp_path: Path, store: Store) -> None:
    here = write(tmp_path / "here", a="1", best__b="2", best__same="1")
    write(here, **{".lock": "", ".half.tmp": "half"})
    pushed = mirror(store, here)
    pushed.push(3)
    assert brought(store, tmp_path / "there") == {"a": "1", "best/b": "2", "best/same": "1"}
    assert (pushed.index.epoch, pushed.index.attempt) == (3, 1)


def test_the_index_follows_the_files_and_only_new_ones_are_sent(tmp_path: Path, store: Store, objects: Watched) -> None:
    here = write(tmp_path / "here", a="1", b="2")
    pushed = mirror(store, here)
    objects.done.clear()
    pushed.push(1)
    write(here, c="3", same="2")
    (here / "a").unlink()
    pushed.push(2)
    pushed.push(2)
    assert objects.done == [
        "send a",
        "send b",
        f"create {index_name(NAME, 2)}",
        "send c",
        f"create {index_name(NAME, 3)}",
        "remove 2",  # the index before, and a; that of whoever took the folder stays
    ]
    assert set(objects.sizes(NAME)) == {index_name(NAME, 1), index_name(NAME, 3), place("2"), place("3")}


@pytest.mark.parametrize("killed_before", ["send b", f"create {index_name(NAME, 3)}", "remove 2"])
def test_killed_at_any_moment_the_index_names_whole_files(
    tmp_path: Path, store: Store, objects: Watched, killed_before: str
) -> None:
    here = write(tmp_path / "here", a="1")
    pushed = mirror(store, here)
    pushed.push(1)
    (here / "a").unlink()
    write(here, aa="2", b="3")

    def kill(what: str) -> None:
        if what == killed_before:
            raise SystemExit

    objects.before = kill
    with pytest.raises(SystemExit):
        pushed.push(2)
    objects.before = lambda _: None
    old, new = {"a": "1"}, {"aa": "2", "b": "3"}
    assert brought(store, tmp_path / "there") == (new if killed_before == "remove 2" else old)
    mirror(store, tmp_path / "next").push()
    assert not [name for name in objects.sizes(NAME) if "/files/" in name], "nothing of it is left over"


def test_who_was_believed_dead_changes_nothing(tmp_path: Path, store: Store, objects: Watched) -> None:
    dead = mirror(store, write(tmp_path / "dead", a="1"))
    dead.push(1)
    living = mirror(store, tmp_path / "living")
    living.pull()
    for epoch in range(2, 6):
        write(tmp_path / "living", a=f"epoch {epoch}")
        living.push(epoch)
        before = objects.sizes(NAME)
        write(tmp_path / "dead", a=f"late {epoch}")
        with pytest.raises(Superseded, match=r"another process has taken it since; this one stops$"):
            dead.push(epoch)
        left = set(objects.sizes(NAME)) - set(before)
        assert left == {place(f"late {epoch}")}, "sent, and named by no index"
        assert brought(store, tmp_path / f"there-{epoch}") == {"a": f"epoch {epoch}"}
    assert mirror(store, tmp_path / "next").index.attempt == 3


def test_two_that_take_a_folder_at_once_follow_each_other(tmp_path: Path, store: Store, objects: Watched) -> None:
    mirror(store, write(tmp_path / "first", a="1")).push(1)
    first, second = Mirror(store, NAME, tmp_path / "x"), Mirror(store, NAME, tmp_path / "y")

    def another_is_quicker(what: str) -> None:
        objects.before = lambda _: None
        second.take()

    objects.before = another_is_quicker
    first.take()
    assert (second.index.attempt, first.index.attempt) == (2, 3)
    write(tmp_path / "y", a="2")
    with pytest.raises(Superseded):
        second.push(2)


def test_an_index_whose_answer_was_lost_is_not_somebody_elses(tmp_path: Path, objects: Watched) -> None:
    store = Store("file:///nowhere", 10.0, objects)
    pushed = mirror(store, write(tmp_path / "here", a="1"))

    def lose_it(what: str) -> None:
        objects.after = lambda _: None
        raise TimeoutError("no answer")

    objects.after = lambda what: lose_it(what) if what.startswith("create") else None
    pushed.push(1)
    assert brought(store, tmp_path / "there") == {"a": "1"}


def test_what_the_store_does_not_name_goes_from_here(tmp_path: Path, store: Store) -> None:
    mirror(store, write(tmp_path / "here", a="1")).push(1)
    there = write(tmp_path / "there", old="0", checkpoints__deep__old="0", a="damaged here")
    (there / ".lock").touch()
    seen = Mirror(store, NAME, there)
    seen.look()
    seen.pull()
    assert read(there) == {"a": "1", ".lock": ""}
    assert not (there / "checkpoints").exists(), "an empty folder would look like a damaged checkpoint"


@pytest.mark.parametrize(
    ("spoil", "found"),
    [(lambda path: path.write_text("x"), "its digest is not that of what was written"), (Path.unlink, "it is gone")],
)
def test_what_is_damaged_in_the_store_is_left_out_and_sent_again(
    tmp_path: Path, store: Store, spoil: Callable[[Path], None], found: str
) -> None:
    mirror(store, write(tmp_path / "here", a="1", b="2")).push(1)
    spoil(tmp_path / "store" / place("1"))
    there = tmp_path / "there"
    taken = mirror(store, there)
    assert taken.pull() == [f"a was damaged in the store ({found}): set aside"]
    assert read(there) == {"b": "2"}
    write(there, a="1")
    taken.push(2)
    assert brought(store, tmp_path / "third") == {"a": "1", "b": "2"}


def test_a_damaged_index_gives_way_to_the_one_before(tmp_path: Path, store: Store) -> None:
    pushed = mirror(store, write(tmp_path / "here", a="1"))
    pushed.push(1)
    write(tmp_path / "store", **{index_name(NAME, 3).replace("/", "__"): "{"})
    taken = Mirror(store, NAME, tmp_path / "there")
    assert taken.take() == [f"{index_name(NAME, 3)} was damaged: set aside"]
    assert taken.pull() == []
    assert read(tmp_path / "there") == {"a": "1"}


@pytest.mark.parametrize("path", ["../../escaped", "/etc/escaped", "a/../../b", ""])
def test_an_index_that_leads_out_of_the_folder_is_none(tmp_path: Path, store: Store, path: str) -> None:
    content = {"attempt": 1, "owner": "", "epoch": 1, "files": {path: {"bytes": 1, "sha256": "0" * 64}}}
    store.create(index_name(NAME, 1), sealed(content))
    seen = Mirror(store, NAME, tmp_path / "there")
    assert seen.look() == Index()
    assert seen.pull() == []


def test_a_part_is_removed_there(tmp_path: Path, store: Store, objects: Watched) -> None:
    here = write(tmp_path / "here", checkpoints__a="1", weights__a="1", weights__b="2", checkpoints__c="3")
    mirror(store, here).push(1)
    late = mirror(store, here)
    Mirror(store, NAME, here).take(lambda path: not path.startswith("checkpoints/"))
    with pytest.raises(Superseded):
        late.push(2)
    assert brought(store, tmp_path / "there") == {"weights/a": "1", "weights/b": "2"}
    firsts = {index_name(NAME, 1), index_name(NAME, 3), index_name(NAME, 4)}
    assert set(objects.sizes(NAME)) == {*firsts, place("1"), place("2")}, "each first index, and no other"


def test_an_index_that_changes_all_the_time_is_one_line(tmp_path: Path, objects: Watched, store: Store) -> None:
    mirror(store, tmp_path / "here")
    objects.read = lambda name: (_ for _ in ()).throw(FileNotFoundError(name))  # type: ignore[method-assign]
    with pytest.raises(StoreError, match=re.escape(f"{NAME}: its index is replaced faster than it can be read")):
        Mirror(store, NAME, tmp_path / "x").look()
