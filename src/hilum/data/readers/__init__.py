"""A folder or a CSV file of any known layout -> a Table. The layouts are in `READERS`."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hilum.data import csv_file
from hilum.data.readers import chexpert, csv_map, folders, kermany, labeled, medmnist, nih, rsna, vinbigdata
from hilum.data.readers.base import POLICIES, ColumnMap, Reader, Request, read_header, remapped
from hilum.data.readers.columns import joined_beside
from hilum.data.table import Table, absolute
from hilum.errors import LayoutError, UsageError, nearest

__all__ = ["POLICIES", "READERS", "ColumnMap", "Reader", "Request", "read"]

READERS: dict[str, Reader] = {
    "kermany": kermany.READER,
    "nih": nih.READER,
    "chexpert": chexpert.READER,
    "rsna": rsna.READER,
    "vinbigdata": vinbigdata.READER,
    "medmnist": medmnist.READER,
    "labeled": labeled.READER,
    "folders": folders.READER,
    "csv": csv_map.READER,
}
"""Layout's name -> its reader."""

_log = logging.getLogger(__name__)


def read(
    source: Path,
    *,
    name: str | None = None,
    images: Path | None = None,
    remap: tuple[str, str] | None = None,
    columns: ColumnMap | None = None,
    uncertain: str = "",
    empty: str = "",
) -> Table:
    """Read a data set of any known layout.

    Args:
        source: A folder, a CSV file, or a table (`.parquet`) written before.
        name: The layout, one of `READERS`; without it the layout is detected.
        images: The folder of the images where it is not the source's own; only rows whose image is in it are
            kept.
        remap: (OLD, NEW): image paths that begin with OLD, since they were written on another machine, begin
            with NEW here.
        columns: Which columns of a CSV file mean what; the layout is then `csv`.
        uncertain: What uncertain labels (-1) become, one of `POLICIES`: `ignore` unknown, `zeros` absent, `ones`
            present; only where the layout has such labels, there `ignore` without it.
        empty: The same of empty labels.

    Returns:
        The table; what was left out, changed or could not be known stands in its `notes` and is logged.

    Raises:
        UsageError: A path is not there, the layout's name is unknown, or an argument does not suit the
            layout.
        LayoutError: No layout or several fit, or images lie in several places.
        DataError: The layout is clear, but its content is not as it should be.
    """
    request = _request(source, images=images, remap=remap, columns=columns)
    for option, policy in (("--uncertain", uncertain), ("--empty", empty)):
        if policy and policy not in POLICIES:
            raise UsageError(f"{option} {policy!r} is no policy; known are: {nearest(policy, POLICIES)}")
    request = replace(request, uncertain=uncertain, empty=empty)
    if request.source.suffix == ".parquet":
        table = _read_stored(request, name)
    else:
        reader = _reader(request, name)
        _check_arguments(request, reader)
        table = _read_layout(request, reader, name)
    for note in table.notes:
        _log.info("%s", note)
    return table


def _request(
    source: Path, *, images: Path | None, remap: tuple[str, str] | None, columns: ColumnMap | None
) -> Request:
    place = absolute(source)
    if not place.exists():
        raise UsageError(f"there is no file or folder {source}")
    if place.is_dir() and not any(place.iterdir()):
        raise LayoutError(f"the folder {source} is empty; radiographs or a CSV file of labels were expected")
    if images is not None and not Path(images).is_dir():
        raise UsageError(f"there is no folder {images} to read images from")
    folder = None if images is None else absolute(images)
    return Request(source=place, images=folder, remap=remap, columns=columns)


def _read_stored(request: Request, name: str | None) -> Table:
    if name is not None or request.columns is not None or request.uncertain or request.empty:
        raise UsageError(
            f"{request.source} is a table already: neither a layout nor a column map nor policies apply to it"
        )
    table = Table.read(request.source, images=request.images)
    if request.remap is None:
        return table
    roots = [remapped(source.root.as_posix(), request.remap) for source in table.sources]
    if roots == [source.root.as_posix() for source in table.sources]:
        raise UsageError(f"no folder of images of {request.source} begins with {request.remap[0]}")
    moved = (replace(old, root=Path(root)) for old, root in zip(table.sources, roots, strict=True))
    return replace(table, sources=tuple(moved))


