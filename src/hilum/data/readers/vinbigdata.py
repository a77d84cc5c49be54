"""VinBigData's chest radiographs (VinDr-CXR, as its Kaggle challenge ships them) -> a Table.

Layout: `train.csv` (`image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max`, one row a box and reader, or one
`No finding` of a reader without a box) and the images as `train/<image_id>.dicom`; the folder or the file. Images of
the same names in another format are read too (`--images`).

Labels: three radiologists read each image of train. A finding is present where more than half of an image's readers
marked it, unknown where exactly half did, else absent. The notes tell how well readers agree (Fleiss' kappa); `votes`
gives each image's votes.

Boxes: those of all readers, not merged, since each is a reader's own outline, of findings that the vote calls
present; what was voted down has none. They are in pixels of the original, whose size stands in the DICOM header, or
in `train_meta.csv` (`image_id,dim0,dim1`: rows, columns) as copies in other formats bring it. Where neither is there,
boxes are left out.

Patients are not told: each image counts as its own patient.

Citation: Nguyen et al., Scientific Data 2022. Terms: the challenge's, or PhysioNet's credentialed data use agreement.
Where: Kaggle, competition `vinbigdata-chest-xray-abnormalities-detection`; the whole VinDr-CXR: PhysioNet.
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
from hilum.data.table import Source, Table, make_frame, no_boxes
from hilum.errors import DataError, LayoutError
from hilum.images import header
from hilum.recipe.findings import NO_FINDING, canonical
from hilum.stats import fleiss_kappa

FINDINGS = (
    "Aortic Enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "Interstitial Lung Disease",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other Lesion",
    "Effusion",
    "Pleural Thickening",
    "Pneumothorax",
    "Fibrosis",
)
"""In the order of `class_id`; 14 is `No finding`."""

CITATION = (
    "Nguyen HQ, Lam K, Le LT, et al. VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations. "
    "Scientific Data 2022;9:429. doi:10.1038/s41597-022-01498-w"
)
TERMS = (
    "The challenge's terms, or PhysioNet's credentialed data use agreement: research only, no redistribution. "
    "Each image counts as its own patient, since patients are not told: a split may leak patients"
)

_COLUMNS = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")


def matches(request: Request) -> bool:
    """Return whether there is a CSV file with the challenge's columns."""
    path = _label_file(request.source)
    return path is not None and set(_COLUMNS) <= set(read_header(path))


def read(request: Request) -> Table:
    """Read the set; see the module for the layout."""
    path = _label_file(request.source)
    if path is None:
        raise LayoutError(f"there is no train.csv in {request.source}")
    cells = _cells(path)
    counted, readers = _votes(cells)
    folder = request.images or _images(path.parent)
    ids = pd.Series(counted.index, dtype=object)
    images, found = locate_by_stem(ids, folder, suffix=".dicom")
    kept, left_out = rows_to_keep(found, place=folder, required=request.images is not None)
    share = counted.to_numpy(float) / readers.to_numpy(float)[:, None]
    labels = np.where(share == 0.5, np.nan, (share > 0.5).astype(float))
    place_of = pd.Series(images[kept].to_numpy(), index=ids[kept].to_numpy())
    called = pd.DataFrame(labels == 1, counted.index, counted.columns)
    boxes, box_notes = _boxes(cells, place_of, called, folder=folder, path=path)
    return Table(
        frame=make_frame(
            image=images[kept].to_numpy(),
            source="vinbigdata",
            patient=ids[kept].to_numpy(),
            findings=FINDINGS,
            labels=labels[kept],
        ),
        findings=FINDINGS,
        sources=(Source("vinbigdata", folder, CITATION, TERMS, states_no_finding=True),),
        boxes=boxes,
        notes=(
            *left_out,
            *_agreement_notes(counted, readers, labels),
            *box_notes,
            "patients are not told: each image counts as its own patient, so a split may leak patients",
        ),
    )


READER = Reader(
    expects="a folder with train.csv (image_id, class_name, rad_id and boxes) and train, or this file",
    matches=matches,
    read=read,
)


def votes(path: Path) -> pd.DataFrame:
    """Return how many readers marked each finding: a row an image, with `image_id`, `readers` and `FINDINGS`."""
    counted, readers = _votes(_cells(path))
    counted.insert(0, "readers", readers)
    return counted.reset_index()


def _label_file(source: Path) -> Path | None:
    return source if source.is_file() else find_file(source, "train.csv")


def _images(folder: Path) -> Path:
    inside = folder / "train"
    return inside if inside.is_dir() else folder


