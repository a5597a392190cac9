"""A4: the statistics equal one big-batch computation, at every depth, and nothing else is changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from trials.average.batch_norm import _ELEMENTS_IN_CACHE, Moments, refresh_batch_norm


def deep_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5, momentum=None),
        nn.Flatten(),
        nn.Linear(80, 6),
        nn.BatchNorm1d(6, affine=False),
    )


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    # Sorted by brightness, so that batches differ strongly and a mean of batch variances is plainly wrong.
    return torch.randn(count, 3, 8, 8, generator=generator) * 3 + torch.linspace(-20, 20, count).view(-1, 1, 1, 1)


def one_big_batch(model: nn.Module, inputs: Tensor) -> nn.Module:
    """The twin: torch's own statistics of a single training batch, without dropout."""
    twin = copy.deepcopy(model).train()
    for module in twin.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = 1.0
    with torch.no_grad():
        twin(inputs)
    return twin


@pytest.mark.parametrize("batch_size", [1, 7, 16, 50, 64])
def test_statistics_equal_those_of_one_big_batch_at_every_depth(batch_size: int) -> None:
    model, inputs = deep_model(), images(50)  # 7 and 16 leave an uneven last batch
    refresh_batch_norm(model, inputs, batch_size)
    for name, expected in one_big_batch(model, inputs).named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(model.get_buffer(name), expected, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("at_once_elements", "batches"), [(50 * 4 * 6 * 6, [50]), (50 * 4 * 6 * 6 - 1, [7, 7, 7, 7, 7, 7, 7, 1] * 3)]
)
def test_one_pass_where_the_widest_layer_may_have_all_at_once(at_once_elements: int, batches: list[int]) -> None:
    model, inputs = deep_model(), images(50)
    given: list[int] = []
    model[0].register_forward_pre_hook(lambda _, args: given.append(len(args[0])))
    refresh_batch_norm(model, inputs, batch_size=7, at_once_elements=at_once_elements)
    assert given == [2, *batches]
    for name, expected in one_big_batch(model, inputs).named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(model.get_buffer(name), expected, rtol=1e-4, atol=1e-5, msg=name)


def test_the_first_layer_has_the_true_mean_and_unbiased_variance() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1))
    refresh_batch_norm(model, torch.tensor([[1.0], [3.0], [5.0], [7.0], [9.0]]), batch_size=2)
    assert model[0].running_mean.item() == 5.0
    assert model[0].running_var.item() == 10.0


@pytest.mark.parametrize("batch_size", [3, 100])
def test_a_large_offset_costs_no_digits(batch_size: int) -> None:
    """E[x^2] - E[x]^2 in float32 would give a variance of 0 or below here."""
    spread = torch.linspace(-1, 1, 100, dtype=torch.float64).view(-1, 1)
    inputs = (spread + 10_000).float()
    model = nn.Sequential(nn.BatchNorm1d(1))
    refresh_batch_norm(model, inputs, batch_size)
    torch.testing.assert_close(model[0].running_var.double(), inputs.double().var(0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_of_more_than_a_cache_holds(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(70, 32, 16, 16, generator=generator) + torch.arange(70).view(-1, 1, 1, 1)
    assert values.numel() > 2 * _ELEMENTS_IN_CACHE
    assert values.numel() % _ELEMENTS_IN_CACHE
    found = Moments.of(values.to(memory_format=layout))
    variance, mean = torch.var_mean(values.double(), dim=[0, 2, 3], correction=0)
    assert found.count == 70 * 16 * 16
    torch.testing.assert_close(found.mean, mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.squares / found.count, variance, rtol=1e-6, atol=0)


def test_pooled_moments_equal_those_of_the_whole() -> None:
    values = torch.randn(30, 2, 5, generator=torch.Generator().manual_seed(0)) + torch.arange(30).view(-1, 1, 1)
    pooled = Moments.of(values[:4]) + Moments.of(values[4:5]) + Moments.of(values[5:])
    flat = values.double().transpose(0, 1).reshape(2, -1)
    assert pooled.count == 150
    torch.testing.assert_close(pooled.mean, flat.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(pooled.squares / 150, flat.var(1, correction=0), rtol=1e-6, atol=0)


class Faulty(nn.Module):
    """Fails on the n-th batch it meets."""

    def __init__(self, on_batch: int) -> None:
        super().__init__()
        self.left = on_batch

    def forward(self, inputs: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise ArithmeticError("planted")
        return inputs


@pytest.mark.parametrize("fails", [False, True])
def test_parameters_momentum_and_modes_are_as_before_also_after_an_error(fails: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), Faulty(3 if fails else -1), deep_tail())
    model.train()
    model[3][1].eval()  # a frozen layer must stay in eval mode
    parameters = {name: value.clone() for name, value in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    if fails:
        with pytest.raises(ArithmeticError):
            refresh_batch_norm(model, images(20), batch_size=6)
    else:
        refresh_batch_norm(model, images(20), batch_size=6)
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == [0.3, 0.1]
    assert all(torch.equal(parameters[name], value) for name, value in model.named_parameters())
    assert all(not module._forward_pre_hooks for module in model.modules())


def deep_tail() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten())


def test_prepare_makes_the_models_input_and_dropout_is_off() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3))
    raw = torch.arange(30, dtype=torch.uint8).view(10, 3)
    refresh_batch_norm(model, raw, batch_size=4, prepare=lambda part: part / 10)
    torch.testing.assert_close(model[1].running_mean, (raw / 10).mean(0))
    torch.testing.assert_close(model[1].running_var, (raw / 10).var(0))


def test_layers_that_keep_no_statistics_or_take_no_part_are_left_alone() -> None:
    class Partial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.BatchNorm1d(3)
            self.stateless = nn.BatchNorm1d(3, track_running_stats=False)
            self.unused = nn.BatchNorm1d(3)

        def forward(self, inputs: Tensor) -> Tensor:
            output: Tensor = self.stateless(self.used(inputs))
            return output

    model = Partial()
    inputs = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    refresh_batch_norm(model, inputs, batch_size=5)
    torch.testing.assert_close(model.used.running_mean, inputs.mean(0))
    assert torch.equal(model.unused.running_mean, torch.zeros(3))


def test_a_model_without_batch_norm_is_not_run() -> None:
    refresh_batch_norm(nn.Sequential(Faulty(1)), torch.zeros(4, 3), batch_size=2)
