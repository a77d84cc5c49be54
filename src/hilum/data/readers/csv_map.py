"""Any CSV file of labels -> a Table, by a map of its columns.

Layout: one row an image, a header, the columns that `ColumnMap` names. Without a map, a file whose columns
are named as a table's (`image`, and `label` or findings; perhaps `patient`, `study`, `view`, `sex`, `age`,
`split`) reads itself. Paths are relative to the folder of the images (`--images`, else the file's own folder)
or absolute.

Citation, terms, where: unknown; they are the user's to know.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum.data.readers.base import (
    SEX_MEANINGS,
    SPLIT_MEANINGS,
    VIEW_MEANINGS,
    ColumnMap,
    Reader,
    Request,
    decide,
    encode,
    file_names,
    findings_of,
    numbers_or_empty,
    parse_ages,
    parse_choice,
    patients_from_names,
    read_csv,
    read_header,
    remapped,
    require_columns,
    rows_to_keep,
    states,
    ticked,
    walk_images,
)
from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError, LayoutError, UsageError, nearest
from hilum.recipe.findings import NO_FINDING, VOCABULARY, in_order, named

SEPARATORS = "|;,"
"""What may join findings in the column label."""
_OPTIONAL = ("patient", "study", "view", "sex", "age", "split")


def matches(request: Request) -> bool:
    """Return whether the source is a CSV file whose columns are named as a table's."""
    return _own_names(read_header(request.source)) is not None


def read(request: Request) -> Table:
    """Read the file; see the module for the layout."""
    if not request.source.is_file():
        raise LayoutError(f"{request.source} is a folder; the layout csv expects a CSV file")
    if request.columns is not None:
        return read_mapped(request, request.columns)
    header = tuple(read_csv(request.source).columns)
    columns = _own_names(header)
    if columns is None:
        raise UsageError(
            f"{request.source} needs a column map: its columns are {', '.join(header)}; "
            "without one (--column image=COLUMN, and --column label=COLUMN or --column finding=COLUMN), columns named "
            "image and label, or image and findings, were expected"
        )
    return read_mapped(request, columns)


READER = Reader(
    expects="a CSV file with a column map (--column), or with columns named image and label, or image and findings",
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
            occur several times.
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
    findings: list[str] = []
    for pair in pairs:
        name, equals, column = (part.strip() for part in pair.partition("="))
        if not equals or not column:
            raise UsageError(
                f"--column {pair!r} is not of the form FIELD=COLUMN, for example image=file_name"
            )
        if name not in known:
            raise UsageError(f"--column {pair!r}: unknown field {name!r}; known are: {nearest(name, known)}")
        if name == "finding":
            findings.append(column)
        elif name in told:
            raise UsageError(f"--column {name}= is given twice: {told[name]!r} and {column!r}")
        else:
            told[name] = column
    if "image" not in told:
        raise UsageError("a column map needs --column image=COLUMN: the paths of the images")
    return ColumnMap(**told, findings=tuple(findings), separator=separator, positive=tuple(positive))


def read_mapped(request: Request, columns: ColumnMap) -> Table:
    """Read the CSV file `request.source` by a column map."""
    path = request.source
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
    frame = read_csv(path)
    asked = {
        name: getattr(columns, name) for name in ("image", "label", *_OPTIONAL) if getattr(columns, name)
    }
    require_columns(frame, [*asked.values(), *columns.findings], path=path)

    def cells(name: str) -> pd.Series:
        return frame[asked[name]].str.strip() if name in asked else pd.Series([""] * len(frame), dtype=object)

    root, images, notes = _place(cells("image"), request)
    findings, labels, normal, label_notes = _labels(frame, columns, request)
    view, view_notes = parse_choice(cells("view"), VIEW_MEANINGS, column=columns.view)
    sex, sex_notes = parse_choice(cells("sex"), SEX_MEANINGS, column=columns.sex)
    split, split_notes = parse_choice(cells("split"), SPLIT_MEANINGS, column=columns.split)
    age, age_notes = parse_ages(cells("age"))
    patient, patient_notes = _patients(cells("patient"), images)
    table = Table(
        frame=make_frame(
            image=images,
            source=path.stem,
            patient=patient,
            study=cells("study"),
            view=view,
            sex=sex,
            age=age,
            split=split,
            findings=findings,
            labels=labels,
        ),
        findings=findings,
        sources=(
            Source(
                path.stem,
                root,
                citation="unknown",
                terms="; ".join(("unknown", *patient_notes)),
                states_no_finding=states(labels, findings, normal),
            ),
        ),
        notes=(*notes, *label_notes, *view_notes, *sex_notes, *split_notes, *age_notes, *patient_notes),
    )
    found = np.ones(len(table), dtype=bool)
    found[table.missing_images()] = False
    kept, left_out = rows_to_keep(found, place=root, required=request.images is not None)
    return replace(table.select(kept), notes=(*table.notes, *left_out))


def _own_names(header: Sequence[str]) -> ColumnMap | None:
    """Return the map of a file whose columns are named as a table's, else None."""
    findings = tuple(name for name in header if named(name) in VOCABULARY)
    if "image" not in header or not (findings or "label" in header):
        return None
    there: dict[str, Any] = {name: name for name in ("image", "label", *_OPTIONAL) if name in header}
    return replace(ColumnMap(**there), findings=() if "label" in header else findings)


def _place(written: pd.Series, request: Request) -> tuple[Path, pd.Series, tuple[str, ...]]:
    """Find the root of the images, and their paths relative to it."""
    base = request.images or request.source.parent
    if request.remap is not None:
        moved = written.map(lambda text: remapped(text, request.remap))
        if (moved == written).all():
            raise UsageError(f"--remap: no image path of {request.source} begins with {request.remap[0]!r}")
        written = moved
    if (written == "").any():
        row = int(np.flatnonzero(written == "")[0])
        raise DataError(f"{request.source} has no image path in row {row + 1} after the header")
    full = written.map(lambda text: os.path.normpath(base / text))
    if all(path.startswith(f"{base}{os.sep}") for path in full):
        root = base
    elif request.images is not None:
        # The paths were written elsewhere; a name that is the only one of its kind still tells which image it
        # is.
        return _place_by_name(written, request.images, request.source)
    else:
        root = Path(os.path.commonpath([os.path.dirname(path) for path in full]))  # noqa: PTH120
    return root, full.map(lambda path: Path(os.path.relpath(path, root)).as_posix()), ()


def _place_by_name(written: pd.Series, folder: Path, source: Path) -> tuple[Path, pd.Series, tuple[str, ...]]:
    names = file_names(written.str.replace("\\", "/", regex=False))
    there = pd.Series(list(walk_images(folder)), dtype=object)
    by_name = pd.Series(there.to_numpy(), index=file_names(there))
    wanted = by_name[by_name.index.isin(names)]
    if names.duplicated().any() or wanted.index.has_duplicates:
        raise LayoutError(
            f"the image paths of {source} lead out of {folder}, and file names alone are not unique; "
            "mend the paths with --remap OLD=NEW"
        )
    images = names.map(wanted).where(names.isin(wanted.index), names)
    return (
        folder,
        images,
        (f"images were found under {folder.name} by their file names, not by the written paths",),
    )


def _labels(
    frame: pd.DataFrame, columns: ColumnMap, request: Request
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.bool_], tuple[str, ...]]:
    """Return findings, values (rows, findings), the rows that are told to have no finding, and notes."""
    if not columns.label:
        return _labels_of_columns(frame, columns, request)
    path = request.source
    if request.uncertain or request.empty or columns.positive:
        raise UsageError(
            f"--uncertain, --empty and --positive decide on cells of one finding; {columns.label!r} joins several"
        )
    cells = frame[columns.label].str.strip()
    parts = {
        part.strip() for text in cells.unique() for part in text.split(columns.separator) if part.strip()
    }
    findings = in_order(findings_of(parts))
    if not findings:
        raise DataError(
            f"the column {columns.label!r} of {path} names no finding; name another with --column label=COLUMN"
        )
    notes = _joined_otherwise(parts, columns, path)
    labels = encode(cells, findings, separator=columns.separator, path=path)
    return findings, labels, ticked(cells, separator=columns.separator), notes


