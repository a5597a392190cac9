"""A student with its teacher beside the same student without one, from the same fresh seeds.

    .venv/bin/python -m benchmarks.distillation HOME STUDY --seeds 3

STUDY is a finished one, in HOME, whose `finish` compared a student (`distil: {compare: true}`): both of its recipes
are trained again from the same seeds, and scored on the examples that nothing was chosen on. A gain is paired by seed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import torch

from benchmarks.results import machine, table, write_section
from sweeper.catalog import Catalog, TrialRow
from sweeper.finish.verdict import mean_interval
from sweeper.finish.ways import STUDENT, UNTAUGHT
from sweeper.settings import load_settings
from sweeper.study_folder import StudyFolder
from trials import Recipe, run_trial


def of_way(trials: list[TrialRow], way: str) -> TrialRow:
    """The trial of the sweep's own run that went this way."""
    found = [trial for trial in trials if trial.params == {"move": way} and trial.state == "complete"]
    if not found:
        sys.exit(f"found no {way!r} in this study, expected one with finish: {{distil: {{compare: true}}}}")
    return found[0]


def worth(trial: TrialRow, seed: int, folder: Path, metric: str) -> float:
    """The raw weights of the trial's recipe, trained from another seed, on the confirmation split."""
    recipe = Recipe.model_validate({**trial.recipe, "seed": seed})
    result = run_trial(recipe, folder, device="cpu")
    raw = next(file for file in result.weights if file.kind == "raw")
    value = raw.metrics[metric.replace("validation.", "confirm.", 1)]
    print(f"{trial.params['move']}, seed {seed}: {value:.4f}", file=sys.stderr, flush=True)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("study")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    settings = load_settings(arguments.home)
    catalog = Catalog(settings.database_url, create=False)
    study = catalog.study(arguments.study)
    trials = catalog.trials(study.id)
    values: dict[str, list[float]] = {STUDENT: [], UNTAUGHT: []}
    # Beside the study's trials: its recipes name the teachers' weights relative to there.
    folder = StudyFolder(settings.home, study.name).trials / ".distillation"
    for seed in range(1, arguments.seeds + 1):
        for way, found in values.items():
            shutil.rmtree(folder, ignore_errors=True)
            found.append(worth(of_way(trials, way), seed, folder, study.metric))
    shutil.rmtree(folder, ignore_errors=True)
    gains = [taught - alone for taught, alone in zip(values[STUDENT], values[UNTAUGHT], strict=True)]
    rows = [(way, *(f"{value:.4f}" for value in found), str(mean_interval(found))) for way, found in values.items()]
    rows.append(("gain of the teacher", *(f"{gain:+.4f}" for gain in gains), str(mean_interval(gains))))
    header = ("", *(f"seed {seed}" for seed in range(1, arguments.seeds + 1)), "mean (95 % interval)")
    epochs = of_way(trials, STUDENT).recipe["train"]["epochs"]
    body = f"{study.metric} on the confirmation split, raw weights after {epochs} epochs:\n\n{table(header, rows)}"
    command = f".venv/bin/python -m benchmarks.distillation HOME {study.name} --seeds {arguments.seeds}"
    write_section(f"Distillation ({study.name})", command, machine(("torch",)), body)
    print(body)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
