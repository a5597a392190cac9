import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from trials.model.convnet import ConvNet
from trials.model.init import INITS, initialise
from trials.model.mlp import MlpClassifier
from trials.model.resnet import ResNet
from trials.recipe import Init

IN, OUT, SIDE = 96, 160, 3


def variance(name: Init, fan_in: int, fan_out: int, is_convolution: bool) -> float:
    """The textbook's, for ReLU where the scheme has a gain."""
    he = 2 / (fan_out if is_convolution else fan_in)
    return {
        "default": he,
        "xavier_uniform": 2 / (fan_in + fan_out),
        "xavier_normal": 2 / (fan_in + fan_out),
        "kaiming_uniform": he,
        "kaiming_normal": he,
        "lecun_normal": 1 / fan_in,
    }[name]


def assert_variance(weight: Tensor, expected: float, is_uniform: bool) -> None:
    """Within five standard errors: the square of a draw varies by 2 variances (normal) or by 4/5 (uniform)."""
    error = math.sqrt((0.8 if is_uniform else 2.0) / weight.numel())
    assert abs(weight.square().mean().item() / expected - 1) < 5 * error
    assert abs(weight.mean().item()) < 5 * math.sqrt(expected / weight.numel())
    if is_uniform:
        limit = math.sqrt(3 * expected)
        assert limit * 0.99 < weight.abs().max().item() <= limit


SCHEMES = [name for name in get_args(Init) if name != "orthogonal"]


@pytest.mark.parametrize("name", SCHEMES)
def test_variances_of_linear_layers_and_convolutions(name: Init) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(IN, OUT, SIDE), nn.Conv1d(IN, OUT, SIDE), nn.Linear(IN, OUT), nn.Linear(OUT, IN))
    assert initialise(model, name) == (3 if name == "default" else 4)
    for layer, window, is_convolution in ((model[0], SIDE**2, True), (model[1], SIDE, True), (model[2], 1, False)):
        assert isinstance(layer.weight, Tensor)
        expected = variance(name, IN * window, OUT * window, is_convolution)
        assert_variance(layer.weight, expected, name.endswith("uniform"))
        assert isinstance(layer.bias, Tensor)
        assert not layer.bias.any()


@pytest.mark.parametrize("name", SCHEMES)
def test_the_stacked_matrices_of_a_gru_and_of_attention_are_drawn_one_by_one(name: Init) -> None:
    torch.manual_seed(0)
    gru = nn.GRU(IN, OUT, num_layers=2, bidirectional=True)
    assert initialise(gru, name) == 2 * 2 * 2 * 3
    for key, parameter in gru.named_parameters():
        if "bias" in key:
            assert not parameter.any()
        else:
            for gate in parameter.split(OUT):  # type: ignore[no-untyped-call]
                assert_variance(gate, variance(name, gate.shape[1], OUT, False), name.endswith("uniform"))
    attention = nn.MultiheadAttention(IN, 4)
    model = nn.Sequential(attention, nn.Linear(IN, 3))
    initialise(model, name)
    for part in attention.in_proj_weight.split(IN):
        assert_variance(part, variance(name, IN, IN, False), name.endswith("uniform"))
    assert_variance(attention.out_proj.weight, variance(name, IN, IN, False), name.endswith("uniform"))


def test_orthogonal_matrices_are_orthogonal() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(IN, OUT), nn.Linear(OUT, IN), nn.Conv2d(4, 30, 3), nn.Conv2d(9, 30, 3), nn.GRU(IN, 50)
    )
    assert initialise(model, "orthogonal") == 4 + 2 * 3
    matrices = [parameter.flatten(1) for parameter in list(model.parameters())[:8] if parameter.ndim > 1]
    gru = model[4]
    assert isinstance(gru, nn.GRU)
    for stacked in (gru.weight_ih_l0, gru.weight_hh_l0):
        matrices += stacked.split(50)
    for matrix in matrices:
        rows, columns = matrix.shape
        product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
        torch.testing.assert_close(product, torch.eye(min(rows, columns)), atol=1e-5, rtol=0)
    assert len(matrices) == 4 + 6


def test_an_lstm_that_projects_has_gates_and_a_projection() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(IN, OUT, proj_size=40)
    assert initialise(lstm, "orthogonal") == 4 + 4 + 1
    torch.testing.assert_close(lstm.weight_hr_l0 @ lstm.weight_hr_l0.T, torch.eye(40), atol=1e-5, rtol=0)


def test_by_default_the_head_keeps_its_small_start_and_by_name_it_does_not() -> None:
    torch.manual_seed(0)
    model = MlpClassifier((200,), 50, 300, 2)
    before = model.head.weight.clone(), model.head.bias.clone()
    initialise(model, "default")
    assert torch.equal(model.head.weight, before[0])
    assert torch.equal(model.head.bias, before[1])
    assert model.head.weight.abs().max().item() <= model.head.in_features**-0.5
    initialise(model, "lecun_normal")
    assert_variance(model.head.weight, 1 / 300, is_uniform=False)
    assert not model.head.bias.any()


def test_norms_embeddings_and_bare_parameters_stay() -> None:
    torch.manual_seed(0)

    class Others(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.embedding = nn.Embedding(5, 4, padding_idx=0)
            self.scale = nn.Parameter(torch.randn(4))

    model = Others()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert initialise(model, "xavier_normal") == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_built_in_networks_start_with_kaiming_fan_out_variance() -> None:
    torch.manual_seed(0)
    for model in (ConvNet(3, 10, 64, 2), ResNet(3, 10, 32, 1)):
        initialise(model, "default")
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
                assert_variance(module.weight, 2 / (9 * module.out_channels), is_uniform=False)


def test_every_name_of_the_recipe_has_its_scheme() -> None:
    assert tuple(INITS) == get_args(Init)
