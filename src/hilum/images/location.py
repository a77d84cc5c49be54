"""Where an image is: a file, a member of an archive, or one of a stack of arrays; read in place, within bounds."""

import collections
import functools
import io
import math
import os
import re
import stat
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Protocol, Self

import numpy as np

from hilum.errors import ImageError
from hilum.images import tar

MAX_BYTES = 256 * 2**20
"""The largest file that is read; a chest radiograph has 10 to 40 MB at most."""

ARCHIVE_SUFFIXES = (".zip", *tar.SUFFIXES)
"""Names of archives that images are read from in place."""

_MAX_OPEN_ARCHIVES = 16
_MEMBER = re.compile(r"(.+?\.(?:zip|npz|tar|tar\.gz|tgz))::(.+)", re.IGNORECASE | re.DOTALL)
_IN_STACK = re.compile(r"(.+\.npy)/(0|[1-9]\d{0,9})", re.DOTALL)


@dataclass(frozen=True)
class Location:
    """A file, a member of a zip or tar archive, or one image of a stack in NumPy's archive.

    As text `"folder/a.png"`, `"a.zip::folder/b.png"`, `"a.tar.gz::b.png"` or `"a.npz::train_images.npy/17"`, counted
    from 0.
    """

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}::{self.member}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote: only after the ending of an archive does `::` part it from its member."""
        match = _MEMBER.fullmatch(text)
        return cls(Path(match[1]), match[2]) if match else cls(Path(text))


def read_bytes(location: Location) -> bytes:
    """Read one file, or one member of an archive without unpacking the others.

    Args:
        location: Where it is.

    Returns:
        The content, at least 1 and at most `MAX_BYTES` bytes; one image of a stack is a `.npy` file of its own.

    Raises:
        ImageError: It is missing, empty, too large, not a regular file, or not in the archive.
    """
    try:
        status = location.path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder; a file expected")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if location.member is None:
            content = _read_file(location.path, status.st_size)
        else:
            content = _read_member(location.path, status, location.member)
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except OSError as error:
        raise ImageError(f"cannot be opened: {error.strerror or type(error).__name__}") from None
    except ValueError:
        raise ImageError("cannot be opened: its path is not one") from None
    if not content:
        raise ImageError("empty file")
    return content


def _read_file(path: Path, size: int) -> bytes:
    _check_size(size)
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    _check_size(len(content))
    return content


def _read_member(path: Path, status: os.stat_result, member: str) -> bytes:
    if (
        PurePosixPath(member).is_absolute()
        or PureWindowsPath(member).drive
        or ".." in re.split(r"[/\\]", member)
        or member.startswith("\\")
    ):
        raise ImageError("the archive member's name is absolute or has '..'")
    try:
        content = _archives.get(path, status).read(member)
    except KeyError:
        raise ImageError("no such member in the archive") from None
    except (OSError, ImageError):
        raise
    except Exception as error:
        # Damaged and hostile archives raise much besides BadZipFile and TarError: zlib.error, struct.error, EOFError,
        # RuntimeError (encrypted), NotImplementedError (a compression that Python lacks).
        kind = "tar" if tar.is_tar(path) else "zip"
        raise ImageError(f"the {kind} archive cannot be read ({type(error).__name__})") from None
    _check_size(len(content))
    return content


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(f"{size / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} MiB expected")


def list_members(path: Path) -> list[str]:
    """List the files of a zip or tar archive, by any names that they may have.

    Raises:
        ImageError: The archive is damaged.
    """
    try:
        if tar.is_tar(path):
            return list(tar.members(path, path.stat()))
        with zipfile.ZipFile(path) as archive:
            return [name for name in archive.namelist() if not name.endswith("/")]
    except Exception as error:
        kind = "tar" if tar.is_tar(path) else "ZIP"
        raise ImageError(f"no whole {kind} archive ({str(error) or type(error).__name__})") from None


def reading_order(locations: Sequence[Location]) -> list[int]:
    """Return the numbers of locations in the order in which they are read fastest.

    Members of a packed tar archive come together and from its front to its back, so that it is unpacked once; all
    others stay in their order. Reads the index of each such archive.
    """
    first: dict[Path, int] = {}

    def key(number: int) -> tuple[int, int]:
        location = locations[number]
        if location.member is None or not tar.is_packed(location.path):
            return number, 0
        place, _ = places(location.path).get(location.member, (0, 0))
        return first.setdefault(location.path, number), place

    @functools.cache
    def places(path: Path) -> tar.Members:
        try:
            return tar.members(path, path.stat())
        except Exception:
            return {}  # Whoever reads its members is told.

    return sorted(range(len(locations)), key=key)


def stack_members(path: Path) -> list[str]:
    """List the images in the stacks of a `.npz` archive, as `Location.member` names them.

    Raises:
        ImageError: The archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = []
            for name in archive.namelist():
                with archive.open(name) as stream:
                    shape, _ = _read_header(stream)
                if len(shape) in (3, 4):
                    members += [f"{name}/{place}" for place in range(shape[0])]
            return members
    except OSError as error:
        raise ImageError(f"cannot be opened: {error.strerror or type(error).__name__}") from None
    except Exception as error:
        raise ImageError(f"the npz archive cannot be read ({type(error).__name__})") from None


