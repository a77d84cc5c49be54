"""A Table with a split -> what stands in more than one part, and how the parts differ."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum.data.table import SPLITS, Table
from hilum.notices import Notice, notice
from hilum.stats.intervals import clustered_mean

CERTAIN, LARGE, ODDS = 3.29, 0.2, 1.68
"""A difference is told where it is so many standard errors (p < 0.001) and, of ages, so many standard deviations large
or, of shares, such an odds ratio: the least that is not negligible (Cohen, Statistical Power Analysis, 1988; Chen,
Cohen & Chen 2010, Communications in Statistics 39)."""


@dataclass(frozen=True)
class Value:
    """A mean or share in one part.

    Attributes:
        value: Years, or a share in [0, 1].
        error: Its standard error, with patients as the units; NaN for one patient.
        deviation: Standard deviation over the images.
        count: Images of which it is known.
        num_patients: Their patients.
    """

    value: float
    error: float
    deviation: float
    count: int
    num_patients: int


@dataclass(frozen=True)
class SplitComparison:
    """One quantity in all parts.

    Attributes:
        name: `age`, `view PA`, `sex F`, or a finding.
        parts: By the part's name; parts in which it is unknown are not there.
        differing: Names of the two parts that differ most, where that is certain and large; else None.
    """

    name: str
    parts: Mapping[str, Value]
    differing: tuple[str, str] | None


def across(groups: NDArray[np.int64], parts: NDArray[np.str_]) -> list[NDArray[np.int64]]:
    """Return the rows of each group that stands in more than one part; rows in no part do not count.

    Args:
        groups: (rows,), numbers.
        parts: (rows,), train, val, test or empty.
    """
    frame = pd.DataFrame({"group": groups, "part": parts})[parts != ""]
    shared = frame.groupby("group")["part"].nunique()
    chosen = frame[frame["group"].isin(shared.index[shared > 1])]
    return [np.asarray(members.index, np.int64) for _, members in chosen.groupby("group", sort=False)]


def leaks(table: Table, image_numbers: NDArray[np.int64]) -> tuple[Notice, ...]:
    """Return a notice of the patients, and one of the images, in more than one part of a split; none without a leak.

    Args:
        table: With its split.
        image_numbers: (rows,), equal where two rows hold the same image, negative where that is not known.
    """
    parts = table.frame["split"].to_numpy(str)
    names = table.frame["image"].to_numpy(object)
    notices = []
    shared = across(pd.factorize(table.patient_keys)[0], parts)
    if shared:
        first = table.frame["patient"].iloc[shared[0][0]]
        where = list(dict.fromkeys(parts[shared[0]].tolist()))
        notices.append(notice("patients-leak", patients=len(shared), first=str(first), splits=where))
    duplicates = across(image_numbers, np.where(image_numbers >= 0, parts, ""))
    if duplicates:
        ends = next(
            pair for pair in itertools.combinations(duplicates[0], 2) if parts[pair[0]] != parts[pair[1]]
        )
        first, second = ({"image": str(names[row]), "split": str(parts[row])} for row in ends)
        notices.append(notice("images-leak", images=len(duplicates), first=first, second=second))
    return tuple(notices)


def compare(table: Table) -> tuple[SplitComparison, ...]:
    """Compare age, the shares of views and sexes, and the prevalence of findings between the parts of a split."""
    frame = table.frame
    clusters = pd.factorize(table.patient_keys)[0]
    quantities: dict[str, NDArray[np.float64]] = {"age": frame["age"].to_numpy()}
    for column in ("view", "sex"):
        known = frame[column].to_numpy(object)
        for level in sorted(set(known) - {""}):
            quantities[f"{column} {level}"] = np.where(known == "", np.nan, known == level).astype(float)
    quantities |= {finding: frame[finding].to_numpy() for finding in table.findings}
    names = [part for part in SPLITS if (frame["split"] == part).any()]
    rows = {part: frame["split"].to_numpy(object) == part for part in names}
    return tuple(
        _compared(name, {part: _value(values[mask], clusters[mask]) for part, mask in rows.items()})
        for name, values in quantities.items()
    )


def _value(values: NDArray[np.float64], clusters: NDArray[np.int64]) -> Value | None:
    known = ~np.isnan(values)
    if not known.any():
        return None
    mean, error = clustered_mean(values[known], clusters[known])
    return Value(
        mean,
        error,
        float(values[known].std()),
        int(known.sum()),
        int(np.count_nonzero(np.bincount(clusters[known]))),
    )


def _compared(name: str, values: Mapping[str, Value | None]) -> SplitComparison:
    known = {part: value for part, value in values.items() if value is not None}
    found = {
        pair: size
        for pair in itertools.combinations(known, 2)
        if (size := _size(known[pair[0]], known[pair[1]], share=name != "age"))
    }
    return SplitComparison(name, known, max(found, key=found.__getitem__) if found else None)


def _size(first: Value, second: Value, *, share: bool) -> float:
    """Return how large a difference is against the least to be told; 0 where it is smaller or not certain."""
    difference = abs(first.value - second.value)
    deviation = float(np.sqrt((first.deviation**2 + second.deviation**2) / 2))
    # A few patients who happen to be alike have no error of their own, and prove nothing.
    errors = [np.fmax(part.error, deviation / np.sqrt(part.num_patients)) for part in (first, second)]
    if not deviation or not difference > CERTAIN * np.hypot(*errors):
        return 0.0
    size = difference / deviation / LARGE
    if share:
        odds = [
            (part.value * part.count + 0.5) / ((1 - part.value) * part.count + 0.5)
            for part in (first, second)
        ]
        size = float(abs(np.log(odds[0] / odds[1]))) / float(np.log(ODDS))
    return size if size >= 1 else 0.0
