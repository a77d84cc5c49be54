"""Turns the image files of a table into one memory map of squares, each prepared once and for all."""

import collections
import contextlib
import dataclasses
import errno
import hashlib
import importlib.metadata
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum import files, images
from hilum.data.table import MEMBER, Table
from hilum.errors import DataError, ImageError
from hilum.images.geometry import check

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Cached:
    """The images of a table as networks see them; `n` is the number of the table's rows.

    Attributes:
        pixels: uint8 (slots, size, size), grey value x 255; a read-only memory map, which may hold images of
            other tables too.
        slots: int64 (n,), where in `pixels` a row's image is; -1 where it could not be read.
        quarantine: What could not be read: the columns `image` and `reason`.
        hits: How many rows were known, so that their files were not opened.
        width: int32 (n,), of the original in pixels; 0 where it could not be read.
        height: int32 (n,), of the original in pixels; 0 where it could not be read.
    """

    pixels: NDArray[np.uint8]
    slots: NDArray[np.int64]
    quarantine: pd.DataFrame
    hits: int
    width: NDArray[np.int32]
    height: NDArray[np.int32]

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return copies of some rows' images, uint8 (len(rows), size, size).

        Raises:
            DataError: A row's image could not be read.
        """
        slots = self.slots[rows]
        if (slots < 0).any():
            raise DataError(
                f"{(slots < 0).sum()} of {len(slots)} images could not be read; leave out the rows whose "
                "slot is -1 (the quarantine says why)"
            )
        return np.asarray(self.pixels[slots])


def build(
    table: Table,
    *,
    size: int,
    fit: str,
    directory: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Cached:
    """Prepare every image of a table that is not in the cache yet.

    A cache is a folder for a size and a fit. Images are known by the SHA-256 of their files' content, so that
    equal files share a slot; a file whose size and time of change are as they were is not opened at all.
    Whatever happens (a crash, a full disk, Ctrl-C), the cache stays valid and the next build goes on from
    there. Processes that build at once wait for each other. A file that is no radiograph goes into quarantine
    and does not end the build.

    Args:
        table: What to prepare.
        size: Side of the squares in pixels.
        fit: One of `images.FITS`.
        directory: The folder of all caches; None: `files.cache_directory()`.
        on_progress: Called with how many rows are done, and of how many.

    Raises:
        UsageError: `size` or `fit` is wrong.
        DataError: The disk is full, or the folder cannot be written to.
    """
    check(size, fit)
    folder = (directory or files.cache_directory()) / f"{fit}-{size}-v{images.PREPARE_VERSION}"
    locations = _locations(table)
    rows = _Rows(len(table))

    def report(done: int) -> None:
        if on_progress:
            on_progress(done, len(table))

    # Without the lock, so that what is complete can be read while others build, or from a read-only disk.
    with contextlib.suppress(sqlite3.Error, OSError), _opened(folder, size, writable=False) as store:
        store.look_up(locations, rows)
    if len(rows.missing()):
        with _alone_in(folder), _opened(folder, size, writable=True) as store:
            # Anew: whoever had the lock may have prepared some, and a mended index has other slots.
            rows = _Rows(len(table))
            store.look_up(locations, rows)
            hits = len(table) - len(rows.missing())
            report(hits)
            _prepare(store, locations, rows, fit=fit, report=lambda prepared: report(hits + prepared))
    else:
        hits = len(table)
        report(hits)

    unreadable = sorted(rows.reasons)
    assert (rows.slots >= 0).sum() + len(unreadable) == len(table), "read and quarantined are not the input"
    quarantine = {
        "image": table.frame["image"].iloc[unreadable].tolist(),
        "reason": [rows.reasons[row] for row in unreadable],
    }
    return Cached(
        pixels=_mapped(folder / _PIXELS, size),
        slots=rows.slots,
        quarantine=pd.DataFrame(quarantine, dtype=str),
        hits=hits,
        width=rows.width,
        height=rows.height,
    )


_PIXELS = "pixels.u8"
_INDEX = "index.sqlite"
_BLOCK, _BLOCK_BYTES = 256, 16 * 2**20
"""At most so many images, and bytes of their squares, are written and committed together."""

_FORMAT = 1
"""Number of the index's form; an index of another is made anew."""

