"""The README of a pulled model: what it is worth, how to load it, where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweeper.catalog import StudyRow
from sweeper.finish.verdict import lines as verdict_lines
from sweeper.provenance import versions
from sweeper.rank.leaderboard import figure
from trials.recipe import Recipe

if TYPE_CHECKING:
    from trials.data import Splits

GIVEN = {
    "image": ("images", "images as the data source gives them: one array or a batch"),
    "features": ("rows", "numbers as the data source gives them: one row or a batch"),
    "table": ("rows", "a pandas DataFrame, or rows as dicts, with the columns below"),
    "text": ("texts", "one text or a list of texts"),
}
"""What a model is given, by kind of examples: a word for it, and what it may be."""

ANSWERS = {
    "classification": "probabilities = model(preprocess({word})).softmax(dim=1)",
    "regression": "values = model(preprocess({word})).squeeze(1)",
}
"""How a model is asked, by task."""

USES = {
    "onnx": """```python
import json
import onnxruntime

graph = json.load(open("package.json"))["graph"]  # what it takes and gives
session = onnxruntime.InferenceSession("model.onnx")
(answers,) = session.run(None, {graph["input_name"]: batch})  # an array of graph["input_type"]
```
""",
    "torch-export": """```python
import torch

model = torch.export.load("model.pt2").module()
answers = model(batch)  # a tensor as package.json says under "graph"
```
""",
    "mlflow": """```console
mlflow models serve --model-uri . --port 5002 --env-manager local
```
""",
}
"""How a model is asked that is not a package of safetensors, by its form."""

MOST_NAMES = 20
"""Classes and columns are named up to this many; package.json has them all."""


def model_card(
    study: StudyRow, record: Mapping[str, Any], recipe: Recipe, git: Mapping[str, str], splits: Splits
) -> str:
    """The README of the weights that ``record`` describes, trained by ``recipe`` on ``splits``.

    Of the winner, ``record`` is what the catalog keeps; of others it has a ``title``, and no look at the test split.
    """
    word, given = GIVEN[splits.preprocess.kind]
    lines = [
        f"# {study.name}: {record.get('title', 'the winner')}",
        "",
        _which(study, record),
        "",
        "| split | metric | value | 95 % interval |",
        "|---|---|---|---|",
        *_metric_rows("selection", record["selection"]),
        *_metric_rows("confirmation", record.get("confirmation", {})),
        *_metric_rows("test", record.get("test", {})),
        "",
        "The value on the selection split is optimistic: it was the reason for the choice. " + _looks(record),
        "",
        "## Load it",
        "",
        "```python",
        "from sweeper import load_model",
        "",
        'model, preprocess = load_model("FOLDER")  # this folder',
        f"{ANSWERS[recipe.data.task].format(word=word)}  # {given}",
        "```",
        "",
        *_meaning(recipe, splits),
        "",
        *_verdict(study, record),
        "## Where it comes from",
        "",
        f"- data: `{recipe.data.source}`, splits drawn with seed {recipe.data.seed}, selection share "
        f"{recipe.data.validation:g}",
        f"- seed of the trial: {recipe.seed}",
        f"- weights: `weights.safetensors`, sha256 `{record['sha256']}`",
        "- recipe: `recipe.json`",
        *[f"- {name}: {value}" for name, value in git.items()],
        "- versions: " + ", ".join(f"{name} {number}" for name, number in versions().items()),
        "",
    ]
    return "\n".join(lines)


def with_use(card: str, form: str) -> str:
    """A card whose lines of Python are those for another form of the model."""
    before, python, after = card.partition("```python\n")
    _, fence, rest = after.partition("```\n")
    return f"{before}{USES[form]}{rest}" if form in USES and python and fence else card


def _which(study: StudyRow, record: Mapping[str, Any]) -> str:
    weights = f"The `{record['kind']}` weights of trial {record['trial']}"
    if "verdict" in record:
        way = record["verdict"]["way"]
        return (
            f'{weights}, to which the way "{way}" led: the best of the finalists on the confirmation split, on which '
            "nothing else was chosen; then evaluated once on the test split."
        )
    if "title" not in record:
        return (
            f"{weights}, chosen on the selection split among all the weights the study kept, then evaluated once on "
            "the test split."
        )
    winner = study.winner
    instead = "there is none yet"
    if winner is not None:
        value = f"{record['metric']} {figure(winner['selection'][record['metric']])}"
        instead = f"that is `{winner['kind']}` of trial {winner['trial']}, {value}"
    return f"{weights}: {record['title']} by the selection split. This is not the winner of the study: {instead}."


def _verdict(study: StudyRow, record: Mapping[str, Any]) -> list[str]:
    """How the ways to a model compared, if the study tried several."""
    if "verdict" not in record:
        return []
    said = [line.strip() for line in verdict_lines(record["verdict"], study.metric)]
    return ["## How it was chosen", "", f"{said[0]}:", "", *(f"- {line}" for line in said[1:]), ""]


def _looks(record: Mapping[str, Any]) -> str:
    if "test" not in record:
        return "The test split was not read for this model."
    if record["test_looks"] == 1:
        return "The test split was read for this model alone."
    return (
        f"The test split was looked at {record['test_looks']} times, each time with the winner that the study had "
        "then: before and after trials were extended."
    )


def _meaning(recipe: Recipe, splits: Splits) -> list[str]:
    """What the model's answers and inputs mean."""
    target = splits.target
    column = f" of the column `{recipe.data.target}`" if recipe.data.target is not None else ""
    if target.task == "classification":
        lines = [f"- probabilities: one a class{column}, in this order: {_named(target.classes)}"]
    else:
        seen = f"{figure(target.mean)} with a standard deviation of {figure(target.std)}"
        lines = [f"- values: in units{column or ' of the target'}, whose mean in training was {seen}"]
    if recipe.data.text is not None:
        lines.append(f"- texts: the column `{recipe.data.text}` of the source")
    elif (columns := splits.preprocess.columns()) is not None:
        lines.append(f"- columns: {_named([f'{name} ({kind})' for name, kind in columns])}")
    return lines


def _named(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more, in package.json" if len(names) > MOST_NAMES else ""
    return ", ".join(f"`{name}`" for name in names[:MOST_NAMES]) + more


def _metric_rows(split: str, metrics: Mapping[str, float]) -> list[str]:
    rows = []
    for name, value in metrics.items():
        short = name.split(".", 1)[1]
        if short.endswith((".low", ".high")) or short == "count":
            continue
        low, high = metrics.get(f"{name}.low"), metrics.get(f"{name}.high")
        interval = f"{figure(low)} to {figure(high)}" if low is not None and high is not None else ""
        rows.append(f"| {split} | {short} | {figure(value)} | {interval} |")
    return rows
