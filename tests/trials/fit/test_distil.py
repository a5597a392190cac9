"""A7: what a student learns of its teacher, by hand in numpy, in its limits, and as part of a training."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from small_splits import features, numbers_target, random_split, recipe_of, splits_of
from torch import Tensor, nn
from torch.nn import functional

from trials.check.lr_finder import find_lr
from trials.data import Split, Target
from trials.fit.distil import Distillation, soft_class_loss, value_loss
from trials.fit.fitting import Fitting
from trials.fit.step import Variation, gather_gradient, steps_per_epoch, train_epoch
from trials.model.ensemble import Ensemble
from trials.recipe import Teacher

CPU, FEATURES, CLASSES = torch.device("cpu"), 5, 3
PREPROCESS = features(FEATURES, mean=0.5, std=2.0)
KEPT = {"path": "a.safetensors", "sha256": "0" * 64, "name": "a"}


def scores_of(seed: int, count: int = 7) -> Tensor:
    return 3.0 * torch.randn(count, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores)
    found: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return found


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
def test_of_one_teacher_it_is_the_divergence_of_softened_scores_times_the_square(temperature: float) -> None:
    student, teacher = scores_of(0), scores_of(1)
    q, p = softmax(student.numpy() / temperature), softmax(teacher.numpy() / temperature)
    expected = temperature**2 * np.mean(np.sum(p * np.log(p / q), axis=1))
    for answers in (teacher, teacher.log_softmax(dim=1)):  # scores are logs of probabilities but for a constant
        assert soft_class_loss(student, answers, temperature).item() == pytest.approx(expected, rel=1e-12)
    assert soft_class_loss(teacher, teacher, temperature).item() == pytest.approx(0.0, abs=1e-12)


def test_of_an_ensemble_the_mean_probability_is_softened() -> None:
    """Not the mean of scores, nor of what each member says at T."""
    student, members, shares, temperature = scores_of(0), [scores_of(1), scores_of(2)], [3.0, 1.0], 2.5
    mean = sum(share / 4.0 * softmax(scores.numpy()) for share, scores in zip(shares, members, strict=True))
    p, q = softmax(np.log(mean) / temperature), softmax(student.numpy() / temperature)
    expected = temperature**2 * np.mean(np.sum(p * np.log(p / q), axis=1))
    said = Ensemble([Saying(scores) for scores in members], [None, None], shares, "classification")(torch.zeros(7))
    assert soft_class_loss(student, said.double(), temperature).item() == pytest.approx(expected, rel=1e-5)


class Saying(nn.Module):
    """Answers the same whatever it is asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, _inputs: Tensor) -> Tensor:
        return self.answer


def test_at_one_it_is_the_cross_entropy_with_soft_labels_less_their_entropy() -> None:
    student, labels = scores_of(0), scores_of(1).softmax(dim=1)
    entropy = -(labels * labels.log()).sum(dim=1).mean()
    expected = functional.cross_entropy(student, labels) - entropy
    torch.testing.assert_close(soft_class_loss(student, labels.log(), 1.0), expected)


