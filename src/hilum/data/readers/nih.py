"""NIH ChestX-ray14, whole or Kaggle's sample of it -> a Table.

Layout: `Data_Entry_2017_v2020.csv`, `Data_Entry_2017.csv` or `sample_labels.csv`, with the images anywhere
below it: in `images_001/images` to `images_012/images`, in one folder, in the archives as they are
(`images_001.tar.gz` or ZIP, read in place), or in any mix of these. Beside the CSV file, where they are:
`BBox_List_2017.csv` (984 boxes in pixels of 1024 x 1024) and the official `train_val_list.txt` and
`test_list.txt`, which share no patient. A folder of images whose parent holds the CSV file is read too. The
CSV file alone makes a table of labels without images.

Headers: `Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,`
`OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],` (two cells for two values each; the release of
2017 ends in a comma, that of 2020 does not, and has its ages corrected). The sample: `OriginalImageWidth`,
`OriginalImageHeight`, ages such as `060Y`, `013M`, `001D`.

Citation: Wang et al., CVPR 2017. Terms: no restriction on use; link, cite and credit.
Where: the NIH Clinical Center's box `ChestXray-NIHCC`; Kaggle `nih-chest-xrays/data` and
`nih-chest-xrays/sample`.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from hilum.data.readers.base import (
    NIH_NAME,
    SEX_MEANINGS,
    VIEW_MEANINGS,
    Reader,
    Request,
    encode,
    file_names,
    find_file,
    parse_ages,
    parse_choice,
    read_csv,
    read_header,
    require_columns,
    rows_to_keep,
    walk_images,
)
from hilum.data.table import BOX_COLUMNS, MEMBER, Source, Table, make_frame, no_boxes
from hilum.errors import DataError, LayoutError
from hilum.recipe.findings import NIH_FINDINGS, canonical

CITATION = (
    "Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest X-ray Database and "
    "Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. "
    "CVPR 2017:3462-3471"
)
TERMS = (
    "No restriction on use; link to the NIH download site, cite the paper and credit the NIH Clinical "
    "Center. Labels were mined from reports by text processing and hold errors"
)
LABEL_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "sample_labels.csv")
"""In the order in which they are preferred."""

BOX_SIDE = 1024.0
"""Pixels; boxes are given for the distributed images, the originals scaled to this square."""

_NEEDED = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
)
_BOX_CELLS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
_SIZES = (("OriginalImage[Width", "Height]"), ("OriginalImageWidth", "OriginalImageHeight"))


def matches(request: Request) -> bool:
    """Return whether the source is a CSV file of NIH's columns, or a folder of NIH's."""
    source = request.source
    if source.is_file():
        return set(_NEEDED[:2]) <= set(read_header(source))
    if find_file(source, *LABEL_FILES):
        return True
    # A parent's label file says nothing of a folder of other images.
    return find_file(source.parent, *LABEL_FILES) is not None and _holds_nih_images(source)


def read(request: Request) -> Table:
    """Read the set or the sample; see the module for the layout."""
    path, notes = _label_file(request.source)
    cells = read_csv(path)
    require_columns(cells, _NEEDED, path=path)
    folder = request.images or (request.source if request.source.is_dir() else None)
    names = images = cells["Image Index"].str.strip()
    left_out: tuple[str, ...] = ()
    if folder is not None:
        images, found = _locate(names, folder)
        kept, left_out = rows_to_keep(found, place=folder, required=request.images is not None)
        cells, names, images = (rows[kept].reset_index(drop=True) for rows in (cells, names, images))
    age, age_notes = parse_ages(cells["Patient Age"])
    view, view_notes = parse_choice(cells["View Position"], VIEW_MEANINGS, column="View Position")
    sex, sex_notes = parse_choice(cells["Patient Gender"], SEX_MEANINGS, column="Patient Gender")
    width, height = _original_size(cells)
    split, split_notes = _official_split(names, path.parent)
    patient = cells["Patient ID"].str.strip().str.zfill(8)
    return Table(
        frame=make_frame(
            image=images,
            source="nih",
            patient=patient,
            study=patient + "_" + cells["Follow-up #"].str.strip().str.zfill(3),
            view=view,
            sex=sex,
            age=age,
            width=width,
            height=height,
            split=split,
            findings=NIH_FINDINGS,
            labels=encode(cells["Finding Labels"], NIH_FINDINGS, separator="|", path=path),
        ),
        findings=NIH_FINDINGS,
        sources=(Source("nih", folder or path.parent, CITATION, TERMS, states_no_finding=True),),
        boxes=_boxes(pd.Series(images.to_numpy(), index=names), path.parent),
        notes=(*notes, *left_out, *view_notes, *sex_notes, *split_notes, *age_notes),
    )


READER = Reader(
    expects=f"a folder with {', '.join(LABEL_FILES[:2])} or {LABEL_FILES[2]}, or one of these files",
    matches=matches,
    read=read,
)


def _label_file(source: Path) -> tuple[Path, tuple[str, ...]]:
    if source.is_file():
        return source, ()
    for folder in (source, source.parent):
        there = [path for name in LABEL_FILES if (path := find_file(folder, name))]
        if there:
            others = " and ".join(path.name for path in there[1:])
            return there[0], (f"labels are read from {there[0].name}, not from {others}",) if others else ()
    raise LayoutError(
        f"neither {source} nor its parent holds {', '.join(LABEL_FILES[:2])} or {LABEL_FILES[2]}"
    )


def _holds_nih_images(folder: Path) -> bool:
    try:
        first = next(walk_images(folder), "")
    except DataError:
        return False
    return bool(file_names(pd.Series([first])).str.match(NIH_NAME).iloc[0])


def _locate(names: pd.Series, folder: Path) -> tuple[pd.Series, np.ndarray]:
    """Find each named image below a folder.

    Returns:
        Paths relative to the folder (the bare name where there is none), and bool (rows,): found.

    Raises:
        LayoutError: The images lie there more than once, in different folders.
    """
    there = pd.Series(list(walk_images(folder)), dtype=object)
    places = pd.Series(there.to_numpy(), index=file_names(there).to_numpy())
    places = places[places.index.isin(names)]
    # An archive often stays beside what was unpacked from it; the unpacked files are faster to read.
    packed = places.str.contains(MEMBER, regex=False)
    unpacked = places.index[~packed]
    places = places[~(packed & places.index.isin(unpacked))]
    if places.index.has_duplicates:
        folders = places.str.replace(MEMBER, "/", regex=False).str.rpartition("/")[0].value_counts()
        described = ", ".join(f"{place or '.'} ({count:,})" for place, count in folders.items())
        choice = folder / str(folders.index[0])
        raise LayoutError(
            f"images of the same names lie in several places under {folder}: {described}. "
            f"Choose one with --images, for example --images {choice}, or give the CSV file for the labels alone"
        )
    found = names.isin(places.index)
    return names.map(places).where(found, names), found.to_numpy(bool)


def _original_size(cells: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    for columns in _SIZES:
        if set(columns) <= set(cells.columns):
            width, height = (
                pd.to_numeric(cells[name], errors="coerce").fillna(0).astype(np.int64) for name in columns
            )
            return width.to_numpy(), height.to_numpy()
    return np.zeros(len(cells), np.int64), np.zeros(len(cells), np.int64)


def _official_split(names: pd.Series, folder: Path) -> tuple[pd.Series, tuple[str, ...]]:
    """Read the official lists: train for the train and validation list, test, or empty for neither."""
    split = pd.Series([""] * len(names), dtype=object)
    lists = {"train": find_file(folder, "train_val_list.txt"), "test": find_file(folder, "test_list.txt")}
    if not any(lists.values()):
        return split, ()
    for part, path in lists.items():
        if path is not None:
            split[names.isin(path.read_text(encoding="utf-8", errors="replace").split())] = part
    neither = int((split == "").sum())
    return split, (f"{neither:,} images are in neither official list",) if neither else ()


def _boxes(images: pd.Series, folder: Path) -> pd.DataFrame:
    """Read the boxes of the table's images as fractions.

    Args:
        images: The table's image paths, indexed by file name.
        folder: Where `BBox_List_2017.csv` may be.
    """
    path = find_file(folder, "BBox_List_2017.csv")
    if path is None:
        return no_boxes()
    cells = read_csv(path)
    require_columns(cells, _BOX_CELLS, path=path)
    cells = cells[cells["Image Index"].isin(images.index)]
    numbers = cells[list(_BOX_CELLS[2:])].apply(pd.to_numeric, errors="coerce").to_numpy(float) / BOX_SIDE
    if np.isnan(numbers).any():
        raise DataError(f"{path} holds a box whose four numbers cannot be read")
    finding = {label: canonical(label) for label in cells["Finding Label"].unique()}
    boxes = pd.DataFrame(numbers, columns=list(BOX_COLUMNS[2:]))
    boxes.insert(0, "image", images[cells["Image Index"]].to_numpy())
    boxes.insert(1, "finding", cells["Finding Label"].map(finding).to_numpy())
    return boxes
