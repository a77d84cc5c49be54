"""Labels and logits of validation -> the figures that steer training, alike in every engine."""

import math

import numpy as np

from hilum.recipe.validation_metrics import METRICS, ScoredFinding


def validation_figures(labels: np.ndarray, logits: np.ndarray, *, multiclass: bool) -> dict[str, float]:
    """Compute what `train.monitor` may name, but the loss.

    Figures are means over the findings of which both classes are there. The accuracy of `multiclass` is the share of
    images whose class is right.

    Args:
        labels: (images, findings), 1 present, 0 absent, NaN unknown.
        logits: The same shape.
        multiclass: Whether exactly one of the findings is present in each image.

    Returns:
        Each of `METRICS`; NaN where no finding has both classes, or a logit is not a number.
    """
    called = logits == logits.max(axis=1, keepdims=True) if multiclass else logits >= 0
    columns = [_finding(*column) for column in zip(labels.T, logits.T, called.T, strict=True)]
    scored = [scores for scores in columns if scores is not None]
    figures = {
        name: float(np.mean([metric(scores) for scores in scored])) if scored else math.nan
        for name, metric in METRICS.items()
    }
    if multiclass:
        figures["val_accuracy"] = float(np.mean(labels.argmax(axis=1) == logits.argmax(axis=1)))
    return figures


def _finding(labels: np.ndarray, logits: np.ndarray, called: np.ndarray) -> ScoredFinding | None:
    """Return one finding's scores; None where a class is missing or a logit is not a number."""
    known = ~np.isnan(labels)
    present = labels[known] == 1
    if present.all() or not present.any() or not np.isfinite(logits[known]).all():
        return None
    return ScoredFinding(present, logits[known], called[known])
