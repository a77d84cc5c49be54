"""Arrays -> Figures: curves, calibration, confusion, distributions; one finding large, many as multiples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hilum.report import formatting
from hilum.report.drawing import style
from hilum.report.drawing.label_placement import LabelSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.floating]

HISTOGRAM_BINS = 25
DASHES, DOTS = (0, (4, 3)), (0, (2, 2))
LOSSES: dict[str, dict[str, Any]] = {
    "training": {"color": style.SLATE, "linewidth": 1.4},
    "validation": {"color": style.BLUE, "linewidth": 1.4},
}
SCORES: dict[str, dict[str, Any]] = {
    "AUROC": {"color": style.BLUE, "linewidth": 1.6, "zorder": 3},
    "AP": {"color": style.PURPLE, "linewidth": 1.2, "zorder": 2.5},
    "F1": {"color": style.FAINT, "linewidth": 1.2},
}
"""How the lines of the learning curves look, by name."""


@dataclass(frozen=True)
class Panel:
    """What small multiples need to head a panel.

    Attributes:
        name: The finding.
        headline: What the panel amounts to, for example `0.972 (0.959-0.983)`, or why it is empty.
    """

    name: str
    headline: str

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return False


PanelT = TypeVar("PanelT", bound=Panel)


@dataclass(frozen=True)
class CurvePanel(Panel):
    """One finding's ROC or precision-recall curve.

    Attributes:
        x: Abscissa of the points, (points,), rising; empty where the curve cannot be drawn.
        y: Ordinate, (points,).
        band: Abscissa, lower and upper end of the interval, (places,) each, or None.
        point: Where the threshold stands on the curve, or None.
        point_label: What stands beside the point, one string a line; shown where there is space.
        reference: Ordinate of the level to beat on a precision-recall plot: the prevalence.
    """

    x: Floats
    y: Floats
    band: tuple[Floats, Floats, Floats] | None = None
    point: tuple[float, float] | None = None
    point_label: tuple[str, ...] = ()
    reference: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not len(self.x)


@dataclass(frozen=True)
class ReliabilityPanel(Panel):
    """One finding's calibration in bins of probability.

    Attributes:
        predicted: Mean probability a bin, (bins,).
        observed: Share with the finding a bin, (bins,).
        low: Lower end of the interval of `observed`, (bins,).
        high: Upper end, (bins,).
        probabilities: All probabilities, (images,), for the histogram.
    """

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    probabilities: Floats

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not len(self.predicted)


@dataclass(frozen=True)
class DistributionPanel(Panel):
    """One finding's probabilities by what is true.

    Attributes:
        present: Probabilities of images with the finding, (positives,).
        absent: Probabilities of images without it, (negatives,).
        threshold: From which it is called present, or None.
    """

    present: Floats
    absent: Floats
    threshold: float | None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not len(self.present) and not len(self.absent)


@dataclass(frozen=True)
class ConfusionPanel(Panel):
    """A confusion matrix.

    Attributes:
        classes: Names, in the order of rows and columns.
        counts: int (classes, classes), rows are the truth.
    """

    classes: tuple[str, ...]
    counts: NDArray[np.integer]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.counts.any()


@style.styled
def roc(curves: Sequence[CurvePanel], *, title: str, subtitle: str = "") -> "Figure":
    """Draw sensitivity against 1 - specificity, with band, operating point and the line of chance."""

    def draw(frame: "Axes", curve: CurvePanel, large: bool) -> None:
        frame.plot([0, 1], [0, 1], color=style.SLATE, linewidth=0.7, linestyle=DASHES)
        space = _draw_curve(frame, curve, large=large)
        space.line([0, 1], [0, 1])
        if large:
            space.write("dashed: chance", near=(0.98, 0.0), colour=style.FAINT)
            _label_point(space, curve)

    return _figure(curves, draw, title=title, subtitle=subtitle, labels=("1 − specificity", "Sensitivity"))


@style.styled
def precision_recall(curves: Sequence[CurvePanel], *, title: str, subtitle: str = "") -> "Figure":
    """Draw precision (PPV) against recall (sensitivity), with operating point and prevalence."""

    def draw(frame: "Axes", curve: CurvePanel, large: bool) -> None:
        frame.axhline(curve.reference, color=style.SLATE, linewidth=0.7, linestyle=DASHES)
        space = _draw_curve(frame, curve, large=large, steps=True)
        space.line([0, 1], [curve.reference, curve.reference])
        if large:
            _label_point(space, curve)
            words = f"dashed: prevalence {curve.reference:.3f}"
            space.write(words, near=(0.0, curve.reference), colour=style.FAINT)

    return _figure(
        curves, draw, title=title, subtitle=subtitle, labels=("Recall (sensitivity)", "Precision (PPV)")
    )


@style.styled
def reliability(panels: Sequence[ReliabilityPanel], *, title: str, subtitle: str = "") -> "Figure":
    """Draw the observed share against the mean probability a bin, with intervals and a histogram below."""

    def draw(frame: "Axes", panel: ReliabilityPanel, large: bool) -> None:
        limit = _reliability_limit(panel)
        frame.plot([0, limit], [0, limit], color=style.SLATE, linewidth=0.7, linestyle=DASHES)
        if large:
            frame.text(
                0.74 * limit,
                0.71 * limit,
                "perfect",
                rotation=45,
                ha="center",
                va="center",
                color=style.FAINT,
            )
        frame.vlines(panel.predicted, panel.low, panel.high, color=style.BLUE, linewidth=1)
        frame.plot(panel.predicted, panel.observed, color=style.BLUE, linewidth=1, alpha=0.5)
        size = 5 if large else 3
        frame.plot(panel.predicted, panel.observed, "o", color=style.BLUE, markersize=size, markeredgewidth=0)
        _set_square(frame, limit)
        # The histogram stands in the frame's foot: its height is a share of the frame.
        counts, edges = np.histogram(panel.probabilities, bins=HISTOGRAM_BINS, range=(0, limit))
        if counts.any():
            heights = counts / counts.max() * 0.14 * limit
            frame.bar(
                edges[:-1], heights, np.diff(edges), align="edge", color=style.SLATE, alpha=0.35, linewidth=0
            )

    return _figure(
        panels, draw, title=title, subtitle=subtitle, labels=("Predicted probability", "Observed share")
    )


@style.styled
def distributions(panels: Sequence[DistributionPanel], *, title: str, subtitle: str = "") -> "Figure":
    """Draw histograms of probability, with the finding upward and without it downward, each in per cent."""

    def draw(frame: "Axes", panel: DistributionPanel, large: bool) -> None:
        top = 0.0
        for values, sign, colour in ((panel.present, 1, style.VERMILLION), (panel.absent, -1, style.SLATE)):
            counts, edges = np.histogram(values, bins=HISTOGRAM_BINS, range=(0, 1))
            share = 100 * counts / max(1, len(values))
            top = max(top, float(share.max()))
            frame.bar(
                edges[:-1], sign * share, np.diff(edges) * 0.92, align="edge", color=colour, linewidth=0
            )
        top = max(top, 1.0) * (1.3 if large else 1.1)
        frame.axhline(0, color=style.FAINT, linewidth=0.7)
        if panel.threshold is not None:
            frame.axvline(panel.threshold, color=style.INK, linewidth=0.9, linestyle=DOTS)
        frame.set_xlim(0, 1)
        frame.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        frame.set_ylim(-top, top)
        step = next(size for size in (1, 2, 5, 10, 20, 25, 50, 100) if 2.2 * size >= top)
        ticks = np.arange(-(top // step), top // step + 1) * step
        frame.set_yticks(ticks, [f"{abs(tick):g}" for tick in ticks])
        if large:
            right = panel.threshold is None or panel.threshold <= 0.6
            place, align = (0.98, "right") if right else (0.02, "left")
            frame.text(
                place,
                0.97 * top,
                f"{len(panel.present):,} present ↑",
                ha=align,
                va="top",
                color=style.VERMILLION,
            )
            frame.text(
                place,
                -0.97 * top,
                f"{len(panel.absent):,} absent ↓",
                ha=align,
                va="bottom",
                color=style.FAINT,
            )

    return _figure(
        panels,
        draw,
        title=title,
        subtitle=subtitle,
        labels=("Predicted probability", "Per cent of the images"),
    )


@style.styled
def confusion(panels: Sequence[ConfusionPanel], *, title: str, subtitle: str = "") -> "Figure":
    """Draw confusion matrices: counts with per cent of the row, right calls blue and wrong ones orange."""
    if len(panels) == 1:
        panel = panels[0]
        slanted = _is_slanted(panel)
        side = min(max(2.5, 0.7 * len(panel.classes)), 5.0)
        left, below = (2.0, 1.45) if slanted else (0.85, 0.45)
        drawing = style.figure(left + side + 0.1, 0.55 + side + below)
        style.heading(drawing, title, subtitle)
        frame = style.axes(drawing, left=left, top=0.55, width=side, height=side)
        _draw_confusion(frame, panel, len(panel.classes) <= 4)
        frame.set_xlabel("Called", labelpad=82 if slanted else 18)
        frame.set_ylabel("Truth", labelpad=112 if slanted else 18)
        return drawing

    def draw(frame: "Axes", panel: ConfusionPanel, large: bool) -> None:
        _draw_confusion(frame, panel, large)

    return _figure(panels, draw, title=title, subtitle=subtitle, labels=("Called", "Truth"))


@style.styled
def learning_curves(
    epochs: NDArray[np.integer],
    *,
    losses: Mapping[str, Floats],
    scores: Mapping[str, Floats],
    learning_rate: Floats | None = None,
    best_epoch: int | None,
    title: str,
    subtitle: str = "",
) -> "Figure":
    """Draw what each epoch did: losses, validation scores and, where it moved, the learning rate in a strip below.

    Args:
        epochs: (epochs,), rising.
        losses: Name of `LOSSES` -> (epochs,), NaN where it was not measured.
        scores: Name of `SCORES` -> a validation figure in [0, 1], (epochs,), NaN where there is none.
        learning_rate: (epochs,), or None.
        best_epoch: The epoch whose weights were kept.
        title: The finding of the figure.
        subtitle: What it rests on.
    """
    moving = learning_rate is not None and len(set(learning_rate[np.isfinite(learning_rate)])) > 1
    top, height, strip = 0.72, 1.72, 0.36
    drawing = style.figure(style.FULL, top + height + (strip if moving else 0) + 0.42)
    style.heading(drawing, title, subtitle)
    panels = [("Loss", losses, LOSSES, _scale_losses), ("Validation score", scores, SCORES, _scale_scores)]
    panels = [panel for panel in panels if any(np.isfinite(values).any() for values in panel[1].values())]
    for column, (label, lines, looks, scale) in enumerate(panels):
        known = {name: values for name, values in lines.items() if np.isfinite(values).any()}
        # Names of lines stand to the right of each panel.
        # LabelSpace for ticks of four digits, `0.675`, and the axis' name.
        place = {"left": 0.72 + column * (style.FULL / 2 + 0.12), "width": 2.0 if len(panels) > 1 else 5.4}
        frame = foot = style.axes(drawing, top=top, height=height, **place)
        for name, values in known.items():
            _draw_line(frame, epochs, values, best_epoch, **looks[name])
        scale(frame, np.concatenate(list(known.values())))
        _label_ends(frame, known, {name: str(look["color"]) for name, look in looks.items()})
        frame.set_ylabel(label)
        if best_epoch is not None:
            frame.axvline(best_epoch, color=style.INK, linewidth=0.8, linestyle=DOTS, zorder=0)
            _write_beside(frame, f"kept: {best_epoch}", (best_epoch, 1), (0, 6), across="data", ha="center")
        _set_whole_ticks(frame, epochs)
        if moving:
            assert learning_rate is not None
            frame.spines["bottom"].set_visible(False)
            frame.tick_params(bottom=False, labelbottom=False)
            foot = style.axes(drawing, top=top + height + 0.08, height=strip - 0.08, **place)
            _draw_learning_rate(foot, epochs, learning_rate, named=column == 0)
            _set_whole_ticks(foot, epochs)
        foot.set_xlabel("Epoch", labelpad=2)
    return drawing


def _figure(
    panels: Sequence[PanelT],
    draw: Callable[["Axes", PanelT, bool], None],
    *,
    title: str,
    subtitle: str,
    labels: tuple[str, str],
) -> "Figure":
    """Draw one panel large with its axis labels, or many small under one pair of labels."""
    if len(panels) == 1:
        drawing = style.figure(style.HALF, 3.72)
        style.heading(drawing, title, subtitle)
        frame = style.axes(drawing, left=0.6, top=0.53, width=2.72, height=2.72)
        if panels[0].empty:
            frame.set_axis_off()
            frame.text(
                0.5, 0.5, f"not estimable: {panels[0].headline}", ha="center", va="center", color=style.FAINT
            )
            return drawing
        draw(frame, panels[0], True)
        frame.set_xlabel(labels[0], labelpad=2)
        frame.set_ylabel(labels[1], labelpad=3)
        return drawing
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    left, top, gap = 0.55, 0.56, 0.4
    side = (style.FULL - left - 0.14 - (columns - 1) * gap) / columns
    above, below = 0.42, 0.26
    pitch = above + side + below
    drawing = style.figure(style.FULL, top + rows * pitch + 0.28)
    style.heading(drawing, title, subtitle)
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        start, upper = left + column * (side + gap), top + row * pitch
        style.write(drawing, formatting.cut(panel.name, 20), left=start, top=upper + 0.18, bold=True)
        style.write(drawing, panel.headline, left=start, top=upper + 0.34, colour=style.FAINT)
        frame = style.axes(drawing, left=start, top=upper + above, width=side, height=side)
        if panel.empty:
            frame.set_axis_off()
            frame.text(0.5, 0.5, "not estimable", ha="center", va="center", color=style.FAINT)
        else:
            draw(frame, panel, False)
    middle = left + (style.FULL - left) / 2
    style.write(drawing, labels[0], left=middle, top=top + rows * pitch + 0.16, align="center")
    height = drawing.get_size_inches()[1]
    centre = 1 - (top + rows * pitch / 2) / height
    drawing.text(0.11 / style.FULL, centre, labels[1], rotation=90, ha="center", va="center")
    return drawing


def _draw_curve(frame: "Axes", curve: CurvePanel, *, large: bool, steps: bool = False) -> LabelSpace:
    """Draw a curve with its band and its operating point; return the space that they leave free."""
    _set_square(frame, 1.0)
    space = LabelSpace(frame)
    if curve.band is not None:
        frame.fill_between(*curve.band, color=style.BLUE, alpha=0.16, linewidth=0)
        space.area(*curve.band)
    look: dict[str, Any] = {"drawstyle": "steps-pre"} if steps else {}
    frame.plot(curve.x, curve.y, color=style.BLUE, linewidth=1.6 if large else 1.2, **look)
    space.line(curve.x, curve.y, steps=steps)
    if curve.point is not None:
        size = 6 if large else 4
        frame.plot(*curve.point, "o", color=style.INK, markersize=size, markeredgewidth=0, clip_on=False)
        space.spot(*curve.point)
    return space


def _label_point(space: LabelSpace, curve: CurvePanel) -> None:
    """Write what the operating point amounts to, below it if that is free."""
    if curve.point is not None and curve.point_label:
        near = (curve.point[0] + (0.2 if curve.point[0] < 0.5 else -0.2), curve.point[1] - 0.15)
        space.write(*curve.point_label, near=near, colour=style.INK)


def _draw_confusion(frame: "Axes", panel: ConfusionPanel, large: bool) -> None:
    from matplotlib.patches import Rectangle

    size = len(panel.classes)
    totals = panel.counts.sum(axis=1, keepdims=True)
    shares = panel.counts / np.maximum(totals, 1)
    for truth in range(size):
        for called in range(size):
            share = float(shares[truth, called])
            colour = style.BLUE if truth == called else style.ORANGE
            cell = Rectangle((called, truth), 1, 1, facecolor=colour, alpha=0.06 + 0.5 * share, linewidth=0)
            frame.add_patch(cell)
            count = f"{panel.counts[truth, called]:,}"
            shown = bool(totals[truth, 0]) and size <= 5
            points, place = (14.0 if large and size <= 3 else style.SMALL), truth + (0.46 if shown else 0.5)
            frame.text(
                called + 0.5, place, count, ha="center", va="center", fontweight="bold", fontsize=points
            )
            if shown:
                words = f"{100 * share:.1f} %" if large else f"{100 * share:.0f} %"
                frame.text(called + 0.5, truth + 0.74, words, ha="center", va="center")
    frame.set_xlim(0, size)
    frame.set_ylim(size, 0)
    frame.set_xticks([])
    frame.set_yticks([])
    slanted = _is_slanted(panel)
    for place, name in enumerate(formatting.cut(name, 20) for name in panel.classes):
        frame.annotate(
            name,
            (place + 0.5, size),
            (0, -4),
            textcoords="offset points",
            ha="right" if slanted else "center",
            va="top",
            rotation=40 if slanted else 0,
            rotation_mode="anchor" if slanted else "default",
        )
        frame.annotate(
            name,
            (0, place + 0.5),
            (-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            rotation=0 if slanted else 90,
        )
    frame.spines[:].set_visible(False)
    for line in range(1, size):
        frame.axvline(line, color=style.PAPER, linewidth=1.5)
        frame.axhline(line, color=style.PAPER, linewidth=1.5)


def _is_slanted(panel: ConfusionPanel) -> bool:
    """Whether the names are too many or too long to stand along the sides."""
    return len(panel.classes) > 3 or max(map(len, panel.classes)) > 11


def _draw_line(
    frame: "Axes", epochs: NDArray[np.integer], values: Floats, best_epoch: int | None, **look: Any
) -> None:
    """Draw a line that breaks where nothing is known, with a dot at the epoch that was kept."""
    marker = "o" if len(epochs) < 20 else ""
    look |= {"markeredgewidth": 0, "clip_on": False}
    frame.plot(epochs, values, marker=marker, markersize=3, **look)
    frame.plot(epochs[epochs == best_epoch], values[epochs == best_epoch], "o", markersize=6, **look)


def _draw_learning_rate(frame: "Axes", epochs: NDArray[np.integer], rates: Floats, *, named: bool) -> None:
    """Draw the learning rate as a grey area, with its highest and its last value written in it."""
    known = np.isfinite(rates)
    epochs, rates = epochs[known], rates[known]
    frame.fill_between(epochs, rates, step="mid", color=style.SLATE, alpha=0.35, linewidth=0)
    frame.set_ylim(0, float(rates.max()) * 1.05)
    frame.set_yticks([])
    frame.spines["left"].set_visible(False)
    if named:
        _write_beside(frame, "learning rate", (1, 0.5), (4, 0), va="center", color=style.FAINT)
    highest = int(rates.argmax())
    early = highest < len(rates) / 2
    written = {highest: "left" if early else "right", **({len(rates) - 1: "right"} if early else {})}
    for place, align in written.items():
        offset = (2, 0) if align == "left" else (-2, 0)
        point = (float(epochs[place]), 0.45)
        words = f"{rates[place]:.2g}".replace("e-0", "e−")
        _write_beside(frame, words, point, offset, across="data", ha=align, va="center")


def _scale_losses(frame: "Axes", values: Floats) -> None:
    """Choose a logarithmic axis where the loss falls so far that its end would lie flat, and never a tiny range."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low > 0 and high / low > 40:
        frame.set_yscale("log")
        frame.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        frame.yaxis.set_minor_formatter(lambda _value, _place: "")
    elif high - low < 0.1 * abs(high):
        frame.set_ylim(low - 0.1 * abs(high), high + 0.1 * abs(high))


