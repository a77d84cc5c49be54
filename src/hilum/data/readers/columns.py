"""The header and cells of a CSV file -> the column map that they plainly mean, or why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hilum.data import csv_file
from hilum.data.readers.base import ColumnMap, label_numbers
from hilum.data.table import COLUMNS
from hilum.images import IMAGE_SUFFIXES
from hilum.recipe.findings import VOCABULARY, named

ALIASES: dict[str, tuple[str, ...]] = {
    "image": csv_file.IMAGE_NAMES,
    "label": ("label", "labels", "findinglabels"),
    "patient": ("patient", "patientid", "pid", "subject", "subjectid", "patientennummer"),
    "study": ("study", "studyid", "studyinstanceuid"),
    "view": ("view", "viewposition", "projection"),
    "sex": ("sex", "gender", "patientsex", "patientgender", "geschlecht"),
    "age": ("age", "patientage", "alter"),
    "split": ("split", "subset", "partition"),
}
"""Field of a column map -> names of columns that plainly mean it, as `csv_file.key` writes them."""

_NO_FINDINGS = frozenset(
    {
        "id",
        "index",
        "row",
        "number",
        "nr",
        "no",
        "followup",
        "fold",
        "weight",
        "height",
        "width",
        "rows",
        "columns",
        "male",
        "female",
        "frontal",
        "lateral",
        "year",
        "date",
        "time",
        "unnamed",
    }
)
"""Names, as `csv_file.key` writes them, of columns that are no findings though their cells be 0 and 1."""


@dataclass(frozen=True)
class PlainColumns:
    """What the columns of a file plainly mean.

    Attributes:
        columns: The map; None where there is no plain one.
        problem: Why there is none though the file is one of images and findings; empty where it is not.
        notes: What was chosen and what is left out.
    """

    columns: ColumnMap | None = None
    problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_meant(self) -> bool:
        """Whether the file is one of images and findings, be it plain or not."""
        return self.columns is not None or bool(self.problem)


def plain_columns(frame: pd.DataFrame) -> PlainColumns:
    """Find the columns of images, findings, patients and the rest by their names and cells.

    The image's column and that of joined labels are known by name, findings by the vocabulary or by cells of 1, 0, -1
    or nothing. Nothing is chosen where two columns could be meant.

    Args:
        frame: Cells as text.
    """
    fields = {name: _meant(name, frame) for name in ALIASES}
    images, labels = fields["image"], fields["label"]
    findings = finding_columns(frame)
    if not images or not (labels or findings):
        return PlainColumns()
    if len(images) > 1:
        told = " or ".join(map(repr, images))
        return PlainColumns(
            problem=f"its images are in {told}: say which with --column 'image=COLUMN', and name the findings"
        )
    if labels and findings:
        return PlainColumns(problem=told_twice(images[0], labels[0], findings))
    chosen: dict[str, Any] = {name: found[0] for name, found in fields.items() if len(found) == 1}
    if len(labels) > 1:
        return PlainColumns(
            problem=f"its labels are in {' or '.join(map(repr, labels))}: name one with --column"
        )
    columns = ColumnMap(**chosen, findings=findings)
    rest = [name for name in map(str, frame.columns) if name not in (*chosen.values(), *findings)]
    return PlainColumns(columns, notes=(_choice(chosen, findings, rest),))


def finding_columns(frame: pd.DataFrame, *, words: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the columns that are findings by their name or their cells.

    Args:
        frame: Cells as text.
        words: Cells, in lower case, that are taken for 1 or 0 besides numbers.
    """
    other = {alias for aliases in ALIASES.values() for alias in aliases} | _NO_FINDINGS | {*COLUMNS, ""}
    return tuple(
        name
        for name in map(str, frame.columns)
        if named(name) in VOCABULARY or (csv_file.key(name) not in other and _is_binary(frame[name], words))
    )


def joined_beside(frame: pd.DataFrame) -> str:
    """Return what to say of a file that has joined labels and findings in columns of their own; empty for another."""
    images, labels = _meant("image", frame), _meant("label", frame)
    findings = finding_columns(frame, words=("yes", "no", "ja", "nein"))
    return told_twice(images[0], labels[0], findings) if images and labels and findings else ""


def told_twice(image: str, label: str, findings: Sequence[str]) -> str:
    """Return the refusal of a file that has both, with the options that choose."""
    return (
        f"it holds findings twice, joined in {label!r} and in columns of their own ({_few(findings)}): say which with "
        f"--column 'image={image}' and either --column 'label={label}' or --column 'finding={findings[0]}' and so on "
        "(--positive YES where YES means present)"
    )


def _meant(field: str, frame: pd.DataFrame) -> list[str]:
    """Return the columns that a field may mean; one where its own name is there, or where one alone holds images."""
    names = [name for name in map(str, frame.columns) if csv_file.key(name) in ALIASES[field]]
    if field in names:
        return [field]
    if field == "image" and len(names) > 1:
        holding = [name for name in names if _holds_images(frame[name])]
        return holding if len(holding) == 1 else names
    return names


def _holds_images(cells: pd.Series) -> bool:
    return bool(cells.str.strip().str.lower().str.endswith(IMAGE_SUFFIXES).all())


def _is_binary(cells: pd.Series, words: Sequence[str]) -> bool:
    texts = csv_file.without_unknown(pd.Series(cells.unique(), dtype=object, name=cells.name))[0]
    texts = texts[(texts != "") & ~texts.str.casefold().isin(words)]
    if not len(texts):
        return bool(words) and bool(cells.str.strip().str.casefold().isin(words).any())
    return bool(label_numbers(texts).notna().all())


def _choice(chosen: dict[str, str], findings: Sequence[str], rest: Sequence[str]) -> str:
    """Say which columns were taken for what."""
    fields = ", ".join(f"{name} from {column!r}" for name, column in chosen.items())
    told = f"; findings from {_few(findings)}" if findings else ""
    left_out = (
        f"; left out: {_few(['a column without a name' if name.startswith('Unnamed: ') else name for name in rest])}"
        if rest
        else ""
    )
    return f"columns were chosen by name and cells: {fields}{told}{left_out}; --column chooses others"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
