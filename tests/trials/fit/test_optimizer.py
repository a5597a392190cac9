"""F4: updates against the textbook. R7: exact decay, and none on norms and biases. F8: clipping."""

from __future__ import annotations

import io
import math
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from trials.errors import ModelError, TrialError
from trials.fit.optimizer import OPTIMIZERS, build_optimizer, clip_gradients, split_by_decay
from trials.recipe import Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RmsProp, Sgd

NAMES = sorted(OPTIMIZERS)


def section_of(name: str, **settings: Any) -> Optimizer:
    section: Optimizer = TypeAdapter(Optimizer).validate_python({"name": name, "lr": 0.1, **settings})
    return section


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


def test_nadam_steps_equal_the_published_update() -> None:
    """Dozat 2016, algorithm 8, with its schedule of momenta mu_t = beta1 (1 - 0.5 * 0.96**(t / 250))."""
    lr, beta1, beta2, eps, decay = 0.1, 0.8, 0.95, 1e-6, 0.3
    weight, first, second, product, expected = 1.0, 0.0, 0.0, 1.0, []
    for step, gradient in enumerate(GRADIENTS, start=1):
        gradient += decay * weight
        mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (time / 250)) for time in (step, step + 1))
        product *= mu
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        ahead = mu_next * first / (1 - product * mu_next) + (1 - mu) * gradient / (1 - product)
        weight -= lr * ahead / (math.sqrt(second / (1 - beta2**step)) + eps)
        expected.append(weight)
    section = NAdam(name="nadam", lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay)
    assert trajectory(section, GRADIENTS) == pytest.approx(expected, rel=1e-8)  # torch keeps the product in float32


def test_radam_steps_equal_the_published_update_with_and_without_rectification() -> None:
    """arXiv:1908.03265, algorithm 2: plain momentum until the variance of the step size is known."""
    lr, beta1, beta2, eps, decay = 0.1, 0.8, 0.95, 1e-9, 0.3
    weight, first, second, expected, rectified = 1.0, 0.0, 0.0, [], []
    longest = 2 / (1 - beta2) - 1
    gradients = [*GRADIENTS, 0.3, -0.7, 0.2]
    for step, gradient in enumerate(gradients, start=1):
        gradient += decay * weight
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        unbiased = first / (1 - beta1**step)
        length = longest - 2 * step * beta2**step / (1 - beta2**step)
        rectified.append(length > 5)
        if length > 5:
            variance = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            weight -= lr * math.sqrt(variance) * unbiased * math.sqrt(1 - beta2**step) / (math.sqrt(second) + eps)
        else:
            weight -= lr * unbiased
        expected.append(weight)
    assert len(set(rectified)) == 2
    section = RAdam(name="radam", lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay)
    assert trajectory(section, gradients) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop_steps_equal_the_textbook_update(momentum: float) -> None:
    lr, alpha, eps, decay = 0.1, 0.8, 1e-6, 0.3
    weight, squares, velocity, expected = 1.0, 0.0, 0.0, []
    for gradient in GRADIENTS:
        gradient += decay * weight
        squares = alpha * squares + (1 - alpha) * gradient**2
        velocity = momentum * velocity + gradient / (math.sqrt(squares) + eps)
        weight -= lr * velocity
        expected.append(weight)
    section = RmsProp(name="rmsprop", lr=lr, alpha=alpha, momentum=momentum, eps=eps, weight_decay=decay)
    assert trajectory(section, GRADIENTS) == pytest.approx(expected, rel=1e-12)


def test_adagrad_steps_equal_the_textbook_update() -> None:
    lr, eps, decay = 0.1, 1e-6, 0.3
    weight, squares, expected = 1.0, 0.0, []
    for gradient in GRADIENTS:
        gradient += decay * weight
        squares += gradient**2
        weight -= lr * gradient / (math.sqrt(squares) + eps)
        expected.append(weight)
    section = Adagrad(name="adagrad", lr=lr, eps=eps, weight_decay=decay)
    assert trajectory(section, GRADIENTS) == pytest.approx(expected, rel=1e-12)


def test_the_default_is_adam_at_3e_4() -> None:
    optimizer = build_optimizer(Scalar(1.0), Adam(name="adam"))
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == 3e-4


def test_every_optimizer_of_the_recipe_has_its_builder() -> None:
    names = {get_args(section.model_fields["name"].annotation)[0] for section in get_args(get_args(Optimizer)[0])}
    assert set(OPTIMIZERS) == names


class HomeMade(nn.Module):
    """Norms of every sort, tied weights, home-made gains, a bias of two dimensions, an embedding, a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.batch_norm = nn.BatchNorm2d(4)
        self.group_norm = nn.GroupNorm(2, 4)
        self.layer_norm = nn.LayerNorm((4, 2, 2))
        self.rms_norm = nn.RMSNorm((4, 2))
        self.attention = nn.MultiheadAttention(4, 2)
        self.embedding = nn.Embedding(5, 4)
        self.gain = nn.Parameter(torch.ones(4))
        self.layer_scale = nn.Parameter(torch.ones(4, 1, 1))
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
        "embedding.weight",
        "head.weight",
        "frozen",
    }
    assert len(decayed) + len(exempt) == len(names)


def conv_net() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2)
    ).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)
    return model


def step_without_gradients(section: Optimizer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters of a small network before and after a step with gradients of zero."""
    model = conv_net()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(model, section).step()
    return before, dict(model.named_parameters())


