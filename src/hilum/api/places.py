"""The name of a public data set -> the folder where it lies, here or where Kaggle and Colab put it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hilum.errors import UsageError, nearest

ROOTS = (
    "data",
    "../data",
    "/kaggle/input",
    "/kaggle/input/datasets/*",
    "/content",
    "/content/data",
    "/content/drive/MyDrive",
    "/content/drive/MyDrive/data",
)
"""Where to look, in this order: beside the notebook, Kaggle's mounts, Colab's disk, Google Drive once it is mounted."""


@dataclass(frozen=True)
class Place:
    """How a data set is known.

    Attributes:
        variable: The environment variable that says where it lies.
        folders: Below a root; `*` stands for any name.
        content: One of these is in it.
    """

    variable: str
    folders: tuple[str, ...]
    content: tuple[str, ...]


NIH_WHOLE, NIH_SAMPLE = ("nih", "data"), ("sample/sample", "sample")
NIH_TABLES = ("Data_Entry_2017*.csv", "sample_labels.csv")
PLACES = {
    "kermany": Place(
        "HILUM_KERMANY",
        ("chest_xray", "chest-xray-pneumonia/chest_xray"),
        ("train/NORMAL", "train/PNEUMONIA"),
    ),
    "nih": Place("HILUM_NIH", (*NIH_WHOLE, *NIH_SAMPLE), NIH_TABLES),
    "nih-sample": Place("HILUM_NIH", (*NIH_SAMPLE, *NIH_WHOLE), NIH_TABLES),
}
"""Name -> how it is known; the names of folders are those of Kaggle's data sets, beside plain ones."""


def find_data(name: str) -> Path:
    """Return where a public data set lies: as its environment variable says, else the first place that holds it.

    Args:
        name: `kermany`, or `nih` (the whole, else Kaggle's sample) or `nih-sample` (the sample, else the whole).

    Raises:
        UsageError: The name is unknown, or the data are nowhere; the message says where they were looked for.
    """
    if name not in PLACES:
        raise UsageError(f"no data set {name!r} is known here; there are: {nearest(name, PLACES)}")
    place = PLACES[name]
    if said := os.environ.get(place.variable):
        if not Path(said).exists():
            raise UsageError(
                f"{place.variable} is {said}, where nothing is; let it name the folder of the data"
            )
        return Path(said)
    for folder in _candidates(place):
        if any(any(folder.glob(content)) for content in place.content):
            return folder
    raise UsageError(
        f"the data set {name} was not found: no folder {' or '.join(place.folders)} with "
        f"{' or '.join(place.content)} below {', '.join(ROOTS)}; say where it lies with {place.variable}"
    )


def _candidates(place: Place) -> Iterator[Path]:
    for root in map(Path, ROOTS):
        roots = sorted(root.parent.glob(root.name)) if root.name == "*" else [root]
        for folder in place.folders:
            yield from (each / folder for each in roots)
