"""What `SWEEPER_STORE` may be."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from sweeper.errors import StudyError

VARIABLE = "SWEEPER_STORE"
_ADDRESS = re.compile(r"(?P<protocol>[a-z][a-z0-9]*)://(?P<place>[^\s?#]+)")
_OF_ONE_PROCESS = ("memory", "local", "data", "reference", "cached", "filecache", "simplecache", "blockcache", "dask")
"""Protocols of fsspec whose files are none that another machine sees."""
_EXTRAS = {"s3": ".[s3]", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


def check_address(text: str) -> str:
    """The address of a store without the slash at its end.

    >>> check_address("s3://bucket/sweeps/")
    's3://bucket/sweeps'

    Raises:
        StudyError: it is no address, holds a password, or names something for which a package is missing.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise StudyError(f"{VARIABLE}: found {_shown(text)!r}, expected the address of a bucket, as s3://bucket/prefix")
    protocol, place = found["protocol"], found["place"].rstrip("/")
    if "@" in place.partition("/")[0]:
        raise StudyError(
            f"{VARIABLE}: found a user or password in {_shown(text)!r}, expected none there; give them to the library "
            "by its own variables, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not place or ".." in PurePosixPath(place).parts or (protocol == "file" and not place.startswith("/")):
        raise StudyError(
            f"{VARIABLE}: found {text!r}, expected a bucket (s3://bucket/prefix) or a whole path (file:///mnt/sweeps)"
        )
    _check_package(protocol)
    return f"{protocol}://{place}"


def _check_package(protocol: str) -> None:
    import fsspec

    known = sorted(set(fsspec.available_protocols()) - set(_OF_ONE_PROCESS))
    if protocol not in known:
        raise StudyError(
            f"{VARIABLE}: found {protocol}://, expected one of those that fsspec knows: {', '.join(known)}"
        )
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        package = _EXTRAS.get(protocol)
        remedy = f"install it with: pip install '{package}'" if package else str(error)
        raise StudyError(f"{VARIABLE}: {protocol}:// needs a package that is not installed; {remedy}") from error


def _shown(text: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", text)
