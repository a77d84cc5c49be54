"""One finding's labels, probabilities and decisions -> every metric, under any weightings of the patients.

A bootstrap replicate, a jackknife sample and the plain estimate are the same thing here: a weight per patient.
Scores are sorted once; each weighting then costs two sparse matrix products for AUROC and average precision and
one for everything that is a sum over images. With weights of 1 the values are scikit-learn's, ties included.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import expit, logit

from hilum.stats.inputs import Booleans, Floats, Integers, sum_by_cluster

METRICS = (
    "auroc",
    "average_precision",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "mcc",
    "balanced_accuracy",
    "accuracy",
    "brier",
    "ece",
    "calibration_slope",
    "calibration_intercept",
    "ppv_at_prevalence",
    "npv_at_prevalence",
)
ECE_BINS = 10
# 1 MiB of float64 an array.
BLOCK_CELLS = 2**17
# Probabilities of exactly 0 and 1 have no logit; float32 resolves no closer to 1 than this.
LOGIT_MARGIN = 2.0**-24


@dataclass(frozen=True)
class Tally:
    """One finding's labelled images, gathered by patient.

    Attributes:
        positives: Labelled images with the finding.
        negatives: Labelled images without it.
        sums: (quantities, clusters) per-patient sums of everything that a metric adds up over images.
        ranking: Who stands above whom, for the areas under the curves.
        slope: Calibration slope of all images; NaN where the fit does not exist.
        intercept: Calibration intercept of all images; NaN where one class is missing.
        prevalence: The stated prevalence for PPV and NPV, NaN for none.
    """

    positives: int
    negatives: int
    sums: sparse.csr_array
    ranking: "Ranking"
    slope: float
    intercept: float
    prevalence: float

    @classmethod
    def of(
        cls,
        present: Booleans,
        probabilities: Floats,
        decisions: Booleans,
        *,
        clusters: Integers,
        num_clusters: int,
        prevalence: float = np.nan,
    ) -> "Tally":
        """Gather the images whose label is known.

        Args:
            present: (images,) the truth.
            probabilities: (images,) in [0, 1].
            decisions: (images,) True where the model calls the finding present.
            clusters: (images,) in 0 .. num_clusters - 1.
            num_clusters: Number of patients, also those without a labelled image.
            prevalence: In (0, 1) for PPV and NPV at that prevalence, NaN for none.
        """
        scores = logit(np.clip(probabilities, LOGIT_MARGIN, 1 - LOGIT_MARGIN))
        intercept_terms, intercept = _intercept_terms(present, scores)
        slope_terms, slope = _slope_terms(present, scores)
        quantities = [
            present,
            ~present,
            present & decisions,
            ~present & decisions,
            (probabilities - present) ** 2,
            *intercept_terms,
            *slope_terms,
        ]
        sums = [sum_by_cluster(each, clusters, num_clusters=num_clusters) for each in quantities]
        # One row a bin: the images' bin and patient number one cell.
        cells = equal_mass_bins(probabilities, num_bins=ECE_BINS) * num_clusters + clusters
        gaps = sum_by_cluster(present - probabilities, cells, num_clusters=ECE_BINS * num_clusters)
        return cls(
            positives=int(present.sum()),
            negatives=int((~present).sum()),
            # Sparse though often half full: its product is added up in one order on one thread, so that results
            # repeat to the bit, and does not contend with a BLAS for busy cores.
            sums=sparse.csr_array(np.vstack([*sums, gaps.reshape(ECE_BINS, num_clusters)])),
            ranking=Ranking.of(present, probabilities, clusters=clusters, num_clusters=num_clusters),
            slope=slope,
            intercept=intercept,
            prevalence=prevalence,
        )

    def metrics(self, weights: Floats) -> Floats:
        """Every metric under each weighting of the patients.

        Args:
            weights: (clusters, weightings), how often each patient counts; whole numbers keep sums exact.

        Returns:
            (metrics, weightings) in the order of METRICS; NaN where a metric is not defined.
        """
        sums = self.sums @ weights
        positive, negative, true_positive, false_positive, squared_error = sums[:5]
        total = positive + negative
        false_negative, true_negative = positive - true_positive, negative - false_positive
        with np.errstate(divide="ignore", invalid="ignore"):
            auroc, average_precision = self.ranking.areas(weights, positive=positive, negative=negative)
            sensitivity, specificity = true_positive / positive, true_negative / negative
            called, not_called = true_positive + false_positive, true_negative + false_negative
            values = {
                "auroc": auroc,
                "average_precision": average_precision,
                "sensitivity": sensitivity,
                "specificity": specificity,
                "ppv": true_positive / called,
                "npv": true_negative / not_called,
                "f1": np.where(positive > 0, 2 * true_positive / (positive + called), np.nan),
                "mcc": _mcc(true_positive, false_positive, true_negative, false_negative),
                "balanced_accuracy": (sensitivity + specificity) / 2,
                "accuracy": (true_positive + true_negative) / total,
                "brier": squared_error / total,
                "ece": np.abs(sums[12:]).sum(axis=0) / total,
                "calibration_slope": self.slope + _slope_step(sums[7:12]),
                "calibration_intercept": self.intercept + sums[5] / sums[6],
                "ppv_at_prevalence": _predictive_value(sensitivity, 1 - specificity, self.prevalence),
                "npv_at_prevalence": _predictive_value(specificity, 1 - sensitivity, 1 - self.prevalence),
            }
        stacked = np.stack([values[name] for name in METRICS])
        # A resample in which every image is alike has no slope; infinite is as undefined as NaN.
        return np.where(np.isfinite(stacked), stacked, np.nan)

    @property
    def patients(self) -> tuple[int, int]:
        """How many patients have an image with the finding, and how many one without it."""
        positive, negative = self.sums[:2].toarray()
        return int((positive > 0).sum()), int((negative > 0).sum())

    @property
    def counts(self) -> dict[str, tuple[Floats, Floats]]:
        """Of each proportion the successes and the trials, (clusters,) each."""
        positive, negative, true_positive, false_positive = self.sums[:4].toarray()
        true_negative = negative - false_positive
        return {
            "sensitivity": (true_positive, positive),
            "specificity": (true_negative, negative),
            "ppv": (true_positive, true_positive + false_positive),
            "npv": (true_negative, true_negative + positive - true_positive),
            "accuracy": (true_positive + true_negative, positive + negative),
        }


@dataclass(frozen=True)
class Ranking:
    """The order of the scores, as counts per patient at every score that a positive has.

    Negatives matter only by how many stand above, and beside, each positive, so all negatives between two
    positives are one number. Rows run from the highest score to the lowest.

    Attributes:
        positive: (scores, clusters) positives with this score.
        negative: (scores, clusters) negatives with this score or between it and the next higher row.
        tied: (scores, clusters) negatives with exactly this score.
    """

    positive: sparse.csr_array
    negative: sparse.csr_array
    tied: sparse.csr_array

    @classmethod
    def of(
        cls, present: Booleans, probabilities: Floats, *, clusters: Integers, num_clusters: int
    ) -> "Ranking":
        """Sort the scores (images,) once."""
        scores = np.unique(-probabilities[present])
        above = np.searchsorted(scores, -probabilities)
        shape = (len(scores), num_clusters)
        counted = ~present & (above < len(scores))
        tied = counted.copy()
        tied[counted] = scores[above[counted]] == -probabilities[counted]
        return cls(*(_count(above[rows], clusters[rows], shape) for rows in (present, counted, tied)))

    def areas(self, weights: Floats, *, positive: Floats, negative: Floats) -> tuple[Floats, Floats]:
        """AUROC and average precision under each weighting.

        AUROC is the share of (positive, negative) pairs in the right order, ties counting half
        (Mann-Whitney); average precision is the sum over distinct scores of the recall gained times the
        precision there.

        Args:
            weights: (clusters, weightings).
            positive: (weightings,) total weight of positives.
            negative: (weightings,) total weight of negatives.

        Returns:
            Two (weightings,) arrays, NaN where a class has no weight.
        """
        if not self.positive.shape[0]:
            undefined = np.full(weights.shape[1], np.nan)
            return undefined, undefined
        here = self.positive @ weights
        true_positive = np.cumsum(here, axis=0)
        called = np.cumsum(self.negative @ weights, axis=0)
        misordered = np.einsum("sw,sw->w", here, called)
        if self.tied.nnz:
            misordered -= np.einsum("sw,sw->w", here, self.tied @ weights) / 2
        called += true_positive
        # Where nothing is called yet, `here` is 0 and the precision does not matter.
        precision = np.divide(true_positive, np.maximum(called, np.finfo(float).tiny, out=called), out=called)
        average_precision = np.einsum("sw,sw->w", here, precision) / positive
        return 1 - misordered / (positive * negative), np.where(negative > 0, average_precision, np.nan)


def weigh(tallies: Sequence[Tally], blocks: Iterable[Floats]) -> Floats:
    """Every metric of every tally under every weighting.

    Args:
        tallies: On the same patients.
        blocks: (clusters, some weightings) each.

    Returns:
        (tallies, metrics, weightings).
    """
    return np.concatenate(
        [np.stack([tally.metrics(weights) for tally in tallies]) for weights in blocks], axis=2
    )


def block_width(tallies: Sequence[Tally]) -> int:
    """Return how many weightings to take at once, so that a block's arrays stay in the processor's cache."""
    rows = max(max(tally.sums.shape[1], tally.ranking.positive.shape[0]) for tally in tallies)
    return int(np.clip(BLOCK_CELLS // rows, 16, 512))


def equal_mass_bins(values: Floats, *, num_bins: int) -> Integers:
    """Assign each value to one of `num_bins` bins of about as many values each; equal values share a bin.

    Args:
        values: (images,).
        num_bins: Number of bins; with many ties some stay empty.

    Returns:
        (images,) in 0 .. num_bins - 1, rising with the value.
    """
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    edges = np.quantile(values, np.arange(1, num_bins) / num_bins, method="inverted_cdf")
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def _count(rows: Integers, columns: Integers, shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=shape).tocsr()


def _mcc(
    true_positive: Floats, false_positive: Floats, true_negative: Floats, false_negative: Floats
) -> Floats:
    # With every image called the same the formula is 0 / 0 and the convention is 0; with one class it has no
    # meaning.
    positive, negative = true_positive + false_negative, true_negative + false_positive
    called, not_called = true_positive + false_positive, true_negative + false_negative
    scale = np.sqrt(positive) * np.sqrt(negative) * np.sqrt(called) * np.sqrt(not_called)
    value = (true_positive * true_negative - false_positive * false_negative) / scale
    # Four roots multiplied round to a little less than their product's root.
    value = np.clip(value, -1, 1)
    return np.where(positive * negative > 0, np.where(called * not_called > 0, value, 0.0), np.nan)


def _predictive_value(right: Floats, wrong: Floats, share: float) -> Floats:
    return right * share / (right * share + wrong * (1 - share))


def _intercept_terms(present: Booleans, scores: Floats) -> tuple[Floats, float]:
    """Per image, derivatives of the log likelihood of logit P(present) = intercept + score at its maximum."""
    if present.all() or not present.any():
        return np.zeros((2, len(scores))), np.nan
    intercept = 0.0
    for _ in range(100):
        fitted = expit(intercept + scores)
        # The information vanishes far from the estimate; a bounded step cannot run away.
        step = np.clip((present - fitted).sum() / max((fitted * (1 - fitted)).sum(), 1e-300), -2, 2)
        intercept += step
        if abs(step) < 1e-12:
            break
    fitted = expit(intercept + scores)
    return np.stack([present - fitted, fitted * (1 - fitted)]), float(intercept)


def _slope_terms(present: Booleans, scores: Floats) -> tuple[Floats, float]:
    """Per image, derivatives of the log likelihood of logit P(present) = a + slope * score at its maximum."""
    undefined = np.zeros((5, len(scores))), np.nan
    positive, negative = scores[present], scores[~present]
    if not len(positive) or not len(negative):
        return undefined
    if positive.min() >= negative.max() or negative.min() >= positive.max():
        return undefined
    # Standardised, so that Newton's steps are of one size in both directions.
    spread = scores.std()
    x = (scores - scores.mean()) / spread
    share = present.mean()
    level, slope = logit(share), 0.0
    for _ in range(100):
        terms = _slope_quantities(present, x, level, slope)
        score_level, score_slope, level_level, level_slope, slope_slope = terms.sum(axis=1)
        determinant = level_level * slope_slope - level_slope**2
        step = np.array(
            [
                slope_slope * score_level - level_slope * score_slope,
                level_level * score_slope - level_slope * score_level,
            ]
        ) / max(determinant, 1e-300)
        step *= min(1.0, 2 / max(np.abs(step).max(), 1e-300))
        level, slope = level + step[0], slope + step[1]
        if np.abs(step).max() < 1e-11 * max(1.0, abs(slope)):
            break
    terms = _slope_quantities(present, x, level, slope)
    # Back on the logits' own scale: the score with respect to slope / spread.
    terms *= np.array([1.0, spread, 1.0, spread, spread**2])[:, None]
    return terms, float(slope / spread)


def _slope_quantities(present: Booleans, x: Floats, level: float, slope: float) -> Floats:
    fitted = expit(level + slope * x)
    residual, information = present - fitted, fitted * (1 - fitted)
    return np.stack([residual, residual * x, information, information * x, information * x * x])


def _slope_step(sums: Floats) -> Floats:
    """Return one Newton step from the slope of all images toward that of each weighting (weightings,)."""
    score_level, score_slope, level_level, level_slope, slope_slope = sums
    determinant = level_level * slope_slope - level_slope**2
    return np.asarray((level_level * score_slope - level_slope * score_level) / determinant)
