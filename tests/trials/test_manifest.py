"""Whatever a disk does to a trial's files, it ends with the same bytes or with one line that names the file."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trials import EpochReport, Interrupted, Recipe, TrialError, TrialResult, run_trial
from trials.checkpoint import Checkpoint, TrialFolder

RECIPE = Recipe.model_validate(
    {
        "seed": 2,
        "data": {"source": "digits", "train_fraction": 0.2, "mix": "mixup"},
        "model": {"build": "mlp", "width": 4, "depth": 1, "dropout": 0.2},
        "train": {"epochs": 4, "batch_size": 64, "early_stop": {"patience_epochs": 4}, "ema": {"decay": 0.9}},
        "average": {"best_n": 2},
    }
)


def train(folder: Path) -> TrialResult:
    return run_trial(RECIPE, folder, device="cpu")


def kept(folder: Path, result: TrialResult) -> tuple[TrialResult, dict[str, str]]:
    """All but what tells of the damage."""
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "weights").iterdir()}
    return result.model_copy(update={"seconds": 0.0, "notes": ()}), digests


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[TrialResult, dict[str, str]]]:
    """The folder of an unbroken trial, and what it came to."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, kept(folder, train(folder))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint in the midst of epoch 3, and the one of epoch 2 as a spare."""
    folder, epochs, asked = tmp_path_factory.mktemp("stopped"), [0], [0]

    def hear(report: EpochReport) -> bool:
        epochs.append(report.epoch)
        return True

    def stop() -> bool:
        asked[0] += epochs[-1] == 2
        return asked[0] == 3

    with pytest.raises(Interrupted, match="in epoch 3 after 2 of its updates"):
        run_trial(RECIPE, folder, hear, "cpu", stop)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"epoch-0002", "epoch-0003-step-000002"}
    return folder


def flip_a_bit(content: bytes, draws: random.Random) -> bytes:
    place = draws.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draws.randrange(8)]) + content[place + 1 :]


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda content, _: b"",
    "half": lambda content, _: content[: len(content) // 2],
    "all but the last byte": lambda content, _: content[:-1],
    "cut anywhere": lambda content, draws: content[: draws.randrange(len(content))],
    "longer": lambda content, _: content + b"\0",
    "one bit": flip_a_bit,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_trial_with_any_one_file_damaged_ends_with_the_same_bytes(
    kind: str, stopped: Path, finished: tuple[Path, tuple[TrialResult, dict[str, str]]], tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draws = random.Random(seed)
    names = [
        path.relative_to(stopped)
        for path in sorted(stopped.rglob("*.*"))
        if path.is_file() and path.stat().st_size and path.name != "recipe.json"
    ]
    assert len(names) >= 10
    for count, name in enumerate(names):
        folder = tmp_path / str(count)
        shutil.copytree(stopped, folder)
        (folder / name).write_bytes(DAMAGE[kind]((stopped / name).read_bytes(), draws))
        result = train(folder)
        assert kept(folder, result) == finished[1], name
        newest = name.parts[:2] == ("checkpoints", "epoch-0003-step-000002")
        assert not newest or any(note.startswith(f"{name} was damaged") for note in result.notes), result.notes
        assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("kind", ["empty", "half", "all but the last byte", "cut anywhere", "longer"])
def test_a_recipe_that_cannot_be_read_is_written_anew(
    kind: str, stopped: Path, finished: tuple[Path, tuple[TrialResult, dict[str, str]]], tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "trial")
    path = tmp_path / "trial/recipe.json"
    path.write_bytes(DAMAGE[kind](path.read_bytes(), random.Random(0)))
    result = train(path.parent)
    assert kept(path.parent, result) == finished[1]
    assert result.notes[0].startswith("recipe.json was damaged (not a recipe): ")
    assert Recipe.model_validate_json(path.read_bytes()) == RECIPE


def test_a_recipe_that_says_something_else_is_one_line_that_names_it(stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "trial")
    path = tmp_path / "trial/recipe.json"
    path.write_text(path.read_text().replace('"epochs": 4', '"epochs": 5'))
    with pytest.raises(TrialError, match=f"^{re.escape(str(path))}: another recipe's trial .*train.epochs: 5 there"):
        train(path.parent)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_result_or_its_weights_damaged_are_made_anew(
    kind: str, finished: tuple[Path, tuple[TrialResult, dict[str, str]]], tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    for name in ("result.json", "weights/raw.safetensors"):
        folder = tmp_path / Path(name).stem
        shutil.copytree(finished[0], folder)
        (folder / name).write_bytes(DAMAGE[kind]((folder / name).read_bytes(), random.Random(seed)))
        assert kept(folder, train(folder)) == finished[1]
        assert TrialFolder(folder).read_result() is not None


def test_everything_damaged_is_trained_from_the_start(
    stopped: Path, finished: tuple[Path, tuple[TrialResult, dict[str, str]]], tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "trial")
    for state in tmp_path.glob("trial/checkpoints/*/state.pt"):
        state.write_bytes(b"")
    told: list[int] = []
    result = run_trial(RECIPE, tmp_path / "trial", lambda report: told.append(report.epoch) is None, "cpu")
    assert told == [1, 2, 3, 4]
    assert kept(tmp_path / "trial", result) == finished[1]
    assert [note.split(" was damaged")[0] for note in result.notes] == [
        "checkpoints/epoch-0003-step-000002/state.pt",
        "checkpoints/epoch-0002/state.pt",
    ]


def test_a_pickle_bomb_neither_runs_nor_ends_the_trial(
    stopped: Path, finished: tuple[Path, tuple[TrialResult, dict[str, str]]], tmp_path: Path
) -> None:
    """Even with a manifest that vouches for it."""

    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (Path(tmp_path / "ran").touch, ())

    folder = TrialFolder(tmp_path / "trial")
    shutil.copytree(stopped, folder.root)
    folder.save(Checkpoint(3, {}, {"epoch": Bomb()}), best=())
    shutil.copytree(stopped, folder.root, dirs_exist_ok=True)
    result = train(folder.root)
    assert not (tmp_path / "ran").exists()
    assert kept(folder.root, result) == finished[1]
    assert result.notes[0].startswith("checkpoints/epoch-0003/state.pt was damaged (it holds more than tensors")


def test_best_weights_damaged_while_it_trains_are_one_clear_line(stopped: Path, tmp_path: Path) -> None:
    """The trial had read them before; started again, it mends them."""
    folder = TrialFolder(tmp_path / "trial")
    shutil.copytree(stopped, folder.root)
    path = folder.best_weights(1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TrialError) as caught:
        folder.whole_best_weights(1)
    assert str(caught.value) == (
        f"{path}: damaged (its digest is not that of what was written); start the trial again, which trains anew what "
        "was lost"
    )
