"""Turns a cache and rows of a table into batches: one seeded stream that either engine trains on."""

import dataclasses
import hashlib
import logging
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from hilum.data.augment import augment
from hilum.data.cache import Cached
from hilum.errors import DataError, TrainingError, UsageError, require
from hilum.recipe import AugmentSettings


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """What an engine gets at each step.

    Attributes:
        images: uint8 (batch, size, size), grey value x 255; or what a frozen backbone makes of them, float32.
        labels: float32 (batch, findings), 1 present, 0 absent, NaN unknown; with mixup any value from 0 to 1.
        rows: int64 (batch,), the rows of the table that these are; with mixup those of the first of each pair.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.float32]
    rows: NDArray[np.int64]


def training_batches(
    cached: Cached,
    rows: NDArray[np.int64],
    labels: NDArray[np.float32],
    *,
    batch_size: int,
    augment: AugmentSettings,
    seed: int,
    num_workers: int,
) -> "Batches":
    """Prepare shuffled, augmented batches.

    Args:
        cached: The images of the whole table.
        rows: (n,) rows of the table to train on. A row that stands here twice comes twice an epoch.
        labels: (rows of the table, findings) 1, 0 or NaN: the labels of the whole table, not of `rows` alone.
        batch_size: Images a batch.
        augment: How far images are changed.
        seed: Not negative. Order and changes follow from it and the epoch's number alone.
        num_workers: Threads that prepare batches ahead; 0 prepares each when it is asked for.

    Raises:
        UsageError: A number is out of range or `labels` do not belong to the table.
        DataError: There are no rows, or rows without a readable image.
    """
    if num_workers < 0 or seed < 0:
        raise UsageError(f"seed is {seed} and num_workers {num_workers}; expected no negative number")
    rows, labels = _checked(cached, rows, labels, batch_size)
    return Batches(
        cached=cached,
        rows=rows,
        labels=labels,
        batch_size=batch_size,
        augment=augment,
        seed=seed,
        num_workers=num_workers,
    )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Batches:
    """An endless stream of epochs; the n-th epoch is always the same, whoever asks and however often.

    In an epoch each entry of `rows` comes exactly once. The last batch is short where the numbers do not
    divide, but a single image joins the batch before it, since batch norm cannot take one alone. With mixup
    each entry comes once as the first of a pair and once as the second. `training_batches` makes and checks one.
    """

    cached: Cached
    rows: NDArray[np.int64]
    labels: NDArray[np.float32]
    batch_size: int
    augment: AugmentSettings
    seed: int
    num_workers: int

    @property
    def steps(self) -> int:
        """The number of batches in an epoch."""
        return len(self.spans)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last place, exclusive, of each batch in an epoch's order."""
        starts = list(range(0, len(self.rows), self.batch_size))
        if len(starts) > 1 and self.batch_size > 1 and len(self.rows) - starts[-1] == 1:
            starts.pop()
        return list(zip(starts, [*starts[1:], len(self.rows)], strict=True))

    def order(self, number: int) -> NDArray[np.int64]:
        """Return the rows in the order in which an epoch has them."""
        # Not Grain's shuffle: of few rows it takes milliseconds an index, and its epoch e of seed s is
        # epoch 0 of seed s + e, so that runs that should be independent would see the same orders.
        return np.random.default_rng(self._seeds(number)[0]).permutation(self.rows)

    def sample(self, count: int) -> NDArray[np.uint8]:
        """Return some training images as they are, uint8 (at most count, size, size); always the same."""
        chosen = np.random.default_rng(self.seed).permutation(self.rows)[:count]
        return self.cached.images(chosen)

    def version(self, row: int, number: int) -> NDArray[np.uint8]:
        """Return a version of a row's image, uint8 (size, size): 0 as it is, the others changed.

        The changes follow from the image's own pixels, `seed`, `augment` and the number, and from nothing else: not
        from the other rows or their order, `batch_size` or the row's place in the table. So trainings on other parts
        of the same images have the same versions of what they share. Copies of a picture are changed alike. Mixup is
        of batches, and has no part in it.
        """
        pixels: NDArray[np.uint8] = self.cached.pixels[self.cached.slots[row]]
        if not number:
            return pixels
        entropy = int.from_bytes(fingerprint(pixels))
        return augment(pixels, self.augment, np.random.default_rng([self.seed, number, entropy]))

    def epoch(self, number: int, *, start: int = 0, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            number: Which epoch, from 0.
            start: Batches to leave out at the beginning; the others are those of the whole epoch.
            shard: The index of this process, and how many share the epoch. Each gets of every batch the places
                `[index::count]`, so that together they see, to the bit, what one alone would see. All take the
                same number of steps: where a batch has fewer images than there are processes, some get none.

        Raises:
            UsageError: The shard's index is not below its count.
        """
        index, count = shard
        if not 0 <= index < count:
            raise UsageError(f"shard is {shard}; expected an index from 0 and a count above it, as (0, 2)")
        grain = load_grain()
        order, spans = self.order(number), self.spans
        images = grain.MapDataset.source(order).random_map(self._image, seed=self._seeds(number)[1])

        def taken(places: NDArray[np.int64]) -> Batch:
            pixels = np.empty((len(places), *self.cached.pixels.shape[1:]), np.uint8)
            for image, place in zip(pixels, places.tolist(), strict=True):
                image[:] = images[place]
            return Batch(images=pixels, labels=self.labels[order[places]], rows=order[places])

        def batch(step: int) -> Batch:
            first, end = spans[step]
            own = np.arange(first, end)[index::count]
            if not self.augment.mixup:
                return taken(own)
            share, partner = self._pairs(number, step, end - first)
            # A partner may belong to another shard, and an image to two pairs: each is prepared once.
            pairs = np.stack([own, first + partner[index::count]])
            needed, found = np.unique(pairs, return_inverse=True)
            return _blended(taken(needed), *found.reshape(pairs.shape), share=share)

        options = grain.ReadOptions(num_threads=self.num_workers, prefetch_buffer_size=2 * self.num_workers)
        steps = grain.MapDataset.source(range(start, len(spans)))
        iterator = iter(steps.map(batch).to_iter_dataset(options))
        try:
            yield from iterator
        finally:
            iterator.close()

    def state(self, epoch: int, batch: int) -> dict[str, int | str]:
        """Say in a small JSON-able dict where training stands: `batch` batches of `epoch` are done."""
        return {"epoch": epoch, "batch": batch, "stream": self._fingerprint()}

    def resume(self, state: Mapping[str, int | str], *, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Yield what is left of the epoch that `state` stands in.

        Args:
            state: What `state` said; the number of processes may have been another.
            shard: As for `epoch`.

        Raises:
            TrainingError: The state is of other rows, labels or settings, so that the rest would not fit.
        """
        if state["stream"] != self._fingerprint():
            raise TrainingError(
                "the saved state is of a run with other images, labels, seed, batch size or augmentation; "
                "resume with the same recipe and data, or start a new run"
            )
        return self.epoch(int(state["epoch"]), start=int(state["batch"]), shard=shard)

    def _seeds(self, number: int) -> list[int]:
        """Of an epoch's order, and of its changes to images."""
        return [
            int(seed) for seed in np.random.SeedSequence((self.seed, number)).generate_state(2, np.uint64)
        ]

    def _image(self, row: np.int64, rng: np.random.Generator) -> NDArray[np.uint8]:
        return augment(self.cached.pixels[self.cached.slots[row]], self.augment, rng)

    def _pairs(self, number: int, step: int, size: int) -> tuple[np.float32, NDArray[np.int64]]:
        """Draw the share of the first in all pairs of a batch, and the place of each one's partner.

        As Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, in the authors' way: one share a
        batch, and partners from the same batch.
        """
        rng = np.random.default_rng([self.seed, number, step, 0xB1E9D])
        return np.float32(rng.beta(self.augment.mixup, self.augment.mixup)), rng.permutation(size)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.seed, self.batch_size, self.augment)).encode())
        digest.update(self.rows.tobytes())
        digest.update(self.labels[self.rows].tobytes())
        return digest.hexdigest()[:16]


