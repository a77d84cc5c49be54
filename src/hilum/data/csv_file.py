"""A CSV file of any delimiter and encoding, packed or not -> its cells as text, and what was found of its form."""

import codecs
import csv
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from hilum.errors import DataError, LayoutError
from hilum.progress import count

SUFFIXES = (".csv", ".tsv")
"""Endings of files of cells; `.gz` may stand behind."""

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SAMPLE_BYTES = 1 << 16
"""What is read of a file to tell its layout."""

UNKNOWN = frozenset(
    {
        "nan",
        "na",
        "n/a",
        "<na>",
        "none",
        "null",
        "nil",
        "unknown",
        "unlabeled",
        "unlabelled",
        "todo",
        "tbd",
        "?",
        "-",
    }
)
"""Cells that say that nothing is known, in lower case, besides empty ones."""

IMAGE_NAMES = (
    *("image", "imagepath", "imagefile", "imagefilename", "imagename", "imageindex", "img", "imgpath"),
    *("file", "filename", "filepath", "path", "bild", "bilddatei", "datei", "dateiname", "pfad"),
)
"""Names, as `key` writes them, of columns that plainly hold images."""

_SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
_SPREADSHEET_MARKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_MARKED = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_NAMES = {"utf-16": "UTF-16", "cp1252": "Windows-1252", "latin-1": "Latin-1"}


@dataclass(frozen=True)
class CsvFile:
    """The text of a CSV file, and how it is read.

    Attributes:
        path: The file.
        text: From the header on.
        delimiter: What stands between cells.
        encoding: Python's name of it.
        header_line: Number of the header's line in the file; 2 where Excel's `sep=;` stands before it.
    """

    path: Path
    text: str
    delimiter: str
    encoding: str
    header_line: int = 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found of the form, where it is not commas in UTF-8."""
        notes = []
        if self.delimiter != ",":
            between = DELIMITERS.get(self.delimiter, repr(self.delimiter))
            notes.append(f"{self.path.name} is read with {between} between its cells")
        if self.encoding in ("cp1252", "latin-1"):
            notes.append(
                f"{self.path.name} is not UTF-8 and is read as {_NAMES[self.encoding]}; "
                "where letters look wrong, save it as UTF-8"
            )
        elif self.encoding in _NAMES:
            notes.append(f"{self.path.name} is read as {_NAMES[self.encoding]}")
        return tuple(notes)

    @property
    def header(self) -> tuple[str, ...]:
        """The trimmed names of the columns."""
        return _header(self.text, self.delimiter)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every cell as text, empty ones as empty text; rows without any text are left out.

        Raises:
            DataError: A column's name occurs twice, a row has more cells than the header, or there are no rows.
        """
        self._refuse_twins()
        try:
            with warnings.catch_warnings():
                # pandas only warns where rows have more cells than the header, and drops the rest.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                # Objects, since looking up Arrow's strings is several times slower.
                frame = pd.read_csv(
                    io.StringIO(self.text),
                    sep=self.delimiter,
                    dtype=object,
                    keep_default_na=False,
                    index_col=False,
                )
        except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
            between = DELIMITERS.get(self.delimiter, repr(self.delimiter))
            raise DataError(
                f"{self.path} is no CSV file with a header and {between} between its cells "
                f"({str(error).splitlines()[0]})"
            ) from None
        frame = frame.fillna("")
        frame.columns = frame.columns.str.strip()
        if (frame.iloc[:, 0].str.strip() == "").any():
            blank = (frame.apply(lambda cells: cells.str.strip()) == "").all(axis=1)
            frame = frame[~blank].reset_index(drop=True)
        if not len(frame):
            raise DataError(f"{self.path} has a header but no rows")
        return frame

    def lines(self, column: str, cells: Iterable[str]) -> list[int]:
        """Return the numbers of the file's lines whose cell of `column` is one of `cells`, trimmed."""
        if column not in self.header:
            return []
        wanted = {cell.strip() for cell in cells}
        place = self.header.index(column)
        rows = csv.reader(io.StringIO(self.text, newline=""), delimiter=self.delimiter)
        found = []
        before, past_header = 0, False
        for row in rows:
            if any(map(str.strip, row)):
                cell = row[place].strip() if place < len(row) else ""
                if past_header and cell in wanted:
                    found.append(self.header_line + before)
                past_header = True
            before = rows.line_num
        return found

    def _refuse_twins(self) -> None:
        places: dict[str, list[str]] = {}
        for place, name in enumerate(self.header, start=1):
            places.setdefault(name, []).append(str(place))
        for name, numbers in places.items():
            if name and len(numbers) > 1:
                raise DataError(
                    f"{self.path} has {len(numbers)} columns named {name!r} (columns {' and '.join(numbers)}); which "
                    "is meant cannot be told: remove or rename all but one"
                )


