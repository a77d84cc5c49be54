"""Cases -> radiographs beside their maps, on one signed scale in logit units.

A map's colour says the sign (warm: evidence for the finding; cold: against it), its strength the size; at
zero nothing is drawn: the radiograph stays as it is. Pictures keep aspect, left and right of the original.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.inference.explanation import Case
from hilum.report import formatting
from hilum.report.drawing import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 768
"""Pixels of the longer side at which radiographs are drawn."""
CONTOUR = 0.5
"""The contour stands at this share of the scale's limit."""
SMALLEST_LIMIT = 0.02
"""Logit units: a scale never ends below this, so that rounding does not look like evidence. More
would hide maps of many places, each of which adds little."""
FAINT = 0.1
"""Logit units, at most 2.5 points of a probability: a map that nowhere reaches this says so."""
ROWS = 3
"""Cases in one figure of a gallery: what a printed page holds."""
COARSE = 64
"""A map of at most so many places shows their borders: drawn smoothly, it looks finer than it is."""
OUTCOMES = ("True positive", "True negative", "False positive", "False negative")
CLASS_OUTCOMES = ("Right class", "Wrong class")
"""Of a task with exactly one class an image."""

_STRENGTH = 0.72  # opacity of a map at its limit: ribs and vessels stay visible underneath
# Two ramps that start at black and grow evenly in lightness, so that on black, too, zero is nothing.
_FOR = np.array([[0, 0, 0], [96, 10, 44], [187, 46, 30], [240, 120, 20], [255, 214, 92]], np.float64)
_AGAINST = np.array([[0, 0, 0], [12, 36, 92], [22, 84, 160], [60, 146, 210], [170, 222, 250]], np.float64)
_BOX, _BORDER = (0, 200, 140), (112, 118, 126)
_LINE_FOR, _LINE_AGAINST, _SHADOW = (255, 236, 170), (200, 235, 255), (60, 40, 30)


@dataclass(frozen=True)
class Views:
    """The three pictures of a case, uint8 (height, width, 3) each, of one size and the original's aspect."""

    radiograph: NDArray[np.uint8]
    overlay: NDArray[np.uint8]
    evidence: NDArray[np.uint8]


@style.styled
def panel(case: Case, *, limit: float | None = None, bundle: str = "", shared: str = "") -> "Figure":
    """Draw one case large: the radiograph, the radiograph under its map, the map with its scale.

    Args:
        case: The image and the explanation of one finding.
        limit: Where the scale ends, in logit units; None takes `scale_limit` of this case alone.
        bundle: The hash of the bundle that made it, to stand below; empty for none.
        shared: What shares the scale, in words, such as `all 12 images of this command`; empty for this image alone.

    Returns:
        A Figure 11 inches wide.
    """
    limit = scale_limit([case]) if limit is None else limit
    margin, gap, width = 0.15, 0.12, 11.0
    side = (width - 2 * margin - 2 * gap) / 3
    height = side * min(1.25, case.grey.shape[0] / case.grey.shape[1])
    drawing = style.figure(width, height + 1.8)
    right = width - margin
    style.write(drawing, outcome(case), left=margin, top=0.32, size=14, bold=True)
    style.write(drawing, caption(case), left=margin, top=0.58, size=10.5)
    name = formatting.shorten(case.image, 60)
    style.write(drawing, name, left=right, top=0.32, size=10.5, colour=style.FAINT, align="right")
    _draw_row(drawing, case, limit=limit, left=margin, top=0.76, side=side, height=height, gap=gap)
    foot = height + 0.76 + 0.2
    made_by = f" Bundle {bundle[:16]}." if bundle else ""
    scaled = f" One scale for {shared}." if shared else ""
    lines = (
        f"{_legend([case], limit)}{scaled}".strip(),
        " ".join(meaning([case])),
        f"Research use only; not a medical device.{made_by}",
    )
    for number, line in enumerate(lines):
        style.write(drawing, line, left=margin, top=foot + 0.14 + 0.22 * number, size=10, colour=style.FAINT)
    draw_scale(drawing, limit, left=right - side, top=foot, width=side, size=10)
    return drawing


