"""Names of the figures of validation that may steer training -> how they are computed, finding by finding."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ScoredFinding:
    """One finding over the images of validation whose label is known; some have it and some do not.

    Attributes:
        present: Whether it is present.
        logits: The model's, all finite.
        called: Whether it is called: at a probability of 0.5, of classes where its logit is the largest.
    """

    present: NDArray[np.bool_]
    logits: np.ndarray
    called: NDArray[np.bool_]

    @property
    def true_positives(self) -> int:
        """Images that have the finding and in which it is called."""
        return int((self.called & self.present).sum())


def auroc(scores: ScoredFinding) -> float:
    """Compute the area under the ROC curve as Mann and Whitney's statistic, ties counting half."""
    from scipy.stats import rankdata  # takes long to import, and only training needs it

    positives, negatives = int(scores.present.sum()), int((~scores.present).sum())
    above = rankdata(scores.logits)[scores.present].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def average_precision(scores: ScoredFinding) -> float:
    """Compute the average precision."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(scores.present, scores.logits))


def accuracy(scores: ScoredFinding) -> float:
    """Compute the share of images that are called rightly."""
    return float(np.mean(scores.called == scores.present))


def precision(scores: ScoredFinding) -> float:
    """Compute the share of the called that have the finding; 0 where nothing is called."""
    return scores.true_positives / max(int(scores.called.sum()), 1)


def recall(scores: ScoredFinding) -> float:
    """Compute the share of those with the finding that are called."""
    return scores.true_positives / int(scores.present.sum())


def f1(scores: ScoredFinding) -> float:
    """Compute the harmonic mean of precision and recall."""
    both = precision(scores), recall(scores)
    return 2 * both[0] * both[1] / max(sum(both), 1e-12)


METRICS: dict[str, Callable[[ScoredFinding], float]] = {
    "val_auroc": auroc,
    "val_average_precision": average_precision,
    "val_accuracy": accuracy,
    "val_precision": precision,
    "val_recall": recall,
    "val_f1": f1,
}
"""Name in `train.monitor` and in the history -> function of a finding; larger is better. `val_loss` is beside them."""
