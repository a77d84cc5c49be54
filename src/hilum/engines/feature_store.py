"""A folder -> features of a frozen backbone that several trainings share, each computed once: one file a key.

A `FeatureFile` is two files: features one after another, and the fingerprints of the pictures that they are of.
Features are on the disk before their fingerprints are, and only these say what is there: what a killed process wrote
beyond is overwritten.
"""

import contextlib
import errno
import hashlib
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import filelock
import numpy as np

from hilum import files
from hilum.data.batches import FINGERPRINT_BYTES
from hilum.errors import NoRoomError
from hilum.recipe import AugmentSettings

log = logging.getLogger(__name__)

FOLDER = "features"
FORMAT = 1
PARTS = 8
"""Of each feature file, by fingerprint, so that several processes can fill it side by side."""
_HEADER = 4 * FINGERPRINT_BYTES
"""Bytes before the fingerprints: the shape of one picture's features, as int32, filled up with zeros."""


@dataclass(frozen=True)
class Shared:
    """The folder in which the trainings of a study keep what a frozen backbone makes of their pictures.

    Attributes:
        folder: Theirs.
        backbone: What the features depend on beside the picture; see `features.Extractor.key`.
    """

    folder: Path
    backbone: str

    def name(self, version: int, augment: AugmentSettings, seed: int) -> str:
        """Return the name of a version's file; see `Batches.version`. The first version is the same for all seeds."""
        drawn = (repr(augment.model_copy(update={"mixup": 0.0})), seed, version) if version else ("as it is",)
        return digest(FORMAT, self.backbone, *drawn)[:32]

    def open(self, version: int, augment: AugmentSettings, seed: int) -> "FeatureFile":
        """Open the file of a version."""
        return FeatureFile(self.folder, self.name(version, augment, seed))


class FeatureFile:
    """Features of pictures under one key; processes that use the same at once never compute the same.

    Attributes:
        known: Fingerprint of a picture -> where its features are.

    Raises:
        NoRoomError: The disk is full, or the folder cannot be written to.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        """Open the file of a name; without one, a nameless file of this process alone.

        Whatever ends the process, the space of a nameless file is free again.
        """
        self.folder = folder
        self.known: dict[bytes, int] = {}
        self._count = 0
        self._shape: tuple[int, ...] = ()
        self._shared = bool(name)
        self._locks: dict[str, filelock.BaseFileLock] = {}
        self._path = folder / name
        with self._failures_in_words():
            folder.mkdir(parents=True, exist_ok=True)
            self._features, self._index = (self._opened(suffix) for suffix in (".f32", ".index"))
        self.refresh()

    def _opened(self, suffix: str) -> IO[bytes]:
        if not self._shared:
            return tempfile.TemporaryFile(dir=self.folder, buffering=0)
        path = self._path.with_name(self._path.name + suffix)
        path.touch()
        return path.open("r+b", buffering=0)

    def close(self) -> None:
        """Close the files; what was read stays readable."""
        self._features.close()
        self._index.close()

    def refresh(self) -> None:
        """Read what others have added since."""
        self._index.seek(0)
        index = self._index.read() or b""
        if len(index) < _HEADER:
            return
        self._shape = tuple(side for side in np.frombuffer(index[:_HEADER], np.int32).tolist() if side)
        prints = index[_HEADER:]
        room = os.fstat(self._features.fileno()).st_size // (4 * math.prod(self._shape))
        count = min(len(prints) // FINGERPRINT_BYTES, room)
        for place in range(self._count, count):
            self.known[prints[place * FINGERPRINT_BYTES : (place + 1) * FINGERPRINT_BYTES]] = place
        self._count = count

    @contextlib.contextmanager
    def locked(self, part: int) -> Iterator[bool]:
        """Keep others from filling a part for a while; yield whether nobody else was at it."""
        if not self._shared:
            yield True
            return
        lock = self._lock(f"-{part}.lock")
        try:
            with self._failures_in_words():
                lock.acquire(timeout=0)
        except filelock.Timeout:
            yield False
            return
        try:
            self.refresh()
            yield True
        finally:
            lock.release()

    def add(self, fingerprints: Sequence[bytes], features: np.ndarray) -> None:
        """Add the features of pictures that are not known, float32 (n, ...)."""
        with self._failures_in_words(), self._lock(".lock") if self._shared else contextlib.nullcontext():
            self.refresh()
            # A torn end, of whoever died while writing, is overwritten; so is what lost its features.
            header = np.zeros(_HEADER // 4, np.int32)
            header[: features.ndim - 1] = features.shape[1:]
            first = self._count
            if not first:
                self._write(self._index, 0, header.tobytes())
            content = np.ascontiguousarray(features, np.float32)
            self._write(self._features, first * content[0].nbytes, content.tobytes())
            self._write(self._index, _HEADER + first * FINGERPRINT_BYTES, b"".join(fingerprints))
            self.refresh()

    def array(self) -> np.ndarray:
        """Return the features, float32 (number of pictures, ...), as a memory map that is only read."""
        self._features.seek(0)
        return np.memmap(self._features, np.float32, "r", shape=(self._count, *self._shape))

    def _write(self, file: IO[bytes], start: int, content: bytes) -> None:
        if shutil.disk_usage(self.folder).free < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = memoryview(content)
        file.seek(start)
        while view:
            view = view[file.write(view) :]
        file.truncate()
        if self._shared:
            os.fsync(file.fileno())

    def _lock(self, suffix: str) -> filelock.BaseFileLock:
        path = self._path.with_name(self._path.name + suffix)
        return self._locks.setdefault(suffix, filelock.FileLock(path))

    @contextlib.contextmanager
    def _failures_in_words(self) -> Iterator[None]:
        """Raise NoRoomError where the folder cannot be written to."""
        try:
            yield
        except filelock.Timeout:
            raise
        except OSError as error:
            mend = " and run the same command to go on, what is done is kept" if self._shared else ""
            raise NoRoomError(
                f"what the frozen backbone makes of the images cannot be written to {self.folder}: "
                f"{error.strerror or error}; free some space{mend}, or set train.stored_versions=0"
            ) from error


def part_of(fingerprint: bytes) -> int:
    """Return the part of a file that a picture belongs to, from 0 to `PARTS` - 1."""
    return fingerprint[0] % PARTS


def digest(*parts: object) -> str:
    """Return the SHA-256 over arrays with their shapes, and over all else as it is written."""
    total = hashlib.sha256()
    for part in parts:
        array = isinstance(part, np.ndarray)
        total.update(f"{part.dtype} {part.shape}\n".encode() if array else f"{part!r}\n".encode())  # type: ignore[attr-defined]
        if array:
            total.update(np.ascontiguousarray(part).data)
    return total.hexdigest()


def remove_features(folder: Path) -> str:
    """Remove the features of a study that has ended; return in words how much they were, empty for none."""
    if not folder.is_dir():
        return ""
    size = sum(path.stat().st_size for path in folder.glob("*.f32"))
    shutil.rmtree(folder, ignore_errors=True)
    files.sync(folder.parent)
    line = f"features of the frozen backbone removed, {size / 1e6:,.1f} MB"
    log.info("%s", line)
    return line
