"""Labels and logits of validation -> the figures that steer training, alike in every engine."""

import math

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score


def validation_figures(labels: np.ndarray, logits: np.ndarray, *, multiclass: bool) -> dict[str, float]:
    """Computes what `train.monitor` may name, but the loss.

    Areas, precision, recall and F1 are means over the findings of which both classes are there. Decisions are made at
    a probability of 0.5, for `multiclass` by the largest logit.

    Args:
        labels: (images, findings), 1 present, 0 absent, NaN unknown.
        logits: The same shape.
        multiclass: Whether exactly one of the findings is present in each image.

    Returns:
        `val_auroc, val_average_precision, val_accuracy, val_precision, val_recall, val_f1`; NaN where no finding has
        both classes.
    """
    called = logits >= 0
    if multiclass:
        called = logits == logits.max(axis=1, keepdims=True)
    rows = [
        _one(truth, scores, calls) for truth, scores, calls in zip(labels.T, logits.T, called.T, strict=True)
    ]
    both = [row for row in rows if row]
    names = ("val_auroc", "val_average_precision", "val_accuracy", "val_precision", "val_recall", "val_f1")
    figures = {name: float(np.mean([row[name] for row in both])) if both else math.nan for name in names}
    if multiclass:
        figures["val_accuracy"] = float(np.mean(labels.argmax(axis=1) == logits.argmax(axis=1)))
    return figures


def _one(truth: np.ndarray, scores: np.ndarray, called: np.ndarray) -> dict[str, float]:
    """One finding's figures; empty where a class lacks or a score is not a number."""
    known = ~np.isnan(truth)
    present, scores, called = truth[known] == 1, scores[known], called[known]
    positives, negatives = int(present.sum()), int((~present).sum())
    if not positives or not negatives or not np.isfinite(scores).all():
        return {}
    right = int((called & present).sum())
    precision, recall = right / max(int(called.sum()), 1), right / positives
    # Mann-Whitney, ties counting half
    above = rankdata(scores)[present].sum() - positives * (positives + 1) / 2
    return {
        "val_auroc": above / (positives * negatives),
        "val_average_precision": float(average_precision_score(present, scores)),
        "val_accuracy": float(np.mean(called == present)),
        "val_precision": precision,
        "val_recall": recall,
        "val_f1": 2 * precision * recall / max(precision + recall, 1e-12),
    }
