"""Validation logits and labels -> a Calibration, fixed before the test is read; and whether labels can be learned."""

import logging

import numpy as np

from hilum import stats
from hilum.bundle import MOST_PROBABLE, Calibration
from hilum.errors import TrainingError
from hilum.recipe import Recipe

log = logging.getLogger(__name__)


def calibrate(recipe: Recipe, logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fit temperatures and thresholds as the recipe asks; what could not be fitted is said in the log.

    Args:
        recipe: Of the run.
        logits: (n, findings) of the validation images, through the exported graph.
        labels: (n, findings), 1 present, 0 absent, NaN unknown; of `multiclass` exactly one 1 a row.

    Returns:
        A temperature and a threshold a finding; of `multiclass` one temperature and no threshold.
    """
    return (_of_classes if recipe.task.exclusive else _of_findings)(recipe, logits, labels)


def check_classes(labels: np.ndarray, findings: tuple[str, ...], kind: str) -> None:
    """Refuse labels that nothing can be learned from.

    Every class of `multiclass` needs images. Otherwise at least one finding needs images with it and without it; one
    among several that lacks either is said in the log.

    Args:
        labels: (n, findings) of the training images, 1 present, 0 absent, NaN unknown.
        findings: One a column.
        kind: `binary`, `multilabel` or `multiclass`.

    Raises:
        TrainingError: There is nothing to learn from.
    """
    present, absent = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    if kind == "multiclass":
        if not present.all():
            raise TrainingError(
                f"{findings[present.argmin()]} has 0 training images; each class needs some: check the labels and the "
                "split, or leave the class out of task.findings"
            )
        return
    lacking = [
        f"{finding} has {positives} positive and {negatives} negative training images; both are needed"
        for finding, positives, negatives in zip(findings, present.tolist(), absent.tolist(), strict=True)
        if not (positives and negatives)
    ]
    if len(lacking) == len(findings):
        raise TrainingError(f"{lacking[0]}: check the labels and the split")
    for message in lacking:
        log.warning("%s, so nothing about it is learned", message)


def _of_findings(recipe: Recipe, logits: np.ndarray, labels: np.ndarray) -> Calibration:
    settings, findings = recipe.calibrate, recipe.task.findings
    temperatures = [1.0] * len(findings)
    if settings.temperature:
        fitted = stats.sigmoid_temperatures(logits, labels)
        temperatures = [temperature.value for temperature in fitted]
        for finding, temperature in zip(findings, fitted, strict=True):
            if temperature.reason:
                log.info("temperature of %s: %s", finding, temperature.reason)
    calibration = Calibration(temperatures=tuple(temperatures), thresholds=(0.5,) * len(findings), rule="")
    thresholds = stats.choose_thresholds(
        labels,
        calibration.probabilities(logits),
        rule=settings.threshold,
        sensitivity=settings.sensitivity,
        findings=findings,
    )
    for finding, threshold in zip(findings, thresholds, strict=True):
        if threshold.reason:
            log.warning("threshold of %s: %s", finding, threshold.reason)
    rules = {
        "youden": "Youden's J on validation",
        "sensitivity": f"sensitivity {settings.sensitivity:g} on validation",
        "fixed": "fixed at 0.5",
    }
    return Calibration(
        temperatures=tuple(temperatures),
        thresholds=tuple(threshold.value for threshold in thresholds),
        rule=rules[settings.threshold],
    )


def _of_classes(recipe: Recipe, logits: np.ndarray, labels: np.ndarray) -> Calibration:
    temperature = stats.Temperature(1.0)
    if recipe.calibrate.temperature:
        temperature = stats.softmax_temperature(logits, labels.argmax(axis=1))
    if temperature.reason:
        log.info("temperature: %s", temperature.reason)
    return Calibration(link="softmax", temperatures=(temperature.value,), thresholds=(), rule=MOST_PROBABLE)
