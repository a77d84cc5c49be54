"""Radiographs of a data set -> pictures: samples, the mean of each class and what sets it apart, where boxes lie.

Left and right are kept: the left of a picture is the patient's right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.data.exploration import Atlas
from hilum.data.pixel_statistics import Look, Sample
from hilum.progress import count
from hilum.report import formatting
from hilum.report.drawing import maps, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 320
"""Pixels of the longer side of a picture."""
SMALLEST_DIFFERENCE = 0.05
"""Grey value: a scale of differences never ends below this, so that no difference looks like none."""

SCALES = {
    "difference": "grey value, darker to brighter",
    "cover": "share of the finding's boxes that cover a place (peak: see each)",
}
"""What is written beside each kind of scale."""

Pixels = NDArray[np.uint8]
"""uint8 (height, width, 3)."""
BOLD, LINE = 0.1, 0.16
"""Inches that a bold letter takes, and from line to line of a name."""
NO_IMAGE = 40
"""Grey level of the ground where no image was read."""


@dataclass(frozen=True, eq=False)
class PictureTile:
    """Pictures that stand under one name.

    Attributes:
        name: The class.
        remark: How many images.
        pictures: Words for who does not see it, and the picture, each of one size.
    """

    name: str
    remark: str
    pictures: tuple[tuple[str, Pixels], ...]


def samples(looks: Mapping[str, Look], *, number: int) -> tuple[PictureTile, ...]:
    """Return up to `number` samples of each class, in the shape of their files."""
    return tuple(
        PictureTile(
            name,
            f"{min(number, len(look.samples))} of {look.num_images:,} read",
            tuple((f"Radiograph: {name}", _sample(sample)) for sample in look.samples[:number]),
        )
        for name, look in looks.items()
    )


def means(looks: Mapping[str, Look], *, reference: str, aspect: float) -> tuple[PictureTile, ...]:
    """Return each class's mean image and, where there is a reference, what it has more or less than that.

    Args:
        looks: Class -> its look.
        reference: The class that the others are compared with; empty for none.
        aspect: Height over width of the pictures.
    """
    base = looks.get(reference)
    limit, drawn = difference_limit(looks, reference=reference), mean_range(looks)
    tiles = []
    for name, look in looks.items():
        pictures = [(f"Mean image: {name}", _grey(look.mean, aspect, drawn))]
        if base is not None and name != reference:
            difference = maps.colours(_fit(look.mean - base.mean, aspect), limit)
            words_ = f"{name}: brighter and darker than {reference}"
            pictures.append((words_, np.rint(difference).astype(np.uint8)))
        tiles.append(PictureTile(name, f"mean of {look.num_images:,}", tuple(pictures)))
    return tuple(tiles)


def mean_range(looks: Mapping[str, Look]) -> tuple[float, float]:
    """Return the grey values that are drawn black and white in mean images, the same for all of them.

    A mean is flat: drawn from 0 to 1, that of dark films would be nearly black.
    """
    levels = np.concatenate([look.mean.ravel() for look in looks.values()])
    low, high = (float(level) for level in np.percentile(levels, [1, 99.5]))
    return (low, high) if high - low >= SMALLEST_DIFFERENCE else (0.0, 1.0)


def difference_limit(looks: Mapping[str, Look], *, reference: str) -> float:
    """Return the grey value at which the scale of differences ends, the same for all classes."""
    base = looks.get(reference)
    if base is None:
        return SMALLEST_DIFFERENCE
    # Not the largest: a marker of lead in one corner would make all else faint.
    most = [float(np.percentile(np.abs(look.mean - base.mean), 98)) for look in looks.values()]
    return max(SMALLEST_DIFFERENCE, float(np.ceil(20 * max(most)) / 20))


def atlas(boxes: Sequence[Atlas], *, aspect: float) -> tuple[PictureTile, ...]:
    """Return, for each finding with boxes, the share of them that covers each place, over the mean image.

    The colour is full at the finding's own peak: large boxes overlap and small ones hardly do, wherever they lie.
    """
    tiles = []
    for each in boxes:
        cover = _fit(each.cover, aspect)
        if each.look.num_images:
            grey = _grey(each.look.mean, aspect, mean_range({each.finding: each.look})).astype(np.float64)
        else:
            grey = np.full((*cover.shape, 3), float(NO_IMAGE))
        peak = float(each.cover.max())
        opacity = 0.8 * np.clip(cover / peak, 0, 1)[..., None]
        picture = np.rint((1 - opacity) * grey + opacity * maps.colours(cover, peak)).astype(np.uint8)
        remark = f"{count(each.boxes, 'box')}, peak {100 * peak:.0f} %"
        tiles.append(PictureTile(each.finding, remark, ((f"Where boxes of {each.finding} lie", picture),)))
    return tuple(tiles)


@style.styled
def mosaic(
    tiles: Sequence[PictureTile],
    *,
    columns: int,
    title: str,
    subtitle: str,
    upright: bool = False,
    foot: tuple[str, float] | None = None,
) -> "Figure":
    """Draw tiles in rows, each with its name above.

    Args:
        tiles: In reading order.
        columns: Tiles in a row.
        title: The finding of the figure.
        subtitle: What it rests on.
        upright: Whether the pictures of a tile stand one below another, not beside.
        foot: Kind and limit of the scale that stands below.
    """
    margin, gap, apart = style.MARGIN, 0.05, 0.2
    most = max(len(tile.pictures) for tile in tiles)
    columns_of_one, down = (1, most) if upright else (most, 1)
    width = (style.FULL - 2 * margin - (columns - 1) * apart) / columns
    side = (width - (columns_of_one - 1) * gap) / columns_of_one
    tall = side * max(_aspect(picture) for tile in tiles for _, picture in tile.pictures)
    # About 0.1 inches a bold letter and 0.08 another.
    beside = all(0.1 * len(tile.name) + 0.08 * len(tile.remark) < width for tile in tiles)
    names = [formatting.wrapped(tile.name, int((width + 0.4 * apart) / BOLD)) for tile in tiles]
    starts = range(0, len(tiles), columns)
    above = [0.08 + LINE * (max(map(len, names[at : at + columns])) + (not beside)) for at in starts]
    uppers = np.cumsum([0.52, *(each + down * (tall + gap) + 0.08 for each in above)])
    drawing = style.figure(style.FULL, float(uppers[-1]) + (0.46 if foot else 0.1))
    style.heading(drawing, title, subtitle)
    for place, (tile, name) in enumerate(zip(tiles, names, strict=True)):
        row, column = divmod(place, columns)
        left, upper = margin + column * (width + apart), float(uppers[row])
        # Of several lines the last stands over the picture, as that of a short name beside it.
        line = upper + above[row] - 0.07 - (0.0 if beside else LINE)
        for number, part in enumerate(name):
            style.write(drawing, part, left=left, top=line - LINE * (len(name) - 1 - number), bold=True)
        if beside:
            right = left + width
            style.write(drawing, tile.remark, left=right, top=line, colour=style.FAINT, align="right")
        else:
            style.write(drawing, tile.remark, left=left, top=line + LINE, colour=style.FAINT)
        for number, (_, picture) in enumerate(tile.pictures):
            across, below = (0, number) if upright else (number, 0)
            # A picture taller than its place becomes narrower and stays in the middle: the aspect is kept.
            fitting = min(side, tall / _aspect(picture))
            frame = style.axes(
                drawing,
                left=left + across * (side + gap) + (side - fitting) / 2,
                top=upper + above[row] + below * (tall + gap),
                width=fitting,
                height=fitting * _aspect(picture),
            )
            frame.imshow(picture, aspect="auto", interpolation="antialiased")
            frame.set_axis_off()
    if foot:
        _draw_scale(drawing, *foot, left=margin, top=float(uppers[-1]) + 0.06)
    return drawing


@style.styled
def scale(kind: str, limit: float) -> "Figure":
    """Draw a scale alone, for a page that lays out the pictures itself."""
    drawing = style.figure(5.8, 0.36)
    _draw_scale(drawing, kind, limit, left=0.02, top=0.02)
    return drawing


def _draw_scale(drawing: "Figure", kind: str, limit: float, *, left: float, top: float) -> None:
    width = 2.4
    low = -limit if kind == "difference" else 0.0
    frame = style.axes(drawing, left=left, top=top, width=width, height=0.13)
    ramp = np.linspace(low, limit, 512)[None]
    frame.imshow(maps.colours(ramp, limit).astype(np.uint8), extent=(low, limit, 0, 1), aspect="auto")
    frame.set_yticks([])
    frame.set_xticks([low, (low + limit) / 2, limit])
    named = [style.signed(round(tick, 3)) for tick in frame.get_xticks()] if low else ["0", "half", "peak"]
    frame.set_xticklabels(named)
    style.align_ends(frame)
    frame.spines[:].set_visible(False)
    frame.tick_params(length=2, pad=1.5)
    style.write(drawing, SCALES[kind], left=left + width + 0.12, top=top + 0.11)


def _sample(sample: Sample) -> Pixels:
    return _grey(sample.pixels.astype(np.float32) / 255, sample.height / sample.width)


def _grey(levels: NDArray[np.floating], aspect: float, drawn: tuple[float, float] = (0.0, 1.0)) -> Pixels:
    low, high = drawn
    grey = np.rint(255 * np.clip((_fit(levels, aspect) - low) / (high - low), 0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _fit(levels: NDArray[np.floating], aspect: float) -> NDArray[np.float32]:
    """Give a square the shape of its original again."""
    from hilum.images.geometry import resize

    return resize(
        levels.astype(np.float32),
        max(1, round(SIDE * min(1, 1 / aspect))),
        max(1, round(SIDE * min(1, aspect))),
    )


def _aspect(picture: Pixels) -> float:
    height, width = picture.shape[:2]
    return float(height / width)