_SCHEMA = f"""
PRAGMA user_version = {_FORMAT};
CREATE TABLE IF NOT EXISTS files (
    location BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, digest BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    digest BLOB PRIMARY KEY, slot INTEGER, reason TEXT, decoders TEXT, width INTEGER, height INTEGER
) WITHOUT ROWID;
"""
_DECODERS = (
    "hilum",
    "pillow",
    "opencv-python-headless",
    "pydicom",
    "pyjpegls",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
)


class _Rows:
    """What is known of each row of the table so far: a slot, or the reason why there is none."""

    def __init__(self, count: int) -> None:
        self.slots = np.full(count, -1, np.int64)
        self.width = np.zeros(count, np.int32)
        self.height = np.zeros(count, np.int32)
        self.reasons: dict[int, str] = {}

    def missing(self) -> list[int]:
        return [row for row in np.flatnonzero(self.slots < 0).tolist() if row not in self.reasons]


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What the index says of one content: a slot, or the reason why there is none."""

    slot: int | None
    reason: str | None
    width: int
    height: int


@dataclasses.dataclass(frozen=True, eq=False)
class _Examined:
    """What a worker found out about one file.

    Attributes:
        digest: SHA-256 of the content; None where there is nothing to remember: the file could not be
            had, or memory ran out.
        signature: Key, size and time of change of the file, taken before it was read.
        pixels: The prepared square; None where there is none, or where the content is known already.
        reason: Why there is none.
    """

    digest: bytes | None = None
    signature: tuple[bytes, int, int] | None = None
    pixels: NDArray[np.uint8] | None = None
    width: int = 0
    height: int = 0
    reason: str | None = None


class _Store:
    """The two files of a cache: squares one after another, and the index that says whose they are.

    Squares are on the disk before the index names them, and only the index decides what is valid: what a
    killed process wrote beyond it is overwritten.

    Raises:
        sqlite3.DatabaseError: The index is damaged or of another format.
    """

    def __init__(self, folder: Path, index: sqlite3.Connection, *, size: int) -> None:
        self.folder = folder
        self.size = size
        self._index = index
        self._decoders = _decoders()
        number = index.execute("PRAGMA user_version").fetchone()[0]
        if number not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"its format is {number}, not {_FORMAT}")

    def start_writing(self) -> None:
        """Make what is missing, and forgets squares that the file of pixels has lost.

        Raises:
            sqlite3.DatabaseError: The index is damaged.
        """
        if self._index.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("it fails its check")
        self._index.executescript(_SCHEMA)
        pixels = self.folder / _PIXELS
        pixels.touch()
        with self._index:
            lost = self._index.execute("DELETE FROM entries WHERE slot >= ?", [self._room()]).rowcount
        if lost:
            _log.warning("%d images are missing from %s; they are prepared again", lost, pixels)
        self._next = 1 + self._index.execute("SELECT coalesce(max(slot), -1) FROM entries").fetchone()[0]
        if not self._next:
            # Removed, not overwritten: whoever still trains on what the index has forgotten keeps it in its map.
            pixels.unlink()
            pixels.touch()
        files.sync(self.folder)
        known = self._index.execute(
            "SELECT digest, slot, reason, width, height FROM entries WHERE slot IS NOT NULL OR decoders = ?",
            [self._decoders],
        )
        self.known = {digest: _Entry(*entry) for digest, *entry in known}

    def look_up(self, locations: Sequence[images.Location], rows: _Rows) -> None:
        """Enter into `rows` what is known of files that have not changed."""
        wanted = ((row, _signature(locations[row])) for row in rows.missing())
        with self._index:
            self._index.execute("CREATE TEMP TABLE wanted (row, location, size, mtime_ns)")
            self._index.executemany(
                "INSERT INTO wanted VALUES (?, ?, ?, ?)",
                ((row, *signature) for row, signature in wanted if signature),
            )
            answers = self._index.execute(
                "SELECT row, slot, reason, width, height "
                "FROM wanted JOIN files USING (location, size, mtime_ns) JOIN entries USING (digest) "
                "WHERE slot < ? OR (slot IS NULL AND decoders = ?)",
                [self._room(), self._decoders],
            ).fetchall()
        read = np.array([(row, slot, *shape) for row, slot, reason, *shape in answers if reason is None])
        if len(read):
            rows.slots[read[:, 0]] = read[:, 1]
            rows.width[read[:, 0]] = read[:, 2]
            rows.height[read[:, 0]] = read[:, 3]
        rows.reasons.update({row: reason for row, _, reason, *_ in answers if reason is not None})

    def add(self, block: dict[int, _Examined], rows: _Rows) -> None:
        """Write what workers found, and enters it into `rows`; the same block may be added again.

        Args:
            block: By row.
            rows: What is known so far.

        Raises:
            DataError: The disk is full.
        """
        new = {
            examined.digest: examined
            for examined in block.values()
            if examined.digest is not None and examined.digest not in self.known
        }
        squares = {digest: examined.pixels for digest, examined in new.items() if examined.pixels is not None}
        slots = {digest: self._next + position for position, digest in enumerate(squares)}
        entries = {
            digest: _Entry(slots.get(digest), examined.reason, examined.width, examined.height)
            for digest, examined in new.items()
        }
        with _told(self.folder):
            self._write(list(squares.values()))
            with self._index:
                self._index.executemany(
                    "REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (digest, entry.slot, entry.reason, self._decoders, entry.width, entry.height)
                        for digest, entry in entries.items()
                    ],
                )
                self._index.executemany(
                    "REPLACE INTO files VALUES (?, ?, ?, ?)",
                    [
                        (*examined.signature, examined.digest)
                        for examined in block.values()
                        if examined.signature and examined.digest
                    ],
                )
        self.known |= entries
        self._next += len(squares)
        for row, examined in block.items():
            entry = self.known[examined.digest] if examined.digest else _Entry(None, examined.reason, 0, 0)
            if entry.slot is None:
                rows.reasons[row] = entry.reason or ""
            else:
                rows.slots[row], rows.width[row], rows.height[row] = entry.slot, entry.width, entry.height

    def _write(self, squares: list[NDArray[np.uint8]]) -> None:
        if not squares:
            return
        content = np.stack(squares).data.cast("B")
        if shutil.disk_usage(self.folder).free < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with (self.folder / _PIXELS).open("r+b", buffering=0) as stream:
            stream.seek(self._next * self.size**2)
            while content:
                content = content[stream.write(content) :]
            os.fsync(stream.fileno())

    def _room(self) -> int:
        """Return how many whole squares the file of pixels has."""
        return (self.folder / _PIXELS).stat().st_size // self.size**2


def _prepare(
    store: _Store,
    locations: Sequence[images.Location],
    rows: _Rows,
    *,
    fit: str,
    report: Callable[[int], None],
) -> None:
    """Prepare the rows of which nothing is known, on all cores."""
    missing = rows.missing()
    missing = [missing[place] for place in images.reading_order([locations[row] for row in missing])]
    _log.info("preparing %d images into %s", len(missing), store.folder)
    needed, free = len(missing) * store.size**2, shutil.disk_usage(store.folder).free
    if needed > free:
        _log.warning(
            "%s may need %d MB more than the %d MB free", store.folder, (needed - free) / 1e6, free / 1e6
        )

    def examine(row: int) -> _Examined:
        return _examine(locations[row], store.known, size=store.size, fit=fit)

    block: dict[int, _Examined] = {}
    block_size = max(1, min(_BLOCK, _BLOCK_BYTES // store.size**2))
    pool = ThreadPoolExecutor(_num_cores(), thread_name_prefix="hilum-cache")
    try:
        for done, (row, examined) in enumerate(_in_order(pool, examine, missing, ahead=block_size), start=1):
            block[row] = examined
            if len(block) == block_size or done == len(missing):
                store.add(block, rows)
                block.clear()
            report(done)
    except (KeyboardInterrupt, SystemExit):
        pool.shutdown(wait=False, cancel_futures=True)
        store.add(block, rows)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[int], _Examined], rows: Sequence[int], *, ahead: int
) -> Iterator[tuple[int, _Examined]]:
    """Work on `ahead` rows more than were asked for, and not on all: the results are held in memory."""
    started: collections.deque[tuple[int, Future[_Examined]]] = collections.deque()
    for row in rows:
        started.append((row, pool.submit(work, row)))
        if len(started) > ahead:
            first, future = started.popleft()
            yield first, future.result()
    for first, future in started:
        yield first, future.result()


def _examine(location: images.Location, known: dict[bytes, _Entry], *, size: int, fit: str) -> _Examined:
    # Before reading: a file that changes meanwhile then looks changed to the next build.
    signature = _signature(location)
    try:
        content = images.read_bytes(location)
    except ImageError as error:
        return _Examined(reason=str(error))
    digest = hashlib.sha256(content).digest()
    if digest in known:
        return _Examined(digest, signature)
    try:
        prepared = images.prepare(content, size, fit)
    except ImageError as error:
        if isinstance(error.__context__, MemoryError):
            return _Examined(reason=str(error))
        return _Examined(digest, signature, reason=str(error))
    return _Examined(
        digest, signature, prepared.pixels, width=prepared.geometry.width, height=prepared.geometry.height
    )


def _signature(location: images.Location) -> tuple[bytes, int, int] | None:
    """Return the key, size and time of change of a file; of a member, those of its archive; None: no such file."""
    try:
        status = location.path.stat()
    except (OSError, ValueError):
        return None
    # Names of files need not be valid text.
    return str(location).encode(errors="surrogatepass"), status.st_size, status.st_mtime_ns


def _locations(table: Table) -> list[images.Location]:
    """Return what `Table.location` says of each row, without its cost: seconds for a collection as large as NIH's."""
    roots = {source.name: source.root for source in table.sources}
    parts = (image.partition(MEMBER) for image in table.frame["image"])
    return [
        images.Location(roots[source] / path, member or None)
        for (path, _, member), source in zip(parts, table.frame["source"], strict=True)
    ]


