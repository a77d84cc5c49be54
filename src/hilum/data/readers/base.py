"""What the readers share: their contract, and CSV cells and file names -> columns of a Table."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum import files, images
from hilum.data import csv_file
from hilum.data.table import BOX_COLUMNS, MEMBER, SPLITS, Table, archive_members, no_boxes
from hilum.errors import DataError, LayoutError, nearest
from hilum.images import ARCHIVE_SUFFIXES, IMAGE_SUFFIXES
from hilum.recipe.findings import DEVICES, NO_FINDING, VOCABULARY, named, tokens

_log = logging.getLogger(__name__)

OLDEST = 120.0
"""Years; an age above is an error of entry and becomes unknown."""


@dataclass(frozen=True)
class ColumnMap:
    """Which columns of a CSV file mean what; an empty name means that the file has no such column.

    Attributes:
        image: Paths of the images.
        patient: Patients; without it, file names of a known form say, or each image is its own patient.
        study: Studies.
        label: All findings of an image in one cell, joined by `separator`; `No Finding` for none.
        separator: What joins them.
        findings: One column a finding, named by it, with 1, 0, empty (unknown) or -1 (uncertain, read as
            unknown); a column `No Finding` of 1 makes the others of its row absent where they are empty.
        view: PA, AP or LATERAL.
        sex: F or M.
        age: Years, or DICOM's form such as 060Y, 013M, 001D.
        split: train, val or test.
        called: (COLUMN, FINDING): finding columns whose finding has another name than the column.
        positive: Cells of finding columns that mean present, whatever their letter case; any other cell that is not
            empty then means absent. None: 1, 0 and -1 as above.
    """

    image: str
    patient: str = ""
    study: str = ""
    label: str = ""
    separator: str = "|"
    findings: tuple[str, ...] = ()
    view: str = ""
    sex: str = ""
    age: str = ""
    split: str = ""
    called: tuple[tuple[str, str], ...] = ()
    positive: tuple[str, ...] = ()

    def finding_of(self, column: str) -> str:
        """Return the canonical name of a column's finding."""
        return named(dict(self.called).get(column, column))


POLICIES: dict[str, float] = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}
"""What a cell without a clear answer becomes: unknown, absent or present."""


@dataclass(frozen=True)
class Request:
    """What is to be read; paths are absolute and exist. See `readers.read` for the meaning."""

    source: Path
    images: Path | None = None
    remap: tuple[str, str] | None = None
    columns: ColumnMap | None = None
    uncertain: str = ""
    empty: str = ""


@dataclass(frozen=True)
class Reader:
    """One layout.

    Attributes:
        expects: What it looks like, one line, for a person whose folder fits nothing.
        matches: Tells quickly and without error whether a request is of this layout.
        read: Reads it.
        general: The layout fits much; readers of one data set go before it.
        has_paths: Image paths are written in a CSV file, so that remapping them makes sense.
        has_policies: Labels may be uncertain (-1) or empty, so that policies for them make sense.
    """

    expects: str
    matches: Callable[[Request], bool]
    read: Callable[[Request], Table]
    general: bool = False
    has_paths: bool = False
    has_policies: bool = False


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file as text, header names trimmed, empty cells as empty text.

    Raises:
        LayoutError: It is a spreadsheet.
        DataError: It is no CSV file with a header, has two columns of one name, or no rows.
    """
    return csv_file.read(path).frame


def read_header(path: Path) -> tuple[str, ...]:
    """Return the trimmed header cells of a CSV file, none where it cannot be read; never raises."""
    if not csv_file.is_csv(path) or not path.is_file():
        return ()
    try:
        return csv_file.read(path, limit=csv_file.SAMPLE_BYTES).header
    except (DataError, OSError):
        return ()


def place_of(cells: pd.Series, row: int, *, path: Path, images: pd.Series | None = None) -> str:
    """Say where a faulty cell stands.

    Args:
        cells: The trimmed cells of one column, named as in the file.
        row: Of the first of these cells that is faulty.
        path: The file.
        images: The images of the same rows, where they are known.

    Returns:
        For example `"labels.csv, line 7 (img/a.png)"`; no line where the cell was not found in the file.
    """
    lines = csv_file.read(path).lines(str(cells.name), [cells.iloc[row]]) if path.is_file() else []
    line = f", line {lines[0]}" if lines else ""
    return f"{path}{line}" + (f" ({images.iloc[row]})" if images is not None else "")


def require_columns(frame: pd.DataFrame, names: Iterable[str], *, path: Path) -> None:
    """Raise a LayoutError that names the columns there, the nearest first, where one of `names` is missing."""
    for name in names:
        if name not in frame.columns:
            raise LayoutError(
                f"{path} has no column {name!r}; it has: {nearest(name, map(str, frame.columns))}"
            )


def find_file(folder: Path, *names: str) -> Path | None:
    """Return the first of the files `names` that lies in `folder`, whatever its letter case."""
    if not folder.is_dir():
        return None
    there = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_file()}
    return next((there[name.lower()] for name in names if name.lower() in there), None)


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image; what macOS hides beside it is not."""
    base = name.replace(MEMBER, "/").rpartition("/")[2]
    return base.lower().endswith(IMAGE_SUFFIXES) and not base.startswith(".")


