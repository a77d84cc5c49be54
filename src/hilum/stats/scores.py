"""Labels, probabilities, thresholds, patients -> every metric with its interval, by finding and over all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import DataError, UsageError
from hilum.notices import Notice, notice
from hilum.stats.inputs import (
    Booleans,
    Floats,
    Inputs,
    Integers,
    check,
    columns,
    sum_by_cluster,
)
from hilum.stats.intervals import (
    Estimate,
    bca,
    clustered_wilson,
    expansion,
    leave_out,
    logit_normal,
    percentile,
    resamples,
)
from hilum.stats.metrics import METRICS, Tally, block_width, weigh
from hilum.stats.resampling import BY_IMAGE, Resampling

# Below this many patients with, or without, the finding bootstrap intervals miss the truth too often; the
# simulations behind it are in docs/statistics.md.
MIN_PATIENTS = 10
# A replicate without a value says nothing; with more than a few such, the rest are no fair sample.
MIN_DEFINED = 0.95
JACKKNIFE_GROUPS = 1000


@dataclass(frozen=True)
class FindingScores:
    """What can be said of one finding.

    Attributes:
        positives: Images labelled present.
        negatives: Images labelled absent.
        unknown: Images without a label, left out.
        positive_patients: Patients with a positive image.
        negative_patients: Patients with a negative image.
        threshold: Present is called from this probability on; None where the most probable class decides.
        metrics: Name (of METRICS) -> estimate.
    """

    positives: int
    negatives: int
    unknown: int
    positive_patients: int
    negative_patients: int
    threshold: float | None
    metrics: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Return the form of metrics.json."""
        counts = {name: value for name, value in vars(self).items() if name != "metrics"}
        return {**counts, **_to_dict(self.metrics)}