def _joined_otherwise(parts: set[str], columns: ColumnMap, path: Path) -> tuple[str, ...]:
    """Look for what joins findings besides the separator: refused where that is sure, else a note."""
    notes = []
    for sign in (sign for sign in SEPARATORS if sign != columns.separator):
        joined = sorted(part for part in parts if sign in part and named(part) not in VOCABULARY)
        alone = {named(part) for part in parts if sign not in part} | VOCABULARY.keys()
        mend = f"where {sign!r} joins findings, give --separator '{sign}'"
        for part in joined:
            if all(named(piece) in alone for piece in part.split(sign) if piece.strip()):
                raise DataError(f"the column {columns.label!r} of {path} holds {part!r}: {mend}")
        if joined:
            notes.append(f"labels such as {joined[0]!r} are taken for one finding; {mend}")
    return tuple(notes)


def _labels_of_columns(
    frame: pd.DataFrame, columns: ColumnMap, request: Request
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.bool_], tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if columns.positive:
        values, notes = _told_by(frame, columns)
    else:
        try:
            values = {
                named(name): numbers_or_empty(frame[name], path=request.source) for name in columns.findings
            }
        except DataError as error:
            mapped = "" if request.columns else ", beside a column map (--column)"
            raise DataError(f"{error}; or name the cell that means present with --positive{mapped}") from None
    normal = values.pop(NO_FINDING, np.zeros(len(frame))) == 1
    if not values:
        raise UsageError(
            "a column map needs a finding besides No Finding, which is the absence of the others"
        )
    labels, decided = decide(np.stack(list(values.values()), axis=1), request, normal=normal)
    return tuple(values), labels, normal, (*notes, *decided)


def _told_by(
    frame: pd.DataFrame, columns: ColumnMap
) -> tuple[dict[str, NDArray[np.float64]], tuple[str, ...]]:
    """Read finding columns whose cells are words: which of them mean present is given, the others mean absent."""
    present = {text.strip().casefold() for text in columns.positive}
    values, others = {}, set()
    for name in columns.findings:
        cells = frame[name].str.strip().str.casefold()
        values[named(name)] = np.where(cells == "", np.nan, cells.isin(present).to_numpy(float))
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
