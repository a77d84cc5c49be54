"""A Table -> how well view, age, sex and image size alone predict each label."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum.data.table import Table
from hilum.notices import Notice, notice
from hilum.stats.delong import delong

FACTORS = ("view", "age", "sex", "image size")
TOGETHER = "all together"
PREDICTABLE = 0.6
"""A label is told of where the lower end of the AUROC's interval is at or above."""

_FOLDS, _PRIOR, _BINS, _FEWEST = 5, 10, 10, 10
_COMMON = 0.01


@dataclass(frozen=True)
class Association:
    """How well something known of the film, and no pixel, tells the images with a finding.

    Attributes:
        finding: Which.
        factor: One of `FACTORS`, or `TOGETHER`.
        positives: Images with it.
        value: AUROC; None where it cannot be estimated.
        low: Lower end of the 95 % interval, with patients as the units.
        high: Upper end.
        reason: Why there is no estimate.
    """

    finding: str
    factor: str
    positives: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: Notice | None = None

    @property
    def predictable(self) -> bool:
        """Whether the label is surely told better than `PREDICTABLE`; a perfect AUROC has no interval."""
        return self.value == 1 or (self.low is not None and self.low >= PREDICTABLE)


def associations(
    table: Table, *, width: NDArray[np.integer] | None = None, height: NDArray[np.integer] | None = None
) -> tuple[Association, ...]:
    """Estimate the AUROC of each factor for each finding, and of all factors together.

    Each factor is cut into levels (ages into tenths, rare sizes joined by area). An image's score is the log odds of
    the finding among the images of its level that belong to other patients' folds (five, with ten images' worth of the
    overall prevalence added), so that nothing is scored by its own label and no shape of the relation is assumed. Of
    all together the log odds are summed, as naive Bayes does. AUROC and interval: DeLong's with patients as the units.

    Args:
        table: With its labels.
        width: (rows,), of the images where the table does not tell it; 0 unknown.
        height: (rows,), likewise.
    """
    levels = _levels(table, width, height)
    clusters = pd.factorize(table.patient_keys)[0]
    folds = np.random.default_rng(0).permutation(clusters.max(initial=-1) + 1)[clusters] % _FOLDS
    found: list[Association] = []
    for finding, labels in zip(table.findings, table.labels(table.findings).T, strict=True):
        known = ~np.isnan(labels)
        present, of, fold = labels[known] == 1, clusters[known], folds[known]
        few = min(_num_patients(of[present]), _num_patients(of[~present])) < _FEWEST
        scores, reasons = {}, {}
        for factor in FACTORS:
            level = levels[factor][known]
            if few:
                reasons[factor] = notice("association-few-patients", fewest=_FEWEST)
            elif level.min() == level.max():
                constant = notice("association-constant")
                reasons[factor] = notice("association-unknown") if level[0] < 0 else constant
            else:
                scores[factor] = _scores(level, present, fold)
        if len(scores) > 1:
            scores[TOGETHER] = np.sum(list(scores.values()), axis=0)
        found += _estimated(finding, present, scores, of)
        found += [
            Association(finding, factor, int(present.sum()), reason=why) for factor, why in reasons.items()
        ]
    return tuple(found)


def _num_patients(clusters: NDArray[np.int64]) -> int:
    return int(np.count_nonzero(np.bincount(clusters)))


def _levels(
    table: Table, width: NDArray[np.integer] | None, height: NDArray[np.integer] | None
) -> Mapping[str, NDArray[np.int64]]:
    """Return the level of each row by factor, -1 unknown."""
    frame = table.frame
    told = ((frame["width"] > 0) & (frame["height"] > 0)).to_numpy()
    across = np.where(told, frame["width"], 0 if width is None else width)
    down = np.where(told, frame["height"], 0 if height is None else height)
    return {
        "view": pd.factorize(frame["view"].where(frame["view"] != ""))[0],
        "age": _tenths(frame["age"]),
        "sex": pd.factorize(frame["sex"].where(frame["sex"] != ""))[0],
        "image size": _sizes(across.astype(np.int64), down.astype(np.int64)),
    }


def _tenths(values: pd.Series) -> NDArray[np.int64]:
    """Cut numbers into `_BINS` levels of about equal count; -1 where unknown."""
    if values.nunique() < 2:
        return np.where(values.isna(), -1, 0)
    return np.asarray(pd.qcut(values, _BINS, labels=False, duplicates="drop").fillna(-1), np.int64)


def _sizes(width: NDArray[np.int64], height: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a level for each common size, and tenths of the area for the others."""
    known = width > 0
    sizes = pd.Series(list(zip(width.tolist(), height.tolist(), strict=True)))
    common = sizes.map(sizes[known].value_counts(normalize=True)).fillna(0).to_numpy() >= _COMMON
    area = pd.Series(np.where(known & ~common, width * height, np.nan))
    levels = np.where(common, _BINS + pd.factorize(sizes)[0], _tenths(area))
    return np.where(known, levels, -1)


def _scores(
    level: NDArray[np.int64], present: NDArray[np.bool_], fold: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the log odds of each image's level among the other folds, against all images' of these folds."""
    scores = np.zeros(len(level))
    codes = level + 1
    count = int(codes.max()) + 1
    for number in range(_FOLDS):
        here, elsewhere = fold == number, fold != number
        prevalence = (present[elsewhere].sum() + 1) / (elsewhere.sum() + 2)
        images = np.bincount(codes[elsewhere], minlength=count) + _PRIOR
        positives = np.bincount(codes[elsewhere & present], minlength=count) + _PRIOR * prevalence
        share = (positives / images)[codes[here]]
        scores[here] = np.log(share / (1 - share)) - np.log(prevalence / (1 - prevalence))
    return scores


def _estimated(
    finding: str,
    present: NDArray[np.bool_],
    scores: Mapping[str, NDArray[np.float64]],
    clusters: NDArray[np.int64],
) -> Iterator[Association]:
    if not scores:
        return
    areas = delong(present, np.stack([*scores.values()], axis=1), clusters=clusters)
    for column, (factor, value) in enumerate(zip(scores, areas.values.tolist(), strict=True)):  # noqa: PD011
        low, high = areas.interval(column, confidence=0.95)
        ends = (low, high) if np.isfinite(low) and np.isfinite(high) else (None, None)
        yield Association(finding, factor, int(present.sum()), value, *ends)
