"""A5: soups equal brute-force means, greedy ones a brute-force twin, and are never worse than the best ingredient."""

from __future__ import annotations

import errno
import itertools
import math
import random
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from trials.average import stored
from trials.average.best_n import mean_weights
from trials.average.soup import SOUP, greedy_soup, mean_of_files
from trials.average.stored import PART_ELEMENTS, StoredWeights
from trials.disk import is_temporary
from trials.errors import NoSpace, TrialError
from trials.result import METRICS


def write(path: Path, weights: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    return path


def write_ingredients(folder: Path, count: int) -> list[Path]:
    """Weights of several types; one tensor ends a number behind the border of a part."""
    generator = torch.Generator().manual_seed(0)
    return [
        write(
            folder / f"{number}.safetensors",
            {
                "weight": torch.randn(3, PART_ELEMENTS // 3 + 1, generator=generator),
                "brain": torch.randn(50, generator=generator).bfloat16(),
                "half": torch.randn(50, generator=generator).half(),
                "double": torch.randn(5, generator=generator, dtype=torch.float64),
                "counter": torch.tensor(10 * number + 1),
            },
        )
        for number in range(count)
    ]


def make_greedy(paths: Sequence[Path], folder: Path) -> object:
    return greedy_soup(paths, lambda _: 0.0, "validation.loss", folder)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_mean_is_that_of_numpy_in_float64(tmp_path: Path, count: int) -> None:
    paths, out = write_ingredients(tmp_path, count), tmp_path / "made" / "mean.safetensors"
    mean_of_files(paths, out)
    found, files = safetensors.torch.load_file(out), [safetensors.torch.load_file(path) for path in paths]
    for name in ("weight", "brain", "half", "double"):
        exact = sum(file[name].double().numpy() for file in files) / count
        assert torch.equal(found[name], torch.from_numpy(exact).to(files[0][name].dtype)), name
    assert found["counter"] == 1  # of the first
    with safetensors.safe_open(out, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_the_mean_in_memory_is_the_mean_in_the_file_but_for_the_counters(tmp_path: Path) -> None:
    paths = write_ingredients(tmp_path, 3)
    mean_of_files(paths, tmp_path / "mean")
    in_file, in_memory = safetensors.torch.load_file(tmp_path / "mean"), mean_weights(paths)
    assert in_memory.pop("counter") == 21
    assert all(torch.equal(in_memory[name], in_file[name]) for name in in_memory)


@pytest.mark.parametrize("make", [mean_of_files, make_greedy])
def test_parts_of_two_files_at_most_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Sequence[Path], Path], object]
) -> None:
    """Of ten files that are nearly one tensor each: the part just read, and the one before it."""
    part, count, elements = 1000, 10, 5001
    monkeypatch.setattr(stored, "PART_ELEMENTS", part)
    paths = [write(tmp_path / str(n), {"big": torch.ones(elements), "n": torch.tensor(n)}) for n in range(count)]
    alive: list[weakref.ref[Tensor]] = []
    held_bytes: list[int] = []
    real_read = StoredWeights.read

    def watched(self: StoredWeights, name: str, part: slice) -> Tensor:
        values = real_read(self, name, part)
        alive.append(weakref.ref(values))
        held_bytes.append(sum(left.nbytes for one in alive if (left := one()) is not None))
        return values

    monkeypatch.setattr(StoredWeights, "read", watched)
    make(paths, tmp_path / "made")
    assert len(held_bytes) >= count * 6
    assert max(held_bytes) <= 2 * part * 4


def test_the_order_of_the_ingredients_does_not_matter(tmp_path: Path) -> None:
    paths = write_ingredients(tmp_path, 4)
    for name, order in (("one", paths), ("other", [paths[0], *reversed(paths[1:])])):
        mean_of_files(order, tmp_path / name)
    one, other = (safetensors.torch.load_file(tmp_path / name) for name in ("one", "other"))
    for name in one:  # float64 sums of narrower numbers of one size are exact
        assert (one[name] - other[name]).abs().max() <= (1e-15 if name == "double" else 0.0)


def test_files_that_do_not_fit_leave_nothing(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a", {"w": torch.zeros(2)}), write(tmp_path / "b", {"w": torch.zeros(3)})]
    with pytest.raises(TrialError, match=r"tensor w is float32 \[2\] in .*a, but float32 \[3\] in .*b; "):
        mean_of_files(paths, tmp_path / "out")
    with pytest.raises(TrialError, match="tensor w is"):
        greedy_soup(paths, lambda _: 0.0, "validation.loss", tmp_path)
    assert sorted(tmp_path.iterdir()) == paths


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, out = unit_vectors(tmp_path, 2), tmp_path / "out"
    out.write_bytes(b"before")

    def full(self: StoredWeights, name: str, part: slice) -> Tensor:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(StoredWeights, "read", full)
    with pytest.raises(NoSpace, match="no space left"):
        mean_of_files(paths, out)
    with pytest.raises(NoSpace, match="no space left"):
        greedy_soup(paths, lambda _: 0.0, "validation.loss", tmp_path / "greedy")
    assert out.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "greedy", "out"]
    assert list((tmp_path / "greedy").iterdir()) == []


