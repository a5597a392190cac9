"""Random changes to training examples, drawn anew for each example of a batch.

One file a technique: a pure function of a batch and a generator first, then ``build_...``, which turns the recipe's
section into an :data:`Apply` for the data at hand, or says why it cannot. Own tensor code where torchvision's random
transforms would draw once a batch and from the global generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Generator, Tensor

from trials.data.augment.affine import build_affine
from trials.data.augment.apply import Apply
from trials.data.augment.back_translation import build_back_translation
from trials.data.augment.color_jitter import build_color_jitter
from trials.data.augment.crop import build_random_crop
from trials.data.augment.custom import build_custom
from trials.data.augment.erasing import build_erasing
from trials.data.augment.flip import build_horizontal_flip, build_vertical_flip
from trials.data.augment.rand_augment import build_rand_augment
from trials.data.augment.random_deletion import build_random_deletion
from trials.data.augment.random_insertion import build_random_insertion
from trials.data.augment.random_swap import build_random_swap
from trials.data.augment.resized_crop import build_random_resized_crop
from trials.data.augment.rotation import build_rotation
from trials.data.augment.synonym_replacement import build_synonym_replacement
from trials.data.augment.trivial_augment import build_trivial_augment
from trials.data.splits import Splits
from trials.recipe import Data

AUGMENTS: dict[str, Callable[[Any, Splits], Apply]] = {
    "random_crop": build_random_crop,
    "random_resized_crop": build_random_resized_crop,
    "horizontal_flip": build_horizontal_flip,
    "vertical_flip": build_vertical_flip,
    "rotation": build_rotation,
    "affine": build_affine,
    "color_jitter": build_color_jitter,
    "erasing": build_erasing,
    "rand_augment": build_rand_augment,
    "trivial_augment": build_trivial_augment,
    "random_deletion": build_random_deletion,
    "random_swap": build_random_swap,
    "random_insertion": build_random_insertion,
    "synonym_replacement": build_synonym_replacement,
    "back_translation": build_back_translation,
    "custom": build_custom,
}


class Augmentation:
    """``data.augment`` of a recipe, ready for batches of the training split.

    Raises ``DataError`` in one line for an augmentation that does not fit the data.
    """

    def __init__(self, data: Data, splits: Splits) -> None:
        self._steps = [AUGMENTS[section.name](section, splits) for section in data.augment]

    def __bool__(self) -> bool:
        return bool(self._steps)

    def __call__(self, inputs: Tensor, rows: Tensor, generator: Generator) -> Tensor:
        """Change ``inputs`` (N, ...), the examples ``rows`` (N,) of the training split, in the recipe's order."""
        for step in self._steps:
            inputs = step(inputs, rows, generator)
        return inputs
