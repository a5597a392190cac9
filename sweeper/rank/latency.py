"""How long a model takes for one example on this machine's CPU, measured once."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from sweeper.catalog import TrialRow, WeightsRow
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

            weights = self._folder.fetch(row.path, row.sha256)
            recipe = Recipe.model_validate_json(json.dumps(trial.recipe))
            self._found[row.sha256] = round(latency_of_weights(recipe, weights) * 1000.0, 4)
            self._write()
        return self._found[row.sha256]

    def _write(self) -> None:
        found = _read(self._file)
        found[platform.node()] = found.get(platform.node(), {}) | self._found
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # Two may measure at once: each writes under a name of its own.
        handle, beside = tempfile.mkstemp(dir=self._file.parent, prefix=f".{self._file.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(found, file, indent=2)
            Path(beside).replace(self._file)
        finally:
            Path(beside).unlink(missing_ok=True)


def _read(file: Path) -> dict[str, dict[str, float]]:
    """Milliseconds by machine and digest of the weights; nothing where the file was damaged: it is measured again."""
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    machines = found.items() if isinstance(found, dict) else ()
    return {machine: _numbers(of_weights) for machine, of_weights in machines if isinstance(of_weights, dict)}


def _numbers(of_weights: dict[str, Any]) -> dict[str, float]:
    return {sha256: number for sha256, number in of_weights.items() if isinstance(number, float)}
