"""Weights from a file into a model and back, a part at a time: beside the model no second set of them is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from trials.average.stored import StoredWeights, as_bytes, in_memory
from trials.disk import sync, temporary_for

Parts = Iterator[tuple[str, slice, Tensor]]
"""Name, elements and values, as `trials.average.stored.combined` makes them."""


def parts_of(file: StoredWeights) -> Parts:
    """The tensors of a file as they are."""
    for name, stored in file.tensors.items():
        for part in stored.parts():
            yield name, part, file.read(name, part)


def fits(model: nn.Module, file: StoredWeights) -> bool:
    """Whether a file has the names and the shapes of the model's state."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return shapes == {name: stored.shape for name, stored in file.tensors.items()}


@torch.no_grad()
def fill(model: nn.Module, file: StoredWeights, parts: Parts) -> None:
    """Put ``parts``, of tensors as those of ``file``, in place of the model's state, which ``file`` fits."""
    state = model.state_dict(keep_vars=True)
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    if not all(id(tensor) in own for tensor in state.values()):
        # A user's model whose state is made of its parameters on demand: only the model can take it back.
        model.load_state_dict(in_memory(file, parts))
        return
    for name, part, values in parts:
        tensor = state[name]
        if tensor.is_contiguous():
            tensor.view(-1)[part].copy_(values)
        else:
            tensor.put_(_places(part, tensor), values.to(tensor))


def write_as(model: nn.Module, like: StoredWeights, out: Path) -> None:
    """Write the model's state as a file with the tensors of ``like``, which fits it; whole or not at all.

    Raises :class:`NoSpace` when the disk is full.
    """
    state = model.state_dict()
    with temporary_for(out) as temporary:
        with temporary.open("wb") as file:
            file.write(like.header)
            for name, stored in like.tensors.items():
                for part in stored.parts():
                    file.write(as_bytes(_part(state[name], part).to("cpu", stored.dtype)))
        sync(temporary)
        temporary.replace(out)
        sync(out.parent)


def _part(tensor: Tensor, part: slice) -> Tensor:
    """Elements of a tensor, in the order of its dimensions, wherever they lie in memory."""
    return tensor.view(-1)[part] if tensor.is_contiguous() else tensor.take(_places(part, tensor))


def _places(part: slice, tensor: Tensor) -> Tensor:
    return torch.arange(part.start, part.stop, device=tensor.device)
