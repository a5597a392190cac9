"""How long a model takes for one example on this machine's CPU, measured once."""

from __future__ import annotations

import json
import platform
from pathlib import Path

from sweeper.catalog import TrialRow, WeightsRow
from sweeper.publish import check_digest
from sweeper.study_folder import StudyFolder
from trials.recipe import Recipe


class Latencies:
    """Those of a study's weights, kept in its folder; another machine's are not ours."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._file = folder.root / "latency.json"
        self._found = _read(self._file).get(platform.node(), {})

    def known(self, row: WeightsRow) -> float | None:
        """Milliseconds, if they were measured here before."""
        return self._found.get(row.sha256)

    def measured(self, row: WeightsRow, trial: TrialRow) -> float:
        """Milliseconds, measured now where they are not known.

        Raises:
            StoreError: the weights are gone or are not those the catalog knows.
            TrialError: the data is gone, which says what the model is given.
        """
        if row.sha256 not in self._found:
            from trials.latency import latency_of_weights

            weights = self._folder.file(row.path)
            check_digest(weights, row.sha256)
            recipe = Recipe.model_validate_json(json.dumps(trial.recipe))
            self._found[row.sha256] = round(latency_of_weights(recipe, weights) * 1000.0, 4)
            self._write()
        return self._found[row.sha256]

    def _write(self) -> None:
        beside = self._file.with_suffix(".tmp")
        beside.write_text(json.dumps({**_read(self._file), platform.node(): self._found}, indent=2), encoding="utf-8")
        beside.replace(self._file)


def _read(file: Path) -> dict[str, dict[str, float]]:
    """Milliseconds by machine and digest of the weights; nothing where the file was damaged: it is measured again."""
    try:
        found: dict[str, dict[str, float]] = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found
