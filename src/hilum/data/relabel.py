"""A table and a second set of labels for its images -> the table with these labels, and how far the two agree."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from hilum.data.readers.base import file_names
from hilum.data.table import COLUMNS, Table
from hilum.errors import DataError
from hilum.progress import count
from hilum.stats import Agreement, agreement


@dataclass(frozen=True)
class Relabelled:
    """A table with other labels.

    Attributes:
        table: The first table's rows and images with the second's findings and labels.
        agreement: Of both sets, for each finding that both know and over the images that both name.
        matched: How many rows the second set names.
    """

    table: Table
    agreement: tuple[Agreement, ...]
    matched: int


def relabel(table: Table, other: Table) -> Relabelled:
    """Replace a table's labels by those that another table has for the same images.

    Images are the same where their paths are, or, where no path is, where their file names are. The result has the
    second set's findings and no others, so that two ways of labelling are never mixed in one row. Rows that the
    second set does not name become unknown. Boxes stay where the new labels call their finding present. Patients,
    splits and the rest stay.

    Args:
        table: Whose images, patients and splits stay.
        other: Whose labels are taken; its images need not be there.

    Raises:
        DataError: An image's name occurs twice, so that it cannot be told which is meant, or the second set names none
            of the images.
    """
    rows, how = _matched(table.frame["image"].astype(object), other.frame["image"].astype(object))
    found = rows >= 0
    labels = np.full((len(table), len(other.findings)), np.nan)
    labels[found] = other.labels(other.findings)[rows[found]]
    shared = [name for name in other.findings if name in table.findings]
    compared: tuple[Agreement, ...] = ()
    if shared:
        columns = [other.findings.index(name) for name in shared]
        compared = agreement(table.labels(shared)[found], labels[found][:, columns], findings=shared)
    frame = pd.concat(
        [table.frame[list(COLUMNS)], pd.DataFrame(labels, table.frame.index, list(other.findings))], axis=1
    )
    boxes = _kept_boxes(table, frame, other.findings)
    told = " and ".join(source.name for source in other.sources)
    named = f"{int(found.sum()):,} of {len(table):,} images"
    notes = [
        f"labels are those of {told}, which names {named} ({how}); the others are unknown",
        *(f"second labels: {note}" for note in other.notes if "no image was found" not in note),
    ]
    if compared and not any(one.first_only or one.second_only for one in compared):
        notes.append(
            f"the second labels are the table's own in every image that both know, of {count(len(shared), 'finding')}: "
            "where other labels were meant, name their columns with --column"
        )
    gone = [name for name in table.findings if name not in other.findings]
    if gone:
        notes.append(f"the second labels know nothing of {', '.join(gone)}: these findings are left out")
    if len(boxes) < len(table.boxes):
        notes.append(
            f"{len(table.boxes) - len(boxes):,} boxes are left out: the second labels do not call their finding present"
        )
    changed = replace(
        table,
        frame=frame,
        findings=other.findings,
        # What is said of normal films is said by those who labelled them.
        sources=tuple(
            replace(source, states_no_finding=all(one.states_no_finding for one in other.sources))
            for source in table.sources
        ),
        boxes=boxes,
        notes=(*table.notes, *notes),
    )
    return Relabelled(changed, compared, int(found.sum()))


def _matched(images: pd.Series, others: pd.Series) -> tuple[np.ndarray, str]:
    """Return each image's row in `others`, int64, -1 where it is not there, and by what they were matched."""
    how = "by path"
    if not images.isin(others).any():
        how = "by file name"
        images, others = file_names(images), file_names(others)
    wanted = others[others.isin(images)]
    for names, which in ((wanted, "the second labels"), (images[images.isin(wanted)], "the table")):
        if names.duplicated().any():
            raise DataError(
                f"{which} has {int(names.duplicated().sum()):,} image names twice (compared {how}); "
                "which image is meant cannot be told: give paths that are unique"
            )
    place = pd.Series(wanted.index.to_numpy(), index=wanted.to_numpy())
    rows = images.map(place).fillna(-1).to_numpy(np.int64)
    if (rows < 0).all():
        raise DataError(
            f"the second labels name none of the table's {len(images):,} images, neither by path nor by file name"
        )
    return rows, how


def _kept_boxes(table: Table, frame: pd.DataFrame, findings: Sequence[str]) -> pd.DataFrame:
    boxes = table.boxes[table.boxes["finding"].isin(findings)]
    if not len(boxes):
        return boxes
    # No boxed image is in two sources.
    rows = pd.Index(frame["image"]).get_indexer_for(boxes["image"])
    columns = [list(findings).index(finding) for finding in boxes["finding"]]
    return boxes[frame[list(findings)].to_numpy()[rows, columns] == 1]
