"""Several models' decisions and maps -> Figures with one panel a model: confusion matrices, maps of the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.comparison.compare import Exhibit
from hilum.report import formatting
from hilum.report.drawing import maps, overlays, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUPS = {
    "disagree": "They disagree",
    "right": "All are right",
    "wrong": "All are wrong",
}
"""Group of an exhibit -> its heading."""
SCALES = (
    "Each model has its own scale under its name, in logits of a whole image: compare its numbers, not colours.",
    "Warm: for what is explained; cold: against it. Thin line: half of the model's scale.",
)
SIDE = 480
"""Pixels of the longer side of a radiograph."""
COLUMNS = 4
"""Matrices beside each other."""


@dataclass(frozen=True)
class Matrix:
    """One model's confusion matrix of one finding, or of the classes.

    Attributes:
        counts: int (classes, classes), rows are the truth.
        headline: What it amounts to.
    """

    counts: NDArray[np.integer]
    headline: str = ""


@style.styled
def confusion(
    matrices: Sequence[Matrix], names: Sequence[str], classes: Sequence[str], *, title: str, subtitle: str
) -> "Figure":
    """Draw one matrix a model: right calls in the model's colour, wrong ones grey, with per cent of the row.

    Args:
        matrices: One a model.
        names: Of the models.
        classes: Names of rows and columns.
        title: The finding of the figure.
        subtitle: What it rests on.
    """
    slanted = len(classes) > 2
    rows = -(-len(matrices) // (3 if slanted else COLUMNS))
    columns = -(-len(matrices) // rows)
    left, gap, top, above = (1.78 if slanted else 0.55), 0.22, 0.5, 0.42
    below = 1.15 if slanted else 0.12
    side = min(2.1, (style.FULL - left - 0.08 - gap * (columns - 1)) / columns)
    pitch = above + side
    drawing = style.figure(style.FULL, top + rows * (pitch + 0.12) + below + 0.2)
    style.heading(drawing, title, subtitle)
    for place, (matrix, name) in enumerate(zip(matrices, names, strict=True)):
        row, column = divmod(place, columns)
        start, upper = left + column * (side + gap), top + row * (pitch + 0.12)
        letters = int((side - 0.32) / overlays.LETTER)
        overlays.entry(drawing, formatting.cut(name, letters), place, left=start, top=upper + 0.16, bold=True)
        style.write(drawing, matrix.headline, left=start, top=upper + 0.33, colour=style.FAINT)
        frame = style.axes(drawing, left=start, top=upper + above, width=side, height=side)
        _draw_matrix(frame, matrix, overlays.LOOKS[place][0])
        lowest = place + columns >= len(matrices)
        _name_classes(frame, classes, across=lowest, down=column == 0, slanted=slanted)
    foot = top + rows * (pitch + 0.12) + below
    style.write(
        drawing, "Called", left=left + (columns * (side + gap) - gap) / 2, top=foot + 0.05, align="center"
    )
    centre = 1 - (top + rows * pitch / 2) / drawing.get_size_inches()[1]
    drawing.text(0.11 / style.FULL, centre, "Truth", rotation=90, ha="center", va="center")
    return drawing


@style.styled
def confusions(
    matrices: Sequence[Sequence[Matrix]],
    names: Sequence[str],
    findings: Sequence[str],
    *,
    title: str,
    subtitle: str,
) -> "Figure":
    """Draw the 2 x 2 matrices of many findings as a table: one row a finding, one column a model.

    Args:
        matrices: By finding, then by model.
        names: Of the models.
        findings: Of the rows.
        title: The finding of the figure.
        subtitle: What it rests on.
    """
    left, gap, height, apart = 1.75, 0.12, 0.42, 0.13
    top = overlays.key_height(names) + 0.82
    width = min(1.5, (style.FULL - left - 0.08 - gap * (len(names) - 1)) / len(names))
    drawing = style.figure(style.FULL, top + (height + apart) * len(findings) + 0.3)
    style.heading(drawing, title, subtitle)
    overlays.key(drawing, names, top=0.56)
    for place in range(len(names)):
        start = left + place * (width + gap)
        overlays.entry(drawing, "", place, left=start + width / 2 - 0.12, top=top - 0.12)
        for half, word in enumerate("−+"):
            middle = start + width * (half + 0.5) / 2
            style.write(drawing, word, left=middle, top=top - 0.06, colour=style.FAINT, align="center")
    for row, finding in enumerate(findings):
        upper = top + row * (height + apart)
        style.write(drawing, formatting.cut(finding, 21), left=style.MARGIN, top=upper + height / 2 + 0.045)
        for place, matrix in enumerate(matrices[row]):
            start = left + place * (width + gap)
            frame = style.axes(drawing, left=start, top=upper, width=width, height=height)
            _draw_matrix(frame, matrix, overlays.LOOKS[place][0], small=True)
    foot = top + (height + apart) * len(findings) + 0.1
    style.write(
        drawing, "Columns: called absent (−) or present (+). Lines: truth, absent above present.", left=left, top=foot,
        colour=style.FAINT,
    )  # fmt: skip
    return drawing


@style.styled
def explained(exhibits: Sequence[Exhibit], names: Sequence[str], *, title: str) -> "Figure":
    """Draw images, one a row, each once plain and then under the map of every model, each model on its own scale.

    Args:
        exhibits: In the order in which they are shown.
        names: Of the models.
        title: What they have in common.
    """
    limits = limits_of(exhibits)
    columns = len(names) + 1
    gap, above, below = 0.08, 0.22, 0.36
    width = max(style.FULL, min(2.2, 11 / columns) * columns)
    side = min(2.2, (width - 2 * style.MARGIN - gap * (columns - 1)) / columns)
    heights = [side * min(1.25, one.cases[0].grey.shape[0] / one.cases[0].grey.shape[1]) for one in exhibits]
    heads = sum(i == 0 or exhibits[i - 1].group != one.group for i, one in enumerate(exhibits))
    head = 0.3
    top = 1.46
    drawing = style.figure(width, top + sum(heights) + (above + below) * len(exhibits) + head * heads + 0.1)
    style.heading(
        drawing,
        title,
        "Colour: the calibrated logit if all of the image were like a place. Research use only.",
    )
    grids = dict.fromkeys(
        f"{rows} × {columns}" for rows, columns in (case.places for case in exhibits[0].cases)
    )
    scales, signs = SCALES
    for number, line in enumerate((scales, f"{signs} {formatting.listed([*grids])} places.")):
        style.write(drawing, line, left=style.MARGIN, top=0.53 + 0.17 * number, colour=style.FAINT)
    lefts = [style.MARGIN + number * (side + gap) for number in range(columns)]
    style.write(drawing, "Radiograph", left=lefts[0], top=1.0, bold=True)
    for place, name in enumerate(names):
        letters = int((side - 0.32) / overlays.LETTER)
        overlays.entry(
            drawing, formatting.cut(name, letters), place, left=lefts[place + 1], top=1.0, bold=True
        )
        maps.draw_ramp(
            drawing, limits[place], left=lefts[place + 1] + 0.02, top=1.09, width=side - 0.04, halves=side > 2
        )
    for number, (one, height) in enumerate(zip(exhibits, heights, strict=True)):
        if number == 0 or exhibits[number - 1].group != one.group:
            style.write(
                drawing, GROUPS[one.group], left=style.MARGIN, top=top + 0.18, bold=True, size=style.LARGE
            )
            top += head
        style.write(
            drawing,
            formatting.cut(f"{truth(one)}; {one.image}", int(width / 0.07)),
            left=style.MARGIN,
            top=top + 0.13,
        )
        top += above
        shown = [
            maps.views(case, limit=limit, side=SIDE) for case, limit in zip(one.cases, limits, strict=True)
        ]
        pictures = [shown[0].radiograph, *(view.overlay for view in shown)]
        across = min(side, height * one.cases[0].grey.shape[1] / one.cases[0].grey.shape[0])
        for left, picture in zip(lefts, pictures, strict=True):
            frame = style.axes(drawing, left=left, top=top, width=across, height=height)
            frame.imshow(picture, aspect="equal", interpolation="antialiased")
            frame.set_axis_off()
        for place, left in enumerate(lefts[1:]):
            style.write(
                drawing, call(one, place, letters=int(side / 0.068)), left=left, top=top + height + 0.15
            )
            style.write(
                drawing, verdict(one, place, letters=int(side / 0.08)), left=left, top=top + height + 0.3,
                bold=not one.right[place], colour=style.FAINT if one.right[place] else style.INK,
            )  # fmt: skip
        top += height + below
    return drawing


@style.styled
def scale(limit: float) -> "Figure":
    """Draw one model's scale alone, for a page that lays out the radiographs itself."""
    drawing = style.figure(2.0, 0.34)
    maps.draw_ramp(drawing, limit, left=0.03, top=0.02, width=1.94, halves=False)
    return drawing


