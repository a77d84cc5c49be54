"""Several models' curves, figures and epochs -> Figures that lay them over each other, one colour a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.report import formatting
from hilum.report.drawing import style
from hilum.report.drawing.forest import ForestLayout, ForestRow, Mark, forest
from hilum.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

LOOKS = tuple(
    zip(
        (style.BLUE, style.VERMILLION, style.GREEN, style.PURPLE, style.ORANGE, style.SKY, style.INK),
        "osD^vPX",
        strict=True,
    )
)
"""Colour and marker of each model by its place: the same in every figure of a comparison."""
LETTER = 0.078
"""Inches that a letter takes at most on average."""
LONGEST = 26
"""Letters of a model's name."""
DASHES = (0, (4, 3))
DASH = 3.0
"""Length of a dash in widths of its line."""
CLOSE = 0.03
"""Share of a frame's height: curves of epochs nearer than this, two widths of a line, hide each other."""
BANDS = 2
"""With more models than this, bands hide each other."""


@dataclass(frozen=True)
class Line:
    """One model's curve.

    Attributes:
        x: Abscissa, (points,), rising; empty where the curve cannot be drawn.
        y: Ordinate, (points,).
        band: Abscissa, lower and upper end, or None.
        point: Where the decisions stand, or None.
        text: What the curve amounts to.
    """

    x: Floats
    y: Floats
    band: tuple[Floats, Floats, Floats] | None
    point: tuple[float, float] | None
    text: str


@dataclass(frozen=True)
class Overlay:
    """One finding's curves: a line a model; `prevalence` is the level to beat on a precision-recall plot."""

    name: str
    lines: tuple[Line, ...]
    prevalence: float | None = None


@style.styled
def curves(
    panels: Sequence[Overlay],
    names: Sequence[str],
    *,
    title: str,
    subtitle: str,
    labels: tuple[str, str],
) -> "Figure":
    """Draw ROC or precision-recall curves of all models in one frame, or in one frame a finding.

    Args:
        panels: One a finding.
        names: Of the models.
        title: The finding of the figure.
        subtitle: What it rests on.
        labels: Of abscissa and ordinate.
    """
    if len(panels) == 1:
        side, top = 3.4, 0.56
        drawing = style.figure(style.FULL, top + side + 0.5)
        style.heading(drawing, title, subtitle)
        frame = style.axes(drawing, left=0.6, top=top, width=side, height=side)
        _draw(frame, panels[0], large=True)
        frame.set_xlabel(labels[0], labelpad=2)
        frame.set_ylabel(labels[1], labelpad=3)
        pitch = min(0.48, (side - 0.1) / len(names))
        for place, (name, line) in enumerate(zip(names, panels[0].lines, strict=True)):
            middle = top + 0.2 + pitch * place
            entry(drawing, name, place, left=4.3, top=middle, bold=True)
            style.write(drawing, line.text, left=4.62, top=middle + 0.17)
        return drawing
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    left, gap, above, below = 0.55, 0.4, 0.25, 0.26
    top = key_height(names) + 0.5
    side = (style.FULL - left - 0.14 - (columns - 1) * gap) / columns
    pitch = above + side + below
    drawing = style.figure(style.FULL, top + rows * pitch + 0.28)
    style.heading(drawing, title, subtitle)
    key(drawing, names, top=0.56)
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        start, upper = left + column * (side + gap), top + row * pitch
        style.write(drawing, formatting.cut(panel.name, 28), left=start, top=upper + 0.14, bold=True)
        frame = style.axes(drawing, left=start, top=upper + above, width=side, height=side)
        _draw(frame, panel, large=False)
    _name_axes(drawing, labels, left=left, top=top, height=rows * pitch)
    return drawing


