"""The folder of a study, wherever its files are."""

from __future__ import annotations

from sweeper.settings import Settings
from sweeper.study_folder import StudyFolder


def open_folder(settings: Settings, name: str) -> StudyFolder:
    """The folder of the study of that name: below the home alone, or in the store.

    Raises:
        StudyError: the name is none that a study can have.
    """
    if not settings.store:
        return StudyFolder(settings.home, name)
    from sweeper.store.store import Store
    from sweeper.store.study import StoredStudyFolder

    return StoredStudyFolder(settings.home, name, Store(settings.store))
