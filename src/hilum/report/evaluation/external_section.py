"""An Evaluation on data from elsewhere -> its section: own test against here, in a figure, tables and sentences."""

from collections.abc import Mapping, Sequence

import numpy as np

from hilum.evaluation.evaluation import Evaluation
from hilum.evaluation.external import ACCURACY, MEAN, METRICS, Contrast, External, Unseen
from hilum.progress import count
from hilum.report import formatting
from hilum.report.drawing import style
from hilum.report.drawing.forest import CHANCE, ForestLayout, ForestRow, Mark, forest
from hilum.report.evaluation.plots import confidence
from hilum.report.section import Block, Plot, Plots, Section, Tables
from hilum.report.table import Cell, Grid, Notes, make_grid

RESPECTS = {
    "source": "Data set",
    "view": "View",
    "age": "Age",
    "size": "Size",
    "likeness": "Distance from the validation images",
}
"""Name of `external.Unseen` -> in the page."""


def section(evaluation: Evaluation) -> Section | None:
    """Return the section, None where the data are the model's own."""
    external = evaluation.external
    if external is None:
        return None
    here = f"{count(len(evaluation.images), 'image')} of {evaluation.data}"
    unseen = _unseen(external.unseen)
    if external.internal is None:
        lead = f"These are {here}, {_strange(external)}. Its own test is not beside them: "
        return _section(f"{lead}{external.reason}.", unseen)
    own = external.internal
    patients = count(len(own.patients), "patient")
    lead = (
        f"Here: {here}, {_strange(external)}. Own test: "
        f"{count(own.images, 'image')} of {patients} of {own.data}, held out of training."
    )
    how = (
        f"Difference: here minus own test, with the {confidence(evaluation)} interval for two sets of patients that "
        "share none. Sensitivity and specificity are at the threshold of each. "
        "Average precision moves with the prevalence, even where the model does not"
    )
    if len(evaluation.findings) == 1:
        finding = evaluation.findings[0]
        entries = evaluation.metrics["findings"][finding]
        shares = (
            formatting.per_cent(entries["positives"], entries["positives"] + entries["negatives"]),
            formatting.per_cent(own.positives[finding], own.images),
        )
        how += f" ({shares[0]} here, {shares[1]} in the own test)"
    return _section(lead, Plots((_plot(evaluation),)), Tables((_table(evaluation),), note=f"{how}."), unseen)


def _section(lead: str, *blocks: Block) -> Section:
    title = "Elsewhere: against the model's own test"
    return Section("external", title, blocks, lead, link="Elsewhere", in_card=True)


def _strange(external: External) -> str:
    """How far these are not the data that the model was trained on, and how many are its own test."""
    source = next(one for one in external.unseen if one.name == "source")
    own = f"{external.shared_images:,} of them the model's own test" if external.shared_images else ""
    if source.images == source.told:
        return "not the data that the model was trained on"
    if not source.images:
        return own or f"of {source.trained}, which the model was trained on, divided otherwise"
    new = f"{source.images:,} of {source.new}, which the model was not trained on"
    return f"{own}, {new}" if own else f"{new}, the others of {source.trained}, which it was"


