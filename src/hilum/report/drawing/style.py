"""The look of every picture: colours, sizes, and a Figure -> SVG or PNG, the same bytes each time."""

import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from hilum import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

# Okabe and Ito 2008, safe for colour-blind readers. One meaning a colour: blue is the model, vermillion a
# finding that is present, slate one that is absent, orange an error, green an expert's box.
BLUE, VERMILLION, ORANGE, GREEN, PURPLE, SKY = (
    "#0072b2",
    "#d55e00",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
)
INK, FAINT, SLATE, HAIR, PAPER = "#1b1f24", "#5b6470", "#8d98a7", "#d5dae1", "#ffffff"

HALF = 3.45
"""Inches: two figures side by side on A4 or Letter."""
FULL = 7.1
"""Inches: the printable width of A4 and Letter."""
SMALL, LARGE = 9.0, 10.5
"""Points."""
MARGIN = 0.04
"""Inches between the edge of a figure and its words."""

_THEMED = {
    INK: "ink",
    FAINT: "faint",
    SLATE: "slate",
    HAIR: "hair",
    PAPER: "paper",
    BLUE: "blue",
    VERMILLION: "vermillion",
}
_FONTS = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
)
_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same letters on every machine
    "font.size": SMALL,
    "text.color": INK,
    "text.parse_math": False,  # a finding's name may hold a dollar sign
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": SMALL,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",  # text stays text: it can be read out, found and copied
    "svg.hashsalt": "hilum",
}


@contextmanager
def settings() -> Iterator[None]:
    """Draw by this file's settings alone, whatever the user's matplotlibrc says, and leave it as it was."""
    from matplotlib import rc_context, rcdefaults, rcParams

    with rc_context():
        rcdefaults()
        rcParams.update(_SETTINGS)
        yield


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Make a drawing function run under `settings`."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        with settings():
            return draw(*args, **kwargs)

    return wrapper


def figure(width: float, height: float) -> "Figure":
    """Return an empty Figure of `width` x `height` inches that belongs to no pyplot state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    empty = Figure(figsize=(width, height), facecolor=PAPER)
    FigureCanvasAgg(empty)
    return empty


def axes(drawing: "Figure", *, left: float, top: float, width: float, height: float) -> "Axes":
    """Add axes whose frame lies at `left`, `top` from the figure's upper left corner; all in inches."""
    across, down = drawing.get_size_inches()
    return drawing.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def write(
    drawing: "Figure",
    words: str,
    *,
    left: float,
    top: float,
    size: float = SMALL,
    colour: str = INK,
    bold: bool = False,
    align: str = "left",
) -> None:
    """Write one line of text whose baseline lies at `left`, `top` inches from the upper left corner."""
    if not words:
        return
    across, down = drawing.get_size_inches()
    drawing.text(
        left / across,
        1 - top / down,
        words,
        fontsize=size,
        color=colour,
        fontweight="bold" if bold else "normal",
        ha=align,
        va="baseline",
    )


def heading(drawing: "Figure", title: str, subtitle: str = "") -> None:
    """Write the finding of the figure on its first line and, fainter, what it rests on below."""
    write(drawing, title, left=MARGIN, top=0.17, size=LARGE, bold=True)
    write(drawing, subtitle, left=MARGIN, top=0.36, colour=FAINT)


def align_ends(frame: "Axes") -> None:
    """Keep the first and the last tick's label of the x axis within the frame's width."""
    labels = frame.get_xticklabels()
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right")


def signed(value: float) -> str:
    """Write a number with its sign, a true minus included; 0 has none."""
    return f"{value:+g}".replace("-", "−") if value else "0"