def limits_of(exhibits: Sequence[Exhibit]) -> tuple[float, ...]:
    """Where the scale of each model's maps ends, in logits of a whole image, the same for all of its maps.

    On one scale for all models the maps of the least confident one would look empty.
    """
    # None below: these pictures do not say of a map that it holds hardly any evidence.
    limits = map(maps.scale_limit, zip(*(one.cases for one in exhibits), strict=True))
    return tuple(max(limit, maps.FAINT) for limit in limits)


def fineness(exhibits: Sequence[Exhibit], place: int) -> str:
    """Say how many places a model's maps have, and by what that and its temperature scale them."""
    rows, columns = exhibits[0].cases[place].places
    least, most = (choose(one.factors[place] for one in exhibits) for choose in (min, max))
    least_told, most_told = formatting.small(least), formatting.small(most)
    factor = least_told if least_told == most_told else f"{least_told} to {most_told}"
    return f"{rows} × {columns} places, {factor} times those of its own report"


def truth(one: Exhibit) -> str:
    """What is true of an image, in words."""
    case = one.cases[0]
    return f"Truth: {case.truth}" if case.truth else f"{one.finding} {formatting.truth(case.label)}"


def call(one: Exhibit, place: int, *, letters: int = 80) -> str:
    """What a model makes of an image, in words that fit."""
    probability, called = formatting.probability(one.cases[place].probability), one.called[place]
    told = f"{probability}, called {called}"
    return told if len(told) <= letters else formatting.cut(f"{probability} {called}", letters)