@style.styled
def gallery(cases: Sequence[Case], *, title: str, limit: float | None = None) -> tuple["Figure", ...]:
    """Draw many cases, one a row, on one scale.

    Args:
        cases: In the order in which they are shown.
        title: What they have in common.
        limit: Where the scale of every figure ends, in logit units; None takes `scale_limit` of these cases.

    Returns:
        Figures of at most `ROWS` cases, as wide as a printed page.
    """
    limit = scale_limit(cases) if limit is None else limit
    groups = [cases[start : start + ROWS] for start in range(0, len(cases), ROWS)]
    return tuple(_page(group, title=title, limit=limit) for group in groups)


@style.styled
def scale(limit: float) -> "Figure":
    """Draw the colour scale of maps alone, for a page that lays out the radiographs itself."""
    drawing = style.figure(4.2, 0.56)
    draw_scale(drawing, limit, left=0.02, top=0.02, width=4.16)
    return drawing


def views(case: Case, *, limit: float, side: int = SIDE) -> Views:
    """Turn a case into its three pictures.

    Args:
        case: The image and its map.
        limit: The absolute evidence, in logit units, that gets the full colour.
        side: Pixels of the longer side.

    Returns:
        The pictures. Where the map is 0, and no contour or box runs, the overlay equals the radiograph.
    """
    import cv2

    height, width = case.grey.shape
    ratio = side / max(height, width)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    shrink = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    grey = np.clip(cv2.resize(np.asarray(case.grey, np.float32), size, interpolation=shrink), 0, 1)
    known = np.nan_to_num(np.asarray(case.evidence, np.float32))
    evidence = np.asarray(cv2.resize(known, size, interpolation=cv2.INTER_LINEAR), np.float32)

    radiograph = np.repeat(np.rint(grey * 255)[..., None], 3, axis=2)
    colour = colours(evidence, limit)
    opacity = _STRENGTH * np.clip(np.abs(evidence) / limit, 0, 1)[..., None]
    overlay = np.rint((1 - opacity) * radiograph + opacity * colour).astype(np.uint8)
    alone = np.rint(colour).astype(np.uint8)
    plain = radiograph.astype(np.uint8)
    if is_coarse(case):
        _draw_boxes(alone, case.cells, colour=_BORDER, thickness=max(1, round(side / 640)))
    for picture in (overlay, alone):
        _draw_contours(picture, evidence, level=CONTOUR * limit)
        _draw_boxes(picture, case.boxes, colour=_BOX, thickness=max(2, round(side / 300)))
    return Views(plain, overlay, alone)


def colours(evidence: NDArray[np.floating], limit: float) -> NDArray[np.float64]:
    """Map evidence in logit units to RGB in [0, 255], shape (..., 3); black at zero."""
    share = np.clip(np.asarray(evidence, np.float64) / limit, -1, 1)
    stops = np.linspace(0, 1, len(_FOR))
    warm = np.stack([np.interp(share, stops, _FOR[:, channel]) for channel in range(3)], axis=-1)
    cold = np.stack([np.interp(-share, stops, _AGAINST[:, channel]) for channel in range(3)], axis=-1)
    return np.where(share[..., None] >= 0, warm, cold)


def scale_limit(cases: Sequence[Case]) -> float:
    """Return where a scale that fits all cases ends: the next round number from the largest evidence up."""
    largest = max(SMALLEST_LIMIT, *map(_largest, cases)) if cases else SMALLEST_LIMIT
    power = 10.0 ** math.floor(math.log10(largest) + 1e-9)
    # Halves of small limits, too, have to be short numbers: they stand beside each other.
    steps = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if largest > 0.1 else (2, 4, 6, 8, 10)
    return next(step * power for step in steps if step * power >= largest * (1 - 1e-9))


def outcome(case: Case) -> str:
    """Return one of `OUTCOMES` or `CLASS_OUTCOMES`, or what was called where the truth is unknown."""
    if math.isnan(case.label):
        return f"Called {_called(case)}"
    present = case.label >= 0.5
    if case.threshold is None:
        return CLASS_OUTCOMES[0 if present == case.called else 1]
    if present:
        return OUTCOMES[0] if case.called else OUTCOMES[3]
    return OUTCOMES[2] if case.called else OUTCOMES[1]