@dataclass(frozen=True)
class Summary:
    """One figure a metric for several findings.

    Attributes:
        findings: The findings that enter.
        metrics: Name (of METRICS) -> estimate.
    """

    findings: tuple[str, ...]
    metrics: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Return the form of metrics.json."""
        return {"findings": list(self.findings), **_to_dict(self.metrics)}


@dataclass(frozen=True)
class Scores:
    """Every metric with its interval.

    Attributes:
        level: What one row is: "image", "patient (maximum)", ...
        num_images: Rows.
        num_patients: Clusters; equals num_images where no patients were given.
        confidence: Of the intervals.
        replicates: Bootstrap resamples.
        seed: Of the resamples.
        method: How intervals are made.
        prevalence: The stated prevalence of ppv_at_prevalence and npv_at_prevalence; None for none.
        rare: Findings with fewer positive patients than asked; left out of the two last summaries.
        findings: Name -> its scores.
        macro: Mean over the findings that have a value.
        micro: All (image, finding) pairs pooled.
        macro_without_rare: As macro, without rare findings.
        micro_without_rare: As micro, without rare findings.
    """

    level: str
    num_images: int
    num_patients: int
    confidence: float
    replicates: int
    seed: int
    method: str
    prevalence: float | None
    rare: tuple[str, ...]
    findings: Mapping[str, FindingScores]
    macro: Summary
    micro: Summary
    macro_without_rare: Summary
    micro_without_rare: Summary

    def to_dict(self) -> dict[str, Any]:
        """Return the form of metrics.json: nothing but dicts, lists, text, numbers and None."""
        return {name: _to_dict(value) for name, value in vars(self).items()}


def _to_dict(value: Any) -> Any:
    """Return a field in the form of metrics.json."""
    if isinstance(value, Mapping):
        return {name: entry.to_dict() for name, entry in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return value.to_dict() if isinstance(value, Summary) else value


@dataclass(frozen=True)
class ClassScores:
    """Scores of a task with exactly one class a row.

    Attributes:
        accuracy: Share of rows whose most probable class is the true one.
        confusion: (classes, classes) int64, rows true, columns predicted.
        classes: One against rest; its macro is the mean over classes.
    """

    accuracy: Estimate
    confusion: Integers
    classes: Scores

    def to_dict(self) -> dict[str, Any]:
        """Return the form of metrics.json."""
        return {
            **self.classes.to_dict(),
            "accuracy": self.accuracy.to_dict(),
            "confusion": self.confusion.tolist(),
        }


def evaluate(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    thresholds: ArrayLike = 0.5,
    findings: Sequence[str] | None = None,
    level: str = "image",
    prevalence: float | None = None,
    rare_below: int = MIN_PATIENTS,
    resampling: Resampling = BY_IMAGE,
) -> Scores:
    """Score a binary or multi-label task.

    Args:
        labels: (images, findings) or (images,), 1 present, 0 absent, NaN unknown: masked per finding.
        probabilities: The same shape, in [0, 1].
        thresholds: (findings,) or one for all; a finding is called present from its threshold on.
        findings: One name a column.
        level: What one row is, for the output; see `stats.aggregate`.
        prevalence: In (0, 1), for predictive values at that prevalence beside the ones of this set.
        rare_below: Findings with fewer positive patients are rare.
        resampling: Whose images belong together, and how intervals are made.

    Returns:
        Estimates; one that cannot be had is None with a reason.

    Raises:
        UsageError: Shapes differ, or a setting is out of range.
        DataError: A value is no label or no probability.
    """
    inputs = check(labels, probabilities, clusters=resampling.clusters, findings=findings)
    cuts = check_thresholds(thresholds, num_findings=len(inputs.findings))
    settings = Settings(resampling, prevalence)
    return _score(
        inputs, inputs.probabilities >= cuts, cuts, level=level, rare_below=rare_below, settings=settings
    )


def evaluate_classes(
    classes: ArrayLike,
    probabilities: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    level: str = "image",
    prevalence: float | None = None,
    rare_below: int = MIN_PATIENTS,
    resampling: Resampling = BY_IMAGE,
) -> ClassScores:
    """Score a task with exactly one class a row; the most probable class is the decision.

    Args:
        classes: (images,) whole numbers from 0.
        probabilities: (images, classes), rows summing to 1.
        names: One name a class.
        level: What one row is, for the output.
        prevalence: As in `evaluate`.
        rare_below: As in `evaluate`.
        resampling: As in `evaluate`.

    Raises:
        UsageError: Shapes differ, or a setting is out of range.
        DataError: A value is no class or no probability.
    """
    predicted = columns(probabilities, name="probabilities")
    truth = check_classes(classes, num_classes=predicted.shape[1])
    if len(truth) != len(predicted):
        raise UsageError(f"{len(truth)} classes for {len(predicted)} rows of probabilities; give one a row")
    everyone = np.arange(predicted.shape[1])
    inputs = check(truth[:, None] == everyone, predicted, clusters=resampling.clusters, findings=names)
    off = np.abs(predicted.sum(axis=1) - 1) > 1e-3
    if off.any():
        row = int(np.argmax(off))
        raise DataError(
            f"the probabilities of image {row} sum to {predicted[row].sum():g} ({off.sum()} such in all); "
            "expected 1: use evaluate for findings that do not exclude each other"
        )
    settings = Settings(resampling, prevalence)
    called = predicted.argmax(axis=1)
    scores = _score(
        inputs, called[:, None] == everyone, None, level=level, rare_below=rare_below, settings=settings
    )
    table = np.zeros((len(everyone), len(everyone)), dtype=np.int64)
    np.add.at(table, (truth, called), 1)
    right, trials = (
        sum_by_cluster(weight, inputs.clusters, num_clusters=inputs.num_clusters)
        for weight in (truth == called, np.ones(len(truth)))
    )
    accuracy = _proportion(float((truth == called).mean()), right, trials, settings)
    return ClassScores(accuracy, table, scores)


def confusion(labels: ArrayLike, probabilities: ArrayLike, *, thresholds: ArrayLike = 0.5) -> Integers:
    """Count decisions against the truth where it is known.

    Args:
        labels: (images, findings) or (images,), 1 present, 0 absent, NaN unknown.
        probabilities: The same shape, in [0, 1].
        thresholds: (findings,) or one for all.

    Returns:
        (findings, 2, 2) int64, rows true absent and present, columns called absent and present.
    """
    inputs = check(labels, probabilities)
    called = inputs.probabilities >= check_thresholds(thresholds, num_findings=len(inputs.findings))
    truth = np.stack([inputs.labels == 0, inputs.labels == 1], axis=-1).astype(np.int64)
    decisions = np.stack([~called, called], axis=-1).astype(np.int64)
    return np.asarray(np.einsum("ift,ifc->ftc", truth, decisions), dtype=np.int64)


@dataclass(frozen=True)
class Settings:
    """How estimates are made; raise UsageError where the stated prevalence is out of range."""

    resampling: Resampling
    prevalence: float | None

    def __post_init__(self) -> None:
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise UsageError(
                f"prevalence is {self.prevalence}; expected a share between 0 and 1, for example 0.05"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that are asked for."""
        return METRICS if self.prevalence is not None else METRICS[:-2]

    def resample(self, tallies: Sequence[Tally]) -> Floats:
        """(tallies, metrics, replicates) of the bootstrap over patients."""
        return weigh(
            tallies,
            resamples(
                tallies[0].sums.shape[1],
                replicates=self.resampling.replicates,
                seed=self.resampling.seed,
                width=block_width(tallies),
            ),
        )