@contextlib.contextmanager
def _opened(folder: Path, size: int, *, writable: bool) -> Iterator[_Store]:
    """Open the cache in a folder; one that is to be written to is made or mended first."""
    with contextlib.ExitStack() as stack:
        if not writable:
            yield _Store(folder, stack.enter_context(_connected(folder, "ro")), size=size)
            return
        with _told(folder):
            try:
                store = _Store(folder, stack.enter_context(_connected(folder, "rwc")), size=size)
                store.start_writing()
            except sqlite3.OperationalError:
                raise  # A full disk or a lock says nothing against what is there.
            except sqlite3.DatabaseError as error:
                _log.warning("the cache %s has a damaged index (%s); it is made anew", folder, error)
                stack.close()
                for name in (_INDEX, f"{_INDEX}-journal"):
                    (folder / name).unlink(missing_ok=True)
                store = _Store(folder, stack.enter_context(_connected(folder, "rwc")), size=size)
                store.start_writing()
        yield store


@contextlib.contextmanager
def _connected(folder: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{(folder / _INDEX).absolute().as_uri()}?mode={mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=60)) as connection:
        yield connection


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from building in a folder; the system frees the lock of one that dies."""
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "build.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            _log.warning("another process is building the cache %s; waiting for it", folder)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn what the system says about a folder that cannot be written to into words."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"the cache {folder} cannot be written to: {reason}; free some space, or set HILUM_CACHE to a "
            "folder elsewhere. What is done is kept"
        ) from error


def _mapped(path: Path, size: int) -> NDArray[np.uint8]:
    count = path.stat().st_size // size**2 if path.exists() else 0
    if not count:
        return np.empty((0, size, size), np.uint8)  # A file of no bytes cannot be mapped.
    return np.memmap(path, np.uint8, mode="r", shape=(count, size, size))


def _decoders() -> str:
    """Return the versions of what decodes: with another, a file that could not be read may be readable."""
    found = []
    for name in _DECODERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


def _num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