def unit_vectors(folder: Path, count: int) -> list[Path]:
    """Ingredients whose mean says which of them it is of."""
    return [write(folder / str(n), {"w": row.clone()}) for n, row in enumerate(torch.eye(count))]


def members(path: Path) -> tuple[int, ...]:
    mean = safetensors.torch.load_file(path)["w"]
    of = mean.nonzero().flatten()
    assert torch.equal(mean[of], torch.full((len(of),), 1.0 / len(of)))
    return tuple(of.tolist())


def twin(count: int, worth: dict[tuple[int, ...], float], sign: float) -> tuple[int, ...]:
    """Recipe 1 of the paper, over sets of indices."""
    chosen: tuple[int, ...] = (0,)
    for index in range(1, count):
        if sign * worth[(*chosen, index)] >= sign * worth[chosen]:
            chosen = (*chosen, index)
    return chosen


@pytest.mark.parametrize("metric", ["validation.accuracy", "validation.loss"])
@pytest.mark.parametrize("seed", range(10))
def test_the_greedy_soup_is_that_of_a_brute_force_twin(tmp_path: Path, metric: str, seed: int) -> None:
    """The worth of each subset is drawn, of few values: many are equal. The soup is never worse than the best one."""
    rng, count = random.Random(seed), 6
    subsets = [subset for size in range(1, count + 1) for subset in itertools.combinations(range(count), size)]
    worth = {subset: rng.choice([0.1, 0.2, 0.3, 0.4]) for subset in subsets}
    sign = 1.0 if METRICS[metric] == "maximize" else -1.0
    order = sorted(range(count), key=lambda index: -sign * worth[index,])
    worth |= {(place,): worth[order[place],] for place in range(count)}  # best first
    asked: list[tuple[int, ...]] = []

    def worth_of(path: Path) -> float:
        asked.append(members(path))
        return worth[asked[-1]]

    paths = unit_vectors(tmp_path, count)
    chosen, soup = greedy_soup(paths, worth_of, metric, tmp_path / "soup")
    assert chosen == twin(count, worth, sign) == members(soup)
    assert asked[0] == (0,)
    assert len(asked) == count  # each once
    assert sign * worth[chosen] >= max(sign * worth[index,] for index in range(count))


@pytest.mark.parametrize("taken", [(0,), (0, 2, 3), (0, 1, 4), (0, 1, 2, 3, 4)])
def test_a_greedy_soup_is_the_mean_of_its_ingredients_bit_for_bit(tmp_path: Path, taken: tuple[int, ...]) -> None:
    paths = write_ingredients(tmp_path, 5)
    answers = iter([1.0, *(1.0 if index in taken else 0.0 for index in range(1, 5))])
    chosen, soup = greedy_soup(paths, lambda _: next(answers), "validation.accuracy", tmp_path / "soup")
    mean_of_files([paths[index] for index in taken], tmp_path / "mean")
    assert chosen == taken
    assert soup == tmp_path / "soup" / SOUP
    assert soup.read_bytes() == (tmp_path / "mean").read_bytes()
    assert list(soup.parent.iterdir()) == [soup]


@pytest.mark.parametrize("is_taken", [True, False])
def test_each_ingredient_is_read_once_and_once_more_if_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    paths, reads = unit_vectors(tmp_path, 7), Counter[Path]()
    real_read = StoredWeights.read

    def counted(self: StoredWeights, name: str, part: slice) -> Tensor:
        reads[self.path] += 1
        return real_read(self, name, part)

    monkeypatch.setattr(StoredWeights, "read", counted)
    answers = iter(range(7))
    metric = "validation.accuracy" if is_taken else "validation.loss"
    greedy_soup(paths, lambda _: float(next(answers)), metric, tmp_path / "soup")
    assert list(reads.values()) == ([2] * 6 + [1] if is_taken else [2] + [1] * 6)


def test_a_candidate_whose_worth_is_no_number_is_not_taken(tmp_path: Path) -> None:
    answers = iter([0.5, math.nan, 0.5, math.nan])
    paths = unit_vectors(tmp_path, 4)
    chosen, _ = greedy_soup(paths, lambda _: next(answers), "validation.loss", tmp_path / "soup")
    assert chosen == (0, 2)


def test_a_soup_that_was_cut_off_leaves_nothing_and_can_be_made_again(tmp_path: Path) -> None:
    paths, folder = unit_vectors(tmp_path, 3), tmp_path / "soup"

    def killed(path: Path) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        greedy_soup(paths, killed, "validation.loss", folder)
    assert list(folder.iterdir()) == []
    leftover = folder / ".greedy_soup.tmp"
    leftover.mkdir()
    (leftover / "sum").write_bytes(b"of another life")
    assert is_temporary(leftover)
    chosen, soup = greedy_soup(paths, lambda _: 0.0, "validation.loss", folder)
    assert chosen == members(soup) == (0, 1, 2)
    assert list(folder.iterdir()) == [soup]
