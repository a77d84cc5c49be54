"""Stanford's CheXpert -> a Table.

Layout: `CheXpert-v1.0-small` (or `CheXpert-v1.0`) with `train.csv`, `valid.csv` and the images in
`train/patient00001/study1/view1_frontal.jpg`; the folder, its parent, or one of the CSV files. Both files are read
from a folder, and become the splits train and val. Paths are taken without their first part, so that a folder of
another name is read too.

Header: `Path,Sex,Age,Frontal/Lateral,AP/PA`, then `No Finding` and 13 findings with 1.0, 0.0, -1.0 (uncertain) or
nothing. By default -1 and nothing are unknown; `--uncertain` and `--empty` with `zeros` or `ones` make them absent or
present. Publications mostly take what is empty as absent (`--empty zeros`). Where `No Finding` is ticked, empty
findings are absent; of support devices it says nothing. An age of 90 means 90 and above.

Citation: Irvin et al., AAAI 2019. Terms: Stanford's research use agreement; no redistribution, no commercial use.
Where: Stanford AIMI, `CheXpert: Chest X-rays`, after registration.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hilum.data.readers.base import (
    SEX_MEANINGS,
    VIEW_MEANINGS,
    Reader,
    Request,
    decide,
    find_file,
    numbers_or_empty,
    parse_ages,
    parse_choice,
    read_csv,
    read_header,
    require_columns,
    rows_to_keep,
    states,
    sub_folders,
)
from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError, LayoutError
from hilum.recipe.findings import named

LABELS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The finding columns as the files name them, in their order."""

CITATION = (
    "Irvin J, Rajpurkar P, Ko M, et al. CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and "
    "Expert Comparison. AAAI 2019;33:590-597"
)
TERMS = (
    "Stanford University Dataset Research Use Agreement: research only, no redistribution. The labels of train were "
    "mined from reports and hold errors; those of valid are a consensus of three radiologists"
)

_FILES = {"train.csv": "train", "valid.csv": "val"}
_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding")
_PATH = r"(?:^|/)((train|valid|test)/(patient\d+)/(study\d+)/[^/]+)$"
_SPLITS = {"train": "train", "valid": "val", "test": "test"}


def matches(request: Request) -> bool:
    """Return whether there is a CSV file with CheXpert's columns."""
    return any(_is_label_file(path) for path in _label_files(request.source))


def read(request: Request) -> Table:
    """Read the set; see the module for the layout."""
    files = [path for path in _label_files(request.source) if _is_label_file(path)]
    if not files:
        raise LayoutError(
            f"neither {request.source} nor a folder in it holds train.csv or valid.csv of CheXpert, "
            f"with the columns {', '.join(_COLUMNS)}"
        )
    read_files = [_cells(path) for path in files]
    cells = pd.concat(read_files, ignore_index=True)
    parts = cells["Path"].str.strip().str.extract(_PATH)
    if parts[0].isna().any():
        count = int(parts[0].isna().sum())
        raise DataError(
            f"{files[0].parent}: {count:,} paths are not of the form train/patient00001/study1/view1_frontal.jpg"
        )
    root = _root(request, files[0], cells["Path"].iloc[0])
    values = np.stack([numbers_or_empty(cells[name], path=files[0]) for name in LABELS], axis=1)
    normal = numbers_or_empty(cells["No Finding"], path=files[0]) == 1
    labels, label_notes = decide(values, request, normal=normal, except_=[LABELS.index("Support Devices")])
    lateral = cells["Frontal/Lateral"].str.strip().str.upper() == "LATERAL"
    view, view_notes = parse_choice(cells["AP/PA"].mask(lateral, "LATERAL"), VIEW_MEANINGS, column="AP/PA")
    # A frontal radiograph that is called lateral there: which of the two is wrong cannot be told.
    view = view.mask(~lateral & (view == "LATERAL"), "")
    sex, sex_notes = parse_choice(cells["Sex"], SEX_MEANINGS, column="Sex")
    age, age_notes = parse_ages(cells["Age"])
    findings = tuple(named(name) for name in LABELS)
    table = Table(
        frame=make_frame(
            image=parts[0],
            source="chexpert",
            patient=parts[2],
            study=parts[2] + "_" + parts[3],
            view=view,
            sex=sex,
            age=age,
            split=parts[1].map(_SPLITS),
            findings=findings,
            labels=labels,
        ),
        findings=findings,
        sources=(
            Source("chexpert", root, CITATION, TERMS, states_no_finding=states(labels, findings, normal)),
        ),
        notes=(*label_notes, *view_notes, *sex_notes, *age_notes),
    )
    found = np.ones(len(table), dtype=bool)
    found[table.missing_images()] = False
    kept, left_out = rows_to_keep(found, place=root, required=request.images is not None)
    return replace(table.select(kept), notes=(*table.notes, *left_out))


READER = Reader(
    expects="CheXpert-v1.0-small with train.csv and valid.csv, its parent, or one of these files",
    matches=matches,
    read=read,
    has_policies=True,
)


def _label_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    folders = [source, *(path for name, path in sub_folders(source).items() if name.startswith("CheXpert"))]
    for folder in folders:
        there = [path for name in _FILES if (path := find_file(folder, name))]
        if there:
            return there
    return []


def _is_label_file(path: Path) -> bool:
    return set(_COLUMNS) <= set(read_header(path))


def _cells(path: Path) -> pd.DataFrame:
    cells = read_csv(path)
    require_columns(cells, (*_COLUMNS, *LABELS), path=path)
    return cells


def _root(request: Request, path: Path, written: str) -> Path:
    """Find the folder that holds `train` and `valid`: the files' own, or the one asked for, or the named one in it."""
    folder = request.images or path.parent
    inside = folder / written.strip().partition("/")[0]
    holds_parts = any((folder / part).is_dir() for part in _SPLITS)
    return inside if inside.is_dir() and inside.name not in _SPLITS and not holds_parts else folder