def check_thresholds(thresholds: ArrayLike, *, num_findings: int) -> Floats:
    """Return (findings,) thresholds.

    Raises:
        UsageError: Neither one nor one a finding, or not a number.
    """
    cuts = np.asarray(thresholds, dtype=np.float64)
    if cuts.shape not in {(), (1,), (num_findings,)} or np.isnan(cuts).any():
        raise UsageError(
            f"thresholds are {cuts.tolist()}; expected one number, or one for each of {num_findings} findings"
        )
    return np.broadcast_to(cuts, (num_findings,))


def check_classes(classes: ArrayLike, *, num_classes: int) -> Integers:
    """Return (rows,) class numbers.

    Raises:
        UsageError: Not one dimension.
        DataError: A number is no class.
    """
    truth = columns(classes, name="classes")
    if truth.shape[1] != 1:
        raise UsageError(f"classes have {truth.shape[1]} columns; expected one class number a row")
    wrong = ~np.isin(truth[:, 0], np.arange(num_classes))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"the class of image {row} is {truth[row, 0]:g}; expected 0 to {num_classes - 1}")
    return truth[:, 0].astype(np.int64)


def tally_of(inputs: Inputs, decisions: Booleans, which: Sequence[int], *, prevalence: float | None) -> Tally:
    """Gather the labelled images of one finding, or of several pooled.

    Args:
        inputs: Checked.
        decisions: (images, findings).
        which: The columns to pool.
        prevalence: Stated, or None.
    """
    chosen = list(which)
    labels = inputs.labels[:, chosen]
    known = ~np.isnan(labels)
    return Tally.of(
        labels[known] == 1,
        inputs.probabilities[:, chosen][known],
        decisions[:, chosen][known],
        clusters=np.broadcast_to(inputs.clusters[:, None], labels.shape)[known],
        num_clusters=inputs.num_clusters,
        prevalence=np.nan if prevalence is None else prevalence,
    )


def few_patients(tally: Tally, units: str) -> Notice | None:
    """Return a notice where there are too few patients for a bootstrap interval."""
    with_it, without_it = tally.patients
    if min(with_it, without_it) >= MIN_PATIENTS:
        return None
    number, which = (with_it, "with") if with_it <= without_it else (without_it, "without")
    return notice("few-patients", number=number, units=units, which=which, fewest=MIN_PATIENTS)


