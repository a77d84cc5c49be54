"""The way from a file to grey values: in full for pictures, as a square for networks."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hilum.errors import HilumError, ImageError
from hilum.images import array, decoder_warnings, raster
from hilum.images.decoded import Decoded, Header, Provenance
from hilum.images.geometry import Geometry, check
from hilum.images.location import MAX_BYTES, Location, read_bytes

PREPARE_VERSION = 1
"""Raised whenever `prepare` gives other pixels for the same file; part of the cache's key."""

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp"),
    *(".dcm", ".dicom", ".dic"),
)
"""Names under which images are looked for in a folder; what a file is, its content tells."""

Source = Path | str | Location | bytes | NDArray[np.uint8] | NDArray[np.float32] | Image.Image
"""A path, a text as `Location.parse` reads it, a location, a file's content, an array (uint8, or float32 in [0, 1]; 0
is black), or a picture that Pillow has opened, whose colours are turned to grey after Pillow decoded them."""

_MAGIC = {
    # First, since the 128 bytes before the magic word may be the beginning of a TIFF file. Without them a
    # data set begins with an element of group 2 or 8: its tag, then two capitals (explicit) or a small length
    # (implicit).
    "DICOM": re.compile(rb".{128}DICM|[\x02\x08]\0.\0(?:[A-Z]{2}|..\0\0)", re.DOTALL),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "TIFF": re.compile(rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]"),
    "BMP": re.compile(rb"BM.{4}\0{4}", re.DOTALL),
    "WEBP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "NPY": re.compile(rb"\x93NUMPY"),
}


@dataclass(frozen=True)
class Radiograph:
    """A picture at full resolution.

    Attributes:
        grey: float32 (height, width) in [0, 1], 0 is black.
        provenance: How it was read.
    """

    grey: NDArray[np.float32]
    provenance: Provenance


@dataclass(frozen=True)
class Prepared:
    """A picture as a network sees it.

    Attributes:
        pixels: uint8 (size, size): grey x 255.
        geometry: How the original lies in the square.
        provenance: How it was read.
    """

    pixels: NDArray[np.uint8]
    geometry: Geometry
    provenance: Provenance

    @property
    def grey(self) -> NDArray[np.float32]:
        """float32 (size, size) in [0, 1]."""
        return np.divide(self.pixels, np.float32(255), dtype=np.float32)


def prepare(source: Source, size: int, fit: str = "squash") -> Prepared:
    """Read an image as a square: the only way from a file to what a network sees, and always the same.

    Args:
        source: The image.
        size: Side of the square in pixels.
        fit: One of `FITS`.

    Returns:
        The square with its geometry and provenance. 16-bit images keep their precision until the end.

    Raises:
        ImageError: The file cannot become a radiograph; the message is the reason, without the file's name.
        UsageError: `size` or `fit` is wrong.

    Example:
        >>> prepare("archive.zip::images/00000001_000.png", 224).pixels.shape  # doctest: +SKIP
        (224, 224)
    """
    check(size, fit)
    return _square(_decode(source, _to_square(size, fit)), size, fit)


def prepare_and_read(source: Source, size: int, fit: str = "squash") -> tuple[Prepared, Radiograph]:
    """Return what `prepare` and `read` give, bit for bit, of one reading and one decoding.

    Of a JPEG file that `prepare` decodes at a reduced scale the decoder gives both scales; arguments and errors as of
    `prepare`.
    """
    check(size, fit)
    decoded = _decode(source, _to_square(size, fit), whole=True)
    whole = decoded if decoded.whole is None else decoded.whole
    return _square(decoded, size, fit), _radiograph(whole)


def read(source: Source) -> Radiograph:
    """Read an image at full resolution, for pictures.

    Args:
        source: The image.

    Returns:
        The picture, upright.

    Raises:
        ImageError: The file cannot become a radiograph; the message is the reason, without the file's name.
    """
    return _radiograph(_decode(source, None))


def header(source: Path) -> Header | None:
    """Return what a DICOM file's header tells, without reading its pixels: less than a millisecond a file.

    None where the file is not there, is no DICOM file or does not tell its size.
    """
    from hilum.images import dicom

    with decoder_warnings.collected():
        return dicom.header(source)


def is_image(path: Path) -> bool:
    """Tell whether a file in a folder is taken for an image: by its name, else by its first bytes.

    Bytes are looked at where the name ends in no suffix, or in a number as names of DICOM files often do.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix and not suffix[1:].isdigit():
        return False
    try:
        with path.open("rb") as stream:
            beginning = stream.read(132)
    except OSError:
        return False
    return any(magic.match(beginning) for magic in _MAGIC.values())


def _to_square(size: int, fit: str) -> raster.Scaled:
    return lambda width, height: Geometry(width, height, size, fit).scaled


def _square(decoded: Decoded, size: int, fit: str) -> Prepared:
    geometry = Geometry(decoded.width, decoded.height, size, fit)
    return Prepared(geometry.to_square(decoded.levels), geometry, decoded.provenance)


def _radiograph(decoded: Decoded) -> Radiograph:
    return Radiograph(np.divide(decoded.levels, np.float32(255), dtype=np.float32), decoded.provenance)


def _decode(source: Source, scaled: raster.Scaled | None, *, whole: bool = False) -> Decoded:
    data = b"" if isinstance(source, np.ndarray | Image.Image) else _content(source)
    name = _format(data) if data else "picture"
    try:
        with decoder_warnings.collected() as decoder_messages:
            if isinstance(source, np.ndarray):
                return array.from_pixels(source)
            if isinstance(source, Image.Image):
                # A copy, since Pillow reads a file's pixels late and turns the picture itself to grey.
                return raster.from_picture(source.copy(), decoder_messages)
            if name == "DICOM":
                # Here, since pydicom takes half a second to import and most collections are of PNG or JPEG
                # files.
                from hilum.images import dicom

                return dicom.decode(data, decoder_messages)
            if name == "NPY":
                return array.decode(data)
            return raster.decode(data, decoder_messages, scaled=scaled, whole=whole)
    except HilumError:
        raise
    except MemoryError:
        raise ImageError(f"{name} too large for the memory at hand") from None
    except Exception as error:
        # A decoder's own message can hold the file's name or a patient's values.
        if isinstance(error, EOFError) or "truncated" in str(error).lower():
            raise ImageError(f"truncated {name}") from None
        raise ImageError(f"damaged {name} ({type(error).__name__})") from None


def _content(source: Path | str | Location | bytes) -> bytes:
    if not isinstance(source, bytes):
        if isinstance(source, str):
            source = Location.parse(source)
        return read_bytes(source if isinstance(source, Location) else Location(source))
    if not source:
        raise ImageError("empty file")
    if len(source) > MAX_BYTES:
        raise ImageError(f"{len(source) / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} MiB expected")
    return source


def _format(data: bytes) -> str:
    for name, magic in _MAGIC.items():
        if magic.match(data):
            return name
    raise ImageError("not a PNG, JPEG, TIFF, BMP, WebP or DICOM file")
