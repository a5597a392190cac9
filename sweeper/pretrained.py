"""`models:/NAME@ALIAS` as a start: a registered model, fetched once for a study.

The version that an alias means at first stays that of the study, so that all its trials start alike, also when the
study goes on after the alias has moved. Trials are given the folder that it was fetched to.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeper import positions
from sweeper.beside import folder_beside
from sweeper.errors import StudyError
from sweeper.mlflow_client import connect, download_model, find_version, registered_models
from sweeper.paths import MODEL
from sweeper.settings import Settings, without_password
from sweeper.space import Space
from sweeper.study_folder import StudyFolder

PACKAGE = ("weights.safetensors", "recipe.json", "package.json")
"""The files of a model that sweeper registered."""
PINS = "pretrained.json"
"""Of a study: which versions of registered models its trials start from."""


@dataclass(frozen=True)
class Pin:
    """The very model that an address means to a study."""

    name: str
    version: str
    sha256: str
    """Of its weights."""


def with_fetched_models(space: Space, folder: StudyFolder, settings: Settings) -> Space:
    """The space with the folder of each registered model, below the home, in place of its address.

    Raises:
        StudyError: there is no such model, or it is none that sweeper registered, or not what it was.
        TrackingError: MLflow cannot be reached; it is asked only for what is not there yet.
    """
    pins = _read_pins(folder)
    places: dict[str, str] = {}

    def fetched(path: positions.Path, value: Any) -> Any:
        if path != ("model", "pretrained", "weights") or not isinstance(value, str) or not MODEL.fullmatch(value):
            return value
        if value not in places:
            places[value] = str(_fetch(value, pins, folder, settings))
        return places[value]

    mapped = space.map(fetched)
    if places:
        _write_pins(folder, pins)
    return mapped


def _fetch(address: str, pins: dict[str, Pin], folder: StudyFolder, settings: Settings) -> Path:
    """The folder of the model that ``address`` means; an address without a pin gets one."""
    pin = pins.get(address)
    name, version = (pin.name, pin.version) if pin is not None else _look_up(address, settings)
    place = settings.home / "pretrained" / f"{name}-v{version}"
    if not _is_whole(place):
        folder.bring_model(place)
    if not _is_whole(place):
        _download(address, name, version, place, settings)
    digest = _digest(place)
    assert digest is not None
    if pin is not None and digest != pin.sha256:
        raise StudyError(
            f"model.pretrained.weights: {address}: version {version} has weights of sha256 {digest[:12]}..., but the "
            f"study began with {pin.sha256[:12]}...; begin it anew under another name"
        )
    if pin is None:
        folder.keep_model(place)
    pins[address] = Pin(name, version, digest)
    return place


def _look_up(address: str, settings: Settings) -> tuple[str, str]:
    """Name and version of the model that ``address`` means now."""
    found = MODEL.fullmatch(address)
    assert found is not None
    client, name = connect(settings), found["name"]
    version = find_version(settings, client, name, alias=found["alias"], version=found["version"])
    if version is None:
        known = ", ".join(registered_models(settings, client)) or "none"
        where = without_password(settings.tracking_uri)
        raise StudyError(
            f"model.pretrained.weights: found {address!r}, which MLflow at {where} does not have; "
            f"registered there: {known}"
        )
    return name, version


def _download(address: str, name: str, version: str, place: Path, settings: Settings) -> None:
    """Put the model's package at ``place``, whole or not at all."""
    with folder_beside(place) as temporary:
        package = download_model(settings, name, version, temporary)
        if package is None or not all((package / file).is_file() for file in PACKAGE):
            raise StudyError(
                f"model.pretrained.weights: {address}: version {version} is no model that sweeper registered, "
                f"expected one with {', '.join(PACKAGE)}; give its weights as a file instead"
            )
        if _digest(package) != _said_digest(package):
            raise StudyError(
                f"model.pretrained.weights: {address}: the weights of version {version} are not those that its "
                "package.json describes (SHA-256 differs): the file was changed or damaged"
            )
        if place.exists():
            shutil.rmtree(place)  # left damaged
        package.replace(place)


def _is_whole(package: Path) -> bool:
    """Whether a package is there, with the weights that it describes."""
    return _digest(package) is not None and _digest(package) == _said_digest(package)


def _digest(package: Path) -> str | None:
    """SHA-256 of the weights in a package, if there is one."""
    weights = package / "weights.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None


def _said_digest(package: Path) -> str | None:
    """What its package.json says it should be."""
    description = package / "package.json"
    return str(json.loads(description.read_bytes())["weights_sha256"]) if description.is_file() else None


def _read_pins(folder: StudyFolder) -> dict[str, Pin]:
    found = folder.read(PINS)
    return {} if found is None else {address: Pin(**pin) for address, pin in json.loads(found).items()}


def _write_pins(folder: StudyFolder, pins: dict[str, Pin]) -> None:
    content = json.dumps({address: asdict(pin) for address, pin in pins.items()}, indent=2).encode()
    if folder.read(PINS) != content:
        folder.write(PINS, content)