def test_at_high_temperatures_it_matches_centred_scores_and_the_gradient_keeps_its_size() -> None:
    """Section 2.1 of the paper: the gradient is (z - v) / K for each example's scores less their means."""
    student, teacher = scores_of(0).requires_grad_(), scores_of(1)
    loss = soft_class_loss(student, teacher, 1e4)
    loss.backward()  # type: ignore[no-untyped-call]
    apart = student.detach() - teacher
    apart -= apart.mean(dim=1, keepdim=True)
    torch.testing.assert_close(loss.detach(), apart.square().sum(dim=1).mean() / (2 * CLASSES), rtol=1e-3, atol=0.0)
    assert student.grad is not None
    torch.testing.assert_close(student.grad, apart / CLASSES / len(apart), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_gradient_is_t_times_the_difference_of_the_softened_probabilities(temperature: float) -> None:
    student, teacher = scores_of(0).requires_grad_(), scores_of(1)
    soft_class_loss(student, teacher, temperature).backward()  # type: ignore[no-untyped-call]
    q, p = (softmax(scores.detach().numpy() / temperature) for scores in (student, teacher))
    assert student.grad is not None
    np.testing.assert_allclose(student.grad, temperature * (q - p) / len(q), rtol=1e-10)


def test_of_numbers_it_is_the_squared_difference() -> None:
    student, teacher = torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([[0.0], [2.0], [1.0]])
    assert value_loss(student, teacher, 7.0).item() == pytest.approx(5.0 / 3.0)


class Small(nn.Module):
    """In float64, so that sums in another order agree; under batch norm and dropout, so that its mode shows."""

    def __init__(self, seed: int, norm: bool = False, outputs: int = CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            middle = [nn.BatchNorm1d(8), nn.Dropout(0.5)] if norm else [nn.Tanh()]
            self.inner = nn.Sequential(nn.Linear(FEATURES, 8), *middle, nn.Linear(8, outputs)).double()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.inner(inputs.double())
        return outputs


def fitting_of(
    split: Split,
    teacher: nn.Module | None,
    section: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    target: Target | None = None,
    student: nn.Module | None = None,
    **train: Any,
) -> tuple[Fitting, Variation]:
    train = {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0}} | train
    target = target or Target("classification", ("a", "b", "c"), (1, 1, 1))
    recipe = recipe_of(train, {"task": target.task, **(data or {})}, seed=3)
    splits = splits_of(split, PREPROCESS, target)
    said = Teacher.model_validate({"members": [{"weights": KEPT, "recipe": {}}], **(section or {})})
    distillation = None if teacher is None else Distillation(teacher, said, recipe)
    steps, net = steps_per_epoch(len(split), recipe.train), student or Small(0, outputs=target.outputs)
    fitting = Fitting(net, recipe, target, steps, CPU, distillation=distillation)
    fitting.begin_epoch(1)
    return fitting, Variation(splits, recipe, CPU)


def teacher_of(task: Any = "classification", outputs: int = CLASSES) -> Ensemble:
    members = [Small(11, norm=True, outputs=outputs), Small(12, outputs=outputs)]
    return Ensemble(members, [None, None], [2.0, 1.0], task).requires_grad_(False).eval()


def gradients(fitting: Fitting, vary: Variation, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
    vary.begin_epoch(1)
    batch = gather_gradient(fitting, vary, rows, share=1.0)
    return batch.loss, [parameter.grad for parameter in fitting.model.parameters() if parameter.grad is not None]


LOSSES: list[dict[str, Any]] = [
    {"name": "cross_entropy", "label_smoothing": 0.1, "class_weights": [1.0, 2.0, 0.5]},
    {"name": "bce"},
    {"name": "focal"},
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: str(loss["name"]))
@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_the_whole_loss_is_the_labels_and_the_teachers_by_their_shares(mix: str, loss: dict[str, Any]) -> None:
    """By hand, on the inputs that the student was seen to be given, blended where they are."""
    split, rows, teacher = random_split(12, FEATURES, CLASSES), torch.arange(12), teacher_of()
    section = {"hard_fraction": 0.3, "temperature": 2.0}
    data = {"mix": mix, "mix_alpha": 1.0}
    found, slopes = gradients(*fitting_of(split, teacher, section, data, loss=loss), rows)

    alone, vary = fitting_of(split, None, None, data, loss=loss)
    hard, _ = gradients(alone, vary, rows)
    vary.begin_epoch(1)
    inputs, _, blend = vary(rows)
    assert (blend is None) == (mix == "none")
    twin = Small(0)
    outputs = twin(inputs)
    p = (teacher(inputs).double() / 2.0).softmax(dim=1)
    scores = functional.logsigmoid(outputs) if loss["name"] == "bce" else outputs
    soft = 4.0 * (p * (p.log() - (scores / 2.0).log_softmax(dim=1))).sum(dim=1).mean()
    assert found.item() == pytest.approx(0.3 * hard.item() + 0.7 * soft.item(), rel=1e-6)

    (0.7 * soft).backward()
    of_labels = [parameter.grad for parameter in alone.model.parameters()]
    for slope, labels, own in zip(slopes, of_labels, twin.parameters(), strict=True):
        assert labels is not None
        assert own.grad is not None
        torch.testing.assert_close(slope, 0.3 * labels + own.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("micro_batch", [1, 3, 5])
def test_chunks_give_the_gradient_of_the_whole_batch(micro_batch: int) -> None:
    split, rows = random_split(13, FEATURES, CLASSES), torch.arange(13)
    whole, expected = gradients(*fitting_of(split, teacher_of()), rows)
    loss, found = gradients(*fitting_of(split, teacher_of(), micro_batch=micro_batch), rows)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_batches_of_a_group_give_the_weights_of_the_larger_batch_and_the_teacher_stays_as_it_is() -> None:
    split, teacher = random_split(37, FEATURES, CLASSES), teacher_of()
    before = copy.deepcopy(teacher.state_dict())
    states = []
    both: list[dict[str, Any]] = [{"batch_size": 4, "accumulate": 4}, {"batch_size": 16}]
    for sizes in both:
        fitting, vary = fitting_of(split, teacher, epochs=2, **sizes)
        for epoch in (1, 2):
            train_epoch(fitting, vary.splits, vary, epoch, fitting.recipe)
        states.append(fitting.model.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-5, atol=1e-7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize("loss", [None, {"name": "huber", "delta": 0.5}])
def test_a_number_is_learnt_from_the_mean_value(loss: dict[str, Any] | None) -> None:
    inputs = torch.randn(8, FEATURES, generator=torch.Generator().manual_seed(0))
    split, rows = Split(inputs, inputs @ torch.arange(1.0, 1.0 + FEATURES)), torch.arange(8)
    target, teacher = numbers_target(std=50.0), teacher_of("regression", outputs=1)
    found, _ = gradients(*fitting_of(split, teacher, {"hard_fraction": 0.25}, target=target, loss=loss), rows)
    hard, _ = gradients(*fitting_of(split, None, target=target, loss=loss), rows)
    known, student = PREPROCESS.normalise(inputs), Small(0, outputs=1)
    mean = (2.0 * teacher.members[0](known) + teacher.members[1](known)) / 3.0
    soft = (student(known) - mean).square().mean().item()
    assert found.item() == pytest.approx(0.25 * hard.item() + 0.75 * soft, rel=1e-6)


def test_labels_alone_are_plain_training_bit_for_bit_and_no_teacher_is_asked() -> None:
    class Silent(nn.Module):
        def forward(self, _inputs: Tensor) -> Tensor:
            raise AssertionError("asked")

    split = random_split(12, FEATURES, CLASSES)
    results = []
    for teacher in (None, Silent()):
        fitting, vary = fitting_of(split, teacher, {"hard_fraction": 1.0}, batch_size=4)
        report = train_epoch(fitting, vary.splits, vary, 1, fitting.recipe)
        results.append((report, fitting.model.state_dict()))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(tensor, results[1][1][name]) for name, tensor in results[0][1].items())


def test_a_range_test_is_of_the_whole_loss() -> None:
    """Its first loss, before any update, in one batch of all examples."""
    split, train = random_split(12, FEATURES, CLASSES), {"lr_finder": {"steps": 10}, "batch_size": 12}
    fitting, vary = fitting_of(split, teacher_of(), {"hard_fraction": 0.3}, **train)  # type: ignore[arg-type]
    curve = find_lr(fitting, vary)
    loss, _ = gradients(fitting, vary, torch.arange(12))
    assert curve.losses[0] == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize(("precision", "digits"), [("bf16", 3e-2), ("fp16", 4e-3)])
def test_under_less_precision_the_loss_is_nearly_the_same(precision: str, digits: float) -> None:
    """The teacher answers in the student's arithmetic; the loss itself is computed in float32."""
    split, rows, losses = random_split(16, FEATURES, CLASSES), torch.arange(16), []
    for name in ("fp32", precision):
        torch.manual_seed(0)
        student = nn.Linear(FEATURES, CLASSES)
        member = nn.Linear(FEATURES, CLASSES)
        teacher = Ensemble([member], [None], [1.0], "classification").requires_grad_(False).eval()
        fitting, vary = fitting_of(split, teacher, {"hard_fraction": 0.0}, student=student, precision=name)
        loss, _ = gradients(fitting, vary, rows)
        assert loss.dtype == torch.float32
        losses.append(loss.item())
    assert 0.0 < abs(losses[1] / losses[0] - 1.0) < digits
    assert math.isfinite(losses[0])
