"""An Evaluation: all that a report tells about one model on one set of images."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hilum.bundle import DecisionRule, Recalibration
from hilum.evaluation.external import External
from hilum.evaluation.folds import Folds
from hilum.evaluation.subgroups import Subgroups
from hilum.inference.explanation import Case
from hilum.notices import Notice
from hilum.recipe import Task
from hilum.stats import ClassScores, Scores

FORMAT = 1


@dataclass(frozen=True)
class Evaluation:
    """All that a report tells about one bundle on one set of images.

    Attributes:
        title: The run's or recipe's name.
        bundle: The bundle's hash, 64 hexadecimal digits; empty for predictions from elsewhere.
        task: The question; its k findings are the columns of `labels` and `probabilities`.
        data: The sources' names, for example `kermany`.
        split: Which part was evaluated, for example `test`, or `all`.
        split_description: How that part was made, in a sentence.
        leaky: Whether patients may stand on both sides of the split.
        images: The n images' names.
        patients: The n images' patients, str.
        labels: float32 (n, k), NaN unknown; of `multiclass` one 1 a row and else 0.
        logits: float32 (n, k), before calibration.
        probabilities: float64 (n, k) in [0, 1], calibrated; of `multiclass` rows sum to 1.
        decision: How the k findings are called.
        scores: Point estimates and intervals; of `multiclass` each class against the others, and accuracy.
        test_reads: How often this test split was evaluated in this run, this time included; 0 unknown.
        history: One row an epoch, or None: epoch, train_loss, val_loss, val_auroc, learning_rate, seconds.
        best_epoch: The epoch whose weights were kept, or None.
        cases: Images to look at.
        facts: What the model is and how it was trained, as (name, value) in reading order.
        warnings: What a reader must know before any number.
        citations: Of data and of initial weights.
        external: Of data from elsewhere: what was not seen, and the comparison with the model's own test.
        folds: Of cross-validation: how its folds and repeats differ.
        subgroups: Metrics by source, view, sex and age, and what metadata alone tell.
        internal: Whether the images are the training's own data.
        bundles: Of cross-validation: the hash of each fold's bundle.
        recalibrated: Of a recalibrated bundle: the last recalibration.
        notes: Of predictions from elsewhere: how they were joined with the labels; None of all others.
    """

    title: str
    bundle: str
    task: Task
    data: str
    split: str
    split_description: str
    leaky: bool
    images: np.ndarray
    patients: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    decision: DecisionRule
    scores: Scores | ClassScores
    test_reads: int = 0
    history: pd.DataFrame | None = None
    best_epoch: int | None = None
    cases: tuple[Case, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    warnings: tuple[Notice, ...] = ()
    citations: tuple[str, ...] = ()
    external: External | None = None
    folds: Folds | None = None
    subgroups: Subgroups | None = None
    internal: bool = True
    bundles: tuple[str, ...] = ()
    recalibrated: Recalibration | None = None
    notes: tuple[Notice, ...] | None = None

    @property
    def decisions(self) -> np.ndarray:
        """What was called, bool (n, k): from the threshold on, or the most probable class."""
        return self.decision.decide(self.probabilities)

    @property
    def findings(self) -> tuple[str, ...]:
        """The k columns of `labels` and `probabilities`."""
        return self.task.findings

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return self.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Return the form of metrics.json: nothing but dicts, lists, text, numbers and None."""
        recalibrated = self.recalibrated.model_dump(mode="json") if self.recalibrated else None
        external = self.external.to_dict() if self.external else None
        return {
            "format": FORMAT,
            "bundle": self.bundle,
            **({"bundles": list(self.bundles)} if self.bundles else {}),
            "data": self.data,
            "split": self.split,
            "split_description": self.split_description,
            "leaky": self.leaky,
            "internal": self.internal,
            "test_reads": self.test_reads,
            "threshold_rule": self.decision.origin,
            **({"recalibrated": recalibrated, "external": external} if self.bundle else {}),
            **({} if self.notes is None else {"notes": [notice.text for notice in self.notes]}),
            **({"folds": self.folds.to_dict()} if self.folds else {}),
            **({"subgroups": self.subgroups.to_dict()} if self.subgroups else {}),
            **self.scores.to_dict(),
        }
