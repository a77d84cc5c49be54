"""A bundle's scores on data from elsewhere -> what it had not seen there, and the difference from its own test."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hilum import stats
from hilum.bundle import Bundle, DecisionRule
from hilum.bundle.manifest import Seen
from hilum.errors import DataError, HilumError, UsageError
from hilum.recipe import Task
from hilum.stats import ClassScores, Estimate, Scores

METRICS = ("auroc", "average_precision", "sensitivity", "specificity")
"""What is compared. Average precision moves with the prevalence even where the model does not."""
MEAN = "Mean"
ACCURACY = "accuracy"


@dataclass(frozen=True)
class Unseen:
    """One respect in which images may differ from those of training.

    Attributes:
        name: `source`, `view`, `age`, `size` or `likeness`.
        trained: What training had; empty where the bundle does not tell.
        here: What these images have; empty where nothing tells.
        images: How many of them are outside of what training had; None where it cannot be told.
        told: Of how many it is known.
        new: Which of `here` training did not have, of sources and views; else empty.
    """

    name: str
    trained: str
    here: str
    images: int | None
    told: int
    new: str = ""


@dataclass(frozen=True)
class Contrast:
    """One figure on the model's own test and here, and its difference: here minus own test."""

    internal: Estimate
    external: Estimate
    difference: Estimate

    def to_dict(self) -> dict[str, Any]:
        """The form of metrics.json."""
        return {name: estimate.to_dict() for name, estimate in vars(self).items()}


@dataclass(frozen=True)
class Stored:
    """What a report kept of an evaluation: n images and the k findings of its bundle.

    Attributes:
        bundle: Hash of the bundle that was scored.
        data: The sources' names.
        split: Which part was scored.
        internal: Whether it is of the training's own data.
        test_reads: How often this test had been evaluated in its run; 0 unknown.
        images: The images' names, str (n,).
        patients: The images' patients as `source:patient`, str (n,).
        labels: float64 (n, k), NaN unknown.
        probabilities: float64 (n, k), calibrated.
        decision: How the findings were called.
    """

    bundle: str
    data: str
    split: str
    internal: bool
    test_reads: int
    images: np.ndarray
    patients: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    decision: DecisionRule


@dataclass(frozen=True)
class Internal:
    """The model's result on the test part of its own data.

    Attributes:
        bundle: Hash of the bundle that was scored: this one, or the one whose weights it recalibrates.
        data: The sources' names.
        images: How many.
        names: `source:patient` and name of each image.
        patients: Who, as `source:patient`, sorted, each once.
        positives: Finding -> images with it.
        scores: Of the findings in common.
    """

    bundle: str
    data: str
    images: int
    names: frozenset[tuple[str, str]]
    patients: np.ndarray
    positives: Mapping[str, int]
    scores: Scores | ClassScores


