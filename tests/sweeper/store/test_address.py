from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sweeper.cli import main
from sweeper.errors import StudyError
from sweeper.store.address import check_address


@pytest.mark.parametrize(
    ("text", "address"),
    [("s3://bucket", "s3://bucket"), ("s3://b/a/c//", "s3://b/a/c"), ("file:///mnt/x/", "file:///mnt/x")],
)
def test_an_address_is_taken(text: str, address: str) -> None:
    assert check_address(text) == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bucket/prefix", "SWEEPER_STORE: found 'bucket/prefix', expected the address of a bucket, as s3://bucket/"),
        ("s3://bucket/a b", "SWEEPER_STORE: found 's3://bucket/a b', expected the address of a bucket"),
        ("s3://", "SWEEPER_STORE: found 's3://', expected the address"),
        ("s3://bucket?key=x", "SWEEPER_STORE: found 's3://bucket?key=x', expected the address"),
        ("s3://b/../c", "SWEEPER_STORE: found 's3://b/../c', expected a bucket (s3://bucket/prefix) or a whole path"),
        ("file://mnt/x", "SWEEPER_STORE: found 'file://mnt/x', expected a bucket (s3://bucket/prefix) or a whole path"),
        ("s3://ada:secret@bucket/p", "SWEEPER_STORE: found a user or password in 's3://***@bucket/p', expected none"),
        ("s4://bucket", "SWEEPER_STORE: found s4://, expected one of those that fsspec knows: abfs, "),
        ("memory://x", "SWEEPER_STORE: found memory://, expected one of those that fsspec knows: abfs, "),
        ("gs://bucket", "SWEEPER_STORE: gs:// needs a package that is not installed; install it with: pip install 'gc"),
    ],
)
def test_what_is_none_is_one_line(text: str, said: str) -> None:
    with pytest.raises(StudyError) as caught:
        check_address(text)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_command_says_so_before_it_does_anything(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPER_STORE", "s3:/bucket")
    done = CliRunner().invoke(main, ["list"])
    assert (done.exit_code, done.output) == (
        2,
        "error: SWEEPER_STORE: found 's3:/bucket', expected the address of a bucket, as s3://bucket/prefix\n",
    )
    assert list(home.iterdir()) == []
