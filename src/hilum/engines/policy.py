"""Validation figures, epoch by epoch -> which epoch is best, the learning rate, and when to stop."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from hilum.recipe import TrainSettings

START = 0.04  # of the highest learning rate, where a warm-up begins


@dataclass(frozen=True)
class Decision:
    """What follows from an epoch.

    Attributes:
        best: This epoch is the best so far: keep its weights.
        stop: No further epoch.
    """

    best: bool
    stop: bool


@dataclass
class Policy:
    """Early stopping, reduction on a plateau and the best epoch, alike in every engine.

    An epoch is better if the monitored figure improves at all; ties keep the earlier epoch. A figure that is not a
    number is never better. A reduction starts its own count anew, as Keras and PyTorch do.

    Attributes:
        monitor: `val_loss` (smaller is better) or `val_auroc` (larger is better).
        patience: Epochs without a better one before stopping; 0 never.
        schedule: `plateau` lowers the learning rate where nothing improves; `cosine` raises it in a line over the
            warm-up and lowers it along half a period over the rest (Loshchilov & Hutter 2017, without restarts).
        warm_up: For `cosine`: the share of the training that the rise takes.
        plateau_patience: Epochs without a better one before a reduction; 0 never.
        plateau_factor: What the learning rate is multiplied by.
        epochs: Most epochs.
        learning_rate: The current one; for `cosine` the highest.
    """

    monitor: str
    patience: int
    schedule: str
    warm_up: float
    plateau_patience: int
    plateau_factor: float
    epochs: int
    learning_rate: float
    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    waited: int = 0
    waited_for_plateau: int = 0

    @classmethod
    def of(cls, settings: TrainSettings) -> "Policy":
        """The policy that a recipe asks for."""
        return cls(
            monitor=settings.monitor,
            patience=settings.patience,
            schedule=settings.schedule,
            warm_up=settings.warm_up,
            plateau_patience=settings.plateau_patience,
            plateau_factor=settings.plateau_factor,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
        )

    def step(self, *, val_loss: float, val_auroc: float) -> Decision:
        """Takes the figures of the epoch that has just ended.

        Args:
            val_loss: Mean loss on validation.
            val_auroc: Mean AUROC over the findings that have one, NaN if none has.
        """
        score = -val_loss if self.monitor == "val_loss" else val_auroc
        self.epoch += 1
        best = score > self.best_score
        if best:
            self.best_epoch, self.best_score = self.epoch, score
            self.waited = self.waited_for_plateau = 0
        else:
            self.waited += 1
            self.waited_for_plateau += 1
        falls = self.schedule == "plateau" and self.plateau_patience > 0
        if falls and self.waited_for_plateau >= self.plateau_patience:
            self.learning_rate *= self.plateau_factor
            self.waited_for_plateau = 0
        return Decision(best=best, stop=self.finished)

    def learning_rate_at(self, within: float) -> float:
        """The learning rate in the epoch under way, `within` (from 0 to 1) of it being done."""
        if self.schedule == "plateau":
            return self.learning_rate
        done = (self.epoch + within) / self.epochs
        if done < self.warm_up:
            return self.learning_rate * (START + (1 - START) * done / self.warm_up)
        fallen = min((done - self.warm_up) / (1 - self.warm_up), 1.0)
        return self.learning_rate * (1 + math.cos(math.pi * fallen)) / 2

    @property
    def finished(self) -> bool:
        """Whether no further epoch is due."""
        return self.epoch >= self.epochs or self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """Whether the last better epoch is too long ago."""
        return bool(self.patience) and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """All of it as numbers and text, for `Policy(**state)`."""
        return asdict(self)


def validation_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean AUROC over the findings of which both classes are there (Mann-Whitney, ties counting half).

    Args:
        labels: (images, findings), 1 present, 0 absent, NaN unknown.
        scores: The same shape; any increasing function of the probability.

    Returns:
        NaN where no finding has both classes.
    """
    areas = []
    for truth, values in zip(labels.T, scores.T, strict=True):
        known = ~np.isnan(truth)
        present = truth[known] == 1
        positives, negatives = int(present.sum()), int((~present).sum())
        if positives and negatives:
            ranks = rankdata(values[known])
            areas.append((ranks[present].sum() - positives * (positives + 1) / 2) / (positives * negatives))
    return float(np.mean(areas)) if areas else math.nan
