"""A PNG, JPEG, TIFF, BMP or WebP file becomes grey levels, by the values that it stores and never by their spread."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from hilum.errors import ImageError
from hilum.images.decoded import MAX_PIXELS, Decoded, Provenance, check_shape
from hilum.notices import Notice, notice

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")

Levels = NDArray[np.uint8] | NDArray[np.float32]
Scaled = Callable[[int, int], tuple[int, int]]

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF files
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_DRAFT_MARGIN = 2
"""A reduced decode keeps this many times the pixels needed. With 1 it would take a quarter less time, and
differ three times as much from a full decode."""

_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: np.fliplr,
    3: lambda levels: np.rot90(levels, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda levels: np.rot90(levels, -1),
    7: lambda levels: np.rot90(levels, 2).T,
    8: np.rot90,
}


def decode(
    data: bytes, decoder_messages: Sequence[str], *, scaled: Scaled | None = None, whole: bool = False
) -> Decoded:
    """Decode a raster image to grey.

    Colour becomes grey by ITU-R BT.601 luma (0.299 R + 0.587 G + 0.114 B), exact where R = G = B. Transparent
    pixels lie on black. 16-bit files keep their precision: 0 to the largest value that their bits can hold
    becomes 0 to 255.

    Args:
        data: The file's content.
        decoder_messages: Where Pillow's warnings go; they are handed on.
        scaled: Tells, from the original's width and height, to what width and height it will be scaled; a
            JPEG file much larger than that is decoded at 1/2, 1/4 or 1/8 of its scale. None: at full
            resolution.
        whole: Give the full resolution too, as `Decoded.whole`, where the scale was reduced.

    Returns:
        The picture, upright as its EXIF orientation says.

    Raises:
        ImageError: The image has no defined grey values, or its shape is beyond the limits.
        Exception: Whatever Pillow raises for a damaged file.
    """
    try:
        with _open(data) as image:
            decoded = from_picture(image, decoder_messages, scaled=scaled)
    except ValueError:
        # Pillow refuses a PNG file whose texts unpack to more than 1 MiB each, or 64 MiB together.
        needed = _without_texts(data)
        if needed is None:
            raise
        with _open(needed) as image:
            decoded = from_picture(image, decoder_messages)
        steps = ("texts left out", *decoded.provenance.steps)
        return replace(decoded, provenance=replace(decoded.provenance, steps=steps))
    if whole and decoded.levels.shape != (decoded.height, decoded.width):
        with _open(data) as image:
            return replace(decoded, whole=from_picture(image, decoder_messages))
    return decoded


def from_picture(
    image: Image.Image, decoder_messages: Sequence[str] = (), *, scaled: Scaled | None = None
) -> Decoded:
    """Turn a picture that Pillow has opened into grey; arguments and errors as of `decode`."""
    steps: list[str] = []
    notices: list[Notice] = []
    # Pillow calls a JPEG file with a preview inside MPO; the first picture is the whole one.
    name = "JPEG" if image.format == "MPO" else image.format or "Pillow"
    width, height = image.size
    check_shape(width, height)
    _refuse(image, name)
    if image.info.get("icc_profile"):
        steps.append("ICC profile ignored")
    levels: Levels
    if name == "JPEG":
        levels = _jpeg(image, scaled, steps)
    elif image.mode.startswith("I;16"):
        levels = _sixteen_bit(image, name, steps, notices)
    else:
        levels = _eight_bit(image, steps, notices)
    # Of a TIFF file Pillow undoes the orientation itself and then forgets the tag.
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in _UPRIGHT:
        levels = np.ascontiguousarray(_UPRIGHT[orientation](levels))
        steps.append(f"EXIF orientation {orientation} undone")
        if orientation >= 5:
            width, height = height, width
    said = (notice("decoder-warning", message=message) for message in decoder_messages)
    return Decoded(levels, width, height, Provenance(name, tuple(steps), (*notices, *said)))


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        # Pillow's own limit, twice 89 megapixels, lies above ours.
        raise ImageError(
            f"at most {MAX_PIXELS // 10**6} megapixels expected, and there are far more"
        ) from None


def _without_texts(data: bytes) -> bytes | None:
    """Return a PNG file without texts and colour profile, which may unpack to much; None: there are none."""
    if not data.startswith(_PNG):
        return None
    kept, place = [data[: len(_PNG)]], len(_PNG)
    while place < len(data):
        chunk = data[
            place : place + 12 + int.from_bytes(data[place : place + 4])
        ]  # length, kind, content, check sum
        if chunk[4:8] not in _PNG_TEXTS:
            kept.append(chunk)
        place += len(chunk)
    needed = b"".join(kept)
    return needed if len(needed) < len(data) else None


def _refuse(image: Image.Image, name: str) -> None:
    if name != "JPEG" and (pages := getattr(image, "n_frames", 1)) > 1:
        raise ImageError(f"{name} with {pages} pictures; a single one expected")
    if image.mode not in _EIGHT_BIT_MODES and not image.mode.startswith("I;16"):
        raise ImageError(
            f"{name} of mode {image.mode}, which has no defined grey; 8-bit grey, 16-bit grey or RGB expected"
        )


def _jpeg(image: Image.Image, scaled: Scaled | None, steps: list[str]) -> Levels:
    """Decode the luma alone, at a reduced scale where enough pixels remain."""
    if image.mode != "L":
        steps.append("colour to grey by ITU-R 601 luma")
    wanted = None
    if scaled is not None:
        width, height = scaled(*image.size)
        wanted = (_DRAFT_MARGIN * width, _DRAFT_MARGIN * height)
    full_width = image.width
    drafted = image.draft("L", wanted)
    levels: NDArray[np.uint8] = np.asarray(image.convert("L"))
    if drafted is None or drafted[1][2] == full_width:
        return levels
    # libjpeg rounds the reduced shape up, so that the last column and row may lie partly outside of the
    # picture: its true extent is a fraction of a reduced pixel less. Without this correction the picture
    # would be shifted by up to that much at its right and lower edge.
    extent_x, extent_y = drafted[1][2:]
    steps.append(f"decoded at 1/{round(full_width / extent_x)} scale")
    height, width = levels.shape
    stretch_x, stretch_y = extent_x / width, extent_y / height
    if (stretch_x, stretch_y) == (1.0, 1.0):
        return levels
    matrix = np.array([[stretch_x, 0, (stretch_x - 1) / 2], [0, stretch_y, (stretch_y - 1) / 2]])
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    shifted = cv2.warpAffine(
        levels.astype(np.float32), matrix, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(shifted, np.float32)


def _eight_bit(image: Image.Image, steps: list[str], notices: list[Notice]) -> Levels:
    if any(";16" in str(tile.args) for tile in getattr(image, "tile", ())):
        steps.append("16-bit colour read with 8 bits")
    if image.mode not in ("1", "L", "LA"):
        steps.append("colour to grey by ITU-R 601 luma")
    if not image.has_transparency_data:
        return np.asarray(image.convert("L"))
    image = image.convert("RGBA")
    levels, alpha = np.asarray(image.convert("L")), np.asarray(image.getchannel("A"))
    if alpha.min() == 255:
        steps.append("opaque alpha dropped")
        return levels
    steps.append("laid on black")
    notices.append(notice("transparency"))
    return np.asarray(levels * (alpha / np.float32(255)), np.float32)


def _sixteen_bit(image: Image.Image, name: str, steps: list[str], notices: list[Notice]) -> Levels:
    tags = getattr(image, "tag_v2", {})  # of TIFF files
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    inverted = name == "TIFF" and tags.get(_PHOTOMETRIC) == 0
    values = np.asarray(image)
    top = 2**bits - 1
    brightest = int(values.max())
    if brightest < (top + 1) // 8:
        notices.append(notice("few-bits-used", levels=top + 1, brightest=brightest))
    steps.append(f"{bits}-bit grey")
    levels = np.minimum(values.astype(np.float32) / np.float32(top / 255), np.float32(255))
    if inverted:
        steps.append("white-is-zero inverted")
        levels = np.float32(255) - levels
    return np.asarray(levels, np.float32)
