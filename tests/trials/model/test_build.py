from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from trials.data import InputSpec, Splits, load_splits
from trials.errors import ModelError
from trials.model import build_model
from trials.model.build import BUILDERS, READS
from trials.model.resnet import ResidualBlock
from trials.recipe import (
    Data,
    Imported,
    Init,
    Linear,
    Mlp,
    Model,
    Norm,
    SmallConvnet,
    SmallResnet,
    TextBag,
    TextGru,
    TextTransformer,
)

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

def reads_words():
    return nn.Sequential(nn.Embedding(30, 5), nn.Flatten(), nn.Linear(60, 3))

def ones():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    nn.init.ones_(model[1].weight)
    return model

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))

class Bare(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(num_classes))

    def forward(self, images):
        return self.scores + images.mean((1, 2, 3))[:, None]

def number():
    return 3

def broken():
    raise RuntimeError("first line\\nsecond line")
"""
SHAPE = (3, 2, 2)
SPEC = InputSpec("image", SHAPE)
TEXT = InputSpec("text", (12,), vocabulary_size=30)


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
TEXT_MODELS: list[Model] = [
    TextBag(build="text_bag"),
    TextGru(build="text_gru"),
    TextTransformer(build="text_transformer"),
]


@pytest.mark.parametrize("model", BUILT_INS, ids=lambda model: model.build)
def test_built_ins_give_one_logit_per_class_in_training_mode(model: Model) -> None:
    for shape in ((1, 8, 8), (3, 33, 20)):
        module = build_model(model, InputSpec("image", shape), 7)
        assert module.training
        assert module(torch.zeros(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize("model", BUILT_INS, ids=lambda model: model.build)
def test_the_seed_of_the_global_generator_decides_the_weights(model: Model) -> None:
    def weights(seed: int) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return torch.cat(
                [p.detach().flatten() for p in build_model(model, InputSpec("image", (1, 8, 8)), 10).parameters()]
            )

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_every_model_of_the_recipe_has_a_builder() -> None:
    assert set(BUILDERS) == set(READS) == {model.build for model in BUILT_INS + TEXT_MODELS} | {"imported"}


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("name", ["takes_classes", "takes_anything", "Net"])
def test_num_classes_goes_to_factories_that_take_it(name: str) -> None:
    assert build_model(imported(name), SPEC, 5)(torch.zeros(2, *SHAPE)).shape == (2, 5)


@pytest.mark.usefixtures("users")
def test_arguments_reach_the_factory_and_the_trial_forward_changes_nothing() -> None:
    module = build_model(imported("takes_classes", width=9), SPEC, 5)
    assert sum(p.numel() for p in module.parameters()) == 13 * 9 + 10 * 5
    assert build_model(imported("fixed"), SPEC, 3)(torch.zeros(2, *SHAPE)).shape == (2, 3)
    norm = next(m for m in build_model(imported("Net"), SPEC, 5).modules() if isinstance(m, nn.BatchNorm2d))
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
        build_model(model, SPEC, 5)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("users")
def test_an_input_that_does_not_fit_is_named() -> None:
    with pytest.raises(ModelError, match=r"users_model:fixed: fails on an input of shape \(3, 4, 4\): .*mat1 and mat2"):
        build_model(imported("fixed"), InputSpec("image", (3, 4, 4)), 3)


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [
        *(
            (model, InputSpec("features", (30,)), "30 features; expected one of linear, mlp")
            for model in BUILT_INS[2:] + TEXT_MODELS
        ),
        *(
            (model, TEXT, "texts of 12 words; expected one of text_bag, text_gru, text_transformer")
            for model in BUILT_INS
        ),
        *(
            (model, SPEC, "images of 2 x 2; expected one of linear, mlp, small_convnet, small_resnet")
            for model in TEXT_MODELS
        ),
    ],
)
def test_a_model_for_other_inputs_names_those_that_fit(model: Model, spec: InputSpec, message: str) -> None:
    with pytest.raises(ModelError, match=rf"^model.build: {model.build} cannot read {message}, or a module:function$"):
        build_model(model, spec, 3)


@pytest.mark.usefixtures("users")
def test_an_imported_model_reads_anything() -> None:
    assert build_model(imported("reads_words"), TEXT, 3)(torch.ones(2, 12, dtype=torch.int64)).shape == (2, 3)


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("init", ["default", "lecun_normal"])
def test_init_draws_imported_models_anew_only_by_name(init: Init) -> None:
    module = build_model(Imported(build="users_model:ones", init=init), SPEC, 3)
    weight = next(module.parameters())
    assert bool(weight.eq(1).all()) == (init == "default")


@pytest.mark.usefixtures("users")
def test_init_draws_what_is_there_only_after_a_first_pass() -> None:
    module = build_model(Imported(build="users_model:lazy", init="orthogonal"), SPEC, 3)
    weight = next(module.parameters())
    torch.testing.assert_close(weight @ weight.T, torch.eye(3))


@pytest.mark.usefixtures("users")
def test_an_init_without_anything_to_draw_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^model.init: users_model:Bare has no linear, .* for orthogonal to draw"):
        build_model(Imported(build="users_model:Bare", init="orthogonal"), SPEC, 3)


@pytest.mark.parametrize("model", TEXT_MODELS, ids=lambda model: model.build)
def test_text_models_give_one_logit_per_class_and_are_drawn_by_name(model: Model) -> None:
    ids = torch.tensor([[4, 7, 29, 0, 0, 0, 0, 0, 0, 0, 0, 0], [1] * 12])
    assert build_model(model, TEXT, 7)(ids).shape == (2, 7)
    module = build_model(model.model_copy(update={"init": "orthogonal"}), TEXT, 7)
    matrices = {name: p for name, p in module.named_parameters() if p.ndim == 2 and "embedding" not in name}
    matrices.pop("places.weight", None)
    for name, matrix in matrices.items():
        is_stacked = "weight_" in name or "in_proj" in name  # gates, or query, key and value, of 64 units each
        for part in matrix.split(64) if is_stacked else [matrix]:
            wide = part if len(part) <= part.shape[1] else part.T
            torch.testing.assert_close(wide @ wide.T, torch.eye(len(wide)), atol=1e-5, rtol=0)
    assert len(matrices) == {"text_bag": 1, "text_gru": 5, "text_transformer": 9}[model.build]


@pytest.mark.parametrize("init", ["default", "xavier_uniform"])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("zero", [True, False])
def test_residual_blocks_start_as_their_shortcuts_if_wanted(norm: Norm, zero: bool, init: Init) -> None:
    model = SmallResnet(build="small_resnet", norm=norm, init=init, zero_init_residual=zero)
    module = build_model(model, InputSpec("image", (1, 8, 8)), 3)
    blocks = [part for part in module.modules() if isinstance(part, ResidualBlock)]
    images = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(blocks[0](images), images.relu()) == zero
    assert len(blocks) == 3


def test_sections_reach_their_modules() -> None:
    image = InputSpec("image", (3, 9, 9))
    convnet = SmallConvnet(build="small_convnet", width=4, depth=3, norm="group", dropout=0.1, spatial_dropout=0.2)
    expected = ["Conv2d(3, 4", "GroupNorm(4, 4", "Conv2d(8, 16", "GroupNorm(8, 16", "Dropout2d(p=0.2", "Dropout(p=0.1"]
    assert [words for words in expected if words not in str(build_model(convnet, image, 3))] == []
    resnet = SmallResnet(build="small_resnet", width=4, blocks=2, norm="layer", dropout=0.1, spatial_dropout=0.2)
    expected = ["Conv2d(3, 4", "GroupNorm(1, 4", "Conv2d(8, 16", "GroupNorm(1, 16", "Dropout2d(p=0.2", "Dropout(p=0.1"]
    assert [words for words in expected if words not in str(build_model(resnet, image, 3))] == []
    mlp = Mlp(build="mlp", width=9, depth=3, norm="batch", dropout=0.1, input_dropout=0.2)
    expected = ["in_features=243, out_features=9", "BatchNorm1d(9", "Dropout(p=0.2", "Dropout(p=0.1"]
    assert [words for words in expected if words not in str(build_model(mlp, image, 3))] == []


@pytest.mark.parametrize(("side", "most"), [(8, 4), (28, 5), (1, 1)])
def test_too_many_stages_for_the_image_are_refused(side: int, most: int) -> None:
    def convnet(depth: int) -> nn.Module:
        return build_model(
            SmallConvnet(build="small_convnet", width=1, depth=depth), InputSpec("image", (1, side, side + 3)), 3
        )

    assert convnet(most)(torch.zeros(2, 1, side, side + 3)).shape == (2, 3)
    with pytest.raises(ModelError, match=rf"model.depth: {most + 1} stages .* expected at most {most}"):
        convnet(most + 1)


def test_torchvisions_resnet18_has_its_published_size() -> None:
    module = build_model(Imported(build="torchvision.models:resnet18"), InputSpec("image", (3, 32, 32)), 1000)
    assert sum(p.numel() for p in module.parameters()) == 11_689_512  # torchvision's own documentation
    with pytest.raises(ModelError, match=r"resnet18: fails on an input of shape \(1, 28, 28\): .*3 channels"):
        build_model(Imported(build="torchvision.models:resnet18"), InputSpec("image", (1, 28, 28)), 10)


def _accuracy_after(model: nn.Module, splits: Splits, epochs: int) -> float:
    """Test accuracy after AdamW at 0.01 under one-cycle, in batches of 64."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    steps = epochs * -(-len(splits.train) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(splits.train), generator=generator).split(64):  # type: ignore[no-untyped-call]
            inputs = splits.preprocess.normalise(splits.train.inputs[batch])
            optimizer.zero_grad()
            cross_entropy(model(inputs), splits.train.targets[batch]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        logits = model.eval()(splits.preprocess.normalise(splits.test.inputs))
    return float((logits.argmax(1) == splits.test.targets).float().mean())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine make small steps ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("model", [SmallConvnet(build="small_convnet"), SmallResnet(build="small_resnet")])
def test_the_small_networks_learn_digits_within_fifteen_epochs(model: Model) -> None:
    splits = load_splits(Data(source="digits"), torch.device("cpu"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = build_model(model, splits.preprocess.spec, splits.target.outputs)
        assert _accuracy_after(built, splits, epochs=15) >= 0.985
