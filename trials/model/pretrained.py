"""Start from weights that were trained before: load them, keep stages as they are, let the head learn faster.

After arXiv:1411.1792 (layers transfer better the nearer they are to the input) and arXiv:1801.06146 (thaw them later,
train them more slowly).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from trials.data.preprocess import ArrayPreprocess, InputSpec, Preprocess
from trials.errors import ModelError
from trials.locate import one_line
from trials.model.weights import KEY, published_normalisation, read_weights, weights_preprocess
from trials.recipe import Model, Pretrained

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and std for each channel of an image in [0, 1], or for each feature."""


@dataclass(frozen=True)
class Start:
    """What a model began with."""

    head: str
    """Name of the module that makes the outputs."""
    fresh: tuple[str, ...]
    """Parameters of the head that keep their initial values, because the weights are for other outputs."""
    normalisation: Normalisation | None
    """What the weights were trained with and the recipe wants kept; None when the training split's is to be used."""
    note: str | None
    """What the user should know, in one line."""


def load_pretrained(module: nn.Module, model: Model, spec: InputSpec, outputs: int) -> Start:
    """Put ``model.pretrained.weights`` in place of the initial weights of ``module``, which ``build_model`` made.

    Only the head may differ, and then keeps all of its initial weights. Raises :class:`ModelError`, in one line, when
    the weights cannot be read, or do not fit elsewhere, and when no head is found.
    """
    section = model.pretrained
    assert section is not None
    head = find_head(module, section.head, outputs)
    weights = read_weights(model)
    own = {name: tensor for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}
    misfits = _misfits(own, weights)
    elsewhere = {name: fault for name, fault in misfits.items() if not _is_in(name, head)}
    if elsewhere:
        named = ", ".join(f"{name} ({fault})" for name, fault in list(elsewhere.items())[:3])
        rest = f" and {len(elsewhere) - 3} more" if len(elsewhere) > 3 else ""
        raise ModelError(f"{KEY}: {section.weights} is not for this {model.build}: {named}{rest}")
    fresh = tuple(name for name in own if misfits and _is_in(name, head))
    if misfits:
        for name in [name for name in weights if _is_in(name, head)]:
            del weights[name]
    try:
        module.load_state_dict(weights, strict=False)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{KEY}: {section.weights}: {one_line(error)}") from error
    known = weights_normalisation(model, spec)
    kept = known if section.normalisation == "weights" else None
    return Start(head, fresh, kept, _note(section, known, spec, head if fresh else None))


def weights_normalisation(model: Model, spec: InputSpec) -> Normalisation | None:
    """The mean and std of the examples on which ``model.pretrained.weights`` were trained, if these are known.

    Those of a package, or torchvision's for its own weights; None where ``spec`` is of another kind or size.
    """
    preprocess = weights_preprocess(model)
    if isinstance(preprocess, ArrayPreprocess) and preprocess.kind == spec.kind:
        found: Normalisation | None = (preprocess.mean, preprocess.std)
    else:
        found = published_normalisation(model) if spec.kind == "image" else None
    return found if found is not None and len(found[0]) == spec.shape[0] else None


def trained_preprocess(preprocess: Preprocess, model: Model) -> Preprocess:
    """What gives examples to ``model`` as its pretrained weights had them: ``preprocess``, with their mean and std.

    ``preprocess`` itself where the weights bring none, or the recipe does not want them. Raises :class:`ModelError` for
    weights that know other words, or other columns of a table.
    """
    if model.pretrained is None:
        return preprocess
    before = weights_preprocess(model)
    if before is not None and not isinstance(before, ArrayPreprocess) and before.to_dict() != preprocess.to_dict():
        raise ModelError(
            f"{KEY}: {model.pretrained.weights} was trained on {before.kind} data with other words or columns; "
            "expected weights from the same data section"
        )
    known = weights_normalisation(model, preprocess.spec)
    if known is None or model.pretrained.normalisation == "data":
        return preprocess
    return with_normalisation(preprocess, *known)


def with_normalisation(preprocess: Preprocess, mean: tuple[float, ...], std: tuple[float, ...]) -> Preprocess:
    """The same, but for ``(x - mean) / std`` of each channel of an image in [0, 1], or of each feature.

    Raises :class:`ModelError` for tables and texts, and for another number of channels or features.
    """
    if not isinstance(preprocess, ArrayPreprocess) or not len(mean) == len(std) == len(preprocess.mean):
        raise ModelError(
            f"model.pretrained.normalisation: found {len(mean)} means, which do not fit inputs of shape "
            f"{preprocess.spec.shape}; set it to data"
        )
    return replace(preprocess, mean=mean, std=std)