@dataclass(frozen=True)
class External:
    """What is told of a model on data from elsewhere.

    Attributes:
        origins: Finding -> the columns that it was read from, where they are not itself.
        missing: Findings of the model that the data set does not know.
        unseen: In what the images may differ from those of training.
        internal: The model's own test; None with a reason.
        contrasts: Finding, or `MEAN`, -> metric -> own test against here.
        shared_patients: Patients who are in the own test and here, so that the two are not independent.
        shared_images: Images here that are of the own test itself.
        reason: Why there is nothing to compare with.
    """

    origins: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]
    unseen: tuple[Unseen, ...]
    internal: Internal | None
    contrasts: Mapping[str, Mapping[str, Contrast]] = field(default_factory=dict)
    shared_patients: int = 0
    shared_images: int = 0
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The form of metrics.json."""
        internal = self.internal
        return {
            "read_from": {finding: list(columns) for finding, columns in self.origins.items()},
            "left_out": list(self.missing),
            "unseen": [vars(one).copy() for one in self.unseen],
            "internal": None
            if internal is None
            else {
                "bundle": internal.bundle,
                "data": internal.data,
                "images": internal.images,
                "patients": len(internal.patients),
                "positives": dict(internal.positives),
            },
            "reason": self.reason,
            "shared_patients": self.shared_patients,
            "shared_images": self.shared_images,
            "comparison": {
                name: {metric: one.to_dict() for metric, one in row.items()}
                for name, row in self.contrasts.items()
            },
        }


def unseen(frame: pd.DataFrame, distances: np.ndarray, seen: Seen) -> tuple[Unseen, ...]:
    """Compare images with those of training.

    Args:
        frame: Rows of a table.
        distances: (rows,) of the embeddings; see `runtime.typical_distance`.
        seen: Of the manifest.
    """
    views, ages = frame["view"].to_numpy(str), frame["age"].to_numpy(float)
    sides = frame[["width", "height"]].min(axis=1).to_numpy(float)
    sources = frame["source"].to_numpy(str)
    viewed = views[views != ""]
    return (
        Unseen(
            "source",
            ", ".join(seen.sources),
            ", ".join(np.unique(sources)),
            int((~np.isin(sources, seen.sources)).sum()),
            len(sources),
            new=", ".join(np.unique(sources[~np.isin(sources, seen.sources)])),
        ),
        Unseen(
            "view",
            ", ".join(seen.views),
            _counted(viewed),
            int((~np.isin(viewed, seen.views)).sum()) if seen.views and len(viewed) else None,
            len(viewed),
            new=_counted(viewed[~np.isin(viewed, seen.views)]),
        ),
        _range("age", ages[~np.isnan(ages)], seen.ages, "years"),
        _range("size", sides[sides > 0], seen.sides, "pixels at the shorter side"),
        Unseen(
            "likeness",
            f"distance {seen.likeness}",
            f"median {np.median(distances):.2f}, 95 % up to {np.quantile(distances, 0.95):.2f}",
            int((distances > seen.typical_distance).sum()),
            len(distances),
        ),
    )


def report_of(folder: Path) -> Path:
    """Return where the report lies that `folder` is or, as a run's folder, holds.

    Raises:
        UsageError: There is none.
    """
    place = folder if (folder / "metrics.json").is_file() else folder / "evaluation"
    if not (place / "metrics.json").is_file() or not (place / "predictions.parquet").is_file():
        raise UsageError(f"{folder} holds no report of the model's own test; `hilum evaluate RUN` makes one")
    return place


def holds_own_test(folder: Path) -> bool:
    """Return whether a folder holds the report of a model's own test."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return (metrics["split"], metrics["internal"]) == ("test", True)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_internal(
    folder: Path, bundle: Bundle, findings: Sequence[str], *, replicates: int, seed: int
) -> Internal:
    """Read the result of a bundle, or of the one that it recalibrates, on its own test.

    The figures are made anew from the stored predictions, since only some of the findings may be in common; for all
    of them they are those of the report.

    Args:
        folder: A report of `hilum evaluate RUN`, or a run's folder that holds one.
        bundle: The bundle that is scored elsewhere.
        findings: Those in common.
        replicates: Bootstrap resamples of patients.
        seed: Of the resamples.

    Raises:
        UsageError: There is no report, or it is of another bundle or part.
        DataError: The report is damaged.
    """
    place, manifest = report_of(folder), bundle.manifest
    stored = read_stored(place, manifest.findings)
    hashes = {bundle.hash, *(one.parent for one in manifest.recalibrations)}
    if stored.bundle not in hashes:
        raise UsageError(
            f"{place} is the report of bundle {stored.bundle[:16]}, not of {bundle.hash[:16]} or its parents"
        )
    if stored.split != "test" or not stored.internal:
        raise UsageError(
            f"{place} is not the report of the model's own test (it is of {stored.data}, {stored.split})"
        )
    columns = [manifest.findings.index(finding) for finding in findings]
    scores = score(
        manifest.task.of(findings),
        stored.labels[:, columns],
        stored.probabilities[:, columns],
        stored.patients,
        decision=stored.decision.select(columns),
        replicates=replicates,
        seed=seed,
    )
    positives = {
        finding: int((stored.labels[:, column] == 1).sum())
        for finding, column in zip(findings, columns, strict=True)
    }
    names = frozenset(zip(stored.patients.tolist(), stored.images.tolist(), strict=True))
    return Internal(
        stored.bundle, stored.data, len(stored.labels), names, np.unique(stored.patients), positives, scores
    )


