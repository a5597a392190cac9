"""What `sweeper pull --as` can write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Write = Callable[[Path, Path, Sequence[str]], None]
"""The package, the folder to make, pip requirements of the `trials` package."""


@dataclass(frozen=True)
class Form:
    """One form of a model."""

    write: Write
    takes_batch: bool
    """Whether it is asked with what a graph takes (`trials.export.graph`), not with raw examples."""
    ask: Callable[[Path, Any], Any]
    """A folder that ``write`` made and examples -> its answers (N, outputs), float32."""
    contents: str
    """What a person finds in the folder."""


def _copy(package: Path, out: Path, _requirements: Sequence[str]) -> None:
    import shutil

    shutil.copytree(package, out)


def _ask_package(folder: Path, raw: Any) -> Any:
    from trials.package import Answering, Predictor, load_model

    model, preprocess = load_model(folder)
    assert isinstance(model, Answering)
    return Predictor(model, preprocess).predict(raw)


def _write_graph(form: str) -> Write:
    def write(package: Path, out: Path, _requirements: Sequence[str]) -> None:
        from trials.export.write import write_graph

        write_graph(form, package, out)

    return write


def _ask_graph(folder: Path, batch: Any) -> Any:
    from trials.export.read import answers_of_graph

    return answers_of_graph(folder, batch)


def _write_mlflow(package: Path, out: Path, requirements: Sequence[str]) -> None:
    from sweeper.mlflow_model import save_model

    save_model(package, out, requirements)


def _ask_mlflow(folder: Path, raw: Any) -> Any:
    from sweeper.mlflow_model import answers_of_model

    return answers_of_model(folder, raw)


_PACKAGE = "weights.safetensors, recipe.json, package.json, README.md (how to load it)"
_GRAPH = "recipe.json, package.json (what it takes and gives), README.md (how to load it)"

FORMS: dict[str, Form] = {
    "safetensors": Form(_copy, False, _ask_package, _PACKAGE),
    "onnx": Form(_write_graph("onnx"), True, _ask_graph, f"model.onnx, {_GRAPH}"),
    "torch-export": Form(_write_graph("torch-export"), True, _ask_graph, f"model.pt2, {_GRAPH}"),
    "mlflow": Form(_write_mlflow, False, _ask_mlflow, "MLmodel and its files, README.md (how to serve it)"),
}