def freeze(module: nn.Module, section: Pretrained, head: str, epoch: int) -> None:
    """Set up ``module``, just put in training mode, for ``epoch`` (from 1): frozen stages learn nothing in it.

    Their parameters take no gradient, and they run in eval mode, which keeps the statistics of their batch norms.
    Depends on nothing but its arguments, so that a continued trial does the same. Raises :class:`ModelError` for a
    stage that ``module`` does not have, and when nothing is left to train.
    """
    if not section.freeze:
        return
    stages = [part for stage in section.freeze for part in _parts(module, stage, head)]
    frozen = section.unfreeze_after_epochs is None or epoch <= section.unfreeze_after_epochs
    for name, parameter in module.named_parameters():
        if any(_is_in(name, stage) for stage in stages):
            parameter.requires_grad_(not frozen)
            parameter.grad = None
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ModelError(f"model.pretrained.freeze: {', '.join(section.freeze)} leaves nothing to train")
    if frozen:
        for name, part in module.named_modules():
            if name in stages:
                part.eval()


def lr_of(section: Pretrained, head: str) -> Callable[[str], float]:
    """The learning rate of a parameter, by its name, as a multiple of the optimizer's.

    >>> rate = lr_of(Pretrained(weights="DEFAULT", body_lr=0.1), head="fc")
    >>> rate("fc.weight"), rate("layer1.0.conv1.weight")
    (1.0, 0.1)
    """
    return lambda name: 1.0 if _is_in(name, head) else section.body_lr


def _is_in(name: str, part: str) -> bool:
    """Whether ``name`` is ``part``, or of something inside it; "features.1" is no part of "features.10"."""
    return not part or name == part or name.startswith(f"{part}.")


def find_head(module: nn.Module, name: str | None, outputs: int) -> str:
    """The module that makes the outputs: the one called ``name``, or the last linear layer.

    Raises :class:`ModelError` when there is none, or it makes another number of outputs.
    """
    modules = dict(module.named_modules())
    linears = [key for key, part in modules.items() if isinstance(part, nn.Linear)]
    if name is None and not linears:
        raise ModelError("model.pretrained.head: found no linear layer; name the module that makes the outputs")
    if name is not None and not (name and name in modules):
        raise ModelError(
            f"model.pretrained.head: no module {name!r}; the last linear layers are {', '.join(linears[-3:])}"
        )
    head = linears[-1] if name is None else name
    part = modules[head]
    if isinstance(part, nn.Linear) and part.out_features != outputs:
        raise ModelError(
            f"model.pretrained.head: {head} has {part.out_features} outputs, expected {outputs}; "
            "name the module that makes the outputs"
        )
    return head


def _misfits(own: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, str]:
    """What is wrong with each tensor that the two do not share; batch norm's count of batches may be missing."""
    faults = {}
    for name, tensor in own.items():
        if name not in weights:
            if not name.endswith("num_batches_tracked"):
                faults[name] = "missing"
        elif weights[name].shape != tensor.shape:
            faults[name] = f"of shape {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
    return faults | {name: "unknown" for name in weights if name not in own}


def _parts(module: nn.Module, stage: str, head: str) -> list[str]:
    """The names of the modules and bare parameters that ``stage`` means."""
    if stage == "body":
        return list(_outside(module, head))
    names = [name for name, _ in module.named_modules()] + [name for name, _ in module.named_parameters()]
    if not stage or stage not in names:
        known = ", ".join(name for name, _ in module.named_children())
        raise ModelError(
            f"model.pretrained.freeze: no stage {stage!r}; known are body, {known}, and what is inside these, "
            "joined by dots"
        )
    return [stage]


def _outside(module: nn.Module, head: str, prefix: str = "") -> Iterator[str]:
    """The largest parts that hold parameters or buffers, but nothing of the head.

    A dropout beside the head is none of them: it goes on when the body is frozen.
    """
    yield from (prefix + name for name, _ in module.named_parameters(recurse=False))
    for name, child in module.named_children():
        full = prefix + name
        if head.startswith(f"{full}."):
            yield from _outside(child, head, f"{full}.")
        elif full != head and (any(True for _ in child.parameters()) or any(True for _ in child.buffers())):
            yield full


def _note(section: Pretrained, known: Normalisation | None, spec: InputSpec, fresh_head: str | None) -> str | None:
    notes, weights = [], Path(section.weights).name
    if fresh_head is not None:
        notes.append(f"the head, {fresh_head}, starts anew: {weights} does not fit it")
    if known is not None:
        theirs = f"mean {_numbers(known[0])} and std {_numbers(known[1])} of {weights}"
        if section.normalisation == "weights":
            notes.append(f"inputs are normalised by {theirs}, not by the training split's")
        else:
            notes.append(f"inputs are normalised by the training split's mean and std, not by {theirs}")
    elif spec.kind == "image":
        notes.append(f"{weights} does not tell its normalisation, so the training split's mean and std are used")
    return "; ".join(notes) or None


def _numbers(values: tuple[float, ...]) -> str:
    shown = [f"{value:.3g}" for value in values[:3]] + ["..."] * (len(values) > 3)
    return f"({', '.join(shown)})"
