"""One row an image: where it lies, whose it is and what is known of its findings; stored as Parquet."""

import hashlib
import html
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd
import pyarrow  # noqa: ICN001
from numpy.typing import ArrayLike, NDArray
from pyarrow import parquet

from hilum import files
from hilum.errors import DataError, ImageError, UsageError, nearest
from hilum.images import Location, list_members, stack_members
from hilum.recipe.findings import DEVICES, NO_FINDING, named

FORMAT = 1
"""Number of the stored form; bumped when an older Hilum could not read a new file rightly."""

COLUMNS = ("image", "source", "patient", "study", "view", "sex", "age", "width", "height", "split")
"""The columns before the findings."""

BOX_COLUMNS = ("image", "finding", "x", "y", "width", "height")
SPLITS = ("train", "val", "test")
VIEWS = ("PA", "AP", "LATERAL")
SEXES = ("F", "M", "O")
MEMBER = "::"
"""Stands between an archive and its member in an image's path."""

_TEXT = ("image", "source", "patient", "study", "view", "sex", "split")
_ALLOWED = {"view": VIEWS, "sex": SEXES, "split": SPLITS}
_METADATA = b"hilum"


@dataclass(frozen=True)
class Source:
    """A data set that rows come from.

    Attributes:
        name: What the `source` column says; bytes of a folder's name that are no UTF-8 are escaped.
        root: The folder that image paths are relative to; kept absolute.
        citation: The publication to cite.
        terms: Licence or terms of use, and what a user must know of the labels.
        states_no_finding: Whether its labels say of a film that nothing was found (`No Finding`, `Normal`), so that an
            image with none of the findings it knows has no other finding either. Labels of one finding alone do not.
    """

    name: str
    root: Path
    citation: str
    terms: str
    states_no_finding: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", files.printable(self.name))
        object.__setattr__(self, "root", absolute(self.root))


def no_boxes() -> pd.DataFrame:
    """Return the boxes of a table without boxes: the columns, no rows."""
    text = pd.Series([], dtype=str)
    number = pd.Series([], dtype="float64")
    return pd.DataFrame({name: text if name in ("image", "finding") else number for name in BOX_COLUMNS})


