"""Rows of names with what stands beside them: bars, spreads, legends. All places are in inches."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hilum.data.label_statistics import ALL, ClassQuartiles
from hilum.report import formatting
from hilum.report.drawing import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PITCH = 0.255
"""Inches from one row to the next."""
DASHES = (0, (4, 3))


def spreads(
    drawing: "Figure",
    rows: Sequence[ClassQuartiles],
    *,
    left: float,
    top: float,
    frame: tuple[float, float],
    label: str,
    text: float,
    number: float | None = None,
) -> None:
    """Draw median and middle half of a number, one class a row, with the AUROC of the number alone.

    Args:
        drawing: Where.
        rows: The classes.
        left: Of their names, in inches.
        top: Of the first row.
        frame: Left and width of the axes.
        label: What the number is, with its unit.
        text: Left of the AUROC.
        number: Right end of the numbers of images that a row rests on; None leaves them out.
    """
    axes = style.axes(drawing, left=frame[0], top=top, width=frame[1], height=PITCH * len(rows))
    alone = any(row.alone for row in rows)
    if number is not None:
        style.write(drawing, "n", left=number, top=top - 0.09, colour=style.FAINT, align="right")
    if alone:
        style.write(drawing, "AUROC alone", left=text, top=top - 0.09, colour=style.FAINT)
    middle = rows[0].quartiles
    if middle is not None:
        axes.axvline(middle[1], color=style.SLATE, linewidth=0.7, linestyle=DASHES, zorder=0)
    for place, row in enumerate(rows):
        name(drawing, row.name, place, left=left, top=top, bold=row.name == ALL)
        line = top + PITCH * (place + 0.5) + 0.045
        if number is not None:
            style.write(drawing, f"{row.count:,}", left=number, top=line, align="right")
        if row.quartiles is not None:
            first, second, third = row.quartiles
            axes.plot([first, third], [place, place], color=style.BLUE, linewidth=1.4)
            axes.plot(
                [second], [place], "o", color=style.BLUE, markersize=5, markeredgewidth=0, clip_on=False
            )
        if row.alone is not None:
            style.write(drawing, formatting.alone(row.alone), left=text, top=line)
        elif alone and place:
            style.write(drawing, "reference", left=text, top=line, colour=style.FAINT)
    known = [value for row in rows if row.quartiles for value in row.quartiles]
    low, high = min(known), max(known)
    room = 0.06 * (high - low) or 0.5
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=min(5, int(frame[1] / 0.25)), steps=[1, 2, 5, 10])
    axes.set_xlabel(label, labelpad=2)


def columns(number: int, *, most: int) -> int:
    """Return in how many columns things stand so that no row is nearly empty: 5 in 3 and 2, not in 4 and 1."""
    return -(-number // -(-number // most))


def bare(drawing: "Figure", *, left: float, top: float, width: float, height: float, rows: int) -> "Axes":
    """Add axes for rows of bars, without ticks and lines."""
    frame = style.axes(drawing, left=left, top=top, width=width, height=height)
    frame.set_ylim(rows - 0.5, -0.5)
    frame.set_xticks([])
    frame.set_yticks([])
    frame.spines["left"].set_visible(False)
    frame.spines["bottom"].set_visible(False)
    return frame


def name(drawing: "Figure", text: str, place: int, *, left: float, top: float, bold: bool = False) -> None:
    """Write the name of a row."""
    style.write(
        drawing, formatting.cut(text, 20), left=left, top=top + PITCH * (place + 0.5) + 0.045, bold=bold
    )


def legend(
    drawing: "Figure", colours: Mapping[str, str], *, left: float, top: float, marks: str = "●"
) -> None:
    """Write names in a line, each after a mark of its colour; of several marks one a name."""
    for place, (text, colour) in enumerate(colours.items()):
        style.write(drawing, marks[place % len(marks)], left=left, top=top, colour=colour)
        style.write(drawing, text, left=left + 0.13, top=top, colour=style.FAINT)
        left += 0.27 + 0.08 * len(text)


def beside(frame: "Axes", text: str, value: float, place: float) -> None:
    """Write to the right of a bar that ends at `value`."""
    frame.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center_baseline")


def above(frame: "Axes", text: str, place: float, value: float, *, line: int = 0) -> None:
    """Write above a bar that ends at `value`, in a line counted upward from 0."""
    offset = (0, 2 + 12 * line)
    frame.annotate(text, (place, value), offset, textcoords="offset points", ha="center", va="bottom")