def read_stored(place: Path, findings: Sequence[str]) -> Stored:
    """Read what a report kept.

    Args:
        place: As `report_of` returns it.
        findings: Those of the bundle.

    Raises:
        DataError: The report is damaged, or of other findings.
    """
    try:
        metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
        predictions = pd.read_parquet(place / "predictions.parquet")
        count = len(findings)
        if (predictions["finding"].to_numpy(str).reshape(-1, count) != np.array(findings)).any():
            raise ValueError("other findings")
        labels, probabilities = (
            predictions[name].to_numpy(np.float64).reshape(-1, count) for name in ("label", "probability")
        )
        return Stored(
            bundle=str(metrics["bundle"]),
            data=str(metrics["data"]),
            split=str(metrics["split"]),
            internal=metrics["internal"] is True,
            test_reads=int(metrics.get("test_reads", 0)),
            images=predictions["image"].to_numpy(str)[::count],
            patients=predictions["patient"].to_numpy(str)[::count],
            labels=labels,
            probabilities=probabilities,
            decision=_decision(metrics, findings),
        )
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(
            f"{place} holds no whole report ({type(error).__name__}); make it again by `hilum evaluate RUN`"
        ) from None


def _decision(metrics: Mapping[str, Any], findings: Sequence[str]) -> DecisionRule:
    """Return the rule that a metrics.json reports; of classes no threshold stands there."""
    thresholds = [metrics["findings"][finding]["threshold"] for finding in findings]
    called = None if None in thresholds else tuple(map(float, thresholds))
    return DecisionRule(called, str(metrics.get("threshold_rule", "")))


def score(
    task: Task,
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    *,
    decision: DecisionRule,
    replicates: int,
    seed: int,
) -> Scores | ClassScores:
    """Score some of a bundle's findings, or its classes; see `stats.evaluate` and `stats.evaluate_classes`."""
    if task.exclusive:
        return stats.evaluate_classes(
            labels.argmax(axis=1),
            probabilities,
            names=task.findings,
            resampling=stats.Resampling(clusters=patients, replicates=replicates, seed=seed),
        )
    return stats.evaluate(
        labels,
        probabilities,
        thresholds=decision.array,
        findings=task.findings,
        resampling=stats.Resampling(clusters=patients, replicates=replicates, seed=seed),
    )


def contrast(
    internal: Scores | ClassScores, external: Scores | ClassScores
) -> dict[str, dict[str, Contrast]]:
    """Set the same findings' figures on two sets of patients beside each other; see `stats.unpaired_difference`."""
    own, here = (
        scores.classes if isinstance(scores, ClassScores) else scores for scores in (internal, external)
    )
    rows = {name: _row(own.findings[name].metrics, here.findings[name].metrics) for name in here.findings}
    if len(rows) > 1:
        rows[MEAN] = _row(own.macro.metrics, here.macro.metrics)
    if isinstance(internal, ClassScores) and isinstance(external, ClassScores):
        rows[MEAN] |= _row({ACCURACY: internal.accuracy}, {ACCURACY: external.accuracy}, names=(ACCURACY,))
    return rows


