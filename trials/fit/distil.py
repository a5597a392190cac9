"""Learn from the answers of a teacher beside the labels (Hinton, Vinyals and Dean, arXiv:1503.02531).

The teacher answers on the very inputs that the student is given, augmented and mixed, so that a batch may pass in
chunks: what it says of an example depends on no other one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from trials.fit.loss import class_scores
from trials.fit.precision import autocast
from trials.recipe import Recipe, Teacher


def soft_class_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 * KL(teacher at T || student at T)`` in nats, its mean over a batch, a scalar.

    ``student`` is scores (N, classes) whose softmax is the student's probabilities; at T these are the softmax of the
    scores divided by T. ``teacher`` is logs (N, classes) of the teacher's probabilities; at T these are the softmax of
    the logs divided by T. So an ensemble's members are averaged first, as they answer at a temperature of 1, each by
    its share, and it is their mean that is softened; for a single member that is the softmax of its scores divided by
    T. The factor keeps the gradient's size where T changes (arXiv:1503.02531, section 2).
    """
    of_teacher = functional.log_softmax(teacher / temperature, dim=1)
    of_student = functional.log_softmax(student / temperature, dim=1)
    divergence = functional.kl_div(of_student, of_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def value_loss(student: Tensor, teacher: Tensor, _temperature: float) -> Tensor:
    """Mean squared difference of standardised values (N, 1), a scalar: there is nothing to soften."""
    return functional.mse_loss(student, teacher)


SOFT_LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "classification": soft_class_loss,
    "regression": value_loss,
}


class Distillation:
    """The teacher of a training, and how much of the loss its answers are."""

    def __init__(self, teacher: nn.Module, section: Teacher, recipe: Recipe) -> None:
        """``teacher`` gives logs of probabilities (N, classes), or values (N, 1), in eval mode; it learns nothing."""
        self.teacher = teacher
        self.section = section
        self.recipe = recipe

    def total_loss(self, hard: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
        """``hard_fraction * hard + (1 - hard_fraction) * soft``, a scalar.

        ``hard`` is the mean loss of the labels of a batch, ``outputs`` (N, K), float32, what the student says to its
        ``inputs`` (N, ...). Of a batch's chunks, each by its number of examples, the mean is that of the batch.
        """
        share, train = self.section.hard_fraction, self.recipe.train
        if share == 1:
            return hard
        with torch.no_grad(), autocast(train.precision, inputs.device):
            answers = self.teacher(inputs).float()
        task = self.recipe.data.task
        scores = class_scores(outputs, train.loss) if task == "classification" else outputs
        return share * hard + (1.0 - share) * SOFT_LOSSES[task](scores, answers, self.section.temperature)
