"""MedMNIST's chest radiographs (PneumoniaMNIST, ChestMNIST) -> a Table.

Layout: `pneumoniamnist.npz` or `chestmnist.npz`, or a size of MedMNIST+ such as `pneumoniamnist_224.npz`, with the
keys `train_images`, `train_labels`, `val_images`, `val_labels`, `test_images`, `test_labels`; the file, or a folder
that holds one of them. Images are uint8 (n, side, side) and stay in the archive: each is read in place, as
`pneumoniamnist.npz::train_images.npy/17`.

Findings: PneumoniaMNIST's label is 1 for pneumonia (Kermany's children); ChestMNIST's are the 14 findings of NIH
ChestX-ray14 in the order of its paper. The published split is kept. Patients are not told: each image counts as its
own.

Citation: Yang et al., Scientific Data 2023. Terms: CC BY 4.0. Where: Zenodo, doi:10.5281/zenodo.10519652.
"""

import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum.data.readers.base import Reader, Request
from hilum.data.table import MEMBER, Source, Table, make_frame
from hilum.errors import DataError, LayoutError, UsageError
from hilum.recipe.findings import NIH_FINDINGS

FINDINGS: dict[str, tuple[str, ...]] = {"pneumoniamnist": ("Pneumonia",), "chestmnist": NIH_FINDINGS}
"""Set -> its label columns, in their order."""

CITATION = (
    "Yang J, Shi R, Wei D, et al. MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image "
    "classification. Scientific Data 2023;10:41. doi:10.1038/s41597-022-01721-8. {origin}"
)
ORIGINS = {
    "pneumoniamnist": "Images: Kermany DS, et al. Cell 2018;172(5):1122-1131",
    "chestmnist": "Images: Wang X, et al. ChestX-ray8. CVPR 2017:3462-3471",
}
TERMS = (
    "CC BY 4.0. Each image counts as its own patient, since patients are not told: train and val may share patients. "
    "The images are reduced, and no basis for clinical use"
)

_NAME = re.compile(rf"({'|'.join(FINDINGS)})(?:_\d+)?\.npz", re.IGNORECASE)
_SPLITS = ("train", "val", "test")


def matches(request: Request) -> bool:
    """Return whether there is an archive of one of these names with MedMNIST's keys."""
    return any(_has_keys(path) for path in _archives(request.source))


def read(request: Request) -> Table:
    """Read the set; see the module for the layout."""
    if request.images is not None:
        raise UsageError("--images does not apply to MedMNIST, whose images lie in the .npz file itself")
    path = _archive(request.source)
    name = path.name.lower().partition("_")[0].removesuffix(".npz")
    findings = FINDINGS[name]
    images: list[str] = []
    splits: list[str] = []
    labels, sides = [], []
    for split in _SPLITS:
        values, shape = _part(path, split, findings)
        images += [f"{path.name}{MEMBER}{split}_images.npy/{place}" for place in range(len(values))]
        splits += [split] * len(values)
        labels.append(values)
        sides.append(np.tile([[shape[2], shape[1]]], (len(values), 1)))
    width, height = np.concatenate(sides).T
    note = "patients are not told: each image counts as its own patient, and train and val may share patients"
    return Table(
        frame=make_frame(
            image=images,
            source=path.stem.lower(),
            patient=images,
            split=splits,
            width=width,
            height=height,
            findings=findings,
            labels=np.concatenate(labels),
        ),
        findings=findings,
        sources=(
            Source(
                path.stem.lower(),
                path.parent,
                CITATION.format(origin=ORIGINS[name]),
                TERMS,
                states_no_finding=True,
            ),
        ),
        notes=(note,),
    )


READER = Reader(
    expects="pneumoniamnist.npz or chestmnist.npz (or a size such as chestmnist_224.npz), or a folder with one of them",
    matches=matches,
    read=read,
)


def _archives(source: Path) -> list[Path]:
    places = [source] if source.is_file() else sorted(source.iterdir())
    return [path for path in places if _NAME.fullmatch(path.name) and path.is_file()]


def _has_keys(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False
    return {f"{split}_{kind}.npy" for split in _SPLITS for kind in ("images", "labels")} <= names


def _archive(source: Path) -> Path:
    there = _archives(source)
    if len(there) != 1:
        known = ", ".join(f"{name}.npz" for name in FINDINGS)
        found = ", ".join(path.name for path in there) or "none"
        raise LayoutError(f"{source} holds {found} of {known} and their larger sizes; give one file")
    if not _has_keys(there[0]):
        raise DataError(f"{there[0]} is no whole archive with train_images, train_labels ...; get it again")
    return there[0]


def _part(path: Path, split: str, findings: tuple[str, ...]) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Read a part's labels, float64 (images, findings), and the shape of its images without their pixels."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            labels = np.asarray(archive[f"{split}_labels"])
        shape = _shape(path, f"{split}_images.npy")
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__} in {split}); get it again") from None
    if labels.ndim == 1:
        labels = labels[:, None]
    if labels.shape != (shape[0], len(findings)) or not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"{path}: {split}_labels are {labels.shape}; 0 or 1 for {shape[0]:,} images and "
            f"{len(findings)} findings were expected"
        )
    return labels.astype(float), shape


def _shape(path: Path, member: str) -> tuple[int, ...]:
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape: tuple[int, ...] = header(stream)[0]
    if len(shape) not in (3, 4):
        raise ValueError("not a stack of images")
    return shape
