from pathlib import Path

import pytest
import torch
import translators
from small_images import seeded
from small_texts import text_splits

from trials.data.augment.back_translation import build_back_translation
from trials.recipe import BackTranslation

TEXTS = ["film le", "again movie", "actor", ""]


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    translators.asked.clear()
    translators.killed_at_batch.clear()


def section(probability: float) -> BackTranslation:
    return BackTranslation(
        name="back_translation", there="translators:there", back="translators:back", probability=probability
    )


def test_texts_are_replaced_by_their_own_translations_with_its_odds() -> None:
    splits = text_splits(TEXTS)
    translated = splits.preprocess([f"le {text} again" for text in TEXTS]).int()  # in the words of the training split
    assert translated[0].tolist() != splits.train.inputs[0].tolist()
    rows = torch.arange(8000) % 4
    ids = splits.train.inputs[rows]
    changed = build_back_translation(section(0.3), splits)(ids, rows, seeded())
    replaced = (changed != ids).any(dim=1)
    assert torch.equal(changed, torch.where(replaced[:, None], translated[rows], ids))
    assert abs(int(replaced.sum()) - 2400) < 4 * (8000 * 0.3 * 0.7) ** 0.5
    assert changed.dtype == torch.int32
    assert translators.asked == [TEXTS]  # once, although each text came 2000 times


def test_at_the_ends_all_or_none_are_replaced() -> None:
    splits = text_splits(TEXTS)
    rows = torch.tensor([2, 0])
    ids = splits.train.inputs[rows]
    everything = build_back_translation(section(1.0), splits)(ids, rows, seeded())
    assert torch.equal(everything, splits.preprocess(["le actor again", "le film le again"]).int())
    assert torch.equal(build_back_translation(section(0.0), splits)(ids, rows, seeded()), ids)
