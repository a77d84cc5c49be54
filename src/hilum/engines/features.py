"""A backbone that stays frozen -> its feature maps, computed once; batches of them in the place of images.

What a frozen backbone makes of an image is the same in every epoch. Each image, and some augmented versions of it, goes
through once; the head then learns from what is stored. Each epoch takes each image's next version. Trainings of one
study share what is stored (`feature_store.py`).
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
from hilum.engines.contract import Hooks, Progress, Validation
from hilum.engines.feature_store import PARTS, FeatureFile, Shared, part_of
from hilum.errors import StoppedError
from hilum.progress import count

log = logging.getLogger(__name__)

AHEAD = 16  # blocks that wait to be computed
NUM_COMPARED = 16  # images by which precisions are compared
TOLERANCE = 1e-2  # of features, relative to those in full precision

POLL = 0.2
"""Seconds between two looks at what others compute."""

Compute = Callable[[np.ndarray], np.ndarray]
"""uint8 (n, size, size) -> float32 (n, ...): what the backbone makes of images, in inference mode."""


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A frozen backbone that computes features.

    Attributes:
        compute: The backbone.
        block: Images that go through it together.
        pool: Threads that call it, a block each.
        key: What the features depend on beside the picture, as `feature_store.digest` gives it: the backbone's weights,
            architecture and library, its input's scaling and size, what is pooled, precision, device and block.
    """

    compute: Compute
    block: int
    pool: Executor
    key: str


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
        """Number of batches in an epoch."""
        return self.images.steps

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        return self.features[0].shape[1:]

    def epoch(self, number: int, *, start: int = 0, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Yield the batches of one epoch; see `Batches.epoch`."""
        rank, processes = shard
        order = self.images.order(number)
        for first, end in self.images.spans[start:]:
            rows = order[first:end][rank::processes]
            images = np.searchsorted(self._rows, rows)
            versions = (number + images) % len(self.features)
            features = np.empty((len(rows), *self.shape), np.float32)
            for version in np.unique(versions).tolist():
                chosen = versions == version
                features[chosen] = self.features[version][self.places[version, images[chosen]]]
            yield Batch(images=features, labels=self.images.labels[rows], rows=rows)

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


def store_features(
    batches: Batches,
    validation: Validation,
    extractor: Extractor,
    *,
    versions: int,
    folder: Path,
    hooks: Hooks,
    shared: Shared | None = None,
) -> tuple[StoredBatches, Validation]:
    """Send each training image through the backbone, as it is and augmented, and each of validation as it is.

    All blocks have the same number of images, the last filled up: what the backbone makes of an image then does not
    depend on its neighbours, to the bit, and so not on what was there already (in blocks of other sizes it may).

    Args:
        batches: Of images. A row that comes several times an epoch is stored once, and so are copies of a picture.
        validation: The images that steer.
        extractor: The frozen backbone.
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
    pictures = _Pictures(batches, validation)
    with contextlib.ExitStack() as opened:
        files = [
            shared.open(version, batches.augment, batches.seed) if shared else FeatureFile(folder)
            for version in range(versions)
        ]
        for file in files:
            opened.callback(file.close)
        filling = _Filling(files, pictures, extractor, hooks)
        if shared:
            hooks.on_note(filling.present)
        with ThreadPoolExecutor(max(1, batches.num_workers)) as readers:
            while filling.fill(readers):
                time.sleep(POLL)  # others are computing what is missing
                filling.check_stop()
        features = tuple(file.array() for file in files)
    places = np.array([[file.known[name] for name in pictures.trained] for file in files])
    steering = features[0][[files[0].known[name] for name in pictures.steering]]
    log.info(
        "%s; %s float32 each",
        filling.present if shared else filling.done,
        " x ".join(map(str, steering.shape[1:])),
    )
    return StoredBatches(batches, features, places), Validation(steering, validation.labels)


class _Pictures:
    """The pictures of training and validation, by number and by fingerprint.

    Attributes:
        trained: Fingerprints of the training pictures, by number.
        steering: Fingerprints of validation's.
    """

    def __init__(self, batches: Batches, validation: Validation) -> None:
        self._batches, self._validation = batches, validation
        self._rows = np.unique(batches.rows)
        cached = batches.cached
        self.trained = [fingerprint(cached.pixels[cached.slots[row]]) for row in self._rows]
        self.steering = [fingerprint(image) for image in validation.images]

    def wanted(self, versions: int) -> list[dict[bytes, int]]:
        """Return for each version the pictures it is wanted of: fingerprint -> number."""
        numbers = {name: number for number, name in enumerate(self.trained)}
        more = {
            name: len(self._rows) + number for number, name in enumerate(self.steering) if name not in numbers
        }
        return [{**numbers, **more}, *[numbers] * (versions - 1)]

    def read(self, version: int, number: int) -> np.ndarray:
        """Return a version of a picture, uint8 (size, size)."""
        if number >= len(self._rows):
            return np.asarray(self._validation.images[number - len(self._rows)])
        return self._batches.version(self._rows[number], version)


class _Filling:
    """Files of features that are being filled.

    Attributes:
        present: How much was there at first, in words.
        done: How much is there in the end, in words.
    """

    def __init__(
        self, files: Sequence[FeatureFile], pictures: _Pictures, extractor: Extractor, hooks: Hooks
    ) -> None:
        self._files, self._pictures, self._extractor, self._hooks = files, pictures, extractor, hooks
        self._wanted = pictures.wanted(len(files))
        number = sum(map(len, self._wanted))
        missing = sum(
            name not in file.known for file, part in zip(files, self._wanted, strict=True) for name in part
        )
        versions = f" ({len(files)} versions of each in training)" if len(files) > 1 else ""
        self.present = (
            f"features: {number - missing:,} of {count(number, 'image')}{versions} are there already"
        )
        self.done = f"features: {count(number, 'image')} went through the frozen backbone once"
        self._steps, self._step = math.ceil(missing / extractor.block), 0

    def fill(self, readers: Executor) -> bool:
        """Compute what is missing and nobody else is computing; return whether others are at the rest."""
        buffer: list[tuple[list[_Wanted], np.ndarray]] = []
        self._others_at_work = False
        with contextlib.ExitStack() as locks:  # until all is written
            for block, features in self._computed(self._missing(locks), readers):
                self.check_stop()
                buffer.append((block, features))
                if len(buffer) == AHEAD:
                    self._write(buffer)
                self._tell(self._step + 1)
            self._write(buffer)
        if not self._others_at_work and self._step < self._steps:
            self._tell(self._steps)  # others computed some of it
        return self._others_at_work

    def _missing(self, locks: contextlib.ExitStack) -> Iterator[_Wanted]:
        """Yield what is missing, and keep others from the parts of the files that it belongs to."""
        for version, file in enumerate(self._files):
            file.refresh()
            lost = [name for name in self._wanted[version] if name not in file.known]
            for part in range(PARTS):
                names = [name for name in lost if part_of(name) == part]
                if not names:
                    continue
                if not locks.enter_context(file.locked(part)):
                    self._others_at_work = True
                    continue
                for name in names:
                    if name not in file.known:
                        yield _Wanted(version, name, self._wanted[version][name])

    def check_stop(self) -> None:
        """Raise StoppedError where somebody asked to stop."""
        if self._hooks.should_stop():
            raise StoppedError("stopped from outside while features were computed; begin again with --resume")

    def _tell(self, step: int) -> None:
        self._step = min(step, self._steps)
        self._hooks.on_step(Progress(epoch=0, step=self._step, steps=self._steps, loss=float("nan")))

    def _computed(
        self, wanted: Iterator[_Wanted], readers: Executor
    ) -> Iterator[tuple[list[_Wanted], np.ndarray]]:
        """Yield each block with its features, in order; few blocks are read before they are needed."""
        waiting: deque[tuple[list[_Wanted], Future[np.ndarray]]] = deque()
        try:
            while block := list(islice(wanted, self._extractor.block)):
                pictures = readers.submit(self._read, block)
                waiting.append((block, self._extractor.pool.submit(self._features, pictures)))
                if len(waiting) > AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()[: len(first)]
            for first, future in waiting:
                yield first, future.result()[: len(first)]
        finally:
            for _, future in waiting:
                future.cancel()

    def _read(self, block: Sequence[_Wanted]) -> np.ndarray:
        """Return the pictures of a block, the last again and again where it is short."""
        images = [self._pictures.read(wanted.version, wanted.number) for wanted in block]
        return np.stack(images + [images[-1]] * (self._extractor.block - len(images)))

    def _features(self, pictures: Future[np.ndarray]) -> np.ndarray:
        return self._extractor.compute(pictures.result())

    def _write(self, buffer: list[tuple[list[_Wanted], np.ndarray]]) -> None:
        """Add blocks to their files and forget them."""
        if not buffer:
            return
        wanted = [picture for block, _ in buffer for picture in block]
        features = np.concatenate([computed for _, computed in buffer])
        versions = np.array([picture.version for picture in wanted])
        for version in np.unique(versions).tolist():
            names = [picture.name for picture in wanted if picture.version == version]
            self._files[version].add(names, features[versions == version])
        buffer.clear()


def choose_precision(fast: Compute, exact: Compute, images: np.ndarray) -> tuple[Compute, float]:
    """Return the faster of two ways if its features are those of the exact one to `TOLERANCE`, else the exact one.

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
