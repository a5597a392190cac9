"""A model to take away: one folder with weights, recipe and preprocessing, enough to predict from raw examples.

    weights.safetensors    the parameters and buffers
    recipe.json            how they were made, and with that the architecture
    package.json           classes, input shape, preprocessing, digest of the weights, versions
    code/                  the user's own modules that the recipe names, where there are any

MLflow serves the same folder: this module is its ``loader_module``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from trials.data import InputSpec, Preprocess, Splits, Target
from trials.disk import write_whole
from trials.ensemble_file import build_chosen
from trials.errors import TrialError
from trials.fit.loss import class_scores
from trials.locate import one_line, own_modules
from trials.model.build import build_model
from trials.recipe import Loss, Recipe
from trials.seed import kept_random_state
from trials.tensor_files import unpacked_weights

WEIGHTS, RECIPE, PACKAGE, CODE = "weights.safetensors", "recipe.json", "package.json", "code"


def write_package(
    folder: Path | str, recipe: Recipe, weights_path: Path | str, splits: Splits, modules: Iterable[Path] = ()
) -> None:
    """Make ``folder`` a package of the weights at ``weights_path``, trained by ``recipe`` on ``splits``.

    ``modules`` are files of Python that the recipe's own functions are in.
    """
    target, weights = Path(folder), Path(weights_path).read_bytes()
    description = {
        "target": splits.target.to_dict(),
        "preprocess": splits.preprocess.to_dict(),
        "data_sha256": splits.digest,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    write_whole(target / WEIGHTS, weights)
    write_whole(target / RECIPE, recipe.model_dump_json(indent=2).encode())
    write_whole(target / PACKAGE, json.dumps(description, indent=2).encode())
    for module in modules:
        write_whole(target / CODE / module.name, module.read_bytes())


def load_model(folder: Path | str, device: str | torch.device = "cpu") -> tuple[nn.Module, Preprocess]:
    """The model of a package, in eval mode on ``device``, and what turns raw examples into its input.

    In classification it gives scores (N, classes) whose softmax is the probabilities; in regression, values (N, 1) in
    units of the target. A model of a user's own is built by the module that the package brings along; where it brings
    none, that has to be importable. The caller's random state is left as it was. Raises :class:`TrialError` for a
    folder that is no package, or whose weights were changed, and :class:`ModelError` when the model cannot be built.

    In use, with images as the data source gave them::

        model, preprocess = load_model("my-model")
        probabilities = model(preprocess(images)).softmax(dim=1)
    """
    source = Path(folder)
    for name in (WEIGHTS, RECIPE, PACKAGE):
        if not (source / name).is_file():
            raise TrialError(f"{source}: no {name} found, expected a folder written by `sweeper pull`")
    weights = (source / WEIGHTS).read_bytes()
    with named_garbled(source):
        recipe = Recipe.model_validate_json((source / RECIPE).read_bytes())
        description = json.loads((source / PACKAGE).read_bytes())
        if hashlib.sha256(weights).hexdigest() != description["weights_sha256"]:
            raise TrialError(
                f"{source / WEIGHTS}: not the file that {PACKAGE} describes (SHA-256 differs); pull it again"
            )
        preprocess, target = Preprocess.from_dict(description["preprocess"]), Target.from_dict(description["target"])
        tensors, metadata = unpacked_weights(weights)
    with own_modules(source / CODE):
        model = model_of_file(recipe, preprocess.spec, target, tensors, metadata)
    return Answering(model, target, recipe.output_loss).eval().to(device), preprocess


@contextlib.contextmanager
def named_garbled(folder: Path) -> Iterator[None]:
    """Say in one line that the files of a package hold something else than `sweeper pull` writes."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise TrialError(
            f"{folder}: cannot be read as a package ({type(error).__name__}: {one_line(error)}); pull it again"
        ) from error


