"""A backbone that stays frozen -> its feature maps, computed once; batches of them in the place of images.

What a frozen backbone makes of an image is the same in every epoch. Each image, and some augmented versions of it, goes
through once; the head then learns from what is stored. Each epoch takes each image's next version.
"""

import dataclasses
import logging
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from functools import cached_property
from pathlib import Path

import numpy as np

from hilum.data.batches import Batch, Batches
from hilum.engines import Hooks, Progress, Validation
from hilum.errors import StoppedError
from hilum.recipe import AugmentSettings

log = logging.getLogger(__name__)

AHEAD = 16  # blocks that wait to be computed
LOOKED_AT = 16  # images by which precisions are compared
TOLERANCE = 1e-2  # of features, relative to those in full precision

Compute = Callable[[np.ndarray], np.ndarray]
"""uint8 (n, size, size) -> float32 (n, ...): what the backbone makes of images, in inference mode."""


@dataclasses.dataclass(frozen=True, eq=False)
class StoredBatches:
    """As `Batches`, of features instead of images, in the same order.

    Attributes:
        images: The batches that these stand for.
        features: (versions, images, ...), float32.
    """

    images: Batches
    features: np.ndarray

    @property
    def steps(self) -> int:
        """The number of batches in an epoch."""
        return self.images.steps

    def epoch(self, number: int, *, start: int = 0, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Yields the batches of one epoch; see `Batches.epoch`."""
        index, count = shard
        order = self.images.order(number)
        versions = len(self.features)
        for first, end in self.images.spans[start:]:
            rows = order[first:end][index::count]
            places = np.searchsorted(self._rows, rows)
            yield Batch(
                images=self.features[(number + places) % versions, places],
                labels=self.images.labels[rows],
                rows=rows,
            )

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
) -> tuple[StoredBatches, Validation]:
    """Sends each training image through the backbone, as it is and augmented, and each of validation as it is.

    Args:
        batches: Of images. A row that comes several times an epoch is stored once.
        validation: The images that steer.
        compute: The frozen backbone.
        pool: Threads that call it, a block each.
        block: Images that go through it together.
        versions: Of each training image: the first as it is, the others augmented.
        folder: Where a nameless file holds the features; whatever ends the process, its space is free again.
        hooks: Told of progress, as epoch 0, and asked whether to stop.

    Returns:
        The same batches and validation, of features.

    Raises:
        StoppedError: `hooks.should_stop` said so.
    """
    each = dataclasses.replace(batches, rows=np.unique(batches.rows), batch_size=block)
    blocks = np.split(validation.images, range(block, len(validation.images), block))
    steps = each.steps * versions + len(blocks)
    done = 0

    def told(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        nonlocal done
        for found in _computed(images, compute, pool):
            if hooks.should_stop():
                raise StoppedError(
                    "stopped from outside while features were computed; begin again with --resume"
                )
            done += 1
            hooks.on_step(Progress(epoch=0, step=done, steps=steps, loss=float("nan")))
            yield found

    seen = Validation(np.concatenate(list(told(blocks))), validation.labels)
    shape = (versions, len(each.rows), *seen.images.shape[1:])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        features = np.memmap(file, np.float32, "w+", shape=shape)
    for version in range(versions):
        source = dataclasses.replace(each, augment=AugmentSettings()) if version == 0 else each
        order, spans = source.order(version), source.spans
        images = (batch.images for batch in source.epoch(version))
        for (first, end), found in zip(spans, told(images), strict=True):
            features[version, np.searchsorted(each.rows, order[first:end])] = found
    log.info(
        "%d versions of %d images went through the frozen backbone once, %s float32 each",
        versions,
        len(each.rows),
        " x ".join(map(str, shape[2:])),
    )
    return StoredBatches(batches, features), seen


def _computed(blocks: Iterable[np.ndarray], compute: Compute, pool: Executor) -> Iterator[np.ndarray]:
    """What the backbone makes of each block, in order; few blocks are read before they are needed."""
    waiting: deque[Future[np.ndarray]] = deque()
    try:
        for block in blocks:
            waiting.append(pool.submit(compute, block))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


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
