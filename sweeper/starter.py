"""What `sweeper init` writes: a study to start from, in which each line says what it does."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from typing import Literal

from sweeper.errors import StudyError
from sweeper.positions import listed, near

HEAD = """\
# Start it with `sweeper start FILE`, watch it with `sweeper ui`, take the winner with `sweeper pull {name}`.
# A range may stand wherever a value stands in data, model, train and average:
#   {{uniform: [low, high]}}, {{log: [low, high]}}, {{int: [low, high], step: 2}}, {{choice: [a, b]}}
# `sweeper schema` prints the JSON Schema, by which editors complete this file; docs/recipe.md explains every key.
study: {name}
seed: 0
"""

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

TABLE = """\
data:
  source: {source}
  task: {task:<21} # {meaning}
  target: {target:<19} # the column that is predicted
  drop: []                    # columns to leave out: identifiers, and whatever gives the answer away
  categorical: []             # columns whose numbers are names, such as a postal code
  validation: 0.15            # share held out to choose on (the selection split)
  test: 0.2                   # share held out to report on, looked at once
"""

TEXTS = """\
data:
  source: {source}
  task: {task:<21} # {meaning}
  target: {target:<19} # the column that is predicted
  text: {text:<21} # the column that is read
  max_tokens: 200             # words of each text that are read
  augment: [{{name: random_deletion, probability: {{uniform: [0.0, 0.2]}}}}]   # leaves words out while training
  validation: 0.15            # share held out to choose on (the selection split)
  test: 0.2                   # share held out to report on, looked at once
"""

IMAGE_MODEL = """\
model:
  build: {build}   # or linear, mlp, small_convnet, small_resnet, any.module:function
  width: {{choice: [16, 32]}}
  dropout: {{uniform: [0.0, 0.4]}}
"""

TABLE_MODEL = """\
model:
  build: mlp                  # or linear, any.module:function
  width: {int: [32, 256], log: true}
  depth: {int: [1, 3]}
  dropout: {uniform: [0.0, 0.4]}
"""

TEXT_MODEL = """\
model:
  build: text_gru             # or text_bag, text_transformer, any.module:function
  width: {choice: [64, 128]}
  dropout: {uniform: [0.0, 0.5]}
"""

REST = """\
train:
  epochs: {epochs}
  batch_size: {{choice: [32, 64, 128]}}
  optimizer:                  # each option brings parameters of its own
    choice:
      - {{name: sgd, lr: {{log: {sgd_lr}}}, momentum: {{uniform: [0.8, 0.98]}}, weight_decay: {{log: [1e-5, 1e-2]}}}}
      - {{name: adamw, lr: {{log: [1e-4, 1e-2]}}, weight_decay: {{log: [1e-4, 1e-1]}}}}
  schedule: {{name: one_cycle}}   # or constant, cosine, step and others
  precision: fp32             # or bf16, fp16, tf32 on a GPU
  ema: {{decay: 0.99}}          # also keep a moving average of the weights
search:
  sampler: tpe                # or random
  trials: {trials}
  metric: {metric}
  pruner: {{name: hyperband}}   # stops hopeless trials early; or none, median, asha, patient
workers:
  cpus: 1                     # cores for each trial; add `concurrent: 4` to say how many run at a time
average:
  best_n: 3                   # average the weights of a trial's 3 best epochs, kept only if not worse
