"""The folds of a cross-validation, scored one by one -> how they and its repeats differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from hilum.stats import ClassScores, Estimate, Scores

METRICS = ("auroc", "average_precision", "sensitivity", "specificity")
OF_CLASSES = ("auroc", "accuracy")
APART = 0.02
"""Where the AUROC of all folds together lies this far below the mean of the folds, their scales differ."""


@dataclass(frozen=True)
class Fold:
    """One fold, or all folds of a repeat together.

    Attributes:
        repeat: From 1 on.
        fold: From 1 on; 0 for all folds of the repeat.
        images: How many were scored.
        patients: Of how many patients.
        figures: Metric -> estimate, of several findings the mean; of a fold at its own model's thresholds.
    """

    repeat: int
    fold: int
    images: int
    patients: int
    figures: Mapping[str, Estimate]


@dataclass(frozen=True)
class Folds:
    """All folds and repeats of a cross-validation, the folds of a repeat first and then the repeat as a whole."""

    number: int
    repeats: int
    rows: tuple[Fold, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics."""
        return tuple(self.rows[0].figures)

    @property
    def whole(self) -> Fold:
        """All folds of the first repeat together."""
        return next(row for row in self.rows if row.fold == 0)

    def values(self, metric: str, *, whole: bool) -> list[list[float]]:
        """Return a metric's known values, a list a repeat: of its folds, or of the repeat as a whole."""
        return [
            [
                float(value)
                for row in self.rows
                if row.repeat == repeat
                and (row.fold == 0) == whole
                and (value := row.figures[metric].value) is not None
            ]
            for repeat in range(1, self.repeats + 1)
        ]

    def mean_of_folds(self, metric: str) -> float | None:
        """Return the mean over all folds of all repeats."""
        values = [*chain(*self.values(metric, whole=False))]
        return float(np.mean(values)) if values else None

    def mean_of_repeats(self, metric: str) -> float | None:
        """Return the mean over repeats of what each gives as a whole."""
        values = [*chain(*self.values(metric, whole=True))]
        return float(np.mean(values)) if values else None

    def between_folds(self, metric: str) -> float | None:
        """Return the standard deviation between the folds of one repeat, the variance averaged over repeats."""
        variances = [np.var(values, ddof=1) for values in self.values(metric, whole=False) if len(values) > 1]
        return float(np.sqrt(np.mean(variances))) if variances else None

    def between_repeats(self, metric: str) -> float | None:
        """Return the standard deviation between repeats as wholes."""
        values = [*chain(*self.values(metric, whole=True))]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    @property
    def comparable(self) -> bool:
        """Whether probabilities of different folds can be ranked in one order.

        The mean of the folds compares images within a fold alone, all folds together across folds as well. Where these
        rank clearly worse, the folds' models are not calibrated alike (Forman and Scholz 2010, SIGKDD Explorations
        12:49-57).
        """
        single, together = self.mean_of_folds("auroc"), self.mean_of_repeats("auroc")
        return single is None or together is None or single - together <= APART

    def to_dict(self) -> dict[str, Any]:
        """Return the form of metrics.json."""
        return {
            "folds": self.number,
            "repeats": self.repeats,
            "comparable": self.comparable,
            "headline": "all_folds" if self.comparable else "mean_of_folds",
            "rows": [
                {
                    "repeat": row.repeat,
                    "fold": row.fold or None,
                    "images": row.images,
                    "patients": row.patients,
                    **{name: estimate.to_dict() for name, estimate in row.figures.items()},
                }
                for row in self.rows
            ],
            **{
                name: {metric: getattr(self, name)(metric) for metric in self.metrics}
                for name in ("mean_of_folds", "between_folds", "mean_of_repeats", "between_repeats")
            },
        }


def main_metrics(scores: Scores | ClassScores) -> dict[str, Estimate]:
    """Return what is told of a fold: `METRICS`, or `OF_CLASSES`."""
    if isinstance(scores, ClassScores):
        known = {**scores.classes.macro.metrics, "accuracy": scores.accuracy}
        return {name: known[name] for name in OF_CLASSES}
    findings = list(scores.findings.values())
    metrics = findings[0].metrics if len(findings) == 1 else scores.macro.metrics
    return {name: metrics[name] for name in METRICS}


def order_folds(rows: Sequence[Fold], *, number: int, repeats: int) -> Folds:
    """Put rows in order: each repeat's folds, and then the repeat as a whole."""
    ordered = sorted(rows, key=lambda row: (row.repeat, row.fold == 0, row.fold))
    return Folds(number, repeats, tuple(ordered))
