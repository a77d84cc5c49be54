"""An Evaluation on data from elsewhere -> its section: own test against here, in a figure, tables and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hilum.evaluation.evaluation import Evaluation
from hilum.evaluation.external import ACCURACY, MEAN, METRICS, Contrast, External, Unseen
from hilum.report import formatting
from hilum.report.drawing import style
from hilum.report.evaluation.plots import Plot, confidence, noun
from hilum.report.evaluation.tables import Cell, Column, Grid, Notes
from hilum.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESPECTS = {
    "source": "Data set",
    "view": "View",
    "age": "Age",
    "size": "Size",
    "likeness": "Distance from the validation images",
}
"""Name of `external.Unseen` -> in the page."""


@dataclass(frozen=True)
class Pair:
    """One row of the figure: a figure on the model's own test and here, and the difference in words."""

    name: str
    own: Estimate
    here: Estimate
    text: str


@dataclass(frozen=True)
class Section:
    """What the page says of data from elsewhere.

    Attributes:
        lead: What is compared with what.
        how: How to read it.
        plots: The figure; none without an own test.
        tables: The figures; none without an own test.
        unseen: In what the images differ from those of training.
    """

    lead: str
    how: str
    plots: tuple[Plot, ...]
    tables: tuple[Grid, ...]
    unseen: Grid