def _score(
    inputs: Inputs,
    decisions: Booleans,
    cuts: Floats | None,
    *,
    level: str,
    rare_below: int,
    settings: Settings,
) -> Scores:
    names = inputs.findings
    everyone = list(range(len(names)))
    tallies = [tally_of(inputs, decisions, [i], prevalence=settings.prevalence) for i in everyone]
    common = [i for i in everyone if tallies[i].patients[0] >= rare_below]
    # One finding pooled is that finding; common findings are pooled apart where they differ from all.
    pools = [pool for pool in (everyone, common) if len(pool) > 1]
    pools = pools[:1] if common == everyone else pools
    pooled = [tally_of(inputs, decisions, pool, prevalence=settings.prevalence) for pool in pools]
    table = _Table.of([*tallies, *pooled], settings)
    findings = {
        name: FindingScores(
            positives=tallies[i].positives,
            negatives=tallies[i].negatives,
            unknown=int(np.isnan(inputs.labels[:, i]).sum()),
            positive_patients=tallies[i].patients[0],
            negative_patients=tallies[i].patients[1],
            threshold=None if cuts is None else float(cuts[i]),
            metrics=table.row(i),
        )
        for i, name in enumerate(names)
    }

    def rows(pool: list[int]) -> dict[str, Estimate]:
        return table.row(pool[0] if len(pool) == 1 else len(names) + pools.index(pool))

    macro = _summary(names, everyone, table.mean(everyone))
    micro = _summary(names, everyone, rows(everyone))
    if len(common) == len(names):
        macro_common, micro_common = macro, micro
    elif common:
        macro_common = _summary(names, common, table.mean(common))
        micro_common = _summary(names, common, rows(common))
    else:
        nothing = Estimate(None, notice=notice("every-finding-rare"))
        macro_common = micro_common = Summary((), dict.fromkeys(settings.names, nothing))
    return Scores(
        level=level,
        num_images=len(inputs.labels),
        num_patients=inputs.num_clusters,
        confidence=settings.resampling.confidence,
        replicates=settings.resampling.replicates,
        seed=settings.resampling.seed,
        method=settings.resampling.method,
        prevalence=settings.prevalence,
        rare=tuple(names[i] for i in everyone if i not in common),
        findings=findings,
        macro=macro,
        micro=micro,
        macro_without_rare=macro_common,
        micro_without_rare=micro_common,
    )


def _summary(names: tuple[str, ...], which: Sequence[int], metrics: Mapping[str, Estimate]) -> Summary:
    return Summary(tuple(names[i] for i in which), metrics)


@dataclass(frozen=True)
class _Table:
    """Values, replicates and (for BCa) jackknife values of every tally: (tallies, metrics[, weightings])."""

    tallies: Sequence[Tally]
    values: Floats
    replicates: Floats
    jackknife: Floats | None
    settings: Settings

    @classmethod
    def of(cls, tallies: Sequence[Tally], settings: Settings) -> "_Table":
        num_clusters = tallies[0].sums.shape[1]
        jackknife = None
        if settings.resampling.method == "bca":
            groups = min(num_clusters, JACKKNIFE_GROUPS)
            width = block_width(tallies)
            jackknife = weigh(
                tallies, leave_out(num_clusters, groups=groups, seed=settings.resampling.seed, width=width)
            )
        values = weigh(tallies, [np.ones((num_clusters, 1))])[:, :, 0]
        return cls(tallies, values, settings.resample(tallies), jackknife, settings)

    def row(self, index: int) -> dict[str, Estimate]:
        """Return the estimates of one tally."""
        tally = self.tallies[index]
        counts = tally.counts
        estimates = {}
        for position, name in enumerate(self.settings.names):
            value = float(self.values[index, position])
            if not np.isfinite(value):
                estimates[name] = Estimate(None, notice=_why_not(name, tally))
            elif name == "ece":
                estimates[name] = Estimate(value, notice=notice("binned-error"))
            elif name in counts and self.settings.resampling.method == "recommended":
                estimates[name] = _proportion(value, *counts[name], self.settings)
            elif few := few_patients(tally, self.settings.resampling.units):
                estimates[name] = Estimate(value, notice=few)
            else:
                jackknife = None if self.jackknife is None else self.jackknife[index, position]
                estimates[name] = bootstrap_estimate(
                    name,
                    value,
                    self.replicates[index, position],
                    jackknife,
                    patients=min(tally.patients),
                    settings=self.settings,
                )
        return estimates

    def mean(self, which: Sequence[int]) -> dict[str, Estimate]:
        """Return the macro estimates over some tallies: the mean over those that have a value."""
        estimates = {}
        for position, name in enumerate(self.settings.names):
            used = [i for i in which if np.isfinite(self.values[i, position])]
            if not used:
                estimates[name] = Estimate(None, notice=notice("no-finding-has-value"))
                continue
            value = float(self.values[used, position].mean())
            few = [
                rare for i in used if (rare := few_patients(self.tallies[i], self.settings.resampling.units))
            ]
            if name == "ece":
                estimates[name] = Estimate(value, notice=notice("binned-error"))
            elif few:
                counts = {"findings": len(few), "of_findings": len(used)}
                estimates[name] = Estimate(value, notice=replace(few[0], values={**few[0].values, **counts}))
            else:
                replicates = self.replicates[used, position]
                estimates[name] = bootstrap_estimate(
                    name,
                    value,
                    replicates.mean(axis=0),
                    None if self.jackknife is None else self.jackknife[used, position].mean(axis=0),
                    patients=self._effective_patients(used, replicates),
                    settings=self.settings,
                )
            if len(used) < len(which):
                mean = notice(
                    "mean-of-some-findings",
                    used=len(used),
                    findings=len(which),
                    reason=estimates[name].reason,
                )
                estimates[name] = replace(estimates[name], notice=mean)
        return estimates

    def _effective_patients(self, used: Sequence[int], replicates: Floats) -> float:
        # Welch-Satterthwaite: the rare findings bring the variance, and their few patients the uncertainty
        # about it.
        variances = np.nanvar(replicates, axis=1)
        freedom = np.array([min(self.tallies[i].patients) - 1 for i in used])
        squares = float((variances**2 / freedom).sum())
        return float(1 + variances.sum() ** 2 / squares) if squares > 0 else float(1 + freedom.min())


