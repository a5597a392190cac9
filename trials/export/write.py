"""A package as an ONNX file or as an exported program of PyTorch; the number of examples stays open."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from trials.data import Preprocess
from trials.errors import TrialError
from trials.export.graph import Facts, Graph, example_batch, facts_of
from trials.locate import one_line
from trials.package import PACKAGE, RECIPE, Answering, load_model

NEEDED = "onnx onnxscript onnxruntime"
"""What ONNX takes beyond what is installed anyway: the extra `export`."""

MOST_BYTES_IN_ONE_FILE = 2**30
"""An ONNX file holds 2 GiB at most; larger weights lie beside it."""


def write_graph(form: str, package: Path, out: Path) -> None:
    """Make ``out`` a folder with the model of ``package`` in the given form: a key of ``FORMS``.

    Beside the model are recipe.json, and package.json with what the graph takes and gives under ``graph``. Raises
    :class:`TrialError` when the model cannot be exported.
    """
    model, preprocess = load_model(package)
    assert isinstance(model, Answering)
    facts = facts_of(model, preprocess)
    file, write = FORMS[form]
    out.mkdir(parents=True)
    with _named(form), _quiet():
        write(program_of(model, preprocess), facts, out / file)
    shutil.copy(package / RECIPE, out / RECIPE)
    description = json.loads((package / PACKAGE).read_bytes())
    graph = {"file": file, "form": form, **facts.to_dict()}
    (out / PACKAGE).write_text(json.dumps({**description, "graph": graph}, indent=2), encoding="utf-8")


def program_of(answering: Answering, preprocess: Preprocess) -> ExportedProgram:
    """The model with its preprocessing and answers, for any number of examples."""
    graph = Graph(answering, preprocess).eval()
    with torch.no_grad(), _quiet():
        return torch.export.export(graph, (example_batch(preprocess),), dynamic_shapes={"batch": {0: Dim("count")}})


def _write_onnx(program: ExportedProgram, facts: Facts, path: Path) -> None:
    made = torch.onnx.export(
        program, dynamo=True, input_names=[facts.input_name], output_names=[facts.output_name], verbose=False
    )
    assert made is not None
    for node in made.model.graph.all_nodes():
        node.metadata_props.clear()  # where each line of Python was, on this machine
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    made.save(path, external_data=size > MOST_BYTES_IN_ONE_FILE)


def _write_program(program: ExportedProgram, _facts: Facts, path: Path) -> None:
    torch.export.save(program, path)


FORMS: dict[str, tuple[str, Callable[[ExportedProgram, Facts, Path], None]]] = {
    "onnx": ("model.onnx", _write_onnx),
    "torch-export": ("model.pt2", _write_program),
}
"""By what the user calls it: the name of the file, and what writes it."""


@contextmanager
def _named(form: str) -> Iterator[None]:
    """Say in one line why a model cannot be exported."""
    try:
        yield
    except ImportError as error:
        raise TrialError(f"{form}: needs {error.name or one_line(error)}; install it: pip install {NEEDED}") from error
    except (MemoryError, OSError):
        raise
    except Exception as error:  # whatever a model of the user's own does under the tracer
        raise TrialError(
            f"{form}: this model cannot be exported ({type(error).__name__}: {one_line(error)}); "
            "take it as safetensors or mlflow"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what the exporters say of their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
