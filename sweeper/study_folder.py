"""Every path of a study, in one place."""

from __future__ import annotations

import shutil
from pathlib import Path


class StudyFolder:
    """The folder of one study below a home: its file, its trials, its winner."""

    def __init__(self, home: Path, name: str) -> None:
        self.root = home / "studies" / name
        self.study_file = self.root / "study.yaml"
        """The study as it was started; workers look for it to know that they see this folder."""
        self.trials = self.root / "trials"
        self.winner = self.root / "winner"
        """What `sweeper pull` copies."""

    def trial(self, number: int) -> Path:
        """The folder of one trial; what is in it is `trials.checkpoint.TrialFolder`'s."""
        return self.trials / f"{number:04d}"

    def named(self, number: int, path: str) -> str:
        """A file of a trial as the catalog names it: relative to the study's folder.

        >>> StudyFolder(Path("/home"), "digits").named(7, "weights/ema.safetensors")
        'trials/0007/weights/ema.safetensors'
        """
        return (self.trial(number) / path).relative_to(self.root).as_posix()

    def remove_resume_points(self, number: int) -> None:
        """Remove what only a trial that goes on would need."""
        for name in ("checkpoints", "best"):
            shutil.rmtree(self.trial(number) / name, ignore_errors=True)

    def clear(self) -> None:
        """Remove all that the study left."""
        shutil.rmtree(self.root, ignore_errors=True)