def _cells(path: Path) -> pd.DataFrame:
    cells = read_csv(path)
    require_columns(cells, _COLUMNS, path=path)
    names = {text: canonical(text) for text in cells["class_name"].unique()}
    odd = sorted(set(names.values()) - {*FINDINGS, NO_FINDING})
    if odd:
        raise DataError(
            f"{path} has the class {odd[0]!r}, which is none of this data set's: {', '.join(FINDINGS)}"
        )
    return cells.assign(finding=cells["class_name"].map(names))


def _votes(cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Return how many readers marked each finding (images, findings), and how many readers each image has."""
    readers = cells.groupby("image_id", sort=False)["rad_id"].nunique()
    marks = cells[cells["finding"] != NO_FINDING].drop_duplicates(["image_id", "rad_id", "finding"])
    counted = pd.crosstab(marks["image_id"], marks["finding"])
    counted = counted.reindex(index=readers.index, columns=list(FINDINGS), fill_value=0)
    return counted.rename_axis(columns=None), readers


def _agreement_notes(
    counted: pd.DataFrame, readers: pd.Series, labels: NDArray[np.float64]
) -> tuple[str, ...]:
    notes = []
    usual = int(readers.mode().iloc[0])
    even = counted[(readers == usual).to_numpy()].to_numpy(np.int64)
    if usual > 1:
        kappas = [
            (finding, fleiss_kappa(np.stack([usual - column, column], axis=1)))
            for finding, column in zip(FINDINGS, even.T, strict=True)
        ]
        told = ", ".join(f"{finding} {kappa:.2f}" for finding, kappa in kappas if not np.isnan(kappa))
        notes.append(
            f"Fleiss' kappa of {usual} readers over {len(even):,} images: {told or 'no finding was marked'}"
        )
    tied = int(np.isnan(labels).sum())
    if tied:
        notes.append(f"{tied:,} labels are unknown: exactly half of the readers marked the finding")
    outvoted = int(((counted > 0).to_numpy() & (labels == 0)).sum())
    if outvoted:
        notes.append(
            f"{outvoted:,} findings that a minority of an image's readers marked are taken as absent"
        )
    return tuple(notes)


def _boxes(
    cells: pd.DataFrame, place_of: pd.Series, called: pd.DataFrame, *, folder: Path, path: Path
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Turn the readers' boxes into fractions, as far as the size of the originals is known."""
    marked = cells[(cells["finding"] != NO_FINDING) & cells["image_id"].isin(place_of.index)]
    rows = called.index.get_indexer(marked["image_id"])
    agreed = called.to_numpy()[rows, called.columns.get_indexer(marked["finding"])]
    sizes = _sizes(marked.loc[agreed, "image_id"].unique(), place_of, folder=folder, csv_folder=path.parent)
    known = marked["image_id"].isin(sizes.index).to_numpy()
    used = marked[agreed & known]
    notes = []
    if not agreed.all():
        notes.append(f"{int((~agreed).sum()):,} boxes of findings that were voted down are left out")
    if (agreed & ~known).any():
        notes.append(
            f"{int((agreed & ~known).sum()):,} boxes are left out: the size of their originals is not known; it stands "
            "in DICOM files or in a train_meta.csv beside train.csv"
        )
    if not len(used):
        return no_boxes(), tuple(notes)
    corners = used[["x_min", "y_min", "x_max", "y_max"]].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if np.isnan(corners).any():
        raise DataError(f"{path} holds a box whose four numbers cannot be read")
    scale = np.tile(np.array([sizes[name] for name in used["image_id"]], float), 2)
    # A reader's box may end a pixel or two beyond the image.
    fractions = np.clip(corners / scale, 0, 1)
    fractions[:, 2:] -= fractions[:, :2]
    return boxes_of(
        place_of[used["image_id"]].to_numpy(), used["finding"].tolist(), fractions, path=path
    ), tuple(notes)


def _sizes(ids: NDArray[np.object_], place_of: pd.Series, *, folder: Path, csv_folder: Path) -> pd.Series:
    """Find the originals' (width, height) in pixels, by image, where it can be known."""
    path = find_file(csv_folder, "train_meta.csv")
    if path is not None:
        cells = read_csv(path)
        require_columns(cells, ("image_id", "dim0", "dim1"), path=path)
        sides = cells[["dim1", "dim0"]].apply(pd.to_numeric, errors="coerce").to_numpy(float)
        told = dict(zip(cells["image_id"], map(tuple, sides), strict=True))
        return pd.Series({name: told[name] for name in ids if min(told.get(name, (0,))) > 0}, dtype=object)
    # Of a copy in another format the size is not the original's.
    headers = {
        name: header(folder / place_of[name])
        for name in ids
        if place_of[name].lower().endswith((".dicom", ".dcm"))
    }
    return pd.Series(
        {name: (h.width, h.height) for name, h in headers.items() if h is not None}, dtype=object
    )