def model_forest(
    rows: Sequence[tuple[str, Sequence[Estimate | None]]],
    names: Sequence[str],
    *,
    title: str,
    subtitle: str,
    axis: str,
    zero: bool = False,
) -> "Figure":
    """Draw estimates with their intervals, a row a metric or finding, the models of each below one another.

    Args:
        rows: Name and an estimate a model, None for a model without a place in it, from top to bottom.
        names: Of the models.
        title: The finding of the figure.
        subtitle: What it rests on.
        axis: What the abscissa is.
        zero: Whether these are differences: a line stands at 0, and the axis ends where the intervals do.
    """
    shown = [place for place in range(len(names)) if any(row[place] is not None for _, row in rows)]
    told = len(rows) * len(shown) <= 36
    pitch, apart = (0.175 if told else 0.105) * len(shown), 0.13
    offsets = pitch / (pitch + apart) * ((np.arange(len(shown)) + 0.5) / len(shown) - 0.5)
    drawn = []
    for name, estimates in rows:
        marks = []
        for place, offset in zip(shown, offsets.tolist(), strict=True):
            if (estimate := estimates[place]) is not None:
                text = formatting.estimate(estimate.to_dict()) if told else ""
                marks.append(Mark(estimate, *LOOKS[place], offset=offset, text=text))
        drawn.append(ForestRow(name, tuple(marks)))
    layout = ForestLayout(
        pitch=pitch + apart,
        top=0.62 + key_height([names[place] for place in shown]),
        left=1.75,
        width=3.35 if told else 5.2,
        letters=22,
        separated=True,
    )
    drawing = forest(
        drawn,
        layout,
        title=title,
        subtitle=subtitle,
        axis=axis,
        scale=lambda frame, ends: _scale(frame, ends, zero=zero),
        chance=None,
    )
    with style.settings():
        key(drawing, names, top=0.56, only=shown)
    return drawing


@style.styled
def epochs(
    panels: Sequence[tuple[str, Sequence[tuple[Floats, Floats] | None]]],
    best: Sequence[int],
    names: Sequence[str],
    *,
    title: str,
    subtitle: str,
) -> "Figure":
    """Draw what each epoch did to each model, a dot at the epoch whose weights were kept.

    Args:
        panels: Name of a figure, and epochs and values of each model, (epochs,), or None.
        best: The epoch that was kept, a model.
        names: Of the models.
        title: The finding of the figure.
        subtitle: What it rests on.
    """
    from matplotlib.ticker import MaxNLocator

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    left, gap, side = 0.54, 0.5, 1.7
    top = key_height(names) + 0.56
    width = (style.FULL - left - 0.1 - (columns - 1) * gap) / columns
    pitch = side + 0.72
    drawing = style.figure(style.FULL, top + rows * pitch)
    style.heading(drawing, title, subtitle)
    key(drawing, names, top=0.56)
    for place, (label, lines) in enumerate(panels):
        dashes = turns(lines, close=True)
        kept = [_kept(line, epoch) for line, epoch in zip(lines, best, strict=True)]
        height = _height(lines)
        row, column = divmod(place, columns)
        start, upper = left + column * (width + gap), top + row * pitch
        style.write(drawing, label, left=start, top=upper + 0.1, bold=True)
        frame = style.axes(drawing, left=start, top=upper + 0.22, width=width, height=side)
        for number, line in enumerate(lines):
            if line is None:
                continue
            colour, marker = LOOKS[number]
            frame.plot(
                *line,
                color=colour,
                linewidth=1.4,
                linestyle=dashes[number],
                dash_capstyle="butt",
                zorder=2 if dashes[number] == "-" else 2.5,
                marker="." if len(line[0]) < 3 else "",
            )
            if (point := kept[number]) is None:
                continue
            scale = max(float(np.ptp(line[0])), 1.0), height
            size = 5.5 + _larger(point, kept[number + 1 :], scale, near=0.06)
            frame.plot(
                *point, marker, color=colour, markersize=size, markeredgewidth=0.6, markeredgecolor=style.PAPER,
                zorder=3, clip_on=False,
            )  # fmt: skip
        frame.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        if "loss" not in label:
            _widen(frame)
        frame.yaxis.set_major_locator(MaxNLocator(5))
        frame.yaxis.set_major_formatter(lambda value, _: f"{value:.6g}".replace("-", "−"))
        frame.grid(axis="y", color=style.HAIR, linewidth=0.6)
        frame.set_axisbelow(True)
        frame.set_xlabel("Epoch", labelpad=2)
    return drawing


