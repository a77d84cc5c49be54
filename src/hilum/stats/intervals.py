"""Replicates, or counts, -> intervals: percentile and BCa bootstrap over patients, Wilson for proportions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri, stdtrit

from hilum.notices import Notice
from hilum.stats.inputs import Floats
from hilum.stats.reasons import WithReason


@dataclass(frozen=True)
class Estimate(WithReason):
    """A number with its interval, or the reason why there is none.

    Attributes:
        value: The estimate; None where it cannot be had.
        low: Lower end of the interval; None where the interval cannot be trusted.
        high: Upper end.
        method: How the interval was made; empty without an interval.
        notice: Why value or interval is missing, or over how many findings a mean is; None where all is plain.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""
    notice: Notice | None = None

    def to_dict(self) -> dict[str, float | str | None]:
        """Return the form of metrics.json; `method`, `reason` and `reason_code` only where there is one."""
        entry: dict[str, float | str | None] = {"value": self.value, "low": self.low, "high": self.high}
        if self.method:
            entry["method"] = self.method
        return entry | self.reason_to_dict()


def resamples(num_clusters: int, *, replicates: int, seed: int, width: int) -> Iterator[Floats]:
    """Draw patients with replacement.

    Args:
        num_clusters: Number of patients.
        replicates: Number of resamples in all.
        seed: Makes the resamples repeatable; the same seed pairs two models' resamples.
        width: Resamples a block; what is drawn does not depend on it.

    Yields:
        (clusters, width or fewer) blocks: how often each patient was drawn.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, replicates, width):
        count = min(width, replicates - start)
        drawn = rng.integers(0, num_clusters, size=(count, num_clusters))
        drawn += np.arange(count)[:, None] * num_clusters
        times = np.bincount(drawn.ravel(), minlength=count * num_clusters).reshape(count, num_clusters)
        yield np.ascontiguousarray(times.T, dtype=np.float64)


def leave_out(num_clusters: int, *, groups: int, seed: int, width: int) -> Iterator[Floats]:
    """Leave out one patient at a time or, with fewer groups than patients, one random group of patients.

    Yields:
        (clusters, width or fewer) blocks of 0 (left out) and 1, `groups` columns in all.
    """
    group = np.random.default_rng(seed).permutation(num_clusters) % groups
    for start in range(0, groups, width):
        out = np.arange(start, min(start + width, groups))
        yield np.asarray(group[:, None] != out, dtype=np.float64)


def percentile(replicates: Floats, *, confidence: float, spread: float = 1.0) -> tuple[Floats, Floats]:
    """Percentile bootstrap intervals (Efron 1979).

    Args:
        replicates: (..., replicates), NaN where a resample had no value.
        confidence: Such as 0.95.
        spread: Factor on the normal quantile of the percentiles; 1 is the plain interval (see `expansion`).

    Returns:
        Low and high, (...).
    """
    high = ndtr(ndtri((1 + confidence) / 2) * spread)
    low, top = np.nanquantile(replicates, [1 - high, high], axis=-1)
    return low, top


def expansion(num_clusters: float, *, confidence: float) -> float:
    """Return how much wider a percentile interval must reach because few patients vary too little among themselves.

    The bootstrap's variance is (n - 1) / n of the unbiased one and its quantiles are normal where t would be
    right; both are mended by taking percentiles at Phi(t sqrt(n / (n - 1))) (Hesterberg 2015, The American
    Statistician 69).

    Args:
        num_clusters: n, above 1; an effective number need not be whole.
        confidence: Such as 0.95.

    Returns:
        The factor for `percentile`, above 1.
    """
    tail = (1 + confidence) / 2
    t = stdtrit(num_clusters - 1, tail) * np.sqrt(num_clusters / (num_clusters - 1))
    return float(t / ndtri(tail))


def logit_normal(
    values: Floats, replicates: Floats, *, confidence: float, spread: float = 1.0
) -> tuple[Floats, Floats]:
    """Normal intervals on the logit scale with the bootstrap's standard error, for metrics within 0 and 1.

    Args:
        values: (...) the estimates, in (0, 1).
        replicates: (..., replicates), NaN where a resample had no value.
        confidence: Such as 0.95.
        spread: Factor on the normal quantile (see `expansion`).

    Returns:
        Low and high, (...).
    """
    error = np.nanstd(replicates, axis=-1, ddof=1) / (values * (1 - values))
    half = ndtri((1 + confidence) / 2) * spread * error
    return expit(logit(values) - half), expit(logit(values) + half)


def bca(values: Floats, replicates: Floats, jackknife: Floats, *, confidence: float) -> tuple[Floats, Floats]:
    """Return bias-corrected and accelerated bootstrap intervals (Efron 1987, JASA 82).

    Args:
        values: (...) the estimates.
        replicates: (..., replicates), NaN where a resample had no value.
        jackknife: (..., groups) estimates without one patient, or one group of patients.
        confidence: Such as 0.95.

    Returns:
        Low and high, (...).
    """
    defined = np.isfinite(replicates)
    at = values[..., None]
    # Resamples that equal the estimate count half, so that a lumpy metric is not taken for a biased one.
    below = ((replicates < at) + (replicates == at) / 2).sum(axis=-1) / np.maximum(defined.sum(axis=-1), 1)
    limit = 0.5 / replicates.shape[-1]
    bias = ndtri(np.clip(below, limit, 1 - limit))
    deviations = np.nanmean(jackknife, axis=-1, keepdims=True) - jackknife
    squares = np.nansum(deviations**2, axis=-1)
    skew = np.nansum(deviations**3, axis=-1) / np.maximum(6 * squares**1.5, np.finfo(float).tiny)
    ends = []
    for quantile in (ndtri((1 - confidence) / 2), ndtri((1 + confidence) / 2)):
        shifted = bias + quantile
        share = ndtr(bias + shifted / (1 - skew * shifted))
        ends.append(_quantiles(replicates, share))
    return ends[0], ends[1]


def wilson(successes: float, trials: float, *, confidence: float) -> tuple[float, float]:
    """Wilson's score interval for a proportion of independent trials (Wilson 1927, JASA 22).

    Args:
        successes: Between 0 and `trials`.
        trials: Above 0; an effective number need not be whole.
        confidence: Such as 0.95.

    Returns:
        Low and high in [0, 1].
    """
    return _score_interval(successes / trials, trials, float(ndtri((1 + confidence) / 2)))


def clustered_wilson(successes: Floats, trials: Floats, *, confidence: float) -> tuple[float, float]:
    """Wilson's interval with the number of trials that the patients are worth.

    The trials are divided by the design effect, the ratio of the between-patient (linearised) variance of the
    proportion to the binomial one, and at least 1 (Korn & Graubard 1998, Survey Methodology 24; Saha, Miller
    & Wang 2016, Int J Biostat 12); t replaces z. At 0 and 1, where no variance is seen, a patient is worth
    one trial.

    Args:
        successes: (clusters,) successes of each patient.
        trials: (clusters,) trials of each patient; patients without trials are left out.
        confidence: Such as 0.95.

    Returns:
        Low and high in [0, 1].
    """
    taking_part = trials > 0
    successes, trials = successes[taking_part], trials[taking_part]
    num_clusters, total = len(trials), trials.sum()
    share = successes.sum() / total
    binomial = share * (1 - share) / total
    if num_clusters < 2 or binomial == 0:
        effective = float(num_clusters)
    else:
        residuals = successes - share * trials
        variance = num_clusters / (num_clusters - 1) * (residuals**2).sum() / total**2
        effective = float(total / max(variance / binomial, 1.0))
    quantile = float(stdtrit(max(num_clusters - 1, 1), (1 + confidence) / 2))
    return _score_interval(float(share), effective, quantile)


def clustered_mean(values: Floats, clusters: NDArray[np.int64]) -> tuple[float, float]:
    """Return a mean over images with the standard error that patients give it (linearised; Taylor's method).

    Args:
        values: (images,), at least one.
        clusters: (images,), the patients, numbered from 0.

    Returns:
        The mean and its standard error, NaN for a single patient.
    """
    mean = float(values.mean())
    residuals = np.bincount(clusters, weights=values - mean)
    count = int(np.count_nonzero(np.bincount(clusters)))
    if count < 2:
        return mean, float("nan")
    return mean, float(np.sqrt(count / (count - 1) * (residuals**2).sum()) / len(values))


def _score_interval(share: float, trials: float, quantile: float) -> tuple[float, float]:
    weight = quantile**2 / trials
    centre = (share + weight / 2) / (1 + weight)
    half = quantile / (1 + weight) * np.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    # At the ends of the scale centre and half differ by rounding only.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return float(low), float(high)


def _quantiles(replicates: Floats, shares: Floats) -> Floats:
    rows = replicates.reshape(-1, replicates.shape[-1])
    found = [
        float(np.nanquantile(row, share)) if np.isfinite(share) and np.isfinite(row).any() else np.nan
        for row, share in zip(rows, np.ravel(shares), strict=True)
    ]
    return np.reshape(found, np.shape(shares))
