"""What a pretrained start changes, and what it leaves alone, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_data import real_data
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trials import run_trial
from trials.checkpoint import TrialFolder
from trials.data import InputSpec, Target, load_splits
from trials.data.preprocess import ArrayPreprocess
from trials.data.text import TextPreprocess
from trials.errors import ModelError, Pruned
from trials.examples import load_examples
from trials.fit.fitting import Fitting
from trials.fit.step import Variation
from trials.model import build_model
from trials.model.pretrained import freeze, load_pretrained, lr_of, trained_preprocess, with_normalisation
from trials.package import write_package
from trials.recipe import Imported, Mlp, Model, Pretrained, Recipe, SmallConvnet

CPU = torch.device("cpu")
SPEC = InputSpec("image", (1, 8, 8))
CONVNET = {"build": "small_convnet", "width": 4, "depth": 2, "dropout": 0.2, "spatial_dropout": 0.1}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def convnet(weights: Path | str = "w.pt", **pretrained: Any) -> SmallConvnet:
    return SmallConvnet.model_validate(CONVNET | {"pretrained": {"weights": str(weights), **pretrained}})


def trained_weights(file: Path, outputs: int) -> dict[str, Tensor]:
    """Weights of the network for ``outputs``, with batch norm statistics that matter, in ``file``."""
    torch.manual_seed(1)
    module = build_model(SmallConvnet.model_validate(CONVNET), SPEC, outputs)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_(tensor + 1 if tensor.dtype == torch.int64 else torch.rand_like(tensor))
    torch.save(module.state_dict(), file)
    return module.state_dict()


def state_after_loading(model: Model, spec: InputSpec = SPEC, outputs: int = 10) -> tuple[dict[str, Tensor], Any]:
    torch.manual_seed(2)
    module = build_model(model, spec, outputs)
    return module.state_dict(), load_pretrained(module, model, spec, outputs)


def fresh_state(model: Model, spec: InputSpec = SPEC, outputs: int = 10) -> dict[str, Tensor]:
    torch.manual_seed(2)
    return build_model(model, spec, outputs).state_dict()


def test_all_but_a_head_of_another_size_is_the_files(tmp_path: Path) -> None:
    weights, model = trained_weights(tmp_path / "w.pt", outputs=4), convnet(tmp_path / "w.pt")
    state, start = state_after_loading(model)
    fresh = fresh_state(model)
    assert list(state) == list(weights)
    for name, tensor in state.items():
        assert torch.equal(tensor, fresh[name] if name.startswith("head.") else weights[name]), name
    assert start.head == "head"
    assert start.fresh == ("head.weight", "head.bias")
    assert start.normalisation is None
    assert start.note == (
        "the head, head, starts anew: w.pt does not fit it; w.pt does not tell its normalisation, so the "
        "training split's mean and std are used"
    )


def test_a_head_that_fits_is_the_files_too(tmp_path: Path) -> None:
    weights = trained_weights(tmp_path / "w.pt", outputs=10)
    state, start = state_after_loading(convnet(tmp_path / "w.pt"))
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    assert start.fresh == ()


@pytest.mark.parametrize("cut", [("head.weight",), ("head.weight", "head.bias")])
def test_a_head_that_is_not_whole_is_fresh(tmp_path: Path, cut: tuple[str, ...]) -> None:
    weights, model = trained_weights(tmp_path / "w.pt", outputs=10), convnet(tmp_path / "w.pt")
    torch.save({name: tensor for name, tensor in weights.items() if name not in cut}, tmp_path / "w.pt")
    state, start = state_after_loading(model)
    assert torch.equal(state["head.bias"], fresh_state(model)["head.bias"])
    assert start.fresh == ("head.weight", "head.bias")


def test_weights_without_counts_of_batches_are_of_an_older_torch(tmp_path: Path) -> None:
    weights = trained_weights(tmp_path / "w.pt", outputs=10)
    torch.save({name: tensor for name, tensor in weights.items() if "num_batches" not in name}, tmp_path / "w.pt")
    state, _ = state_after_loading(convnet(tmp_path / "w.pt"))
    assert all(torch.equal(state[name], weights[name]) for name in weights if "num_batches" not in name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages.0.0.weight": None}, r"stages\.0\.0\.weight \(missing\)$"),
        ({"stages.9.weight": torch.ones(1)}, r"stages\.9\.weight \(unknown\)$"),
        ({"stages.0.0.weight": torch.ones(1)}, r"stages\.0\.0\.weight \(of shape \(1,\), expected \(4, 1, 3, 3\)\)$"),
        (
            {f"stages.0.{key}": None for key in ("0.weight", "1.weight", "1.bias", "3.weight", "4.weight")},
            r"stages\.0\.0\.weight \(missing\), stages\.0\.1\.weight .*, stages\.0\.1\.bias .* and 2 more$",
        ),
    ],
)
def test_what_does_not_fit_outside_the_head_is_named(
    tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    weights = trained_weights(tmp_path / "w.pt", outputs=10) | change
    torch.save({name: tensor for name, tensor in weights.items() if tensor is not None}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=rf"^model\.pretrained\.weights: .* is not for this small_convnet: {message}"):
        state_after_loading(convnet(tmp_path / "w.pt"))


def test_the_head_is_the_last_linear_layer_or_the_one_that_is_named(tmp_path: Path) -> None:
    trained_weights(tmp_path / "w.pt", outputs=10)
    for head, message in (
        ("tail", r"no module 'tail'; the last linear layers are head$"),
        ("", r"no module ''; the last linear layers are head$"),
    ):
        with pytest.raises(ModelError, match=rf"^model\.pretrained\.head: {message}"):
            state_after_loading(convnet(tmp_path / "w.pt", head=head))
    squeezenet = Imported(build="torchvision.models:squeezenet1_1", pretrained=Pretrained(weights=f"{tmp_path}/w.pt"))
    with pytest.raises(ModelError, match=r"^model\.pretrained\.head: found no linear layer; name the module"):
        state_after_loading(squeezenet, InputSpec("image", (3, 64, 64)))
    mlp = Mlp(build="mlp", width=7, depth=2, pretrained=Pretrained(weights=f"{tmp_path}/w.pt", head="layers.0.0"))
    with pytest.raises(ModelError, match=r"^model\.pretrained\.head: layers\.0\.0 has 7 outputs, expected 10; name"):
        state_after_loading(mlp)


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    """Colour pictures of 32 x 32 pixels in three classes."""
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", x=images, y=np.arange(40) % 3)
    return f"npz:{tmp_path / 'pictures.npz'}"


def mobilenet(file: Path, **pretrained: Any) -> dict[str, Any]:
    """A MobileNetV2 of a tenth of the width, for weights that are in ``file``."""
    build = {"build": "torchvision.models:mobilenet_v2", "arguments": {"width_mult": 0.1}}
    return build | {"pretrained": {"weights": str(file), **pretrained}}


def save_mobilenet(file: Path) -> None:
    from torchvision.models import mobilenet_v2

    torch.manual_seed(1)
    torch.save(mobilenet_v2(width_mult=0.1).state_dict(), file)


def test_the_model_is_given_what_the_weights_were_trained_on(tmp_path: Path, pictures: str) -> None:
    file = tmp_path / "mobilenet_v2-b0353104.pth"  # torchvision's name for its first weights
    recipe = Recipe.model_validate({"data": {"source": pictures}, "model": mobilenet(file)})
    splits = load_examples(recipe, CPU)
    inputs, _, _ = Variation(splits, recipe, CPU)(torch.arange(5))
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in IMAGENET)
    torch.testing.assert_close(inputs, ((splits.train.inputs[:5].double() / 255 - mean) / std).float())
    save_mobilenet(file)
    _, start = state_after_loading(recipe.model, splits.preprocess.spec, 3)
    assert start.normalisation == IMAGENET
    assert start.note == (
        "the head, classifier.1, starts anew: mobilenet_v2-b0353104.pth does not fit it; inputs are normalised by "
        "mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225) of mobilenet_v2-b0353104.pth, not by the training "
        "split's"
    )


def test_the_datas_own_normalisation_is_there_for_who_wants_it(tmp_path: Path, pictures: str) -> None:
    file = tmp_path / "mobilenet_v2-b0353104.pth"
    save_mobilenet(file)
    model = mobilenet(file, normalisation="data")
    recipe = Recipe.model_validate({"data": {"source": pictures}, "model": model})
    splits = load_examples(recipe, CPU)
    assert splits.preprocess == load_splits(recipe.data, CPU).preprocess
    _, start = state_after_loading(recipe.model, splits.preprocess.spec, 3)
    assert start.normalisation is None
    assert start.note is not None
    assert "by the training split's mean and std, not by mean (0.485, 0.456, 0.406) and std (0.229," in start.note


def test_a_package_brings_its_own_normalisation(tmp_path: Path) -> None:
    """Digits, from weights of a study in which they were four times as bright."""
    recipe = Recipe.model_validate({"data": {"source": "digits"}, "model": CONVNET})
    splits = load_splits(recipe.data, CPU)
    theirs = with_normalisation(splits.preprocess, (0.1,), (2.0,))
    module = build_model(recipe.model, splits.preprocess.spec, 10)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    write_package(tmp_path / "best", recipe, tmp_path / "w.safetensors", replace(splits, preprocess=theirs))
    model = convnet(tmp_path / "best")
    state, start = state_after_loading(model)
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())
    assert start.normalisation == ((0.1,), (2.0,))
    assert trained_preprocess(splits.preprocess, model) == theirs


def test_words_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"data": {"source": "digits"}, "model": CONVNET})
    before, now = TextPreprocess(5, ("a", "film")), TextPreprocess(5, ("the", "film"))
    save_file({"w": torch.ones(1)}, tmp_path / "w.safetensors")
    splits = replace(load_splits(recipe.data, CPU), preprocess=before)
    write_package(tmp_path / "best", recipe, tmp_path / "w.safetensors", splits)
    model = Recipe.model_validate(
        {"data": {"source": "digits"}, "model": CONVNET | {"pretrained": {"weights": f"{tmp_path}/best"}}}
    ).model
    assert trained_preprocess(before, model) is before
    with pytest.raises(
        ModelError, match=r"^model\.pretrained\.weights: .*best was trained on text data with other words"
    ):
        trained_preprocess(now, model)


def test_numbers_for_other_channels_do_not_fit() -> None:
    grey = ArrayPreprocess("image", (1, 8, 8), 255.0, mean=(0.5,), std=(0.25,))
    assert with_normalisation(grey, (0.1,), (0.2,)) == ArrayPreprocess("image", (1, 8, 8), 255.0, (0.1,), (0.2,))
    with pytest.raises(
        ModelError, match=r"^model\.pretrained\.normalisation: found 3 means, .* \(1, 8, 8\); set it to data"
    ):
        with_normalisation(grey, *IMAGENET)


def digits(model: Model, **train: Any) -> Recipe:
    """Two epochs of three steps, with momentum and weight decay, which must not move what is frozen."""
    optimizer = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    return Recipe.model_validate(
        {
            "data": {"source": "digits", "train_fraction": 0.15},
            "model": model.model_dump(),
            "train": {"epochs": 2, "batch_size": 64, "optimizer": optimizer, **train},
        }
    )


def raw_weights(folder: Path) -> dict[str, Tensor]:
    result = TrialFolder(folder).read_result()
    assert result is not None
    (raw,) = [weights for weights in result.weights if weights.kind == "raw"]
    return load_file(folder / raw.path)


def is_statistic(name: str) -> bool:
    return "running" in name or "num_batches" in name


@pytest.mark.parametrize(
    ("freeze_section", "frozen"),
    [
        (["body"], ("stages.",)),
        (["stages.0"], ("stages.0.",)),
        (["stages.0.0", "stages.1.2"], ("stages.0.0.", "stages.1.2.")),
    ],
)
def test_frozen_stages_stay_bit_for_bit_and_the_others_are_trained(
    tmp_path: Path, freeze_section: list[str], frozen: tuple[str, ...]
) -> None:
    weights = trained_weights(tmp_path / "w.pt", outputs=10)
    recipe = digits(convnet(tmp_path / "w.pt", freeze=freeze_section))
    run_trial(recipe, tmp_path / "trial", device="cpu")
    for name, tensor in raw_weights(tmp_path / "trial").items():
        assert torch.equal(tensor, weights[name]) == name.startswith(frozen), name


def test_after_its_epochs_what_was_frozen_is_trained(tmp_path: Path) -> None:
    weights = trained_weights(tmp_path / "w.pt", outputs=10)
    recipe = digits(convnet(tmp_path / "w.pt", freeze=["body"], unfreeze_after_epochs=1))
    run_trial(recipe, tmp_path / "trial", device="cpu")
    found = raw_weights(tmp_path / "trial")
    assert not [name for name in weights if torch.equal(found[name], weights[name])]
    counts = [tensor - weights[name] for name, tensor in found.items() if "num_batches" in name]
    assert counts == [4] * 4  # of 173 examples in batches of 64, joined or not, in one epoch instead of two


def test_a_trial_stopped_while_frozen_goes_on_as_an_unbroken_one(tmp_path: Path) -> None:
    trained_weights(tmp_path / "w.pt", outputs=10)
    recipe = digits(convnet(tmp_path / "w.pt", freeze=["body"], unfreeze_after_epochs=1), epochs=3)
    run_trial(recipe, tmp_path / "unbroken", device="cpu")
    for last in (1, 2):
        with pytest.raises(Pruned):
            run_trial(recipe, tmp_path / "broken", lambda report, last=last: report.epoch < last, device="cpu")
    run_trial(recipe, tmp_path / "broken", device="cpu")
    unbroken, broken = raw_weights(tmp_path / "unbroken"), raw_weights(tmp_path / "broken")
    assert all(torch.equal(broken[name], unbroken[name]) for name in unbroken)


@pytest.mark.parametrize("model", [CONVNET, {"build": "small_resnet", "width": 4, "zero_init_residual": False}])
def test_the_first_update_of_the_body_is_the_factor_times_what_it_would_be(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    def first_update(body_lr: float) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        section = Pretrained(weights=f"{tmp_path}/w.pt", body_lr=body_lr)
        recipe = Recipe.model_validate(
            {
                "data": {"source": "digits"},
                "model": model | {"pretrained": section.model_dump()},
                "train": {"optimizer": {"name": "sgd", "lr": 0.125}, "schedule": {"name": "constant"}},
            }
        )
        torch.manual_seed(0)
        module = build_model(recipe.model, SPEC, 3)
        torch.save(module.state_dict(), tmp_path / "w.pt")
        start = load_pretrained(module, recipe.model, SPEC, 3)
        fitting = Fitting(module, recipe, Target("classification", ("a", "b", "c"), (1, 1, 1)), 1, CPU, start.head)
        images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(3))
        module.eval()(images).logsumexp(1).sum().backward()
        before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
        gradients = {
            name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None
        }
        fitting.update()
        return before, gradients, {name: parameter.detach() for name, parameter in module.named_parameters()}

    before, gradients, after = first_update(body_lr=0.25)  # powers of two are exact
    _, _, after_at_one = first_update(body_lr=1.0)
    for name, parameter in after.items():
        factor = 1.0 if name.startswith("head.") else 0.25
        assert torch.equal(parameter, before[name] - 0.125 * factor * gradients[name]), name
        assert torch.equal(after_at_one[name], before[name] - 0.125 * gradients[name]), name
        assert gradients[name].any(), name


def section(*stages: str, after: int | None = None) -> Pretrained:
    return Pretrained(weights="w.pt", freeze=stages, unfreeze_after_epochs=after)


class Parts(nn.Module):
    """Bare parameters beside modules, and a head beside a dropout, as in vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(2))
        self.encoder = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2, affine=False))
        self.encoder10 = nn.Linear(2, 2)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 3))
        self.register_parameter("scale", nn.Parameter(torch.ones(1)))


