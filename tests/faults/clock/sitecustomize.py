"""On the PYTHONPATH of a start, this makes its clock wrong by what a file says: all its processes import it first.

libfaketime, which would do so for any process, spins in the waits of Python's threads: a start under it never trains.
"""

import os
import time
from pathlib import Path

_right, _right_ns = time.time, time.time_ns


def _wrong_by() -> float:
    return float(Path(os.environ["FAULTS_CLOCK"]).read_text() or 0)


if "FAULTS_CLOCK" in os.environ:  # pytest imports every file in search of examples
    time.time = lambda: _right() + _wrong_by()
    time.time_ns = lambda: _right_ns() + int(_wrong_by() * 1e9)
