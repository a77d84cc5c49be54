"""An Evaluation -> the plots of its report, each with the words that stand beside it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum import stats
from hilum.evaluation.evaluation import Evaluation
from hilum.progress import count
from hilum.report import formatting
from hilum.report.drawing import curves
from hilum.report.drawing.forest import ForestLayout, ForestRow, Mark, forest, ranked
from hilum.report.section import Plot
from hilum.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
# Columns of the history -> names of their lines.
LOSSES = {"train_loss": "training", "val_loss": "validation"}
SCORES = {"val_auroc": "AUROC", "val_average_precision": "AP", "val_f1": "F1"}


def discrimination(evaluation: Evaluation) -> Iterator[Plot]:
    """Yield ROC and precision-recall curves and, for several findings, the forest plot before them."""
    columns = range(len(evaluation.findings))
    subtitle = cohort(evaluation)
    level = confidence(evaluation)
    title = _headline(evaluation, "auroc", "AUROC")
    if len(columns) > 1:
        rows = ranked([_forest_row(name, scores_of(evaluation, name)) for name in evaluation.findings])
        mean = _forest_row("Mean", evaluation.metrics["macro"])
        marks = tuple(replace(mark, marker="D", size=6.5) for mark in mean.marks)
        rows.append(replace(mean, bold=True, gap=0.35, count="", marks=marks))
        drawing = forest(
            rows,
            ForestLayout(pitch=0.255, top=0.78, left=2.15, width=3.0, counts=2.03),
            title=title,
            subtitle=subtitle,
            axis="AUROC (0.5 is chance)",
            heads={2.03: "Positives", 5.3: "AUROC (interval)"},
        )
        caption = f"AUROC with its {level} interval, highest first. Bold: highest and lowest."
        yield Plot("auroc_by_finding", drawing, title, caption)
        title = _range(evaluation)

    dot = "" if evaluation.task.exclusive else " Dot: the threshold."
    drawing = curves.roc([_roc(evaluation, column) for column in columns], title=title, subtitle=subtitle)
    yield Plot(
        "roc", drawing, title, f"ROC curve. Band: {level} interval at each point.{dot} Dashes: chance."
    )

    title = _headline(evaluation, "average_precision", "average precision")
    drawn = [_precision_recall(evaluation, column) for column in columns]
    drawing = curves.precision_recall(drawn, title=title, subtitle=subtitle)
    caption = (
        f"Precision-recall curve. Band: {level} interval at each point.{dot} "
        "Dashes: the prevalence, which is the precision of calling every image."
    )
    yield Plot("precision_recall", drawing, title, caption)


def calibration(evaluation: Evaluation) -> Iterator[Plot]:
    """Yield reliability diagrams and the distributions of probability."""
    columns = range(len(evaluation.findings))
    title = _headline(evaluation, "ece", "ECE")
    overall = _overall(evaluation)
    slope, intercept = (
        formatting.value(overall.get(f"calibration_{name}")) for name in ("slope", "intercept")
    )
    subtitle = f"{'mean ' if len(columns) > 1 else ''}slope {slope}, intercept {intercept}"
    drawing = curves.reliability(
        [_reliability(evaluation, column) for column in columns], title=title, subtitle=subtitle
    )
    caption = (
        f"Reliability diagram: share of images with the {evaluation.task.noun} against the mean predicted probability, "
        f"in bins of about as many images each. Bars: {confidence(evaluation)} intervals. Grey: where the "
        "probabilities lie. Dashes: perfect calibration. ECE: expected calibration error."
    )
    yield Plot("reliability", drawing, title, caption)

    panels = [_distribution(evaluation, column) for column in columns]
    if len(panels) == 1:
        title = f"{panels[0].headline.removesuffix('in error')}called in error"
        subtitle = f"called present from {formatting.probability(float(evaluation.decision.array[0]))} on"
    else:
        title, subtitle = (
            f"Probabilities of images with and without each {evaluation.task.noun}",
            cohort(evaluation),
        )
    drawing = curves.distributions(panels, title=title, subtitle=subtitle)
    line = "" if evaluation.task.exclusive else " Vertical line: the threshold."
    caption = (
        f"Predicted probabilities: images with the {evaluation.task.noun} upward, without it downward.{line}"
    )
    yield Plot("probabilities", drawing, title, caption)


def decisions(evaluation: Evaluation) -> Iterator[Plot]:
    """Yield the confusion matrix, or one a finding."""
    if evaluation.task.exclusive:
        counts = class_confusion(evaluation)
        panels = [curves.ConfusionPanel("", "", evaluation.findings, counts)]
        title = f"Accuracy {formatting.estimate(accuracy_of_classes(evaluation))}"
        caption = "Confusion matrix: the most probable class against the truth, with per cent of the row."
    else:
        counts = stats.confusion(
            evaluation.labels, evaluation.probabilities, thresholds=evaluation.decision.array
        )
        panels = [
            curves.ConfusionPanel(finding, _f1(evaluation, finding), ("absent", "present"), counts[column])
            for column, finding in enumerate(evaluation.findings)
        ]
        title = _headline(evaluation, *(("accuracy", "accuracy") if len(panels) == 1 else ("f1", "F1")))
        caption = (
            "Confusion matrix: the decision at the threshold against the truth, with per cent of the row."
        )
    drawing = curves.confusion(panels, title=title, subtitle=cohort(evaluation))
    yield Plot("confusion_matrix", drawing, title, caption)


def training(evaluation: Evaluation) -> Iterator[Plot]:
    """Yield the learning curves, where the history is known."""
    history = evaluation.history
    if history is None or not len(history):
        return
    drawing, title = draw_history(history, evaluation.best_epoch)
    caption = (
        "Loss and validation scores by epoch. Vertical line and dots: the epoch whose weights were kept."
    )
    if len(evaluation.findings) > 1:
        caption += f" Scores: means over {count(len(evaluation.findings), evaluation.task.noun)}."
    if "val_f1" in history:
        called = "of the most probable class" if evaluation.task.exclusive else "at a probability of 0.5"
        caption += f" AP: average precision. F1: {called}."
    yield Plot("learning_curves", drawing, title, caption)


def draw_history(history: pd.DataFrame, best_epoch: int | None) -> tuple["Figure", str]:
    """Draw a run's learning curves; return the drawing and its title.

    Args:
        history: One row an epoch.
        best_epoch: Whose weights were kept; None where that is not known.
    """
    epochs = history["epoch"].to_numpy(np.int64)
    column = {name: history[name].to_numpy(np.float64) for name in history.columns if name != "epoch"}
    auroc = column.get("val_auroc")
    title, subtitle = f"{count(len(epochs), 'epoch')} of training", ""
    if best_epoch is not None:
        title = f"The weights of epoch {best_epoch} of {int(epochs[-1])} were kept"
        at = np.flatnonzero(epochs == best_epoch)
        if auroc is not None and len(at) and np.isfinite(auroc[at[0]]):
            value = "> 0.999" if 0.9995 <= auroc[at[0]] < 1 else formatting.number(float(auroc[at[0]]))
            subtitle = f"validation AUROC {value} there; validation chose the epoch, so it is no test result"
    drawing = curves.learning_curves(
        epochs,
        losses={name: column[key] for key, name in LOSSES.items() if key in column},
        scores={name: column[key] for key, name in SCORES.items() if key in column},
        learning_rate=column.get("learning_rate"),
        best_epoch=best_epoch,
        title=title,
        subtitle=subtitle,
    )
    return drawing, title


def class_confusion(evaluation: Evaluation) -> NDArray[np.int64]:
    """Return (classes, classes) counts of a task with one class an image: rows true, columns called."""
    from sklearn.metrics import confusion_matrix

    known = ~np.isnan(evaluation.labels).any(axis=1)
    truth, called = evaluation.labels[known].argmax(axis=1), evaluation.decisions[known].argmax(axis=1)
    return np.asarray(confusion_matrix(truth, called, labels=np.arange(len(evaluation.findings))), np.int64)


def accuracy_of_classes(evaluation: Evaluation) -> dict[str, Any]:
    """Return the share of images put into the right class, with its interval where metrics.json has one."""
    counts = class_confusion(evaluation)
    alone = {"value": float(np.trace(counts) / counts.sum()), "low": None, "high": None}
    entry: dict[str, Any] = evaluation.metrics.get("accuracy", alone)
    return entry


def scores_of(evaluation: Evaluation, finding: str) -> dict[str, Any]:
    """Return the finding's entries of metrics.json."""
    entries: dict[str, Any] = evaluation.metrics["findings"][finding]
    return entries


