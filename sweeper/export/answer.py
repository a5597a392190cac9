"""The fresh process that asks a pulled model: ``python -m sweeper.export.answer FORM FOLDER EXAMPLES ANSWERS``.

EXAMPLES is an array in a .npy file or a table in a .parquet file; ANSWERS is the .npy file to write.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from sweeper.export.forms import FORMS


def main(form: str, folder: str, examples: str, answers: str) -> None:
    """Ask, and write down what was answered."""
    np.save(answers, FORMS[form].ask(Path(folder), _read(examples)))


def _read(examples: str) -> Any:
    if not examples.endswith(".parquet"):
        return np.load(examples)
    import pandas as pd

    return pd.read_parquet(examples)


if __name__ == "__main__":
    main(*sys.argv[1:])