def frozen_and_resting(module: nn.Module) -> tuple[list[str], list[str]]:
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    return frozen, [name for name, part in module.named_modules() if not part.training]


BODY = ["token", "scale", "encoder.0.weight", "encoder.0.bias", "encoder10.weight", "encoder10.bias"]
BEFORE_HEAD = ["classifier.1.weight", "classifier.1.bias", "classifier.2.weight", "classifier.2.bias"]
ENCODER = ["encoder", "encoder.0", "encoder.1", "encoder.2"]


@pytest.mark.parametrize(
    ("stages", "frozen", "resting"),
    [
        (("body",), BODY + BEFORE_HEAD, [*ENCODER, "encoder10", "classifier.1", "classifier.2"]),
        (("encoder",), BODY[2:4], ENCODER),
        (("encoder.2", "token"), ["token"], ["encoder.2"]),
        (("classifier.0", "classifier.1"), BEFORE_HEAD[:2], ["classifier.0", "classifier.1"]),
        ((), [], []),
    ],
)
def test_a_stage_is_a_module_with_all_that_is_in_it(
    stages: tuple[str, ...], frozen: list[str], resting: list[str]
) -> None:
    module = Parts()
    freeze(module, section(*stages), "classifier.3", epoch=1)
    assert frozen_and_resting(module) == (frozen, resting)