def compare(
    folder: Path | None,
    bundle: Bundle,
    scores: Scores | ClassScores,
    patients: np.ndarray,
    *,
    images: np.ndarray,
    findings: Sequence[str],
    optional: bool,
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """Look for the model's own test and compare with it; return fields of `External`.

    Args:
        folder: Where the report of the own test lies; None for nowhere.
        bundle: That was scored.
        scores: Here.
        patients: Here, as `source:patient`.
        images: Their names.
        findings: In common.
        optional: Whether a report that is not there, or of another bundle, is a reason and no error.
        replicates: Bootstrap resamples of patients.
        seed: Of the resamples.
    """
    if folder is None:
        reason = "the bundle was given without its run; name the report of its own test with --internal"
        return {"internal": None, "reason": reason}
    try:
        internal = find_internal(folder, bundle, findings, replicates=replicates, seed=seed)
    except HilumError as error:
        if not optional:
            raise
        return {"internal": None, "reason": str(error)}
    shared = len(np.intersect1d(internal.patients, patients))
    pairs = zip(patients.tolist(), images.tolist(), strict=True)
    return {
        "shared_images": sum(pair in internal.names for pair in pairs),
        "internal": internal,
        "contrasts": contrast(internal.scores, scores),
        "shared_patients": shared,
    }


def _row(
    own: Mapping[str, Estimate], here: Mapping[str, Estimate], *, names: Sequence[str] = METRICS
) -> dict[str, Contrast]:
    return {
        name: Contrast(own[name], here[name], stats.unpaired_difference(here[name], own[name]))
        for name in names
    }


def _counted(views: np.ndarray) -> str:
    return ", ".join(
        f"{view} {count:,}" for view, count in zip(*np.unique(views, return_counts=True), strict=True)
    )


def _range(name: str, values: np.ndarray, seen: tuple[float, float] | None, unit: str) -> Unseen:
    trained = _span(seen[0], seen[1], unit) if seen else ""
    if not len(values):
        return Unseen(name, trained, "", None, 0)
    here = _span(float(values.min()), float(values.max()), unit)
    outside = int(((values < seen[0]) | (values > seen[1])).sum()) if seen else None
    return Unseen(name, trained, here, outside, len(values))


def warnings(external: External) -> tuple[str, ...]:
    """What a reader must know before any figure: what was mapped, what is new to the model, and what was lost."""
    lines = [f"{finding} is read from {' and '.join(read)}." for finding, read in external.origins.items()]
    if external.missing:
        lines.append(f"Not known to this data set, and not scored: {', '.join(external.missing)}.")
    new = [_told(one) for one in external.unseen if one.images]
    if new:
        lines.append(f"Not seen in training: {'; '.join(new)}.")
    untold = [f"{one.name}s (here {one.here})" for one in external.unseen if one.here and not one.trained]
    if untold:
        lines.append(f"The bundle does not tell its training images' {' and '.join(untold)}.")
    if external.shared_images:
        source = next(one for one in external.unseen if one.name == "source")
        alone = f"; evaluate {source.new} alone" if source.new else ""
        lines.append(
            f"{external.shared_images:,} of the {source.told:,} images are the model's own test itself, so that the "
            f"difference from it is understated{alone}."
        )
    elif external.shared_patients:
        lines.append(
            f"{external.shared_patients:,} patients are in the model's own test too, with other images: the intervals "
            "of the differences take the two for independent, and are as a rule too wide."
        )
    if external.reason:
        lines.append(f"No comparison with the model's own test: {external.reason}.")
    lost = [
        f"{name} by {-one.value:.3f} ({-one.high:.3f} to {-one.low:.3f})"
        for name, row in external.contrasts.items()
        if (one := row["auroc"].difference).value is not None
        and one.low is not None
        and one.high is not None
        and one.high < 0
    ]
    if lost:
        lines.append(f"AUROC is lower than on the model's own test: {', '.join(lost)}.")
    return tuple(lines)


def _told(one: Unseen) -> str:
    share = f"all {one.told:,} images" if one.images == one.told else f"{one.images:,} of {one.told:,} images"
    if one.name == "likeness":
        return f"{share} are unlike the validation images ({one.here}; {one.trained})"
    return f"{one.name} {one.new or one.here} ({share}; training: {one.trained})"


def _span(low: float, high: float, unit: str) -> str:
    return f"{low:.4g} {unit}" if low == high else f"{low:.4g} to {high:.4g} {unit}"
