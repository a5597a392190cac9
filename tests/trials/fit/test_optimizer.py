"""F4: updates against the textbook. R7: exact decay, and none on norms and biases. F8: clipping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from trials.errors import ModelError, TrialError
from trials.fit.optimizer import build_optimizer, clip_gradients, split_by_decay
from trials.recipe import Adam, AdamW, Optimizer, Sgd


class Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1), value, dtype=torch.float64))


def trajectory(section: Optimizer, gradients: list[float], start: float = 1.0) -> list[float]:
    model = Scalar(start)
    optimizer = build_optimizer(model, section)
    values = []
    for gradient in gradients:
        model.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        optimizer.step()
        values.append(model.weight.item())
    return values


GRADIENTS = [0.5, -0.25, 2.0, 0.0, 1.0]


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_steps_equal_the_textbook_update(decoupled: bool) -> None:
    lr, beta1, beta2, eps, decay = 0.1, 0.8, 0.95, 1e-6, 0.3
    section = {False: Adam, True: AdamW}[decoupled](
        name="adamw" if decoupled else "adam", lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay
    )
    weight, first, second, expected = 1.0, 0.0, 0.0, []
    for step, gradient in enumerate(GRADIENTS, start=1):
        if decoupled:
            weight *= 1 - lr * decay
        else:
            gradient = gradient + decay * weight  # L2: the penalty's gradient joins in
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        weight -= lr * (first / (1 - beta1**step)) / (math.sqrt(second / (1 - beta2**step)) + eps)
        expected.append(weight)
    assert trajectory(section, GRADIENTS) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_steps_equal_the_textbook_update(momentum: float, nesterov: bool) -> None:
    lr, decay = 0.1, 0.3
    weight, velocity, expected = 1.0, 0.0, []
    for gradient in GRADIENTS:
        total = gradient + decay * weight
        velocity = momentum * velocity + total
        weight -= lr * (total + momentum * velocity if nesterov else velocity)
        expected.append(weight)
    section = Sgd(name="sgd", lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    assert trajectory(section, GRADIENTS) == pytest.approx(expected, rel=1e-12)


def test_the_default_is_adam_at_3e_4() -> None:
    optimizer = build_optimizer(Scalar(1.0), Adam(name="adam"))
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == 3e-4


class HomeMade(nn.Module):
    """Norms of every sort, tied weights, a home-made gain, a bias of two dimensions and a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.batch_norm = nn.BatchNorm2d(4)
        self.group_norm = nn.GroupNorm(2, 4)
        self.layer_norm = nn.LayerNorm((4, 2, 2))
        self.rms_norm = nn.RMSNorm((4, 2))
        self.attention = nn.MultiheadAttention(4, 2)
        self.gain = nn.Parameter(torch.ones(4))
        self.table_bias = nn.Parameter(torch.ones(4, 4))
        self.head = nn.Linear(4, 4, bias=False)
        self.tied = self.head
        self.frozen = nn.Parameter(torch.ones(4, 4), requires_grad=False)


def test_only_weights_of_layers_decay() -> None:
    model = HomeMade()
    decayed, exempt = split_by_decay(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)] for parameter in decayed} == {
        "conv.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "head.weight",
    }
    assert len(decayed) + len(exempt) == len(names) - 1
    assert names[id(model.frozen)] not in {names[id(parameter)] for parameter in exempt}


@pytest.mark.parametrize(
    ("section", "factor"),
    [
        (Sgd(name="sgd", lr=0.1, momentum=0.0, weight_decay=0.01), 1 - 0.1 * 0.01),
        (AdamW(name="adamw", lr=0.1, weight_decay=0.02), 1 - 0.1 * 0.02),
    ],
)
def test_without_gradients_weights_shrink_by_the_exact_factor_and_norms_and_biases_stay(
    section: Optimizer, factor: float
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)).double()
    nn.init.uniform_(model[1].weight, 0.5, 1.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(model, section).step()
    after = model.state_dict()
    for name in ("0.weight", "3.weight"):
        torch.testing.assert_close(after[name], before[name] * factor, rtol=1e-14, atol=0)
    for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
        assert torch.equal(after[name], before[name])


def test_a_model_with_nothing_to_train_is_named() -> None:
    with pytest.raises(ModelError, match=r"no trainable parameters"):
        build_optimizer(nn.Flatten(), Adam(name="adam"))


def test_nesterov_without_momentum_is_named() -> None:
    with pytest.raises(TrialError, match=r"train\.optimizer\.nesterov: found true with momentum 0"):
        build_optimizer(Scalar(1.0), Sgd(name="sgd", lr=0.1, momentum=0.0, nesterov=True))


def gradients_of(*values: list[float]) -> list[Tensor]:
    parameters: list[Tensor] = [nn.Parameter(torch.zeros(len(entries))) for entries in values]
    for parameter, entries in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(entries)
    return parameters


def test_the_norm_is_of_the_whole_gradient_and_clipping_scales_it_to_the_limit() -> None:
    parameters = gradients_of([3.0, 0.0], [0.0, 4.0])
    assert clip_gradients(parameters, clip_norm=1.0, clip_value=None).item() == pytest.approx(5.0)
    clipped = torch.cat([parameter.grad for parameter in parameters if parameter.grad is not None])
    torch.testing.assert_close(clipped, torch.tensor([0.6, 0.0, 0.0, 0.8]), rtol=1e-5, atol=0)


def test_a_gradient_below_the_limits_is_untouched() -> None:
    parameters = gradients_of([3.0, 0.0], [0.0, 4.0])
    assert clip_gradients(parameters, clip_norm=5.5, clip_value=4.0).item() == pytest.approx(5.0)
    assert [p.grad.tolist() for p in parameters if p.grad is not None] == [[3.0, 0.0], [0.0, 4.0]]


def test_entries_are_clipped_by_value_and_both_limits_hold_together() -> None:
    parameters = gradients_of([3.0, -0.2], [0.1, -4.0])
    clip_gradients(parameters, clip_norm=None, clip_value=0.5)
    assert torch.cat([p.grad for p in parameters if p.grad is not None]).tolist() == pytest.approx(
        [0.5, -0.2, 0.1, -0.5]
    )
    parameters = gradients_of([3.0, 0.0], [0.0, 4.0])
    clip_gradients(parameters, clip_norm=1.0, clip_value=0.7)
    clipped = torch.cat([p.grad for p in parameters if p.grad is not None])
    torch.testing.assert_close(clipped, torch.tensor([0.6, 0.0, 0.0, 0.7]), rtol=1e-5, atol=0)
