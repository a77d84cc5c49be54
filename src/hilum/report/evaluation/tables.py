"""An Evaluation -> its tables: for the page, for spreadsheets and for other programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hilum.evaluation.evaluation import Evaluation
from hilum.files import spreadsheet_safe
from hilum.report import formatting
from hilum.report.evaluation import plots
from hilum.report.table import Cell, Column, Grid, Notes, csv_number, csv_text, make_grid


def ranking(evaluation: Evaluation) -> Grid:
    """Return the metrics of discrimination and calibration."""
    names = (*formatting.DISCRIMINATION, *formatting.CALIBRATION)
    return _metrics(evaluation, names, caption="Discrimination and calibration")


def calls(evaluation: Evaluation) -> Grid:
    """Return the metrics of decisions."""
    if not evaluation.task.exclusive:
        return _metrics(evaluation, formatting.DECISIONS, caption="Decisions at the threshold")
    # One class against the others is told apart more often than all are; beside the accuracy it would flatter.
    names = [name for name in formatting.DECISIONS if name != "accuracy"]
    return _metrics(evaluation, names, caption="Decisions, each class against the others")


def cohort(evaluation: Evaluation) -> Grid:
    """Return how many images have each finding, and the threshold from which it is called."""
    rows = []
    for finding in evaluation.findings:
        entries = plots.scores_of(evaluation, finding)
        positives, negatives = int(entries["positives"]), int(entries["negatives"])
        counts = [f"{positives:,}", f"{negatives:,}", f"{len(evaluation.images) - positives - negatives:,}"]
        counts.append(formatting.per_cent(positives, positives + negatives))
        if not evaluation.task.exclusive:
            counts.append(formatting.probability(float(entries["threshold"])))
        rows.append((finding, counts))
    heads = ["Present", "Absent", "Unknown", "Prevalence"]
    heads += [] if evaluation.task.exclusive else ["Threshold"]
    return make_grid("Reference labels", evaluation.task.noun.capitalize(), heads, rows)


def classification_report(evaluation: Evaluation) -> Grid:
    """Return precision, recall, F1 and support of each class at the threshold, with their means.

    Of one finding both classes are shown; of several, each finding's presence. Images of unknown truth are left
    out, a class without images or without calls has no figure, and means are over the classes that have one.
    """
    called = evaluation.decisions
    rows: list[tuple[str, list[float], int]] = []
    if len(evaluation.findings) == 1:
        known = ~np.isnan(evaluation.labels[:, 0])
        truth, decision = evaluation.labels[known, 0] == 1, called[known, 0]
        finding = evaluation.findings[0]
        rows = [
            (f"{finding} absent", *_class_scores(~truth, ~decision)),
            (f"{finding} present", *_class_scores(truth, decision)),
        ]
    else:
        for column, finding in enumerate(evaluation.findings):
            known = ~np.isnan(evaluation.labels[:, column])
            scores = _class_scores(evaluation.labels[known, column] == 1, called[known, column])
            rows.append((finding, *scores))
    values, support = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    total = int(support.sum())
    rows.append(("Macro mean", [_mean(column, np.ones(len(support))) for column in values.T], total))
    rows.append(("Mean weighted by support", [_mean(column, support) for column in values.T], total))
    cells = [
        (name, [*(formatting.value({"value": _finite(value)}) for value in scores), f"{count:,}"])
        for name, scores, count in rows
    ]
    heads = ("Precision", "Recall", "F1", "Support")
    return make_grid("Classification report", "Class", heads, cells, foot=2)


def predictions(evaluation: Evaluation) -> pd.DataFrame:
    """Return the predictions in the long form that others read.

    Returns:
        One row an image and finding, image by image: image, patient, finding, label (NaN unknown), logit,
        probability, decision (`present` or `absent`).
    """
    images, findings = evaluation.labels.shape
    called = evaluation.decisions.ravel()
    return pd.DataFrame(
        {
            "image": np.repeat(np.asarray(evaluation.images, dtype=object), findings),
            "patient": np.repeat(np.asarray(evaluation.patients, dtype=object), findings),
            "finding": np.tile(np.asarray(evaluation.findings, dtype=object), images),
            "label": evaluation.labels.astype(np.float64).ravel(),
            "logit": evaluation.logits.astype(np.float64).ravel(),
            "probability": evaluation.probabilities.astype(np.float64).ravel(),
            "decision": np.where(called, "present", "absent").astype(object),
        }
    )


_CSV_NAMES = {
    "accuracy": "Accuracy",
    "ppv": "Precision",
    "sensitivity": "Recall",
    "f1": "F1-Score",
    "auroc": "AUC",
}


def performance_csv(evaluation: Evaluation) -> str:
    """Return one line a finding, then the means: five well-known columns first, then all with intervals.

    Text that a spreadsheet would run as a formula is quoted with an apostrophe; what cannot be estimated is
    empty.
    """
    others = [name for name in formatting.NAMES if name not in _CSV_NAMES]
    counts = ("positives", "negatives", "threshold")
    head = ["Model", "Finding", *_CSV_NAMES.values(), *counts]
    head += [f"{name}_{end}" for name in _CSV_NAMES.values() for end in ("low", "high")]
    head += [column for name in others for column in (name, f"{name}_low", f"{name}_high")]
    rows = []
    for name, entries in _entries(evaluation):
        row = [spreadsheet_safe(evaluation.title), spreadsheet_safe(name)]
        row += [_plain(entries.get(metric), "value") for metric in _CSV_NAMES]
        row += [csv_number(entries.get(key)) for key in counts]
        row += [_plain(entries.get(metric), end) for metric in _CSV_NAMES for end in ("low", "high")]
        row += [_plain(entries.get(metric), end) for metric in others for end in ("value", "low", "high")]
        rows.append(row)
    return csv_text(head, rows)


def _metrics(evaluation: Evaluation, names: Sequence[str], *, caption: str) -> Grid:
    """Return metrics with intervals: one finding a row, or one metric a row where there is one finding.

    Args:
        evaluation: Whose metrics.
        names: Of the metrics; those that were not computed are left out.
        caption: Of the table.
    """
    rows = list(_entries(evaluation))
    names = [name for name in names if name in rows[0][1]]
    notes = Notes()
    if len(evaluation.findings) == 1:
        entries = rows[0][1]
        head = Column(f"Estimate ({plots.confidence(evaluation)} interval)")
        one_each = [(formatting.NAMES[name], [notes.cell(entries[name])]) for name in names]
        return make_grid(caption, "Metric", (head,), one_each, notes=notes)

    columns = [[notes.cell(entries.get(name)) for _, entries in rows] for name in names]
    heads = [Column(formatting.NAMES[name]) for name in names]
    for place, name in enumerate(names):
        if name == "auroc":
            columns[place] = _mark_extremes(columns[place], rows[: len(evaluation.findings)])
        shared = {cell.note for cell in columns[place]}
        if len(shared) == 1 and "" not in shared:  # what holds for all is said once
            heads[place] = Column(heads[place].name, shared.pop())
            columns[place] = [replace(cell, note="") for cell in columns[place]]
    cells = [(name, [column[place] for column in columns]) for place, (name, _) in enumerate(rows)]
    foot = len(rows) - len(evaluation.findings)
    return make_grid(caption, evaluation.task.noun.capitalize(), heads, cells, foot=foot, notes=notes)


def _entries(evaluation: Evaluation) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every finding with its entries of metrics.json, then the means over several findings.

    Of classes the accuracy of the means is the share of images put into the right class.
    """
    for finding in evaluation.findings:
        yield finding, plots.scores_of(evaluation, finding)
    if len(evaluation.findings) == 1:
        return
    classes = evaluation.task.exclusive
    overall = {"accuracy": plots.accuracy_of_classes(evaluation)} if classes else {}
    without = {"accuracy": None} if classes else {}
    rare = f" without rare {'classes' if classes else 'findings'}"
    yield "Macro mean", {**evaluation.metrics["macro"], **overall}
    yield "Micro mean", {**evaluation.metrics["micro"], **overall}
    if evaluation.metrics.get("rare"):
        yield f"Macro mean{rare}", {**evaluation.metrics["macro_without_rare"], **without}
        yield f"Micro mean{rare}", {**evaluation.metrics["micro_without_rare"], **without}


def _mark_extremes(cells: list[Cell], rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Cell]:
    known = {
        place: float(entries["auroc"]["value"])
        for place, (_, entries) in enumerate(rows)
        if formatting.is_known(entries["auroc"])
    }
    if len(known) < 2:
        return cells
    marked = list(cells)
    for place, extreme in (
        (max(known, key=known.__getitem__), "highest"),
        (min(known, key=known.__getitem__), "lowest"),
    ):
        marked[place] = replace(marked[place], extreme=extreme)
    return marked


def _class_scores(truth: Any, decision: Any) -> tuple[list[float], int]:
    from sklearn.metrics import precision_recall_fscore_support

    if not len(truth):
        return [np.nan] * 3, 0
    scores = precision_recall_fscore_support(
        truth, decision, average="binary", pos_label=True, zero_division=np.nan
    )
    return [float(score) for score in scores[:3]], int(truth.sum())


def _mean(values: Any, weights: Any) -> float:
    known = np.isfinite(values) & (weights > 0)
    return float(np.average(values[known], weights=weights[known])) if known.any() else np.nan


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _plain(entry: formatting.Entry | None, end: str) -> str:
    return "" if entry is None else csv_number(entry.get(end))
