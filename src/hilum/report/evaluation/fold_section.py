"""A cross-validated Evaluation -> its section: each fold's figures, what they spread, and what that is not."""

import numpy as np

from hilum.evaluation.evaluation import Evaluation
from hilum.evaluation.folds import APART, Fold, Folds
from hilum.progress import count
from hilum.report import formatting
from hilum.report.drawing import style
from hilum.report.drawing.forest import ForestLayout, ForestRow, Mark, forest
from hilum.report.evaluation.plots import confidence
from hilum.report.section import Plot, Plots, Section, Tables, Tile
from hilum.report.table import Cell, Grid, Notes, make_grid


def section(evaluation: Evaluation) -> Section | None:
    """Return the section, None where there are no folds."""
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
        "calibrated differently. Of each fold sensitivity and specificity are at the threshold of its own model. "
        f"{_headline(folds)}"
    )
    if folds.repeats > 1:
        how += (
            " Repeats use the same patients again: the SD between them tells what the draw of the folds does, and "
            "nothing of other patients."
        )
    blocks = (Plots((_plot(evaluation, folds),)), Tables((table(folds),), note=how))
    return Section("folds", "Folds", blocks, lead, link="Folds", in_card=True)


def tiles(evaluation: Evaluation, folds: Folds) -> list[Tile]:
    """Return the headline, all folds together or the mean of the folds, each with the other beside it."""
    shown = []
    for metric in folds.metrics:
        name = formatting.NAMES[metric]
        if len(evaluation.findings) > 1 and metric != "accuracy":
            name = f"Mean {name if name.isupper() else name.lower()}"
        whole = folds.whole.figures[metric].to_dict()
        single = {"value": folds.mean_of_folds(metric)}
        if folds.comparable:
            remark = f"all folds together; mean of the folds {formatting.value(single)}"
            shown.append(Tile(name, formatting.value(whole), formatting.interval(whole), remark))
        else:
            remark = f"mean of the folds; all folds together {formatting.estimate(whole)}"
            shown.append(Tile(name, formatting.value(single), "", remark))
    return shown


def _headline(folds: Folds) -> str:
    """Say which of both figures stands at the top, and why."""
    if folds.comparable:
        return (
            "The headline is the figure of all folds together, which has an interval: the mean of the folds does not "
            f"lie more than {APART} of AUROC above it, so that their probabilities are comparable."
        )
    return (
        "The headline is the mean of the folds: the AUROC of all folds together lies more than "
        f"{APART} below it, so that the folds' probabilities are not comparable, and one order of all of them tells of "
        "no model (Forman and Scholz 2010, SIGKDD Explorations 12:49-57). No interval can be made of it."
    )


def table(folds: Folds) -> Grid:
    """Return a row a fold, each repeat as a whole, and their means and standard deviations."""
    notes = Notes()
    rows: list[tuple[str, list[str | Cell]]] = []
    for row in folds.rows:
        cells = (notes.cell(row.figures[metric]) for metric in folds.metrics)
        rows.append((name(row, folds), [f"{row.images:,}", f"{row.patients:,}", *cells]))
    summaries = [("Mean of the folds", folds.mean_of_folds), ("SD between folds", folds.between_folds)]
    if folds.repeats > 1:
        summaries += [
            ("Mean of the repeats", folds.mean_of_repeats),
            ("SD between repeats", folds.between_repeats),
        ]
    for what, figure in summaries:
        values = (formatting.value({"value": figure(metric)}) for metric in folds.metrics)
        rows.append((what, ["", "", *values]))
    heads = ["Images", "Patients", *(formatting.NAMES[metric].partition(" (")[0] for metric in folds.metrics)]
    return make_grid("Figures by fold", "Fold", heads, rows, foot=len(summaries), notes=notes)


def name(row: Fold, folds: Folds) -> str:
    """Name a row: `Fold 2`, `All folds`, with the repeat where there are several."""
    fold = f"Fold {row.fold}" if row.fold else "All folds"
    return fold if folds.repeats == 1 else f"Repeat {row.repeat}, {fold.lower()}"


def _plot(evaluation: Evaluation, folds: Folds) -> Plot:
    several = "Mean AUROC" if len(evaluation.findings) > 1 else "AUROC"
    whole = folds.whole.figures["auroc"].to_dict()
    known = sum(folds.values("auroc", whole=False), [])  # noqa: RUF017 (a handful)
    title = f"{several} {formatting.value(whole)} out of fold"
    if known:
        title += f", {formatting.number(min(known))} to {formatting.number(max(known))} in single folds"
    people = count(len(np.unique(evaluation.patients)), "patient")
    subtitle = f"{count(len(evaluation.images), 'image')} of {people}, {evaluation.data}"
    caption = (
        f"Dots: single folds. Diamonds: all folds of a repeat together. Lines: {confidence(evaluation)} intervals by "
        "patient. Folds are not independent of each other."
    )
    rows = [_forest_row(row, folds) for row in folds.rows]
    layout = ForestLayout(pitch=0.27, top=0.62, left=1.35, width=4.0, beside=0.2)
    drawing = forest(rows, layout, title=title, subtitle=subtitle, axis=f"{several} (0.5 is chance)")
    return Plot("folds", drawing, title, caption)


def _forest_row(row: Fold, folds: Folds) -> ForestRow:
    estimate, whole = row.figures["auroc"], row.fold == 0
    mark = Mark(estimate, style.INK if whole else style.BLUE, "D" if whole else "o", size=5.5)
    # Why a figure is missing has no room here; the table below says it.
    return ForestRow(name(row, folds), (mark,), formatting.estimate(estimate.to_dict()), bold=whole)