def _plot(evaluation: Evaluation) -> Plot:
    from matplotlib.lines import Line2D

    external = evaluation.external
    assert external is not None
    assert external.internal is not None
    contrasts = external.contrasts
    if len(evaluation.findings) == 1:
        metrics = contrasts[evaluation.findings[0]]
        rows = [
            _forest_row(formatting.NAMES[metric].partition(" (")[0], metrics[metric]) for metric in METRICS
        ]
        headline, name = metrics["auroc"], "AUROC"
    else:
        ordered = sorted(
            evaluation.findings,
            key=lambda finding: (
                -np.nan_to_num(contrasts[finding]["auroc"].external.value or np.nan, nan=-1.0)
            ),
        )
        rows = [_forest_row(name, contrasts[name]["auroc"]) for name in (*ordered, MEAN)]
        headline, name = contrasts[MEAN]["auroc"], "Mean AUROC"
    values = [formatting.value(one.to_dict()) for one in (headline.external, headline.internal)]
    title = f"{name} {values[0]} here, {values[1]} on the model's own test"
    own = f"{count(external.internal.images, 'image')} of {external.internal.data}"
    subtitle = f"{count(len(evaluation.images), 'image')} of {evaluation.data}; own test: {own}"
    what = "" if len(evaluation.findings) == 1 else "AUROC by finding. "
    caption = (
        f"{what}Grey diamond: the model's own test. Blue dot: here. Lines: {confidence(evaluation)} intervals. "
        "Right: here minus own test."
    )
    axis = "" if len(evaluation.findings) == 1 else "AUROC (0.5 is chance)"
    layout = ForestLayout(pitch=0.36, top=0.84, left=1.5, width=3.45, beside=0.2)
    drawing = forest(
        rows,
        layout,
        title=title,
        subtitle=subtitle,
        axis=axis,
        heads={1.66: "own test", 2.51: "here", 5.15: "here minus own test"},
        chance=CHANCE if axis else None,
    )
    # The key stands above the frame, since in it there may be no place that is always free.
    for mark, left in zip(rows[0].marks, (1.56, 2.41), strict=True):
        width, height = drawing.get_size_inches()
        key = Line2D([left / width], [1 - 0.7 / height], color=mark.colour, marker=mark.marker, linestyle="")
        key.set(markersize=mark.size, markeredgewidth=0)
        drawing.add_artist(key)
    return Plot("external", drawing, title, caption)


def _forest_row(name: str, contrast: Contrast) -> ForestRow:
    difference = contrast.difference.to_dict()
    known = formatting.is_known(difference)
    text = formatting.estimate(difference) if known else formatting.reason(difference)
    own = Mark(contrast.internal, style.SLATE, "D", size=5.5, offset=-0.16)
    return ForestRow(name, (own, Mark(contrast.external, size=5.5, offset=0.16)), text, bold=name == MEAN)


def _table(evaluation: Evaluation) -> Grid:
    external = evaluation.external
    assert external is not None
    notes = Notes()
    if len(evaluation.findings) == 1:
        row = external.contrasts[evaluation.findings[0]]
        rows = [
            (
                formatting.NAMES[metric],
                [notes.cell(c.internal), notes.cell(c.external), notes.cell(c.difference)],
            )
            for metric, c in row.items()
        ]
        heads = ["Own test", "Here", "Difference"]
        return make_grid("Own test and here", "Metric", heads, rows, notes=notes)
    rows = [(name, _cells(row, notes)) for name, row in external.contrasts.items()]
    heads = [
        "AUROC, own test",
        "AUROC here",
        *(f"{formatting.NAMES[metric].partition(' (')[0]}: difference" for metric in METRICS),
    ]
    caption = "Own test and here"
    if ACCURACY in external.contrasts.get(MEAN, {}):
        accuracy = external.contrasts[MEAN][ACCURACY]
        told = (
            formatting.estimate(one.to_dict())
            for one in (accuracy.internal, accuracy.external, accuracy.difference)
        )
        caption = "Own test and here. Accuracy: {} in the own test, {} here, difference {}".format(*told)
    return make_grid(caption, evaluation.task.noun.capitalize(), heads, rows, foot=1, notes=notes)


def _cells(row: Mapping[str, Contrast], notes: Notes) -> list[Cell]:
    own, here = row["auroc"].internal, row["auroc"].external
    return [notes.cell(estimate) for estimate in (own, here, *(row[metric].difference for metric in METRICS))]


def _unseen(respects: Sequence[Unseen]) -> Tables:
    rows = []
    for one in respects:
        outside = "cannot be told"
        if one.images is not None:
            outside = f"{one.images:,} of {one.told:,} ({formatting.per_cent(one.images, one.told)})"
        trained, here = one.trained or "the bundle does not tell", one.here or "not told"
        rows.append((RESPECTS[one.name], [trained, here, outside]))
    heads = ("In training", "Here", "Images outside that")
    grid = make_grid("What the model had seen, and what is here", "Respect", heads, rows)
    return Tables((grid,), layout="words")
