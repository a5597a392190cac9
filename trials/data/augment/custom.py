"""A function of the user's own."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply
from trials.data.splits import Splits
from trials.errors import DataError
from trials.locate import locate, one_line
from trials.recipe import CustomAugment


def build_custom(section: CustomAugment, _splits: Splits) -> Apply:
    """The function that ``section`` names, whose answers are checked on each call.

    Raises ``DataError`` in one line: it cannot be imported or called, it fails, or it answers with something else than
    examples of the same shape, dtype and device.
    """
    where = f"data.augment: custom: {section.function}"
    try:
        function = locate(section.function)
    except ImportError as error:
        raise DataError(f"data.augment: custom: {error}") from error
    if not callable(function):
        raise DataError(f"{where} is {type(function).__name__}, expected a function")

    def apply(inputs: Tensor, _rows: Tensor, generator: Generator) -> Tensor:
        # A copy: the batch that other steps are given is never written to, whatever a user's function does.
        handed = inputs.clone()
        try:
            changed = function(handed, generator, **section.arguments)
        except (DataError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise DataError(f"{where}: raised {type(error).__name__}: {one_line(error)}") from error
        if not isinstance(changed, Tensor) or _kind(changed) != _kind(inputs):
            found = _kind(changed) if isinstance(changed, Tensor) else type(changed).__name__
            raise DataError(f"{where}: returned {found}, expected {_kind(inputs)}, as it was given")
        return changed

    return apply


def _kind(inputs: Tensor) -> str:
    return f"{str(inputs.dtype).removeprefix('torch.')} of shape {tuple(inputs.shape)} on {inputs.device}"
