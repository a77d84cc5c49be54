"""Image files in groups -> what they look like: grey values, mean image and a few samples of each group.

Every file is read once, through `images.prepare`, and squashed to a small square: what is summed up is what a network
would see. Memory holds one square a group, the samples and the few files that are being read.
"""

import collections
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum import images
from hilum.data.table import Table
from hilum.errors import ImageError
from hilum.images import Location
from hilum.progress import Watcher

SIDE = 256
"""Pixels of the squares in which images are compared."""
NUM_SAMPLES = 6
_AHEAD = 32
"""Files that are read before they are asked for."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One image of a group.

    Attributes:
        image: As the table names it.
        pixels: uint8 (SIDE, SIDE), squashed.
        width: Of the file, in pixels.
        height: Of the file, in pixels.
    """

    image: str
    pixels: NDArray[np.uint8]
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Look:
    """What the images of one group look like.

    Attributes:
        num_images: How many were read.
        histogram: int64 (256,): pixels of the squares by grey value; sums to num_images x SIDE x SIDE.
        mean: float32 (SIDE, SIDE) in [0, 1]; zeros where no image was read.
        samples: Up to `NUM_SAMPLES`, of as many patients; an image of several groups is a sample of one.
    """

    num_images: int
    histogram: NDArray[np.int64]
    mean: NDArray[np.float32]
    samples: tuple[Sample, ...]


@dataclass(frozen=True, eq=False)
class Appearance:
    """What the images of a table look like.

    Attributes:
        looks: Group -> its look.
        rows: int64 (read,): the rows of the table that were read.
        brightness: float64 (read,): their mean grey value in [0, 1].
        width: int64 (read,): of their files, in pixels.
        height: int64 (read,): of their files, in pixels.
        unreadable: Image -> why it could not be read.
        num_missing: Rows of the table whose file is not there.
    """

    looks: Mapping[str, Look]
    rows: NDArray[np.int64]
    brightness: NDArray[np.float64]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    unreadable: Mapping[str, str]
    num_missing: int

    def aspect(self) -> float:
        """Height over width of a typical file: the median."""
        return float(np.median(self.height / self.width)) if len(self.width) else 1.0


def look(
    table: Table,
    groups: Mapping[str, NDArray[np.bool_]],
    *,
    shown: Collection[str],
    limit: int,
    seed: int,
    watch: Watcher,
) -> Appearance:
    """Read images of each group and sums them up.

    Which are read depends on their names and the seed alone, not on the order of the rows, so that the sample of a
    larger limit begins with that of a smaller one.

    Args:
        table: Any table.
        groups: Name -> bool (rows,): its members; an image may be in several and is read once.
        shown: The groups that get samples.
        limit: At most so many images of each group are read.
        seed: Another one reads others.
        watch: Told of each image.
    """
    missing = table.missing_images()
    order, chosen = _choose(table, groups, missing, limit=limit, seed=seed)
    tallies = {name: _Tally() for name in groups}
    rarest_first = sorted(groups, key=lambda name: int(groups[name].sum()))
    names = table.frame["image"].to_numpy(object)
    patients = table.patient_keys
    found: list[tuple[int, float, int, int]] = []
    unreadable: dict[str, str] = {}
    watch.stage("Reading images", len(order))
    locations = [table.location(int(row)) for row in order]
    for done, (row, picture) in enumerate(zip(order, _read(locations), strict=True), start=1):
        if isinstance(picture, ImageError):
            unreadable[str(names[row])] = str(picture)
        else:
            square, geometry = picture.pixels, picture.geometry
            found.append(
                (int(row), float(square.mean(dtype=np.float64)) / 255, geometry.width, geometry.height)
            )
            sample = Sample(str(names[row]), square, geometry.width, geometry.height)
            histogram = np.bincount(square.ravel(), minlength=256)
            own = [name for name in rarest_first if row in chosen[name]]
            for name in own:
                tallies[name].add(sample, histogram)
            # Shown once, where most are wanting: else one image would stand for each of its findings.
            wanting = [name for name in own if name in shown and tallies[name].wants(patients[row])]
            for name in wanting[:1]:
                tallies[name].show(sample, patient=patients[row])
        watch.advance(done, len(order))
    watch.finish()
    columns = [np.array([one[place] for one in found]) for place in range(4)]
    return Appearance(
        looks={name: tally.look() for name, tally in tallies.items()},
        rows=columns[0].astype(np.int64),
        brightness=columns[1].astype(np.float64),
        width=columns[2].astype(np.int64),
        height=columns[3].astype(np.int64),
        unreadable=unreadable,
        num_missing=len(missing),
    )


def _choose(
    table: Table,
    groups: Mapping[str, NDArray[np.bool_]],
    missing: NDArray[np.int64],
    *,
    limit: int,
    seed: int,
) -> tuple[NDArray[np.int64], dict[str, frozenset[int]]]:
    """Choose the images to read, of those whose file is there.

    Returns:
        The rows, each once, in the order in which they are drawn; and the rows of each group.
    """
    there = np.ones(len(table), bool)
    there[missing] = False
    wanted = there & np.logical_or.reduce([np.zeros(len(table), bool), *groups.values()])
    frame = table.frame[["source", "image"]].to_numpy(object)
    drawn = sorted((_key(seed, *frame[row]), row) for row in np.flatnonzero(wanted).tolist())
    shuffled = np.array([row for _, row in drawn], np.int64)
    chosen = {
        name: frozenset(shuffled[members[shuffled]][:limit].tolist()) for name, members in groups.items()
    }
    everything = frozenset().union(*chosen.values())
    return np.array([row for row in shuffled.tolist() if row in everything], np.int64), chosen


class _Tally:
    """Running sums of one group: exact, so that no order of the images changes them."""

    def __init__(self) -> None:
        self._count = 0
        self._histogram = np.zeros(256, np.int64)
        self._sum = np.zeros((SIDE, SIDE), np.int64)
        self._samples: dict[str, Sample] = {}
        self._first: Sample | None = None

    def add(self, sample: Sample, histogram: NDArray[np.int64]) -> None:
        self._count += 1
        self._histogram += histogram
        self._sum += sample.pixels
        self._first = self._first or sample

    def wants(self, patient: str) -> bool:
        return len(self._samples) < NUM_SAMPLES and patient not in self._samples

    def show(self, sample: Sample, *, patient: str) -> None:
        self._samples[patient] = sample

    def look(self) -> Look:
        mean = (self._sum / (255 * max(1, self._count))).astype(np.float32)
        # A group whose few images are all shown elsewhere shows one of them again.
        samples = tuple(self._samples.values()) or ((self._first,) if self._first else ())
        return Look(self._count, self._histogram, mean, samples)


def _read(locations: Sequence[Location]) -> Iterator[images.Prepared | ImageError]:
    """Read files on all cores, in order, a few ahead of what was asked for."""
    started: collections.deque[Future[images.Prepared | ImageError]] = collections.deque()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores, thread_name_prefix="hilum-explore")
    try:
        for location in locations:
            started.append(pool.submit(_prepare, location))
            if len(started) > _AHEAD:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(location: Location) -> images.Prepared | ImageError:
    try:
        return images.prepare(location, SIDE, "squash")
    except ImageError as error:
        return error


def _key(seed: int, source: str, image: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{source}\0{image}".encode(), digest_size=8).digest()