@dataclass(frozen=True, eq=False)
class Table:
    """Radiographs with what is known of them, checked at construction; changes make a new table.

    Attributes:
        frame: One row an image, a RangeIndex, and the columns `COLUMNS`, then one float64 column a finding:
            1 present, 0 absent, NaN unknown. Paths are relative to the source's root, with `/` between
            folders, `archive.zip::member` for an image inside an archive (`.tar`, `.tar.gz` and `.tgz` too),
            and `archive.npz::stack.npy/17` for one of a stack of arrays. `age` is float64 years, NaN unknown;
            `width` and `height` are those of the original, int64, 0 unknown; text is never null, empty means
            unknown (`image`, `source` and `patient` are never empty). Not to be written to.
        findings: Names of the finding columns, in their order.
        sources: The data sets that the rows come from.
        boxes: Columns `BOX_COLUMNS`; x, y (of the upper left corner), width and height are float64 fractions
            of the original's sides. Not to be written to.
        notes: What a reader left out, changed or could not know, a line each.
    """

    frame: pd.DataFrame
    findings: tuple[str, ...]
    sources: tuple[Source, ...]
    boxes: pd.DataFrame = field(default_factory=no_boxes)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Copies share their values with the caller's frames until either is written to.
        object.__setattr__(self, "frame", self.frame.copy())
        object.__setattr__(self, "boxes", self.boxes.reset_index(drop=True))
        object.__setattr__(self, "findings", tuple(self.findings))
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "notes", tuple(self.notes))
        _check_columns(self.frame, self.findings)
        _check_values(self.frame, self.findings)
        _check_sources(self.frame, self.sources)
        _check_boxes(self.boxes, self.frame, self.findings)

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        names = ", ".join(source.name for source in self.sources)
        return f"Table({len(self):,} images of {self.num_patients:,} patients, findings={list(self.findings)}, {names})"

    def _repr_html_(self) -> str:
        counts = {name: [(self.frame[name] == value).sum() for value in (1, 0)] for name in self.findings}
        grid = pd.DataFrame(counts, index=["present", "absent"]).T
        grid["unknown"] = len(self) - grid.sum(axis=1)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        head = f"<p>{len(self):,} images of {self.num_patients:,} patients</p>"
        return f"{head}{grid.to_html()}<ul>{notes}</ul>{self.frame.head(3).to_html(max_cols=14)}"

    @property
    def num_patients(self) -> int:
        """How many patients there are; the same number in two sources is two patients."""
        return int(self.frame.groupby(["source", "patient"], sort=False).ngroups)

    @property
    def patient_keys(self) -> NDArray[np.str_]:
        """Each row's patient as `source:patient`, str (rows,); the same number in two sources is two patients."""
        return np.asarray(self.frame["source"] + ":" + self.frame["patient"], dtype=str)

    def location(self, row: int) -> Location:
        """Return where the image file of a row (counted from 0) lies."""
        root = self._root(self.frame["source"].iloc[row])
        archive, _, member = str(self.frame["image"].iloc[row]).partition(MEMBER)
        return Location(root / archive, member or None)

    def labels(self, findings: Sequence[str]) -> NDArray[np.float32]:
        """Return the values of some findings.

        Args:
            findings: Names in any spelling of the vocabulary, or the table's own in any letter case. `No Finding`,
                which no table holds, is derived: present where every finding of the table is known to be absent, absent
                where any is present, else unknown. Support devices do not count.

        Returns:
            float32 (rows, findings): 1 present, 0 absent, NaN unknown.

        Raises:
            UsageError: The table does not know a finding.
        """
        own = {
            NO_FINDING.casefold(): NO_FINDING,
            **{finding.casefold(): finding for finding in self.findings},
        }
        names = [own.get(named(name).casefold(), named(name)) for name in findings]
        for name in names:
            if name not in self.findings and name != NO_FINDING:
                raise UsageError(f"the table has no finding {name!r}; it has: {nearest(name, self.findings)}")
        frame = self.frame
        if NO_FINDING in names:
            frame = frame.assign(**{NO_FINDING: self._nothing_found()})
        values: NDArray[np.float32] = frame[names].to_numpy(np.float32)
        return values

    def missing_images(self) -> NDArray[np.int64]:
        """Return the rows (int64, ascending) whose image file is not there.

        Every folder and archive is listed once; no image is opened.
        """
        names_in = cache(_names_in)
        roots = {source.name: source.root for source in self.sources}
        missing = []
        for row, (image, source) in enumerate(self.frame[["image", "source"]].to_numpy(object)):
            archive, _, member = image.partition(MEMBER)
            folder, _, name = (archive, "", member) if member else image.rpartition("/")
            if name not in names_in(roots[source], folder):
                missing.append(row)
        return np.array(missing, dtype=np.int64)

    def with_split(self, splits: Sequence[str]) -> "Table":
        """Return the table with another `split` column: train, val, test or empty, one a row."""
        if len(splits) != len(self):
            raise DataError(
                f"{len(splits)} splits arrived for a table of {len(self)} rows; one a row was expected"
            )
        return replace(self, frame=self.frame.assign(split=pd.Series(list(splits), dtype=str)))

    def select(self, mask: ArrayLike) -> "Table":
        """Return the rows where a bool array (rows,) is true, with their boxes and sources."""
        chosen = np.asarray(mask)
        if chosen.dtype != bool or chosen.shape != (len(self),):
            raise DataError(
                f"a mask {chosen.dtype} {chosen.shape} arrived; bool ({len(self)},), one a row, was expected"
            )
        frame = self.frame[chosen].reset_index(drop=True)
        return replace(
            self,
            frame=frame,
            sources=tuple(source for source in self.sources if (frame["source"] == source.name).any()),
            boxes=self.boxes[self.boxes["image"].isin(frame["image"])],
        )

    def write(self, path: Path) -> None:
        """Write the table to a `.parquet` file, whole or not at all, and its boxes beside it.

        Args:
            path: For example `table.parquet`; boxes go to `table.boxes.parquet`.

        Raises:
            UsageError: The path does not end in `.parquet`.
        """
        path = parquet_path(path)
        boxes_file = boxes_path(path)
        boxes = _to_parquet(self.boxes, {}) if len(self.boxes) else None
        # The hash ties the two files together: a crash between the two writes is noticed when reading.
        metadata = {
            "format": FORMAT,
            "findings": self.findings,
            "sources": [
                {"name": s.name, "root": s.root.as_posix(), "citation": s.citation, "terms": s.terms}
                for s in self.sources
            ],
            # Beside the sources, so that a Hilum that does not know of it reads the table all the same.
            "states_no_finding": [s.name for s in self.sources if s.states_no_finding],
            "notes": self.notes,
            "boxes_sha256": hashlib.sha256(boxes).hexdigest() if boxes else "",
        }
        if boxes:
            files.write_bytes(boxes_file, boxes)
        files.write_bytes(path, _to_parquet(self.frame, metadata))
        if not boxes:
            boxes_file.unlink(missing_ok=True)

    @staticmethod
    def read(path: Path, *, images: Path | None = None) -> "Table":
        """Read what `write` wrote.

        Args:
            path: A `.parquet` file.
            images: The folder of the images where it is not the one written in the table; only for tables of
                one source.

        Raises:
            UsageError: There is no such file or folder, or `images` is given for several sources.
            DataError: The file is no table, damaged, or of an unknown format number, or `images` holds none
                of the table's images.
        """
        if path.suffix != ".parquet":
            raise UsageError(
                f"{path} is no table, whose name ends in .parquet; "
                f"`hilum data index {path} -o table.parquet` makes one of a data set"
            )
        path = parquet_path(path)
        if not path.is_file():
            raise UsageError(f"there is no table {path}; `hilum data index` makes one")
        frame, metadata = _from_parquet(path)
        try:
            table = Table(
                frame=frame,
                findings=tuple(metadata["findings"]),
                sources=tuple(
                    Source(
                        **{**source, "root": Path(source["root"])},
                        states_no_finding=source["name"] in metadata.get("states_no_finding", ()),
                    )
                    for source in metadata["sources"]
                ),
                boxes=_read_boxes(boxes_path(path), metadata["boxes_sha256"]),
                notes=tuple(metadata["notes"]),
            )
        except (KeyError, TypeError, AttributeError):
            raise DataError(f"{path} is damaged: its metadata are incomplete; make it again") from None
        return table if images is None else _repointed(table, Path(images))

    def _nothing_found(self) -> NDArray[np.float64]:
        diseases = [name for name in self.findings if name != DEVICES]
        values = self.frame[diseases].to_numpy()
        # Without a finding nothing is known, though all of no findings would be absent.
        absent = (values == 0).all(axis=1) & bool(diseases)
        return np.where(absent, 1.0, np.where((values == 1).any(axis=1), 0.0, np.nan))

    def _root(self, name: str) -> Path:
        return next(source.root for source in self.sources if source.name == name)


