"""Two models on the same images -> differences with intervals and paired tests; seeds -> their spread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, chi2

from hilum.errors import UsageError
from hilum.notices import Notice, notice
from hilum.stats.delong import delong
from hilum.stats.inputs import Booleans, Floats, Inputs, Integers, check
from hilum.stats.intervals import Estimate
from hilum.stats.metrics import METRICS, Tally, weigh
from hilum.stats.reasons import WithReason
from hilum.stats.resampling import BY_IMAGE, Resampling
from hilum.stats.scores import (
    Settings,
    bootstrap_estimate,
    check_thresholds,
    few_patients,
    tally_of,
)


@dataclass(frozen=True)
class McNemar:
    """Images on which exactly one of two models is right.

    Attributes:
        first_only: Images that only the first model calls rightly.
        second_only: Images that only the second model calls rightly.
        exact_p: Two-sided binomial test (McNemar 1947); images taken as independent.
        corrected_p: Chi-square with Edwards' continuity correction (1948); images taken as independent.
        clustered_p: Chi-square with the variance of the patients' sums (modified Obuchowski test: Yang, Sun &
            Hardin 2010, Biom J 52).
    """

    first_only: int
    second_only: int
    exact_p: float
    corrected_p: float
    clustered_p: float


@dataclass(frozen=True)
class FindingComparison(WithReason):
    """First minus second model for one finding.

    Attributes:
        differences: Metric -> difference with its interval over the same resamples for both models.
        delong_p: Two-sided p value of equal AUROC (paired DeLong, patients as clusters); None with a reason.
        delong_holm_p: The same after Holm's correction over the findings.
        mcnemar: Of the decisions; None where no image is labelled.
        mcnemar_holm_p: `mcnemar.clustered_p` after Holm's correction over the findings.
        notice: Why delong_p is missing.
    """

    differences: Mapping[str, Estimate]
    delong_p: float | None
    delong_holm_p: float | None
    mcnemar: McNemar | None
    mcnemar_holm_p: float | None
    notice: Notice | None = None


@dataclass(frozen=True)
class ModelComparison:
    """First minus second model on the same images.

    Attributes:
        findings: Name -> comparison.
        macro: Metric -> difference of the means over the findings that have both values.
    """

    findings: Mapping[str, FindingComparison]
    macro: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Nothing but dicts, text, numbers and None."""
        return {
            "findings": {
                name: {
                    **{metric: estimate.to_dict() for metric, estimate in one.differences.items()},
                    "delong_p": one.delong_p,
                    "delong_holm_p": one.delong_holm_p,
                    "mcnemar": None if one.mcnemar is None else vars(one.mcnemar).copy(),
                    "mcnemar_holm_p": one.mcnemar_holm_p,
                    **one.reason_to_dict(),
                }
                for name, one in self.findings.items()
            },
            "macro": {metric: estimate.to_dict() for metric, estimate in self.macro.items()},
        }


@dataclass(frozen=True)
class Spread:
    """One figure over several seeds.

    Attributes:
        mean: Over the seeds.
        standard_deviation: Of the sample (n - 1); None for one seed.
        low: Smallest.
        high: Largest.
        count: Number of seeds.
    """

    mean: float
    standard_deviation: float | None
    low: float
    high: float
    count: int


def compare(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    first_thresholds: ArrayLike = 0.5,
    second_thresholds: ArrayLike = 0.5,
    findings: Sequence[str] | None = None,
    prevalence: float | None = None,
    resampling: Resampling = BY_IMAGE,
) -> ModelComparison:
    """Compare two models on the same images, each resample of patients serving both.

    Args:
        labels: (images, findings) or (images,), 1 present, 0 absent, NaN unknown.
        first: Probabilities of the first model, the same shape.
        second: Probabilities of the second model, the same shape.
        first_thresholds: (findings,) or one for all.
        second_thresholds: (findings,) or one for all.
        findings: One name a column.
        prevalence: In (0, 1), for predictive values at that prevalence.
        resampling: Whose images belong together, and how intervals are made; its method is the recommended one.

    Returns:
        Differences, first minus second; positive means the first is larger (worse for Brier and ECE).

    Raises:
        UsageError: Shapes differ, or a setting is out of range.
        DataError: A value is no label or no probability.
    """
    settings = Settings(replace(resampling, method="recommended"), prevalence)
    pair: list[tuple[Inputs, Booleans]] = []
    for probabilities, thresholds in ((first, first_thresholds), (second, second_thresholds)):
        inputs = check(labels, probabilities, clusters=resampling.clusters, findings=findings)
        cuts = check_thresholds(thresholds, num_findings=len(inputs.findings))
        pair.append((inputs, inputs.probabilities >= cuts))
    (one, first_calls), (two, second_calls) = pair
    names = one.findings
    tallies = [tally_of(*side, [i], prevalence=prevalence) for side in pair for i in range(len(names))]
    unweighted = weigh(tallies, [np.ones((one.num_clusters, 1))])[:, :, 0]
    values = unweighted[: len(names)] - unweighted[len(names) :]
    resampled = settings.resample(tallies)
    differences = resampled[: len(names)] - resampled[len(names) :]

    tests = [
        _tests(
            one.labels[:, i],
            (one, two),
            (first_calls, second_calls),
            column=i,
            confidence=settings.resampling.confidence,
        )
        for i in range(len(names))
    ]
    delong_holm = _holm_known([p for p, _, _ in tests])
    mcnemar_holm = _holm_known([None if test is None else test.clustered_p for _, test, _ in tests])
    return ModelComparison(
        findings={
            name: FindingComparison(
                _differences(values[i], differences[i], tallies[i], settings),
                delong_p,
                delong_holm[i],
                test,
                mcnemar_holm[i],
                reason,
            )
            for i, (name, (delong_p, test, reason)) in enumerate(zip(names, tests, strict=True))
        },
        macro=_macro(values, differences, tallies[: len(names)], settings),
    )


