"""Seeds: every random number of a trial follows from the recipe's seed and the place where it is drawn.

Everything is seeded anew at the start of each epoch. So a trial that was killed after any epoch continues bit for bit
without a saved random state, and what ran before in the same process makes no difference. Only a trial that is asked to
stop in the midst of an epoch saves where its draws stand.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # deriving a seed loads no torch: the orchestrator does it for every trial
    import torch


def derive_seed(seed: int, *place: str | int) -> int:
    """A seed in [0, 2**63) for one place in the program; another place, or another seed, gives an unrelated one.

    >>> derive_seed(0, "epoch", 1) == derive_seed(0, "epoch", 1) != derive_seed(0, "epoch", 2)
    True
    """
    digest = hashlib.sha256(json.dumps([seed, *place]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device, seed: int, *place: str | int) -> torch.Generator:
    """A generator on ``device``, seeded for one place in the program."""
    import torch

    return torch.Generator(device).manual_seed(derive_seed(seed, *place))


def seed_global_state(device: torch.device, seed: int, *place: str | int) -> None:
    """Seed what cannot be handed a generator: dropout, initialisers, and a user's own code (torch, numpy, random).

    Only the CPU and ``device`` are seeded, because only these are put back by :func:`kept_random_state`.
    """
    import torch

    derived = derive_seed(seed, *place)
    torch.default_generator.manual_seed(derived)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(derived)
    np.random.seed(derived % 2**32)
    random.seed(derived)


def random_state(device: torch.device) -> dict[str, Any]:
    """Where what :func:`seed_global_state` seeds stands now, as tensors, numbers and lists."""
    import torch

    numpy_state: Any = np.random.get_state()
    _, words, place, has_gauss, gauss = numpy_state
    version, words_of_python, gauss_of_python = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [torch.from_numpy(words.astype(np.int64)), place, has_gauss, gauss],
        "python": [version, list(words_of_python), gauss_of_python],
    }


def set_random_state(device: torch.device, state: dict[str, Any]) -> None:
    """The inverse of :func:`random_state`."""
    import torch

    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    words, place, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", words.numpy().astype(np.uint32), place, has_gauss, gauss))
    version, words_of_python, gauss_of_python = state["python"]
    random.setstate((version, tuple(words_of_python), gauss_of_python))


@contextlib.contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Leave the random state of torch, numpy and ``random`` as it was found, on the CPU and on ``device``."""
    import torch

    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
