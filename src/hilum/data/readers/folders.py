"""One folder a class -> a Table.

Layout: `ROOT/CLASS/*.png`, or the same under `ROOT/train`, `ROOT/val` (or `valid`, `validation`) and
`ROOT/test`. A class folder without images of its own is read from the folder `images` in it
(`ROOT/CLASS/images/*.png` beside `ROOT/CLASS/masks/*.png`, as the COVID-19 Radiography Database has it).
Class folders and images may be symbolic links. Images deeper inside a class folder, such as masks, are counted
and not read.

Each image belongs to exactly one class: its finding is present and the others are absent. Spellings that differ in
letter case, blanks and underscores alone are one class. In a class named `NORMAL`, `Healthy`, `Gesund`,
`No Finding` and the like all findings are absent; `No X` beside a class `X` says that X is absent.

Citation, terms, where: unknown; they are the user's to know.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hilum.data.readers.base import (
    SPLIT_MEANINGS,
    LeftOut,
    Reader,
    Request,
    encode,
    findings_of,
    images_in,
    left_out_notes,
    patients_from_names,
    states,
    sub_folders,
    ticked,
    walk_images,
)
from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError, LayoutError
from hilum.recipe.findings import NO_FINDING, in_order, one_spelling


def matches(request: Request) -> bool:
    """Return whether at least two class folders hold images; `images`, `images_256`, `masks` ... are no classes."""
    return any(_is_split_by_class(classes) for _, classes in _parts(request.images or request.source, {}))


def read(request: Request) -> Table:
    """Read the folders; see the module for the layout."""
    root = request.images or request.source
    left_out: LeftOut = {}
    frame = _listed(root, left_out)
    counts = frame["label"].value_counts(sort=False)
    classes = one_spelling(counts.index)
    if len(set(classes.values())) < 2:
        raise LayoutError(
            f"{root} holds {len(counts)} class folders with images; at least two were expected"
            + "".join(f"; {note}" for note in left_out_notes(left_out))
        )
    findings = in_order(findings_of(classes.values()))
    if not findings:
        raise DataError(f"the classes of {root} ({', '.join(counts.index)}) name no finding")
    patients, patient_notes = patients_from_names(frame["image"])
    # A class is one name, whatever signs are in it.
    names = frame["label"].map(classes)
    labels = encode(names, findings, separator="\n", path=root)
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
                states_no_finding=states(labels, findings, ticked(names, separator="\n")),
            ),
        ),
        notes=(*_class_notes(counts, classes, findings), *left_out_notes(left_out), *patient_notes),
    )


READER = Reader(
    expects="a folder with one sub-folder of images a class, or train, val and test with these",
    matches=matches,
    read=read,
    general=True,
)


def _listed(root: Path, left_out: LeftOut) -> pd.DataFrame:
    """Return image, split and label (the name of its class folder) of each image."""
    rows = [
        (path.relative_to(root).as_posix(), split, label)
        for split, classes in _parts(root, left_out)
        for label, folder in classes.items()
        for path in _class_images(folder, left_out)
    ]
    return pd.DataFrame(rows, columns=["image", "split", "label"], dtype=object)


def _parts(root: Path, left_out: LeftOut) -> list[tuple[str, Mapping[str, Path]]]:
    """Return (split, class folders) of each part; one without a split where there are none."""
    inside = sub_folders(root, left_out)
    parts = {
        folder: SPLIT_MEANINGS[name.upper()]
        for name, folder in inside.items()
        if name.upper() in SPLIT_MEANINGS
    }
    if parts:
        return [(split, sub_folders(folder, left_out)) for folder, split in parts.items()]
    return [("", inside)]


def _is_split_by_class(classes: Mapping[str, Path]) -> bool:
    filled = [name for name, folder in classes.items() if _class_images(folder, {})]
    return len([name for name in filled if not name.lower().startswith(("images", "mask"))]) >= 2


def _class_images(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return the images of a class: those in its folder, else those in the folder `images` in it."""
    found = [folder / name for name in images_in(folder, left_out)]
    for name, inner in sub_folders(folder).items():
        if not found and name.lower() == "images":
            found = [inner / image for image in images_in(inner, left_out)]
        elif deeper := list(walk_images(inner)):
            left_out.setdefault(f"images in folders {name} inside class folders", []).extend(deeper)
    return found


def _class_notes(counts: pd.Series, classes: Mapping[str, str], findings: Sequence[str]) -> tuple[str, ...]:
    """Say which folders are which classes, and which of them is taken as normal."""
    notes = [f"classes by folder: {', '.join(f'{label} ({count:,})' for label, count in counts.items())}"]
    for name in dict.fromkeys(classes.values()):
        spellings = [label for label, meant in classes.items() if meant == name]
        if name == NO_FINDING:
            notes.append(f"{' and '.join(spellings)}: taken as {NO_FINDING}, every finding is absent")
        elif len(spellings) > 1:
            notes.append(f"{' and '.join(map(repr, spellings))} are one finding, {name}")
    if set(classes.values()) == set(findings):
        notes.append(
            f"no class is known as normal (such as Normal, Healthy or {NO_FINDING}): "
            f"each of the {len(findings)} classes is a finding of its own"
        )
    return tuple(notes)
