"""One finding's labels and probabilities -> ROC, precision-recall and reliability curves with bands."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.notices import Notice, notice
from hilum.stats.inputs import Booleans, Floats, Inputs, check, check_confidence, sum_by_cluster
from hilum.stats.intervals import clustered_wilson, expansion, percentile, resamples
from hilum.stats.metrics import equal_mass_bins
from hilum.stats.reasons import WithReason
from hilum.stats.scores import MIN_PATIENTS

# Thresholds at which resampled curves are counted: more than a plot of a thousand pixels shows.
BAND_THRESHOLDS = 400


@dataclass(frozen=True)
class Curve(WithReason):
    """A curve of one finding and a pointwise band around it.

    Attributes:
        x: (points,) false positive rate, or recall; rising.
        y: (points,) sensitivity, or precision.
        thresholds: (points,) probability from which each point calls present; inf for the point that calls
            none.
        grid: (grid,) x of the band, 0 to 1.
        low: (grid,) lower end of y; None where no band can be given.
        high: (grid,) upper end of y.
        notice: Why curve or band is missing; None where both are there.
    """

    x: Floats
    y: Floats
    thresholds: Floats
    grid: Floats
    low: Floats | None
    high: Floats | None
    notice: Notice | None


@dataclass(frozen=True)
class Reliability:
    """Equal-mass bins of one finding, from the least to the most probable; empty bins are left out.

    Attributes:
        predicted: (bins,) mean probability.
        observed: (bins,) share of images with the finding.
        low: (bins,) lower end of the observed share's Wilson interval, patients as clusters.
        high: (bins,) upper end.
        counts: (bins,) images.
    """

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    counts: Floats


def roc_curve(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    num_grid: int = 101,
) -> Curve:
    """Draw sensitivity against the false positive rate, with a band from resampled patients at each rate.

    Args:
        labels: (images,), 1 present, 0 absent, NaN unknown.
        probabilities: (images,) in [0, 1].
        clusters: (images,) the patient of each image; None: every image is its own patient.
        replicates: Bootstrap resamples; 0 for no band.
        seed: Makes the resamples repeatable.
        confidence: Of the band, at each point by itself.
        num_grid: Points of the band.

    Raises:
        UsageError: Shapes differ or a setting is out of range.
        DataError: A value is no label or no probability.
    """
    points = _Points.of(labels, probabilities, clusters, confidence=confidence, replicates=replicates)
    grid = np.linspace(0, 1, num_grid)
    if points.notice is not None:
        return _no_curve(grid, points.notice)
    positive, negative = points.counts[-1]
    x = np.concatenate([[0.0], points.counts[:, 1] / negative])
    y = np.concatenate([[0.0], points.counts[:, 0] / positive])
    rows = []
    for true_positive, false_positive in points.resampled(replicates=replicates, seed=seed):
        rates = np.concatenate([[0.0], false_positive / false_positive[-1]])
        # Of the points above one another the highest counts, so that the curve is what a step plot shows.
        rows.append(np.interp(grid, rates, np.concatenate([[0.0], true_positive / true_positive[-1]])))
    return _with_band(points, x, y, grid, rows, confidence=confidence)


def precision_recall_curve(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    num_grid: int = 101,
) -> Curve:
    """Draw precision against recall, a step curve as average precision reads it, with a band.

    Between two points the precision is that of the next threshold that reaches the recall: interpolation on a
    line would flatter (Davis & Goadrich 2006, ICML).

    Args:
        labels: As in `roc_curve`, like all others.
        probabilities: (images,) in [0, 1].
        clusters: (images,) the patient of each image.
        replicates: Bootstrap resamples; 0 for no band.
        seed: Makes the resamples repeatable.
        confidence: Of the band, at each point by itself.
        num_grid: Points of the band.

    Raises:
        UsageError: Shapes differ or a setting is out of range.
        DataError: A value is no label or no probability.
    """
    points = _Points.of(labels, probabilities, clusters, confidence=confidence, replicates=replicates)
    grid = np.linspace(0, 1, num_grid)
    if points.notice is not None:
        return _no_curve(grid, points.notice)
    precision = points.counts[:, 0] / points.counts.sum(axis=1)
    x = np.concatenate([[0.0], points.counts[:, 0] / points.counts[-1, 0]])
    y = np.concatenate([precision[:1], precision])
    rows = []
    for true_positive, false_positive in points.resampled(replicates=replicates, seed=seed):
        recall = true_positive / true_positive[-1]
        called = true_positive + false_positive
        # A recall of 0 is first reached where something is called.
        at = np.maximum(np.searchsorted(recall, grid, side="left"), int(np.argmax(called > 0)))
        rows.append(true_positive[at] / called[at])
    return _with_band(points, x, y, grid, rows, confidence=confidence)


def reliability_curve(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    num_bins: int = 10,
    confidence: float = 0.95,
) -> Reliability:
    """Set the observed share beside the mean probability in bins of about as many images each.

    Args:
        labels: (images,), 1 present, 0 absent, NaN unknown.
        probabilities: (images,) in [0, 1]; equal ones share a bin.
        clusters: (images,) the patient of each image; None: every image is its own patient.
        num_bins: At most this many.
        confidence: Of the Wilson intervals.

    Returns:
        No bins where no image is labelled.

    Raises:
        UsageError: Shapes differ or a setting is out of range.
        DataError: A value is no label or no probability.
    """
    check_confidence(confidence)
    if num_bins < 1:
        raise UsageError(f"num_bins is {num_bins}; expected 1 or more")
    inputs, present, scores = _one_finding(labels, probabilities, clusters)
    bins = equal_mass_bins(scores, num_bins=num_bins)
    rows = []
    for members in (bins == number for number in np.unique(bins)):
        successes, trials = (
            sum_by_cluster(weight, inputs.clusters, num_clusters=inputs.num_clusters)
            for weight in (members & present, members)
        )
        low, high = clustered_wilson(successes, trials, confidence=confidence)
        rows.append((scores[members].mean(), present[members].mean(), low, high, members.sum()))
    return Reliability(*np.array(rows, dtype=np.float64).reshape(-1, 5).T)


@dataclass(frozen=True)
class _Points:
    """Counts at every distinct score, from the highest down, and what the band is resampled from."""

    inputs: Inputs
    present: Booleans
    scores: Floats
    counts: Floats
    thresholds: Floats
    notice: Notice | None

    @classmethod
    def of(
        cls,
        labels: ArrayLike,
        probabilities: ArrayLike,
        clusters: ArrayLike | None,
        *,
        confidence: float,
        replicates: int,
    ) -> "_Points":
        check_confidence(confidence)
        if replicates != 0 and replicates < 100:
            raise UsageError(f"replicates is {replicates}; a band needs at least 100, or 0 for none")
        inputs, present, scores = _one_finding(labels, probabilities, clusters)
        descending, place = np.unique(-scores, return_inverse=True)
        counts = np.column_stack(
            [np.bincount(place, weights=weight, minlength=len(descending)) for weight in (present, ~present)]
        ).cumsum(axis=0)
        lacking = None
        if not present.any() or present.all():
            lacking = notice("not-estimable", lacking="negatives" if present.any() else "positives")
        return cls(inputs, present, scores, counts, -descending, lacking)

    @property
    def patients(self) -> int:
        """Of the scarcer class."""
        clusters = self.inputs.clusters
        return min(len(np.unique(clusters[self.present])), len(np.unique(clusters[~self.present])))

    def resampled(self, *, replicates: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
        """Yield true and false positives (thresholds,) of each resample that has both classes."""
        if self.patients < MIN_PATIENTS:
            return
        keep = np.unique(np.linspace(0, len(self.thresholds) - 1, BAND_THRESHOLDS).round().astype(int))
        place = np.searchsorted(-self.thresholds[keep], -self.scores)
        shape = (self.inputs.num_clusters, len(keep))
        tables = []
        for members in (self.present, ~self.present):
            table = np.zeros(shape)
            np.add.at(table, (self.inputs.clusters[members], place[members]), 1)
            tables.append(table.cumsum(axis=1))
        for weights in resamples(shape[0], replicates=replicates, seed=seed, width=64):
            for true_positive, false_positive in zip(*(weights.T @ table for table in tables), strict=True):
                if true_positive[-1] and false_positive[-1]:
                    yield true_positive, false_positive


def _one_finding(
    labels: ArrayLike, probabilities: ArrayLike, clusters: ArrayLike | None
) -> tuple[Inputs, Booleans, Floats]:
    """Check one finding and keep the images with a label."""
    inputs = check(labels, probabilities, clusters=clusters)
    if len(inputs.findings) != 1:
        raise UsageError(
            f"a curve is of one finding; {len(inputs.findings)} columns arrived: give one at a time"
        )
    known = ~np.isnan(inputs.labels[:, 0])
    kept = Inputs(
        inputs.labels[known],
        inputs.probabilities[known],
        inputs.clusters[known],
        inputs.num_clusters,
        inputs.findings,
    )
    return kept, kept.labels[:, 0] == 1, kept.probabilities[:, 0]


def _with_band(
    points: _Points, x: Floats, y: Floats, grid: Floats, rows: list[Floats], *, confidence: float
) -> Curve:
    thresholds = np.concatenate([[np.inf], points.thresholds])
    if not rows:
        few = points.patients < MIN_PATIENTS
        no_band = notice("no-band", patients=points.patients, fewest=MIN_PATIENTS) if few else None
        return Curve(x, y, thresholds, grid, None, None, no_band)
    spread = expansion(points.patients, confidence=confidence)
    low, high = percentile(np.stack(rows, axis=1), confidence=confidence, spread=spread)
    return Curve(x, y, thresholds, grid, low, high, None)


def _no_curve(grid: Floats, lacking: Notice) -> Curve:
    nothing = np.zeros(0)
    return Curve(nothing, nothing, nothing, grid, None, None, lacking)
