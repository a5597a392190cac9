"""Weights that were trained before: find them, read them without running code, say how their inputs were normalised.

They are torchvision's, a file, or a folder that ``sweeper pull`` wrote.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from trials.data.preprocess import Preprocess
from trials.errors import ModelError
from trials.locate import locate, one_line
from trials.package import PACKAGE, WEIGHTS
from trials.recipe import Imported, Model, Pretrained
from trials.recipe.model import WEIGHTS_SUFFIXES, is_weights_path

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

KEY = "model.pretrained.weights"
"""Where the weights are named: each message begins with it."""

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""``denselayer1.norm.2.weight``: torchvision publishes under this name what its DenseNet calls ``norm2.weight``."""


def read_weights(model: Model) -> dict[str, Tensor]:
    """The tensors of ``model.pretrained.weights`` by name, on the host.

    A ``.pt`` or ``.pth`` file may hold them under ``state_dict`` or ``model``, and with the prefix of a data parallel
    model; no code in it is run. Raises :class:`ModelError` when they cannot be found, fetched or read.
    """
    assert model.pretrained is not None
    if is_weights_path(model.pretrained.weights):
        path = _existing(model.pretrained)
        return _named_tensors(path, _read(path / WEIGHTS if path.is_dir() else path))
    member = _member(model, model.pretrained.weights)
    return _named_tensors(Path(member.url), _fetch(member))


def weights_preprocess(model: Model) -> Preprocess | None:
    """How a package's weights were given their examples; None for weights of other origin."""
    if model.pretrained is None or not is_weights_path(model.pretrained.weights):
        return None
    if Path(model.pretrained.weights).suffix in WEIGHTS_SUFFIXES:
        return None  # a file brings nothing with it, and need not be there any more when its study is looked at
    path = _existing(model.pretrained)
    try:
        return Preprocess.from_dict(json.loads((path / PACKAGE).read_bytes())["preprocess"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(
            f"{KEY}: {path / PACKAGE}: cannot be read ({type(error).__name__}: {one_line(error)})"
        ) from error


def published_normalisation(model: Model) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std by which torchvision normalised images in [0, 1] for its weights; None for other weights.

    A file counts as torchvision's when the factory is and the file has the name under which torchvision publishes it.
    """
    if model.pretrained is None:
        return None
    if is_weights_path(model.pretrained.weights):
        name = Path(model.pretrained.weights).name
        found = [member for member in _members(model).values() if Path(member.url).name == name]
        member = found[0] if found else None
    else:
        member = _member(model, model.pretrained.weights)
    if member is None:
        return None
    transforms = member.transforms()
    if not (hasattr(transforms, "mean") and hasattr(transforms, "std")):
        return None
    return tuple(transforms.mean), tuple(transforms.std)


def _members(model: Model) -> dict[str, WeightsEnum]:
    """The weights that torchvision publishes for the factory of ``model``, by name, aliases included."""
    if not isinstance(model, Imported):
        return {}
    from torchvision.models import get_model_weights

    try:
        return dict(get_model_weights(locate(model.build)).__members__)
    except (ImportError, ValueError, TypeError):  # not a builder of torchvision's
        return {}


def _member(model: Model, name: str) -> WeightsEnum:
    from torchvision.models import get_weight

    if name.startswith("models:/"):
        raise ModelError(
            f"{KEY}: found {name}, which `sweeper start` fetches from MLflow; expected the folder of the fetched model"
        )
    members = _members(model)
    if name in members:
        return members[name]
    try:
        return get_weight(name)
    except (ValueError, KeyError, TypeError) as error:
        names = f"one of {', '.join(members)} (torchvision's for {model.build}), " if members else ""
        raise ModelError(
            f"{KEY}: found {name!r}, expected {names}a .safetensors, .pt or .pth file, a folder that `sweeper pull` "
            "wrote (with a / in its path), or models:/NAME@ALIAS"
        ) from error


def _fetch(member: WeightsEnum) -> Any:
    """The state that torchvision publishes, from torch hub's folder when it is there already."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name
    if path.is_file():
        return _read(path)
    try:
        return member.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{KEY}: {member} cannot be fetched ({type(error).__name__}: {one_line(error)}); "
            f"put {member.url} at {path} yourself"
        ) from error


def _existing(section: Pretrained) -> Path:
    path = Path(section.weights).expanduser()
    if path.is_dir():
        absent = [name for name in (WEIGHTS, PACKAGE) if not (path / name).is_file()]
        if absent:
            raise ModelError(f"{KEY}: {path} has no {absent[0]}, expected a folder that `sweeper pull` wrote")
    elif not path.is_file():
        raise ModelError(f"{KEY}: no file {path}")
    return path


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # whose words advise at length how to load the file unsafely
        raise ModelError(
            f"{KEY}: {path} holds more than tensors, or is damaged; expected what torch.save(model.state_dict(), path) "
            "writes"
        ) from error
    except Exception as error:
        raise ModelError(f"{KEY}: {path} is damaged ({type(error).__name__}: {one_line(error, 120)})") from error


def _named_tensors(path: Path, state: Any) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise ModelError(f"{KEY}: {path} holds {type(state).__name__}, expected tensors by name")
    for name, value in state.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise ModelError(f"{KEY}: {path} holds {type(value).__name__} under {name!r}, expected tensors by name")
    # In place, since torch keeps the versions of the modules as an attribute of the very object that it loaded.
    weights: dict[str, Tensor] = state  # type: ignore[assignment]
    consume_prefix_in_state_dict_if_present(weights, "module.")
    for name in [name for name in weights if _OLD_DENSENET.search(name)]:
        weights[_OLD_DENSENET.sub(r"\1\2.", name)] = weights.pop(name)
    return weights
