"""Labels and scores -> AUROC with DeLong's variance, for one model or several on the same images."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import rankdata

from hilum.stats.inputs import Booleans, Floats, Integers


@dataclass(frozen=True)
class Areas:
    """AUROC of several score columns on the same images.

    Attributes:
        values: (models,) AUROC.
        covariance: (models, models) of the estimates.
    """

    values: Floats
    covariance: Floats

    def interval(self, model: int = 0, *, confidence: float) -> tuple[float, float]:
        """Return the interval of one AUROC, made on the logit scale so that it stays within 0 and 1.

        An AUROC of 0 or 1 has no estimated variance and gets NaN.
        """
        value, error = self.values[model], np.sqrt(self.covariance[model, model])
        if not 0 < value < 1:
            return np.nan, np.nan
        half = ndtri((1 + confidence) / 2) * error / (value * (1 - value))
        return float(expit(logit(value) - half)), float(expit(logit(value) + half))

    def difference(self, *, confidence: float) -> tuple[float, float, float, float]:
        """First minus second AUROC: value, low, high and the two-sided p value.

        The p value is NaN where the difference has no variance, for example between equal rankings.
        """
        value = float(self.values[0] - self.values[1])
        error = float(
            np.sqrt(max(self.covariance[0, 0] + self.covariance[1, 1] - 2 * self.covariance[0, 1], 0))
        )
        half = float(ndtri((1 + confidence) / 2)) * error
        # Variances that cancel leave rounding, not evidence.
        p_value = float(2 * ndtr(-abs(value) / error)) if error > 1e-9 else np.nan
        return value, value - half, value + half, p_value


def delong(present: Booleans, scores: Floats, *, clusters: Integers | None = None) -> Areas:
    """DeLong's AUROC and covariance in O(n log n).

    DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44) by midranks (Sun & Xu 2014, IEEE Signal Processing
    Letters 21); with patients, the placement values are summed within each patient (Obuchowski 1997,
    Biometrics 53), which equals DeLong where each patient has one image.

    Args:
        present: (images,) the truth; at least two of each class (with patients: two patients with each).
        scores: (images,) or (images, models); larger means more likely present.
        clusters: (images,) the patients, numbered from 0; None for independent images.

    Returns:
        The areas; the covariance is NaN where a class has fewer than two members.
    """
    columns = scores[:, None] if scores.ndim == 1 else scores
    num_positive, num_negative = int(present.sum()), int((~present).sum())
    positive, negative = placements(present, columns)
    values = positive.mean(axis=0)
    of_positive, of_negative = positive - values, negative - values
    if clusters is None:
        count_positive, count_negative, cross = num_positive, num_negative, np.zeros((columns.shape[1],) * 2)
    else:
        num_clusters = int(clusters.max()) + 1
        of_positive, count_positive = _sum_by(of_positive, clusters[present], num_clusters)
        of_negative, count_negative = _sum_by(of_negative, clusters[~present], num_clusters)
        taking_part = len(np.unique(clusters))
        cross = of_positive.T @ of_negative * _unbiased(taking_part) / (num_positive * num_negative)
    covariance = (
        of_positive.T @ of_positive * _unbiased(count_positive) / num_positive**2
        + of_negative.T @ of_negative * _unbiased(count_negative) / num_negative**2
        + cross
        + cross.T
    )
    return Areas(values, covariance)


def placements(present: Booleans, scores: Floats) -> tuple[Floats, Floats]:
    """Return how often each positive outranks the negatives, and each negative is outranked by the positives.

    Args:
        present: (images,) the truth; at least one of each class.
        scores: (images, models).

    Returns:
        (positives, models) and (negatives, models), shares in which ties count half; the mean of each is the AUROC.
    """
    ranks = rankdata(scores, axis=0)
    positive = (ranks[present] - rankdata(scores[present], axis=0)) / int((~present).sum())
    negative = 1 - (ranks[~present] - rankdata(scores[~present], axis=0)) / int(present.sum())
    return positive, negative


def _sum_by(values: Floats, clusters: Integers, num_clusters: int) -> tuple[Floats, int]:
    sums = np.zeros((num_clusters, values.shape[1]))
    np.add.at(sums, clusters, values)
    return sums, len(np.unique(clusters))


def _unbiased(count: int) -> float:
    return count / (count - 1) if count > 1 else np.nan
