"""A table without its images -> counts, shares and spreads by class.

What the data set does not know is None.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum.data.table import SEXES, SPLITS, Table
from hilum.notices import notice
from hilum.progress import count
from hilum.recipe.findings import NO_FINDING, PARTS
from hilum.stats.delong import delong
from hilum.stats.intervals import Estimate
from hilum.stats.scores import MIN_PATIENTS

Rows = NDArray[np.bool_]
"""(rows,): which rows of the table belong to something."""

ALL = "All images"
UNKNOWN = "unknown"
AGE_STEP = 5
"""Years in a bin of ages."""
VISITS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, 20), (21, None))
"""First and last number of images a patient, of each bin."""
CONFIDENCE = 0.95
ADULT = 18
"""Years."""
PAEDIATRIC = ("kermany",)
"""Data sets that are of children by their description and tell no ages."""


@dataclass(frozen=True)
class Class:
    """How often a finding, or none, is there.

    Attributes:
        name: The finding, or the name of the reference.
        present: Images that have it.
        absent: Images that are known not to have it.
        unknown: The others.
        patients: Patients with at least one image that has it.
        splits: Part of the split -> (images that have it, images of which it is known).
    """

    name: str
    present: int
    absent: int
    unknown: int
    patients: int
    splits: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Together:
    """Which findings occur together, over images of which both are known.

    Attributes:
        findings: Names of rows and columns.
        both: int64 (findings, findings): images that have both; on the diagonal those that have the one.
        among: int64 (findings, findings): images that have the row's and of which the column's is known.
        known: int64 (findings, findings): images of which both are known.
        expected: float64 (findings, findings): images that would have both if within each data set one told nothing of
            the other; the sum over data sets of what Mantel & Haenszel 1959 expect. Two findings that are frequent in
            one data set and rare in another go together in the joined table for that reason alone; this leaves it out.
            NaN where nothing is known.
        num_findings: Number of findings an image -> images; a finding does not count beside one that it is made up of.
    """

    findings: tuple[str, ...]
    both: NDArray[np.int64]
    among: NDArray[np.int64]
    known: NDArray[np.int64]
    expected: NDArray[np.float64]
    num_findings: Mapping[int, int]

    @property
    def share(self) -> NDArray[np.float64]:
        """Share of the images with the row's finding that have the column's too; NaN where there are none."""
        return _ratio(self.both, self.among)

    @property
    def pairs(self) -> str:
        """In how many images both findings of a pair are known, in words."""
        counts = self.known[np.triu_indices(len(self.findings), 1)]
        least, most = int(counts.min()), int(counts.max())
        return count(most, "image") if least == most else f"{least:,} to {most:,} images a pair"

    @property
    def lift(self) -> NDArray[np.float64]:
        """How many times as often as expected both are there; NaN where none is expected."""
        return _ratio(self.both, self.expected)


@dataclass(frozen=True)
class ClassQuartiles:
    """How one number is spread over the images of a class.

    Attributes:
        name: Of the class.
        count: Images of which the number is known.
        quartiles: First, second and third; None without images.
        alone: AUROC with which the number alone ranks these images above those of the reference, with DeLong's
            interval by patient; None for the reference itself, or where there is none.
    """

    name: str
    count: int
    quartiles: tuple[float, float, float] | None
    alone: Estimate | None


@dataclass(frozen=True, eq=False)
class Sizes:
    """Widths and heights of the originals.

    Attributes:
        sides: int64 (sizes, 2): every width and height that occurs, in pixels.
        counts: int64 (sizes,): images of each.
        told: Whether the data set tells them, or the files that were read.
        megapixels: Their spread by class.
    """

    sides: NDArray[np.int64]
    counts: NDArray[np.int64]
    told: bool
    megapixels: tuple[ClassQuartiles, ...]


@dataclass(frozen=True, eq=False)
class Ages:
    """Ages in years.

    Attributes:
        sexes: Of the rows of `patients`: those of the table that occur, `unknown` last.
        patients: int64 (sexes, bins): patients by their first age, in bins of `AGE_STEP` years from 0.
        quartiles: Of these patients' ages.
        years: The spread over images by class.
    """

    sexes: tuple[str, ...]
    patients: NDArray[np.int64]
    quartiles: tuple[float, float, float]
    years: tuple[ClassQuartiles, ...]

    @property
    def num_known(self) -> int:
        """Patients of known age."""
        return int(self.patients.sum())


@dataclass(frozen=True, eq=False)
class Shares:
    """How a column's values are shared out within each class.

    Attributes:
        values: The column's values that occur, `unknown` last where it does.
        classes: Names of the rows, all images first.
        counts: int64 (classes, values): images.
    """

    values: tuple[str, ...]
    classes: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def known(self) -> NDArray[np.int64]:
        """Images of each class of which the value is known, (classes,)."""
        known = [place for place, name in enumerate(self.values) if name != UNKNOWN]
        return np.asarray(self.counts[:, known].sum(axis=1), np.int64)

    def share(self, value: str) -> NDArray[np.float64]:
        """Share of a value in each class among the images of which it is known, (classes,); NaN for none."""
        return _ratio(self.counts[:, self.values.index(value)], self.known)


@dataclass(frozen=True)
class TakenAP:
    """Who is filmed AP: adults who cannot stand, and small children whatever they have.

    Attributes:
        children: AP images of patients under `ADULT` years, or of a data set of `PAEDIATRIC` that tells no age.
        adults: AP images of patients of known age from there on.
        images: All AP images.
    """

    children: int
    adults: int
    images: int


@dataclass(frozen=True)
class Visits:
    """Patients with one number of images.

    Attributes:
        first: The smallest number of images in this bin.
        last: The largest; None for no end.
        patients: How many patients have so many images.
        images: Their images together.
        with_finding: Those that have any finding.
        known: Those of which it is known whether they have any.
    """

    first: int
    last: int | None
    patients: int
    images: int
    with_finding: int
    known: int


@dataclass(frozen=True)
class FollowUps:
    """Images a patient, in bins, and the most that one has."""

    visits: tuple[Visits, ...]
    most: int


@dataclass(frozen=True, eq=False)
class LabelledTable:
    """A table taken apart once: what everything here is counted from.

    Attributes:
        frame: The table's rows.
        findings: Its findings.
        labels: float32 (rows, findings): 1 present, 0 absent, NaN unknown.
        no_finding: float32 (rows,): 1 nothing was found, 0 something, NaN unknown.
        patients: int64 (rows,): the patients, numbered from 0.
        reference: Name of the images without any finding; empty where there are none.
        groups: Class -> bool (rows,): the reference, then every finding that occurs.
    """

    frame: pd.DataFrame
    findings: tuple[str, ...]
    labels: NDArray[np.float32]
    no_finding: NDArray[np.float32]
    patients: NDArray[np.int64]
    reference: str
    groups: Mapping[str, Rows]

    @staticmethod
    def of(table: Table) -> "LabelledTable":
        """Take a table apart."""
        labels = table.labels(table.findings)
        no_finding = table.labels([NO_FINDING])[:, 0]
        nothing = no_finding == 1
        # Of one finding alone, its absence says nothing of others.
        name = f"{table.findings[0]} absent" if len(table.findings) == 1 else NO_FINDING
        groups = {name: nothing, **{each: labels[:, i] == 1 for i, each in enumerate(table.findings)}}
        patients = pd.factorize(table.patient_keys)[0]
        return LabelledTable(
            frame=table.frame,
            findings=table.findings,
            labels=labels,
            no_finding=no_finding,
            patients=patients,
            reference=name if nothing.any() else "",
            groups={name: rows for name, rows in groups.items() if rows.any()},
        )

    def spreads(self, values: NDArray[np.float64]) -> tuple[ClassQuartiles, ...]:
        """Return the spreads of (rows,) values, NaN unknown: of all images, then of each class."""
        known = ~np.isnan(values)
        found = [_spread(ALL, values[known], None)]
        for name, members in self.groups.items():
            compared = self.reference and name != self.reference
            alone = self._alone(values, members & known) if compared else None
            found.append(_spread(name, values[members & known], alone))
        return tuple(found)

    def _alone(self, values: NDArray[np.float64], present: Rows) -> Estimate:
        reference = self.groups[self.reference] & ~np.isnan(values)
        numbers = [len(np.unique(self.patients[rows])) for rows in (present, reference)]
        if not min(numbers):
            return Estimate(None, notice=notice("nothing-to-compare-with"))
        rows = present | reference
        areas = delong(
            present[rows], values[rows], clusters=np.unique(self.patients[rows], return_inverse=True)[1]
        )
        value = float(areas.values[0])  # noqa: PD011 (no pandas)
        if min(numbers) < MIN_PATIENTS:
            return Estimate(value, notice=notice("fewer-patients", fewest=MIN_PATIENTS))
        low, high = areas.interval(confidence=CONFIDENCE)
        if np.isnan(low):
            return Estimate(value, notice=notice("separated"))
        return Estimate(value, low, high, method="DeLong by patient")


def splits(subject: LabelledTable) -> dict[str, tuple[int, int]]:
    """Return part of the split -> (images, patients), for the parts that have any."""
    return {part: (int(rows.sum()), len(np.unique(subject.patients[rows]))) for part, rows in _parts(subject)}


def classes(subject: LabelledTable) -> tuple[Class, ...]:
    """Count the reference where there is one, then every finding of the table, whether it occurs or not."""
    labels = subject.labels
    told = {name: ~np.isnan(labels[:, column]) for column, name in enumerate(subject.findings)}
    if subject.reference:
        told = {subject.reference: ~np.isnan(subject.no_finding), **told}
    found = []
    for name, known in told.items():
        present = subject.groups.get(name, np.zeros(len(labels), bool))
        parts = {
            part: (int((present & rows).sum()), int((known & rows).sum())) for part, rows in _parts(subject)
        }
        found.append(
            Class(
                name=name,
                present=int(present.sum()),
                absent=int((known & ~present).sum()),
                unknown=int((~known).sum()),
                patients=len(np.unique(subject.patients[present])),
                splits=parts,
            )
        )
    return tuple(found)


def together(subject: LabelledTable) -> Together | None:
    """Count findings that occur together; None for fewer than two that occur."""
    present = (subject.labels == 1).astype(np.float64)
    columns = {finding: column for column, finding in enumerate(subject.findings)}
    occurring = np.flatnonzero(present.any(axis=0))
    if len(occurring) < 2:
        return None
    apart = present.copy()
    for whole, column in columns.items():
        parts = [columns[part] for part in PARTS.get(whole, ()) if part in columns]
        apart[:, column] *= ~present[:, parts].any(axis=1)
    numbers, images = np.unique(apart.sum(axis=1).astype(int), return_counts=True)
    present, known = present[:, occurring], (~np.isnan(subject.labels[:, occurring])).astype(np.float64)
    both, among, complete = (
        np.rint(left.T @ right).astype(np.int64)
        for left, right in ((present, present), (present, known), (known, known))
    )
    sources = subject.frame["source"].to_numpy(object)
    expected = np.zeros(both.shape)
    for source in dict.fromkeys(sources):
        inside = sources == source
        one, other = present[inside].T @ known[inside], known[inside].T @ known[inside]
        expected += np.nan_to_num(_ratio(one * one.T, other))
    expected[complete == 0] = np.nan
    by_number = dict(zip(numbers.tolist(), images.tolist(), strict=True))
    names = tuple(subject.findings[column] for column in occurring)
    return Together(names, both, among, complete, expected, by_number)


def sizes(
    subject: LabelledTable, width: NDArray[np.int64], height: NDArray[np.int64], *, told: bool
) -> Sizes | None:
    """Count sizes.

    Args:
        subject: Whose images.
        width: (rows,) in pixels, 0 unknown.
        height: The same.
        told: Whether the data set tells them.
    """
    known = (width > 0) & (height > 0)
    if not known.any():
        return None
    sides, counts = np.unique(np.column_stack([width, height])[known], axis=0, return_counts=True)
    megapixels = np.where(known, width * height / 1e6, np.nan)
    return Sizes(sides, counts.astype(np.int64), told, subject.spreads(megapixels))


def ages(subject: LabelledTable) -> Ages | None:
    """Spread ages over patients and images."""
    frame = subject.frame
    age = frame["age"].to_numpy(np.float64)
    if np.isnan(age).all():
        return None
    known = pd.DataFrame({"patient": subject.patients, "age": age, "sex": frame["sex"].replace("", UNKNOWN)})
    first = known.dropna(subset="age").sort_values("age", kind="stable").drop_duplicates("patient")
    bins = np.arange(int(first["age"].max()) // AGE_STEP + 2) * AGE_STEP
    sexes = tuple(sex for sex in (*SEXES, UNKNOWN) if (first["sex"] == sex).any())
    counts = [np.histogram(first["age"][first["sex"] == sex], bins=bins)[0] for sex in sexes]
    low, middle, high = (float(value) for value in np.percentile(first["age"], [25, 50, 75]))
    return Ages(sexes, np.stack(counts).astype(np.int64), (low, middle, high), subject.spreads(age))


def shares(subject: LabelledTable, column: str, values: tuple[str, ...]) -> Shares | None:
    """Count a column's values by class; None where none is known.

    Args:
        subject: Whose images.
        column: Of text, empty where unknown.
        values: That it may have.
    """
    cells = subject.frame[column].replace("", UNKNOWN).to_numpy(object)
    there = tuple(value for value in (*values, UNKNOWN) if (cells == value).any())
    if there in ((), (UNKNOWN,)):
        return None
    everything = {ALL: np.ones(len(cells), bool), **subject.groups}
    counts = [[int((cells[members] == value).sum()) for value in there] for members in everything.values()]
    return Shares(there, tuple(everything), np.array(counts, np.int64))


def taken_ap(subject: LabelledTable) -> TakenAP | None:
    """Count AP images by the age of the patients; None where there is none."""
    frame = subject.frame
    ap = (frame["view"] == "AP").to_numpy(bool)
    if not ap.any():
        return None
    age = frame["age"].to_numpy(np.float64)
    described = np.isnan(age) & frame["source"].isin(PAEDIATRIC).to_numpy(bool)
    children, adults = described | (age < ADULT), age >= ADULT
    return TakenAP(int((ap & children).sum()), int((ap & adults).sum()), int(ap.sum()))


def follow_ups(subject: LabelledTable) -> FollowUps | None:
    """Count images a patient; None where no patient has a second."""
    images = np.bincount(subject.patients)
    most = int(images.max(initial=0))
    if most < 2:
        return None
    any_finding, known = subject.no_finding == 0, ~np.isnan(subject.no_finding)
    found = []
    for first, last in VISITS:
        inside = (images >= first) & (images <= (last or most))
        rows = inside[subject.patients]
        numbers = (inside, rows, any_finding & rows, known & rows)
        found.append(Visits(first, last, *(int(number.sum()) for number in numbers)))
    while not found[-1].patients:
        found.pop()
    return FollowUps(tuple(found), most)


def _parts(subject: LabelledTable) -> Iterator[tuple[str, Rows]]:
    for part in SPLITS:
        rows = (subject.frame["split"] == part).to_numpy(bool)
        if rows.any():
            yield part, rows


def _spread(name: str, values: NDArray[np.float64], alone: Estimate | None) -> ClassQuartiles:
    if not len(values):
        return ClassQuartiles(name, 0, None, alone)
    first, second, third = (float(value) for value in np.percentile(values, [25, 50, 75]))
    return ClassQuartiles(name, len(values), (first, second, third), alone)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.nan).astype(np.float64)
