"""Tensors as files: weights as safetensors, and state, of which no code is ever run."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from trials.errors import says_out_of_memory
from trials.manifest import Damaged, read_verified

Weights = Mapping[str, Tensor]


def packed_weights(weights: Weights, metadata: dict[str, str] | None = None) -> bytes:
    """Tensors, and texts about them, as a safetensors file. Tied tensors are stored once under each name."""
    # A copy on the host each: the format takes neither shared memory nor channels-last strides.
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
    return safetensors.torch.save(copies, metadata)


def unpacked_weights(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in a safetensors file, and the texts about them. Raises ``SafetensorError``."""
    weights = safetensors.torch.load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return weights, header.get("__metadata__", {})


def packed_state(state: Mapping[str, Any]) -> memoryview:
    """Tensors, numbers, strings, lists and dicts as a file."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getbuffer()


def read_weights(path: Path, expected: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file with that digest. Raises :class:`Damaged`."""
    content = read_verified(path, expected)
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise Damaged(path, "not weights") from error


def read_state(path: Path, expected: str) -> dict[str, Any]:
    """The state in a file with that digest, tensors on the host. Raises :class:`Damaged`, also for what would run."""
    content = read_verified(path, expected)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Damaged(path, "it holds more than tensors, numbers, texts, lists and dicts") from error
    except Exception as error:
        # What a forged file makes torch raise is anyone's guess; a lack of memory says nothing about the file.
        if says_out_of_memory(error):
            raise
        raise Damaged(path, "not a state") from error
    if not isinstance(state, dict):
        raise Damaged(path, "not a state")
    return state
