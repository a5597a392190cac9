from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trials.errors import ModelError
from trials.model import build_model
from trials.model.build import BUILDERS
from trials.recipe import Imported, Linear, Mlp, Model, SmallConvnet, SmallResnet

USER_MODULE = """
import torch
from torch import nn

def takes_classes(num_classes, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Linear(width, num_classes))

def takes_anything(**options):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, options["num_classes"]))

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(12, num_classes)

    def forward(self, images):
        return self.head(self.norm(images).flatten(1))

class Pair(Net):
    def forward(self, images):
        return (super().forward(images), None)

def number():
    return 3

def broken():
    raise RuntimeError("first line\\nsecond line")
"""
SHAPE = (3, 2, 2)


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_model.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


def imported(name: str, **arguments: Any) -> Imported:
    return Imported(build=f"users_model:{name}", arguments=arguments)


BUILT_INS: list[Model] = [
    Linear(build="linear"),
    Mlp(build="mlp"),
    SmallConvnet(build="small_convnet"),
    SmallResnet(build="small_resnet"),
]


@pytest.mark.parametrize("model", BUILT_INS, ids=lambda model: model.build)
def test_built_ins_give_one_logit_per_class_in_training_mode(model: Model) -> None:
    for shape in ((1, 8, 8), (3, 33, 20)):
        module = build_model(model, shape, 7)
        assert module.training
        assert module(torch.zeros(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize("model", BUILT_INS, ids=lambda model: model.build)
def test_the_seed_of_the_global_generator_decides_the_weights(model: Model) -> None:
    def weights(seed: int) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return torch.cat([p.detach().flatten() for p in build_model(model, (1, 8, 8), 10).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_every_model_of_the_recipe_has_a_builder() -> None:
    assert set(BUILDERS) == {model.build for model in BUILT_INS} | {"imported"}


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("name", ["takes_classes", "takes_anything", "Net"])
def test_num_classes_goes_to_factories_that_take_it(name: str) -> None:
    assert build_model(imported(name), SHAPE, 5)(torch.zeros(2, *SHAPE)).shape == (2, 5)


@pytest.mark.usefixtures("users")
def test_arguments_reach_the_factory_and_the_trial_forward_changes_nothing() -> None:
    module = build_model(imported("takes_classes", width=9), SHAPE, 5)
    assert sum(p.numel() for p in module.parameters()) == 13 * 9 + 10 * 5
    assert build_model(imported("fixed"), SHAPE, 3)(torch.zeros(2, *SHAPE)).shape == (2, 3)
    norm = next(m for m in build_model(imported("Net"), SHAPE, 5).modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.num_batches_tracked == 0


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            imported("fixed"),
            r"users_model:fixed: gave \(2, 3\) for 2 examples, expected \(2, 5\), one output per class",
        ),
        (imported("Pair"), r"users_model:Pair: gave tuple for 2 examples"),
        (imported("number"), "returned int, expected a torch.nn.Module"),
        (imported("broken"), "raised RuntimeError: first line second line"),
        (imported("fixed", width=3), "raised TypeError: .*unexpected keyword argument 'width'"),
        (imported("takes_clases"), "model.build: .*did you mean 'takes_classes'"),
        (Imported(build="no_such_module:x"), "model.build: .*cannot be imported"),
        (imported("takes_classes", num_classes=4), r"gave \(2, 4\) for 2 examples"),
    ],
)
def test_faults_are_one_line(model: Imported, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build_model(model, SHAPE, 5)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("users")
def test_an_input_that_does_not_fit_is_named() -> None:
    with pytest.raises(ModelError, match=r"users_model:fixed: fails on an input of shape \(3, 4, 4\): .*mat1 and mat2"):
        build_model(imported("fixed"), (3, 4, 4), 3)


def test_convolutions_need_images() -> None:
    for model in BUILT_INS[2:]:
        with pytest.raises(ModelError, match=rf"{model.build} needs images, but the data has 30 features; use mlp"):
            build_model(model, (30,), 3)


@pytest.mark.parametrize(("side", "most"), [(8, 4), (28, 5), (1, 1)])
def test_too_many_stages_for_the_image_are_refused(side: int, most: int) -> None:
    def convnet(depth: int) -> nn.Module:
        return build_model(SmallConvnet(build="small_convnet", width=1, depth=depth), (1, side, side + 3), 3)

    assert convnet(most)(torch.zeros(2, 1, side, side + 3)).shape == (2, 3)
    with pytest.raises(ModelError, match=rf"model.depth: {most + 1} stages .* expected at most {most}"):
        convnet(most + 1)


def test_torchvisions_resnet18_has_its_published_size() -> None:
    module = build_model(Imported(build="torchvision.models:resnet18"), (3, 32, 32), 1000)
    assert sum(p.numel() for p in module.parameters()) == 11_689_512  # torchvision's own documentation
    with pytest.raises(ModelError, match=r"resnet18: fails on an input of shape \(1, 28, 28\): .*3 channels"):
        build_model(Imported(build="torchvision.models:resnet18"), (1, 28, 28), 10)
