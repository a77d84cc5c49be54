"""A backbone that stays frozen -> its feature maps, computed once; batches of them in the place of images.

What a frozen backbone makes of an image is the same in every epoch. Each image, and some augmented versions of it, goes
through once; the head then learns from what is stored. Each epoch takes each image's next version. Trainings of one
study share what is stored (`shelf.py`).
"""

import contextlib
import dataclasses
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hilum.data.batches import Batch, Batches, fingerprint
from hilum.engines import Hooks, Progress, Validation
from hilum.engines.feature_store import PARTS, Shared, Shelf, part_of
from hilum.errors import StoppedError
from hilum.progress import count

log = logging.getLogger(__name__)

AHEAD = 16  # blocks that wait to be computed
LOOKED_AT = 16  # images by which precisions are compared
TOLERANCE = 1e-2  # of features, relative to those in full precision

POLL = 0.2
"""Seconds between two looks at what others compute."""

Picture = Callable[[int, int], np.ndarray]
"""The number of a version, the number of a picture -> uint8 (size, size)."""

Compute = Callable[[np.ndarray], np.ndarray]
"""uint8 (n, size, size) -> float32 (n, ...): what the backbone makes of images, in inference mode."""


class _Wanted(NamedTuple):
    """A picture whose features are missing, by its number and fingerprint, and the version that is missing."""

    version: int
    name: bytes
    number: int