def confidence(evaluation: Evaluation) -> str:
    """Return the level of the intervals, `95 %`."""
    return f"{100 * _level(evaluation):g} %"


def cohort(evaluation: Evaluation) -> str:
    """Return on how many images the figures rest, in a few words."""
    images = count(len(evaluation.images), "image")
    if len(evaluation.findings) == 1:
        return f"{images}, {scores_of(evaluation, evaluation.findings[0])['positives']:,} positive"
    return f"{images}, {count(len(evaluation.findings), evaluation.task.noun)}"


def _level(evaluation: Evaluation) -> float:
    return float(evaluation.metrics.get("confidence", 0.95))


def _replicates(evaluation: Evaluation) -> int:
    """Resample behind a band: in a small panel nobody sees the difference that many more would make."""
    return 1000 if len(evaluation.findings) == 1 else 300


def _overall(evaluation: Evaluation) -> dict[str, Any]:
    if len(evaluation.findings) == 1:
        return scores_of(evaluation, evaluation.findings[0])
    overall: dict[str, Any] = evaluation.metrics["macro"]
    return overall


def _headline(evaluation: Evaluation, metric: str, name: str) -> str:
    estimate = formatting.estimate(_overall(evaluation).get(metric))
    return (
        f"{name[0].upper()}{name[1:]} {estimate}"
        if len(evaluation.findings) == 1
        else f"Mean {name} {estimate}"
    )