@dataclass
class _Stack:
    """A stack that is being read: its open stream, where its pixels begin in it, and what one image is."""

    stream: IO[bytes]
    start: int
    length: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


class _Archive(Protocol):
    """An open archive: `read` gives a member's content, within bounds, or raises a KeyError where there is none."""

    def read(self, member: str) -> bytes: ...

    def close(self) -> None: ...


class _TarArchive(tar.TarArchive):
    def read(self, member: str) -> bytes:
        _, size = self.members[member]
        _check_size(size)
        return super().read(member)


@dataclass
class _ZipArchive:
    """An open zip archive, and the stack in it that was read last."""

    zip: zipfile.ZipFile
    has_stacks: bool
    name: str = ""
    stack: _Stack | None = None

    def read(self, member: str) -> bytes:
        stacked = _IN_STACK.fullmatch(member) if self.has_stacks else None
        if stacked:
            return _read_from_stack(self, stacked[1], int(stacked[2]))
        info = self.zip.getinfo(member)
        if info.is_dir():
            raise ImageError("a folder; a file expected")
        _check_size(info.file_size)
        with self.zip.open(info) as stream:
            return stream.read(MAX_BYTES + 1)

    def close(self) -> None:
        if self.stack is not None:
            self.stack.stream.close()
        self.zip.close()


def _read_from_stack(archive: _ZipArchive, name: str, place: int) -> bytes:
    """Return one image of a stack as the content of a `.npy` file.

    The stream stays open: a compressed stack can only be read from its beginning, so that reading its images in
    their order reads it once, and reading them in any other order reads it again.
    """
    if archive.stack is None or archive.name != name:
        stream = archive.zip.open(name)
        shape, dtype = _read_header(stream)
        archive.name, archive.stack = name, _Stack(stream, stream.tell(), shape[0], shape[1:], dtype)
    stack = archive.stack
    if place >= stack.length:
        raise ImageError(f"no such image in the stack; it has {stack.length:,}")
    size = math.prod(stack.shape) * stack.dtype.itemsize
    _check_size(size)
    try:
        stack.stream.seek(stack.start + place * size)
        content = stack.stream.read(size)
    except BaseException:
        archive.stack = None
        raise
    if len(content) < size:
        raise ImageError("truncated stack of images")
    output = io.BytesIO()
    np.lib.format.write_array(output, np.frombuffer(content, stack.dtype).reshape(stack.shape))
    return output.getvalue()


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Read the beginning of a `.npy` stream: the array's shape and type; nothing is ever unpickled."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = read(stream)
    if columns_first or dtype.hasobject or not shape:
        raise ImageError("not a stack of images; an array of numbers in C order expected")
    return shape, dtype


def _opened(path: Path, status: os.stat_result) -> _Archive:
    if tar.is_tar(path):
        return _TarArchive(path, status)
    return _ZipArchive(zipfile.ZipFile(path), has_stacks=path.suffix.lower() == ".npz")


class _Archives(threading.local):
    """The archives that this thread has open, since reading a large archive's directory takes a second.

    An archive seeks in its file, so threads must not share one; nor may a forked process use its parent's,
    whose file position it shares: hence the process number in the key. Size, time and inode notice a replaced
    archive.
    """

    def __init__(self) -> None:
        self._open: collections.OrderedDict[tuple[object, ...], _Archive] = collections.OrderedDict()

    def get(self, path: Path, status: os.stat_result) -> _Archive:
        key = (os.getpid(), path, status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in self._open:
            self._open[key] = _opened(path, status)
            if len(self._open) > _MAX_OPEN_ARCHIVES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(key)
        return self._open[key]


_archives = _Archives()
