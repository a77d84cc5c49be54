"""Validation logits and labels -> temperatures and thresholds, fixed before the test set is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import softmax

from hilum.errors import DataError, UsageError, nearest
from hilum.notices import Notice, notice
from hilum.stats.inputs import Booleans, Floats, Integers, check, columns
from hilum.stats.reasons import WithReason
from hilum.stats.scores import check_classes

Rule = Literal["youden", "sensitivity", "fixed"]
# Beyond these a temperature says that the logits are on no sensible scale rather than how confident they are.
TEMPERATURE_BOUNDS = (0.05, 20.0)
# One parameter, but its evidence is the scarcer class.
MIN_LABELS = 10


@dataclass(frozen=True)
class Temperature(WithReason):
    """Divide logits by it.

    Attributes:
        value: Above 0; 1 changes nothing.
        notice: Why it was not fitted, or lies at a bound; None for a fitted one.
    """

    value: float
    notice: Notice | None = None


@dataclass(frozen=True)
class Threshold(WithReason):
    """Present is called from this probability on.

    Attributes:
        value: In [0, 1], one of the validation probabilities where it was chosen from them.
        rule: How it was chosen.
        sensitivity: On the images it was chosen on; None without positives.
        specificity: On the images it was chosen on; None without negatives.
        notice: Why the rule could not be followed; None where it was.
    """

    value: float
    rule: str
    sensitivity: float | None
    specificity: float | None
    notice: Notice | None = None


def sigmoid_temperatures(logits: ArrayLike, labels: ArrayLike) -> tuple[Temperature, ...]:
    """Fit one temperature a finding: the T that minimises the mean -log likelihood of sigmoid(logit / T).

    Guo, Pleiss, Sun & Weinberger 2017 (ICML). The likelihood is convex in 1 / T, so that its derivative has
    one root.

    Args:
        logits: (images, findings) of the validation split.
        labels: The same shape, 1 present, 0 absent, NaN unknown.

    Returns:
        One a finding.

    Raises:
        UsageError: Shapes differ.
        DataError: A logit is not finite or a label is not 0, 1 or NaN.
    """
    scores = finite(logits)
    truth = check(labels, np.zeros_like(scores)).labels
    temperatures = []
    for column in range(scores.shape[1]):
        known = ~np.isnan(truth[:, column])
        pairs = np.column_stack([np.zeros(int(known.sum())), scores[known, column]])
        temperatures.append(_temperature(pairs, truth[known, column].astype(np.int64)))
    return tuple(temperatures)


def softmax_temperature(logits: ArrayLike, classes: ArrayLike) -> Temperature:
    """Fit the one temperature that minimises the mean -log likelihood of softmax(logits / T).

    Args:
        logits: (images, classes) of the validation split.
        classes: (images,) the true class numbers.

    Raises:
        UsageError: Shapes differ.
        DataError: A logit is not finite or a number is no class.
    """
    scores = finite(logits)
    truth = check_classes(classes, num_classes=scores.shape[1])
    if len(truth) != len(scores):
        raise UsageError(f"{len(truth)} classes for {len(scores)} rows of logits; give one a row")
    return _temperature(scores, truth)


def choose_thresholds(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    rule: Rule = "youden",
    sensitivity: float = 0.95,
    findings: Sequence[str] | None = None,
) -> tuple[Threshold, ...]:
    """Choose a threshold a finding on the validation split.

    Args:
        labels: (images, findings) or (images,), 1 present, 0 absent, NaN unknown.
        probabilities: The same shape, in [0, 1].
        rule: "youden": largest sensitivity + specificity - 1 (Youden 1950), the most sensitive one among
            equals; "sensitivity": the largest threshold whose sensitivity reaches `sensitivity`; "fixed":
            0.5.
        sensitivity: In (0, 1], for the rule of that name.
        findings: One name a column, for messages.

    Returns:
        One a finding; 0.5 with a reason where the labels do not allow the rule.

    Raises:
        UsageError: Shapes differ, the rule is unknown or the sensitivity out of range.
        DataError: A value is no label or no probability.
    """
    if rule not in RULES:
        raise UsageError(f"unknown threshold rule {rule!r}; known: {nearest(rule, RULES)}")
    if not 0 < sensitivity <= 1:
        raise UsageError(f"sensitivity is {sensitivity}; expected above 0 and at most 1, for example 0.95")
    inputs = check(labels, probabilities, findings=findings)
    chosen = []
    for column in range(len(inputs.findings)):
        known = ~np.isnan(inputs.labels[:, column])
        present, scores = inputs.labels[known, column] == 1, inputs.probabilities[known, column]
        value, given = RULES[rule](present, scores, sensitivity)
        called = scores >= value
        chosen.append(
            Threshold(
                value,
                f"sensitivity {sensitivity:g}" if rule == "sensitivity" else rule,
                float(called[present].mean()) if present.any() else None,
                float((~called[~present]).mean()) if not present.all() else None,
                given,
            )
        )
    return tuple(chosen)


def _youden(present: Booleans, scores: Floats, _: float) -> tuple[float, Notice | None]:
    if lacking := _one_class(present):
        return 0.5, lacking
    candidates, place = np.unique(scores, return_inverse=True)
    above = np.cumsum(np.bincount(place, weights=present)[::-1])[::-1]
    called = np.cumsum(np.bincount(place)[::-1])[::-1]
    positive, negative = present.sum(), (~present).sum()
    # In whole numbers, so that equals are equal; argmax takes the lowest threshold among them.
    youden = above * negative - (called - above) * positive
    best = int(np.argmax(youden))
    if youden[best] <= 0:
        return 0.5, notice("threshold-at-chance")
    return float(candidates[best]), None


def _given_sensitivity(present: Booleans, scores: Floats, sensitivity: float) -> tuple[float, Notice | None]:
    if not present.any():
        return 0.5, notice("threshold-no-positives")
    descending = np.sort(scores[present])[::-1]
    # A product such as 0.95 * 20 may round up past the whole number that is meant.
    needed = int(np.ceil(sensitivity * len(descending) - 1e-9))
    return float(descending[max(needed, 1) - 1]), None


def _fixed(present: Booleans, scores: Floats, _: float) -> tuple[float, Notice | None]:  # noqa: ARG001
    return 0.5, None


RULES: dict[str, Callable[[Booleans, Floats, float], tuple[float, Notice | None]]] = {
    "youden": _youden,
    "sensitivity": _given_sensitivity,
    "fixed": _fixed,
}


def _one_class(present: Booleans) -> Notice | None:
    if present.any() and not present.all():
        return None
    return notice("threshold-one-class", lacking="negatives" if present.any() else "positives")


def _temperature(logits: Floats, classes: Integers) -> Temperature:
    """Fit the temperature of softmax rows (images, classes); a sigmoid is the softmax of (0, logit)."""
    if logits.shape[1] == 2:
        scarcer = min(int((classes == 0).sum()), int((classes == 1).sum()))
        which = "negatives" if (classes == 0).sum() <= (classes == 1).sum() else "positives"
    else:
        scarcer, which = len(classes), "images"
    if scarcer < MIN_LABELS:
        return Temperature(
            1.0, notice("temperature-few-labels", number=scarcer, which=which, fewest=MIN_LABELS)
        )
    own = logits[np.arange(len(classes)), classes]
    others = logits.copy()
    others[np.arange(len(classes)), classes] = -np.inf
    if (own > others.max(axis=1)).all():
        return Temperature(1.0, notice("temperature-without-errors"))

    def slope(inverse: float) -> float:
        """Derivative of the mean -log likelihood with respect to 1 / T."""
        return float(((softmax(inverse * logits, axis=1) * logits).sum(axis=1) - own).mean())

    smallest, largest = TEMPERATURE_BOUNDS
    if slope(1 / largest) >= 0:
        return Temperature(largest, notice("temperature-at-upper-bound"))
    if slope(1 / smallest) <= 0:
        return Temperature(smallest, notice("temperature-at-lower-bound"))
    return Temperature(float(1 / brentq(slope, 1 / largest, 1 / smallest, xtol=1e-12)))


def finite(logits: ArrayLike) -> Floats:
    """Return float64 (images, findings) logits; raise DataError where one is not finite."""
    scores = columns(logits, name="logits")
    wrong = ~np.isfinite(scores)
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"the logit of image {row}, column {column}, is {scores[row, column]:g}; expected finite numbers"
        )
    return scores
