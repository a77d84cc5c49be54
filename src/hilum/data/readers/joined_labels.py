"""Cells that join all findings of an image, such as `Mass|Nodule` or `['Mass', 'Nodule']` -> values of each finding."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum.data import csv_file
from hilum.data.readers.base import (
    ColumnMap,
    encode,
    findings_of,
    label_numbers,
    place_of,
    ticked,
)
from hilum.errors import DataError, UsageError
from hilum.progress import count
from hilum.recipe.findings import NO_FINDING, VOCABULARY, in_order, named

SEPARATORS = "|;,"
"""What may join findings in one cell."""

_JOINT = "\n"
"""Joins the parts of a cell that was taken apart; no finding has it in its name."""


@dataclass(frozen=True)
class Labels:
    """What is known of each image's findings.

    Attributes:
        findings: Canonical names.
        values: float64 (rows, findings): 1 present, 0 absent, NaN unknown.
        normal: bool (rows,): the file says `No Finding`.
        notes: What was decided.
    """

    findings: tuple[str, ...]
    values: NDArray[np.float64]
    normal: NDArray[np.bool_]
    notes: tuple[str, ...] = ()


def read_joined(cells: pd.Series, images: pd.Series, *, columns: ColumnMap, path: Path) -> Labels:
    """Read the column `columns.label`.

    Cells that say that nothing is known (`nan`, `Unknown`) are unknown, beside a finding all others are. Lists as
    Python writes them are taken apart. A label such as `Pneumonia/Viral` is a kind of `Pneumonia`, which is present
    too, where the column shows it: see `kinds`.

    Args:
        cells: Its cells, named by it.
        images: The images of the same rows, for messages.
        columns: The column map.
        path: The file, for messages.

    Raises:
        UsageError: The cells are numbers, so that it has to be said what they mean.
        DataError: They name no finding, contradict themselves, or are plainly joined otherwise.
    """
    codes, texts = pd.factorize(cells.str.strip())
    parts = [_parts(text, columns.separator) for text in texts]
    known = [[part for part in told if part.casefold() not in csv_file.UNKNOWN] for told in parts]
    for row, names in enumerate(known):
        if len(names) > 1 and NO_FINDING in map(named, names):
            place = place_of(cells, int(np.argmax(codes == row)), path=path, images=images)
            raise DataError(
                f"{place}: {texts[row]!r} has {NO_FINDING} beside a finding; one of them is wrong"
            )
    labels = {label for names in known for label in names}
    _refuse_numbers(labels, columns, path)
    parents = kinds(labels)
    findings = in_order(findings_of({*labels, *(name for above in parents.values() for name in above)}))
    if not findings:
        raise DataError(
            f"the column {columns.label!r} of {path} names no finding; name another with --column label=COLUMN"
        )
    whole = pd.Series(
        [_JOINT.join(above for name in names for above in (*parents.get(name, ()), name)) for names in known]
    )
    values = encode(whole, findings, separator=_JOINT, path=path)
    silent = np.array([len(names) < len(told) for names, told in zip(known, parts, strict=True)], dtype=bool)
    values[silent[:, None] & (values == 0)] = np.nan
    _open_kinds(values, findings, parents)
    notes = (
        *_joined_otherwise(labels, columns, path),
        *_told_of_kinds(parents),
        *_told_of_unknown(codes, parts, column=columns.label),
    )
    return Labels(findings, values[codes], ticked(whole, separator=_JOINT)[codes], notes)


def kinds(labels: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the findings that each label such as `Pneumonia/Viral/COVID-19` is a kind of, the widest first.

    A slash may also mean `or` (`Mass/Infiltrate`), so that a finding is taken for a wider one only where the labels
    show it: it is a label of its own or begins several, and not all parts of the label are labels of their own. Names
    of the vocabulary (`Nodule/Mass`) are whole.

    Example:
        >>> kinds({"Pneumonia", "Pneumonia/Viral"})
        {'Pneumonia/Viral': ('Pneumonia',)}
    """
    found = {}
    for label in sorted(label for label in labels if "/" in label and named(label) not in VOCABULARY):
        pieces = [piece.strip() for piece in label.split("/")]
        if all(piece in labels for piece in pieces):
            continue
        wider = ["/".join(pieces[:depth]) for depth in range(1, len(pieces))]
        above = tuple(
            name for name in wider if name in labels or sum(one.startswith(f"{name}/") for one in labels) > 1
        )
        if above:
            found[label] = above
    return found


def _parts(text: str, separator: str) -> list[str]:
    """Take a cell apart: a list of Python's, or names with the separator between them."""
    if text.startswith("[") and text.endswith("]"):
        quoted = [first or second for first, second in re.findall(r"'([^']*)'|\"([^\"]*)\"", text)]
        pieces = quoted or text[1:-1].split(",")
    else:
        pieces = text.split(separator)
    return [piece.strip() for piece in pieces if piece.strip()]


def _refuse_numbers(labels: set[str], columns: ColumnMap, path: Path) -> None:
    numbers = pd.to_numeric(pd.Series(sorted(labels), dtype=object), errors="coerce")
    if not labels or numbers.isna().any():
        return
    told = ", ".join(sorted(labels)[:6])
    if label_numbers(pd.Series(sorted(labels), dtype=object)).isna().any():
        raise UsageError(
            f"the column {columns.label!r} of {path} holds the numbers {told}, and names of findings were expected; "
            "write the names in their place"
        )
    raise UsageError(
        f"the column {columns.label!r} of {path} holds {told}: say which finding 1 means, for Pneumonia by "
        f"--column 'image={columns.image}' --column 'finding:Pneumonia={columns.label}'"
    )


def _open_kinds(
    values: NDArray[np.float64], findings: Sequence[str], parents: dict[str, tuple[str, ...]]
) -> None:
    """Make the kinds of a finding unknown in place where it is present and none of them is named."""
    column = {name: place for place, name in enumerate(findings)}
    below: dict[str, set[int]] = {}
    for label, above in parents.items():
        chain = [named(name) for name in (*above, label)]
        for depth, name in enumerate(chain):
            below.setdefault(name, set()).update(column[one] for one in chain[depth + 1 :])
    for name, kinds_of_it in below.items():
        narrower = sorted(kinds_of_it)
        unnamed = (values[:, column[name]] == 1) & (values[:, narrower] != 1).all(axis=1)
        values[np.ix_(unnamed, narrower)] = np.nan


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


def _told_of_kinds(parents: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    if not parents:
        return ()
    label = max(parents, key=lambda name: len(parents[name]))
    wider = " and ".join(parents[label])
    said = f"a slash leads from a finding to its kinds: {label} implies {wider}"
    return (f"{said}; where no kind is named, all kinds are unknown",)


def _told_of_unknown(codes: NDArray[np.intp], parts: list[list[str]], *, column: str) -> tuple[str, ...]:
    words = [{part for part in told if part.casefold() in csv_file.UNKNOWN} for told in parts]
    said = sorted(set().union(*words))
    if not said:
        return ()
    number = int(np.array([bool(some) for some in words])[codes].sum())
    return (f"{count(number, 'cell')} of {column!r} say {', '.join(said)}: what they do not name is unknown",)
