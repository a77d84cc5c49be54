"""RSNA Pneumonia Detection Challenge -> a Table.

Layout: `stage_2_train_labels.csv` (`patientId,x,y,width,height,Target`, one row a box, or one without a box where
Target is 0), the images as `stage_2_train_images/<patientId>.dcm` below it, and, where it is there,
`stage_2_detailed_class_info.csv` (`patientId,class`); the folder or the label file. The images of the test stage have
no labels and are not read. Images of the same names in another format are read too (`--images`).

Findings: `Pneumonia` is Target, a lung opacity that readers thought suspicious of pneumonia. Target 0 holds both
normal and otherwise abnormal radiographs. The detailed classes part them: `Other Abnormality` is present in `No Lung
Opacity / Not Normal`, absent in `Normal`, unknown where there is an opacity. Boxes are in pixels of the distributed
1024 x 1024.

Patients: `patientId` names an image. The images were chosen from NIH ChestX-ray14, where a patient may have several;
each image counts as its own patient here. View, sex, age and size come from the DICOM headers, which are read without
their pixels (under a millisecond a file); of images in another format they are unknown.

Citation: Shih et al., Radiology: Artificial Intelligence 2019. Terms: the challenge's: research and education, not
commercial. Where: Kaggle, competition `rsna-pneumonia-detection-challenge`.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum.data.readers.base import (
    Reader,
    Request,
    boxes_of,
    find_file,
    locate_by_stem,
    read_csv,
    read_header,
    require_columns,
    rows_to_keep,
)
from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError, LayoutError, nearest
from hilum.images import header

CITATION = (
    "Shih G, Wu CC, Halabi SS, et al. Augmenting the National Institutes of Health Chest Radiograph Dataset with "
    "Expert Annotations of Possible Pneumonia. Radiology: Artificial Intelligence 2019;1(1):e180041. "
    "doi:10.1148/ryai.2019180041"
)
TERMS = (
    "The challenge's terms: research and education, not commercial; cite the paper, the NIH Clinical Center and RSNA. "
    "Each image counts as its own patient, since patients are not told: a split may leak patients"
)
LABEL_FILE = "stage_2_train_labels.csv"
CLASS_FILE = "stage_2_detailed_class_info.csv"
OTHER = "Other Abnormality"
CLASSES = {"Normal": (0.0, 0.0), "No Lung Opacity / Not Normal": (0.0, 1.0), "Lung Opacity": (1.0, np.nan)}
"""Detailed class -> pneumonia, other abnormality."""

BOX_SIDE = 1024.0
"""Pixels; every distributed image has this width and height."""

_COLUMNS = ("patientId", "x", "y", "width", "height", "Target")


def matches(request: Request) -> bool:
    """Return whether there is a CSV file with the challenge's columns."""
    path = _label_file(request.source)
    return path is not None and set(_COLUMNS) <= set(read_header(path))


def read(request: Request) -> Table:
    """Read the set; see the module for the layout."""
    path = _label_file(request.source)
    if path is None:
        raise LayoutError(f"there is no {LABEL_FILE} in {request.source}")
    cells = read_csv(path)
    require_columns(cells, _COLUMNS, path=path)
    names = cells["patientId"].str.strip()
    target = cells["Target"].str.strip()
    if not target.isin(("0", "1")).all():
        raise DataError(
            f"{path}: Target is neither 0 nor 1 in {int((~target.isin(('0', '1'))).sum()):,} rows"
        )
    present = (target == "1").groupby(names, sort=False)
    pneumonia = present.max()
    contradicted = int((pneumonia != present.min()).sum())
    if contradicted:
        raise DataError(f"{path}: {contradicted:,} images have both Target 0 and Target 1")
    ids = pd.Series(pneumonia.index, dtype=object)
    findings, labels, class_notes = _labels(ids, pneumonia.to_numpy(float), path.parent)
    folder = request.images or _images(path.parent)
    images, found = locate_by_stem(ids, folder, suffix=".dcm")
    kept, left_out = rows_to_keep(found, place=folder, required=request.images is not None)
    told, header_notes = _headers(images[kept & found], folder)
    told = told.reindex(images[kept])
    place_of = pd.Series(images[kept].to_numpy(), index=ids[kept].to_numpy())
    boxed = ((target == "1") & names.isin(place_of.index)).to_numpy()
    corners = _numbers(cells[boxed], path)
    return Table(
        frame=make_frame(
            image=images[kept].to_numpy(),
            source="rsna",
            patient=ids[kept].to_numpy(),
            view=told["view"].fillna(""),
            sex=told["sex"].fillna(""),
            age=told["age"],
            width=told["width"].fillna(0),
            height=told["height"].fillna(0),
            split="",
            findings=findings,
            labels=labels[kept],
        ),
        findings=findings,
        # Of Target alone no image is known to be normal, and `Other Abnormality` is unknown.
        sources=(Source("rsna", folder, CITATION, TERMS, states_no_finding=True),),
        boxes=boxes_of(
            place_of[names[boxed]].to_numpy(), ["Pneumonia"] * int(boxed.sum()), corners / BOX_SIDE, path=path
        ),
        notes=(
            *left_out,
            *class_notes,
            *header_notes,
            "patients are not told: each image counts as its own patient, so a split may leak patients",
        ),
    )


