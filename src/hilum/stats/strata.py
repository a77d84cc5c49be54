"""Labels, scores and patients of some of the images -> AUROC with each patient's part in its error; differences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, stdtr, stdtrit

from hilum.notices import notice
from hilum.stats.delong import placements
from hilum.stats.inputs import Booleans, Floats, Integers, sum_by_cluster
from hilum.stats.intervals import Estimate

AREA_METHOD = "DeLong's variance with patients as clusters, t on the logit scale"
DIFFERENCE_METHOD = "DeLong's variance with patients as clusters, those in both sets included; t"


@dataclass(frozen=True)
class Area:
    """An AUROC, or a mean of several, and where its error comes from.

    Attributes:
        value: The estimate.
        errors: (patients,) what each patient adds to estimate minus truth; independent, so that the sum of their
            squares is the variance, and that of their products with another's the covariance.
        freedom: Degrees of freedom of the variance.
    """

    value: float
    errors: Floats
    freedom: float

    @property
    def variance(self) -> float:
        """Of the estimate."""
        return float((self.errors**2).sum())

    def estimate(self, *, confidence: float = 0.95) -> Estimate:
        """Return the estimate with its interval, made on the logit scale so that it stays within 0 and 1."""
        if not 0 < self.value < 1:
            return Estimate(self.value, notice=notice("ranked-without-error"))
        quantile = stdtrit(self.freedom, (1 + confidence) / 2)
        half = quantile * np.sqrt(self.variance) / (self.value * (1 - self.value))
        low, high = (float(expit(logit(self.value) + sign * half)) for sign in (-1, 1))
        return Estimate(self.value, low, high, AREA_METHOD)


def area(present: Booleans, scores: Floats, *, clusters: Integers, num_clusters: int) -> Area:
    """AUROC of some images.

    DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44) by patients (Obuchowski 1997, Biometrics 53): placement values
    less the area, summed within each patient, over the number of images of that class. Positives' and negatives' sums
    are each widened by n / (n - 1), n the patients of that class, as in `delong`.

    Args:
        present: (images,) the truth; two patients of each class at least.
        scores: (images,); larger means more likely present.
        clusters: (images,) in 0 .. num_clusters - 1.
        num_clusters: Of all images, also those that are not in this set.
    """
    errors = np.zeros(num_clusters)
    fewest = num_clusters
    positive, negative = placements(present, scores[:, None])
    value = float(positive.mean())
    for placed, of in ((positive[:, 0], clusters[present]), (negative[:, 0], clusters[~present])):
        sums = sum_by_cluster(placed - value, of, num_clusters=num_clusters)
        count = int(np.count_nonzero(np.bincount(of)))
        errors += sums / len(placed) * np.sqrt(count / (count - 1))
        fewest = min(fewest, count)
    return Area(value, errors, fewest - 1)


def mean_area(areas: Sequence[Area]) -> Area:
    """Return the mean of several findings' areas over the same patients; a patient's errors in them add up."""
    return Area(
        float(np.mean([one.value for one in areas])),
        np.sum([one.errors for one in areas], axis=0) / len(areas),
        _freedom(areas),
    )


def area_difference(first: Area, second: Area, *, confidence: float = 0.95) -> tuple[Estimate, float | None]:
    """First minus second area, of images that may share patients.

    A patient who stands in both adds the difference of its two errors, so that what it does to both alike cancels.

    Returns:
        The difference, and the two-sided p value of none; without interval and p where there is no variance.
    """
    value = first.value - second.value
    error = float(np.sqrt(((first.errors - second.errors) ** 2).sum()))
    if error < 1e-9:
        return Estimate(value, notice=notice("both-ranked-without-error")), None
    freedom = _freedom((first, second))
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    p_value = float(2 * stdtr(freedom, -abs(value) / error))
    return Estimate(value, value - half, value + half, DIFFERENCE_METHOD), p_value


def _freedom(areas: Sequence[Area]) -> float:
    # Welch-Satterthwaite: the set with the few patients brings the variance, and the uncertainty about it.
    variances, freedom = (np.array([getattr(one, name) for one in areas]) for name in ("variance", "freedom"))
    squares = float((variances**2 / freedom).sum())
    return float(variances.sum() ** 2 / squares) if squares > 0 else float(freedom.min())