def turns(lines: Sequence[tuple[Floats, Floats] | None], *, close: bool = False) -> list[Any]:
    """Return a line style a curve: where several coincide the longest is whole and the others are dashes over it.

    Args:
        lines: Of one frame.
        close: Whether curves that hide each other over half of their length are taken for coinciding ones, too.
    """
    styles: list[Any] = []
    height = _height(lines)
    for number, line in enumerate(lines):
        equal = [
            place
            for place, other in enumerate(lines)
            if line is not None and (_same(line, other) or (close and _close(line, other, height)))
        ]
        equal.sort(key=lambda place: -len((lines[place] or ((),))[0]))
        turn = equal.index(number) if equal else 0
        styles.append((-DASH * turn, (DASH, DASH * (len(equal) - 1))) if turn else "-")
    return styles


def _same(one: tuple[Floats, Floats] | None, other: tuple[Floats, Floats] | None) -> bool:
    """Whether two curves cannot be told apart on paper as far as both go: a thousandth of their height apart."""
    if one is None or other is None:
        return False
    length = min(len(one[0]), len(other[0]))
    x, y = (np.stack([one[place][:length], other[place][:length]]) for place in (0, 1))
    known = np.isfinite(y).all(axis=0)
    if not known.any() or not np.array_equal(np.isfinite(y[0]), np.isfinite(y[1])):
        return False
    near = 0.001 * max(float(np.ptp(y[0, known])), 1e-12)
    return bool(np.abs(x[0] - x[1]).max() <= 1e-6 and np.abs(y[0, known] - y[1, known]).max() <= near)


def _close(one: tuple[Floats, Floats], other: tuple[Floats, Floats] | None, height: float) -> bool:
    """Whether two curves over the same abscissas lie on each other at half of them or more."""
    if other is None:
        return False
    length = min(len(one[0]), len(other[0]))
    if not np.array_equal(one[0][:length], other[0][:length]):
        return False
    return bool(np.mean(np.abs(one[1][:length] - other[1][:length]) <= CLOSE * height) >= 0.5)


def _height(lines: Sequence[tuple[Floats, Floats] | None]) -> float:
    """From the lowest to the highest point of all curves."""
    known = np.concatenate(
        [line[1][np.isfinite(line[1])] for line in lines if line is not None] or [np.zeros(1)]
    )
    return max(float(np.ptp(known)), 1e-12) if len(known) else 1.0


def _kept(line: tuple[Floats, Floats] | None, epoch: int) -> tuple[float, float] | None:
    """The point of a curve at an epoch, or None."""
    if line is None:
        return None
    places = np.flatnonzero((line[0] == epoch) & np.isfinite(line[1]))
    return (float(line[0][places[0]]), float(line[1][places[0]])) if len(places) else None


def _larger(
    point: tuple[float, float],
    others: Sequence[tuple[float, float] | None],
    scale: tuple[float, float] = (1.0, 1.0),
    *,
    near: float,
) -> float:
    """Points that a marker grows by for each of those drawn after it that would hide it, so that each shows.

    Args:
        point: Where it stands.
        others: Where those drawn after it stand.
        scale: Width and height of the frame in the units of the points.
        near: Distance, in the frame's sides, from which on two are apart.
    """
    gaps = [
        np.hypot((point[0] - other[0]) / scale[0], (point[1] - other[1]) / scale[1])
        for other in others
        if other
    ]
    return 3.5 * sum(bool(gap < near) for gap in gaps)


def _widen(frame: "Axes") -> None:
    """Let the axis of a score end at round numbers, not closer than a hundredth: ripples would look like waves."""
    low, high = frame.dataLim.intervaly
    for step in (0.1, 0.05, 0.02, 0.01):
        start, end = step * np.floor(low / step + 1e-9), step * np.ceil(high / step - 1e-9)
        # The curves fill two thirds of the frame or more, where they can.
        if high - low >= (end - start) * 2 / 3:
            break
    frame.set_ylim(start, max(end, start + step))


def key(
    drawing: "Figure",
    names: Sequence[str],
    *,
    top: float,
    left: float = style.MARGIN,
    only: Sequence[int] | None = None,
) -> None:
    """Write the models' names beside their colour and marker, in as many lines as it takes."""
    chosen = range(len(names)) if only is None else only
    for line, members in enumerate(_lines([names[place] for place in chosen])):
        across = left
        for number in members:
            name = formatting.cut(names[chosen[number]], LONGEST)
            entry(drawing, name, chosen[number], left=across, top=top + 0.19 * line)
            across += _length(name)