@dataclasses.dataclass(frozen=True, eq=False)
class StoredBatches:
    """As `Batches`, of features instead of images, in the same order.

    Attributes:
        images: The batches that these stand for.
        features: Of each version an array, float32 (pictures, ...).
        places: int64 (versions, images), where in it each image's is, by its place among the rows that come.
    """

    images: Batches
    features: tuple[np.ndarray, ...]
    places: np.ndarray

    @property
    def steps(self) -> int:
        """The number of batches in an epoch."""
        return self.images.steps

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image's features."""
        return self.features[0].shape[1:]

    def epoch(self, number: int, *, start: int = 0, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Yields the batches of one epoch; see `Batches.epoch`."""
        index, count = shard
        order = self.images.order(number)
        for first, end in self.images.spans[start:]:
            rows = order[first:end][index::count]
            images = np.searchsorted(self._rows, rows)
            versions = (number + images) % len(self.features)
            found = np.empty((len(rows), *self.shape), np.float32)
            for version in np.unique(versions).tolist():
                chosen = versions == version
                found[chosen] = self.features[version][self.places[version, images[chosen]]]
            yield Batch(images=found, labels=self.images.labels[rows], rows=rows)

    def state(self, epoch: int, batch: int) -> dict[str, int | str]:
        """See `Batches.state`."""
        return self.images.state(epoch, batch)

    def resume(self, state: Mapping[str, int | str]) -> Iterator[Batch]:
        """See `Batches.resume`."""
        self.images.resume(state)
        return self.epoch(int(state["epoch"]), start=int(state["batch"]))

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.unique(self.images.rows)


def store(
    batches: Batches,
    validation: Validation,
    *,
    compute: Compute,
    pool: Executor,
    block: int,
    versions: int,
    folder: Path,
    hooks: Hooks,
    shared: Shared | None = None,
) -> tuple[StoredBatches, Validation]:
    """Sends each training image through the backbone, as it is and augmented, and each of validation as it is.

    All blocks have the same number of images, the last filled up: what the backbone makes of an image then does not
    depend on its neighbours, to the bit, and so not on what was there already (in blocks of other sizes it may).

    Args:
        batches: Of images. A row that comes several times an epoch is stored once, and so are copies of a picture.
        validation: The images that steer.
        compute: The frozen backbone.
        pool: Threads that call it, a block each.
        block: Images that go through it together.
        versions: Of each training image: the first as it is, the others augmented; see `Batches.version`.
        folder: Where nameless files hold the features, unless they are shared.
        hooks: Told of progress, as epoch 0, and asked whether to stop.
        shared: Where other trainings find them too; what is there already is not computed.

    Returns:
        The same batches and validation, of features.

    Raises:
        StoppedError: `hooks.should_stop` said so.
        NoRoomError: The disk is full.
    """
    cached, rows = batches.cached, np.unique(batches.rows)
    trained = [fingerprint(cached.pixels[cached.slots[row]]) for row in rows]
    steering = [fingerprint(image) for image in validation.images]
    with contextlib.ExitStack() as opened:
        shelves = [
            shared.shelf(version, batches.augment, batches.seed) if shared else Shelf(folder)
            for version in range(versions)
        ]
        for shelf in shelves:
            opened.callback(shelf.close)
        numbers = {name: number for number, name in enumerate(trained)}
        more = {name: len(rows) + number for number, name in enumerate(steering) if name not in numbers}

        def picture(version: int, number: int) -> np.ndarray:
            if number >= len(rows):
                return np.asarray(validation.images[number - len(rows)])
            return batches.version(rows[number], version)

        wanted = [{**numbers, **more}, *[numbers] * (versions - 1)]
        filling = _Filling(
            shelves, wanted, picture=picture, compute=compute, pool=pool, block=block, hooks=hooks
        )
        if shared:
            hooks.on_note(filling.there)
        with ThreadPoolExecutor(max(1, batches.num_workers)) as readers:
            while filling.fill(readers):
                time.sleep(POLL)  # others are computing what is missing
                filling.check_stop()
        features = tuple(shelf.array() for shelf in shelves)
    places = np.array([[shelf.known[name] for name in trained] for shelf in shelves])
    seen = features[0][[shelves[0].known[name] for name in steering]]
    log.info(
        "%s; %s float32 each", filling.there if shared else filling.done, " x ".join(map(str, seen.shape[1:]))
    )
    return StoredBatches(batches, features, places), Validation(seen, validation.labels)


class _Filling:
    """Shelves that are being filled.

    Attributes:
        there: How much was there at first, in words.
    """

    def __init__(
        self,
        shelves: Sequence[Shelf],
        wanted: Sequence[Mapping[bytes, int]],
        *,
        picture: Picture,
        compute: Compute,
        pool: Executor,
        block: int,
        hooks: Hooks,
    ) -> None:
        self._shelves, self._wanted = shelves, wanted
        self._picture, self._compute, self._pool = picture, compute, pool
        self._block, self._hooks = block, hooks
        number = sum(map(len, wanted))
        missing = sum(
            name not in shelf.known for shelf, part in zip(shelves, wanted, strict=True) for name in part
        )
        versions = f" ({len(shelves)} versions of each in training)" if len(shelves) > 1 else ""
        self.there = f"features: {number - missing:,} of {count(number, 'image')}{versions} are there already"
        self.done = f"features: {count(number, 'image')} went through the frozen backbone once"
        self._steps, self._step = math.ceil(missing / block), 0

    def fill(self, readers: Executor) -> bool:
        """Computes what is missing and nobody else is computing; says whether others were at the rest."""
        busy = False
        buffer: list[tuple[list[_Wanted], np.ndarray]] = []

        def missing() -> Iterator[_Wanted]:
            nonlocal busy
            for version, shelf in enumerate(self._shelves):
                shelf.look()
                lost = [name for name in self._wanted[version] if name not in shelf.known]
                for part in range(PARTS):
                    names = [name for name in lost if part_of(name) == part]
                    if not names:
                        continue
                    if not taken.enter_context(shelf.taking(part)):
                        busy = True
                        continue
                    for name in names:
                        if name not in shelf.known:
                            yield _Wanted(version, name, self._wanted[version][name])

        with contextlib.ExitStack() as taken:  # until all is written
            for block, features in self._computed(missing(), readers):
                self.check_stop()
                buffer.append((block, features))
                if len(buffer) == AHEAD:
                    self._write(buffer)
                self._tell(self._step + 1)
            self._write(buffer)
        if not busy and self._step < self._steps:
            self._tell(self._steps)  # others computed some of it
        return busy

    def check_stop(self) -> None:
        """Ends it where somebody asked."""
        if self._hooks.should_stop():
            raise StoppedError("stopped from outside while features were computed; begin again with --resume")

    def _tell(self, step: int) -> None:
        self._step = min(step, self._steps)
        self._hooks.on_step(Progress(epoch=0, step=self._step, steps=self._steps, loss=float("nan")))

    def _computed(
        self, wanted: Iterator[_Wanted], readers: Executor
    ) -> Iterator[tuple[list[_Wanted], np.ndarray]]:
        """What the backbone makes of each block, in order; few blocks are read before they are needed."""
        waiting: deque[tuple[list[_Wanted], Future[np.ndarray]]] = deque()
        try:
            while block := list(islice(wanted, self._block)):
                read = readers.submit(self._read, block)
                waiting.append((block, self._pool.submit(self._features, read)))
                if len(waiting) > AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()[: len(first)]
            for first, future in waiting:
                yield first, future.result()[: len(first)]
        finally:
            for _, future in waiting:
                future.cancel()

    def _read(self, block: Sequence[_Wanted]) -> np.ndarray:
        """The pictures of a block, the last again and again where it is short."""
        images = [self._picture(each.version, each.number) for each in block]
        return np.stack(images + [images[-1]] * (self._block - len(images)))

    def _features(self, read: Future[np.ndarray]) -> np.ndarray:
        return self._compute(read.result())

    def _write(self, buffer: list[tuple[list[_Wanted], np.ndarray]]) -> None:
        """Puts blocks on their shelves and forgets them."""
        if not buffer:
            return
        wanted = [each for block, _ in buffer for each in block]
        features = np.concatenate([found for _, found in buffer])
        of = np.array([each.version for each in wanted])
        for version in np.unique(of).tolist():
            names = [each.name for each in wanted if each.version == version]
            self._shelves[version].add(names, features[of == version])
        buffer.clear()


def fastest(fast: Compute, exact: Compute, images: np.ndarray) -> tuple[Compute, float]:
    """The faster of two ways, if its features are those of the exact one to `TOLERANCE`.

    Args:
        fast: In bf16, perhaps not exact.
        exact: In full precision.
        images: uint8 (n, size, size), to look at.

    Returns:
        One of the two, and the relative error of the fast one: the norm of the difference over that of the features.
    """
    expected = exact(images)
    error = float(np.linalg.norm(fast(images) - expected)) / max(float(np.linalg.norm(expected)), 1e-12)
    kept = "bf16" if error <= TOLERANCE else "fp32"
    log.info("features in %s; those in bf16 differ by %.2g of their norm", kept, error)
    return (fast if error <= TOLERANCE else exact), error
