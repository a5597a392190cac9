import io
import sys
import threading
from pathlib import Path

import pytest
import translators

from trials.data import translations
from trials.data.translations import translate_there_and_back
from trials.errors import DataError

TEXTS = ["a", "b", "c", "d", "e"]
WHERE = "data.augment: back_translation"


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    translators.asked.clear()
    translators.killed_at_batch.clear()
    return tmp_path


def translated(
    texts: list[str], there: str = "translators:there", back: str = "translators:back", batch_size: int = 2
) -> list[str]:
    return translate_there_and_back(texts, there, back, batch_size, WHERE)


def expected(texts: list[str]) -> list[str]:
    return [f"le {text} again" for text in texts]


def test_each_text_goes_there_and_back_once_in_batches() -> None:
    assert translated(TEXTS) == expected(TEXTS)
    assert translators.asked == [["a", "b"], ["c", "d"], ["e"]]
    assert translated(TEXTS[::-1]) == expected(TEXTS[::-1])
    assert len(translators.asked) == 3
    assert translated(["b", "new", "b", "new"]) == expected(["b", "new", "b", "new"])
    assert translators.asked[3:] == [["new"]]


def test_what_was_translated_before_a_kill_is_not_translated_again() -> None:
    translators.killed_at_batch.append(1)
    with pytest.raises(KeyboardInterrupt):
        translated(TEXTS)
    translators.killed_at_batch.clear()
    assert translated(TEXTS) == expected(TEXTS)
    assert translators.asked == [["a", "b"], ["c", "d"], ["e"]]


def test_other_functions_have_answers_of_their_own() -> None:
    translated(TEXTS)
    assert translated(TEXTS, back="translators:there") == [f"le le {text}" for text in TEXTS]


def test_answers_of_a_pipeline_are_understood() -> None:
    assert translated(TEXTS, there="translators:pipeline") == expected(TEXTS)
    assert translated(TEXTS, there="translators:pipeline") == expected(TEXTS)


def test_any_text_survives_the_disk() -> None:
    strange = ["", "\N{SNOWMAN} \ud800", 'a "b"\n\\', "é"]
    assert translated(strange) == expected(strange)
    assert translated(strange) == expected(strange)
    assert sum(map(len, translators.asked)) == 4


def test_workers_that_start_together_translate_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"text {number}" for number in range(12)]
    answers: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(translated(texts, there="translators:slow_there")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected(texts)] * 4
    assert sorted(text for batch in translators.asked for text in batch) == sorted(texts)
    assert capsys.readouterr().err == ""  # all too quick for a word


def test_long_work_and_long_waits_are_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translations, "_SECONDS_BEFORE_A_WORD", 0.0)
    monkeypatch.setattr(translations, "_SECONDS_BETWEEN_LINES", 0.0)
    translated(TEXTS)
    assert capsys.readouterr().err.splitlines() == [f"{WHERE}: translated {done} of 5 texts" for done in (0, 2, 4)]
    translated(TEXTS)
    assert capsys.readouterr().err == ""

    begun, go_on = threading.Event(), threading.Event()
    folder = translations.data_folder() / "back-translation"

    def hold() -> None:
        with translations._one_at_a_time(next(folder.iterdir()), WHERE):
            begun.set()
            go_on.wait(60)

    class Told(io.StringIO):
        def write(self, text: str) -> int:
            go_on.set()  # whatever the second says, it says while the first holds the folder
            return super().write(text)

    told = Told()
    monkeypatch.setattr(sys, "stderr", told)
    first = threading.Thread(target=hold)
    first.start()
    assert begun.wait(10)
    translated(["f"])
    first.join()
    assert told.getvalue().splitlines()[0] == f"{WHERE}: waiting for another process that translates"


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        ("one_too_few", "returned 1 answers, expected a list of 2, one for each text"),
        ("joined", "returned str, expected a list of 2, one for each text"),
        ("numbers", "answered with int, expected a text or {'translation_text': text}"),
        ("summaries", "answered with a dict with summary_text, expected a text or {'translation_text': text}"),
        ("broken", "raised RuntimeError: no such language"),
        ("NOT_A_FUNCTION", "is str, expected a function"),
    ],
)
@pytest.mark.parametrize("way", ["there", "back"])
def test_what_does_not_translate_is_told(way: str, function: str, fault: str) -> None:
    with pytest.raises(DataError) as caught:
        translated(TEXTS, **{way: f"translators:{function}"})
    assert str(caught.value) == f"{WHERE}: {way}: translators:{function} {fault}"
    assert translated(TEXTS) == expected(TEXTS)


def test_a_function_that_is_not_there_is_told() -> None:
    with pytest.raises(DataError, match=rf"^{WHERE}: back: translators:bakc: translators has no 'bakc'; did you mean"):
        translated(TEXTS, back="translators:bakc")


def test_a_damaged_file_is_told(data: Path) -> None:
    translated(TEXTS)
    path = min(data.rglob("*.json"))
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(DataError) as caught:
        translated(TEXTS)
    assert str(caught.value) == f"{WHERE}: {path} is damaged; remove it, and its texts are translated anew"
