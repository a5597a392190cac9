"""Names, files and addresses from elsewhere: nothing runs, nothing leaves its place, no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sweeper.catalog.database import store_error
from sweeper.cli import main
from sweeper.errors import StoreError, StudyError
from sweeper.settings import without_password
from sweeper.study_folder import StudyFolder
from sweeper.yaml_reader import YamlFault, read_yaml

OUTSIDE = ["../x", "..", ".", "", "/etc", "a/b", "a\\b", "a\0b", "a..b", "~", "a\n", ".hidden", "-o"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_study_cannot_leave_the_home(name: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="as the name of a study, expected letters") as caught:
        StudyFolder(tmp_path, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [["pull"], ["rm"], ["show"]], ids=lambda words: words[0])
def test_a_command_for_a_study_outside_touches_nothing(command: list[str], tmp_path: Path) -> None:
    kept = tmp_path / "home" / "x" / "kept"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    result = CliRunner().invoke(main, ["--home", str(tmp_path / "home"), *command, "../x"])
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    assert kept.read_text() == "mine"


@pytest.mark.parametrize(
    "path", ["../other/trials/0001/weights/raw.safetensors", "/etc/passwd", "a/../../../x", "a\0b", "", "."]
)
def test_a_file_of_the_catalog_lies_below_its_study(path: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected one below"):
        StudyFolder(tmp_path, "digits").file(path)


def test_a_file_of_the_catalog_is_found_where_it_was_named(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "digits")
    assert folder.file(folder.named(7, "weights/raw.safetensors")) == folder.trial(7) / "weights" / "raw.safetensors"


def test_a_tag_of_python_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    document = read_yaml(f"study: !!python/object/apply:os.mkdir ['{mark}']")
    assert document.data == {"study": None}
    assert "found the tag '!!python/object/apply:os.mkdir'" in document.faults[0].message
    assert not mark.exists()


def laughs(pattern: str) -> str:
    """Ten levels of sections, each of ten times the one before, by aliases."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {pattern.format(', '.join([f'*a{n - 1}'] * 10))}" for n in range(1, 11)]
    return "\n".join(lines)


@pytest.mark.parametrize("pattern", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merged"])
def test_aliases_of_aliases_end_in_one_line(pattern: str) -> None:
    with pytest.raises(YamlFault, match="found more than 100000 values, expected a study"):
        read_yaml(laughs(pattern))


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{a: " * 5_000 + "}" * 5_000, "- " * 60 + "x"])
def test_deep_nesting_ends_in_one_line(text: str) -> None:
    with pytest.raises(YamlFault) as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value)
    assert "nested deeper than 50" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://ada:HUSH@db:5432/sweeper", "postgresql+psycopg://ada:***@db:5432/sweeper"),
        ("postgresql://ada:HUSH@HUSH@db/sweeper", "postgresql://ada:***@db/sweeper"),
        ("postgresql://ada:HU/SH@db/sweeper", "postgresql://ada:***@db/sweeper"),
        ("redis://:HUSH@db", "redis://:***@db"),
        ("https://HUSH@mlflow.example/api", "https://***@mlflow.example/api"),
        (
            "postgresql://db/sweeper?user=ada&password=HUSH&port=1",
            "postgresql://db/sweeper?user=ada&password=***&port=1",
        ),
        ("https://x.example/c?sv=1&sig=HUSH%3D", "https://x.example/c?sv=1&sig=***"),
        ("s3://bucket/x?AWS_SECRET_ACCESS_KEY=HUSH", "s3://bucket/x?AWS_SECRET_ACCESS_KEY=***"),
        ("two: a://u:HUSH@h and b://u:HUSH@h", "two: a://u:***@h and b://u:***@h"),
        ("host=db password=HUSH dbname=x", "host=db password=*** dbname=x"),
        ("http://127.0.0.1:5000/#/models", "http://127.0.0.1:5000/#/models"),
        ("sqlite:////home/ada/.sweeper/sweeper.db", "sqlite:////home/ada/.sweeper/sweeper.db"),
        ("models:/digits@champion", "models:/digits@champion"),
    ],
)
def test_secrets_in_addresses_are_hidden(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_what_a_database_says_of_its_address_holds_no_secret() -> None:
    said = store_error("postgresql://ada:HUSH@db/x", OSError('cannot parse "host=db password=HUSH"'))
    assert "HUSH" not in str(said)
    assert "database postgresql://ada:***@db/x" in str(said)
