"""Calibrated probabilities -> which findings are called present."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_PROBABLE = "most probable class"


@dataclass(frozen=True)
class DecisionRule:
    """How findings are called: each from its threshold on, or the most probable of classes that exclude each other.

    Attributes:
        thresholds: One a finding, in [0, 1], present being called from there on; None where the most probable class
            is called, the first among equals.
        origin: How it was chosen, for example `Youden's J on validation`.
    """

    thresholds: tuple[float, ...] | None
    origin: str = MOST_PROBABLE

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Return which findings are called present, bool (n, findings), of calibrated probabilities in that shape."""
        if self.thresholds is None:
            return np.asarray(probabilities.argmax(axis=1)[:, None] == np.arange(probabilities.shape[1]))
        return np.asarray(probabilities >= np.array(self.thresholds))

    def threshold(self, column: int) -> float | None:
        """Return the threshold of one finding, or None where the most probable class is called."""
        return None if self.thresholds is None else self.thresholds[column]

    def select(self, columns: Sequence[int]) -> "DecisionRule":
        """Return the rule for some of the findings; classes cannot be told apart by some of them only."""
        if self.thresholds is None:
            return self
        return DecisionRule(tuple(self.thresholds[column] for column in columns), self.origin)

    @property
    def array(self) -> np.ndarray:
        """The thresholds as `hilum.stats` takes them: float64 (findings,), or (0,) for the most probable class."""
        return np.array(self.thresholds or (), np.float64)
