"""What a data set holds, in numbers -> Figures: classes, co-occurrence, sizes, ages, views, follow-ups, grey values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.data.label_statistics import (
    AGE_STEP,
    ALL,
    UNKNOWN,
    Ages,
    Class,
    ClassQuartiles,
    FollowUps,
    Shares,
    Sizes,
    Together,
)
from hilum.report import formatting
from hilum.report.drawing import bars, style
from hilum.report.exploration import sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = {"train": style.SKY, "val": style.PURPLE, "test": style.INK}
SEXES = {"F": (style.PURPLE, "female"), "M": (style.SKY, "male")}
VIEWS = {"PA": style.SLATE, "AP": style.PURPLE, "LATERAL": style.SKY, UNKNOWN: style.HAIR}
"""One colour a part of the split, a sex, a view, in every figure."""

LIFT_LIMIT = 4.0
"""The colour is full where two findings are so many times as often, or as rarely, together as expected."""
NUM_BINS = 64
MOST_DISCS = 500
"""Sizes that are drawn one by one."""


@dataclass(frozen=True)
class Greys:
    """One class's grey values.

    Attributes:
        name: The class.
        headline: What stands below its name.
        histogram: (256,) pixels by grey value.
    """

    name: str
    headline: str
    histogram: NDArray[np.int64]


@style.styled
def distribution(
    classes: Sequence[Class],
    splits: Mapping[str, tuple[int, int]],
    *,
    reference: str,
    title: str,
    subtitle: str,
) -> "Figure":
    """Draw images by class and part of the split, and the share of each class within each part.

    Args:
        classes: In the order of the rows.
        splits: Part -> (images, patients); without parts there are bars alone.
        reference: The class that is none of the findings.
        title: The finding of the figure.
        subtitle: What it rests on.
    """
    left, top, text = 1.62, 0.86, 1.22
    width = 2.0 if splits else style.FULL - left - text - style.MARGIN
    height = bars.PITCH * len(classes)
    drawing = style.figure(style.FULL, top + height + (0.5 if splits else 0.14))
    style.heading(drawing, title, subtitle)
    frame = bars.bare(drawing, left=left, top=top, width=width, height=height, rows=len(classes))
    largest = max((each.present for each in classes), default=0)
    for place, each in enumerate(classes):
        bars.name(drawing, each.name, place, left=style.MARGIN, top=top)
        start = 0
        for part, colour in PARTS.items():
            number = each.splits.get(part, (0, 0))[0]
            frame.barh(place, number, left=start, height=0.66, color=colour, linewidth=0)
            start += number
        colour = style.SLATE if each.name == reference else style.VERMILLION
        colour = style.HAIR if splits else colour
        frame.barh(place, each.present - start, left=start, height=0.66, color=colour, linewidth=0)
        share = formatting.per_cent(each.present, each.present + each.absent)
        bars.beside(frame, f"{each.present:,} ({share})", each.present, place)
    frame.set_xlim(0, max(1, largest))
    if splits:
        style.write(drawing, "Images", left=left, top=top - 0.09, colour=style.FAINT)
        _part_shares(drawing, classes, splits, left=left + width + text, top=top, height=height)
    return drawing


@style.styled
def cooccurrence(together: Together, *, title: str, subtitle: str) -> "Figure":
    """Draw, for images with the row's finding, how many per cent have the column's, coloured by lift."""
    from matplotlib.patches import Rectangle

    names, number = together.findings, len(together.findings)
    cell = min(0.6, (style.FULL - 2.45) / number)
    upright = number > 4 or max(map(len, names)) > 9
    left, top = 2.38, 0.66 + (1.36 if upright else 0.2)
    down = min(cell, 0.34) if upright else 0.4
    drawing = style.figure(style.FULL, top + down * number + 0.78)
    style.heading(drawing, title, subtitle)
    frame = style.axes(drawing, left=left, top=top, width=cell * number, height=down * number)
    share, lift, expected = together.share, together.lift, together.expected
    style.write(drawing, "Images with", left=style.MARGIN, top=top - 0.09, colour=style.FAINT)
    style.write(drawing, "n", left=left - 0.12, top=top - 0.09, colour=style.FAINT, align="right")
    for row in range(number):
        line = top + down * (row + 0.5) + 0.045
        style.write(drawing, formatting.cut(names[row], 20), left=style.MARGIN, top=line)
        style.write(drawing, f"{together.both[row, row]:,}", left=left - 0.12, top=line, align="right")
        for column in range(number):
            colour, alpha = _lift_colour(lift[row, column])
            if row == column or not expected[row, column] >= sentences.FEWEST_EXPECTED:
                colour, alpha = style.SLATE, 0.12
            frame.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, alpha=alpha, linewidth=0))
            if row != column:
                shown = _per_cent(share[row, column])
                frame.text(column + 0.5, row + 0.5, shown, ha="center", va="center")
    style.matrix_cells(frame, number, gap=1.2)
    for column, name in enumerate(names):
        frame.annotate(
            formatting.cut(name, 20),
            (column + 0.5, 0),
            (0, 4),
            textcoords="offset points",
            ha="left" if upright else "center",
            va="center" if upright else "bottom",
            rotation=90 if upright else 0,
            rotation_mode="anchor",
        )
    foot = top + down * number + 0.2
    _lift_scale(drawing, left=style.MARGIN, top=foot)
    both = f"both known in {together.pairs}"
    style.write(drawing, both, left=style.MARGIN + 2.82, top=foot + 0.45, colour=style.FAINT)
    return drawing


@style.styled
def image_sizes(sizes: Sizes, *, title: str, subtitle: str) -> "Figure":
    """Draw how many images have a width and a height, and their number of pixels by class."""
    left, top, side = 0.72, 0.86, 2.3
    spreads, label = sizes.megapixels, "Megapixels"
    if sizes.sides.prod(axis=1).max() < 1e6:
        spreads, label = tuple(_thousandfold(each) for each in spreads), "Thousand pixels"
    drawing = style.figure(style.FULL, top + max(side, bars.PITCH * len(spreads)) + 0.5)
    style.heading(drawing, title, subtitle)
    frame = style.axes(drawing, left=left, top=top, width=side, height=side)
    _size_discs(frame, sizes)
    low, high = 0.95 * float(sizes.sides.min()), 1.03 * float(sizes.sides.max())
    frame.plot([low, high], [low, high], color=style.SLATE, linewidth=0.7, linestyle=bars.DASHES, zorder=0)
    frame.set_xlim(low, high)
    frame.set_ylim(low, high)
    frame.locator_params(nbins=4)
    frame.xaxis.set_major_formatter(_thousands)
    frame.yaxis.set_major_formatter(_thousands)
    frame.set_xlabel("Width (pixels)", labelpad=2)
    frame.set_ylabel("Height (pixels)", labelpad=3)
    style.write(drawing, "Images by size; dashes: square", left=left, top=top - 0.09, colour=style.FAINT)
    bars.spreads(drawing, spreads, left=3.28, top=top, frame=(4.62, 1.2), label=label, text=5.94)
    return drawing


@style.styled
def demographics(ages: Ages | None, sexes: Shares | None, *, title: str, subtitle: str) -> "Figure":
    """Draw patients by age and sex, and age and share of women by class."""
    spreads = ages.years if ages else ()
    names = [each.name for each in spreads] or list(sexes.classes if sexes else ())
    top, height = 0.86, max(bars.PITCH * len(names), 2.0)
    drawing = style.figure(style.FULL, top + height + 0.5)
    style.heading(drawing, title, subtitle)
    left, right = 2.1 if ages else style.MARGIN, style.FULL - style.MARGIN if ages else 3.2
    if ages:
        _pyramid(drawing, ages, left=0.56, top=top, width=1.42, height=height)
        frame = (4.08, 0.76)
        bars.spreads(
            drawing, spreads, left=left, top=top, frame=frame, label="Age (years)", text=4.9, number=4.0
        )
    else:
        for place, name in enumerate(names):
            bars.name(drawing, name, place, left=left, top=top, bold=name == ALL)
    if sexes is not None and "F" in sexes.values:
        style.write(drawing, "Female", left=right, top=top - 0.09, colour=style.FAINT, align="right")
        told = zip(sexes.share("F").tolist(), sexes.known.tolist(), strict=True)
        shares = dict(zip(sexes.classes, told, strict=True))
        for place, name in enumerate(names):
            share, known = shares[name]
            line = top + bars.PITCH * (place + 0.5) + 0.045
            text = f"{_per_cent(share)} % of {known:,}" if known else "–"
            style.write(drawing, text, left=right, top=line, align="right")
    return drawing


@style.styled
def views(shares: Shares, *, title: str, subtitle: str) -> "Figure":
    """Draw how the views are shared out within each class, all images first, then by rising share of AP."""
    order = (
        [0, *(1 + np.argsort(_known(shares.share("AP")[1:]), kind="stable"))]
        if "AP" in shares.values
        else None
    )
    places = list(range(len(shares.classes))) if order is None else [int(place) for place in order]
    left, top, width = 1.62, 0.86, 4.1
    height = bars.PITCH * len(places)
    drawing = style.figure(style.FULL, top + height + 0.42)
    style.heading(drawing, title, subtitle)
    frame = bars.bare(drawing, left=left, top=top, width=width, height=height, rows=len(places))
    right = style.FULL - style.MARGIN
    for line, place in enumerate(places):
        bars.name(drawing, shares.classes[place], line, left=style.MARGIN, top=top, bold=place == 0)
        total, start = max(1, int(shares.counts[place].sum())), 0.0
        for value, number in zip(shares.values, shares.counts[place], strict=True):
            part = 100 * number / total
            frame.barh(line, part, left=start, height=0.66, color=VIEWS[value], linewidth=0)
            start += part
        base = top + bars.PITCH * (line + 0.5) + 0.045
        if "AP" not in shares.values:
            style.write(drawing, f"{total:,}", left=right, top=base, align="right", bold=place == 0)
        if "AP" in shares.values:
            known = int(shares.known[place])
            text = f"{_per_cent(shares.share('AP')[place])} % of {known:,}" if known else "–"
            style.write(drawing, text, left=right, top=base, align="right", bold=place == 0)
    frame.set_xlim(0, 100)
    frame.spines["bottom"].set_visible(True)
    frame.set_xticks([0, 25, 50, 75, 100])
    frame.set_xlabel("Per cent of the images", labelpad=2)
    heading = "Images" if "AP" not in shares.values else "AP, of known" if UNKNOWN in shares.values else "AP"
    style.write(drawing, heading, left=right, top=top - 0.09, colour=style.FAINT, align="right")
    bars.legend(drawing, {value: VIEWS[value] for value in shares.values}, left=left, top=top - 0.09)
    return drawing


@style.styled
def follow_ups(found: FollowUps, *, title: str, subtitle: str) -> "Figure":
    """Draw patients by their number of images, and how many of these images have a finding."""
    top, height, width = 0.86, 1.9, 3.3
    labelled = any(each.known for each in found.visits)
    start = style.FULL - width - 0.1
    drawing = style.figure(style.FULL, top + height + 0.48)
    style.heading(drawing, title, subtitle)
    names = [_bin(each.first, each.last) for each in found.visits]
    places = range(len(names))
    frames = [style.axes(drawing, left=0.1, top=top, width=width, height=height)]
    style.write(drawing, "Patients", left=0.1, top=top - 0.09, colour=style.FAINT)
    numbers = [each.patients for each in found.visits]
    frames[0].bar(places, numbers, width=0.72, color=style.SLATE, linewidth=0)
    for place, number in zip(places, numbers, strict=True):
        bars.above(frames[0], f"{number:,}", place, number)
    frames[0].set_ylim(0, 1.1 * max(numbers))
    if labelled:
        frames.append(style.axes(drawing, left=start, top=top, width=width, height=height))
        known = np.array([each.known for each in found.visits])
        share = 100 * np.array([each.with_finding for each in found.visits]) / np.where(known, known, np.nan)
        heading = "Per cent of their images with a finding"
        style.write(drawing, heading, left=start, top=top - 0.09, colour=style.FAINT)
        frames[1].bar(places, np.nan_to_num(share), width=0.72, color=style.VERMILLION, linewidth=0)
        for place, number, of in zip(places, share.tolist(), known.tolist(), strict=True):
            height_of_bar = 0 if np.isnan(number) else number
            bars.above(
                frames[1], "–" if np.isnan(number) else f"{number:.0f} %", place, height_of_bar, line=1
            )
            bars.above(frames[1], f"of {of:,}", place, height_of_bar)
        frames[1].set_ylim(0, 122)
    for frame in frames:
        frame.spines["left"].set_visible(False)
        frame.set_yticks([])
        frame.set_xticks(places, names)
        frame.tick_params(axis="x", length=0)
        frame.set_xlabel("Images of one patient", labelpad=3)
    return drawing


@style.styled
def intensities(panels: Sequence[Greys], reference: Greys | None, *, title: str, subtitle: str) -> "Figure":
    """Draw grey values of each class as a line over those of the reference, a panel a class."""
    columns = bars.columns(len(panels), most=4)
    lines = -(-len(panels) // columns)
    left, top, gap, tall = style.MARGIN + 0.06, 0.6, 0.22, 0.85 if lines > 1 else 1.3
    width = (style.FULL - 2 * left - (columns - 1) * gap) / columns
    above, below = 0.42, 0.34
    drawing = style.figure(style.FULL, top + lines * (above + tall + below) + 0.2)
    style.heading(drawing, title, subtitle)
    density = [_density(each.histogram) for each in panels]
    under = None if reference is None else _density(reference.histogram)
    # Black borders and white markers pile up at both ends; they would flatten all the rest.
    inner = [curve[1:-1].max() for curve in [*density, *([] if under is None else [under])]]
    centres = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
    for place, (panel, curve) in enumerate(zip(panels, density, strict=True)):
        line, column = divmod(place, columns)
        start, upper = left + column * (width + gap), top + line * (above + tall + below)
        style.write(drawing, formatting.cut(panel.name, 20), left=start, top=upper + 0.18, bold=True)
        style.write(drawing, panel.headline, left=start, top=upper + 0.35, colour=style.FAINT)
        frame = style.axes(drawing, left=start, top=upper + above, width=width, height=tall)
        if under is not None:
            frame.fill_between(centres, under, color=style.SLATE, alpha=0.4, linewidth=0)
        frame.plot(centres, curve, color=style.VERMILLION, linewidth=1.2)
        frame.set_xlim(0, 1)
        frame.set_ylim(0, 1.12 * max(inner))
        frame.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        style.align_ends(frame)
        frame.set_yticks([])
        frame.spines["left"].set_visible(False)
    foot = top + lines * (above + tall + below) + 0.06
    style.write(drawing, "Grey value (0 black, 1 white)", left=style.FULL / 2, top=foot, align="center")
    return drawing


def _part_shares(
    drawing: "Figure",
    classes: Sequence[Class],
    splits: Mapping[str, tuple[int, int]],
    *,
    left: float,
    top: float,
    height: float,
) -> None:
    frame = style.axes(drawing, left=left, top=top, width=style.FULL - left - 0.16, height=height)
    largest = 0.0
    # The largest part has the largest dot, so that equal shares show as rings.
    for (part, colour), size in zip(PARTS.items(), (8.0, 6.0, 4.0), strict=True):
        for place, each in enumerate(classes):
            present, known = each.splits.get(part, (0, 0))
            if known:
                share = 100 * present / known
                largest = max(largest, share)
                frame.scatter(
                    [share], [place], s=size**2, color=colour, linewidths=0, clip_on=False, zorder=2
                )
    for place in range(len(classes)):
        frame.axhline(place, color=style.HAIR, linewidth=0.6, zorder=0)
    frame.set_xlim(0, max(1.0, largest) * 1.04)
    frame.set_ylim(len(classes) - 0.5, -0.5)
    frame.set_yticks([])
    frame.spines["left"].set_visible(False)
    frame.locator_params(axis="x", nbins=5)
    frame.set_xlabel("Per cent of a part's images", labelpad=2)
    bars.legend(drawing, {part: PARTS[part] for part in splits}, left=left, top=top - 0.09)


def _pyramid(drawing: "Figure", ages: Ages, *, left: float, top: float, width: float, height: float) -> None:
    """Draw women to the left and men to the right; all to the right where no sex is known."""
    frame = style.axes(drawing, left=left, top=top, width=width, height=height)
    bins = ages.patients.shape[1]
    centres = AGE_STEP * (np.arange(bins) + 0.5)
    counts = dict(zip(ages.sexes, ages.patients, strict=True))
    known = [sex for sex in SEXES if sex in counts]
    if known:
        for sex in known:
            colour, _ = SEXES[sex]
            sign = -1 if sex == "F" else 1
            frame.barh(centres, sign * counts[sex], height=0.86 * AGE_STEP, color=colour, linewidth=0)
        largest = max(int(counts[sex].max()) for sex in known)
        bars.legend(drawing, {SEXES[sex][1]: SEXES[sex][0] for sex in known}, left=left, top=top - 0.09)
    else:
        everybody = ages.patients.sum(axis=0)
        frame.barh(centres, everybody, height=0.86 * AGE_STEP, color=style.SLATE, linewidth=0)
        largest = int(everybody.max())
    both = len(known) == 2
    fine = 2.2 if both else 3
    step = next(s * 10**p for p in range(9) for s in (1, 2, 5) if s * 10**p >= largest / fine)
    if both and largest >= 1000:  # the numbers are long: one to each side
        step = max(s * 10**p for p in range(9) for s in (1, 2, 5) if s * 10**p <= largest)
    ticks = np.arange(-(largest // step) if both or known == ["F"] else 0, largest // step + 1) * step
    frame.set_xlim(-1.05 * largest if "F" in known else 0, 1.05 * largest if known != ["F"] else 0)
    ticks = ticks[(ticks >= frame.get_xlim()[0]) & (ticks <= frame.get_xlim()[1])]
    frame.set_xticks(ticks, [f"{abs(tick):,}" for tick in ticks])
    frame.set_ylim(0, AGE_STEP * bins)
    frame.set_xlabel("Patients", labelpad=2)
    frame.set_ylabel("Age at the first image (years)", labelpad=3)


def _size_discs(frame: "Axes", sizes: Sizes) -> None:
    """Draw a disc a size; of many sizes squares, the darker the more images, on a logarithmic scale."""
    from matplotlib.patches import Rectangle

    widths, heights = sizes.sides.T
    if len(widths) <= MOST_DISCS:
        area = 8 + 200 * sizes.counts / sizes.counts.max()
        frame.scatter(widths, heights, s=area, color=style.BLUE, alpha=0.4, linewidths=0)
        return
    ends = float(sizes.sides.min()), float(sizes.sides.max()) + 1
    counts, across, down = np.histogram2d(
        widths, heights, bins=60, range=(ends, ends), weights=sizes.counts.astype(float)
    )
    opacity = np.log1p(counts) / np.log1p(counts.max())
    side = across[1] - across[0]
    for column, row in zip(*np.nonzero(counts), strict=True):
        corner, strength = (across[column], down[row]), float(0.15 + 0.85 * opacity[column, row])
        square = Rectangle(corner, side, side, facecolor=style.BLUE, alpha=strength, linewidth=0)
        frame.add_patch(square)


def _lift_colour(lift: float) -> tuple[str, float]:
    """Return colour and opacity: vermillion for more often than expected, blue for less."""
    if np.isnan(lift):
        return style.SLATE, 0.12
    power = np.clip(np.log2(max(lift, 1e-9)) / np.log2(LIFT_LIMIT), -1, 1)
    return (style.VERMILLION if power > 0 else style.BLUE), 0.04 + 0.6 * abs(float(power))


def _lift_scale(drawing: "Figure", *, left: float, top: float) -> None:
    from matplotlib.patches import Rectangle

    lifts = np.exp2(np.linspace(-np.log2(LIFT_LIMIT), np.log2(LIFT_LIMIT), 9))
    frame = style.axes(drawing, left=left, top=top, width=2.7, height=0.13)
    for place, lift in enumerate(lifts):
        colour, alpha = _lift_colour(float(lift))
        frame.add_patch(Rectangle((place, 0), 1, 1, facecolor=colour, alpha=alpha, linewidth=0))
    frame.set_xlim(0, len(lifts))
    frame.set_ylim(0, 1)
    frame.set_yticks([])
    frame.set_xticks([0.5, 2.5, 4.5, 6.5, 8.5], ["≤ ¼", "½", "1", "2", "≥ 4"])
    frame.spines[:].set_visible(False)
    frame.tick_params(length=0, pad=2)
    style.write(drawing, "times as often together as expected by chance", left=left + 2.82, top=top + 0.11)
    grey = f"grey: fewer than {sentences.FEWEST_EXPECTED:g} expected"
    style.write(drawing, grey, left=left + 2.82, top=top + 0.28, colour=style.FAINT)


def _bin(first: int, last: int | None) -> str:
    return f"> {first - 1}" if last is None else f"{first}" if first == last else f"{first}–{last}"


def _density(histogram: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the pixels in each of `NUM_BINS` equal bins."""
    binned = histogram.reshape(NUM_BINS, -1).sum(axis=1)
    return np.asarray(binned / max(1, int(binned.sum())), np.float64)


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.nan_to_num(values, nan=-1.0)


def _per_cent(share: float) -> str:
    """Write a share as whole per cent, small ones as `< 1`."""
    if np.isnan(share):
        return "–"
    return "< 1" if 0 < share < 0.005 else "> 99" if 0.995 < share < 1 else f"{100 * share:.0f}"


def _thousands(value: float, _place: float) -> str:
    return f"{value:,.0f}"


def _thousandfold(spread: ClassQuartiles) -> ClassQuartiles:
    if spread.quartiles is None:
        return spread
    first, second, third = spread.quartiles
    return replace(spread, quartiles=(1e3 * first, 1e3 * second, 1e3 * third))