def _range(evaluation: Evaluation) -> str:
    """The lowest and the highest AUROC, with their findings."""
    entries = {name: scores_of(evaluation, name)["auroc"] for name in evaluation.findings}
    known = {name: float(entry["value"]) for name, entry in entries.items() if formatting.is_known(entry)}
    if len(known) < 2:
        return _headline(evaluation, "auroc", "AUROC")
    lowest, highest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    lower, higher = (f"{formatting.number(known[name])} ({name})" for name in (lowest, highest))
    return f"AUROC from {lower} to {higher}"


def _forest_row(name: str, entries: Mapping[str, Any]) -> ForestRow:
    entry = entries["auroc"]
    value, low, high = (
        None if entry.get(key) is None else float(entry[key]) for key in ("value", "low", "high")
    )
    count = f"{int(entries.get('positives', 0)):,}"
    marks = (Mark(Estimate(value, low, high)),)
    return ForestRow(name, marks, formatting.estimate(entry), count, faint=value is None)


def _known(evaluation: Evaluation, column: int) -> tuple[NDArray[np.bool_], Floats, NDArray[np.str_]]:
    """Truth, probabilities and patients of the images whose label is known."""
    known = ~np.isnan(evaluation.labels[:, column])
    present = evaluation.labels[known, column] == 1
    probabilities = np.asarray(evaluation.probabilities[known, column], np.float64)
    return present, probabilities, evaluation.patients[known]


def _point_label(evaluation: Evaluation, column: int, first: str, second: str) -> tuple[str, ...]:
    if evaluation.task.exclusive:
        return ()
    entries = scores_of(evaluation, evaluation.findings[column])
    named = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "precision"}
    threshold = formatting.probability(float(evaluation.decision.array[column]))
    return (
        f"threshold {threshold}",
        *(f"{named[name]} {formatting.value(entries[name])}" for name in (first, second)),
    )