"""

MEANINGS = {
    "classification": "a class is predicted; `regression` predicts a number",
    "regression": "a number is predicted; `classification` predicts a class",
}

METRICS = {
    "classification": "validation.accuracy # or validation.balanced_accuracy, validation.loss",
    "regression": "validation.rmse     # in units of the target; or validation.mae, validation.r2, validation.loss",
}

SGD_LRS = {"classification": "[0.01, 0.5]", "regression": "[0.001, 0.1]"}
"""A squared error explodes where a cross entropy does not yet."""

TABLES = ("csv", "parquet")

Task = Literal["classification", "regression"]


def starter(
    source: str,
    out: Path = Path("study.yaml"),
    *,
    target: str | None = None,
    task: Task | None = None,
    text: str | None = None,
) -> str:
    """The text of a commented ``study.yaml``.

    Args:
        source: `digits`, a folder with one subfolder of images per class, or a table: a .csv or .parquet file.
        out: the file that the text is for; a relative path is written as it is seen from there.
        target: the column of the table that is predicted.
        task: what is predicted of a table, a class unless it is said.
        text: the column of the table that holds texts, if these are to be read.

    Raises:
        StudyError: there is no such folder or table, it has fewer than two classes, or no such column.
    """
    kind, _, rest = source.partition(":")
    if kind in TABLES or Path(source).suffix.removeprefix(".").lower() in TABLES:
        return _of_table(Path(rest if kind in TABLES else source), out, target, task or "classification", text)
    for option, given in (("--target", target), ("--task", task), ("--text", text)):
        if given is not None:
            raise StudyError(f"{source}: found {option} {given}, expected a table beside it: a .csv or .parquet file")
    if source == "digits":
        rest = IMAGE_MODEL.format(build="small_convnet") + _rest("classification", epochs=12, trials=24)
        return HEAD.format(name="my-digits") + DIGITS + rest
    folder = Path(source.removeprefix("folder:"))
    where = folder.expanduser()
    if not where.is_dir():
        known = "`digits`, a folder of images, or a .csv or .parquet file"
        raise StudyError(f"{folder}: found no such folder, expected {known}")
    classes = [entry.name for entry in where.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if len(classes) < 2:
        wanted = "expected a folder with one subfolder of images per class"
        raise StudyError(f"{folder}: found {len(classes)} subfolders, {wanted}")
    data = FOLDER.format(source=json.dumps(f"folder:{_seen_from(out, folder)}", ensure_ascii=False))
    rest = IMAGE_MODEL.format(build="small_resnet") + _rest("classification", epochs=20, trials=30)
    return HEAD.format(name=_study_name(where.resolve().name, "images")) + data + rest


def _rest(task: Task, epochs: int, trials: int) -> str:
    """All behind the model."""
    return REST.format(epochs=epochs, trials=trials, metric=METRICS[task], sgd_lr=SGD_LRS[task])


def _of_table(table: Path, out: Path, target: str | None, task: Task, text: str | None) -> str:
    columns = _columns(table)
    if target is None:
        raise StudyError(f"{table}: found no --target, expected the column to predict: {listed(columns)}")
    for option, column in (("--target", target), ("--text", text)):
        if column is not None and column not in columns:
            raise StudyError(
                f"{table}: found {option} {column!r}, expected one of its columns: {listed(columns)}"
                + near(column, columns)
            )
    if text == target:
        raise StudyError(f"{table}: found {text!r} for --text and --target, expected two columns")
    said = {
        "source": json.dumps(f"{_kind_of(table)}:{_seen_from(out, table)}", ensure_ascii=False),
        "task": task,
        "meaning": MEANINGS[task],
        "target": _as_yaml(target),
    }
    name = _study_name(table.expanduser().resolve().stem, "table")
    rest = _rest(task, epochs=20, trials=30)
    if text is None:
        return HEAD.format(name=name) + TABLE.format(**said) + TABLE_MODEL + rest
    return HEAD.format(name=name) + TEXTS.format(**said, text=_as_yaml(text)) + TEXT_MODEL + rest


def _kind_of(table: Path) -> str:
    """`csv` unless the file is a Parquet one by its name."""
    return "parquet" if table.suffix.lower() == ".parquet" else "csv"


def _columns(table: Path) -> list[str]:
    """The names of a table's columns."""
    where = table.expanduser()
    if not where.is_file():
        raise StudyError(f"{table}: found no such file, expected a table")
    try:
        if _kind_of(table) == "parquet":
            from pyarrow.parquet import read_schema

            return list(read_schema(where).names)
        with where.open(encoding="utf-8-sig", newline="") as file:
            columns = next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error) as error:
        cause = " ".join(str(error).split())
        raise StudyError(f"{table}: cannot be read ({cause}), expected a table in UTF-8 with a header") from error
    if not columns:
        raise StudyError(f"{table}: found an empty file, expected a header and rows")
    return columns


def _seen_from(out: Path, path: Path) -> str:
    """How ``path`` is called in a file at ``out``."""
    where = path.expanduser()
    if where.is_absolute():
        return str(path)
    return os.path.relpath(where.parent.resolve() / where.name, out.parent.resolve())


def _as_yaml(text: str) -> str:
    """Text as YAML reads it back.

    >>> _as_yaml("price"), _as_yaml("no"), _as_yaml("price: $")
    ('price', '"no"', '"price: $"')
    """
    plain = re.fullmatch(r"[A-Za-z_][\w -]*\w", text) is not None
    is_word = text.lower() in ("true", "false", "null", "yes", "no", "on", "off", "nan")
    return text if plain and not is_word else json.dumps(text, ensure_ascii=False)


def _study_name(text: str, otherwise: str) -> str:
    """A valid study name after a folder or table; ``otherwise`` goes before what would be none.

    >>> _study_name("my photos (2024)", "images"), _study_name("2024", "images")
    ('my-photos-2024', 'images-2024')
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")
    if not name[:1].isalpha() or name.lower() in ("true", "false", "null"):  # YAML would not read these as text
        name = f"{otherwise}-{name}"
    return name[:64].strip("-")
