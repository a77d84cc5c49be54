"""A Table and a task -> Examples: the rows that the task asks about, with the images that can be read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from hilum.data import cache
from hilum.data.cache import Cached
from hilum.data.table import Table
from hilum.errors import DataError
from hilum.progress import Watcher, count
from hilum.recipe import InputSpec, Task
from hilum.recipe.findings import NO_FINDING, named


@dataclass(frozen=True)
class Examples:
    """Labelled images, ready for a network.

    Attributes:
        table: Their rows, width and height filled in; every image of it can be read.
        cached: Their pixels, row for row.
        quarantine: Columns image and reason: the rows whose image could not be read.
    """

    table: Table
    cached: Cached
    quarantine: pd.DataFrame

    def rows(self, split: str) -> np.ndarray:
        """Return the rows, int64, of a part of the split; all for `all`."""
        if split == "all":
            return np.arange(len(self.table))
        return np.flatnonzero(self.table.frame["split"].to_numpy() == split)


def load(
    table: Table,
    task: Task,
    spec: InputSpec,
    *,
    watch: Watcher,
) -> Examples:
    """Select a task's rows and prepare their images.

    Args:
        table: Any table that knows the findings.
        task: Of a binary or multilabel one, images are kept of which at least one finding is known; of `multiclass`
            those that have exactly one class and of which the others are known to be absent: a class that nobody
            looked for may be there as well. A note of the table says how many were left out. `no-finding` negatives
            keep images that have the finding and those of which every finding of the table is known to be absent.
        spec: The square that each image becomes.
        watch: Told of the preparation.

    Raises:
        UsageError: The table does not know a finding.
        DataError: No row answers the task, no image can be read, or an image has two classes of `multiclass`.
    """
    return prepare(answering(table, task, watch=watch), spec, watch=watch)


def answering(table: Table, task: Task, *, watch: Watcher) -> Table:
    """Select a task's rows, without a look at any image; arguments and errors as of `load`."""
    chosen, notes = _answering(table, task)
    for note in notes:
        watch.finish(f"note: {note}")
    return replace(chosen, notes=(*chosen.notes, *notes))


def prepare(table: Table, spec: InputSpec, *, watch: Watcher) -> Examples:
    """Prepare the images of every row; arguments and errors as of `load`."""
    watch.stage("Preparing images", len(table))
    cached = cache.build(
        table, size=spec.size, fit=spec.fit, on_progress=lambda done, total: watch.advance(done, total)
    )
    readable = cached.slots >= 0
    if not readable.any():
        first = cached.quarantine.iloc[0]
        raise DataError(
            f"none of {len(table):,} images could be read (first: {first['image']}: {first['reason']}); "
            "say where they lie with --images DIR, or --remap OLD=NEW if they were moved"
        )
    unreadable = len(table) - int(readable.sum())
    watch.finish(
        f"{count(int(readable.sum()), 'image')} prepared ({cached.hits:,} in the cache before)"
        + (f"; {count(unreadable, 'image')} cannot be read, left out" if unreadable else "")
    )
    kept = table.select(readable)
    pixels = replace(
        cached, slots=cached.slots[readable], width=cached.width[readable], height=cached.height[readable]
    )
    frame = kept.frame.assign(width=pixels.width.astype(np.int64), height=pixels.height.astype(np.int64))
    return Examples(replace(kept, frame=frame), pixels, cached.quarantine)


def _answering(table: Table, task: Task) -> tuple[Table, tuple[str, ...]]:
    """Return the rows that answer the task, and notes on those that do not."""
    labels = table.labels(task.findings)
    keep = ~np.isnan(labels).all(axis=1)
    notes: tuple[str, ...] = ()
    if task.negatives == "no-finding":
        keep &= (labels[:, 0] == 1) | (table.labels([NO_FINDING])[:, 0] == 1)
    if task.exclusive:
        _refuse_two_classes(table, labels, task.findings)
        keep = labels.sum(axis=1) == 1  # a sum with NaN is NaN
        notes = _left_out(labels[~keep])
    if not keep.any():
        raise DataError(
            f"none of {len(table):,} images tells anything about {', '.join(task.findings)}; "
            "check the table's labels and the recipe's [task]"
        )
    return table.select(keep), notes


def _refuse_two_classes(table: Table, labels: np.ndarray, classes: Sequence[str]) -> None:
    two = np.flatnonzero((labels == 1).sum(axis=1) > 1)
    if len(two):
        image = table.frame["image"].iloc[two[0]]
        first, second = (named(classes[column]) for column in np.flatnonzero(labels[two[0]] == 1)[:2])
        raise DataError(
            f"{len(two):,} images have two or more of the classes {', '.join(classes)} "
            f"(first: {image} has {first} and {second}); multiclass takes exactly one: "
            "use task.kind = 'multilabel', or choose classes that exclude each other"
        )


def _left_out(labels: np.ndarray) -> tuple[str, ...]:
    """Say why rows have no class: all are known to be absent, or some are unknown."""
    unknown = int(np.isnan(labels).any(axis=1).sum())
    reasons = {
        "have none of the classes": len(labels) - unknown,
        "are not known to have exactly one of the classes": unknown,
    }
    return tuple(
        f"{number:,} images {reason} and are left out" for reason, number in reasons.items() if number
    )
