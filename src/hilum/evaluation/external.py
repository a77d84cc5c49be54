"""A bundle's scores on data from elsewhere -> what it had not seen there, and the difference from its own test."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hilum.bundle import Bundle, DecisionRule, Seen
from hilum.data.mapping import Mapped
from hilum.errors import DataError, HilumError, UsageError
from hilum.evaluation.scoring import ScoredImages, score
from hilum.notices import Notice, notice
from hilum.runs.folder import RunFolder
from hilum.stats import ClassScores, Estimate, Resampling, Scores, unpaired_difference

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
    """One metric on the model's own test and here, and its difference: here minus own test."""

    internal: Estimate
    external: Estimate
    difference: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return the form of metrics.json."""
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
        """Return the form of metrics.json."""
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


def find_report(folder: Path) -> Path:
    """Return where the report lies that `folder` is or, as a run's folder, holds.

    Raises:
        UsageError: There is none.
    """
    place = folder if (folder / "metrics.json").is_file() else RunFolder(folder).evaluation
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


def find_own_test(
    folder: Path, bundle: Bundle, findings: Sequence[str], *, resampling: Resampling
) -> Internal:
    """Read the result of a bundle, or of the one that it recalibrates, on its own test.

    It is scored anew from the stored predictions, since only some of the findings may be in common; for all of them
    the metrics are those of the report.

    Args:
        folder: A report of `hilum evaluate RUN`, or a run's folder that holds one.
        bundle: The bundle that is scored elsewhere.
        findings: Those in common.
        resampling: How intervals come about.

    Raises:
        UsageError: There is no report, or it is of another bundle or part.
        DataError: The report is damaged.
    """
    place, manifest = find_report(folder), bundle.manifest
    stored = read_stored(place, manifest.findings)
    hashes = {bundle.hash, *(recalibration.parent for recalibration in manifest.recalibrations)}
    if stored.bundle not in hashes:
        raise UsageError(
            f"{place} is the report of bundle {stored.bundle[:16]}, not of {bundle.hash[:16]} or its parents"
        )
    if stored.split != "test" or not stored.internal:
        raise UsageError(
            f"{place} is not the report of the model's own test (it is of {stored.data}, {stored.split})"
        )
    columns = [manifest.findings.index(finding) for finding in findings]
    labels = stored.labels[:, columns]
    scores = score(
        manifest.task.of(findings),
        labels,
        stored.probabilities[:, columns],
        stored.patients,
        decision=stored.decision.select(columns),
        resampling=resampling,
    )
    return Internal(
        bundle=stored.bundle,
        data=stored.data,
        images=len(labels),
        names=frozenset(zip(stored.patients.tolist(), stored.images.tolist(), strict=True)),
        patients=np.unique(stored.patients),
        positives=dict(zip(findings, (labels == 1).sum(axis=0).tolist(), strict=True)),
        scores=scores,
    )


def read_stored(place: Path, findings: Sequence[str]) -> Stored:
    """Read what a report kept.

    Args:
        place: As `find_report` returns it.
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


def contrast(
    internal: Scores | ClassScores, external: Scores | ClassScores
) -> dict[str, dict[str, Contrast]]:
    """Set the same findings' metrics on two sets of patients beside each other; see `stats.unpaired_difference`."""
    own, here = (
        scores.classes if isinstance(scores, ClassScores) else scores for scores in (internal, external)
    )
    rows = {name: _row(own.findings[name].metrics, here.findings[name].metrics) for name in here.findings}
    if len(rows) > 1:
        rows[MEAN] = _row(own.macro.metrics, here.macro.metrics)
    if isinstance(internal, ClassScores) and isinstance(external, ClassScores):
        rows[MEAN] |= _row({ACCURACY: internal.accuracy}, {ACCURACY: external.accuracy}, names=(ACCURACY,))
    return rows


def compare_with_own_test(
    folder: Path | None,
    bundle: Bundle,
    scored: ScoredImages,
    scores: Scores | ClassScores,
    *,
    mapped: Mapped,
    unseen: tuple[Unseen, ...],
    optional: bool,
    resampling: Resampling,
) -> External:
    """Look for the model's own test and compare with it.

    Args:
        folder: Where the report of the own test lies; None for nowhere.
        bundle: That was scored.
        scored: The images here.
        scores: Theirs.
        mapped: How the model's findings were read.
        unseen: In what the images differ from those of training.
        optional: Whether a report that is not there, or of another bundle, is a reason and no error.
        resampling: How intervals come about.
    """
    external = External(mapped.origins, mapped.missing, unseen, internal=None)
    if folder is None:
        reason = "the bundle was given without its run; name the report of its own test with --internal"
        return replace(external, reason=reason)
    try:
        internal = find_own_test(folder, bundle, scored.task.findings, resampling=resampling)
    except HilumError as error:
        if not optional:
            raise
        return replace(external, reason=str(error))
    pairs = zip(scored.patients.tolist(), scored.images.tolist(), strict=True)
    return replace(
        external,
        internal=internal,
        contrasts=contrast(internal.scores, scores),
        shared_patients=len(np.intersect1d(internal.patients, scored.patients)),
        shared_images=sum(pair in internal.names for pair in pairs),
    )


def _row(
    own: Mapping[str, Estimate], here: Mapping[str, Estimate], *, names: Sequence[str] = METRICS
) -> dict[str, Contrast]:
    return {
        name: Contrast(own[name], here[name], unpaired_difference(here[name], own[name])) for name in names
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


def external_notices(external: External) -> Iterator[Notice]:
    """Yield what a reader must know: what was mapped, what is new to the model, and what was lost."""
    for finding, columns in external.origins.items():
        yield notice("finding-read-from", finding=finding, columns=list(columns))
    if external.missing:
        yield notice("findings-not-scored", findings=list(external.missing))
    new = [_describe(respect) for respect in external.unseen if respect.images]
    if new:
        yield notice("not-seen-in-training", respects=new)
    untold = [
        f"{unseen.name}s (here {unseen.here})"
        for unseen in external.unseen
        if unseen.here and not unseen.trained
    ]
    if untold:
        yield notice("training-not-told", respects=untold)
    if external.shared_images:
        source = next(unseen for unseen in external.unseen if unseen.name == "source")
        yield notice(
            "own-test-among-these", shared=external.shared_images, images=source.told, new=source.new
        )
    elif external.shared_patients:
        yield notice("own-test-patients", patients=external.shared_patients)
    if external.reason:
        yield notice("no-own-test", reason=external.reason)
    losses = [
        f"{name} by {-loss.value:.3f} ({-loss.high:.3f} to {-loss.low:.3f})"
        for name, row in external.contrasts.items()
        if (loss := row["auroc"].difference).value is not None
        and loss.low is not None
        and loss.high is not None
        and loss.high < 0
    ]
    if losses:
        yield notice("lower-than-own-test", losses=losses)


def _describe(unseen: Unseen) -> str:
    share = (
        f"all {unseen.told:,} images"
        if unseen.images == unseen.told
        else f"{unseen.images:,} of {unseen.told:,} images"
    )
    if unseen.name == "likeness":
        return f"{share} are unlike the validation images ({unseen.here}; {unseen.trained})"
    return f"{unseen.name} {unseen.new or unseen.here} ({share}; training: {unseen.trained})"


def _span(low: float, high: float, unit: str) -> str:
    return f"{low:.4g} {unit}" if low == high else f"{low:.4g} to {high:.4g} {unit}"
