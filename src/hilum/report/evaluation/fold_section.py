"""A cross-validated Evaluation -> its section: each fold's figures, what they spread, and what that is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hilum.evaluation.evaluation import Evaluation
from hilum.evaluation.folds import Fold, Folds
from hilum.report import formatting
from hilum.report.drawing import style
from hilum.report.evaluation.plots import Plot, confidence
from hilum.report.evaluation.tables import Cell, Column, Grid, Notes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Section:
    """What the page says of folds: what was done, the figure, the table, and how to read them."""

    lead: str
    plots: tuple[Plot, ...]
    table: Grid
    how: str


def section(evaluation: Evaluation) -> Section | None:
    """Returns the section, None where there are no folds."""
    folds = evaluation.folds
    if folds is None:
        return None
    lead = (
        f"The patients were divided into {folds.number} folds, each with its share of the findings. For each fold a "
        "model was trained and tuned on the other folds; it scored this one."
    )
    if folds.repeats > 1:
        lead += f" All of it was done {folds.repeats} times with folds drawn anew; other sections show the first time."
    how = (
        "Any two folds' models share most of their training images, and each fold's test images trained the other "
        "models: the folds' figures are not independent. The standard deviation between folds (SD) is therefore no "
        "standard error, and no interval can be made of it; it shows how much the figure varies from one model and "
        "test of this size to the next (Bengio and Grandvalet 2004, Journal of Machine Learning Research 5:1089-1105). "
        f"Intervals are {confidence(evaluation)} intervals by patient for the models as they are. All folds together "
        "rank images of different models in one order, and may fall below the mean of the folds where those are "
        "calibrated differently. Of each fold sensitivity and specificity are at the threshold of its own model."
    )
    if folds.repeats > 1:
        how += (
            " Repeats use the same patients again: the SD between them tells what the draw of the folds does, and "
            "nothing of other patients."
        )
    return Section(lead, (_plot(evaluation, folds),), table(folds), how)


def table(folds: Folds) -> Grid:
    """Returns a row a fold, each repeat as a whole, and their means and standard deviations."""
    notes = Notes()
    rows = []
    for row in folds.rows:
        entries = [row.figures[metric].to_dict() for metric in folds.metrics]
        cells = (
            Cell(formatting.value(e), formatting.interval(e), notes.letter(formatting.reason(e)))
            for e in entries
        )
        rows.append((name(row, folds), (Cell(f"{row.images:,}"), Cell(f"{row.patients:,}"), *cells)))
    summaries = [("Mean of the folds", folds.mean_of_folds), ("SD between folds", folds.between_folds)]
    if folds.repeats > 1:
        summaries += [
            ("Mean of the repeats", folds.mean_of_repeats),
            ("SD between repeats", folds.between_repeats),
        ]
    for what, figure in summaries:
        values = (Cell(formatting.value({"value": figure(metric)})) for metric in folds.metrics)
        rows.append((what, (Cell(""), Cell(""), *values)))
    heads = ["Images", "Patients", *(formatting.NAMES[metric].partition(" (")[0] for metric in folds.metrics)]
    return Grid(
        "Figures by fold",
        "Fold",
        tuple(map(Column, heads)),
        tuple(rows),
        foot=len(summaries),
        notes=notes.listed(),
    )


def name(row: Fold, folds: Folds) -> str:
    """Names a row: `Fold 2`, `All folds`, with the repeat where there are several."""
    fold = f"Fold {row.fold}" if row.fold else "All folds"
    return fold if folds.repeats == 1 else f"Repeat {row.repeat}, {fold.lower()}"


def _plot(evaluation: Evaluation, folds: Folds) -> Plot:
    several = "Mean AUROC" if len(evaluation.findings) > 1 else "AUROC"
    whole = next(row for row in folds.rows if row.fold == 0).figures["auroc"].to_dict()
    known = sum(folds.values("auroc", whole=False), [])  # noqa: RUF017 (a handful)
    title = f"{several} {formatting.value(whole)} out of fold"
    if known:
        title += f", {formatting.number(min(known))} to {formatting.number(max(known))} in single folds"
    people = formatting.count(len(np.unique(evaluation.patients)), "patient")
    subtitle = f"{formatting.count(len(evaluation.images), 'image')} of {people}, {evaluation.data}"
    caption = (
        f"Dots: single folds. Diamonds: all folds of a repeat together. Lines: {confidence(evaluation)} intervals by "
        "patient. Folds are not independent of each other."
    )
    rows = [(name(row, folds), row) for row in folds.rows]
    return Plot(
        "folds",
        forest(rows, title=title, subtitle=subtitle, axis=f"{several} (0.5 is chance)"),
        title,
        caption,
    )


@style.styled
def forest(rows: Sequence[tuple[str, Fold]], *, title: str, subtitle: str, axis: str) -> "Figure":
    """Draws the AUROC of each fold with its interval, and each repeat as a whole.

    Args:
        rows: Name and fold, from top to bottom.
        title: The finding of the figure.
        subtitle: What it rests on.
        axis: What the abscissa is.
    """
    pitch, top, left, width = 0.27, 0.62, 1.35, 4.0
    height = pitch * len(rows)
    drawing = style.figure(style.FULL, top + height + 0.5)
    style.heading(drawing, title, subtitle)
    frame = style.axes(drawing, left=left, top=top, width=width, height=height)
    ends = [0.5]
    for place, (label, row) in enumerate(rows):
        line, whole, estimate = top + pitch * (place + 0.5) + 0.045, row.fold == 0, row.figures["auroc"]
        # Why a figure is missing has no room here; the table below says it.
        told = formatting.estimate(estimate.to_dict())
        style.write(drawing, label, left=style.MARGIN, top=line, bold=whole)
        style.write(drawing, told, left=left + width + 0.2, top=line, bold=whole)
        colour = style.INK if whole else style.BLUE
        if estimate.low is not None and estimate.high is not None:
            frame.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.5)
            ends.append(estimate.low)
        if estimate.value is not None:
            marker = "D" if whole else "o"
            frame.plot(
                [estimate.value], [place], marker, color=colour, markersize=5.5, markeredgewidth=0, clip_on=False
            )  # fmt: skip
            ends.append(estimate.value)
    frame.axvline(0.5, color=style.SLATE, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
    style.rows_of_shares(frame, len(rows), lowest=min(ends), axis=axis)
    return drawing
