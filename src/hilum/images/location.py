"""Where an image file is: a path, or a member of a zip archive, read in place and within bounds."""

import collections
import os
import re
import stat
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Self

from hilum.errors import ImageError

MAX_BYTES = 256 * 2**20
"""The largest file that is read; a chest radiograph has 10 to 40 MB at most."""

_MAX_OPEN_ARCHIVES = 16
_MEMBER = re.compile(r"(.+?\.zip)::(.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Location:
    """A file, or a member of a zip archive; as text `"folder/a.png"` or `"a.zip::folder/b.png"`."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}::{self.member}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `str` wrote: only after `.zip` does `::` part an archive from its member."""
        match = _MEMBER.fullmatch(text)
        return cls(Path(match[1]), match[2]) if match else cls(Path(text))


def read_bytes(location: Location) -> bytes:
    """Reads one file, or one member of an archive without unpacking the others.

    Args:
        location: Where it is.

    Returns:
        The content, at least 1 and at most `MAX_BYTES` bytes.

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
        archive = _archives.get(path, status)
        info = archive.getinfo(member)
        if info.is_dir():
            raise ImageError("a folder; a file expected")
        _check_size(info.file_size)
        with archive.open(info) as stream:
            content = stream.read(MAX_BYTES + 1)
    except KeyError:
        raise ImageError("no such member in the archive") from None
    except (OSError, ImageError):
        raise
    except Exception as error:
        # Damaged and hostile archives raise much besides BadZipFile: zlib.error, struct.error, EOFError,
        # RuntimeError (encrypted), NotImplementedError (a compression that Python lacks).
        raise ImageError(f"the zip archive cannot be read ({type(error).__name__})") from None
    _check_size(len(content))
    return content


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(f"{size / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} MiB expected")


class _Archives(threading.local):
    """The archives that this thread has open, since reading a large archive's directory takes a second.

    A `ZipFile` seeks in its file, so threads must not share one; nor may a forked process use its parent's,
    whose file position it shares: hence the process number in the key. Size, time and inode notice a replaced
    archive.
    """

    def __init__(self) -> None:
        self._open: collections.OrderedDict[tuple[object, ...], zipfile.ZipFile] = collections.OrderedDict()

    def get(self, path: Path, status: os.stat_result) -> zipfile.ZipFile:
        key = (os.getpid(), path, status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in self._open:
            self._open[key] = zipfile.ZipFile(path)
            if len(self._open) > _MAX_OPEN_ARCHIVES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(key)
        return self._open[key]


_archives = _Archives()
