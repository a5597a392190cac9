"""F4: Muon equals torch's on matrices, orthogonalises kernels as matrices, and is one optimizer with AdamW."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trials.fit.muon import MuonWithAdamW, hidden_matrices
from trials.fit.optimizer import build_optimizer
from trials.recipe import Muon

SECTION = Muon(name="muon", lr=0.02, momentum=0.9, weight_decay=0.1, adamw_lr=0.003)


def gradients(shape: torch.Size, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def test_matrices_and_the_rest_equal_torchs_two_optimizers_bit_for_bit() -> None:
    model, twin = mlp(), mlp()
    optimizer = build_optimizer(model, SECTION)
    named = dict(twin.named_parameters())
    vectors = [parameter for parameter in twin.parameters() if parameter.ndim == 1]
    muon = torch.optim.Muon([named["2.weight"]], lr=0.02, momentum=0.9, weight_decay=0.1)
    groups: list[dict[str, Any]] = [
        {"params": [named["0.weight"], named["4.weight"]]},
        {"params": vectors, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=SECTION.lr * (SECTION.adamw_lr / SECTION.lr), weight_decay=0.1)
    for step in range(5):
        for network in (model, twin):
            for parameter in network.parameters():
                parameter.grad = gradients(parameter.shape, 5)[step]
        for part in (optimizer, muon, adamw):
            part.step()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(48, 96), (96, 48), (32, 16, 3, 3), (64, 4, 3, 3)])
def test_an_update_is_nearly_orthogonal(shape: tuple[int, ...]) -> None:
    """Five steps of the iteration bring singular values to about 0.7 to 1.2 (https://kellerjordan.github.io/posts/muon/).

    Only those near 0 stay below, which random matrices that are not square do not have.
    """
    weight = nn.Parameter(torch.zeros(shape))
    rows, columns = shape[0], math.prod(shape[1:])
    group = {"params": [weight], "orthogonal": True, "lr": 0.5}
    weight.grad = gradients(weight.shape, 1)[0]
    MuonWithAdamW([group], lr=0.5, momentum=0.0, orthogonal_steps=5).step()
    values = torch.linalg.svdvals(weight.detach().flatten(1)) / (0.5 * math.sqrt(max(1.0, rows / columns)))
    assert values.min() > 0.65
    assert values.max() < 1.25


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_trained_as_the_matrix_of_its_rows_however_it_lies_in_memory(
    memory_format: torch.memory_format, side: int
) -> None:
    start = gradients(torch.Size((6, 4, side, side)), 1)[0]
    kernel, matrix = nn.Parameter(start.to(memory_format=memory_format)), nn.Parameter(start.flatten(1).clone())
    settings = {"orthogonal": True, "weight_decay": 0.1}
    one: torch.optim.Optimizer = MuonWithAdamW(
        [{"params": [kernel], **settings}], lr=0.1, momentum=0.9, orthogonal_steps=5
    )
    other = torch.optim.Muon([matrix], lr=0.1, momentum=0.9, weight_decay=0.1)
    for gradient in gradients(kernel.shape, 3):
        kernel.grad, matrix.grad = gradient.to(memory_format=memory_format), gradient.flatten(1)
        for optimizer in (one, other):
            optimizer.step()
    assert torch.equal(kernel.flatten(1), matrix)
    assert kernel.is_contiguous(memory_format=memory_format)


class LinearWithTable(nn.Linear):
    """A layer that also has a matrix which is not named a weight."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.table = nn.Parameter(torch.zeros(inputs, outputs))


class Text(nn.Module):
    """Embeddings of words and places, a token of its own, an encoder, a recurrent layer and a head."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.places = nn.Embedding(5, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16)
        self.recurrent = nn.GRU(8, 8)
        self.middle = LinearWithTable(8, 11)
        self.head = nn.Linear(8, 11)
        if tied:
            self.head.weight = self.middle.weight


def names_of(model: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for parameter in parameters]


def test_hidden_matrices_lie_between_the_first_layer_and_the_head() -> None:
    assert names_of(mlp(), []) == []
    model = mlp()
    assert names_of(model, hidden_matrices(model)) == ["2.weight"]
    text = Text()
    inside = [
        "encoder.self_attn.in_proj_weight",
        "encoder.self_attn.out_proj.weight",
        "encoder.linear1.weight",
        "encoder.linear2.weight",
        "recurrent.weight_ih_l0",
        "recurrent.weight_hh_l0",
    ]
    assert names_of(text, hidden_matrices(text)) == [*inside, "middle.weight"]
    tied = Text(tied=True)
    assert names_of(tied, hidden_matrices(tied)) == inside


def test_a_model_without_hidden_matrices_is_trained_by_adamw_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    twin = copy.deepcopy(model)
    adamw = torch.optim.AdamW([p for p in twin.parameters() if p.ndim == 2], lr=0.003, weight_decay=0.1)
    optimizer = build_optimizer(model, SECTION)
    for network, part in ((model, optimizer), (twin, adamw)):
        for parameter in network.parameters():
            parameter.grad = gradients(parameter.shape, 1)[0]
        part.step()
    torch.testing.assert_close(model[0].weight, twin[0].weight, rtol=1e-6, atol=0)
    assert {group["lr_factor"] for group in optimizer.param_groups} == {0.003 / 0.02}


def test_an_overflow_anywhere_skips_all_parts_and_a_step_is_told_once() -> None:
    model = mlp()
    optimizer = build_optimizer(model, SECTION)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    applied: list[bool] = []
    optimizer.register_step_post_hook(lambda *_: applied.append(True))
    start = copy.deepcopy(model.state_dict())
    for bad in ("0.bias", "2.weight"):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.full_like(parameter, math.inf if name == bad else 1.0)
        scaler.scale(torch.zeros(()))
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert not applied
    assert not optimizer.state
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) * scaler.get_scale()
    scaler.unscale_(optimizer)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters() if p.grad is not None)
    scaler.step(optimizer)
    scaler.update()
    assert applied == [True]
    assert not any(torch.equal(value, start[name]) for name, value in model.state_dict().items())
