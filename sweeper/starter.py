"""What `sweeper init` writes: a study to start from, in which each line says what it does."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from sweeper.errors import StudyError

DIGITS = """\
data:
  source: digits              # 1797 pictures of 8x8 pixels, bundled with scikit-learn
  validation: 0.15            # share held out to choose on (the selection split)
  test: 0.2                   # share held out to report on, looked at once
"""

FOLDER = """\
data:
  source: {source}
  image_size: 64              # pictures are resized to this many pixels a side
  validation: 0.1             # share held out to choose on (the selection split)
  test: 0.1                   # share held out to report on, looked at once
  augment: [random_crop, horizontal_flip]   # drop horizontal_flip where left and right mean something
  mix: {{choice: [none, cutmix]}}
"""

COMMON = """\
model:
  build: {build}   # or linear, mlp, small_convnet, small_resnet, any.module:function
  width: {{choice: [16, 32]}}
  dropout: {{uniform: [0.0, 0.4]}}
train:
  epochs: {epochs}
  batch_size: {{choice: [32, 64, 128]}}
  optimizer:                  # each option brings parameters of its own
    choice:
      - {{name: sgd, lr: {{log: [0.01, 0.5]}}, momentum: {{uniform: [0.8, 0.98]}}, weight_decay: {{log: [1e-5, 1e-2]}}}}
      - {{name: adamw, lr: {{log: [1e-4, 1e-2]}}, weight_decay: {{log: [1e-4, 1e-1]}}}}
  schedule: {{name: one_cycle}}   # or constant, cosine
  precision: fp32             # or bf16, fp16, tf32 on a GPU
  ema: {{decay: 0.99}}          # also keep a moving average of the weights
search:
  sampler: tpe                # or random
  trials: {trials}
  metric: validation.accuracy # or validation.loss
  pruner: {{name: hyperband}}   # stops hopeless trials early; or none, median, asha, patient
workers:
  cpus: 1                     # cores for each trial; add `concurrent: 4` to say how many run at a time
average:
  best_n: 3                   # average the weights of a trial's 3 best epochs, kept only if not worse
"""

HEAD = """\
# Start it with `sweeper start FILE`, watch it with `sweeper ui`, take the winner with `sweeper pull {name}`.
# A range may stand wherever a value stands in data, model, train and average:
#   {{uniform: [low, high]}}, {{log: [low, high]}}, {{int: [low, high], step: 2}}, {{choice: [a, b]}}
# `sweeper schema` prints the JSON Schema, by which editors complete this file.
study: {name}
seed: 0
"""


def starter(source: str, out: Path = Path("study.yaml")) -> str:
    """The text of a commented ``study.yaml``.

    Args:
        source: `digits`, or a folder with one subfolder of images per class.
        out: the file that the text is for; a relative folder is written as it is seen from there.

    Raises:
        StudyError: there is no such folder, or it has fewer than two classes.
    """
    if source == "digits":
        return HEAD.format(name="my-digits") + DIGITS + COMMON.format(build="small_convnet", epochs=12, trials=24)
    folder = Path(source.removeprefix("folder:"))
    where = folder.expanduser()
    if not where.is_dir():
        raise StudyError(f"{folder}: found no such folder, expected `digits` or a folder of images")
    classes = [entry.name for entry in where.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if len(classes) < 2:
        wanted = "expected a folder with one subfolder of images per class"
        raise StudyError(f"{folder}: found {len(classes)} subfolders, {wanted}")
    seen = folder if where.is_absolute() else os.path.relpath(where.parent.resolve() / where.name, out.parent.resolve())
    data = FOLDER.format(source=json.dumps(f"folder:{seen}", ensure_ascii=False))
    common = COMMON.format(build="small_resnet", epochs=20, trials=30)
    return HEAD.format(name=_study_name(where)) + data + common


def _study_name(folder: Path) -> str:
    """A valid study name after the folder.

    >>> _study_name(Path("/data/my photos (2024)"))
    'my-photos-2024'
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", folder.resolve().name).strip("-")
    if not name[:1].isalpha() or name.lower() in ("true", "false", "null"):  # YAML would not read these as text
        name = f"images-{name}"
    return name[:64].strip("-")
