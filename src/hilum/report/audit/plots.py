"""Comparisons and associations of an audit -> Figures: rows of dots with their intervals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hilum.data.audit import Association, SplitComparison
from hilum.report import formatting
from hilum.report.drawing import style
from hilum.report.drawing.forest import Mark, draw_mark
from hilum.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PITCH, TOP, LEFT, FOOT = 0.255, 0.82, 1.75, 0.5
"""Inches: height of a row, above the first, left of the frame, and below the last."""

PARTS = {"train": style.SLATE, "val": style.PURPLE, "test": style.BLUE}
NORMAL = 1.96
GAP = 0.2
"""Rows between the dots of one row."""


@style.styled
def shares(comparisons: Sequence[SplitComparison], *, title: str, subtitle: str) -> "Figure":
    """Draw the share of each view, sex and finding by part, with 95 % intervals; rows that differ are bold."""
    rows = [one for one in comparisons if one.name != "age" and one.parts]
    drawing, frame = _frame(
        len(rows), title=title, subtitle=subtitle, left=LEFT, width=style.FULL - LEFT - 0.15
    )
    names = [part for part in PARTS if any(part in one.parts for one in rows)]
    for place, one in enumerate(rows):
        _name(drawing, one.name, place, bold=one.differing is not None)
        for number, part in enumerate(names):
            if part in one.parts:
                value = one.parts[part]
                half = NORMAL * np.nan_to_num(value.error)
                at = place + GAP * (number - (len(names) - 1) / 2)
                estimate = Estimate(value.value, max(0.0, value.value - half), min(1.0, value.value + half))
                draw_mark(frame, Mark(estimate, PARTS[part], size=4.5), at)
    _axis(frame, len(rows), low=0.0, high=1.0, step=0.2)
    frame.set_xlim(-0.015, 1.015)
    frame.set_xticks(np.arange(6) / 5, [f"{share:.0%}" for share in np.arange(6) / 5])
    frame.set_xlabel("Share of the images of which it is known", labelpad=2)
    left = LEFT
    for part in names:
        style.write(drawing, part, left=left, top=TOP - 0.12, colour=PARTS[part], bold=True)
        left += 0.55
    return drawing


@style.styled
def associations(
    found: Sequence[Association], factors: Sequence[str], *, limit: float, title: str, subtitle: str
) -> "Figure":
    """Draw the AUROC of each factor by finding, one panel a factor.

    Args:
        found: With and without an estimate.
        factors: The panels, from left to right.
        limit: From which lower end on a label is called predictable; those are vermillion.
        title: The finding of the figure.
        subtitle: What it rests on.
    """
    findings = list(dict.fromkeys(one.finding for one in found))
    known = {(one.finding, one.factor): one for one in found if one.value is not None}
    gap, left = 0.18, 1.55
    width = (style.FULL - left - 0.1 - gap * (len(factors) - 1)) / len(factors)
    ends = [end for one in known.values() for end in (one.low, one.high, one.value) if end is not None]
    low = min(0.4, np.floor(10 * min(ends)) / 10)
    drawing = style.figure(style.FULL, TOP + PITCH * len(findings) + FOOT)
    style.heading(drawing, title, subtitle)
    for place, finding in enumerate(findings):
        _name(drawing, finding, place)
    for number, factor in enumerate(factors):
        across = left + number * (width + gap)
        frame = style.axes(drawing, left=across, top=TOP, width=width, height=PITCH * len(findings))
        style.write(drawing, factor, left=across, top=TOP - 0.12, bold=True)
        frame.axvline(0.5, color=style.SLATE, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
        for place, finding in enumerate(findings):
            one = known.get((finding, factor))
            if one is not None and one.value is not None:
                colour = style.VERMILLION if one.predictable else style.BLUE
                estimate = Estimate(one.value, one.low or one.value, one.high or one.value)
                draw_mark(frame, Mark(estimate, colour, size=4.5), place)
        _axis(frame, len(findings), low=low, high=1.0, step=0.2)
    middle = left + (style.FULL - left) / 2
    foot = TOP + PITCH * len(findings) + 0.42
    words_ = f"AUROC (0.5 is chance); vermillion: the interval lies above {limit:g}"
    style.write(drawing, words_, left=middle, top=foot, align="center")
    return drawing


def _frame(count: int, *, title: str, subtitle: str, left: float, width: float) -> tuple["Figure", "Axes"]:
    drawing = style.figure(style.FULL, TOP + PITCH * count + FOOT)
    style.heading(drawing, title, subtitle)
    return drawing, style.axes(drawing, left=left, top=TOP, width=width, height=PITCH * count)


def _name(drawing: "Figure", name: str, place: int, *, bold: bool = False) -> None:
    line = TOP + PITCH * (place + 0.5) + 0.045
    style.write(drawing, formatting.shorten(name, 20), left=style.MARGIN, top=line, bold=bold)


def _axis(frame: "Axes", count: int, *, low: float, high: float, step: float) -> None:
    frame.set_xlim(low - 0.015, high)
    frame.set_ylim(count - 0.5, -0.5)
    frame.set_yticks([])
    frame.spines["left"].set_visible(False)
    first = np.ceil(low / step - 1e-9)
    frame.set_xticks(np.arange(first, round(high / step) + 1) * step)
    frame.grid(axis="x", color=style.HAIR, linewidth=0.6)
    frame.set_axisbelow(True)
