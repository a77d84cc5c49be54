"""Writes a file or a folder whole or not at all (temporary neighbour, fsync, rename); names made fit to print."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hilum.errors import UsageError

_PROBE = 4096
"""Bytes that are tried: a block, which a full disk does not have."""
_REFUSALS = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
"""Why a system does not write, whatever the program that asks."""


def check_writable(path: Path, *, option: str = "-o") -> None:
    """Refuse a file or folder that could not be written, before any work.

    A block is written where the path will lie, in the nearest folder that is there already, and is gone again.

    Args:
        path: What will be written; it need not be there.
        option: By which it was named.

    Raises:
        UsageError: The disk is full or read-only, a part of the path is a file, or rights are missing.
    """
    place = path
    try:
        place = next(part for part in (path, *path.absolute().parents) if part.exists())
        with tempfile.TemporaryFile(dir=place, buffering=0) as probe:
            probe.write(bytes(_PROBE))
    except OSError as error:
        where = "" if place == path else f" in {place}"
        raise UsageError(
            f"{option} {path} cannot be written{where}: {str(error.strerror or error).lower()}; give another place"
        ) from None


def refusal(error: BaseException) -> str:
    """Return in words why the system did not write something; empty for any other error."""
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return ""
    return os.strerror(error.errno).lower()


def cache_directory() -> Path:
    """Return the folder of all caches: `$HILUM_CACHE`, else `hilum` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if own := os.environ.get("HILUM_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hilum"


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a crash leaves either the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` as UTF-8, whole or not at all; what UTF-8 cannot hold is escaped by backslashes."""
    write_bytes(path, content.encode(errors="backslashreplace"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write; on success it is synced and takes its place.

    The temporary name keeps the suffix, since many libraries choose a format by it. On an exception
    (Ctrl-C included) the temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.chmod(0o644)
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` to fill; on success it takes the place of `path`.

    A folder that was there before is moved aside first and removed last, so that at every moment one of the
    two is whole on the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        temporary.chmod(0o755)
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        sync(temporary)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-old-"))
            path.replace(old / path.name)
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder under one, itself first, with the sorted names of its folders and its files.

    Links to folders are followed, and no folder comes twice. Folders taken out of the list of names are not entered.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield Path(place), folders, sorted(names)


def sync(path: Path) -> None:
    """Flush a file or a folder's listing to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def spreadsheet_safe(text: str) -> str:
    """Put an apostrophe before text that begins like a formula or with a control character."""
    dangerous = text[:1] in set("=+-@") or text[:1] < " " or text[:1] == "\x7f"
    return f"'{text}" if text and dangerous else text


def printable(name: str | Path) -> str:
    r"""Return a file's name as text: bytes that are no UTF-8, which Python keeps as surrogates, become `\xff`."""
    try:
        return str(name).encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:
        return str(name).encode(errors="backslashreplace").decode()


def is_text(name: str | Path) -> bool:
    """Return whether a file's name is UTF-8, so that tables and reports can hold it."""
    return str(name).isascii() or printable(name) == str(name)


def is_system_file(name: str) -> bool:
    """Return whether a file is one that macOS or Windows leaves in folders that are looked at."""
    return name.lower() in (".ds_store", "thumbs.db", "desktop.ini") or name.startswith("._")