def key_height(names: Sequence[str]) -> float:
    """Inches that `key` takes."""
    return 0.19 * len(_lines(names))


def entry(drawing: "Figure", name: str, place: int, *, left: float, top: float, bold: bool = False) -> None:
    """Write one model's name beside a line of its colour with its marker."""
    from matplotlib.lines import Line2D

    across, down = drawing.get_size_inches()
    colour, marker = LOOKS[place]
    middle = 1 - (top - 0.045) / down
    drawing.add_artist(
        Line2D(
            [left / across, (left + 0.12) / across, (left + 0.24) / across], [middle] * 3, color=colour,
            linewidth=1.8, marker=marker, markevery=[1], markersize=5, markeredgewidth=0,
        )
    )  # fmt: skip
    style.write(drawing, formatting.cut(name, LONGEST), left=left + 0.32, top=top, bold=bold)


def _lines(names: Sequence[str]) -> list[list[int]]:
    """Which names stand in each line of a key."""
    lines: list[list[int]] = [[]]
    used = 0.0
    for place, name in enumerate(names):
        length = _length(formatting.cut(name, LONGEST))
        if lines[-1] and used + length > style.FULL:
            lines.append([])
            used = 0.0
        lines[-1].append(place)
        used += length
    return lines


def _length(name: str) -> float:
    return 0.32 + LETTER * len(name) + 0.2


def _draw(frame: "Axes", panel: Overlay, *, large: bool) -> None:
    if panel.prevalence is None:
        frame.plot([0, 1], [0, 1], color=style.SLATE, linewidth=0.7, linestyle=DASHES)
    else:
        frame.axhline(panel.prevalence, color=style.SLATE, linewidth=0.7, linestyle=DASHES)
    dashes = turns([(line.x, line.y) if len(line.x) else None for line in panel.lines])
    for place, line in enumerate(panel.lines):
        colour, marker = LOOKS[place]
        if line.band is not None and len(panel.lines) <= BANDS:
            frame.fill_between(*line.band, color=colour, alpha=0.13, linewidth=0)
        drawn = "default" if panel.prevalence is None else "steps-pre"
        frame.plot(
            line.x, line.y, color=colour, linewidth=1.5 if large else 1.2, drawstyle=drawn,
            linestyle=dashes[place], dash_capstyle="butt", zorder=2 if dashes[place] == "-" else 2.5,
        )  # fmt: skip
        if line.point is not None:
            base, near = (7.0, 0.03) if large else (5.0, 0.04)
            size = base + _larger(line.point, [other.point for other in panel.lines[place + 1 :]], near=near)
            frame.plot(
                *line.point, marker, color=colour, markersize=size, markeredgewidth=0.8,
                markeredgecolor=style.PAPER, clip_on=False, zorder=4,
            )  # fmt: skip
    frame.set_xlim(0, 1)
    frame.set_ylim(0, 1)
    frame.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    frame.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])


def _scale(frame: "Axes", ends: Sequence[float], *, zero: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    if zero:
        frame.axvline(0, color=style.INK, linewidth=0.8, zorder=1)
        low, high = min([-0.005, *ends]), max([0.005, *ends])
        room = 0.06 * (high - low)
        frame.set_xlim(low - room, high + room)
        frame.xaxis.set_major_locator(MaxNLocator(5))
        frame.xaxis.set_major_formatter(lambda value, _: style.signed(round(value, 6)))
        return
    low = float(np.floor(min([0.9, *ends]) * 10 + 1e-9) / 10)
    frame.set_xlim(low - 0.01, 1.0)
    step = 0.1 if low >= 0.3 else 0.2
    ticks = np.arange(round(np.ceil(low / step - 1e-9)), round(1 / step) + 1) * step
    frame.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def _name_axes(drawing: "Figure", labels: tuple[str, str], *, left: float, top: float, height: float) -> None:
    """Name the axes that several frames share."""
    middle = left + (style.FULL - left) / 2
    style.write(drawing, labels[0], left=middle, top=top + height + 0.16, align="center")
    centre = 1 - (top + height / 2) / drawing.get_size_inches()[1]
    drawing.text(0.11 / style.FULL, centre, labels[1], rotation=90, ha="center", va="center")
