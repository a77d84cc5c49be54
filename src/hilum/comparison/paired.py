"""Two models on the same images -> their difference with tests, and on which images which of them is right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from hilum import stats
from hilum.comparison.contenders import FIGURES, Compared
from hilum.evaluation.external import ACCURACY, MEAN
from hilum.stats import Agreement, Estimate, McNemar, Resampling

RANKING = ("auroc", "average_precision")
"""Of the probabilities; all other figures are of the decisions."""


@dataclass(frozen=True)
class Difference:
    """A model minus the reference, for one finding or `MEAN`.

    Attributes:
        model: The model's name.
        finding: The finding, or `MEAN`.
        metrics: Metric -> difference with its interval; both models on the same resamples of patients.
        delong_p: Of equal AUROC; None where there is no test (`reason`, or a mean).
        delong_holm: After Holm's correction over all models and findings of the comparison.
        mcnemar: Of the decisions; None for a mean over findings.
        mcnemar_holm: `mcnemar.clustered_p`, corrected likewise.
        reason: Why `delong_p` is missing.
    """

    model: str
    finding: str
    metrics: Mapping[str, Estimate]
    delong_p: float | None
    delong_holm: float | None
    mcnemar: McNemar | None
    mcnemar_holm: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Pair:
    """Two models' decisions about every image and finding whose truth is known; of classes, about every image.

    Attributes:
        first: A model's name.
        second: Another's.
        both_right: How many both call rightly.
        first_only: Only the first.
        second_only: Only the second.
        both_wrong: Neither.
        same: How many decisions are the same, right or wrong.
        agreement: Of the decisions present and absent; None for classes.
    """

    first: str
    second: str
    both_right: int
    first_only: int
    second_only: int
    both_wrong: int
    same: int
    agreement: Agreement | None

    @property
    def total(self) -> int:
        """Decisions in all."""
        return self.both_right + self.first_only + self.second_only + self.both_wrong

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa of the decisions; None for classes, and where chance alone would agree always."""
        kappa = self.agreement.kappa if self.agreement else np.nan
        return None if np.isnan(kappa) else float(kappa)


def differences(
    model: Compared,
    reference: Compared,
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    findings: tuple[str, ...],
    resampling: Resampling,
) -> list[Difference]:
    """Take the reference's metrics from the model's, finding by finding and over all; see `stats.compare`.

    Args:
        model: One of the models.
        reference: Another, on the same images.
        labels: (n, k), NaN unknown.
        patients: (n,), the clusters.
        findings: The k columns.
        resampling: How intervals come about.

    Returns:
        One a finding and, of several, `MEAN`; p values not yet corrected.
    """
    by_patient = replace(resampling, clusters=patients)
    classes = model.decision.thresholds is None
    thresholds = [0.5 if classes else one.decision.array for one in (model, reference)]
    ranked = stats.compare(
        labels, model.probabilities, reference.probabilities, findings=findings,
        first_thresholds=thresholds[0], second_thresholds=thresholds[1], resampling=by_patient,
    )  # fmt: skip
    # Of classes the most probable one is called, which no threshold does: the decisions are compared as they are.
    called = (
        stats.compare(labels, *(one.decisions.astype(float) for one in (model, reference)),
                      findings=findings, resampling=by_patient)
        if classes
        else ranked
    )  # fmt: skip
    found = []
    for column, finding in enumerate(findings):
        one, calls = ranked.findings[finding], called.findings[finding]
        p_value, reason = one.delong_p, one.reason
        if p_value is None and _same_order(model, reference, labels, column):
            p_value, reason = 1.0, None  # two rankings that are one differ in nothing
        metrics = _joined(one.differences, calls.differences)
        found.append(Difference(model.name, finding, metrics, p_value, None, calls.mcnemar, None, reason))
    if len(findings) > 1:
        metrics, mcnemar = _joined(ranked.macro, called.macro), None
        if classes:
            metrics[ACCURACY], mcnemar = _accuracy_difference(model, reference, labels, by_patient)
        found.append(Difference(model.name, MEAN, metrics, None, None, mcnemar, None))
    return found


def _accuracy_difference(
    model: Compared, reference: Compared, labels: np.ndarray, by_patient: Resampling
) -> tuple[Estimate, McNemar | None]:
    """Return the difference in images put into the right class.

    Accuracy and McNemar's test see no more of a decision than whether it is right; so the most frequent class against
    the others stands for the truth, and a decision is that truth where the class called is right.
    """
    truth = labels[:, labels.sum(axis=0).argmax()]
    sides = [
        np.where((one.decisions == (labels == 1)).all(axis=1), truth, 1 - truth) for one in (model, reference)
    ]
    (only,) = stats.compare(truth, *sides, findings=["class"], resampling=by_patient).findings.values()
    return only.differences[ACCURACY], only.mcnemar


def _same_order(model: Compared, reference: Compared, labels: np.ndarray, column: int) -> bool:
    known = ~np.isnan(labels[:, column])
    if len(np.unique(labels[known, column])) < 2:
        return False
    one, other = (rankdata(side.probabilities[known, column]) for side in (model, reference))
    return bool((one == other).all())


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """Apply Holm's correction over all models and findings, each kind of test by itself."""
    delong = _holm([one.delong_p for one in differences])
    mcnemar = _holm([one.mcnemar.clustered_p if one.mcnemar else None for one in differences])
    return [
        replace(one, delong_holm=a, mcnemar_holm=b)
        for one, a, b in zip(differences, delong, mcnemar, strict=True)
    ]


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    adjusted = iter(stats.holm([p for p in p_values if p is not None]))
    return [None if p is None else float(next(adjusted)) for p in p_values]


def pair(first: Compared, second: Compared, labels: np.ndarray) -> Pair:
    """Count on how many decisions two models are right; labels as in `differences`."""
    known = ~np.isnan(labels)
    if classes := first.decision.thresholds is None:
        right = [(one.decisions == (labels == 1)).all(axis=1) for one in (first, second)]
        same = (first.decisions == second.decisions).all(axis=1)
    else:
        right = [(one.decisions == (labels == 1))[known] for one in (first, second)]
        same = (first.decisions == second.decisions)[known]
    calls = [one.decisions[known].astype(float) for one in (first, second)]
    return Pair(
        first.name,
        second.name,
        both_right=int((right[0] & right[1]).sum()),
        first_only=int((right[0] & ~right[1]).sum()),
        second_only=int((~right[0] & right[1]).sum()),
        both_wrong=int((~right[0] & ~right[1]).sum()),
        same=int(same.sum()),
        agreement=None if classes else stats.agreement(*calls)[0],
    )


def _joined(ranked: Mapping[str, Estimate], called: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {name: (ranked if name in RANKING else called)[name] for name in FIGURES}