def mcnemar(first_right: Booleans, second_right: Booleans, *, clusters: Integers | None = None) -> McNemar:
    """Test whether two models are right equally often on the same images.

    Args:
        first_right: (images,) True where the first model's decision is right.
        second_right: (images,) of the second.
        clusters: (images,) patients numbered from 0; None for independent images.

    Returns:
        Counts and p values; with no discordant image all p values are 1.
    """
    difference = first_right.astype(np.int64) - second_right.astype(np.int64)
    first_only, second_only = int((difference > 0).sum()), int((difference < 0).sum())
    discordant = first_only + second_only
    if not discordant:
        return McNemar(0, 0, 1.0, 1.0, 1.0)
    gap = abs(first_only - second_only)
    by_patient = difference if clusters is None else np.bincount(clusters, weights=difference)
    # Patients whose differences cancel within themselves leave neither a difference nor a variance.
    squares = float((by_patient**2).sum())
    clustered = gap**2 / squares if squares else 0.0
    return McNemar(
        first_only,
        second_only,
        exact_p=float(binomtest(first_only, discordant).pvalue),
        corrected_p=float(chi2.sf(max(gap - 1, 0) ** 2 / discordant, 1)),
        clustered_p=float(chi2.sf(clustered, 1)),
    )


def holm(p_values: ArrayLike) -> Floats:
    """Adjust p values so that the chance of any false discovery stays bounded (Holm 1979, Scand J Stat 6).

    Args:
        p_values: (tests,) in [0, 1].

    Returns:
        (tests,) adjusted, at most 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def summarise_seeds(values: Sequence[float]) -> Spread:
    """Summarise one figure over runs that differ by their seed only.

    Args:
        values: One a seed.

    Raises:
        UsageError: There is none, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise UsageError(f"the seeds' values are {array.tolist()}; expected one finite number a seed")
    deviation = float(array.std(ddof=1)) if len(array) > 1 else None
    return Spread(float(array.mean()), deviation, float(array.min()), float(array.max()), len(array))


def _tests(
    labels: Floats,
    inputs: tuple[Inputs, Inputs],
    calls: tuple[Booleans, Booleans],
    *,
    column: int,
    confidence: float,
) -> tuple[float | None, McNemar | None, Notice | None]:
    known = ~np.isnan(labels)
    present = labels[known] == 1
    clusters = inputs[0].clusters[known]
    if not known.any():
        return None, None, notice("not-estimable", lacking="labelled images")
    right = [side[known, column] == present for side in calls]
    decisions = mcnemar(right[0], right[1], clusters=clusters)
    patients = min(len(np.unique(clusters[present])), len(np.unique(clusters[~present])))
    if patients < 2:
        return None, decisions, notice("delong-few-patients")
    scores = np.column_stack([side.probabilities[known, column] for side in inputs])
    p_value = delong(present, scores, clusters=clusters).difference(confidence=confidence)[3]
    if np.isnan(p_value):
        return None, decisions, notice("delong-without-variance")
    return p_value, decisions, None


def _differences(values: Floats, replicates: Floats, tally: Tally, settings: Settings) -> dict[str, Estimate]:
    few = few_patients(tally, settings.resampling.units)
    return {
        name: _difference(
            name, values[i], replicates[i], few=few, patients=min(tally.patients), settings=settings
        )
        for i, name in enumerate(settings.names)
    }


def _macro(
    values: Floats, replicates: Floats, tallies: Sequence[Tally], settings: Settings
) -> dict[str, Estimate]:
    estimates = {}
    for name in settings.names:
        position = METRICS.index(name)
        used = np.flatnonzero(np.isfinite(values[:, position])).tolist()
        few = next(
            (reason for i in used if (reason := few_patients(tallies[i], settings.resampling.units))), None
        )
        patients = min((min(tallies[i].patients) for i in used), default=0)
        mean = values[used, position].mean() if len(used) else np.nan
        estimates[name] = _difference(
            name, mean, replicates[used, position].sum(axis=0) / max(len(used), 1),
            few=few, patients=patients, settings=settings,
        )  # fmt: skip
    return estimates


def _difference(
    name: str, value: float, replicates: Floats, *, few: Notice | None, patients: int, settings: Settings
) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None, notice=notice("one-model-without-value"))
    if name == "ece":
        return Estimate(float(value), notice=notice("binned-error"))
    if few:
        return Estimate(float(value), notice=few)
    # A difference lives on no logit scale: the empty name asks for percentiles.
    return bootstrap_estimate("", float(value), replicates, None, patients=patients, settings=settings)


def _holm_known(p_values: Sequence[float | None]) -> list[float | None]:
    known = [p for p in p_values if p is not None]
    adjusted = iter(holm(known))
    return [None if p is None else float(next(adjusted)) for p in p_values]
