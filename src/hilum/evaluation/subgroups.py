"""A scored table's rows -> its figures by source, view, sex and age, and what metadata alone tell of each finding."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hilum import stats
from hilum.bundle import DecisionRule
from hilum.data.audit.association import FACTORS, TOGETHER, Association, associations
from hilum.data.table import COLUMNS, Table
from hilum.notices import notice
from hilum.stats import ClassScores, Estimate, Scores
from hilum.stats.inputs import number_clusters, sum_by_cluster
from hilum.stats.intervals import clustered_wilson
from hilum.stats.scores import MIN_PATIENTS
from hilum.stats.strata import Area, area, area_difference, mean_area

SUBGROUP_FACTORS = ("source", "view", "sex", "age")
UNKNOWN = "unknown"
BANDS = {2: "under 2", 12: "2–11", 18: "12–17", 40: "18–39", 60: "40–59", 80: "60–79", np.inf: "80 and over"}
"""Upper end in years, which is outside, -> the band; children and adults apart."""
SEXES = {"F": "female", "M": "male", "O": "other", "": UNKNOWN}
CHANCE = Estimate(0.5, 0.5, 0.5)
"""Known without error. Metadata that tell nothing lie below it, since they are cross-fitted."""
PROPORTION = "Wilson with patients as clusters"


@dataclass(frozen=True)
class Within:
    """One finding among the images of one level.

    Attributes:
        positives: Images with it.
        negatives: Images known to be without it.
        positive_patients: Patients with a positive image.
        negative_patients: Patients with a negative image.
        metrics: `auroc`, `sensitivity`, `specificity`; each without a value where the level is too small for it.
        difference: AUROC here minus that of all other images of the factor.
    """

    positives: int
    negatives: int
    positive_patients: int
    negative_patients: int
    metrics: Mapping[str, Estimate]
    difference: Estimate


@dataclass(frozen=True)
class Level:
    """The images of one level of a factor.

    Attributes:
        name: For example `AP`, `female`, `40–59`, or `unknown`.
        images: How many.
        patients: Of how many patients.
        findings: Finding -> its figures.
        auroc: Of one finding its AUROC, of several the mean over the factor's `common` ones.
        difference: `auroc` minus that of all other images of the factor.
        p_value: Of no difference.
        holm_p: The same after Holm's correction over all divisions of the images.
        division: Number of the division into these images and all others; levels that are the same images, or the
            others, share it.
        accuracy: Where exactly one class is called: the share of images put into the right one.
        same_as: The first factor and level that are the very same images with the same figures; None where it is
            this.
    """

    name: str
    images: int
    patients: int
    findings: Mapping[str, Within]
    auroc: Estimate
    difference: Estimate
    p_value: float | None = None
    holm_p: float | None = None
    division: int = 0
    accuracy: Estimate | None = None
    same_as: tuple[str, str] | None = None


@dataclass(frozen=True)
class Factor:
    """One respect in which images differ.

    Attributes:
        name: One of `SUBGROUP_FACTORS`.
        levels: Two or more, that every image is in one of.
        common: The findings that the levels' means are over.
        whole: The AUROC of all images together, or its mean over `common`; None without one.
    """

    name: str
    levels: tuple[Level, ...]
    common: tuple[str, ...]
    whole: float | None


@dataclass(frozen=True)
class Baseline:
    """One finding, told by the model and by what is known of the film without a look at it.

    Attributes:
        model: AUROC of the model.
        metadata: AUROC of all that is known together.
        difference: Model minus metadata, or minus chance (0.5) where metadata tell less than that.
        alone: Factor of `data.audit.association` -> its AUROC alone.
    """

    model: Estimate
    metadata: Estimate
    difference: Estimate
    alone: Mapping[str, Estimate]


@dataclass(frozen=True)
class Subgroups:
    """Figures by subgroup, and the baseline of metadata.

    Attributes:
        factors: Those whose levels differ among these images.
        same: The other factors -> the one level that all images have.
        comparisons: How many divisions of the images were looked at; two levels of a factor make one.
        baseline: Finding -> what metadata alone tell.
    """

    factors: tuple[Factor, ...]
    same: Mapping[str, str]
    comparisons: int
    baseline: Mapping[str, Baseline]

    def to_dict(self) -> dict[str, Any]:
        """Return the form of metrics.json."""
        return {
            "factors": {
                factor.name: {
                    "common": list(factor.common),
                    "auroc_of_all": factor.whole,
                    "levels": {level.name: _level_to_dict(level) for level in factor.levels},
                }
                for factor in self.factors
            },
            "same": dict(self.same),
            "comparisons": self.comparisons,
            "baseline": {
                finding: {
                    "model": one.model.to_dict(),
                    "metadata": one.metadata.to_dict(),
                    "difference": one.difference.to_dict(),
                    "alone": {name: estimate.to_dict() for name, estimate in one.alone.items()},
                }
                for finding, one in self.baseline.items()
            },
        }


def subgroups(
    table: Table,
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    decision: DecisionRule,
    patients: np.ndarray,
    scores: Scores | ClassScores,
) -> Subgroups:
    """Divide scored images by each factor and set what metadata tell beside the model.

    A level with fewer than ten patients with, or without, a finding is too small for its AUROC; with fewer with it for
    sensitivity, without it for specificity. The mean over several findings is over those that are not too small in any
    level; levels that would leave less than half of the findings get no mean.

    Args:
        table: The n images that were scored, row for row.
        labels: (n, k), NaN unknown.
        probabilities: (n, k).
        decision: How the k findings are called.
        patients: (n,).
        scores: Of all these images, for the k findings.
    """
    of_findings = scores.classes if isinstance(scores, ClassScores) else scores
    clusters, num_clusters = number_clusters(patients, num_images=len(labels))
    scored = _Scored(
        tuple(of_findings.findings),
        labels,
        probabilities,
        decision.decide(probabilities),
        clusters,
        num_clusters,
        classes=isinstance(scores, ClassScores),
    )
    aurocs = {name: one.metrics["auroc"] for name, one in of_findings.findings.items()}
    factors, same = [], {}
    masks = _levels(table.frame)
    for name, levels in masks.items():
        if len(levels) > 1:
            factors.append(_factor(name, levels, scored, aurocs))
        else:
            same[name] = next(iter(levels))
    adjusted, comparisons = _holm(factors, masks)
    return Subgroups(adjusted, same, comparisons, _baseline(table, scored, aurocs))


def take_rows(table: Table, rows: np.ndarray) -> Table:
    """Return rows (n,) of a table in the order asked for, with their boxes."""
    frame = table.frame.iloc[rows].reset_index(drop=True)
    return replace(table, frame=frame, boxes=table.boxes[table.boxes["image"].isin(frame["image"])])


@dataclass(frozen=True)
class _Scored:
    """n images with k findings, as `subgroups` takes them, patients numbered."""

    findings: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    decisions: np.ndarray
    clusters: np.ndarray
    num_clusters: int
    classes: bool

    def patients(self, rows: np.ndarray) -> int:
        """Return how many patients some rows are of."""
        return int(np.count_nonzero(np.bincount(self.clusters[rows])))

    def counts(self, inside: np.ndarray, column: int) -> tuple[int, int, int, int]:
        """Count positives, negatives, and the patients of each."""
        present, absent = (inside & (self.labels[:, column] == truth) for truth in (1, 0))
        return int(present.sum()), int(absent.sum()), self.patients(present), self.patients(absent)

    def area(self, inside: np.ndarray, column: int) -> Area:
        """Return the AUROC of the labelled images among some."""
        rows = np.flatnonzero(inside & ~np.isnan(self.labels[:, column]))
        return area(
            self.labels[rows, column] == 1,
            self.probabilities[rows, column],
            clusters=self.clusters[rows],
            num_clusters=self.num_clusters,
        )

    def share(self, inside: np.ndarray, right: np.ndarray) -> Estimate:
        """Return the share of some images that are right, both bool (n,)."""
        trials, successes = (
            sum_by_cluster(values, self.clusters, num_clusters=self.num_clusters)
            for values in (inside, inside & right)
        )
        low, high = clustered_wilson(successes, trials, confidence=0.95)
        return Estimate(float(successes.sum() / trials.sum()), low, high, PROPORTION)


def _levels(frame: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """Return factor -> level -> which rows; unknown is a level, and the last."""
    named = {
        "source": frame["source"].to_numpy(str),
        "view": np.where(frame["view"] == "", UNKNOWN, frame["view"]).astype(str),
        "sex": frame["sex"].map(SEXES).to_numpy(str),
        "age": _bands(frame["age"].to_numpy(float)),
    }
    sizes = frame["source"].value_counts()
    order = {
        "source": sorted(sizes.index, key=lambda name: (-sizes[name], name)),
        "view": sorted(set(named["view"]), key=lambda name: (name == UNKNOWN, name != "PA", name)),
        "sex": list(SEXES.values()),
        "age": [*BANDS.values(), UNKNOWN],
    }
    masks = {
        factor: {level: named[factor] == level for level in map(str, order[factor])}
        for factor in SUBGROUP_FACTORS
    }
    return {
        factor: {level: rows for level, rows in levels.items() if rows.any()}
        for factor, levels in masks.items()
    }


def _bands(ages: np.ndarray) -> np.ndarray:
    places = np.searchsorted(np.array(list(BANDS)), np.nan_to_num(ages), side="right")
    return np.where(np.isnan(ages), UNKNOWN, np.array(list(BANDS.values()))[places])


def _factor(
    name: str, levels: Mapping[str, np.ndarray], scored: _Scored, aurocs: Mapping[str, Estimate]
) -> Factor:
    columns = range(len(scored.findings))
    counts = {level: [scored.counts(rows, column) for column in columns] for level, rows in levels.items()}
    large = {
        level: {column for column in columns if not _too_small(counts[level][column])} for level in levels
    }
    common, compared = _common(large)
    values = [aurocs[scored.findings[column]].value for column in common]
    known = [value for value in values if value is not None]
    made = tuple(
        _level(level, rows, scored, counts[level], common=common if level in compared else ())
        for level, rows in levels.items()
    )
    whole = float(np.mean(known)) if known else None
    return Factor(name, made, tuple(scored.findings[column] for column in common), whole)


def _common(large: Mapping[str, set[int]]) -> tuple[tuple[int, ...], list[str]]:
    """Return the findings that all levels with a mean can be scored for, and these levels.

    The levels with the fewest findings are left without a mean until half of those that any level has remain.
    """
    levels = sorted((level for level in large if large[level]), key=lambda level: -len(large[level]))
    any_level = set().union(*large.values())
    while levels:
        common = set.intersection(*(large[level] for level in levels))
        if 2 * len(common) >= len(any_level):
            return tuple(sorted(common)), levels
        levels.pop()
    return (), []


def _level(
    name: str,
    rows: np.ndarray,
    scored: _Scored,
    counts: Sequence[tuple[int, int, int, int]],
    *,
    common: Sequence[int],
) -> Level:
    findings, here, elsewhere = {}, [], []
    large = sum(not _too_small(one) for one in counts)
    small = _none(f"too small: {large} of {len(counts)} findings can be scored")
    for column, finding in enumerate(scored.findings):
        why = _too_small(counts[column])
        decisions = _decisions(rows, scored, column, counts[column])
        if why:
            findings[finding] = Within(*counts[column], {"auroc": _none(why), **decisions}, _none(why))
            continue
        own = scored.area(rows, column)
        why = _too_small(scored.counts(~rows, column))
        rest = None if why else scored.area(~rows, column)
        difference = _none(f"the rest is {why}") if rest is None else area_difference(own, rest)[0]
        findings[finding] = Within(*counts[column], {"auroc": own.estimate(), **decisions}, difference)
        if column in common:
            here.append(own)
            elsewhere += [rest] if rest else []
    auroc, difference, p_value = small, small, None
    if len(counts) == 1:
        only = next(iter(findings.values()))
        auroc, difference = only.metrics["auroc"], only.difference
    elif here:
        auroc, difference = mean_area(here).estimate(), _none("the rest is too small")
    if here and len(elsewhere) == len(here):
        difference, p_value = area_difference(mean_area(here), mean_area(elsewhere))
    accuracy = _accuracy(rows, scored) if scored.classes else None
    return Level(
        name, int(rows.sum()), scored.patients(rows), findings, auroc, difference, p_value, accuracy=accuracy
    )


def _decisions(
    rows: np.ndarray, scored: _Scored, column: int, counts: tuple[int, int, int, int]
) -> dict[str, Estimate]:
    """Return sensitivity and specificity, each where there are patients enough whom it is a share of."""
    called = scored.decisions[:, column]
    kinds = (("sensitivity", 1, called, "with"), ("specificity", 0, ~called, "without"))
    return {
        name: scored.share(rows & (scored.labels[:, column] == truth), right)
        if patients >= MIN_PATIENTS
        else _none(f"too small: {_count(patients, 'patient')} {which} the finding")
        for (name, truth, right, which), patients in zip(kinds, counts[2:], strict=True)
    }


def _accuracy(rows: np.ndarray, scored: _Scored) -> Estimate:
    patients = scored.patients(rows)
    if patients < MIN_PATIENTS:
        return _none(f"too small: {_count(patients, 'patient')}")
    return scored.share(rows, (scored.decisions & (scored.labels == 1)).any(axis=1))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _too_small(counts: tuple[int, int, int, int]) -> str:
    """Say how many patients there are where they are too few; else empty."""
    with_it, without_it = counts[2:]
    if min(with_it, without_it) >= MIN_PATIENTS:
        return ""
    few, which = (with_it, "with") if with_it <= without_it else (without_it, "without")
    return f"too small: {_count(few, 'patient')} {which} the finding"


def _none(why: str) -> Estimate:
    return Estimate(None, notice=notice("too-small", why=why))


def _holm(
    factors: Sequence[Factor], masks: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[tuple[Factor, ...], int]:
    """Number the divisions of the images and adjust their p values together; each division is one comparison."""
    numbers: dict[tuple[bytes, tuple[str, ...]], int] = {}
    p_values: dict[int, float] = {}
    division: dict[tuple[str, str], int] = {}
    first: dict[tuple[bytes, tuple[str, ...]], tuple[str, str]] = {}
    same: dict[tuple[str, str], tuple[str, str]] = {}
    for factor in factors:
        for level in factor.levels:
            rows = masks[factor.name][level.name]
            key = np.packbits(rows if rows[0] else ~rows).tobytes(), factor.common
            number = division[factor.name, level.name] = numbers.setdefault(key, len(numbers))
            here = factor.name, level.name
            # Of one finding figures depend on the images alone, of several the mean on its findings, too.
            common = factor.common if len(level.findings) > 1 else ()
            same[here] = first.setdefault((np.packbits(rows).tobytes(), common), here)
            if level.p_value is not None:
                p_values.setdefault(number, level.p_value)
    adjusted = dict(zip(p_values, stats.holm([*p_values.values()]).tolist(), strict=True))
    made = []
    for factor in factors:
        levels = []
        for level in factor.levels:
            number = division[factor.name, level.name]
            holm_p = None if level.p_value is None else adjusted[number]
            like = same[factor.name, level.name]
            same_as = None if like == (factor.name, level.name) else like
            levels.append(replace(level, division=number, holm_p=holm_p, same_as=same_as))
        made.append(replace(factor, levels=tuple(levels)))
    return tuple(made), len(p_values)


def _baseline(table: Table, scored: _Scored, aurocs: Mapping[str, Estimate]) -> dict[str, Baseline]:
    """Return what `data.audit.association` tells of the labels that were scored."""
    frame = table.frame[list(COLUMNS)].reset_index(drop=True)
    # By number: a class may be called what no table's finding may, such as `No Finding`.
    columns = tuple(map(str, range(len(scored.findings))))
    labels = pd.DataFrame(scored.labels.astype(np.float64), columns=list(columns))
    # Patients are put into folds in the order in which they come: so that it is not the caller's, theirs by name.
    known = pd.concat([frame, labels], axis=1).sort_values(["source", "patient", "image"], ignore_index=True)
    found = associations(Table(known, columns, table.sources))
    return {
        finding: _beside(aurocs[finding], [one for one in found if one.finding == column])
        for finding, column in zip(scored.findings, columns, strict=True)
    }


def _beside(model: Estimate, found: Sequence[Association]) -> Baseline:
    told = {one.factor: _estimate(one) for one in found}
    alone = {name: told[name] for name in FACTORS}
    # One factor may be all that is known; of none the reason of the first is told.
    only = next((one for one in alone.values() if one.value is not None), alone[FACTORS[0]])
    metadata = told.get(TOGETHER, only)
    least = CHANCE if metadata.value is not None and metadata.value < 0.5 else metadata
    return Baseline(model, metadata, stats.unpaired_difference(model, least), alone)


def _estimate(one: Association) -> Estimate:
    if one.value is None:
        return Estimate(None, notice=one.reason)
    if one.low is None or one.high is None:
        return Estimate(one.value, notice=notice("ranked-without-error"))
    return Estimate(one.value, one.low, one.high, "DeLong's with patients as clusters, on the logit scale")


def _level_to_dict(level: Level) -> dict[str, Any]:
    return {
        "images": level.images,
        "patients": level.patients,
        "auroc": level.auroc.to_dict(),
        "difference": level.difference.to_dict(),
        "p_value": level.p_value,
        "holm_p": level.holm_p,
        "same_images_as": None if level.same_as is None else " ".join(level.same_as),
        **({} if level.accuracy is None else {"accuracy": level.accuracy.to_dict()}),
        "findings": {finding: dict(_within(one)) for finding, one in level.findings.items()},
    }


def _within(one: Within) -> Iterator[tuple[str, Any]]:
    for name in ("positives", "negatives", "positive_patients", "negative_patients"):
        yield name, getattr(one, name)
    for name, estimate in one.metrics.items():
        yield name, estimate.to_dict()
    yield "auroc_difference", one.difference.to_dict()