LeftOut = dict[str, list[str]]
"""Why files were left out -> their names."""

_NOT_UTF8 = "names that are not UTF-8"
_DANGLING = "links that lead nowhere"
_OTHER = "files that end in "


def sub_folders(folder: Path, left_out: LeftOut | None = None) -> dict[str, Path]:
    """Return the folders in `folder` by name, links to folders too, without hidden ones and macOS's copies.

    Args:
        folder: Where to look.
        left_out: Gets the folders that no table can name, and links that lead nowhere.
    """
    if not folder.is_dir():
        return {}
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_junk(entry.name):
                continue
            if entry.is_symlink() and not Path(entry.path).exists():
                reason = _DANGLING
            elif not entry.is_dir():
                continue
            elif not files.is_text(entry.name):
                reason = _NOT_UTF8
            else:
                found[entry.name] = Path(entry.path)
                continue
            if left_out is not None:
                left_out.setdefault(reason, []).append(entry.name)
    return dict(sorted(found.items()))


def images_in(folder: Path, left_out: LeftOut | None = None) -> list[str]:
    """Return the sorted names of the images directly in `folder`.

    Args:
        folder: Where to look.
        left_out: Gets the other files but those of the system, by reason.
    """
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_junk(entry.name) or entry.is_dir():
                continue
            path = Path(entry.path)
            if entry.is_symlink() and not path.exists():
                reason = _DANGLING
            elif not (entry.is_file() and images.is_image(path)):
                reason = _OTHER + (path.suffix.lower() or "no suffix")
            elif not files.is_text(entry.name):
                reason = _NOT_UTF8
            else:
                found.append(entry.name)
                continue
            if left_out is not None:
                left_out.setdefault(reason, []).append(entry.name)
    return sorted(found)


def left_out_notes(left_out: LeftOut) -> tuple[str, ...]:
    """Say how many files were left out and why, one note a reason; only names that must be mended are named."""
    return tuple(
        f"{len(names):,} left out: {reason}"
        + (f", such as {files.printable(min(names))}" if reason in (_NOT_UTF8, _DANGLING) else "")
        for reason, names in sorted(left_out.items())
    )