class Answering(nn.Module):
    """A trained model whose outputs mean what they say, whatever it was trained to minimise."""

    def __init__(self, model: nn.Module, target: Target, loss: Loss | None) -> None:
        super().__init__()
        self.model = model
        self.target = target
        self.loss = loss

    def forward(self, inputs: Tensor) -> Tensor:
        """The model's input (N, ...) -> scores (N, classes) for a softmax, or values (N, 1) in units of the target."""
        outputs: Tensor = self.model(inputs)
        if self.target.task == "regression":
            return outputs * self.target.std + self.target.mean
        return class_scores(outputs, self.loss)


def model_of_file(
    recipe: Recipe, spec: InputSpec, target: Target, weights: dict[str, Tensor], metadata: Mapping[str, str]
) -> nn.Module:
    """What a trial of ``recipe`` left in a file: one model, or all those of an ensemble as one, on the host.

    ``weights`` and ``metadata`` are what `trials.tensor_files.unpacked_weights` finds in the file. In eval mode. Raises
    what :func:`model_with_weights` raises.
    """
    if not recipe.makes_ensemble:
        return model_with_weights(recipe, spec, target.outputs, weights)
    with kept_random_state(torch.device("cpu")):
        model = build_chosen(recipe, spec, target, metadata)
    return _with_weights(model, "ensemble", weights)


def model_with_weights(recipe: Recipe, spec: InputSpec, outputs: int, weights: dict[str, Tensor]) -> nn.Module:
    """The recipe's model on the host, in eval mode, with ``weights`` in place of its initial ones.

    Raises :class:`ModelError` when it cannot be built, :class:`TrialError` when the weights are of another model.
    """
    with kept_random_state(torch.device("cpu")):
        model = build_model(recipe.model, spec, outputs)
    return _with_weights(model, recipe.model.build, weights)


def _with_weights(model: nn.Module, name: str, weights: dict[str, Tensor]) -> nn.Module:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise TrialError(
            f"{name}: these weights are of another model ({' '.join(str(error).split())[:300]})"
        ) from error
    return model.eval()


def describe_arrays(
    folder: Path | str,
) -> tuple[tuple[np.dtype[Any], tuple[int, ...]], tuple[np.dtype[Any], tuple[int, ...]]]:
    """What :meth:`Predictor.predict` takes and gives: dtype and shape of one raw example, and of its probabilities.

    Sides that may differ from picture to picture are -1.
    """
    with named_garbled(Path(folder)):
        description = json.loads((Path(folder) / PACKAGE).read_bytes())
        given = Preprocess.from_dict(description["preprocess"]).describe_raw()
        return given, (np.dtype(np.float32), (Target.from_dict(description["target"]).outputs,))


class Predictor:
    """What MLflow calls: raw examples in, probabilities or values out."""

    def __init__(self, model: Answering, preprocess: Preprocess) -> None:
        self._model = model
        self._preprocess = preprocess

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> np.ndarray:  # noqa: ARG002 (MLflow's)
        """Raw examples as the source gave them (array, DataFrame or list) -> float32 probabilities (N, classes), or
        values (N, 1)."""
        by_name = self._preprocess.columns() is not None
        with torch.inference_mode():
            outputs = self._model(self._preprocess(model_input if by_name else _raw_array(model_input))).float()
            is_classes = self._model.target.task == "classification"
            answers: np.ndarray = (outputs.softmax(dim=1) if is_classes else outputs).numpy()
        return answers


def _raw_array(model_input: Any) -> Any:
    """A DataFrame's rows as one array: a row is an example's features, or one cell that holds a whole example."""
    if not hasattr(model_input, "to_numpy"):
        return model_input
    array = model_input.to_numpy()
    if array.dtype != object:
        return array
    return np.stack([np.asarray(cell) for cell in array.reshape(-1)])


def _load_pyfunc(path: str) -> Predictor:
    """MLflow's entry: the predictor of the package at ``path``."""
    model, preprocess = load_model(path)
    assert isinstance(model, Answering)
    return Predictor(model, preprocess)
