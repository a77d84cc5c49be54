"""Rows of estimates with their intervals -> a Figure: the one forest plot of all pages. All places are in inches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum.report import formatting
from hilum.report.drawing import style
from hilum.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANCE: dict[str, Any] = {"color": style.SLATE, "linewidth": 0.7, "linestyle": (0, (4, 3)), "zorder": 0}


@dataclass(frozen=True)
class Mark:
    """An estimate and how it looks.

    Attributes:
        estimate: Nothing is drawn where it has no value, and no line where it has no interval.
        colour: Of dot and line.
        marker: The shape of the dot.
        size: Points of the dot.
        offset: Rows below the middle of its row.
        text: What stands beside the frame at its height; empty for none.
    """

    estimate: Estimate
    colour: str = style.BLUE
    marker: str = "o"
    size: float = 5.0
    offset: float = 0.0
    text: str = ""


@dataclass(frozen=True)
class ForestRow:
    """A row: a name, what stands beside it, and its estimates.

    Attributes:
        name: To the left of the frame.
        marks: Its estimates; none for a heading.
        text: To the right of the frame, at the middle of the row.
        count: How many images, where the layout says.
        bold: Whether name and text are bold.
        faint: Whether the text is faint, since it says why there is no estimate.
        gap: Rows that are left free above.
        indent: Inches that the name is moved in.
        reference: Where a line stands in this row alone, or None.
    """

    name: str
    marks: tuple[Mark, ...] = ()
    text: str = ""
    count: str = ""
    bold: bool = False
    faint: bool = False
    gap: float = 0.0
    indent: float = 0.0
    reference: float | None = None


@dataclass(frozen=True)
class ForestLayout:
    """Where things stand.

    Attributes:
        pitch: From row to row.
        top: Above the first row.
        left: Left of the frame.
        width: Of the frame.
        letters: Of a name, whose end is cut off where it is longer.
        counts: Right end of the counts; None for none.
        separated: Whether a hairline stands between rows.
        beside: From the frame to the text at its right.
    """

    pitch: float
    top: float
    left: float
    width: float
    letters: int = 20
    counts: float | None = None
    separated: bool = False
    beside: float = 0.15


@style.styled
def forest(
    rows: Sequence[ForestRow],
    layout: ForestLayout,
    *,
    title: str,
    subtitle: str = "",
    axis: str,
    heads: Mapping[float, str] | None = None,
    scale: Callable[["Axes", Sequence[float]], None] | None = None,
    chance: Mapping[str, Any] | None = CHANCE,
) -> "Figure":
    """Draw estimates with their intervals.

    Args:
        rows: From top to bottom.
        layout: Where things stand.
        title: The finding of the figure.
        subtitle: What it rests on.
        axis: What the abscissa is; empty where each row has its own.
        heads: Left end of a head of a column -> its words; at the end of the counts they end there.
        scale: Sets limits and ticks of the abscissa by all values and ends of intervals; None for shares up to 1.
        chance: How the line at 0.5 looks; None for no line.
    """
    places = np.cumsum([row.gap + 1 for row in rows]) - 1
    count = float(places[-1]) + 1
    drawing = style.figure(style.FULL, layout.top + layout.pitch * count + 0.5)
    style.heading(drawing, title, subtitle)
    frame = style.axes(
        drawing, left=layout.left, top=layout.top, width=layout.width, height=layout.pitch * count
    )
    for left, head in (heads or {}).items():
        align = "right" if left == layout.counts else "left"
        style.write(drawing, head, left=left, top=layout.top - 0.09, colour=style.FAINT, align=align)
    ends: list[float] = []
    for place, row in zip(places, rows, strict=True):
        _write_row(drawing, row, layout, float(place))
        if row.reference is not None:
            frame.plot(
                [row.reference] * 2, [place - 0.5, place + 0.5], color=style.INK, linewidth=0.9, zorder=1
            )
        if layout.separated and place:
            frame.axhline(place - 0.5, color=style.HAIR, linewidth=0.6, zorder=0)
        for mark in row.marks:
            ends += draw_mark(frame, mark, place + mark.offset)
    if chance is not None:
        frame.axvline(0.5, **chance)
    style.rows_of_shares(frame, count, lowest=min([0.5, *ends]), axis=axis)
    if scale is not None:
        scale(frame, ends)
    return drawing


def ranked(rows: Sequence[ForestRow]) -> list[ForestRow]:
    """Return rows of one estimate each, the highest on top and bold as the lowest, those without a value last."""

    def key(row: ForestRow) -> tuple[bool, float, str]:
        value = row.marks[0].estimate.value
        return value is None, -(value or 0), row.name

    ordered = sorted(rows, key=key)
    known = [place for place, row in enumerate(ordered) if row.marks[0].estimate.value is not None]
    for place in (known[0], known[-1]) if len(known) > 1 else ():
        ordered[place] = replace(ordered[place], bold=True)
    return ordered


def draw_mark(frame: "Axes", mark: Mark, place: float) -> list[float]:
    """Draw a dot with its interval at a height; return its value and the ends."""
    estimate = mark.estimate
    if estimate.value is None:
        return []
    ends = [estimate.value]
    if estimate.low is not None and estimate.high is not None:
        ends += [estimate.low, estimate.high]
        frame.plot(ends[1:], [place] * 2, color=mark.colour, linewidth=1.4)
    style.dot(frame, estimate.value, place, mark.colour, marker=mark.marker, size=mark.size)
    return ends


def _write_row(drawing: "Figure", row: ForestRow, layout: ForestLayout, place: float) -> None:
    line = layout.top + layout.pitch * (place + 0.5) + 0.045
    name = formatting.cut(row.name, layout.letters)
    style.write(drawing, name, left=style.MARGIN + row.indent, top=line, bold=row.bold)
    if layout.counts is not None:
        style.write(drawing, row.count, left=layout.counts, top=line, colour=style.FAINT, align="right")
    beside = layout.left + layout.width + layout.beside
    colour = style.FAINT if row.faint else style.INK
    style.write(drawing, row.text, left=beside, top=line, colour=colour, bold=row.bold)
    for mark in row.marks:
        style.write(drawing, mark.text, left=beside, top=line + layout.pitch * mark.offset)
