"""Labels and probabilities -> Scores with intervals: the one place where anything is scored."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hilum import stats
from hilum.bundle import DecisionRule
from hilum.data.table import Table
from hilum.evaluation.subgroups import Subgroups, subgroups
from hilum.notices import Notice, notice
from hilum.recipe import Task
from hilum.stats import ClassScores, Resampling, Scores


@dataclass(frozen=True)
class ScoredImages:
    """What is scored: n images with k findings.

    Attributes:
        task: The question; its k findings are the columns.
        table: The n images, row for row.
        labels: (n, k), NaN unknown; of a task with exactly one class an image one 1 a row.
        probabilities: (n, k), calibrated.
        patients: (n,), the clusters of every interval.
        decision: How the k findings are called.
    """

    task: Task
    table: Table
    labels: np.ndarray
    probabilities: np.ndarray
    patients: np.ndarray
    decision: DecisionRule

    @cached_property
    def images(self) -> np.ndarray:
        """The images' names, str (n,)."""
        return np.asarray(self.table.frame["image"].to_numpy(str))

    def score(self, resampling: Resampling) -> Scores | ClassScores:
        """Score all images; see `score`."""
        return score(
            self.task,
            self.labels,
            self.probabilities,
            self.patients,
            decision=self.decision,
            resampling=resampling,
        )

    def subgroups(self, scores: Scores | ClassScores) -> Subgroups:
        """Score them by source, view, sex and age; see `subgroups.subgroups`."""
        return subgroups(
            self.table,
            self.labels,
            self.probabilities,
            decision=self.decision,
            patients=self.patients,
            scores=scores,
        )


def score(
    task: Task,
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    *,
    decision: DecisionRule,
    resampling: Resampling,
    level: str = "image",
    prevalence: float | None = None,
) -> Scores | ClassScores:
    """Score findings, or classes, with intervals by patient.

    Args:
        task: The question; its k findings are the columns.
        labels: (n, k), NaN unknown.
        probabilities: (n, k), calibrated.
        patients: (n,).
        decision: How the k findings are called.
        resampling: How intervals come about; its clusters are set to `patients`.
        level: What one row is, in words.
        prevalence: If given, predictive values are told at this prevalence too; not of classes.
    """
    by_patient = replace(resampling, clusters=patients)
    if task.exclusive:
        return stats.evaluate_classes(
            labels.argmax(axis=1),
            probabilities,
            names=task.findings,
            resampling=by_patient,
        )
    return stats.evaluate(
        labels,
        probabilities,
        thresholds=decision.array,
        findings=task.findings,
        level=level,
        prevalence=prevalence,
        resampling=by_patient,
    )


def worse_than_chance(high: float | None) -> bool:
    """Return whether an AUROC with this upper end of its interval lies below 0.5 with the whole of it."""
    return high is not None and high < 0.5


def ranking_notices(scores: Scores | ClassScores) -> Iterator[Notice]:
    """Yield that findings are ranked worse than chance, where any are: what a reader must know first."""
    findings = (scores.classes if isinstance(scores, ClassScores) else scores).findings
    aurocs = {name: found.metrics["auroc"] for name, found in findings.items()}
    worse = [
        f"{name} (AUROC {auroc.value:.3f}, {auroc.low:.3f} to {auroc.high:.3f})"
        for name, auroc in aurocs.items()
        if worse_than_chance(auroc.high)
    ]
    if worse:
        yield notice("worse-than-chance", findings=worse)