FINGERPRINT_BYTES = 16


def fingerprint(pixels: NDArray[np.uint8]) -> bytes:
    """BLAKE2b of a prepared square, uint8 (size, size), by which equal pictures are known."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=FINGERPRINT_BYTES).digest()


def _blended(
    batch: Batch, first: NDArray[np.int64], second: NDArray[np.int64], *, share: np.float32
) -> Batch:
    """Add `share` of some images and labels to the rest of others; a label unknown in either is unknown."""
    images = share * batch.images[first] + (1 - share) * batch.images[second]
    return Batch(
        images=np.rint(images).astype(np.uint8),
        labels=share * batch.labels[first] + (1 - share) * batch.labels[second],
        rows=batch.rows[first],
    )


def _checked(
    cached: Cached, rows: NDArray[np.int64], labels: NDArray[np.float32], batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rows = np.asarray(rows, dtype=np.int64)
    labels = np.asarray(labels, dtype=np.float32)
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; expected at least 1")
    if labels.ndim != 2 or len(labels) != len(cached.slots):
        raise UsageError(
            f"labels have the shape {labels.shape}; expected one row for each of the table's rows, "
            f"{len(cached.slots)}"
        )
    if not len(rows):
        raise DataError(
            "there are no images to make batches of; look at the split and at the task's findings"
        )
    unreadable = int((cached.slots[rows] < 0).sum())
    if unreadable:
        raise DataError(
            f"{unreadable} of {len(rows)} images could not be read; leave out the rows whose slot is -1 "
            "(the quarantine says why)"
        )
    return rows, labels


def load_grain(extra: str = "torch") -> ModuleType:
    """Import Grain when it is first used, quietly: it takes a second, and only training needs it."""
    if "grain" in sys.modules:
        return require("grain", extra=extra)
    # On import it warns that jax is absent, and where logging is not set up, absl sets it up to say so.
    handler, disabled = logging.NullHandler(), logging.root.manager.disable
    logging.root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        return require("grain", extra=extra)
    finally:
        logging.disable(disabled)
        logging.root.removeHandler(handler)
