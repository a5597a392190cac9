from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from sweeper.in_process import InProcessWorkers
from sweeper.runner import Interrupted, Job, Reported, Runner
from trials.checkpoint import TrialFolder
from trials.recipe import Recipe

PATIENCE_SECONDS = 60.0


def _job(folder: Path, fakes: Path) -> Job:
    recipe = Recipe.model_validate({"data": {"source": "digits"}, "model": {"build": "linear"}})
    return Job(3, recipe.model_dump_json(), str(folder), (str(fakes),))


def test_ctrl_c_while_a_trial_is_waited_for_lets_it_save(tmp_path: Path, fakes: Path) -> None:
    workers = InProcessWorkers("endless_training:until_asked")
    workers.submit(_job(tmp_path, fakes))
    assert isinstance(workers.wait(PATIENCE_SECONDS), Reported)
    workers.answer(3, keep_going=True)

    def is_waiting() -> bool:
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        return frame.f_code is Runner.next_event.__code__ and (tmp_path / "in-epoch-2").exists()

    def press_ctrl_c() -> None:
        while not is_waiting():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press_ctrl_c, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        workers.wait(PATIENCE_SECONDS)
    assert workers.free == 0
    workers.interrupt()
    assert workers.wait(PATIENCE_SECONDS) == Interrupted(3)
    assert workers.free == 1
    workers.close()


def test_a_report_that_nobody_answered_does_not_keep_a_trial_from_saving(tmp_path: Path, fakes: Path) -> None:
    workers = InProcessWorkers("fake_training:instant")
    workers.submit(_job(tmp_path, fakes))
    reports = [workers.wait(PATIENCE_SECONDS)]
    workers.interrupt()
    workers.answer(3, keep_going=False)  # too late: the trial would be pruned
    assert workers.wait(PATIENCE_SECONDS) == Interrupted(3)
    workers.submit(_job(tmp_path, fakes))
    reports.append(workers.wait(PATIENCE_SECONDS))
    assert isinstance(reports[0], Reported)
    assert reports[0] == reports[1], "it tells of it again"
    workers.close()


def test_a_killed_trial_leaves_its_slot_and_its_folder(tmp_path: Path, fakes: Path) -> None:
    workers = InProcessWorkers("endless_training:hangs")
    workers.submit(_job(tmp_path, fakes))
    assert isinstance(workers.wait(PATIENCE_SECONDS), Reported)
    workers.answer(3, keep_going=True)
    assert workers.wait(0.01) is None
    workers.kill(3)
    assert workers.free == 1
    assert workers.wait(0.01) is None, "nothing more is heard of it"
    with TrialFolder(tmp_path).owned(patience_seconds=0):
        pass
    workers.close()