def test_freezing_depends_on_the_epoch_alone() -> None:
    expected = {1: True, 2: True, 3: False, 4: False}
    module = Parts()
    for epoch in (1, 4, 2, 3, 1, 3, 4, 2):
        module.train()
        freeze(module, section("encoder", after=2), "classifier.3", epoch)
        assert frozen_and_resting(module) == ((BODY[2:4], ENCODER) if expected[epoch] else ([], []))


def test_a_frozen_parameter_has_no_gradient_left() -> None:
    module = Parts()
    module.encoder10.weight.grad = torch.ones(2, 2)
    module.classifier[3].weight.grad = torch.ones(3, 2)
    freeze(module, section("body"), "classifier.3", epoch=1)
    assert module.encoder10.weight.grad is None
    assert module.classifier[3].weight.grad is not None


@pytest.mark.parametrize("stage", ["encoder1", "enc", "encoder.3", ""])
def test_an_unknown_stage_lists_the_known_ones(stage: str) -> None:
    known = "known are body, encoder, encoder10, classifier, and what is inside these"
    with pytest.raises(ModelError, match=rf"^model\.pretrained\.freeze: no stage '{stage}'; {known}"):
        freeze(Parts(), section(stage), "classifier.3", epoch=1)


def test_something_must_be_left_to_train() -> None:
    with pytest.raises(ModelError, match=r"^model\.pretrained\.freeze: body, classifier leaves nothing to train$"):
        freeze(Parts(), section("body", "classifier"), "classifier.3", epoch=1)


def test_the_head_learns_at_the_optimizers_rate_and_the_rest_at_its_own() -> None:
    rate = lr_of(Pretrained(weights="w.pt", body_lr=0.1), "fc.1")
    assert [rate(name) for name in ("fc.1.weight", "fc.10.weight", "fc.0.weight", "conv.bias")] == [1.0, 0.1, 0.1, 0.1]


def test_real_weights_of_mobilenet_are_loaded_from_their_file() -> None:
    file = real_data("mobilenet-v2", "mobilenet_v2-b0353104.pth")
    model = Imported(build="torchvision.models:mobilenet_v2", pretrained=Pretrained(weights=str(file)))
    spec = InputSpec("image", (3, 64, 64))
    state, start = state_after_loading(model, spec)
    published = torch.load(file, weights_only=True)
    assert [name for name in state if not name.startswith("classifier.1.")] == list(published)[:-2]
    assert all(torch.equal(state[name], published[name]) for name in list(published)[:-2])
    assert start.fresh == ("classifier.1.weight", "classifier.1.bias")
    assert start.normalisation == IMAGENET