def _reader(request: Request, name: str | None) -> Reader:
    if name is None and request.columns is not None:
        name = "csv"
    if name is not None:
        if name not in READERS:
            raise UsageError(f"unknown layout {name!r}; known are: {nearest(name, READERS)}")
        return READERS[name]
    fitting = [known for known, reader in READERS.items() if reader.matches(request)]
    # The general layouts fit much that is better known; they stand back for a reader of one data set.
    special = [known for known in fitting if not READERS[known].general]
    chosen: Sequence[str] = special or fitting
    if len(chosen) == 1:
        _refuse_two_labels(request.source)
        return READERS[chosen[0]]
    if chosen:
        raise LayoutError(
            f"{request.source} fits several layouts: {', '.join(chosen)}. Choose with --as NAME."
        )
    csv_file.refuse_spreadsheet(request.source)
    raise LayoutError(
        f"{request.source} is of no known layout; it holds {_seen(request.source)}.\n"
        f"{_advice(request.source)}\n"
        f"Known layouts, by --as NAME: {', '.join(READERS)}; docs/data.md says what each looks like."
    )


def _refuse_two_labels(source: Path) -> None:
    """Refuse a CSV file that holds joined labels and columns of findings: which is meant cannot be told."""
    if not source.is_file() or not csv_file.is_csv(source):
        return
    rows = csv_file.first_rows(source)
    if rows is not None and (told := joined_beside(rows)):
        raise LayoutError(f"{source}: {told}")


def _advice(source: Path) -> str:
    """Say how a set of one's own is read."""
    if source.is_file() and csv_file.is_csv(source):
        return (
            "Name its columns: --column image=COLUMN, and --column label=COLUMN (findings joined in one cell) or "
            "--column finding=COLUMN (1 and 0; repeated); --positive yes where cells are words."
        )
    entries = sorted(source.iterdir()) if source.is_dir() else []
    there = [path for path in entries if path.is_file() and csv_file.is_csv(path)]
    if there:
        return f"Where a CSV file holds the labels, name the file: {there[0]}"
    return f"Of your own it takes {READERS['folders'].expects}, or a CSV file of labels."


def _read_layout(request: Request, reader: Reader, name: str | None) -> Table:
    try:
        return reader.read(request)
    except LayoutError as error:
        if name is None or reader.matches(request):
            raise
        raise LayoutError(f"{error}; the layout {name} expects {reader.expects}") from None


def _check_arguments(request: Request, reader: Reader) -> None:
    name = next(known for known, candidate in READERS.items() if candidate is reader)
    if request.remap is not None and not reader.has_paths:
        raise UsageError(f"--remap changes image paths written in a CSV file; the layout {name} has none")
    if (request.uncertain or request.empty) and not reader.has_policies:
        having = ", ".join(known for known, candidate in READERS.items() if candidate.has_policies)
        raise UsageError(
            f"--uncertain and --empty decide on labels of -1 and without a value; the layout {name} has none, "
            f"these have: {having}"
        )
    if request.columns is not None and name != "csv":
        raise UsageError(f"a column map belongs to the layout csv, not to {name}")


def _seen(source: Path) -> str:
    """Describe a source that no reader knows, without names of image files, which may belong to patients."""
    if source.is_file():
        return f"one file that ends in {source.suffix or 'nothing'}" + _header(source)
    entries = sorted(source.iterdir())
    folders = [entry.name for entry in entries if entry.is_dir()]
    endings = Counter(entry.suffix.lower() or "none" for entry in entries if not entry.is_dir())
    shown = ", ".join(folders[:8]) + (", ..." if len(folders) > 8 else "")
    counted = ", ".join(f"{ending} {count:,}" for ending, count in endings.most_common(8))
    return f"folders: {shown or 'none'}; files by ending: {counted or 'none'}"


def _header(source: Path) -> str:
    header = read_header(source)
    return f" with the columns {', '.join(header)[:2000]}" if header else ""