def bootstrap_estimate(
    name: str,
    value: float,
    replicates: Floats,
    jackknife: Floats | None,
    *,
    patients: float,
    settings: Settings,
) -> Estimate:
    """Make an estimate of a value and its replicates, or say why there is no interval.

    Args:
        name: Of the metric.
        value: Of the metric.
        replicates: (replicates,), NaN where undefined.
        jackknife: (groups,), for BCa.
        patients: Of the scarcer class.
        settings: How.
    """
    defined = float(np.isfinite(replicates).mean())
    if defined < MIN_DEFINED:
        return Estimate(value, notice=notice("few-resamples-defined", share=defined))
    confidence = settings.resampling.confidence
    method = f"bootstrap of {settings.resampling.replicates} resamples of {settings.resampling.units}, "
    if settings.resampling.method == "bca" and jackknife is not None:
        method += "BCa"
        ends = bca(np.asarray(value), replicates, jackknife, confidence=confidence)
    elif settings.resampling.method == "recommended" and name == "auroc" and 0 < value < 1:
        method += "normal on the logit scale"
        spread = expansion(patients, confidence=confidence)
        ends = logit_normal(np.asarray(value), replicates, confidence=confidence, spread=spread)
    elif settings.resampling.method == "recommended":
        method += "percentile widened for few patients"
        ends = percentile(
            replicates, confidence=confidence, spread=expansion(patients, confidence=confidence)
        )
    else:
        method += "percentile"
        ends = percentile(replicates, confidence=confidence)
    low, high = float(ends[0]), float(ends[1])
    if not (np.isfinite(low) and np.isfinite(high)) or low == high:
        return Estimate(value, notice=notice("resamples-equal"))
    return Estimate(value, low, high, method)


def _proportion(value: float, successes: Floats, trials: Floats, settings: Settings) -> Estimate:
    taking_part = int((trials > 0).sum())
    if taking_part < 2:
        return Estimate(value, notice=notice("single-unit", unit=settings.resampling.units[:-1]))
    low, high = clustered_wilson(successes, trials, confidence=settings.resampling.confidence)
    return Estimate(value, low, high, f"Wilson with {settings.resampling.units} as clusters")


def _why_not(name: str, tally: Tally) -> Notice:
    positive, negative, true_positive, false_positive = tally.sums[:4].sum(axis=1)
    called = true_positive + false_positive
    if positive + negative == 0:
        lacking = "labelled images"
    elif name == "npv" and called == positive + negative:
        lacking = "images called absent"
    elif name == "ppv" and called == 0:
        lacking = "images called present"
    elif positive == 0:
        lacking = "positives"
    elif negative == 0:
        lacking = "negatives"
    elif name == "calibration_slope":
        return notice("no-slope")
    else:
        return notice("nothing-called", called="present" if name == "ppv_at_prevalence" else "absent")
    return notice("not-estimable", lacking=lacking)