def svg(drawing: "Figure", name: str) -> str:
    """Turn a Figure into an `<svg>` element to stand inside an HTML page.

    Colours of text, lines and ground become CSS variables with their light value as fallback, so that the
    page can lend the figure its dark theme; ids carry `name`, so that figures of one page do not share them.

    Args:
        drawing: The figure.
        name: Unique within the page; letters, digits and hyphens.

    Returns:
        The element, without XML header, metadata, comments or fixed size.
    """
    stream = io.StringIO()
    with settings(), warnings.catch_warnings():
        # The reader's browser sets the text and has the letters that the measuring font lacks.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        _clean_text(drawing, known_letters_only=False)
        drawing.savefig(
            stream,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::xlink)?|version)="[^"]*"', "", text, count=3)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = text.replace("'DejaVu Sans', sans-serif", _FONTS)
    for colour, variable in _THEMED.items():
        text = re.sub(rf"(fill|stroke): {colour}", rf"\1: var(--figure-{variable}, {colour})", text)
    width = drawing.get_size_inches()[0]
    return text.replace(
        "<svg", f'<svg style="--inches: {width:g}" aria-hidden="true" focusable="false"', 1
    ).strip()


def themed(colour: str) -> str:
    """Return a colour as CSS that follows the page's theme as the figures in it do."""
    name = _THEMED.get(colour)
    return f"var(--figure-{name}, {colour})" if name else colour


def png(drawing: "Figure", *, dpi: int = 200) -> bytes:
    """Turn a Figure into PNG bytes; letters that the font lacks become question marks."""
    stream = io.BytesIO()
    with settings():
        _clean_text(drawing, known_letters_only=True)
        drawing.savefig(
            stream, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs={"compress_level": 4}
        )
    return stream.getvalue()


@dataclass(frozen=True)
class Drawing:
    """A figure that shows itself in a notebook.

    Attributes:
        figure: Matplotlib's.
    """

    figure: "Figure"

    def save(self, path: str | Path) -> None:
        """Write a PNG file, whole or not at all."""
        files.write_bytes(Path(path), png(self.figure))

    def _repr_png_(self) -> bytes:
        return png(self.figure, dpi=110)


def _clean_text(drawing: "Figure", *, known_letters_only: bool) -> None:
    """Put a space for control characters and, where the font must have every letter, `?` for those it lacks.

    Tick labels get their words only when they are drawn and are not reached: names from outside stand elsewhere.
    """
    from matplotlib.font_manager import findfont, get_font
    from matplotlib.text import Text

    for text in drawing.findobj(Text):
        assert isinstance(text, Text)
        words = text.get_text()
        clean = "".join(" " if ord(letter) < 32 or ord(letter) == 127 else letter for letter in words)
        if known_letters_only:
            font = get_font(findfont(text.get_fontproperties()))
            clean = "".join(letter if font.get_char_index(ord(letter)) else "?" for letter in clean)
        if clean != words:
            text.set_text(clean)


def dot(frame: "Axes", x: float, y: float, colour: str, *, marker: str = "o", size: float = 5.0) -> None:
    """Draw a dot that the frame does not cut off."""
    frame.plot([x], [y], marker, color=colour, markersize=size, markeredgewidth=0, clip_on=False)


def matrix_cells(frame: "Axes", count: int, *, gap: float) -> None:
    """Lay out `count` x `count` cells of side 1, the first at the top left, with lines of `gap` points between them."""
    frame.set_xlim(0, count)
    frame.set_ylim(count, 0)
    frame.set_xticks([])
    frame.set_yticks([])
    frame.spines[:].set_visible(False)
    for line in range(1, count):
        frame.axvline(line, color=PAPER, linewidth=gap)
        frame.axhline(line, color=PAPER, linewidth=gap)


def rows_of_shares(frame: "Axes", count: float, *, lowest: float, axis: str) -> None:
    """Lay out rows of figures between 0 and 1, the first on top, from the tenth below the lowest on."""
    low = float(np.floor(lowest * 10 + 1e-9) / 10)
    frame.set_xlim(low - 0.015, 1.005)
    frame.set_ylim(count - 0.5, -0.5)
    frame.set_yticks([])
    frame.spines["left"].set_visible(False)
    frame.set_xticks(np.arange(round(low * 10), 11) / 10)
    frame.grid(axis="x", color=HAIR, linewidth=0.6)
    frame.set_axisbelow(True)
    frame.set_xlabel(axis, labelpad=2)