def _scale_scores(frame: "Axes", values: Floats) -> None:
    """Let the axis end at 1 and begin at a round number: closer, ripples would look like waves."""
    low = min(0.9, max(0.0, float(np.floor(np.nanmin(values) * 10 + 1e-9) / 10)))
    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if (1 - low) / step < 5.5)
    ticks = np.arange(round(np.ceil(low / step - 1e-9)), round(1 / step) + 1) * step
    frame.set_ylim(low, 1)
    frame.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def _label_ends(frame: "Axes", lines: Mapping[str, Floats], colours: Mapping[str, str]) -> None:
    """Name lines at the height of their right ends, moved apart where they would touch, within the frame."""
    frame.get_ylim()  # brings the limits up to what is drawn
    to_frame = frame.transData + frame.transAxes.inverted()
    ends = {
        name: to_frame.transform((0, values[np.isfinite(values)][-1]))[1] for name, values in lines.items()
    }
    names = sorted(ends, key=ends.__getitem__)
    apart = 0.1
    places: list[float] = []
    for name in names:
        places.append(max(ends[name], places[-1] + apart if places else 0.0))
    top = 0.96  # below what stands above the frame
    for number in reversed(range(len(places))):
        top = places[number] = min(places[number], top)
        top -= apart
    for name, place in zip(names, places, strict=True):
        colour = style.FAINT if colours[name] == style.SLATE else colours[name]
        _write_beside(frame, name, (1, place), (4, 0), va="center", color=colour)