_UNKNOWN: dict[str, Any] = {
    **dict.fromkeys(("study", "view", "sex", "split"), ""),
    "age": np.nan,
    "width": 0,
    "height": 0,
}
"""The columns that a source may lack, and what stands in them then."""


class KnownColumns(TypedDict, total=False):
    """What `make_frame` takes besides images, patients and labels: one value a row, or one for all.

    Attributes:
        study: Text.
        view: PA, AP, LATERAL or empty.
        sex: F, M, O or empty.
        age: Years, NaN unknown.
        width: Of the original in pixels, 0 unknown.
        height: Of the original in pixels, 0 unknown.
        split: train, val, test or empty.
    """

    study: Sequence[str] | str
    view: Sequence[str] | str
    sex: Sequence[str] | str
    age: ArrayLike
    width: ArrayLike
    height: ArrayLike
    split: Sequence[str] | str


def make_frame(
    *,
    image: Sequence[str],
    source: Sequence[str] | str,
    patient: Sequence[str],
    findings: Sequence[str],
    labels: ArrayLike,
    **columns: Unpack[KnownColumns],
) -> pd.DataFrame:
    """Build a table's frame of one source with the right columns and types.

    Args:
        image: Paths relative to the source's root.
        source: Name of the source, or one a row.
        patient: One a row, never empty.
        findings: Names of the finding columns.
        labels: (rows, findings): 1 present, 0 absent, NaN unknown.
        **columns: Those of `KnownColumns`; what is left out is unknown.

    Raises:
        TypeError: A column has another name.
    """
    if odd := sorted(set(columns) - set(_UNKNOWN)):
        raise TypeError(f"a table has no column {odd[0]!r}; it has: {', '.join(_UNKNOWN)}")
    index = pd.RangeIndex(len(image))
    sources = files.printable(source) if isinstance(source, str) else source
    values = {**_UNKNOWN, **columns, "image": image, "source": sources, "patient": patient}
    types = {"age": np.dtype(np.float64), "width": np.dtype(np.int64), "height": np.dtype(np.int64)}

    def column(name: str) -> pd.Series:
        value = values[name]
        if name in types:
            return pd.Series(np.broadcast_to(np.asarray(value, types[name]), len(index)), index)
        return pd.Series(value if isinstance(value, str) else np.asarray(value, object), index, str)

    matrix = np.asarray(labels, float).reshape(len(index), len(findings))
    known = pd.DataFrame({name: column(name) for name in COLUMNS})
    return pd.concat([known, pd.DataFrame(matrix, index, list(findings))], axis=1)