def caption(case: Case) -> str:
    """Return truth, probability and decision in one line."""
    value, truth = formatting.probability(case.probability), formatting.truth(case.label)
    if case.threshold is None:
        how = "called" if case.called else "not called"
        return f"{case.finding} {how}, probability {value}; truth: {case.truth or truth}"
    threshold = formatting.probability(case.threshold)
    # "unknown" alone would read as the model's answer.
    told = f", truth {truth}" if math.isnan(case.label) else f" {truth}"
    return f"{case.finding}{told}; probability {value}, called {_called(case)} (threshold {threshold})"


def faintness(case: Case) -> str:
    """Say of a map with next to nothing in any place that there is; empty for any other.

    The evidence of all places adds up to the logit, biases aside: what is little in each may be much in all.
    """
    largest = _largest(case)
    if largest >= FAINT:
        return ""
    if largest < 0.001:
        return "No evidence: nothing here moves the logit"
    # Rounded up: nothing moves it by more.
    digits = 2 if largest >= 0.01 else 3
    most = math.ceil(largest * 10**digits - 1e-9) / 10**digits
    together = float(np.nanmean(np.abs(case.evidence))) * math.prod(case.places)
    what = "Hardly any evidence" if 0 < together < FAINT else "Faint in each place"
    return f"{what}: none moves the logit by more than {most:.{digits}f}"


def meaning(cases: Sequence[Case]) -> tuple[str, str]:
    """Return what a map is and is not, in two sentences, with the places of the coarsest."""
    shown = "A map shows what moved the logit."
    coarsest = min((case for case in cases if case.places[0]), key=_num_places, default=None)
    if coarsest is None:
        return shown, "It does not outline a lesion."
    only, bordered = ("only ", " (grey lines)") if is_coarse(coarsest) else ("", "")
    rows, columns = coarsest.places
    return shown, f"It has {only}{rows} × {columns} places{bordered} and outlines no lesion."


def is_coarse(case: Case) -> bool:
    """Return whether a map has so few places that their borders are shown."""
    return 0 < _num_places(case) <= COARSE


def _num_places(case: Case) -> int:
    return math.prod(case.places)


def _called(case: Case) -> str:
    return "present" if case.called else "absent"


def _largest(case: Case) -> float:
    return float(np.nanmax(np.abs(case.evidence), initial=0.0))


def _page(cases: Sequence[Case], *, title: str, limit: float) -> "Figure":
    gap, width = 0.08, style.FULL
    side = (width - 2 * style.MARGIN - 2 * gap) / 3
    heights = [side * min(1, case.grey.shape[0] / case.grey.shape[1]) for case in cases]
    top, above, below = 0.62, 0.36, 0.14
    drawing = style.figure(width, top + sum(heights) + (above + below) * len(cases) + 0.56)
    style.heading(drawing, title, f"{_legend(cases, limit)} Research use only.".strip())
    for case, height in zip(cases, heights, strict=True):
        left, right = style.MARGIN, width - style.MARGIN
        style.write(drawing, outcome(case), left=left, top=top + 0.12, bold=True)
        style.write(
            drawing,
            formatting.shorten(case.image, 52),
            left=right,
            top=top + 0.12,
            colour=style.FAINT,
            align="right",
        )
        style.write(drawing, caption(case), left=left, top=top + 0.28)
        _draw_row(drawing, case, limit=limit, left=left, top=top + above, side=side, height=height, gap=gap)
        top += above + height + below
    # What a map is stands beside the scale and may be long.
    draw_scale(drawing, limit, left=style.MARGIN, top=top + 0.02, width=width - 2 * style.MARGIN - 3.9)
    for line, sentence in enumerate(meaning(cases)):
        place = top + 0.13 + 0.18 * line
        style.write(
            drawing, sentence, left=width - style.MARGIN, top=place, colour=style.FAINT, align="right"
        )
    return drawing


