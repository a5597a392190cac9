"""From raw examples to what the network sees: fixed numbers, taken from the training split only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trials.data.pictures import picture_array, resize

Raw = np.ndarray | Image.Image | Sequence[Any]

_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class InputSpec:
    """What a model is given: what build_model needs to know of the data."""

    kind: Literal["image", "features", "text"]
    shape: tuple[int, ...]
    """(C, H, W) of an image, (F,) of features (of a table too), (max_tokens,) of a text."""
    vocabulary_size: int = 0
    """Text: token ids are below this; 0 is padding, 1 the unknown word."""

    def example(self, count: int = 2) -> Tensor:
        """``count`` examples of zeros, (count, *shape), as a model takes them."""
        return torch.zeros(count, *self.shape, dtype=torch.int64 if self.kind == "text" else torch.float32)


class Preprocess(ABC):
    """What turns raw examples into the model's input, wherever the model is used. Plain data, which travels as JSON."""

    kind: Any
    """Names the subclass in JSON: a key of ``_READERS``, to which each subclass adds itself."""
    _READERS: ClassVar[dict[str, Callable[[dict[str, Any]], Preprocess]]] = {}

    @property
    @abstractmethod
    def spec(self) -> InputSpec:
        """What the model is given."""

    @abstractmethod
    def normalise(self, batch: Tensor) -> Tensor:
        """Examples as a split holds them (N, ...) -> the model's input (N, *spec.shape), on the same device."""

    @abstractmethod
    def __call__(self, raw: Any) -> Tensor:
        """Raw examples as the source gave them -> the model's input (N, *spec.shape), on the host."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the key ``kind``."""

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Preprocess:
        """The inverse of :meth:`to_dict`."""
        return Preprocess._READERS[values["kind"]](values)

    @abstractmethod
    def describe_raw(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Dtype and shape of one raw example, with -1 for sides that may differ."""

    def columns(self) -> Sequence[tuple[str, str]] | None:
        """Name and type (MLflow's) of each column that raw examples have, if they are rows of a table."""
        return None


@dataclass(frozen=True)
class ArrayPreprocess(Preprocess):
    """``(raw / scale - mean) / std`` per channel or feature, after resizing pictures to ``image_size``.

    Numbers only, so that it travels as JSON with the weights and gives the same tensor wherever they are used.
    """

    kind: Literal["image", "features"]
    shape: tuple[int, ...]
    """(C, H, W) of an image, (F,) of features."""
    scale: float
    """255 for uint8 data, else 1."""
    mean: tuple[float, ...]
    """Of the scaled training split: one number per channel, or per feature."""
    std: tuple[float, ...]
    """Population standard deviation, likewise; 1 where the training split does not vary."""
    image_size: int | None = None
    """Side in pixels to which images of another size are resized."""
    _constants: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def fit(cls, inputs: Tensor, image_size: int | None = None) -> ArrayPreprocess:
        """Measure the training split: (N, C, H, W) images or (N, F) features, uint8 or float32, on the host."""
        scale = 255.0 if inputs.dtype == torch.uint8 else 1.0
        mean, std = _moments(inputs)
        # A spread below the resolution of float32 is rounding, not information: dividing by it would make noise.
        flat = std <= mean.abs() * torch.finfo(torch.float32).eps
        return cls(
            kind="image" if inputs.ndim == 4 else "features",
            shape=tuple(inputs.shape[1:]),
            scale=scale,
            mean=tuple((mean / scale).tolist()),
            std=tuple(torch.where(flat, 1.0, std / scale).tolist()),
            image_size=image_size if inputs.ndim == 4 else None,
        )

    @property
    def spec(self) -> InputSpec:
        return InputSpec(self.kind, self.shape)

    def normalise(self, batch: Tensor) -> Tensor:
        """Raw (N, *shape) of any dtype and device -> float32 (N, *shape) on that device."""
        constants = self._constants.get(batch.device)
        if constants is None:
            constants = self._constants[batch.device] = self._make_constants(batch.device)
        centre, factor = constants
        # Subtract first: far from zero, `x * factor + shift` would cancel all its digits away.
        return batch.sub(centre).mul_(factor)

    def __call__(self, raw: Raw) -> Tensor:
        """Raw examples -> float32 (N, *shape) on the host, ready for the model.

        ``raw`` is an array as the source gave it, of one example or a batch ((H, W), (N, H, W), (H, W, C),
        (N, H, W, C), (F,), (N, F)), a PIL image, a list of arrays or PIL images, or nested lists of numbers.
        Raises ``ValueError`` in one line when the shape does not fit.
        """
        if isinstance(raw, (list, tuple)) and any(isinstance(item, (np.ndarray, Image.Image)) for item in raw):
            return torch.cat([self(item) for item in raw])
        array = self._picture(raw) if isinstance(raw, Image.Image) else np.asarray(raw)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"found values of type {array.dtype}, expected numbers")
        if array.dtype != np.uint8:
            array = array.astype(np.float32)
        batch = self._image_batch(array) if self.kind == "image" else self._feature_batch(array)
        return self.normalise(batch)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        values = {name: getattr(self, name) for name in ("kind", "shape", "scale", "mean", "std", "image_size")}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def read(cls, values: dict[str, Any]) -> ArrayPreprocess:
        """The inverse of :meth:`to_dict`."""
        lists = {name: tuple(values[name]) for name in ("shape", "mean", "std")}
        return cls(**(values | lists))

    def describe_raw(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        given: tuple[int, ...] = self.shape
        if self.kind == "image":
            channels, *sides = self.shape
            sides = [-1, -1] if self.image_size is not None else sides
            given = (*sides, channels) if channels > 1 else tuple(sides)
        return np.dtype(np.uint8 if self.scale == 255.0 else np.float32), given

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).read, (self.to_dict(),)  # without the constants, which may live on a GPU

    def _make_constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = torch.tensor(self.mean, dtype=torch.float64), torch.tensor(self.std, dtype=torch.float64)
        shape = (-1, 1, 1) if self.kind == "image" else (-1,)
        centre, factor = (mean * self.scale).view(shape), (1.0 / (std * self.scale)).view(shape)
        return centre.to(device, torch.float32), factor.to(device, torch.float32)

    def _picture(self, picture: Image.Image) -> np.ndarray:
        if self.kind != "image" or self.shape[0] not in (1, 3):
            raise ValueError(f"found a picture, expected {self._expected()}")
        return picture_array(picture, channels=self.shape[0])

    def _image_batch(self, array: np.ndarray) -> Tensor:
        channels, height, width = self.shape
        original = array
        if channels == 1 and array.ndim >= 2 and not (array.ndim >= 3 and array.shape[-1] == 1):
            array = array[..., None]
        if array.ndim == 3:
            array = array[None]
        fits = array.ndim == 4 and array.shape[3] == channels
        if not fits or (self.image_size is None and array.shape[1:3] != (height, width)):
            raise ValueError(f"found an array of shape {original.shape}, expected {self._expected()}")
        batch = torch.from_numpy(np.require(array, requirements=["C", "W"])).permute(0, 3, 1, 2)
        return batch if self.image_size is None else resize(batch, self.image_size)

    def _feature_batch(self, array: np.ndarray) -> Tensor:
        batch = array[None] if array.ndim == 1 else array
        if batch.ndim != 2 or batch.shape[1:] != self.shape:
            raise ValueError(f"found an array of shape {array.shape}, expected {self._expected()}")
        return torch.from_numpy(np.require(batch, requirements=["C", "W"]))

    def _expected(self) -> str:
        if self.kind == "features":
            return f"({self.shape[0]},) or (N, {self.shape[0]})"
        channels, height, width = self.shape
        size = f"{height}, {width}" if self.image_size is None else "H, W"
        last = f", {channels}" if channels > 1 else ""
        return f"({size}{last}) or (N, {size}{last})"


Preprocess._READERS |= {"image": ArrayPreprocess.read, "features": ArrayPreprocess.read}


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation per channel or feature, in float64."""
    if inputs.dtype == torch.uint8 and inputs.ndim == 4:
        return _moments_of_counts(inputs)
    over = (0, 2, 3) if inputs.ndim == 4 else (0,)
    count = inputs.numel() // inputs.shape[1]
    zero = torch.zeros(inputs.shape[1], dtype=torch.float64)
    mean = sum((part.double().sum(over) for part in torch.split(inputs, _ROWS_AT_A_TIME)), zero) / count
    centre = mean.view(-1, 1, 1) if inputs.ndim == 4 else mean
    squares = sum(((part.double() - centre).square().sum(over) for part in torch.split(inputs, _ROWS_AT_A_TIME)), zero)
    return mean, (squares / count).sqrt()


def _moments_of_counts(images: Tensor) -> tuple[Tensor, Tensor]:
    """The same from how often each of the 256 values occurs: exact, and a fifteenth of the time on CIFAR-10."""
    values = torch.arange(256, dtype=torch.float64)
    counts = torch.stack([torch.bincount(channel.reshape(-1), minlength=256) for channel in images.unbind(1)]).double()
    share = counts / counts.sum(1, keepdim=True)
    mean = (share * values).sum(1)
    return mean, (share * (values - mean[:, None]).square()).sum(1).sqrt()
