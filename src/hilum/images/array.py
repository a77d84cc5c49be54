"""One image of a stack of arrays becomes grey levels."""

import io

import numpy as np

from hilum.errors import ImageError
from hilum.images.decoded import Decoded, Provenance, check_shape
from hilum.notices import notice

SMALLEST_SIDE = 28
"""Pixels; collections of arrays such as MedMNIST hold images that were made small on purpose."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601, as for raster files."""


def decode(data: bytes) -> Decoded:
    """Decode a `.npy` file of one image to grey.

    Args:
        data: The file's content: uint8 (height, width), 0 is black, or (height, width, 3) in RGB.

    Raises:
        ImageError: It is no such array, or its shape is beyond the limits.
        ValueError: It is no whole `.npy` file.
    """
    # Never unpickled: an array of objects could run code.
    pixels = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if pixels.dtype != np.uint8:
        raise _wrong(pixels)
    return from_pixels(pixels)


def from_pixels(pixels: np.ndarray) -> Decoded:
    """Turn an array into a grey picture.

    Args:
        pixels: uint8, or floating point in [0, 1], (height, width), 0 is black, or (height, width, 3) in RGB.

    Raises:
        ImageError: It is no such array, or its shape is beyond the limits.
    """
    grey = pixels.ndim == 2
    if not (grey or (pixels.ndim == 3 and pixels.shape[2] == 3)) or not pixels.size:
        raise _wrong(pixels)
    if np.issubdtype(pixels.dtype, np.floating):
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ImageError(f"{pixels.dtype} array with values outside [0, 1]; 0 is black and 1 is white")
        pixels = pixels.astype(np.float32) * np.float32(255)
    elif pixels.dtype != np.uint8:
        raise _wrong(pixels)
    height, width = pixels.shape[:2]
    check_shape(width, height, smallest=SMALLEST_SIDE)
    levels = np.ascontiguousarray(pixels) if grey else pixels.astype(np.float32) @ _LUMA
    notices = () if min(width, height) >= 64 else (notice("few-pixels", width=width, height=height),)
    return Decoded(levels, width, height, Provenance("NPY", () if grey else ("colour to grey",), notices))


def _wrong(pixels: np.ndarray) -> ImageError:
    return ImageError(
        f"array {pixels.dtype} {pixels.shape}; uint8 (height, width) or (height, width, 3) expected"
    )