def _draw_row(
    drawing: "Figure",
    case: Case,
    *,
    limit: float,
    left: float,
    top: float,
    side: float,
    height: float,
    gap: float,
) -> None:
    pictures = views(case, limit=limit)
    # A picture taller than its place becomes narrower and stays in the middle: the aspect is kept.
    width = min(side, height * case.grey.shape[1] / case.grey.shape[0])
    for column, picture in enumerate((pictures.radiograph, pictures.overlay, pictures.evidence)):
        start = left + column * (side + gap) + (side - width) / 2
        frame = style.axes(drawing, left=start, top=top, width=width, height=height)
        frame.imshow(picture, aspect="equal", interpolation="antialiased")
        frame.set_axis_off()
    # A line at a time: a figure's texts keep none apart.
    for number, line in enumerate(reversed(textwrap.wrap(faintness(case), 32))):
        frame.annotate(
            line, (0.5, 0), xytext=(0, 4 + 1.3 * style.SMALL * number), textcoords="offset points",
            xycoords="axes fraction", color="white", size=style.SMALL, ha="center", va="bottom",
            bbox={"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip


def draw_scale(
    drawing: "Figure", limit: float, *, left: float, top: float, width: float, size: float = style.SMALL
) -> None:
    """Draw the colour scale of maps, `width` inches wide, from minus to plus `limit` logit units."""
    draw_ramp(drawing, limit, left=left, top=top, width=width, size=size)
    middle = top + 0.13 + size / 72 + 0.06 + size / 72
    style.write(drawing, "← against", left=left, top=middle, size=size)
    style.write(
        drawing, "evidence (logit units)", left=left + width / 2, top=middle, size=size, align="center"
    )
    style.write(drawing, "for →", left=left + width, top=middle, size=size, align="right")


def draw_ramp(
    drawing: "Figure",
    limit: float,
    *,
    left: float,
    top: float,
    width: float,
    size: float = style.SMALL,
    halves: bool = True,
) -> None:
    """Draw the colours from minus to plus `limit` with the contour's levels and, `halves`, their numbers."""
    frame = style.axes(drawing, left=left, top=top, width=width, height=0.13)
    ramp = np.linspace(-limit, limit, 512)[None]
    frame.imshow(colours(ramp, limit).astype(np.uint8), extent=(-limit, limit, 0, 1), aspect="auto")
    level = CONTOUR * limit
    frame.vlines([-level, level], 0, 1, colors=["#c8ebff", "#ffecaa"], linewidth=1)
    frame.set_yticks([])
    frame.set_xticks([-limit, -level, 0, level, limit] if halves else [-limit, 0, limit])
    frame.set_xticklabels([style.signed(value) for value in frame.get_xticks()], fontsize=size)
    style.align_ends(frame)
    frame.spines[:].set_visible(False)
    frame.tick_params(length=2, pad=1.5)


def _legend(cases: Sequence[Case], limit: float) -> str:
    """Explain what is drawn, and nothing that is not."""
    level = CONTOUR * limit
    crossed = any(
        evidence.min() < end < evidence.max()
        for evidence in (np.nan_to_num(np.asarray(case.evidence)) for case in cases)
        for end in (-level, level)
    )
    said = ["Thin line: half of the scale."] * crossed
    said += ["Green: box that came with the data."] * any(len(case.boxes) for case in cases)
    return " ".join(said)


def _draw_contours(picture: NDArray[np.uint8], evidence: NDArray[np.float32], *, level: float) -> None:
    import contourpy
    import cv2

    generator = contourpy.contour_generator(z=evidence)
    width = max(2, round(max(picture.shape[:2]) / 340))
    for value, colour in ((level, _LINE_FOR), (-level, _LINE_AGAINST)):
        for line in generator.lines(value):
            points = np.rint(np.asarray(line) * 16).astype(np.int32).reshape(-1, 1, 2)
            # A dark line underneath keeps the bright one visible on bright places.
            for shade, thickness in ((_SHADOW, width + 2), (colour, width)):
                cv2.polylines(picture, [points], False, shade, thickness, lineType=cv2.LINE_AA, shift=4)


def _draw_boxes(
    picture: NDArray[np.uint8], boxes: NDArray[np.floating], *, colour: tuple[int, int, int], thickness: int
) -> None:
    import cv2

    height, width = picture.shape[:2]
    for x, y, across, down in np.asarray(boxes, np.float64).reshape(-1, 4):
        start = round(x * width), round(y * height)
        end = round((x + across) * width), round((y + down) * height)
        cv2.rectangle(picture, start, end, colour, thickness, lineType=cv2.LINE_AA)
