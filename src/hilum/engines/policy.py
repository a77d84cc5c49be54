"""Validation figures, epoch by epoch -> the best epoch, the learning rate, what is frozen, and when to stop."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hilum.recipe import Recipe

START = 0.04  # of the highest learning rate, where a warm-up begins
END = 4e-6  # of the highest, where one cycle ends (Smith & Topin 2018: four orders below its beginning)
MOMENTA = (0.95, 0.85)  # one cycle's momentum: at both ends, and where the learning rate is highest


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
    """Early stopping, schedules, thawing and the best epoch, alike in every engine.

    An epoch is better if the monitored figure improves at all; ties keep the earlier epoch. A figure that is not a
    number is never better. A reduction starts its own count anew, as Keras and PyTorch do. Where layers thaw,
    waiting starts anew: what has just begun to learn gets its time.

    Attributes:
        monitor: `val_loss` (smaller is better) or another validation figure (larger is better).
        patience: Epochs without a better one before stopping; 0 never.
        schedule: `plateau` lowers the learning rate where nothing improves; `cosine` raises it in a line over the
            warm-up and lowers it along half a period over the rest (Loshchilov & Hutter 2017, without restarts);
            `one-cycle` does both along half periods (Smith & Topin 2018); `constant` leaves it.
        warm_up: For `cosine` and `one-cycle`: the share of the training that the rise takes.
        plateau_patience: Epochs without a better one before a reduction; 0 never.
        plateau_factor: What the learning rate is multiplied by.
        epochs: Most epochs.
        learning_rate: The current one; for `cosine` and `one-cycle` the highest.
        frozen: The share of the backbone's layers, from the image on, that begins frozen.
        thaw_after: Epochs before layers thaw; 0 never.
        thaw_steps: Epochs over which they thaw.
        thawed: The share of layers frozen in the end.
    """

    monitor: str
    patience: int
    schedule: str
    warm_up: float
    plateau_patience: int
    plateau_factor: float
    epochs: int
    learning_rate: float
    frozen: float = 0.0
    thaw_after: int = 0
    thaw_steps: int = 1
    thawed: float = 0.0
    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    waited: int = 0
    waited_for_plateau: int = 0

    @classmethod
    def of(cls, recipe: Recipe) -> "Policy":
        """The policy that a recipe asks for."""
        settings, frozen = recipe.train, recipe.model.frozen_share
        return cls(
            monitor=settings.monitor,
            patience=settings.patience,
            schedule=settings.schedule,
            warm_up=settings.warm_up,
            plateau_patience=settings.plateau_patience,
            plateau_factor=settings.plateau_factor,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            frozen=frozen,
            thaw_after=settings.unfreeze_after,
            thaw_steps=settings.unfreeze_steps,
            thawed=min(frozen, 1 - settings.unfreeze_share),
        )

    def step(self, figures: Mapping[str, float]) -> Decision:
        """Take the figures of the epoch that has just ended.

        Args:
            figures: `val_loss` and those of `validation.validation_figures`, NaN where there is none.
        """
        score = -figures["val_loss"] if self.monitor == "val_loss" else figures[self.monitor]
        frozen_before = self.frozen_share
        self.epoch += 1
        best = score > self.best_score
        if best:
            self.best_epoch, self.best_score = self.epoch, score
        if best or self.frozen_share < frozen_before:
            self.waited = self.waited_for_plateau = 0
        else:
            self.waited += 1
            self.waited_for_plateau += 1
        falls = self.schedule == "plateau" and self.plateau_patience > 0
        if falls and self.waited_for_plateau >= self.plateau_patience:
            self.learning_rate *= self.plateau_factor
            self.waited_for_plateau = 0
        return Decision(best=best, stop=self.finished)

    @property
    def frozen_share(self) -> float:
        """The share of the backbone's layers, from the image on, that is frozen in the epoch under way."""
        if not self.thaw_after or self.epoch < self.thaw_after:
            return self.frozen
        steps = min(self.epoch - self.thaw_after + 1, self.thaw_steps)
        return self.frozen + (self.thawed - self.frozen) * steps / self.thaw_steps

    @property
    def always_frozen_share(self) -> float:
        """The share of the backbone's layers, from the image on, that never learns."""
        return min(self.frozen, self.thawed) if self.thaw_after else self.frozen

    def learning_rate_at(self, within: float) -> float:
        """The learning rate in the epoch under way, `within` (from 0 to 1) of it being done."""
        if self.schedule in ("plateau", "constant"):
            return self.learning_rate
        risen, fallen = self._cycle(within)
        if self.schedule == "cosine":
            share = START + (1 - START) * risen if risen < 1 else _half_period(fallen, 1, 0)
        else:
            share = _half_period(risen, START, 1) if risen < 1 else _half_period(fallen, 1, END)
        return self.learning_rate * share

    def momentum_at(self, within: float) -> float | None:
        """The momentum (Adam's first beta) in the epoch under way; None where the optimizer keeps its own."""
        if self.schedule != "one-cycle":
            return None
        ends, middle = MOMENTA
        risen, fallen = self._cycle(within)
        return _half_period(risen, ends, middle) if risen < 1 else _half_period(fallen, middle, ends)

    def _cycle(self, within: float) -> tuple[float, float]:
        """How much of the rise and of the fall is done, each from 0 to 1."""
        done = (self.epoch + within) / self.epochs
        risen = done / self.warm_up if done < self.warm_up else 1.0
        return risen, min(max((done - self.warm_up) / (1 - self.warm_up), 0.0), 1.0)

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


def _half_period(done: float, first: float, last: float) -> float:
    """From `first` to `last` along half a period of a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
