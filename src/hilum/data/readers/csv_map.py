"""Any CSV file of labels -> a Table, by a map of its columns.

Layout: one row an image, a header, the columns that `ColumnMap` names. Without a map, a file whose columns are plain
(see `columns.py`) reads itself. Paths are relative to the folder of the images (`--images`, else the file's own folder)
or absolute; those of Windows are read too.

Citation, terms, where: unknown; they are the user's to know.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum.data import csv_file
from hilum.data.readers.base import (
    SEX_MEANINGS,
    SPLIT_MEANINGS,
    ColumnMap,
    Reader,
    Request,
    decide,
    file_names,
    numbers_or_empty,
    parse_ages,
    parse_choice,
    parse_views,
    patients_from_names,
    remapped,
    require_columns,
    rows_to_keep,
    states,
    walk_images,
)
from hilum.data.readers.columns import plain_columns
from hilum.data.readers.joined_labels import Labels, read_joined
from hilum.data.table import KnownColumns, Source, Table, make_frame
from hilum.errors import DataError, LayoutError, UsageError, nearest
from hilum.recipe.findings import NO_FINDING

_OPTIONAL = ("patient", "study", "view", "sex", "age", "split")


def matches(request: Request) -> bool:
    """Return whether the source is a CSV file of images and findings by its first rows, or cannot be read as one."""
    if not request.source.is_file() or not csv_file.is_csv(request.source):
        return False
    rows = csv_file.first_rows(request.source)
    # What is wrong with a file is told where it is read.
    return rows is None or plain_columns(rows).is_meant


def read(request: Request) -> Table:
    """Read the file; see the module for the layout."""
    if not request.source.is_file():
        raise LayoutError(f"{request.source} is a folder; the layout csv expects a CSV file")
    if request.columns is not None:
        return read_mapped(request, request.columns)
    frame = csv_file.read(request.source).frame
    plain = plain_columns(frame)
    if plain.problem:
        raise LayoutError(f"{request.source}: {plain.problem}")
    if plain.columns is None:
        raise UsageError(
            f"{request.source} needs a column map: its columns are {', '.join(map(str, frame.columns))}; give "
            "--column image=COLUMN, and --column label=COLUMN or --column finding=COLUMN for each"
        )
    table = read_mapped(request, plain.columns)
    return replace(table, notes=(*plain.notes, *table.notes))


READER = Reader(
    expects="a CSV file with a column of images, and one of joined labels or of 1 and 0 for each finding (--column)",
    matches=matches,
    read=read,
    general=True,
    has_paths=True,
    has_policies=True,
)


def parse_columns(pairs: Sequence[str], *, separator: str = "|", positive: Sequence[str] = ()) -> ColumnMap:
    """Read a column map as it is given on a command line.

    Args:
        pairs: Texts such as `"image=file"`; the left is a field of `ColumnMap`, the right a column; `finding` may
            occur several times, and be `finding:NAME` where the finding has another name than its column.
        separator: What joins findings in the column `label`.
        positive: Cells that mean present.

    Raises:
        UsageError: A text is no pair, or its left side is unknown or occurs twice, or `image` is missing.

    Example:
        >>> parse_columns(["image=file", "finding=Mass"]).findings
        ('Mass',)
    """
    known = ("image", "patient", "study", "label", "finding", "view", "sex", "age", "split")
    told: dict[str, Any] = {}
    findings: dict[str, str] = {}
    for pair in pairs:
        field, equals, column = (part.strip() for part in pair.partition("="))
        if not equals or not column:
            raise UsageError(
                f"--column {pair!r} is not of the form FIELD=COLUMN, for example image=file_name"
            )
        name, _, finding = field.partition(":")
        if name not in known or (finding and name != "finding"):
            raise UsageError(f"--column {pair!r}: unknown field {field!r}; known are: {nearest(name, known)}")
        if name == "finding":
            findings[column] = finding or column
        elif name in told:
            raise UsageError(f"--column {name}= is given twice: {told[name]!r} and {column!r}")
        else:
            told[name] = column
    if "image" not in told:
        raise UsageError("a column map needs --column image=COLUMN: the paths of the images")
    return ColumnMap(
        **told,
        findings=tuple(findings),
        called=tuple((column, name) for column, name in findings.items() if name != column),
        separator=separator,
        positive=tuple(positive),
    )


def read_mapped(request: Request, columns: ColumnMap) -> Table:
    """Read the CSV file `request.source` by a column map."""
    path = request.source
    _check_findings(columns)
    file = csv_file.read(path)
    frame = file.frame
    named = (columns.image, columns.label, *(getattr(columns, name) for name in _OPTIONAL))
    require_columns(frame, [*filter(None, named), *columns.findings], path=path)
    root, images, notes = _place(frame[columns.image].str.strip(), request)
    _refuse_twice(images, frame[columns.image], file)
    labels = _labels(frame, images, columns, request)
    known, known_notes = _known(frame, columns)
    patient, patient_notes = _patients(_cells(frame, columns.patient), images)
    name = csv_file.stem(path)
    source = Source(
        name,
        root,
        citation="unknown",
        terms="; ".join(("unknown", *patient_notes)),
        states_no_finding=states(labels.values, labels.findings, labels.normal),
    )
    table = Table(
        frame=make_frame(
            image=images,
            source=name,
            patient=patient,
            findings=labels.findings,
            labels=labels.values,
            **known,
        ),
        findings=labels.findings,
        sources=(source,),
        notes=(*file.notes, *notes, *labels.notes, *known_notes, *patient_notes),
    )
    found = np.ones(len(table), dtype=bool)
    found[table.missing_images()] = False
    kept, left_out = rows_to_keep(found, place=root, required=request.images is not None)
    return replace(table.select(kept), notes=(*table.notes, *left_out))


def _check_findings(columns: ColumnMap) -> None:
    if columns.label and columns.findings:
        raise UsageError(
            f"--column label={columns.label} and --column finding={columns.findings[0]} were both given: one column of "
            "joined findings, or a column for each finding, is expected"
        )
    if not columns.label and not columns.findings:
        raise UsageError(
            "a column map needs the findings: --column label=COLUMN where one column joins them, else "
            "--column finding=COLUMN for each"
        )


def _cells(frame: pd.DataFrame, column: str) -> pd.Series:
    """Return the trimmed cells of a column, empty where nothing is known or the file has no such column."""
    if not column:
        return pd.Series([""] * len(frame), dtype=object)
    return csv_file.without_unknown(frame[column])[0]


def _known(frame: pd.DataFrame, columns: ColumnMap) -> tuple[KnownColumns, tuple[str, ...]]:
    """Return what the file knows of each image besides patient and findings, and notes on it."""
    view, view_notes = parse_views(_cells(frame, columns.view), column=columns.view)
    sex, sex_notes = parse_choice(_cells(frame, columns.sex), SEX_MEANINGS, column=columns.sex)
    split, split_notes = parse_choice(_cells(frame, columns.split), SPLIT_MEANINGS, column=columns.split)
    age, age_notes = parse_ages(_cells(frame, columns.age))
    known = KnownColumns(
        study=_cells(frame, columns.study).tolist(),
        view=view.tolist(),
        sex=sex.tolist(),
        age=age,
        split=split.tolist(),
    )
    return known, (*view_notes, *sex_notes, *split_notes, *age_notes)


def _place(written: pd.Series, request: Request) -> tuple[Path, pd.Series, tuple[str, ...]]:
    """Find the root of the images, and their paths relative to it."""
    base = request.images or request.source.parent
    if (written == "").any():
        lines = csv_file.read(request.source).lines(str(written.name), [""])
        raise DataError(f"{request.source}, line {lines[0]}: the column {written.name!r} holds no image path")
    notes: tuple[str, ...] = ()
    if written.str.contains("\\", regex=False).any():
        written = written.str.replace("\\", "/", regex=False)
        notes = ("image paths are Windows', with back-slashes between folders",)
    if request.remap is not None:
        moved = written.map(lambda text: remapped(text, request.remap))
        if (moved == written).all():
            raise UsageError(
                f"--remap: no image path of {request.source} begins with {request.remap[0]!r}; "
                f"the first is {written.iloc[0]}"
            )
        written = moved
    full = written.map(lambda text: os.path.normpath(base / text))
    # Elsewhere than on Windows, a path with a drive looks like one inside of the base.
    elsewhere = written.map(lambda text: bool(PureWindowsPath(text).drive) and not Path(text).is_absolute())
    if not elsewhere.any() and all(path.startswith(f"{base}{os.sep}") for path in full):
        root = base
    elif request.images is not None or elsewhere.any():
        # The paths were written elsewhere; a name that is the only one of its kind still tells which image it
        # is.
        images, by_name = _found_by_name(written, base, request.source)
        return base, images, (*notes, *by_name)
    else:
        root = Path(os.path.commonpath([os.path.dirname(path) for path in full]))  # noqa: PTH120
    return root, full.map(lambda path: Path(os.path.relpath(path, root)).as_posix()), notes


def _found_by_name(written: pd.Series, folder: Path, source: Path) -> tuple[pd.Series, tuple[str, ...]]:
    names = file_names(written)
    there = pd.Series(list(walk_images(folder)), dtype=object)
    by_name = pd.Series(there.to_numpy(), index=file_names(there))
    wanted = by_name[by_name.index.isin(names)]
    if names.duplicated().any() or wanted.index.has_duplicates:
        raise LayoutError(
            f"the image paths of {source} lead out of {folder}, and file names alone are not unique; "
            "mend the paths with --remap OLD=NEW"
        )
    if not len(wanted):
        return names, ()
    images = names.map(wanted).where(names.isin(wanted.index), names)
    return images, (f"images were found under {folder.name} by their file names, not by the written paths",)


def _refuse_twice(images: pd.Series, written: pd.Series, file: csv_file.CsvFile) -> None:
    again = images[images.duplicated()]
    if not len(again):
        return
    first = again.iloc[0]
    lines = file.lines(str(written.name), written[images == first])
    raise DataError(
        f"{file.path} names {first} twice, in lines {' and '.join(map(str, lines))} ({len(again):,} rows too many "
        "in all): keep one row an image"
    )


def _labels(frame: pd.DataFrame, images: pd.Series, columns: ColumnMap, request: Request) -> Labels:
    if not columns.label:
        return _labels_of_columns(frame, images, columns, request)
    if request.uncertain or request.empty or columns.positive:
        raise UsageError(
            f"--uncertain, --empty and --positive decide on cells of one finding; {columns.label!r} joins several"
        )
    return read_joined(frame[columns.label].str.strip(), images, columns=columns, path=request.source)


def _labels_of_columns(
    frame: pd.DataFrame, images: pd.Series, columns: ColumnMap, request: Request
) -> Labels:
    _refuse_twins(columns, request.source)
    notes: tuple[str, ...] = ()
    if columns.positive:
        values, notes = _told_by(frame, columns)
    else:
        try:
            values = {
                columns.finding_of(name): numbers_or_empty(frame[name], path=request.source, images=images)
                for name in columns.findings
            }
        except DataError as error:
            mapped = "" if request.columns else ", beside a column map (--column)"
            raise DataError(f"{error}; or name the cell that means present with --positive{mapped}") from None
    unknown = (note for name in columns.findings for note in csv_file.without_unknown(frame[name])[1])
    normal = values.pop(NO_FINDING, np.zeros(len(frame))) == 1
    if not values:
        raise UsageError(
            "a column map needs a finding besides No Finding, which is the absence of the others"
        )
    labels, decided = decide(np.stack(list(values.values()), axis=1), request, normal=normal)
    return Labels(tuple(values), labels, normal, (*notes, *unknown, *decided))


def _refuse_twins(columns: ColumnMap, path: Path) -> None:
    first: dict[str, str] = {}
    for name in columns.findings:
        other = first.setdefault(columns.finding_of(name), name)
        if other != name:
            raise DataError(
                f"{path}: the columns {other!r} and {name!r} both mean {columns.finding_of(name)}; name one of them "
                "with --column finding=COLUMN"
            )


def _told_by(
    frame: pd.DataFrame, columns: ColumnMap
) -> tuple[dict[str, NDArray[np.float64]], tuple[str, ...]]:
    """Read finding columns whose cells are words: which of them mean present is given, the others mean absent."""
    present = {text.strip().casefold() for text in columns.positive}
    values, others = {}, set()
    for name in columns.findings:
        cells = csv_file.without_unknown(frame[name])[0].str.casefold()
        values[columns.finding_of(name)] = np.where(cells == "", np.nan, cells.isin(present).to_numpy(float))
        others |= set(cells) - present - {""}
    if all((value != 1).all() for value in values.values()):
        raise UsageError(
            f"no cell of {', '.join(columns.findings)} is {' or '.join(columns.positive)}; "
            f"there are: {', '.join(sorted(others)[:8])}"
        )
    shown = ", ".join(sorted(others)[:8]) + (", ..." if len(others) > 8 else "")
    return values, (f"cells of {shown} mean absent",) if others else ()


def _patients(written: pd.Series, images: pd.Series) -> tuple[pd.Series, tuple[str, ...]]:
    empty = written == ""
    if empty.all():
        return patients_from_names(images)
    if not empty.any():
        return written, ()
    note = f"{int(empty.sum()):,} rows name no patient: each of these images is its own patient"
    return written.where(~empty, images), (note,)
