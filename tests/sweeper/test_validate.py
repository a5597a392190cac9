from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from sweeper.errors import StudyError
from sweeper.study import load_study

MISTAKEN = """\
study: mistaken
data: {source: digits}
model: {build: mlp, widht: 3}
train:
  epochs: 4
  batch_size: {choice: [32, 64, 128]}
  precision: {choice: [fp32, bf16]}
"""


def test_what_a_recipe_may_be_is_worked_out_once_for_all_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    build = BaseModel.model_json_schema.__func__

    def counted(model: type[BaseModel], *arguments: Any, **keywords: Any) -> dict[str, Any]:
        asked[model.__name__] += 1
        return build(model, *arguments, **keywords)

    monkeypatch.setattr(BaseModel, "model_json_schema", classmethod(counted))
    (tmp_path / "study.yaml").write_text(MISTAKEN)
    with pytest.raises(StudyError) as caught:
        load_study(tmp_path / "study.yaml")
    assert "3:21: model.widht: found unknown key" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert set(asked.values()) <= {1}
