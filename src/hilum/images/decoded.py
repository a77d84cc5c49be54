"""What a decoder hands on: the grey levels of one image within the limits, and how they came about."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hilum.errors import ImageError
from hilum.notices import Notice

MIN_SIDE = 32
"""The smallest width and height, in pixels, of anything taken for a radiograph."""

MAX_PIXELS = 100_000_000
"""The largest width x height that is decoded; the largest detectors have some 20 million pixels."""

MAX_ASPECT = 10
"""How many times the shorter side the longer one may be."""


@dataclass(frozen=True)
class Provenance:
    """How a file became grey values, and what its header says about the picture.

    Attributes:
        format: `"PNG"`, `"JPEG"`, `"TIFF"`, `"BMP"`, `"WEBP"`, `"DICOM"` or `"NPY"`.
        steps: What was done to the stored values, in order.
        notices: What a reader of the result should know; no values of a patient.
        view: `"PA"`, `"AP"`, `"LATERAL"` or `""` (not told).
        age: The patient's age in years; NaN: not told.
        sex: `"M"`, `"F"`, `"O"` or `""` (not told).
        pixel_spacing: Distance between rows and between columns in mm; None: not told.
    """

    format: str
    steps: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    view: str = ""
    age: float = math.nan
    sex: str = ""
    pixel_spacing: tuple[float, float] | None = None


@dataclass(frozen=True)
class Header:
    """What a DICOM file's header tells without its pixels; the fields' forms are those of `Provenance`.

    Attributes:
        width: In pixels.
        height: In pixels.
        view: `"PA"`, `"AP"`, `"LATERAL"` or `""` (not told).
        age: In years; NaN: not told, or it cannot be.
        sex: `"M"`, `"F"`, `"O"` or `""` (not told).
    """

    width: int
    height: int
    view: str
    age: float
    sex: str


@dataclass(frozen=True)
class Decoded:
    """The picture of one file.

    Attributes:
        levels: Grey levels in [0, 255], uint8 or float32, (height, width); fewer pixels than the original if
            it was decoded at a reduced scale.
        width: Of the original as it is looked at, in pixels.
        height: Of the original as it is looked at, in pixels.
        provenance: How it was read.
        whole: The same picture at full resolution where `levels` are reduced and it was asked for; else None.
    """

    levels: NDArray[np.uint8] | NDArray[np.float32]
    width: int
    height: int
    provenance: Provenance
    whole: Self | None = None


def check_shape(width: int, height: int, *, smallest: int = MIN_SIDE) -> None:
    """Refuse an image that is too small, too large or too narrow; called before its pixels are decoded.

    Args:
        width: In pixels.
        height: In pixels.
        smallest: The least that either may be.

    Raises:
        ImageError: With the reason.
    """
    if min(width, height) < smallest:
        raise ImageError(f"{width} x {height} pixels; at least {smallest} x {smallest} expected")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels; at most {MAX_PIXELS // 10**6} megapixels expected")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{width} x {height} pixels; no side over {MAX_ASPECT} times the other expected")
