"""What a trial has reported so far, and every decision that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from trials.average.best_n import best_epochs
from trials.fit.early_stop import best_epoch, should_stop
from trials.recipe import Recipe
from trials.result import TASK_METRICS, WeightsKind


@dataclass
class History:
    """What has been reported so far. Decisions are functions of it, so a continued trial decides as an unbroken one."""

    recipe: Recipe
    metrics: list[dict[str, float]] = field(default_factory=list)
    """One entry an epoch, by the names of an epoch report."""
    epoch_seconds: list[float] = field(default_factory=list)
    """Wall time of each epoch, over its interruptions."""
    begun_seconds: float = 0.0
    """Wall time of the epoch after them, if it was interrupted in its midst."""

    @property
    def epochs(self) -> int:
        """Epochs trained so far."""
        return len(self.metrics)

    @property
    def seconds(self) -> float:
        """Wall time so far, over all interruptions."""
        return sum(self.epoch_seconds)

    @property
    def stopped_early(self) -> bool:
        """Whether the recipe's early stopping has ended the training; an extension begins with fresh patience."""
        section, extensions = self.recipe.train.early_stop, self.recipe.extensions
        if section is None:
            return False
        since = extensions[-1].after_epochs if extensions else 0
        return should_stop(self.values(metric=self.watched)[since:], self.watched, section)

    @property
    def watched(self) -> str:
        """The metric that early stopping looks at."""
        section = self.recipe.train.early_stop
        return self.recipe.metric if section is None or section.metric is None else section.metric

    @property
    def over(self) -> bool:
        """Whether no epoch is left to train."""
        return self.epochs >= self.recipe.epochs or self.stopped_early

    @property
    def chosen_epoch(self) -> int:
        """The epoch whose weights count: the best one under early stopping, else the last."""
        section = self.recipe.train.early_stop
        if section is None:
            return self.epochs
        return best_epoch(self.values(metric=self.watched), self.watched, section.min_delta)

    @property
    def averaged_epochs(self) -> tuple[int, ...]:
        """The epochs whose raw weights are to be averaged; none unless the recipe asks for two or more."""
        count = self.recipe.average.best_n
        return best_epochs(self.values("raw"), self.recipe.metric, count) if count > 1 else ()

    @property
    def saved_epochs(self) -> set[int]:
        """The epochs whose raw weights may be needed at the end."""
        chosen = {self.chosen_epoch} if self.epochs and self.recipe.train.early_stop is not None else set()
        return chosen | set(self.averaged_epochs)

    @property
    def saved_ema_epochs(self) -> set[int]:
        """The epochs whose moving average may be needed at the end."""
        train = self.recipe.train
        has_both = train.early_stop is not None and train.ema is not None
        return {self.chosen_epoch} if self.epochs and has_both else set()

    def values(self, kind: WeightsKind | None = None, metric: str | None = None) -> list[float]:
        """The recipe's metric, or another one, after each epoch: of the leading weights, or of ``kind``."""
        return [self.of_kind(epoch, kind)[metric or self.recipe.metric] for epoch in range(1, self.epochs + 1)]

    def of_kind(self, epoch: int, kind: WeightsKind | None = None) -> dict[str, float]:
        """The validation metrics of ``epoch``: of the leading weights, or of ``kind``."""
        metrics, names = self.metrics[epoch - 1], TASK_METRICS[self.recipe.data.task]
        if kind is None or self.recipe.train.ema is None:
            return {name: metrics[name] for name in names}
        return {name: metrics[name.replace(".", f".{kind}.")] for name in names}