def _point(evaluation: Evaluation, column: int, across: str, up: str) -> tuple[float, float] | None:
    """Where the threshold stands, by the metrics' own values; none without both, and none for classes."""
    entries = scores_of(evaluation, evaluation.findings[column])
    if evaluation.task.exclusive or not (
        formatting.is_known(entries[across]) and formatting.is_known(entries[up])
    ):
        return None
    return float(entries[across]["value"]), float(entries[up]["value"])


def _distribution(evaluation: Evaluation, column: int) -> curves.DistributionPanel:
    present, probabilities, _ = _known(evaluation, column)
    known = ~np.isnan(evaluation.labels[:, column])
    called = evaluation.decisions[known, column]
    missed, wrongly = int((present & ~called).sum()), int((~present & called).sum())
    threshold = evaluation.decision.threshold(column)
    headline = f"{missed:,} missed, {wrongly:,} in error"
    finding = evaluation.findings[column]
    return curves.DistributionPanel(
        finding, headline, probabilities[present], probabilities[~present], threshold
    )


def _roc(evaluation: Evaluation, column: int) -> curves.CurvePanel:
    panel = _curve_panel(evaluation, column, stats.roc_curve, "auroc")
    point = _point(evaluation, column, "specificity", "sensitivity")
    return replace(
        panel,
        point=None if point is None else (1 - point[0], point[1]),
        point_label=_point_label(evaluation, column, "sensitivity", "specificity"),
    )


def _precision_recall(evaluation: Evaluation, column: int) -> curves.CurvePanel:
    present, _, _ = _known(evaluation, column)
    panel = _curve_panel(evaluation, column, stats.precision_recall_curve, "average_precision")
    return replace(
        panel,
        point=_point(evaluation, column, "sensitivity", "ppv"),
        point_label=_point_label(evaluation, column, "sensitivity", "ppv"),
        reference=float(present.mean()) if len(present) else 0.0,
    )


def _curve_panel(
    evaluation: Evaluation, column: int, curve_of: Callable[..., stats.Curve], metric: str
) -> curves.CurvePanel:
    """Return a finding's curve with its band and the estimate of the area under it; no decision is marked."""
    present, probabilities, patients = _known(evaluation, column)
    curve = curve_of(
        present,
        probabilities,
        clusters=patients,
        confidence=_level(evaluation),
        replicates=_replicates(evaluation),
    )
    headline = _curve_headline(evaluation, column, metric)
    return curves.CurvePanel(evaluation.findings[column], headline, curve.x, curve.y, band=_band(curve))


def _reliability(evaluation: Evaluation, column: int) -> curves.ReliabilityPanel:
    present, probabilities, patients = _known(evaluation, column)
    curve = stats.reliability_curve(present, probabilities, clusters=patients, confidence=_level(evaluation))
    entry = scores_of(evaluation, evaluation.findings[column])["ece"]
    headline = f"ECE {formatting.value(entry)}" if formatting.is_known(entry) else formatting.reason(entry)
    return curves.ReliabilityPanel(
        evaluation.findings[column],
        headline,
        curve.predicted,
        curve.observed,
        curve.low,
        curve.high,
        probabilities,
    )


def _f1(evaluation: Evaluation, finding: str) -> str:
    entry = scores_of(evaluation, finding)["f1"]
    return f"F1 {formatting.value(entry)}" if formatting.is_known(entry) else formatting.reason(entry)


def _band(curve: stats.Curve) -> tuple[Floats, Floats, Floats] | None:
    return None if curve.low is None or curve.high is None else (curve.grid, curve.low, curve.high)


def _curve_headline(evaluation: Evaluation, column: int, metric: str) -> str:
    entry = scores_of(evaluation, evaluation.findings[column])[metric]
    return formatting.estimate(entry) if formatting.is_known(entry) else formatting.reason(entry)
