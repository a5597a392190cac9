"""Values of a recipe that can never work together, found without looking at the data and without torch.

Each value alone is fine, or the recipe would not be one; what only the data can tell is found when they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

from trials.recipe import (
    BackTranslation,
    Constant,
    Data,
    Erasing,
    HorizontalFlip,
    ImageAugment,
    Imported,
    Mlp,
    OneCycle,
    RandomCrop,
    Recipe,
    Sequence,
    Sgd,
    TextAugment,
    TextTransformer,
    VerticalFlip,
)
from trials.recipe.model import is_weights_path
from trials.recipe.schedule import SimpleSchedule
from trials.result import TASK_METRICS

TASK_LOSSES = {"classification": ("cross_entropy", "focal", "bce"), "regression": ("mse", "huber")}
"""What can be minimised, by task."""

IMAGE_MODELS = ("small_convnet", "small_resnet")
TEXT_MODELS = ("text_bag", "text_gru", "text_transformer")


class Misfit(NamedTuple):
    """A value that can never work with the rest of its recipe."""

    path: tuple[str | int, ...]
    """Where it stands in the recipe: ``("data", "augment", 0, "padding")``."""
    message: str
    """``found ..., expected ...``, in one line."""

    def __str__(self) -> str:
        """The line that says so of a recipe.

        >>> str(Misfit(("data", "augment", 0, "padding"), "found 8, expected less than 8"))
        'data.augment[0].padding: found 8, expected less than 8'
        """
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return f"{''.join(steps).removeprefix('.')}: {self.message}"


def misfits(recipe: Recipe) -> Iterator[Misfit]:
    """All that can never work in ``recipe``, in the order of its sections."""
    for check in (_metrics, _columns, _augment, _mix, _model, _pretrained, _loss, _optimizer, _schedule, _lr_finder):
        yield from check(recipe)
    yield from _trunk(recipe)
    yield from _made_from(recipe)


def kind_of_examples(data: Data) -> Literal["image", "table", "text"] | None:
    """What the source holds, as far as its name tells.

    >>> kind_of_examples(Data(source="csv:houses.csv", target="price"))
    'table'
    """
    kind, _, _ = data.source.partition(":")
    if kind in ("digits", "folder", "torchvision.datasets"):
        return "image"
    if _is_table(data):
        return "table" if data.text is None else "text"
    return None  # arrays, and what a module gives, may be anything


def _is_table(data: Data) -> bool:
    return data.source.startswith(("csv:", "parquet:"))


def _metrics(recipe: Recipe) -> Iterator[Misfit]:
    known = TASK_METRICS[recipe.data.task]
    early_stop = recipe.train.early_stop
    watched = None if early_stop is None else early_stop.metric
    for path, metric in ((("metric",), recipe.metric), (("train", "early_stop", "metric"), watched)):
        if metric is not None and metric not in known:
            yield Misfit(path, f"found {metric!r}, expected {_listed(known)}: the task is {recipe.data.task}")


def _columns(recipe: Recipe) -> Iterator[Misfit]:
    data = recipe.data
    if not _is_table(data):
        for key in ("target", "text", "drop", "categorical"):
            if found := getattr(data, key):
                names = found if isinstance(found, str) else list(found)
                expected = "expected a source with columns, csv:PATH or parquet:PATH"
                yield Misfit(("data", key), f"found {names!r} with {data.source}, {expected}")
    elif data.target is None:
        yield Misfit(("data", "target"), f"found nothing, expected the column of {data.source} that is predicted")
    else:
        yield from _column_roles(data)
    if data.image_size is not None and kind_of_examples(data) in ("table", "text"):
        yield Misfit(("data", "image_size"), f"found {data.image_size}, expected none: {data.source} has no images")
    if data.arguments and (_is_table(data) or ":" not in data.source or data.source.startswith(("npz:", "folder:"))):
        found = ", ".join(data.arguments)
        yield Misfit(("data", "arguments"), f"found {found}, expected none: only functions and data sets take any")


def _column_roles(data: Data) -> Iterator[Misfit]:
    """A column that is to be two things at once."""
    if data.text is not None and data.text == data.target:
        yield Misfit(("data", "text"), f"found {data.text!r}, expected another column than the target")
    for key, what in (("target", "the target"), ("text", "the text")):
        column = getattr(data, key)
        for list_key, names in (("drop", data.drop), ("categorical", data.categorical)):
            if column in names:
                path = ("data", list_key, names.index(column))
                yield Misfit(path, f"found {column!r}, expected another column: it is {what}")


def _augment(recipe: Recipe) -> Iterator[Misfit]:
    data, seen = recipe.data, set()
    kind = kind_of_examples(data)
    for index, section in enumerate(data.augment):
        path = ("data", "augment", index)
        if isinstance(section, get_args(ImageAugment)) and kind not in ("image", None):
            yield Misfit(path, f"found {section.name!r}, expected no change of images: {data.source} has none")
        if isinstance(section, get_args(TextAugment)) and kind not in ("text", None):
            hint = "; say which column by data.text" if kind == "table" else ""
            yield Misfit(path, f"found {section.name!r}, expected no change of texts: {data.source} has none{hint}")
        if isinstance(section, BackTranslation) and section.name in seen:
            yield Misfit(path, f"found {section.name!r} again, expected it once")
        seen.add(section.name)
        match section:
            case Erasing(min_area=least, max_area=most) if least > most:
                yield Misfit((*path, "min_area"), f"found {least:g}, expected at most max_area, {most:g}")
            case RandomCrop(padding=padding) if data.image_size is not None and padding >= data.image_size:
                expected = f"expected less than the image's side, {data.image_size}"
                yield Misfit((*path, "padding"), f"found {padding}, {expected}")
            case HorizontalFlip(except_classes=names) | VerticalFlip(except_classes=names) if names:
                if data.task == "regression":
                    message = f"found {list(names)}, expected none: in regression there are no classes"
                    yield Misfit((*path, "except_classes"), message)


def _mix(recipe: Recipe) -> Iterator[Misfit]:
    data = recipe.data
    kind = kind_of_examples(data)
    if data.mix == "none":
        return
    if kind == "text":
        yield Misfit(("data", "mix"), f"found {data.mix!r}, expected none: words cannot be blended")
    elif kind == "table" and data.mix != "mixup":
        yield Misfit(("data", "mix"), f"found {data.mix!r}, expected none or mixup: {data.source} has no images to cut")
    elif recipe.train.batch_size == 1:
        message = f"found 1, expected at least 2: {data.mix} blends pairs of a batch"
        yield Misfit(("train", "batch_size"), message)


def _model(recipe: Recipe) -> Iterator[Misfit]:
    data, model = recipe.data, recipe.model
    kind = kind_of_examples(data)
    if isinstance(model, Imported):
        return
    if kind == "text" and model.build not in TEXT_MODELS:
        yield Misfit(("model", "build"), f"found {model.build!r}, expected {_listed(TEXT_MODELS)}: the data are texts")
    if kind in ("image", "table") and model.build in TEXT_MODELS:
        hint = "; say which column by data.text" if kind == "table" else ""
        yield Misfit(("model", "build"), f"found {model.build!r}, expected one for {kind}s: there is no text{hint}")
    if kind == "table" and model.build in IMAGE_MODELS:
        message = f"found {model.build!r}, expected linear or mlp: {data.source} has no images"
        yield Misfit(("model", "build"), message)
    match model:
        case TextTransformer(width=width, heads=heads) if width % heads:
            yield Misfit(("model", "width"), f"found {width}, expected a multiple of heads, {heads}")
        case Mlp(norm="batch") if recipe.train.batch_size == 1:
            message = "found 1, expected at least 2: model.norm: batch needs examples to compare"
            yield Misfit(("train", "batch_size"), message)
        case Mlp(norm="batch") if recipe.train.micro_batch == 1:
            message = "found 1, expected at least 2: model.norm: batch needs examples to compare"
            yield Misfit(("train", "micro_batch"), message)


def _pretrained(recipe: Recipe) -> Iterator[Misfit]:
    model, epochs = recipe.model, recipe.epochs
    start = model.pretrained
    if start is None:
        return
    path = ("model", "pretrained")
    is_name = not is_weights_path(start.weights) and not start.weights.startswith("models:/")
    if is_name and not (isinstance(model, Imported) and model.build.startswith("torchvision.")):
        expected = "expected a file, a folder such as ./best, or models:/NAME@ALIAS"
        message = f"found {start.weights!r}, {expected}: torchvision has no weights for {model.build}"
        yield Misfit((*path, "weights"), message)
    if start.unfreeze_after_epochs is not None:
        at = (*path, "unfreeze_after_epochs")
        if not start.freeze:
            yield Misfit(at, f"found {start.unfreeze_after_epochs}, expected freeze beside it: nothing is frozen")
        elif recipe.start is None and start.unfreeze_after_epochs >= epochs:
            message = f"found {start.unfreeze_after_epochs}, expected less than the epochs of the trial, {epochs}"
            yield Misfit(at, message)


def _loss(recipe: Recipe) -> Iterator[Misfit]:
    loss, task = recipe.train.loss, recipe.data.task
    if loss is not None and loss.name not in TASK_LOSSES[task]:
        message = f"found {loss.name!r}, expected {_listed(TASK_LOSSES[task])}: the task is {task}"
        yield Misfit(("train", "loss", "name"), message)


def _optimizer(recipe: Recipe) -> Iterator[Misfit]:
    match recipe.train.optimizer:
        case Sgd(nesterov=True, momentum=0.0):
            yield Misfit(("train", "optimizer", "nesterov"), "found true, expected momentum above 0 beside it")


def _schedule(recipe: Recipe) -> Iterator[Misfit]:
    schedule = recipe.train.schedule
    if not isinstance(schedule, Sequence):
        yield from _warmup(schedule, ("train", "schedule"))
        return
    for index, part in enumerate(schedule.parts):
        yield from _warmup(part.schedule, ("train", "schedule", "parts", index, "schedule"))


def _warmup(schedule: SimpleSchedule, path: tuple[str | int, ...]) -> Iterator[Misfit]:
    if not isinstance(schedule, Constant | OneCycle) and schedule.warmup == 1.0:
        message = f"found 1.0, expected less than 1: no step is left for {schedule.name}"
        yield Misfit((*path, "warmup"), message)


def _lr_finder(recipe: Recipe) -> Iterator[Misfit]:
    finder = recipe.train.lr_finder
    if finder is not None and finder.start >= finder.end:
        message = f"found {finder.start:g}, expected less than end, {finder.end:g}"
        yield Misfit(("train", "lr_finder", "start"), message)


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _trunk(recipe: Recipe) -> Iterator[Misfit]:
    """What branches from a trunk has epochs of its own; one that has begun from it counts no others."""
    trunk, epochs = recipe.average.trunk_epochs, recipe.train.epochs
    if recipe.start is None and trunk >= epochs:
        expected = f"less than train.epochs ({epochs}), of which it takes the first"
        yield Misfit(("average", "trunk_epochs"), f"found {trunk}, expected {expected}")


def _made_from(recipe: Recipe) -> Iterator[Misfit]:
    """What is assembled is not trained, and what answers another question teaches nothing."""
    if recipe.assembly is not None:
        for key in ("start", "teacher", "extensions"):
            if getattr(recipe, key):
                yield Misfit((key,), f"found one beside assembly, expected none: {recipe.assembly.name} trains nothing")
    members = () if recipe.teacher is None else recipe.teacher.members
    for index, member in enumerate(members):
        task = member.recipe.get("data", {}).get("task", "classification")
        if task != recipe.data.task:
            path = ("teacher", "members", index, "recipe", "data", "task")
            yield Misfit(path, f"found {task!r}, expected {recipe.data.task!r}, as the student's")