def walk_images(folder: Path) -> Iterator[str]:
    """Yield the paths of all images under `folder`, those in zip and tar archives too, relative and with `/`."""
    for place, folders, names in files.walk(folder):
        unnamable = [name for name in (*folders, *names) if not files.is_text(name)]
        if unnamable:
            _log.warning(
                "%d files and folders in %s are passed over, since their names are not UTF-8, such as %s",
                *(len(unnamable), place, files.printable(unnamable[0])),
            )
        folders[:] = [name for name in folders if not _is_junk(name) and files.is_text(name)]
        relative = place.relative_to(folder).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        archives = []
        for name in names:
            if name.startswith(".") or not files.is_text(name):
                continue
            if images.is_image(place / name):
                yield prefix + name
            elif name.lower().endswith(ARCHIVE_SUFFIXES):
                archives.append(name)
        for name in archives:
            members = archive_members(place / name)
            yield from (
                f"{prefix}{name}{MEMBER}{member}"
                for member in members
                if is_image(member) and files.is_text(member)
            )


def file_names(paths: pd.Series) -> pd.Series:
    """Return the last part of each path, inside an archive or not."""
    return paths.str.replace(rf"^.*(?:/|{MEMBER})", "", regex=True)


def remapped(path: str, remap: tuple[str, str]) -> str:
    """Return `path` with `/` and its beginning OLD replaced by NEW, where it begins so; else as it is.

    `/` and back-slashes are the same, since paths of Windows are written with either.
    """
    old, new = (text.replace("\\", "/") for text in remap)
    slashed = path.replace("\\", "/")
    if not slashed.startswith(old):
        return path
    joint = "/" if new and old.endswith("/") and not new.endswith("/") else ""
    return new + joint + slashed.removeprefix(old)


def encode(labels: pd.Series, findings: Sequence[str], *, separator: str, path: Path) -> NDArray[np.float64]:
    """Turn joined labels into values.

    Args:
        labels: Text such as `"Mass|Nodule"`; empty where nothing is known.
        findings: The columns of the result.
        separator: What joins two findings.
        path: The file, for messages.

    Returns:
        float64 (rows, findings): 1 where named, else 0; NaN where the label is empty. A label `No X` of a
        finding X says only that X is absent.

    Raises:
        DataError: A label names a finding that is not among `findings`, or `No Finding` beside another.
    """
    column = {name: place for place, name in enumerate(findings)}
    # A file of 100,000 rows has less than 1,000 different labels: each is taken apart once.
    codes, texts = pd.factorize(labels)
    values = np.zeros((len(texts), len(findings)))
    for row, text in enumerate(texts):
        names = tokens(text, separator)
        if not names:
            values[row] = np.nan
        if len(names) > 1 and NO_FINDING in names:
            place = place_of(labels, int(np.argmax(codes == row)), path=path)
            raise DataError(f"{place}: label {text!r}: {NO_FINDING} beside a finding; one of them is wrong")
        for name in names:
            if name in column:
                values[row, column[name]] = 1
            elif (denied := _denied(name)) in column:
                values[row] = np.where(values[row] == 1, 1, np.nan)
                values[row, column[denied]] = 0
            elif name != NO_FINDING:
                place = place_of(labels, int(np.argmax(codes == row)), path=path)
                raise DataError(f"{place}: unknown label {name!r}; known are: {nearest(name, findings)}")
    result: NDArray[np.float64] = values[codes]
    return result