def parquet_path(path: Path) -> Path:
    """Refuse a path that cannot be a table's; return it."""
    path = Path(path)
    if path.suffix != ".parquet" or path.name.endswith(".boxes.parquet"):
        raise UsageError(f"{path} cannot be a table; its name must end in .parquet and not in .boxes.parquet")
    return path


def boxes_path(path: Path) -> Path:
    """Return the file beside a table that holds its boxes."""
    return path.with_suffix(".boxes.parquet")


def absolute(path: Path) -> Path:
    """Return the absolute path without `..`; links stay, so a folder's parent is the one meant."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def archive_members(path: Path) -> list[str]:
    """List the files of a zip or tar archive, without what macOS adds and without names that lead out of it.

    Raises:
        DataError: The archive is damaged.
    """
    try:
        names = list_members(path)
    except ImageError as error:
        raise DataError(f"{path} is {error}; get it again or remove it") from None
    return [name for name in names if "__MACOSX" not in name and _inside(name)]


def _names_in(root: Path, folder: str) -> frozenset[str]:
    place = root / folder
    if place.is_dir():
        with os.scandir(place) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    if not place.is_file():
        return frozenset()
    if place.suffix.lower() == ".npz":
        try:
            return frozenset(stack_members(place))
        except ImageError as error:
            raise DataError(f"{place}: {error}; get it again") from None
    return frozenset(archive_members(place))


def _inside(path: str) -> bool:
    """Return whether a relative path stays under its root."""
    leads_out = ".." in path and ".." in path.replace(MEMBER, "/").split("/")
    return not (leads_out or path.startswith("/") or "\\" in path or path[1:2] == ":")


def _check_columns(frame: pd.DataFrame, findings: tuple[str, ...]) -> None:
    if len(set(findings)) != len(findings):
        raise DataError(f"a finding is listed twice: {', '.join(findings)}")
    for name in findings:
        if named(name) == NO_FINDING:
            raise DataError(f"{name!r} cannot be a finding: it means that every finding is absent")
        if name in COLUMNS:
            raise DataError(f"a finding cannot be called {name!r}, as a table's own column is; rename it")
        if named(name) != name:
            raise DataError(f"finding {name!r} is called {named(name)!r} here; rename the column")
    expected = [*COLUMNS, *findings]
    if list(frame.columns) != expected:
        absent = [name for name in expected if name not in frame.columns]
        odd = [str(name) for name in frame.columns if name not in expected]
        raise DataError(
            f"the table's columns must be {', '.join(expected)}, in this order; "
            f"missing: {', '.join(absent) or 'none'}; not expected: {', '.join(odd) or 'none'}"
        )
    if not isinstance(frame.index, pd.RangeIndex) or (len(frame) and frame.index[0] != 0):
        raise DataError("the table's index must count the rows from 0; call reset_index(drop=True)")
    for name in _TEXT:
        # An empty frame holds no text to judge the type by.
        if len(frame) and not pd.api.types.is_string_dtype(frame[name]):
            raise DataError(f"column {name!r} holds {frame[name].dtype}; text without nulls was expected")
    for name in ("width", "height"):
        if frame[name].dtype != np.int64:
            raise DataError(f"column {name!r} holds {frame[name].dtype}; int64 was expected, 0 where unknown")
    for name in ("age", *findings):
        if frame[name].dtype != np.float64:
            raise DataError(
                f"column {name!r} holds {frame[name].dtype}; float64 was expected, NaN where unknown"
            )


def _check_values(frame: pd.DataFrame, findings: tuple[str, ...]) -> None:
    for name in _TEXT:
        _refuse(frame[name].isna(), f"{name} is null; empty text means unknown")
    for name in ("image", "source", "patient"):
        _refuse(
            frame[name] == "", f"{name} is empty; where patients are unknown, each image is its own patient"
        )
    for name, allowed in _ALLOWED.items():
        if not set(frame[name].unique()) <= {*allowed, ""}:
            _refuse(~frame[name].isin((*allowed, "")), f"{name} is none of {', '.join(allowed)} or empty")
    _refuse(
        (frame["age"] < 0) | (frame["age"] > 150), "age is not between 0 and 150 years; NaN means unknown"
    )
    for name in ("width", "height"):
        _refuse(frame[name] < 0, f"{name} is negative; 0 means unknown")
    for name in findings:
        value = frame[name]
        _refuse(value.notna() & (value != 0) & (value != 1), f"{name} is none of 0, 1 and NaN")
    outside = pd.Series([not _inside(path) for path in frame["image"].to_numpy(object)], dtype=bool)
    _refuse(outside, "image must be a path inside its root, with / and without ..")
    _refuse(frame.duplicated(["source", "image"]), "an image occurs twice in its source; one row an image")


def _refuse(bad: pd.Series, problem: str) -> None:
    """Raise where a row is bad, naming rows and not values, which may belong to a patient."""
    rows = np.flatnonzero(bad.to_numpy())
    if len(rows):
        raise DataError(f"in {len(rows)} of {len(bad)} rows (the first is row {rows[0]}) {problem}")


def _check_sources(frame: pd.DataFrame, sources: tuple[Source, ...]) -> None:
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise DataError(f"two sources have one name: {', '.join(names)}")
    unknown = sorted(set(frame["source"].unique()) - set(names))
    if unknown:
        raise DataError(
            f"rows come from {unknown[0]!r}; the table's sources are: {nearest(unknown[0], names)}"
        )


def _check_boxes(boxes: pd.DataFrame, frame: pd.DataFrame, findings: tuple[str, ...]) -> None:
    if list(boxes.columns) != list(BOX_COLUMNS):
        raise DataError(f"the boxes' columns must be {', '.join(BOX_COLUMNS)}, in this order")
    if not len(boxes):
        return
    images = frame["image"].to_numpy(object)
    there = set(images)
    _refuse(
        pd.Series([image not in there for image in boxes["image"]]), "the box's image is not in the table"
    )
    _refuse(~boxes["finding"].isin(findings), "the box's finding is not in the table")
    if len(there) < len(images):
        twice = frame.loc[frame["image"].duplicated(keep=False), "image"]
        _refuse(
            boxes["image"].isin(twice), "the box's image is in two sources; which is meant cannot be told"
        )
    for name in BOX_COLUMNS[2:]:
        if boxes[name].dtype != np.float64:
            raise DataError(
                f"the boxes' column {name!r} holds {boxes[name].dtype}; float64 fractions were expected"
            )
    corners = boxes[["x", "y", "width", "height"]].to_numpy(float)
    far = corners[:, :2] + corners[:, 2:]
    # A comparison with NaN is false, so that it counts as outside; 1e-6 allows for rounding.
    inside = (corners[:, :2] >= 0) & (corners[:, 2:] > 0) & (far <= 1 + 1e-6)
    _refuse(
        pd.Series(~inside.all(axis=1)), "the box is empty or reaches outside the image (fractions 0 to 1)"
    )


def _to_parquet(frame: pd.DataFrame, metadata: dict[str, Any]) -> bytes:
    stored = pyarrow.Table.from_pandas(frame, preserve_index=False)
    # pandas' own metadata would tie the file to a version of pandas.
    stored = stored.replace_schema_metadata({_METADATA: json.dumps(metadata).encode()})
    buffer = io.BytesIO()
    parquet.write_table(stored, buffer, compression="zstd")
    return buffer.getvalue()


def _from_parquet(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    try:
        stored = parquet.read_table(io.BytesIO(path.read_bytes()))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is no whole Parquet file ({str(error).splitlines()[0]}); make it again"
        ) from None
    try:
        metadata = json.loads((stored.schema.metadata or {})[_METADATA])
        number = metadata["format"]
    except (KeyError, ValueError, TypeError):
        raise DataError(
            f"{path} is a Parquet file but no table of Hilum; `hilum data index` makes one"
        ) from None
    if number != FORMAT:
        raise DataError(
            f"{path} has format {number!r}; this Hilum reads format {FORMAT}: "
            "update Hilum, or make the table again with `hilum data index`"
        )
    return stored.to_pandas(), metadata


def _read_boxes(path: Path, sha256: str) -> pd.DataFrame:
    if not sha256:
        return no_boxes()
    if not path.is_file():
        raise DataError(
            f"the table's boxes {path} are missing; put the file beside the table, or make it again"
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} does not belong to the table beside it, or is damaged; make the table again")
    return parquet.read_table(io.BytesIO(content)).to_pandas()


def _repointed(table: Table, images: Path) -> Table:
    if not images.is_dir():
        raise UsageError(f"there is no folder {images} to read images from")
    if len(table.sources) != 1:
        names = ", ".join(source.name for source in table.sources)
        raise UsageError(f"one folder of images was given for a table of several sources ({names})")
    table = replace(table, sources=(replace(table.sources[0], root=images),))
    if len(table.missing_images()) == len(table) > 0:
        raise DataError(
            f"none of the table's {len(table):,} images is under {images}; "
            "give the folder that the table's paths start from, or index the images again"
        )
    return table
