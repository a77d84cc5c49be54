"""Logits and labels of another site -> the slope and intercept that make probabilities true there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from hilum.errors import UsageError
from hilum.notices import Notice, notice
from hilum.stats.calibration import TEMPERATURE_BOUNDS, finite
from hilum.stats.inputs import Floats, check
from hilum.stats.reasons import WithReason
from hilum.stats.scores import check_classes


@dataclass(frozen=True)
class SlopeAndIntercept(WithReason):
    """Probabilities are sigmoid(logit / temperature + intercept), or softmax over several.

    Attributes:
        temperature: Above 0; 1 / temperature is the slope.
        intercepts: One a column of logits; they move what a change of prevalence moves.
        notice: What a reader must know of the fit; None where all is plain.
    """

    temperature: float
    intercepts: tuple[float, ...]
    notice: Notice | None = None

    @property
    def flat(self) -> bool:
        """Whether the temperature lies at its upper bound, so that logits hardly move a probability."""
        return self.temperature >= TEMPERATURE_BOUNDS[1] * (1 - 1e-6)


def recalibrate_findings(
    logits: ArrayLike, labels: ArrayLike, temperatures: ArrayLike
) -> tuple[SlopeAndIntercept, ...]:
    """Fit slope and intercept of each finding by maximum likelihood: logistic recalibration.

    Cox 1958 (Biometrika 45:562-565); Platt 1999 (Advances in Large Margin Classifiers); as the update of a model at
    another site: Steyerberg et al. 2004 (Statistics in Medicine 23:2567-2586). The intercept is needed besides the
    temperature, since another prevalence moves all logits alike. The slope stays within the bounds of a temperature.

    Args:
        logits: (images, findings), not calibrated.
        labels: The same shape, 1 present, 0 absent, NaN unknown; each finding with both.
        temperatures: (findings,), kept where the logits separate the labels, so that no slope is the best.

    Raises:
        UsageError: Shapes differ, or a finding lacks labels of one kind.
        DataError: A logit is not finite or a label is not 0, 1 or NaN.
    """
    scores = finite(logits)
    truth = check(labels, np.zeros_like(scores)).labels
    kept = np.broadcast_to(np.asarray(temperatures, np.float64), (scores.shape[1],))
    found = []
    for column in range(scores.shape[1]):
        known = ~np.isnan(truth[:, column])
        rows, present = scores[known, column], truth[known, column] == 1
        if present.all() or not present.any():
            raise UsageError(f"column {column} has one label only; both are needed to recalibrate it")
        pairs = np.column_stack([np.zeros(len(rows)), rows])
        separated = rows[present].min() > rows[~present].max()
        fitted = _fit(pairs, present.astype(np.int64), fixed=kept[column] if separated else None)
        # Of the pair (0, logit) only the difference of the two intercepts counts.
        intercept = fitted.intercepts[1] - fitted.intercepts[0]
        found.append(SlopeAndIntercept(fitted.temperature, (intercept,), fitted.notice))
    return tuple(found)


def recalibrate_classes(logits: ArrayLike, classes: ArrayLike, temperature: float) -> SlopeAndIntercept:
    """Fit one temperature and an intercept a class by maximum likelihood.

    Bias-corrected temperature scaling: Alexandari, Kundaje & Shrikumar 2020 (ICML). Intercepts sum to 0.

    Args:
        logits: (images, classes).
        classes: (images,) the true class numbers, each class at least once.
        temperature: Kept where no logit errs.

    Raises:
        UsageError: Shapes differ, or a class has no image.
        DataError: A logit is not finite or a number is no class.
    """
    scores = finite(logits)
    truth = check_classes(classes, num_classes=scores.shape[1])
    if len(truth) != len(scores) or len(set(truth.tolist())) < scores.shape[1]:
        raise UsageError(
            f"{len(truth)} classes for {scores.shape} logits; one a row and each class are needed"
        )
    errs = (scores.argmax(axis=1) != truth).any()
    return _fit(scores, truth, fixed=None if errs else temperature)


def falls(logits: ArrayLike, labels: ArrayLike) -> bool:
    """Return whether the finding grows rarer with the logit, so that the best slope is not above 0.

    The likelihood, with the best intercept for each slope, has one maximum over the slope; it lies above 0 exactly
    where the likelihood grows at slope 0, that is where the mean logit is higher with the finding than without it.

    Args:
        logits: (images,) of a finding, or (images, classes).
        labels: 1 present, 0 absent, NaN unknown; or the one-hot classes.
    """
    scores, truth = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if scores.ndim == 1:
        known = ~np.isnan(truth)
        scores, truth = scores[known, None], truth[known, None]
    return bool(((truth.mean(axis=0) - truth) * scores).sum() >= 0)


def _fit(logits: Floats, classes: np.ndarray, *, fixed: float | None) -> SlopeAndIntercept:
    """Minimise the mean -log likelihood of softmax(slope logits + intercepts), convex in both together."""
    count = logits.shape[1]
    one_hot = classes[:, None] == np.arange(count)
    # On a scale of 1, so that slope and intercepts are of one size.
    scale = max(float(logits.std()), 1e-12)
    standard = logits / scale
    smallest, largest = (scale / bound for bound in reversed(TEMPERATURE_BOUNDS))
    if fixed is not None:
        smallest = largest = scale / fixed

    def loss(parameters: Floats) -> tuple[float, Floats]:
        raw = parameters[0] * standard + parameters[1:]
        residual = softmax(raw, axis=1) - one_hot
        value = (logsumexp(raw, axis=1) - raw[one_hot]).mean()
        return float(value), np.array([(residual * standard).sum(axis=1).mean(), *residual.mean(axis=0)])

    start = np.array([np.clip(scale, smallest, largest), *np.zeros(count)])
    bounds = [(smallest, largest), *[(None, None)] * count]
    options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    intercepts = found[1:] - found[1:].mean()
    met = None
    if fixed is not None:
        met = notice("temperature-kept")
    elif found[0] <= smallest * (1 + 1e-6):
        met = (
            notice("ranks-no-better-than-chance")
            if falls(logits, one_hot)
            else notice("slope-at-lower-bound")
        )
    elif found[0] >= largest * (1 - 1e-6):
        met = notice("slope-at-upper-bound")
    return SlopeAndIntercept(float(scale / found[0]), tuple(map(float, intercepts)), met)