def verdict(one: Exhibit, place: int, *, letters: int = 80) -> str:
    """Whether a model is right of an image, and where there is room from which probability it calls a finding."""
    limit = one.cases[place].threshold
    said = "right" if one.right[place] else "wrong"
    told = said if limit is None else f"{said}; present from {formatting.probability(limit)}"
    return told if len(told) <= letters else said


def _draw_matrix(frame: "Axes", matrix: Matrix, colour: str, *, small: bool = False) -> None:
    from matplotlib.patches import Rectangle

    counts = matrix.counts
    size = len(counts)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    for row in range(size):
        for column in range(size):
            share = float(shares[row, column])
            shade = colour if row == column else style.SLATE
            frame.add_patch(
                Rectangle((column, row), 1, 1, facecolor=shade, alpha=0.06 + 0.44 * share, linewidth=0)
            )
            told = not small and bool(totals[row, 0]) and size <= 4
            large = size == 2 and not small
            frame.text(
                column + 0.5, row + (0.42 if told else 0.5), f"{counts[row, column]:,}", ha="center", va="center",
                fontweight="normal" if small else "bold", fontsize=12.0 if large else style.SMALL,
            )  # fmt: skip
            if told:
                frame.text(column + 0.5, row + 0.7, f"{100 * share:.0f} %", ha="center", va="center")
    style.matrix_cells(frame, size, gap=1.5)


def _name_classes(frame: "Axes", classes: Sequence[str], *, across: bool, down: bool, slanted: bool) -> None:
    size = len(classes)
    for place, name in enumerate(formatting.cut(name, 20) for name in classes):
        if across:
            frame.annotate(
                name, (place + 0.5, size), (0, -4), textcoords="offset points", va="top",
                ha="right" if slanted else "center", rotation=40 if slanted else 0,
                rotation_mode="anchor" if slanted else "default",
            )  # fmt: skip
        if down:
            frame.annotate(
                name, (0, place + 0.5), (-4, 0), textcoords="offset points", va="center", ha="right",
                rotation=0 if slanted else 90,
            )  # fmt: skip
