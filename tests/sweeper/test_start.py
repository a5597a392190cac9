from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from sweeper.catalog import Catalog
from sweeper.errors import StudyError, StudyFailed
from sweeper.settings import load_settings
from sweeper.start import start

STUDY = """\
study: small
data: {{source: "{source}"}}
model: {{build: linear}}
train: {{epochs: 1, optimizer: {{name: adam, lr: {{log: [0.001, {top}]}}}}}}
search: {{trials: 3, pruner: {{name: none}}}}
workers: {{concurrent: {concurrent}}}
"""


def _start(folder: Path, source: str = "digits", top: float = 0.1, concurrent: int = 1) -> tuple[int, str]:
    (folder / "study.yaml").write_text(STUDY.format(source=source, top=top, concurrent=concurrent))
    out = io.StringIO()
    code = start(folder / "study.yaml", load_settings(), Console(file=out, width=200), in_process=True)
    return code, out.getvalue()


def _trials(home: Path) -> list[tuple[int, str, float]]:
    catalog = Catalog(load_settings().database_url)
    trials = catalog.trials(catalog.study("small").id)
    catalog.close()
    return [(trial.number, trial.state, trial.started_at) for trial in trials]


@pytest.mark.slow
def test_a_mistake_mended_a_machine_changed_a_study_defended(home: Path, tmp_path: Path) -> None:
    """The life of one name: a wrong path, the right one, other workers, and a different study under the same name."""
    with pytest.raises(StudyFailed, match=r"all trials so far \(3\) failed alike: DataError: .*nowhere\.npz"):
        _start(tmp_path, source="npz:nowhere.npz")
    assert [state for _, state, _ in _trials(home)] == ["failed"] * 3
    with pytest.raises(StudyFailed, match=r"all trials so far \(3\) failed alike: DataError: .*nowhere\.npz"):
        _start(tmp_path, source="npz:nowhere.npz")  # tried again, not refused: the file might be there by now

    code, said = _start(tmp_path)
    assert code == 0
    assert "winner: " in said
    finished = _trials(home)
    assert [(number, state) for number, state, _ in finished] == [(0, "complete"), (1, "complete"), (2, "complete")]

    code, said = _start(tmp_path, concurrent=2)
    assert code == 0
    with closing(Catalog(load_settings().database_url)) as catalog:
        row = catalog.study("small")
    assert row.file == str(tmp_path / "study.yaml"), "for those who come without the file"
    assert row.import_paths == [str(tmp_path), str(Path.cwd())]
    assert "concurrent: 2" in row.text
    assert said.startswith("study 'small' is finished; nothing to start\n")

    with pytest.raises(StudyError, match=r"was started from a different file") as caught:
        _start(tmp_path, top=0.2)
    difference = str(caught.value).splitlines()
    assert "-train: {epochs: 1, optimizer: {name: adam, lr: {log: [0.001, 0.1]}}}" in difference
    assert "+train: {epochs: 1, optimizer: {name: adam, lr: {log: [0.001, 0.2]}}}" in difference
    assert _trials(home) == finished, "nothing was run and nothing was lost"
