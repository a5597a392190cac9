"""Peak memory of whole soup trials, from their recipe to their scores, beside those of a model of next to nothing.

    .venv/bin/python -m benchmarks.soup_trial

Four ingredients in one basin: a perceptron with batch norm and the same with a little noise. Each trial is a fresh
process; its peak memory is the high water mark (VmHWM), minus that of the same trial with a model of a thousandth of
the width, which imports the same, draws the same picture and has the same examples.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.results import ROOT, machine, table, write_section
from trials import Recipe, run_trial
from trials.checkpoint import write_weights
from trials.data import load_splits
from trials.model.build import build_model

KINDS = ("uniform_soup", "greedy_soup")
COUNT = 4


def write_recipes(folder: Path, width: int) -> int:
    """Ingredients, and beside them the recipe of each kind of soup of them; the bytes of one ingredient."""
    draws = np.random.default_rng(0)
    inputs = draws.normal(0, 1, (300, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=inputs, y=(inputs[:, 0] > 0).astype(np.int64))
    content = {
        "data": {"source": f"npz:{folder / 'data.npz'}", "validation": 0.3},
        "model": {"build": "mlp", "width": width, "norm": "batch"},
    }
    recipe = Recipe.model_validate(content)
    splits = load_splits(recipe.data, torch.device("cpu"))
    torch.manual_seed(0)
    model = build_model(recipe.model, splits.preprocess.spec, splits.target.outputs)
    paths = [folder / f"{number}.safetensors" for number in range(COUNT)]
    for path in paths:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=1e-5)
        write_weights(path, model.state_dict())
    files = [
        {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "name": path.stem}
        for path in paths
    ]
    for kind in KINDS:
        made = Recipe.model_validate(
            {**content, "assembly": {"name": kind, "ingredients": files, "barrier_tolerance": 1.0}}
        )
        (folder / f"{kind}.json").write_text(made.model_dump_json())
    return paths[0].stat().st_size


def peak_bytes(recipe: Path) -> int:
    """The most memory that the trial of a recipe takes, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.soup_trial", "--recipe", str(recipe)]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def peak_bytes_here(recipe: Path) -> int:
    """The same in this process."""
    content = Recipe.model_validate_json(recipe.read_bytes())
    with tempfile.TemporaryDirectory(dir=recipe.parent) as folder:
        run_trial(content, Path(folder) / "trial", device="cpu")
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=3000, help="of the model's layers")
    parser.add_argument("--recipe", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.recipe:
        print(peak_bytes_here(arguments.recipe))
        return
    with tempfile.TemporaryDirectory() as large, tempfile.TemporaryDirectory() as small:
        model_bytes = write_recipes(Path(large), arguments.width)
        write_recipes(Path(small), max(1, arguments.width // 1000))
        rows = []
        for kind in KINDS:
            held, idle = (peak_bytes(Path(folder) / f"{kind}.json") for folder in (large, small))
            rows.append((kind.replace("_", " "), f"{(held - idle) / model_bytes:.2f}"))
    body = (
        f"{COUNT} ingredients of {model_bytes / 1e6:.0f} MB, on the CPU; peak of the process minus that of the same "
        f"trial with a model of next to nothing (wanted: below 1.5 models).\n\n"
        f"{table(('trial', 'memory, models'), rows)}"
    )
    print(body)
    write_section(
        "Soup trials", " ".join([".venv/bin/python -m benchmarks.soup_trial", *sys.argv[1:]]), machine(("torch",)), body
    )


if __name__ == "__main__":
    main()