def section(evaluation: Evaluation) -> Section | None:
    """Returns the section, None where the data are the model's own."""
    external = evaluation.external
    if external is None:
        return None
    here = f"{formatting.count(len(evaluation.images), 'image')} of {evaluation.data}"
    unseen = _unseen(external.unseen)
    if external.internal is None:
        lead = f"These are {here}, {_strange(external)}. Its own test is not beside them: "
        return Section(f"{lead}{external.reason}.", "", (), (), unseen)
    own = external.internal
    patients = formatting.count(len(own.patients), "patient")
    lead = (
        f"Here: {here}, {_strange(external)}. Own test: "
        f"{formatting.count(own.images, 'image')} of {patients} of {own.data}, held out of training."
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
    return Section(lead, f"{how}.", (_plot(evaluation),), (_table(evaluation),), unseen)


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
    external = evaluation.external
    assert external is not None
    assert external.internal is not None
    contrasts = external.contrasts
    if len(evaluation.findings) == 1:
        row = contrasts[evaluation.findings[0]]
        pairs = [_pair(formatting.NAMES[metric].partition(" (")[0], row[metric]) for metric in METRICS]
        headline, name = row["auroc"], "AUROC"
    else:
        pairs = [_pair(finding, contrasts[finding]["auroc"]) for finding in evaluation.findings]
        pairs.sort(key=lambda pair: (pair.here.value is None, -(pair.here.value or 0)))
        pairs.append(_pair(MEAN, contrasts[MEAN]["auroc"]))
        headline, name = contrasts[MEAN]["auroc"], "Mean AUROC"
    values = [formatting.value(one.to_dict()) for one in (headline.external, headline.internal)]
    title = f"{name} {values[0]} here, {values[1]} on the model's own test"
    own = f"{formatting.count(external.internal.images, 'image')} of {external.internal.data}"
    subtitle = f"{formatting.count(len(evaluation.images), 'image')} of {evaluation.data}; own test: {own}"
    what = "" if len(evaluation.findings) == 1 else "AUROC by finding. "
    caption = (
        f"{what}Grey diamond: the model's own test. Blue dot: here. Lines: {confidence(evaluation)} intervals. "
        "Right: here minus own test."
    )
    axis = "" if len(evaluation.findings) == 1 else "AUROC (0.5 is chance)"
    return Plot("external", forest(pairs, title=title, subtitle=subtitle, axis=axis), title, caption)


def _pair(name: str, one: Contrast) -> Pair:
    difference = one.difference.to_dict()
    told = (
        formatting.estimate(difference) if formatting.is_known(difference) else formatting.reason(difference)
    )
    return Pair(name, one.internal, one.external, told)


def _table(evaluation: Evaluation) -> Grid:
    external = evaluation.external
    assert external is not None
    notes = Notes()
    if len(evaluation.findings) == 1:
        row = external.contrasts[evaluation.findings[0]]
        rows = tuple(
            (
                formatting.NAMES[metric],
                tuple(_cell(one, notes) for one in (c.internal, c.external, c.difference)),
            )
            for metric, c in row.items()
        )
        return Grid(
            "Own test and here",
            "Metric",
            _columns("Own test", "Here", "Difference"),
            rows,
            notes=notes.listed(),
        )
    rows = tuple((name, _cells(row, notes)) for name, row in external.contrasts.items())
    heads = [
        "AUROC, own test",
        "AUROC here",
        *(f"{formatting.NAMES[metric].partition(' (')[0]}: difference" for metric in METRICS),
    ]
    if ACCURACY in external.contrasts.get(MEAN, {}):
        accuracy = external.contrasts[MEAN][ACCURACY]
        told = (
            formatting.estimate(one.to_dict())
            for one in (accuracy.internal, accuracy.external, accuracy.difference)
        )
        caption = "Own test and here. Accuracy: {} in the own test, {} here, difference {}".format(*told)
    else:
        caption = "Own test and here"
    return Grid(caption, noun(evaluation).capitalize(), _columns(*heads), rows, foot=1, notes=notes.listed())


def _cells(row: Mapping[str, Contrast], notes: Notes) -> tuple[Cell, ...]:
    own, here = row["auroc"].internal, row["auroc"].external
    return tuple(_cell(one, notes) for one in (own, here, *(row[metric].difference for metric in METRICS)))


def _cell(estimate: Estimate, notes: Notes) -> Cell:
    entry = estimate.to_dict()
    return Cell(formatting.value(entry), formatting.interval(entry), notes.letter(formatting.reason(entry)))


def _columns(*names: str) -> tuple[Column, ...]:
    return tuple(map(Column, names))


def _unseen(respects: Sequence[Unseen]) -> Grid:
    rows = []
    for one in respects:
        outside = "cannot be told"
        if one.images is not None:
            outside = f"{one.images:,} of {one.told:,} ({formatting.per_cent(one.images, one.told)})"
        trained, here = one.trained or "the bundle does not tell", one.here or "not told"
        rows.append((RESPECTS[one.name], (Cell(trained), Cell(here), Cell(outside))))
    columns = _columns("In training", "Here", "Images outside that")
    return Grid("What the model had seen, and what is here", "Respect", columns, tuple(rows))


@style.styled
def forest(pairs: Sequence[Pair], *, title: str, subtitle: str, axis: str) -> "Figure":
    """Draws each figure twice with its interval, on the model's own test and here, the difference beside it.

    Args:
        pairs: From top to bottom.
        title: The finding of the figure.
        subtitle: What it rests on.
        axis: What the abscissa is, for one metric; empty where each row has its own.
    """
    pitch, top, left, width = 0.36, 0.84, 1.5, 3.45
    height = pitch * len(pairs)
    drawing = style.figure(style.FULL, top + height + 0.5)
    style.heading(drawing, title, subtitle)
    frame = style.axes(drawing, left=left, top=top, width=width, height=height)
    looks = (("own test", "D", style.SLATE, -0.16), ("here", "o", style.BLUE, 0.16))
    # The key stands above the frame, since in it there may be no place that is always free.
    for place, (name, marker, colour, _) in zip((0.0, 0.85), looks, strict=True):
        frame.plot(
            [(place + 0.06) / width], [1 + 0.15 / height], marker, color=colour, markersize=5.5, markeredgewidth=0,
            transform=frame.transAxes, clip_on=False,
        )  # fmt: skip
        style.write(drawing, name, left=left + place + 0.16, top=top - 0.11, colour=style.FAINT)
    style.write(drawing, "here minus own test", left=left + width + 0.2, top=top - 0.11, colour=style.FAINT)
    lows = [0.5]
    for place, pair in enumerate(pairs):
        line, bold = top + pitch * (place + 0.5) + 0.045, pair.name == MEAN
        style.write(drawing, _short(pair.name), left=style.MARGIN, top=line, bold=bold)
        style.write(drawing, pair.text, left=left + width + 0.2, top=line, bold=bold)
        for estimate, (_, marker, colour, offset) in zip((pair.own, pair.here), looks, strict=True):
            if estimate.value is None:
                continue
            if estimate.low is not None and estimate.high is not None:
                frame.plot([estimate.low, estimate.high], [place + offset] * 2, color=colour, linewidth=1.5)
                lows.append(estimate.low)
            lows.append(estimate.value)
            frame.plot(
                [estimate.value],
                [place + offset],
                marker,
                color=colour,
                markersize=5.5,
                markeredgewidth=0,
                clip_on=False,
            )
    if axis:
        frame.axvline(0.5, color=style.SLATE, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
    style.rows_of_shares(frame, len(pairs), lowest=min(lows), axis=axis)
    return drawing


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"