READER = Reader(
    expects=f"a folder with {LABEL_FILE} and stage_2_train_images, or this file",
    matches=matches,
    read=read,
)


def _label_file(source: Path) -> Path | None:
    return source if source.is_file() else find_file(source, LABEL_FILE)


def _images(folder: Path) -> Path:
    inside = folder / "stage_2_train_images"
    return inside if inside.is_dir() else folder


def _labels(
    ids: pd.Series, pneumonia: NDArray[np.float64], folder: Path
) -> tuple[tuple[str, ...], NDArray[np.float64], tuple[str, ...]]:
    path = find_file(folder, CLASS_FILE)
    if path is None:
        note = f"without {CLASS_FILE} no image is known to be normal: those without pneumonia may show something else"
        # An unknown second finding keeps `No Finding` from being derived of what may be abnormal.
        unknown = np.full(len(ids), np.nan)
        return ("Pneumonia", OTHER), np.stack([pneumonia, unknown], axis=1), (note,)
    cells = read_csv(path)
    require_columns(cells, ("patientId", "class"), path=path)
    cells = cells.assign(patientId=cells["patientId"].str.strip()).drop_duplicates(["patientId", "class"])
    unknown_class = sorted(set(cells["class"].str.strip()) - CLASSES.keys())
    if unknown_class:
        raise DataError(
            f"{path} has an unknown class {unknown_class[0]!r}; known are: {nearest(unknown_class[0], CLASSES)}"
        )
    classes = pd.Series(cells["class"].str.strip().to_numpy(), index=cells["patientId"].to_numpy())
    if classes.index.has_duplicates:
        raise DataError(f"{path} gives {int(classes.index.duplicated().sum()):,} images two classes")
    told = ids.map(classes)
    if told.isna().any():
        raise DataError(
            f"{path} does not name {int(told.isna().sum()):,} of the {len(ids):,} labelled images"
        )
    labels = np.array([CLASSES[name] for name in told])
    if (labels[:, 0] != pneumonia).any():
        count = int((labels[:, 0] != pneumonia).sum())
        raise DataError(
            f"{path} contradicts {LABEL_FILE} about {count:,} images; get both files from one stage"
        )
    return ("Pneumonia", OTHER), labels, ()


def _headers(images: pd.Series, folder: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read view, sex, age, width and height of DICOM files (rows by image), and say what could not be read."""
    files = [image for image in images if image.lower().endswith((".dcm", ".dicom"))]
    headers = {image: header(folder / image) for image in files}
    rows = {image: vars(header) for image, header in headers.items() if header is not None}
    told = pd.DataFrame.from_dict(rows, orient="index", columns=["view", "sex", "age", "width", "height"])
    notes = []
    if len(rows) < len(files):
        notes.append(
            f"{len(files) - len(rows):,} DICOM headers could not be read: view, sex and age are unknown there"
        )
    if len(files) < len(images):
        notes.append(
            f"{len(images) - len(files):,} images are no DICOM files: view, sex and age are unknown there"
        )
    return told, tuple(notes)


def _numbers(cells: pd.DataFrame, path: Path) -> NDArray[np.float64]:
    """Return x, y, width and height in pixels, float64 (boxes, 4)."""
    columns = cells[["x", "y", "width", "height"]]
    numbers: NDArray[np.float64] = columns.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if np.isnan(numbers).any():
        raise DataError(f"{path} holds a row of Target 1 whose box cannot be read")
    return numbers
