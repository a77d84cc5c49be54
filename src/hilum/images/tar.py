"""A tar archive, plain or packed with gzip, read in place: which files it holds, and the content of one."""

import bisect
import contextlib
import functools
import hashlib
import io
import json
import os
import tarfile
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum import files

if TYPE_CHECKING:
    from zlib import _Decompress

PACKED_SUFFIXES = (".tar.gz", ".tgz")
SUFFIXES = (".tar", *PACKED_SUFFIXES)

_SPACING = 32 * 2**20
"""Bytes of content between the places at which unpacking can begin anew; each keeps 40 KB in memory."""
_PACKED_BYTES, _UNPACKED_BYTES = 2**16, 2**20
"""What is unpacked at a time."""
_GZIP_WINDOW = 31  # zlib's largest window, and a gzip header before it

_FORMAT = 1
"""Number of the stored index's form; an index of another is made anew."""

Members = dict[str, tuple[int, int]]
"""Name of a file in an archive -> where its content begins, and how many bytes it has."""


def is_tar(path: Path) -> bool:
    """Tell by its name whether a file is a tar archive."""
    return path.name.lower().endswith(SUFFIXES)


def is_packed(path: Path) -> bool:
    """Tell by its name whether a file is a tar archive packed with gzip, which is read from its beginning."""
    return path.name.lower().endswith(PACKED_SUFFIXES)


def members(path: Path, status: os.stat_result) -> Members:
    """Return the plain files of an archive; of a name that stands there twice the last counts, as tar has it.

    A packed archive must be unpacked for this, gigabytes in some seconds each, so that its index is kept in the
    folder of all caches.

    Args:
        path: The archive.
        status: Of the archive, to notice one that was replaced.

    Raises:
        OSError: It cannot be opened.
        Exception: Whatever tarfile and zlib raise for a damaged archive.
    """
    with _listing:
        return _members(path.absolute(), status.st_size, status.st_mtime_ns, status.st_ino)


class TarArchive:
    """An open archive; threads must not share one.

    Attributes:
        members: Its files.
    """

    def __init__(self, path: Path, status: os.stat_result) -> None:
        self._stream = _open(path.absolute(), status.st_size, status.st_mtime_ns, status.st_ino)
        self.members = members(path, status)

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            KeyError: There is no such file.
            EOFError: The archive ends before it.
        """
        place, size = self.members[name]
        self._stream.seek(place)
        content = self._stream.read(size)
        if len(content) < size:
            raise EOFError
        return content

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    __del__ = close


_listing = threading.Lock()


@functools.lru_cache(maxsize=256)
def _members(path: Path, size: int, mtime_ns: int, inode: int) -> Members:
    kept = files.cache_directory() / "archives" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    stamp = {"format": _FORMAT, "size": size, "mtime_ns": mtime_ns}
    if is_packed(path):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            known = json.loads(kept.read_text(encoding="utf-8"))
            if {name: known[name] for name in stamp} == stamp:
                return {name: (place, length) for name, (place, length) in known["members"].items()}
    with (
        _open(path, size, mtime_ns, inode) as stream,
        tarfile.open(fileobj=stream, mode="r:", errorlevel=2) as archive,
    ):
        found = {
            member.name: (member.offset_data, member.size)
            for member in archive
            if member.isreg() and not member.issparse()
        }
    if is_packed(path):
        with contextlib.suppress(OSError):  # The next process lists it anew.
            files.write_text(kept, json.dumps({**stamp, "members": found}))
    return found


def _open(path: Path, size: int, mtime_ns: int, inode: int) -> io.BufferedIOBase:
    if not is_packed(path):
        return path.open("rb")
    return io.BufferedReader(_Unpacked(path, _checkpoints(path, size, mtime_ns, inode)), _UNPACKED_BYTES)


@dataclass(frozen=True)
class _Checkpoint:
    """A place in the content at which unpacking can begin.

    Attributes:
        place: Byte of the content.
        offset: Byte of the packed file.
        state: What has been unpacked before; only copies of it go on.
    """

    place: int
    offset: int
    state: "_Decompress"


@functools.lru_cache(maxsize=256)
def _checkpoints(_path: Path, _size: int, _mtime_ns: int, _inode: int) -> list[_Checkpoint]:
    """Return the checkpoints of an archive, which all threads share and add to as they read on."""
    return [_Checkpoint(0, 0, zlib.decompressobj(_GZIP_WINDOW))]


_adding = threading.Lock()


class _Unpacked(io.RawIOBase):
    """The content of a gzip file, to be read at any place.

    Gzip can only be unpacked from its beginning; so the state of unpacking is kept every `_SPACING` bytes, and what
    lies further back is reached from the nearest of these. Reading on goes on where it stopped, so that whoever reads
    from the front to the back unpacks the file once.
    """

    def __init__(self, path: Path, checkpoints: list[_Checkpoint]) -> None:
        self._file = path.open("rb", buffering=0)
        self._checkpoints = checkpoints
        self._wanted = 0
        self._begin_at(checkpoints[0])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end is not known before it is reached")
        self._wanted = offset if whence == io.SEEK_SET else self._wanted + offset
        return self._wanted

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        nearest = self._checkpoints[bisect.bisect(self._checkpoints, self._wanted, key=_place) - 1]
        if not nearest.place <= self._place <= self._wanted:
            self._begin_at(nearest)
        while self._place < self._wanted:
            if not self._unpack(min(self._wanted - self._place, _UNPACKED_BYTES)):
                return 0
        content = self._unpack(len(view))
        view[: len(content)] = content
        self._wanted += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _begin_at(self, checkpoint: _Checkpoint) -> None:
        self._place, self._offset = checkpoint.place, checkpoint.offset
        self._state = checkpoint.state.copy()

    def _unpack(self, limit: int) -> bytes:
        """Return the next bytes of the content, at most `limit`; none at its end.

        Raises:
            EOFError: The file ends too early.
        """
        while True:
            self._file.seek(self._offset)
            packed = self._file.read(_PACKED_BYTES)
            if self._state.eof:
                # Gzip files may be joined, and a tape's last block is filled with zeros.
                if not packed.strip(b"\0"):
                    return b""
                self._state = zlib.decompressobj(_GZIP_WINDOW)
            content = self._state.decompress(packed, limit)
            rest = self._state.unused_data if self._state.eof else self._state.unconsumed_tail
            self._offset += len(packed) - len(rest)
            self._place += len(content)
            self._keep()
            if content:
                return content
            if not packed and not self._state.eof:
                raise EOFError("truncated")

    def _keep(self) -> None:
        with _adding:
            if self._place >= self._checkpoints[-1].place + _SPACING and not self._state.eof:
                self._checkpoints.append(_Checkpoint(self._place, self._offset, self._state.copy()))


def _place(checkpoint: _Checkpoint) -> int:
    return checkpoint.place
