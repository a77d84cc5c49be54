"""A page as a list of sections, each a list of blocks; templates turn them into HTML and Markdown."""

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.report.drawing import style
from hilum.report.table import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JPEG_QUALITY = 88
RESEARCH_USE = "Research use only. Not a medical device: no result here may guide the care of a patient."


@dataclass(frozen=True)
class Plot:
    """A drawing and what is said about it.

    Attributes:
        name: The file's stem, unique in the page: letters, digits, underscores.
        figure: The drawing.
        title: The finding of the drawing, for readers who do not see it.
        caption: How to read it.
    """

    name: str
    figure: "Figure"
    title: str
    caption: str

    @property
    def svg(self) -> str:
        """The drawing as an element of the page."""
        return style.svg(self.figure, self.name.replace("_", "-"))

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width of the page."""
        return bool(self.figure.get_size_inches()[0] > style.HALF + 0.5)


@dataclass(frozen=True)
class Picture:
    """A radiograph, or a map of one.

    Attributes:
        alt: What it shows, for readers who do not see it.
        uri: A data URI; empty where the image cannot be read.
        width: Pixels.
        height: Pixels.
        caption: What stands below it.
        model: Whose map it is; empty for none.
        colour: Of the model, as CSS.
    """

    alt: str
    uri: str
    width: int
    height: int
    caption: str = ""
    model: str = ""
    colour: str = ""


def make_picture(
    alt: str, pixels: NDArray[np.uint8], caption: str = "", model: str = "", colour: str = ""
) -> Picture:
    """Return pixels, uint8 (height, width) or (height, width, 3), as a picture inside the page."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    uri = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return Picture(alt, uri, pixels.shape[1], pixels.shape[0], caption, model, colour)


@dataclass(frozen=True)
class Block:
    """A part of a section; the macro of `blocks.html.j2` with the name of its kind draws it."""

    @property
    def kind(self) -> str:
        """The name of its class in small letters."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Paragraph(Block):
    """Sentences, the first of them strong where there is one; `small` for what explains something else."""

    text: str
    small: bool = False
    strong: str = ""


@dataclass(frozen=True)
class Verdict(Block):
    """The sentence that matters most; `bad` where it is an alarm."""

    text: str
    bad: bool = False


@dataclass(frozen=True)
class Heading(Block):
    """A heading of level 2 or 3 within a section."""

    text: str
    level: int = 3


@dataclass(frozen=True)
class Bullets(Block):
    """A list of sentences."""

    items: tuple[str, ...]
    numbered: bool = False


@dataclass(frozen=True)
class Facts(Block):
    """Name and values."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tile:
    """One of the few numbers of the first screen; `remark` says what it is of."""

    name: str
    value: str
    interval: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Tiles(Block):
    """The few numbers of the first screen, `columns` in a row: 3 or 4."""

    tiles: tuple[Tile, ...]
    columns: int = 4


@dataclass(frozen=True)
class Plots(Block):
    """Drawings, with a table beside the last of them where there is one."""

    plots: tuple[Plot, ...]
    beside: Grid | None = None


@dataclass(frozen=True)
class Tables(Block):
    """Tables and how to read them.

    Attributes:
        grids: From top to bottom.
        note: How to read them: small below them in the page, above them in the card, which has no drawings.
        layout: `words` where cells are set to the left, `pair` for two beside each other, else empty.
        in_card: Whether the card has them.
    """

    grids: tuple[Grid, ...]
    note: str = ""
    layout: str = ""
    in_card: bool = True


@dataclass(frozen=True)
class Scale(Block):
    """The colour scale of maps; with the name and colour of the model, and what it tells, where each has its own."""

    svg: str
    label: str
    model: str = ""
    colour: str = ""
    told: str = ""


@dataclass(frozen=True)
class Scales(Block):
    """The colour scales of several models."""

    scales: tuple[Scale, ...]


@dataclass(frozen=True)
class ImageRow:
    """Pictures of one image beside each other; `image` is its file, where the caption ends with it."""

    pictures: tuple[Picture, ...]
    caption: str
    image: str = ""


@dataclass(frozen=True)
class Images(Block):
    """Rows of pictures; `layout` is `case` (three views), `abreast` (a map a model) or `copies` (one or two files)."""

    rows: tuple[ImageRow, ...]
    layout: str


@dataclass(frozen=True)
class NamedPictures:
    """Pictures below the name of their class and a remark."""

    name: str
    remark: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery(Block):
    """Pictures of every class.

    Attributes:
        name: The file's stem, unique in the page.
        figure: All of them as one drawing, for the file.
        title: The finding of the drawing.
        caption: How to read it.
        cells: The pictures themselves, for the page.
        scale: The SVG of their colour scale; empty for none.
    """

    name: str
    figure: "Figure"
    title: str
    caption: str
    cells: tuple[NamedPictures, ...]
    scale: str = ""


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        id: The anchor, unique in the page.
        title: The heading.
        blocks: From top to bottom.
        lead: The paragraph below the heading; empty for none.
        notes: What is not shown and why, small below everything.
        link: What the list of sections calls it; empty where it is not in that list.
        in_card: Whether the model card has it.
    """

    id: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""
    notes: tuple[str, ...] = ()
    link: str = ""
    in_card: bool = False

    @property
    def plots(self) -> tuple[Plot | Gallery, ...]:
        """All drawings, to be written as files too."""
        drawn: list[Plot | Gallery] = []
        for block in self.blocks:
            drawn += (
                block.plots if isinstance(block, Plots) else [block] if isinstance(block, Gallery) else []
            )
        return tuple(drawn)

    @property
    def tables(self) -> tuple[Grid, ...]:
        """All tables but those beside drawings."""
        return tuple(grid for block in self.blocks if isinstance(block, Tables) for grid in block.grids)


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: Of the browser's window.
        heading: The first line.
        lead: What it is about.
        sections: From top to bottom; the first has the list of the others.
        warnings: What a reader must know before any number.
        warnings_title: What stands over them.
        research_use: The sentence that stands on every page, above and below.
        bundle: The hash of the bundle; empty for none.
        stylesheet: A file of `templates/` beside that of all pages; empty for none.
    """

    title: str
    heading: str
    lead: str
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    warnings_title: str = "Before you read the figures"
    research_use: str = RESEARCH_USE
    bundle: str = ""
    stylesheet: str = ""

    @property
    def plots(self) -> tuple[Plot | Gallery, ...]:
        """All drawings of all sections."""
        return tuple(plot for section in self.sections for plot in section.plots)

    @property
    def tables(self) -> tuple[Grid, ...]:
        """All tables of all sections, those beside drawings too."""
        found: list[Grid] = []
        for block in (block for section in self.sections for block in section.blocks):
            if isinstance(block, Tables):
                found += block.grids
            elif isinstance(block, Plots) and block.beside:
                found.append(block.beside)
        return tuple(found)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The sentences of the first section: its verdict and its lists."""
        told: list[str] = []
        for block in self.sections[0].blocks:
            told += block.items if isinstance(block, Bullets) else []
            told += [block.text] if isinstance(block, Verdict) else []
        return tuple(told)