def _write_beside(
    frame: "Axes",
    words: str,
    place: tuple[float, float],
    offset: tuple[float, float],
    across: str = "axes fraction",
    **look: Any,
) -> None:
    """Write words some points off a place: its ordinate in shares of the frame's height, its abscissa as said."""
    frame.annotate(
        words, place, offset, xycoords=(across, "axes fraction"), textcoords="offset points", **look
    )


def _set_square(frame: "Axes", limit: float) -> None:
    frame.set_xlim(0, limit)
    frame.set_ylim(0, limit)
    ticks = [0, limit / 2, limit]
    names = [f"{tick:g}" for tick in ticks]
    frame.set_xticks(ticks, names)
    frame.set_yticks(ticks, names)


def _set_whole_ticks(frame: "Axes", epochs: NDArray[np.integer]) -> None:
    first, last = int(epochs.min()), int(epochs.max())
    step = next(
        step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**6) if (last - first) / step <= 6
    )
    frame.set_xticks([epoch for epoch in range(first, last + 1) if epoch % step == 0 or step == 1])
    margin = max(0.3, 0.03 * (last - first))
    frame.set_xlim(first - margin, last + margin)


def _reliability_limit(panel: ReliabilityPanel) -> float:
    """A rare finding's probabilities fill a corner of [0, 1]; its axes end where the bins do."""
    reached = float(np.max(np.concatenate([panel.predicted, panel.high]), initial=0.0))
    return next((limit for limit in (0.1, 0.2, 0.4) if reached <= limit), 1.0)