def decide(
    values: NDArray[np.float64], request: Request, *, normal: NDArray[np.bool_], except_: Sequence[int] = ()
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Apply the policies for uncertain and for empty labels.

    Args:
        values: (rows, findings): 1, 0, -1 uncertain, NaN empty.
        request: Its policies; an empty one is `ignore`.
        normal: bool (rows,): `No Finding` is ticked: what is empty is absent, whatever the policy.
        except_: Columns of which a ticked `No Finding` says nothing, such as devices.

    Returns:
        (rows, findings): 1, 0 or NaN, and notes on what was decided.
    """
    words = {"ignore": "unknown", "zeros": "absent", "ones": "present"}
    uncertain = values == -1
    empty = np.isnan(values)
    cleared = empty & normal[:, None]
    cleared[:, list(except_)] = False
    empty &= ~cleared
    decided = np.where(uncertain, POLICIES[request.uncertain or "ignore"], values)
    decided = np.where(empty, POLICIES[request.empty or "ignore"], np.where(cleared, 0.0, decided))
    notes = []
    if uncertain.any():
        meaning = words[request.uncertain or "ignore"]
        notes.append(f"{int(uncertain.sum()):,} uncertain labels (-1) are taken as {meaning}")
    if empty.any() and request.empty:
        notes.append(f"{int(empty.sum()):,} empty labels are taken as {words[request.empty]}")
    return decided, tuple(notes)


def ticked(labels: pd.Series, *, separator: str) -> NDArray[np.bool_]:
    """Return which joined labels say `No Finding`; bool (rows,)."""
    codes, texts = pd.factorize(labels)
    says = np.array([NO_FINDING in tokens(text, separator) for text in texts], dtype=bool)
    return np.asarray(says[codes])


def states(labels: NDArray[np.float64], findings: Sequence[str], normal: NDArray[np.bool_]) -> bool:
    """Return whether all images without any finding are those that a source calls normal; see `Source`.

    Args:
        labels: (rows, findings): 1, 0 or NaN.
        findings: Their names.
        normal: bool (rows,): the source says `No Finding`.
    """
    diseases = [column for column, name in enumerate(findings) if name != DEVICES]
    nothing = (labels[:, diseases] == 0).all(axis=1)
    return bool(normal.any() and (normal | ~nothing).all())


_NUMBERS = {"true": 1.0, "false": 0.0, "": np.nan}


def label_numbers(cells: pd.Series) -> pd.Series:
    """Return trimmed label cells of 1, 0, -1, true, false or nothing as numbers; NaN for nothing and for all else."""
    words = cells.str.casefold().map(_NUMBERS)
    numbers = pd.to_numeric(csv_file.with_points(cells), errors="coerce")
    return words.where(words.notna(), numbers.where(numbers.isin((0, 1, -1)))).astype(float)


def numbers_or_empty(cells: pd.Series, *, path: Path, images: pd.Series | None = None) -> NDArray[np.float64]:
    """Read label cells of 1, 0, -1 or nothing (NaN).

    Args:
        cells: Text, named by its column.
        path: The file, for messages.
        images: The images of the same rows, for messages.

    Raises:
        DataError: A cell is none of these.
    """
    trimmed, _ = csv_file.without_unknown(cells)
    value: NDArray[np.float64] = label_numbers(trimmed).to_numpy(float)
    bad = np.isnan(value) & (trimmed != "").to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{place_of(trimmed, row, path=path, images=images)}: the column {cells.name!r} holds "
            f"{trimmed.iloc[row]!r}; 1, 0, -1 (uncertain) or nothing was expected"
        )
    return value


def findings_of(labels: Iterable[str]) -> set[str]:
    """Return the findings that labels speak of: for `No Finding` none, for `No X` of a finding X that X."""
    names = {named(label) for label in labels} - {NO_FINDING}
    known = (names | VOCABULARY.keys()) - {NO_FINDING}
    denials = {name: denied for name in names if (denied := _denied(name)) in known}
    return (names - denials.keys()) | set(denials.values())


def parse_ages(text: pd.Series) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Read ages such as `57`, `45,5`, `060Y`, `013M`, `002W` and `001D`.

    Returns:
        Years (float64, NaN where empty, unreadable or above `OLDEST`), and notes on what became unknown.
    """
    parts = csv_file.with_points(text).str.extract(r"^(\d+(?:\.\d*)?)\s*([YMWD]?)$", flags=re.IGNORECASE)
    per_year = parts[1].str.upper().map({"": 1.0, "Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25})
    years = (parts[0].astype(float) / per_year).to_numpy(float)
    unreadable = int((np.isnan(years) & (text.str.strip() != "").to_numpy()).sum())
    too_old = years > OLDEST
    notes = []
    if unreadable:
        notes.append(f"{unreadable:,} ages could not be read and are unknown")
    if too_old.any():
        notes.append(f"{int(too_old.sum()):,} ages above {OLDEST:.0f} years are taken as unknown")
    return np.where(too_old, np.nan, years), tuple(notes)


def parse_choice(
    text: pd.Series, meanings: dict[str, str], *, column: str
) -> tuple[pd.Series, tuple[str, ...]]:
    """Map cells by `meanings` (keys in upper case); others become unknown (empty), with a note."""
    cells = text.str.strip().str.upper()
    found = cells.map(meanings).astype(object).where(lambda value: value.notna(), "")
    odd = sorted(set(cells[(found == "") & (cells != "")]))
    count = int(cells.isin(odd).sum())
    notes = (
        (f"{count:,} cells of {column!r} say none of {', '.join(meanings)} and are unknown",) if odd else ()
    )
    return found, notes


def parse_views(text: pd.Series, *, column: str) -> tuple[pd.Series, tuple[str, ...]]:
    """Map views such as `PA`, `AP Supine`, `a.p.` and DICOM's `LL`; others become unknown (empty), with a note."""
    return parse_choice(text.map(_view_code), VIEW_MEANINGS, column=column)


def _view_code(text: str) -> str:
    """Return PA, AP or LATERAL where all words of a text say so, apart from posture; else the text."""
    words = re.sub(r"[.-]", "", text.upper()).replace("_", " ")
    meanings = {_VIEW_WORDS.get(word, "") for word in re.findall(r"\w+", words) if word not in _POSTURES}
    return next(iter(meanings)) or text if len(meanings) == 1 else text


VIEW_MEANINGS = {
    "PA": "PA",
    "AP": "AP",
    "LATERAL": "LATERAL",
    "LL": "LATERAL",
    "RL": "LATERAL",
    "L": "LATERAL",
}
_VIEW_WORDS = {
    **VIEW_MEANINGS,
    **{"POSTEROANTERIOR": "PA", "ANTEROPOSTERIOR": "AP"},
    **dict.fromkeys(("LAT", "LLAT", "RLAT", "SEITLICH"), "LATERAL"),
}
_POSTURES = frozenset(
    {
        "SUPINE",
        "ERECT",
        "STANDING",
        "UPRIGHT",
        "SITTING",
        "SEMI",
        "SEMIERECT",
        "SEMIUPRIGHT",
        "PRONE",
        "PORTABLE",
        "MOBILE",
        "BEDSIDE",
        "HORIZONTAL",
        "VIEW",
        "PROJECTION",
        "CHEST",
        "LEFT",
        "RIGHT",
        "LIEGEND",
        "STEHEND",
        "SITZEND",
    }
)
"""Words beside a view that change nothing of it."""

SEX_MEANINGS = {
    **{"F": "F", "M": "M", "O": "O", "FEMALE": "F", "MALE": "M", "OTHER": "O"},
    **{"W": "F", "WEIBLICH": "F", "MÄNNLICH": "M", "DIVERS": "O"},
}
SPLIT_MEANINGS = {
    **{name.upper(): name for name in SPLITS},
    **{"TRAINING": "train", "VALID": "val", "VALIDATION": "val", "TESTING": "test"},
}


def patients_from_names(images: pd.Series) -> tuple[pd.Series, tuple[str, ...]]:
    """Find patients for images that come without.

    Args:
        images: Paths.

    Returns:
        Patients by those file names that are of NIH's or Kermany's form; each other image is its own patient. And a
        note that says which.
    """
    names = file_names(images)
    patients = pd.Series(np.nan, index=images.index, dtype=object)
    forms = []
    for data_set, pattern in (("NIH ChestX-ray14", NIH_NAME), ("Kermany", KERMANY_NAME)):
        found = names.str.extract(pattern, flags=re.IGNORECASE)[0]
        if found.notna().any():
            forms.append(data_set)
            patients = patients.where(patients.notna(), found)
    unknown = int(patients.isna().sum())
    form = f"file names, which are of {' and '.join(forms)}'s form"
    if not forms:
        note = "patients are unknown: each image counts as its own patient, so a split may leak patients"
    elif not unknown:
        note = f"patients are taken from the {form}"
    else:
        note = (
            f"patients of {len(images) - unknown:,} images are taken from the {form}; of {unknown:,} they are unknown: "
            "each of these counts as its own patient, so a split may leak patients"
        )
    return patients.where(patients.notna(), images), (note,)


NIH_NAME = r"^(000\d{5})_\d{3}\.(?:png|jpe?g)$"
"""NIH's patients have numbers up to 30,805; longer ones in other sets are dates."""
KERMANY_NAME = r"^(person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+)[-_]\d"


def rows_to_keep(
    found: NDArray[np.bool_], *, place: Path, required: bool
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Decide which rows of a label file stay, and say so.

    Args:
        found: bool (rows,): whether the row's image is there.
        place: Where images were looked for.
        required: Whether it is an error to find none; else all rows stay, as a table of labels.

    Returns:
        bool (rows,), and a note where images are missing.

    Raises:
        DataError: No image was found, and images are required.
    """
    absent = int((~found).sum())
    if not absent:
        return found, ()
    if absent < len(found):
        return found, (
            f"{absent:,} of {len(found):,} rows have no image under {place.name} and were left out",
        )
    if required:
        raise DataError(
            f"none of the {len(found):,} images that the labels name was found under {place}; "
            "give the folder of these images with --images, or mend written paths with --remap OLD=NEW"
        )
    return ~found, (
        f"no image was found under {place.name}: the table holds labels only; --images DIR says where images lie",
    )


def locate_by_stem(names: pd.Series, folder: Path, *, suffix: str) -> tuple[pd.Series, NDArray[np.bool_]]:
    """Find images below a folder by their names without ending.

    Args:
        names: Such as a DICOM file's name without `.dcm`.
        folder: Where to look.
        suffix: The ending that the data set gives; preferred where an image is there in several formats, and
            written where it is not there.

    Returns:
        Paths relative to the folder, and bool (rows,): found.

    Raises:
        LayoutError: An image lies there more than once.
    """
    there = pd.Series(list(walk_images(folder)), dtype=object)
    places = pd.Series(
        there.to_numpy(), index=file_names(there).str.replace(r"\.[^.]*$", "", regex=True).to_numpy()
    )
    places = places[places.index.isin(names)]
    own = places.str.lower().str.endswith(suffix).to_numpy(bool)
    places = places[own | ~places.index.isin(places.index[own])]
    if places.index.has_duplicates:
        first, second = places[places.index[places.index.duplicated()][:1]].iloc[:2]
        raise LayoutError(
            f"images of the same names lie in several places under {folder} (such as {first} and {second}); "
            "choose one with --images"
        )
    found = names.isin(places.index)
    return names.map(places).where(found, names + suffix), found.to_numpy(bool)


def boxes_of(
    images: Sequence[str], findings: Sequence[str], corners: NDArray[np.float64], *, path: Path
) -> pd.DataFrame:
    """Return boxes as a table keeps them.

    Args:
        images: The image of each box, as the table names it.
        findings: The finding of each box.
        corners: float64 (boxes, 4): x, y, width, height as fractions of the original.
        path: The file, for messages.

    Raises:
        DataError: A box is empty.
    """
    if not len(corners):
        return no_boxes()
    empty = int((corners[:, 2:] <= 0).any(axis=1).sum())
    if empty:
        raise DataError(f"{path} holds {empty:,} boxes without a width or height inside their image")
    boxes = pd.DataFrame(corners, columns=list(BOX_COLUMNS[2:]))
    boxes.insert(0, "image", list(images))
    boxes.insert(1, "finding", list(findings))
    return boxes


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX" or files.is_system_file(name)


def _denied(name: str) -> str:
    """Return the X of a label `No X`, else empty text."""
    words = name.replace("_", " ").split()
    return named(" ".join(words[1:])) if len(words) > 1 and words[0].lower() in ("no", "non", "not") else ""
