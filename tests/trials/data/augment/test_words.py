"""What holds for every augmentation of texts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_images import image_splits, seeded
from small_texts import text_splits, words_of

from trials.data import Splits
from trials.data.augment import Augmentation
from trials.errors import DataError
from trials.recipe import Data

TEXTS = ["one two three four five six seven eight", "film movie", "six"]
SECTIONS: dict[str, dict[str, Any]] = {
    "random_deletion": {"probability": 0.5},
    "random_swap": {"share": 0.5},
    "random_insertion": {"share": 0.5},
    "synonym_replacement": {"probability": 0.5},
    "back_translation": {"there": "translators:there", "back": "translators:back"},
}
EVERY = pytest.mark.parametrize("name", SECTIONS)


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("synonyms.txt").write_text("one,two,three\nfilm,movie\nfive,six,seven,eight", encoding="utf-8")


def augmentation(name: str, splits: Splits) -> Augmentation:
    table = {"table": "synonyms.txt"} if "synonym" in name or "insertion" in name else {}
    section = {"name": name, **SECTIONS[name], **table}
    return Augmentation(Data.model_validate({"source": "csv:x", "augment": [section]}), splits)


@EVERY
def test_each_text_is_changed_by_draws_of_its_own_from_the_passed_generator(name: str) -> None:
    splits = text_splits(TEXTS)
    rows = torch.zeros(64, dtype=torch.int64)
    ids, before = splits.train.inputs[rows], torch.get_rng_state()
    untouched, augment = ids.clone(), augmentation(name, splits)
    first = augment(ids, rows, seeded(1))
    assert torch.equal(first, augment(ids, rows, seeded(1)))
    assert not torch.equal(first, augment(ids, rows, seeded(2)))
    assert len(first.unique(dim=0)) >= (2 if name == "back_translation" else 8)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(ids, untouched)
    assert first.dtype == ids.dtype
    assert first.shape == ids.shape


@EVERY
def test_every_text_keeps_a_word_and_its_padding_behind(name: str) -> None:
    splits = text_splits(TEXTS)
    rows = torch.arange(3).repeat(100)
    assert all(words_of(augmentation(name, splits)(splits.train.inputs[rows], rows, seeded())))


@EVERY
def test_images_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=rf"^data.augment: {name} needs texts, but the data has image; leave it out$"):
        augmentation(name, image_splits(torch.rand(9, 1, 4, 4)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@EVERY
def test_a_gpu_changes_texts_as_the_host_does(name: str) -> None:
    splits = text_splits(TEXTS)
    rows = torch.arange(3).repeat(50)
    augment = augmentation(name, splits)
    ids = splits.train.inputs[rows]
    # The host's generator serves both, so that both draw the same numbers; a GPU's own is used in training.
    assert torch.equal(augment(ids.cuda(), rows.cuda(), seeded()).cpu(), augment(ids, rows, seeded()))
    assert augment(ids.cuda(), rows.cuda(), torch.Generator("cuda").manual_seed(0)).is_cuda
