"""One folder a class -> a Table.

Layout: `ROOT/CLASS/*.png`, or the same under `ROOT/train`, `ROOT/val` (or `valid`, `validation`) and
`ROOT/test`. Each image belongs to exactly one class: its finding is present and the others are absent. In a
class named `NORMAL`, `Normal` or `No Finding` all are absent; `No X` beside a class `X` says that X is
absent. Images deeper inside a class folder, such as masks, are not read.

Citation, terms, where: unknown; they are the user's to know.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from hilum.data.readers.base import (
    SPLIT_MEANINGS,
    Reader,
    Request,
    encode,
    findings_of,
    images_in,
    patients_from_names,
    states,
    sub_folders,
    ticked,
)
from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError, LayoutError
from hilum.recipe.findings import in_order


def matches(request: Request) -> bool:
    """Return whether at least two class folders hold images; `images`, `images_256` ... are no classes."""
    return any(_is_split_by_class(classes) for _, classes in _parts(request.images or request.source))


def read(request: Request) -> Table:
    """Read the folders; see the module for the layout."""
    root = request.images or request.source
    rows = [
        (folder.joinpath(name).relative_to(root).as_posix(), split, label)
        for split, classes in _parts(root)
        for label, folder in classes.items()
        for name in images_in(folder)
    ]
    frame = pd.DataFrame(rows, columns=["image", "split", "label"])
    counts = frame["label"].value_counts(sort=False)
    if len(counts) < 2:
        raise LayoutError(f"{root} holds {len(counts)} class folders with images; at least two were expected")
    findings = in_order(findings_of(counts.index))
    if not findings:
        raise DataError(f"the classes of {root} ({', '.join(counts.index)}) name no finding")
    patients, patient_notes = patients_from_names(frame["image"])
    described = ", ".join(f"{label} ({count:,})" for label, count in counts.items())
    # A class is one name, whatever signs are in it.
    labels = encode(frame["label"], findings, separator="\n", path=root)
    return Table(
        frame=make_frame(
            image=frame["image"],
            source=root.name,
            patient=patients,
            split=frame["split"],
            findings=findings,
            labels=labels,
        ),
        findings=findings,
        sources=(
            Source(
                root.name,
                root,
                citation="unknown",
                terms="; ".join(("unknown", *patient_notes)),
                states_no_finding=states(labels, findings, ticked(frame["label"], separator="\n")),
            ),
        ),
        notes=(f"classes by folder: {described}", *patient_notes),
    )


READER = Reader(
    expects="a folder with one sub-folder of images a class, or train, val and test with these",
    matches=matches,
    read=read,
    general=True,
)


def _parts(root: Path) -> list[tuple[str, Mapping[str, Path]]]:
    """Return (split, class folders) of each part; one without a split where there are none."""
    inside = sub_folders(root)
    parts = {
        folder: SPLIT_MEANINGS[name.upper()]
        for name, folder in inside.items()
        if name.upper() in SPLIT_MEANINGS
    }
    if parts:
        return [(split, sub_folders(folder)) for folder, split in parts.items()]
    return [("", inside)]


def _is_split_by_class(classes: Mapping[str, Path]) -> bool:
    filled = [name for name, folder in classes.items() if images_in(folder)]
    return len(filled) >= 2 and not all(name.lower().startswith("images") for name in filled)
