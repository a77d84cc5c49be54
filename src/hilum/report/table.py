"""Tables of a page: cells with intervals, letters for what is missing, and the same as a data frame or as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from hilum.report import formatting
from hilum.stats import Estimate


@dataclass(frozen=True)
class Cell:
    """A cell: a number with its interval, the letter of a note on what is missing, and whether it stands out.

    Attributes:
        value: The number or the words.
        interval: Its interval, or empty.
        note: A letter, or empty.
        extreme: `highest`, `lowest`, `best` or empty.
        bold: Whether it stands out without a word.
        missing: Whether it says, in words other than `not estimable`, why there is no number.
    """

    value: str
    interval: str = ""
    note: str = ""
    extreme: str = ""
    bold: bool = False
    missing: bool = False


@dataclass(frozen=True)
class Column:
    """The head of a column, with the letter of a note that holds for all of it.

    Attributes:
        name: The head.
        note: A letter, or empty.
        numeric: Whether the cells are set to the right.
    """

    name: str
    note: str = ""
    numeric: bool = True


@dataclass
class Notes:
    """Give each reason a letter, the same one each time."""

    letters: dict[str, str] = field(default_factory=dict)

    def letter(self, reason: str) -> str:
        """Return the letter of a reason; none for no reason."""
        return self.letters.setdefault(reason, _letter(len(self.letters))) if reason else ""

    def cell(self, estimate: Estimate | formatting.Entry | None) -> Cell:
        """Return an estimate, or an entry of metrics.json, as a cell, with the letter of why it is missing."""
        entry = estimate.to_dict() if isinstance(estimate, Estimate) else estimate
        letter = self.letter(formatting.reason(entry))
        return Cell(formatting.value(entry), formatting.interval(entry), letter)

    def listed(self) -> tuple[tuple[str, str], ...]:
        """Return letters and reasons in order."""
        return tuple((letter, reason) for reason, letter in self.letters.items())


@dataclass(frozen=True)
class Grid:
    """A table of the page.

    Attributes:
        caption: What it shows.
        corner: What the rows are.
        columns: Their heads.
        rows: Name and cells of each row.
        foot: How many of the last rows sum up the others.
        notes: Letter and words of each note.
        anchors: Name of a row -> id of the section that it links to.
    """

    caption: str
    corner: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    foot: int = 0
    notes: tuple[tuple[str, str], ...] = ()
    anchors: tuple[tuple[str, str], ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Return it for a notebook: a row's name as index, numbers with their intervals as text, notes left out."""
        rows = {
            name: [f"{cell.value} ({cell.interval})" if cell.interval else cell.value for cell in cells]
            for name, cells in self.rows
        }
        heads = [column.name for column in self.columns]
        return pd.DataFrame.from_dict(rows, orient="index", columns=heads).rename_axis(self.corner)


def make_grid(
    caption: str,
    corner: str,
    heads: Iterable[str | Column],
    rows: Iterable[tuple[str, Iterable[str | Cell]]],
    *,
    foot: int = 0,
    notes: Notes | None = None,
    anchors: Iterable[tuple[str, str]] = (),
) -> Grid:
    """Return a table; heads and cells that are plain words need no class of their own.

    Args:
        caption: What it shows.
        corner: What the rows are.
        heads: Of the columns.
        rows: Name and cells of each row.
        foot: How many of the last rows sum up the others.
        notes: Why cells are missing.
        anchors: Names of rows and the ids of the sections that they link to.
    """
    columns = tuple(head if isinstance(head, Column) else Column(head) for head in heads)
    body = tuple(
        (name, tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells))
        for name, cells in rows
    )
    return Grid(caption, corner, columns, body, foot, notes.listed() if notes else (), tuple(anchors))


def csv_text(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return rows below their head as the text of a CSV file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return stream.getvalue()


def csv_number(value: float | None) -> str:
    """Return a number for a CSV file, to six digits; empty for none."""
    return "" if value is None else f"{value:.6g}"


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else f"{_letter(place // 26 - 1)}{_letter(place % 26)}"
