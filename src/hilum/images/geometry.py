"""How a picture of any shape lies in the square that a network sees, and the way back for maps and boxes."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.errors import UsageError, nearest

FITS = ("squash", "pad", "crop")
"""Squash both sides to the square; pad the shorter side with black; crop the longer side about the centre."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Geometry:
    """Where the original lies in the square: scaled as a whole, then placed about the centre.

    Attributes:
        width: Of the original, in pixels.
        height: Of the original, in pixels.
        size: Side of the square, in pixels.
        fit: One of `FITS`.
    """

    width: int
    height: int
    size: int
    fit: str

    def __post_init__(self) -> None:
        check(self.size, self.fit)

    @property
    def scaled(self) -> tuple[int, int]:
        """Width and height of the whole original in pixels of the square; `crop` cuts off what hangs over."""
        if self.fit == "squash":
            return self.size, self.size
        side = max(self.width, self.height) if self.fit == "pad" else min(self.width, self.height)
        return max(1, round(self.width * self.size / side)), max(1, round(self.height * self.size / side))

    @property
    def corner(self) -> tuple[int, int]:
        """Left and top of the scaled original in the square, in pixels; negative where `crop` cuts off."""
        width, height = self.scaled
        return (self.size - width) // 2, (self.size - height) // 2

    def to_square(self, levels: NDArray[np.uint8] | Floats) -> NDArray[np.uint8]:
        """Scale and place a picture, with anti-aliasing where it shrinks.

        Args:
            levels: Grey levels in [0, 255], (rows, columns): the whole original at any resolution.

        Returns:
            Grey levels rounded half to even, (size, size); padding is 0.
        """
        width, height = self.scaled
        left, top = self.corner
        pixels = np.rint(resize(levels, width, height).clip(0, 255)).astype(np.uint8)
        columns = slice(max(left, 0), min(left + width, self.size))
        rows = slice(max(top, 0), min(top + height, self.size))
        square = np.zeros((self.size, self.size), np.uint8)
        square[rows, columns] = pixels[
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
        return square

    def to_original(self, maps: Floats) -> Floats:
        """Carry maps over the square back to the original by bilinear interpolation.

        Args:
            maps: (..., h, w), any resolution; each covers the whole square.

        Returns:
            (..., height, width); 0 where `crop` cut the original off. Padding is left out.
        """
        (left, top), (width, height) = self.corner, self.scaled
        maps = maps.astype(np.float32, copy=False)
        maps = _stretch(maps, -2, self.height, start=top / self.size, extent=height / self.size)
        return _stretch(maps, -1, self.width, start=left / self.size, extent=width / self.size)

    def boxes_to_square(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Carry boxes from fractions of the original to fractions of the square.

        Args:
            boxes: (n, 4): x, y, width, height in [0, 1].

        Returns:
            The same of the square; what `crop` cuts off is cut off, a box wholly outside has no area.
        """
        corner, extent = self._placed()
        return _boxes(boxes, corner, extent)

    def boxes_to_original(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Carry boxes from fractions of the square to fractions of the original.

        Args:
            boxes: (n, 4): x, y, width, height in [0, 1].

        Returns:
            The same of the original; what lies in the padding is cut off.
        """
        corner, extent = self._placed()
        return _boxes(boxes, -corner / extent, 1 / extent)

    def _placed(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corner and extent of the original, (x, y) each, in fractions of the square."""
        return np.array(self.corner) / self.size, np.array(self.scaled) / self.size


def check(size: int, fit: str) -> None:
    """Refuse a side or a fit that cannot be.

    Raises:
        UsageError: With what would be right.
    """
    if size < 1:
        raise UsageError(f"size is {size}; a positive number of pixels expected")
    if fit not in FITS:
        raise UsageError(f"fit is {fit!r}; known: {nearest(fit, FITS)}")


def resize(levels: NDArray[np.uint8] | Floats, width: int, height: int) -> Floats:
    """Resize in float32: each axis by area averaging where it shrinks, linearly where it grows.

    Args:
        levels: (rows, columns).
        width: Columns wanted.
        height: Rows wanted.

    Returns:
        (height, width), in the range of `levels`; the values unchanged if the shape is.
    """
    resized = levels.astype(np.float32, copy=False)
    rows, columns = resized.shape
    # OpenCV's INTER_AREA averages only where neither axis grows, hence two steps.
    for shape, how in (
        ((min(rows, height), min(columns, width)), cv2.INTER_AREA),
        ((height, width), cv2.INTER_LINEAR),
    ):
        if resized.shape != shape:
            resized = np.asarray(cv2.resize(resized, shape[::-1], interpolation=how), np.float32)
    return resized


def _stretch(maps: Floats, axis: int, length: int, *, start: float, extent: float) -> Floats:
    """Interpolate maps linearly along one axis to `length` pixels.

    These lie evenly between `start` and `start + extent`, in fractions of the map's side. Beyond the
    outermost cells' centres the outermost value holds; beyond the map all is 0.
    """
    cells = maps.shape[axis]
    along = (-1, *(1,) * (-1 - axis))
    place = start + extent * (np.arange(length) + 0.5) / length
    cell = np.clip(place * cells - 0.5, 0, cells - 1)
    before = np.floor(cell).astype(np.intp)
    share = (cell - before).astype(np.float32).reshape(along)
    inside = ((place > 0) & (place < 1)).astype(np.float32).reshape(along)
    stretched: Floats = maps.take(before, axis)
    after: Floats = maps.take(np.minimum(before + 1, cells - 1), axis)
    # In place: maps of a whole radiograph for many findings are large.
    stretched *= (1 - share) * inside
    after *= share * inside
    stretched += after
    return stretched


def _boxes(
    boxes: NDArray[np.floating], offset: NDArray[np.float64], factor: NDArray[np.float64]
) -> NDArray[np.float64]:
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    low = np.clip(offset + boxes[:, :2] * factor, 0, 1)
    high = np.clip(offset + (boxes[:, :2] + boxes[:, 2:]) * factor, 0, 1)
    return np.hstack([low, high - low])
