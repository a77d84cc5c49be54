"""A Table -> an Audit: what leaks, what is wrong in the data, and what is to be known. This file is the story."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum import files, images
from hilum.data import cache
from hilum.data.audit import checks, duplicates, image_quality
from hilum.data.audit.association import Association, associations
from hilum.data.audit.checks import ImageEvidence
from hilum.data.audit.duplicates import DuplicatePair
from hilum.data.audit.leakage import SplitComparison, compare, leaks
from hilum.data.audit.result import FAULT, LEAK, NOTE, SEVERITIES, Audit, Check, Issue, severities
from hilum.data.cache import Cached
from hilum.data.table import Table
from hilum.errors import DataError, ImageError
from hilum.progress import Silent, Watcher, count

__all__ = [
    "FAULT",
    "LEAK",
    "NOTE",
    "SEVERITIES",
    "Association",
    "Audit",
    "Check",
    "Issue",
    "SplitComparison",
    "audit",
    "leaks",
    "same_images",
    "severities",
]

VERSION = 1
"""Raised whenever the same squares give other pairs; part of the name under which pairs are kept."""

_EXACT = 0.99
"""Squares that correlate less cannot come from equal pixels, whatever a decoder rounds."""


def audit(table: Table, *, directory: Path | None = None, watch: Watcher | None = None) -> Audit:
    """Look for what makes a data set's results worthless or wrong.

    Images are prepared once into a small cache, and what is found to be the same picture is kept there too: a second
    audit of the same images is done in a moment.

    Args:
        table: Any table; where it has no split, or its images are not there, the rest is looked at.
        directory: The folder of all caches; None: `files.cache_directory()`.
        watch: Told how it goes.

    Raises:
        DataError: The table has no rows, or the cache cannot be written to.
    """
    watch = watch or Silent()
    if not len(table):
        raise DataError("the table has no rows to audit")
    seen = _look(table, directory or files.cache_directory(), watch)
    watch.stage("Comparing labels and metadata")
    found = associations(table, width=seen.width, height=seen.height)
    comparisons = compare(table) if len(checks.parts_of(table)) > 1 else ()
    made = (
        checks.patients_across(table),
        *checks.duplicate_images(table, seen),
        *checks.single_images(table, seen),
        checks.ages(table),
        checks.differences(table, comparisons),
        checks.predictable(found),
    )
    ordered = tuple(sorted(made, key=lambda check: SEVERITIES.index(check.severity)))
    counts = severities(ordered)
    watch.finish(", ".join(count(number, kind) for kind, number in counts.items()))
    return Audit(table, ordered, comparisons, found, seen.num_read, table.notes)


def same_images(pixels: NDArray[np.uint8], slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number pictures by their pixels alone, as training sees them: the quick part of an audit.

    Args:
        pixels: uint8 (slots, size, size), perhaps a memory map.
        slots: (rows,), which square is a row's.

    Returns:
        int64 (rows,): equal where the squares are, pixel for pixel; -1 where they are blank and say nothing.
    """
    numbers = np.unique(duplicates.digests(pixels, slots), return_inverse=True)[1].reshape(-1)
    return np.where(image_quality.blank(pixels, slots), -1, numbers)


def _look(table: Table, directory: Path, watch: Watcher) -> ImageEvidence:
    """Read all images, and find what is to be seen in them."""
    if len(table.missing_images()) == len(table):
        return checks.unseen(table)
    watch.stage("Reading images", len(table))
    cached = cache.build(
        table,
        size=duplicates.SIDE,
        fit="squash",
        directory=directory,
        on_progress=lambda done, of: watch.advance(done, of),
    )
    read = np.flatnonzero(cached.slots >= 0)
    watch.finish(f"{len(read):,} of {len(table):,} images read ({cached.hits:,} were known)")
    slots = cached.slots[read]
    blank = image_quality.blank(cached.pixels, slots)
    pairs = _pairs(table, cached, read[~blank], directory, watch)
    few_bits = _uses_few_bits(table, read[blank])
    return ImageEvidence(
        looked=True,
        rows=read,
        reasons=tuple(cached.quarantine["reason"]),
        width=cached.width,
        height=cached.height,
        pairs=pairs,
        same_file=tuple(bool(cached.slots[pair.first] == cached.slots[pair.second]) for pair in pairs),
        blank=read[blank][~few_bits],
        few_bits=read[blank][few_bits],
        saturated=read[~blank & image_quality.saturated(cached.pixels, slots)],
        inverted=read[~blank & image_quality.inverted(cached.pixels, slots)],
        tiny=np.flatnonzero(image_quality.tiny(cached.width, cached.height)),
    )


def _uses_few_bits(table: Table, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return of which rows the decoder says that the file uses fewer bits than it declares."""

    def says(row: int) -> bool:
        notices = images.prepare(table.location(row), duplicates.SIDE).provenance.notices
        return any(given.code == "few-bits-used" for given in notices)

    with ThreadPoolExecutor() as pool:
        return np.fromiter(pool.map(says, rows.tolist()), dtype=bool, count=len(rows))


def _pairs(
    table: Table, cached: Cached, rows: NDArray[np.int64], directory: Path, watch: Watcher
) -> tuple[DuplicatePair, ...]:
    """Return the pairs of rows that hold the same picture; those of the same squares are kept in the cache."""
    slots = cached.slots[rows]
    key = hashlib.sha256(duplicates.digests(cached.pixels, slots).tobytes())
    for values in (slots, cached.width[rows], cached.height[rows]):
        key.update(values.tobytes())
    kept = directory / f"copies-v{VERSION}" / f"{key.hexdigest()[:32]}.json"
    found = _kept(kept)
    if found is None:
        watch.stage("Looking for the same picture", len(rows))
        pairs = duplicates.find(cached.pixels, slots, on_progress=lambda done, of: watch.advance(done, of))
        pairs = _compared_in_full(table, cached, rows, pairs, watch)
        files.write_text(kept, json.dumps([asdict(pair) for pair in pairs]))
        found = pairs
    watch.finish(f"{count(len(found), 'pair')} of the same picture")
    return tuple(replace(pair, first=int(rows[pair.first]), second=int(rows[pair.second])) for pair in found)


def _kept(path: Path) -> tuple[DuplicatePair, ...] | None:
    try:
        return tuple(DuplicatePair(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _compared_in_full(
    table: Table, cached: Cached, rows: NDArray[np.int64], pairs: Sequence[DuplicatePair], watch: Watcher
) -> tuple[DuplicatePair, ...]:
    """Return which pairs' files hold the same pixels, at full resolution."""
    watch.stage("Comparing in full", len(pairs))
    compared = []
    for done, pair in enumerate(pairs, start=1):
        first, second = int(rows[pair.first]), int(rows[pair.second])
        exact = bool(cached.slots[first] == cached.slots[second])
        same_size = (cached.width[first], cached.height[first]) == (
            cached.width[second],
            cached.height[second],
        )
        if not exact and same_size and not pair.mirrored and pair.correlation >= _EXACT:
            exact = _equal(table, first, second)
        compared.append(replace(pair, exact=exact))
        watch.advance(done)
    return tuple(compared)


def _equal(table: Table, first: int, second: int) -> bool:
    try:
        one, other = (images.read(table.location(row)).grey for row in (first, second))
    except ImageError:  # gone since it was prepared
        return False
    return bool(np.array_equal(one, other))