EXACT_FACTORS = [
    (section_of("sgd", momentum=0.0, weight_decay=0.01), 1 - 0.1 * 0.01, 1 - 0.1 * 0.01),
    (section_of("sgd", momentum=0.9, weight_decay=0.01), 1 - 0.1 * 0.01, 1 - 0.1 * 0.01),
    (section_of("adamw", weight_decay=0.02), 1 - 0.1 * 0.02, 1 - 0.1 * 0.02),
    (section_of("muon", weight_decay=0.02, adamw_lr=0.005), 1 - 0.1 * 0.02, 1 - 0.005 * 0.02),
]
"""Section, factor of the weights between the first layer and the head, factor of these two."""

WEIGHTS = {"0.weight", "2.weight", "4.weight", "5.weight"}


@pytest.mark.parametrize(("section", "inner", "outer"), EXACT_FACTORS)
@pytest.mark.parametrize("decay_all", [False, True])
def test_without_gradients_weights_shrink_by_the_exact_factor_and_norms_and_biases_stay_unless_told(
    section: Optimizer, inner: float, outer: float, decay_all: bool
) -> None:
    before, after = step_without_gradients(section.model_copy(update={"decay_all": decay_all}))
    for name, old in before.items():
        factor = inner if name in ("2.weight", "4.weight") else outer
        if name in WEIGHTS or decay_all:
            torch.testing.assert_close(after[name].detach(), old * factor, rtol=1e-14, atol=0)
        else:
            assert torch.equal(after[name], old)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("decay_all", [False, True])
def test_without_gradients_every_optimizer_shrinks_weights_and_leaves_norms_and_biases(
    name: str, decay_all: bool
) -> None:
    before, after = step_without_gradients(section_of(name, weight_decay=0.01, decay_all=decay_all))
    for key, old in before.items():
        if key in WEIGHTS or decay_all:
            assert bool((after[key] < old).all())
        else:
            assert torch.equal(after[key], old)


def train_briefly(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_parameter_stays_bit_for_bit_and_is_trained_once_it_is_thawed(name: str) -> None:
    momentum = {"momentum": 0.9} if name in ("sgd", "rmsprop", "muon") else {}
    model = conv_net()
    model[:3].requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = build_optimizer(model, section_of(name, weight_decay=0.1, decay_all=True, **momentum))
    train_briefly(model, optimizer, range(3))
    for key, value in model.named_parameters():
        assert torch.equal(value, before[key]) == (not value.requires_grad)
    model[:3].requires_grad_(True)
    train_briefly(model, optimizer, range(3, 4))
    assert not any(torch.equal(value, before[key]) for key, value in model.named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_state_continues_bit_for_bit(name: str) -> None:
    section = section_of(name, weight_decay=0.1)
    whole, first, second = (conv_net().float() for _ in range(3))
    train_briefly(whole, build_optimizer(whole, section, lr_of=body_slower), range(6))
    optimizer = build_optimizer(first, section, lr_of=body_slower)
    train_briefly(first, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second.load_state_dict(saved["model"])
    optimizer = build_optimizer(second, section, lr_of=body_slower)
    optimizer.load_state_dict(saved["optimizer"])
    train_briefly(second, optimizer, range(3, 6))
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def body_slower(name: str) -> float:
    return 1.0 if name.startswith("5.") else 0.25


@pytest.mark.parametrize("name", NAMES)
def test_rates_of_their_own_scale_the_steps_exactly(name: str) -> None:
    """A quarter is exact in binary, and no state of an optimizer depends on its learning rate in the first step."""
    moved = []
    for lr_of in (None, body_slower):
        model = conv_net()
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        optimizer = build_optimizer(model, section_of(name, weight_decay=0.0), lr_of=lr_of)
        assert {p for group in optimizer.param_groups for p in group["params"]} == set(model.parameters())
        train_briefly(model, optimizer, range(1))
        moved.append({key: value.detach() for key, value in model.named_parameters()})
    for key, full in moved[0].items():
        assert full.abs().max() > 0
        assert torch.equal(moved[1][key], full * body_slower(key))


def test_each_group_says_its_multiple_of_the_learning_rate() -> None:
    model = conv_net()
    optimizer = build_optimizer(model, section_of("adamw", weight_decay=0.1), lr_of=body_slower)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [
        (group["lr_factor"], group["lr"], group["weight_decay"], [names[id(p)] for p in group["params"]])
        for group in optimizer.param_groups
    ]
    assert found == [
        (0.25, 0.025, 0.1, ["0.weight", "2.weight", "4.weight"]),
        (0.25, 0.025, 0.0, ["0.bias", "1.weight", "1.bias", "2.bias", "4.bias"]),
        (1.0, 0.1, 0.1, ["5.weight"]),
        (1.0, 0.1, 0.0, ["5.bias"]),
    ]


def test_a_model_with_nothing_to_train_is_named() -> None:
    with pytest.raises(ModelError, match=r"no trainable parameters"):
        build_optimizer(nn.Flatten(), Adam(name="adam"))
    with pytest.raises(ModelError, match=r"no trainable parameters"):
        build_optimizer(conv_net().requires_grad_(False), Adam(name="adam"))


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