def is_csv(path: Path) -> bool:
    """Tell by its name whether a file is one of cells."""
    return Path(path.name.lower().removesuffix(".gz")).suffix in SUFFIXES


def stem(path: Path) -> str:
    """Return a file's name without its endings, `.gz` among them."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).stem


def read(path: Path, *, limit: int | None = None) -> CsvFile:
    """Read a CSV file and find its delimiter and encoding.

    Args:
        path: The file; gzip is unpacked.
        limit: Read whole lines up to so many bytes; all if not given.

    Raises:
        LayoutError: It is a spreadsheet.
        DataError: It is no text, or its gzip is damaged.
    """
    refuse_spreadsheet(path)
    content = _content(path, limit)
    encoding = _encoding(content)
    text = codecs.getincrementaldecoder(encoding)().decode(content)
    if "\0" in text:
        raise DataError(f"{path} is no CSV file: it holds bytes that are no text")
    if limit is not None and len(content) == limit:
        text = text[: text.rfind("\n") + 1] or text
    text = text.removeprefix("\ufeff")
    told = re.match(r'"?sep=(.)"?\r?\n', text, flags=re.IGNORECASE)
    if told:
        return CsvFile(path, text[told.end() :], told[1], encoding, header_line=2)
    return CsvFile(path, text, _delimiter(text), encoding)


def first_rows(path: Path) -> pd.DataFrame | None:
    """Return the first rows of a CSV file; None where they alone cannot be read."""
    try:
        return read(path, limit=SAMPLE_BYTES).frame
    except (DataError, OSError):
        return None


def refuse_spreadsheet(path: Path) -> None:
    """Raise a LayoutError where a file is one of Excel's or the like, by its ending or its first bytes."""
    named = path.suffix.lower() in _SPREADSHEETS
    if not named and is_csv(path) and path.is_file():
        with path.open("rb") as stream:
            named = stream.read(4) in _SPREADSHEET_MARKS
    if named:
        raise LayoutError(
            f"{path} is a spreadsheet, and a CSV file was expected: save it as CSV (in Excel: Save As, CSV UTF-8) and "
            "give that file"
        )


def with_points(cells: pd.Series) -> pd.Series:
    """Return trimmed cells in which a decimal comma is a point: `45,5` becomes `45.5`."""
    return cells.str.strip().str.replace(r"^([+-]?\d+),(\d+)$", r"\1.\2", regex=True)


def without_unknown(cells: pd.Series) -> tuple[pd.Series, tuple[str, ...]]:
    """Return trimmed cells, those that say that nothing is known as empty text, and a note on them."""
    trimmed = cells.str.strip()
    said = trimmed.str.casefold().isin(UNKNOWN)
    if not said.any():
        return trimmed, ()
    words = ", ".join(sorted(set(trimmed[said])))
    note = f"{count(int(said.sum()), 'cell')} of {cells.name!r} say {words}: what they stand for is unknown"
    return trimmed.mask(said, ""), (note,)


def key(name: str) -> str:
    """Return a column's name as its letters alone in lower case, so that spellings can be compared."""
    return re.sub(r"[\W_\d]+", "", name).casefold()


def _content(path: Path, limit: int | None) -> bytes:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as unpacked:
            return unpacked.read(-1 if limit is None else limit)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no whole gzip file ({error}); get it again") from None


def _encoding(content: bytes) -> str:
    for mark, marked in _MARKED.items():
        if content.startswith(mark):
            return marked
    for encoding in ("utf-8", "cp1252"):
        try:
            # The content may end within a character.
            codecs.getincrementaldecoder(encoding)().decode(content)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def _delimiter(text: str) -> str:
    """Return what cuts header and first rows into equally many cells, most of them; else a comma."""
    lines = text[:SAMPLE_BYTES].splitlines()[:50]
    best, delimiter = (0.0, 1), ","
    for candidate in DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=candidate) if row]
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        score = (sum(width == widths[0] for width in widths) / len(widths), widths[0])
        if score > best:
            best, delimiter = score, candidate
    return delimiter


def _header(text: str, delimiter: str) -> tuple[str, ...]:
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        first = next((row for row in rows if any(map(str.strip, row))), [])
    except csv.Error:
        return ()
    return tuple(name.strip() for name in first)
