"""Kermany's paediatric pneumonia set -> a Table.

Layout: `chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`, 5,216 + 16 + 624 images as Kaggle ships them.
Kaggle's archive holds everything twice (`chest_xray/chest_xray`) and macOS's `__MACOSX`; both are passed
over. The Mendeley release (`ChestXRay2017/chest_xray`) has no `val`. A folder that holds `NORMAL` and
`PNEUMONIA` directly is read without a split.

Names: `person1234_bacteria_5678.jpeg`, `person1234_virus_5678.jpeg`, `IM-0115-0001.jpeg`,
`NORMAL2-IM-0927-0001-0001.jpeg`. The number after `person` counts within bacteria and virus, so that a
patient is the two together; a normal's patient is the `IM` number with its prefix.

Citation: Kermany et al., Cell 2018, and Mendeley Data, doi:10.17632/rscbjbr9sj.2. Terms: CC BY 4.0.
Where: Mendeley Data `rscbjbr9sj`, version 2; Kaggle `paultimothymooney/chest-xray-pneumonia`.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from hilum.data.readers.base import (
    KERMANY_NAME,
    LeftOut,
    Reader,
    Request,
    images_in,
    left_out_notes,
    sub_folders,
)
from hilum.data.table import SPLITS, Source, Table, make_frame
from hilum.errors import DataError, LayoutError

FINDINGS = ("Pneumonia", "Bacterial Pneumonia", "Viral Pneumonia")
CITATION = (
    "Kermany DS, Goldbaum M, Cai W, et al. Identifying Medical Diagnoses and Treatable Diseases by "
    "Image-Based Deep Learning. Cell 2018;172(5):1122-1131. Data: Kermany D, Zhang K, Goldbaum M. Labeled "
    "Optical Coherence Tomography (OCT) and Chest X-Ray Images for Classification. Mendeley Data, V2, 2018. "
    "doi:10.17632/rscbjbr9sj.2"
)
TERMS = "CC BY 4.0. Children of one to five years from one centre; labels are per image, by readers"

_CLASSES = ("NORMAL", "PNEUMONIA")


def matches(request: Request) -> bool:
    """Return whether there are Kermany's class folders with Kermany's file names in them."""
    root = _root(request)
    if root is None:
        return False
    folder = _class_folders(root)[0][2]
    return any(re.match(KERMANY_NAME, name) for name in images_in(folder)[:20])


def read(request: Request) -> Table:
    """Read the set; see the module for the layout."""
    root = _root(request)
    if root is None:
        raise LayoutError(
            f"no NORMAL and PNEUMONIA folders were found in {request.images or request.source} "
            "or in its train, val and test"
        )
    left_out: LeftOut = {}
    rows = [
        (folder.joinpath(name).relative_to(root).as_posix(), split, label == "PNEUMONIA")
        for split, label, folder in _class_folders(root)
        for name in images_in(folder, left_out)
    ]
    if not rows:
        raise DataError(f"the class folders under {root} hold no images")
    frame = pd.DataFrame(rows, columns=["image", "split", "pneumonia"])
    patients = frame["image"].str.rpartition("/")[2].str.extract(KERMANY_NAME)[0]
    unnamed = int(patients.isna().sum())
    notes = [
        "the numbers of bacterial and viral cases are counted apart: the same number in both is two patients"
    ]
    if unnamed:
        notes.append(
            f"{unnamed:,} file names are not of Kermany's form: each of these images is its own patient"
        )
    patients = patients.where(patients.notna(), frame["image"])
    return Table(
        frame=make_frame(
            image=frame["image"],
            source="kermany",
            patient=patients,
            view="AP",
            split=frame["split"],
            findings=FINDINGS,
            labels=_labels(frame["pneumonia"], patients),
        ),
        findings=FINDINGS,
        sources=(Source("kermany", root, CITATION, TERMS, states_no_finding=True),),
        notes=(*notes, *left_out_notes(left_out)),
    )


READER = Reader(
    expects="train, test and perhaps val, each with NORMAL and PNEUMONIA, and Kermany's file names",
    matches=matches,
    read=read,
)


def _root(request: Request) -> Path | None:
    """Find the folder above train and test: the source, or the first `chest_xray` in it.

    The outer folder comes first, so that Kaggle's inner duplicate is never read beside it.
    """
    place = request.images or request.source
    candidates = (
        place,
        place / "chest_xray",
        place / "ChestXRay2017" / "chest_xray",
        place / "chest_xray" / "chest_xray",
    )
    return next((folder for folder in candidates if _class_folders(folder)), None)


def _class_folders(root: Path) -> list[tuple[str, str, Path]]:
    """Return (split, class, folder) of each class folder; empty where not both classes are there."""
    inside = sub_folders(root)
    if all(label in inside for label in _CLASSES):
        return [("", label, inside[label]) for label in _CLASSES]
    return [
        (split, label, classes[label])
        for split in SPLITS
        if split in inside and all(label in (classes := sub_folders(inside[split])) for label in _CLASSES)
        for label in _CLASSES
    ]


def _labels(pneumonia: pd.Series, patients: pd.Series) -> np.ndarray:
    """Return float64 (rows, 3): a pneumonia whose name gives no cause has unknown causes."""
    sick = pneumonia.to_numpy(bool)
    bacteria, virus = (patients.str.endswith(cause).to_numpy(bool) for cause in ("_bacteria", "_virus"))
    known = ~sick | bacteria | virus
    causes = (np.where(known, sick & cause, np.nan) for cause in (bacteria, virus))
    return np.stack([sick.astype(float), *causes], axis=1)
