"""Anybody's predictions and a labelled Table -> the same Evaluation that a bundle gets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import logit

from hilum import stats
from hilum.bundle import DecisionRule
from hilum.data import csv_file
from hilum.data.table import Table
from hilum.errors import DataError, LayoutError, UsageError, nearest
from hilum.evaluation import scoring
from hilum.evaluation.evaluation import Evaluation
from hilum.evaluation.scoring import ScoredImages
from hilum.evaluation.subgroups import take_rows
from hilum.notices import Notice, notice
from hilum.recipe import Task
from hilum.recipe.findings import VOCABULARY, same
from hilum.stats import Resampling

LevelName = Literal["image", "study", "patient"]
RESAMPLING = Resampling()
LONG = ("image", "finding", "probability")


@dataclass(frozen=True)
class Predictions:
    """Probabilities of some system.

    Attributes:
        name: Of the file they came from.
        images: (n,) str, unique.
        findings: Names of the k columns, canonical.
        probabilities: float64 (n, k) in [0, 1], NaN where the file says nothing.
        ignored: Columns that are neither an image's name nor a finding's probability.
        thresholds: float64 (k,) that came with the probabilities, one a finding; None where there are none.
        bundle: The hash of the one bundle that made them, as `hilum predict` writes it; empty where it is not told.
    """

    name: str
    images: np.ndarray
    findings: tuple[str, ...]
    probabilities: np.ndarray
    ignored: tuple[str, ...] = ()
    thresholds: np.ndarray | None = None
    bundle: str = ""


def read(path: Path, *, image: str = "", findings: Sequence[str] = ()) -> Predictions:
    """Read predictions from a CSV or .parquet file.

    Wide: an `image` column and one a finding, `NAME` or `prob_NAME`. Long: `image, finding, probability`, as
    `hilum predict` and `hilum evaluate` write it; of further columns `threshold`, one a finding, and `bundle` are read.

    Args:
        path: The file.
        image: Its column of images; if not given `image`, or the one that is plainly meant, such as `Image Index`.
        findings: Those of the labels, which may be predicted besides those of the vocabulary.

    Raises:
        UsageError: There is no such file, or it is of another kind.
        LayoutError: It has no column of images, or several.
        DataError: A finding is unknown, an image twice, or a value no probability.
    """
    frame = _read_frame(path)
    frame = frame.rename(columns={_image_column(frame, image, path): "image"})
    frame["image"] = frame["image"].astype(str).str.removeprefix("'")
    long = set(LONG) <= set(frame.columns)
    known = _Known(path, (*VOCABULARY, *findings))
    wide, ignored = _widened(frame, known, path) if long else _columns(frame, known, path)
    values = wide.to_numpy(np.float64)
    wrong = np.argwhere(~np.isnan(values) & ((values < 0) | (values > 1)))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(
            f"{path}: {wide.columns[column]} of {wide.index[row]} is {values[row, column]:g}; a probability in [0, 1] "
            f"was expected ({len(wrong):,} such values). Scores of another scale have to be calibrated first"
        )
    predicted = tuple(map(str, wide.columns))
    return Predictions(
        path.name,
        wide.index.to_numpy(str),
        predicted,
        values,
        ignored,
        thresholds=_thresholds(frame, predicted, known, path) if long else None,
        bundle=_bundle(frame) if long else "",
    )


def mean(predictions: Sequence[Predictions]) -> Predictions:
    """Return the mean of several systems' probabilities for the same images and findings: their ensemble.

    Args:
        predictions: One or more.

    Raises:
        UsageError: They are not of the same images, or not of the same findings.
    """
    first, *others = predictions
    if not others:
        return first
    total = first.probabilities.copy()
    for other in others:
        if set(other.findings) != set(first.findings):
            raise UsageError(
                f"{other.name} predicts {', '.join(other.findings)}, {first.name} {', '.join(first.findings)}; "
                "an ensemble's members predict the same findings"
            )
        if set(other.images) != set(first.images):
            missing = next(iter(set(first.images) ^ set(other.images)))
            raise UsageError(
                f"{first.name} and {other.name} are not of the same images: {missing} stands in one of them only; "
                "an ensemble's members predict the same images"
            )
        rows = pd.Index(other.images).get_indexer(pd.Index(first.images))
        columns = [other.findings.index(finding) for finding in first.findings]
        total += other.probabilities[rows][:, columns]
    names = [given.name for given in predictions]
    many = (
        f"mean of {len(names)} predictions" if len(set(names)) < len(names) else f"mean of {', '.join(names)}"
    )
    ignored = tuple(dict.fromkeys(column for given in predictions for column in given.ignored))
    # A threshold is one of the member's own probabilities, not of their mean.
    return Predictions(many, first.images, first.findings, total / len(predictions), ignored)


@dataclass(frozen=True)
class Unit:
    """What is scored as one.

    Attributes:
        level: An image, or a study's or patient's images joined.
        how: How they are joined: by the maximum of their probabilities or by the mean.
    """

    level: LevelName = "image"
    how: Literal["maximum", "mean"] = "maximum"


IMAGE = Unit()


def score(
    predictions: Predictions,
    table: Table,
    *,
    threshold: float | None = None,
    unit: Unit = IMAGE,
    prevalence: float | None = None,
    allow_missing: bool = False,
    split: str = "all",
    resampling: Resampling = RESAMPLING,
) -> Evaluation:
    """Join predictions with labels by image and score them.

    Images are joined by their whole name, or by the file's name alone where that is unique on both sides.

    Args:
        predictions: Of any system.
        table: The labels.
        threshold: Present is called from this probability on, for all findings; None takes the predictions' own
            thresholds, or 0.5 where there are none.
        unit: What is scored as one.
        prevalence: If given, predictive values are told at this prevalence too.
        allow_missing: Score the images that are on both sides even if others are on one side only.
        split: Which part of the table's own split, or `all`.
        resampling: How intervals come about.

    Raises:
        UsageError: The table does not know a finding, or no study is known.
        DataError: Images are missing on one side and `allow_missing` is off, or none is on both.
    """
    labelled = _labelled(table, split)
    unknown = [finding for finding in predictions.findings if finding not in table.findings]
    if unknown:
        raise UsageError(
            f"the labels do not know {unknown[0]!r}; they know: {nearest(unknown[0], table.findings)}"
        )
    rows, labelled_rows, notes = _join(predictions, labelled, allow_missing=allow_missing)
    joined = take_rows(labelled, labelled_rows)
    used = set(joined.frame["source"])
    sources = [source for source in labelled.sources if source.name in used]
    probabilities = predictions.probabilities[rows]
    if empty := int(np.isnan(probabilities).sum()):
        notes.append(notice("probabilities-empty", number=empty))
    decision, of_thresholds = _rule(predictions, threshold)
    notes += of_thresholds
    kind: Literal["binary", "multilabel"] = "binary" if len(predictions.findings) == 1 else "multilabel"
    scored, images, level = _aggregate(
        ScoredImages(
            Task(kind=kind, findings=predictions.findings),
            joined,
            np.where(np.isnan(probabilities), np.nan, joined.labels(predictions.findings).astype(np.float64)),
            np.nan_to_num(probabilities, nan=0.5),
            joined.patient_keys,
            decision,
        ),
        unit,
    )
    scores = scoring.score(
        scored.task,
        scored.labels,
        scored.probabilities,
        scored.patients,
        decision=decision,
        resampling=resampling,
        level=level,
        prevalence=prevalence,
    )
    described = {"all": "all images with labels and predictions"}
    return Evaluation(
        title=predictions.name,
        bundle="",
        task=scored.task,
        data=", ".join(source.name for source in sources),
        split=split,
        split_description=described.get(split, f"the {split} part of the labels' own split"),
        leaky=False,
        images=images,
        patients=scored.patients,
        labels=scored.labels.astype(np.float32),
        logits=logit(np.clip(scored.probabilities, 1e-7, 1 - 1e-7)).astype(np.float32),
        probabilities=scored.probabilities,
        decision=decision,
        scores=scores,
        facts=(("Predictions", predictions.name), ("Scored", f"by {level}")),
        warnings=(
            *scoring.ranking_notices(scores),
            *notes,
            notice("predictions-of-bundle", bundle=predictions.bundle[:12])
            if predictions.bundle
            else notice("predictions-from-elsewhere"),
        ),
        citations=tuple(dict.fromkeys(f"{source.citation} ({source.terms})" for source in sources)),
        subgroups=scored.subgroups(scores),
        internal=False,
        notes=tuple(notes),
    )


def _aggregate(scored: ScoredImages, unit: Unit) -> tuple[ScoredImages, np.ndarray, str]:
    """Join the images of each study or patient; return also what they are called, and the level in words."""
    if unit.level == "image":
        return scored, scored.images, "image"
    frame, patients = scored.table.frame, scored.patients
    groups = patients if unit.level == "patient" else _studies(frame, patients)
    joined = stats.aggregate(
        scored.labels, scored.probabilities, groups=groups, level=unit.level, how=unit.how
    )
    first = joined.first_image
    aggregated = replace(
        scored,
        table=_first_of_groups(scored.table, groups, first),
        labels=joined.labels,
        probabilities=joined.probabilities,
        patients=patients[first],
    )
    return aggregated, groups[first], joined.name


@dataclass(frozen=True)
class _Known:
    """The findings that the file of predictions `path` may name."""

    path: Path
    names: tuple[str, ...]

    def has(self, name: str) -> bool:
        return any(same(name, one) for one in self.names)

    def finding(self, name: str) -> str:
        """Return the canonical name; raise DataError for an unknown one."""
        for one in self.names:
            if same(name, one):
                return one
        raise DataError(
            f"{self.path} predicts the unknown finding {name!r}; known are: {nearest(name, self.names)}"
        )


def _read_frame(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UsageError(f"{path} does not exist; a .csv or .parquet file of predictions was expected")
    csv_file.refuse_spreadsheet(path)
    if csv_file.is_csv(path):
        return csv_file.read(path).frame
    if path.suffix != ".parquet":
        raise UsageError(f"predictions are read from .csv and .parquet files, not {path.name!r}")
    try:
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {str(error).splitlines()[0][:160]}") from None


def _image_column(frame: pd.DataFrame, told: str, path: Path) -> str:
    """Return the column of images: the one told, `image`, or the one whose name plainly means it."""
    names = list(map(str, frame.columns))
    wanted = told or "image"
    if wanted in names:
        return wanted
    meant = [name for name in names if csv_file.key(name) in csv_file.IMAGE_NAMES]
    if not told and len(meant) == 1:
        return meant[0]
    raise LayoutError(
        f"{path} has no column {wanted!r}; say which holds the images with --column image=COLUMN; "
        f"it has: {nearest(wanted, names)}"
    )


def _widened(frame: pd.DataFrame, known: _Known, path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    findings = frame["finding"].astype(str).map(known.finding)
    _refuse_twice(frame["image"] + "\t" + findings, path)
    values = _numbers(frame["probability"], path)
    wide = pd.Series(values.to_numpy(), pd.MultiIndex.from_arrays([frame["image"], findings])).unstack()  # noqa: PD010
    return wide.reindex(index=frame["image"].unique(), columns=findings.unique()), ()


def _thresholds(
    frame: pd.DataFrame, findings: tuple[str, ...], known: _Known, path: Path
) -> np.ndarray | None:
    """Return the threshold of each finding (k,), where a column tells one for each."""
    if "threshold" not in frame.columns:
        return None
    thresholds = _numbers(frame["threshold"], path)
    if thresholds.isna().any():
        return None
    told = (
        thresholds.groupby(frame["finding"].astype(str).map(known.finding))
        .agg(["min", "max"])
        .reindex(findings)
    )
    outside = told.index[(told["min"] < 0) | (told["max"] > 1)]
    if len(outside):
        raise DataError(f"{path}: a threshold of {outside[0]} is no probability; one in [0, 1] was expected")
    return told["min"].to_numpy() if (told["min"] == told["max"]).all() else None


def _bundle(frame: pd.DataFrame) -> str:
    told = frame["bundle"].fillna("").astype(str) if "bundle" in frame.columns else pd.Series([], dtype=str)
    hashes = told[told != ""].unique().tolist()
    return str(hashes[0]) if len(hashes) == 1 else ""


def _rule(predictions: Predictions, threshold: float | None) -> tuple[DecisionRule, list[Notice]]:
    """Return how findings are called, and what a reader must know of it."""
    if threshold is None and predictions.thresholds is not None:
        rule = DecisionRule(tuple(predictions.thresholds.tolist()), "the predictions' own")
        return rule, [notice("own-thresholds", name=predictions.name)]
    value = 0.5 if threshold is None else threshold
    rule = DecisionRule((value,) * len(predictions.findings), f"fixed at {value:g}")
    return rule, [notice("no-thresholds", name=predictions.name)] if threshold is None else []


def _columns(frame: pd.DataFrame, known: _Known, path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    _refuse_twice(frame["image"], path)
    chosen: dict[str, pd.Series] = {}
    ignored = []
    for column in map(str, frame.columns):
        name = column.removeprefix("prob_")
        if column == "image":
            continue
        if name != column or known.has(name):
            finding = known.finding(name)
            if finding in chosen:
                raise DataError(f"{path} has two columns for {finding}; keep one")
            chosen[finding] = _numbers(frame[column], path)
            continue
        nearest_known = nearest(column, known.names)
        if "did you mean" in nearest_known:
            raise DataError(f"{path}: column {column!r} is no finding; known are: {nearest_known}")
        ignored.append(column)
    if not chosen:
        raise DataError(
            f"{path} has no column of a finding (NAME or prob_NAME); "
            f"beside image it has: {', '.join(ignored) or 'nothing'}"
        )
    wide = pd.DataFrame(chosen)
    wide.index = pd.Index(frame["image"])
    return wide, tuple(ignored)


def _numbers(column: pd.Series, path: Path) -> pd.Series:
    cells = column
    if not pd.api.types.is_numeric_dtype(column):
        cells, _ = csv_file.without_unknown(column.fillna("").astype(str).rename(column.name))
        cells = csv_file.with_points(cells).replace("", np.nan)
    numbers = pd.to_numeric(cells, errors="coerce")
    wrong = column[numbers.isna() & cells.notna()]
    if len(wrong):
        raise DataError(f"{path}: {wrong.iloc[0]!r} in column {column.name!r} is no number")
    return numbers.astype(float)


def _refuse_twice(keys: pd.Series, path: Path) -> None:
    twice = keys[keys.duplicated()]
    if len(twice):
        first = twice.iloc[0].replace("\t", ", ")
        raise DataError(
            f"{path} has {len(twice):,} rows too many: {first} stands there twice; keep one row an image"
        )


def _labelled(table: Table, split: str) -> Table:
    if split == "all":
        return table
    mask = table.frame["split"].to_numpy(str) == split
    if not mask.any():
        there = sorted(set(table.frame["split"]) - {""})
        raise UsageError(
            f"the labels have no {split} part; there are: {', '.join(there) or 'none'}; or --split all"
        )
    return table.select(mask)


def _join(
    predictions: Predictions, table: Table, *, allow_missing: bool
) -> tuple[np.ndarray, np.ndarray, list[Notice]]:
    """Return the rows of predictions and table that belong together, and what to say about the others."""
    theirs, ours = pd.Series(predictions.images), table.frame["image"].reset_index(drop=True)
    if not theirs.isin(ours).any():
        short_theirs, short_ours = (
            names.str.split(r"/|\\|::", regex=True).str[-1] for names in (theirs, ours)
        )
        if short_theirs.is_unique and short_ours.is_unique:
            theirs, ours = short_theirs, short_ours
    places = pd.Series(np.arange(len(ours)), index=ours)
    places = places[~places.index.duplicated()]
    found = theirs.map(places)
    here = found.notna().to_numpy()
    without_label, without_prediction = int((~here).sum()), len(ours) - int(here.sum())
    if not here.any():
        raise DataError(
            f"none of {len(theirs):,} predicted images is among the {len(ours):,} labelled ones "
            f"(first predicted {str(predictions.images[0])!r}, first labelled {str(table.frame['image'].iloc[0])!r})"
        )
    missing = ", ".join(
        f"{number:,} of {whole:,} {what} have no {other}"
        for number, whole, what, other in (
            (without_label, len(theirs), "predicted images", "label"),
            (without_prediction, len(ours), "labelled images", "prediction"),
        )
        if number
    )
    if missing and not allow_missing:
        raise DataError(f"{missing}; score the {int(here.sum()):,} on both sides with --allow-missing")
    notes = []
    if missing:
        notes.append(notice("images-not-joined", missing=missing, scored=int(here.sum())))
    if predictions.ignored:
        notes.append(notice("columns-ignored", columns=list(predictions.ignored)))
    return np.flatnonzero(here), found[here].to_numpy(np.int64), notes


def _first_of_groups(table: Table, groups: np.ndarray, first: np.ndarray) -> Table:
    """Return the first image of each group (rows,); a view, age or size that its images differ in is unknown."""
    frame = table.frame.copy()
    for column, unknown in {"view": "", "age": np.nan, "width": 0, "height": 0}.items():
        several = frame[column].groupby(groups).transform("nunique").to_numpy() > 1
        frame.loc[several, column] = unknown
    return take_rows(replace(table, frame=frame), first)


def _studies(frame: pd.DataFrame, patients: np.ndarray) -> np.ndarray:
    if (frame["study"] == "").any():
        raise UsageError("the labels do not name every image's study; use --level image or patient")
    studies = frame["study"].to_numpy(str)
    return np.array([f"{patient}/{study}" for patient, study in zip(patients, studies, strict=True)])
