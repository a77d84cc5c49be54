"""Prepared squares and the originals' sizes -> which pictures are blank, saturated, inverted or tiny."""

import functools
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.data.phantom import phantom

Squares = NDArray[np.uint8]
Booleans = NDArray[np.bool_]

SMALLEST_SIDE = 128
"""Pixels; a shorter side below is tiny."""

BLANK_RANGE = 16
"""Grey levels of 255 between the 2nd and the 98th percentile; what spans fewer is blank. Real films span 79 or more."""

WHITE_LEVEL, WHITE_SHARE = 250, 0.10
BLACK_LEVEL, BLACK_SHARE = 3, 0.40
"""A picture is saturated where such a share of it is at or beyond the level."""

INVERTED = -0.1
"""A picture is inverted-looking where its correlation with a typical chest film is lower."""

_CHUNK = 4096


def blank(pixels: Squares, slots: NDArray[np.int64]) -> Booleans:
    """Return which squares hold next to no grey levels; of large ones every n-th pixel counts.

    Args:
        pixels: uint8 (slots, size, size), perhaps a memory map.
        slots: (rows,), which square is a row's; here and below.
    """
    step = max(1, pixels.shape[-1] // 64)

    def of(chunk: Squares) -> Booleans:
        low, high = np.percentile(chunk[:, ::step, ::step], (2, 98), axis=(1, 2))
        return np.asarray(high - low < BLANK_RANGE)

    return _by_chunk(pixels, slots, of)


def saturated(pixels: Squares, slots: NDArray[np.int64]) -> Booleans:
    """Return which squares are white or black over a large share."""

    def of(chunk: Squares) -> Booleans:
        white = (chunk >= WHITE_LEVEL).mean(axis=(1, 2)) > WHITE_SHARE
        black = (chunk <= BLACK_LEVEL).mean(axis=(1, 2)) > BLACK_SHARE
        return np.asarray(white | black)

    return _by_chunk(pixels, slots, of)


def inverted(pixels: Squares, slots: NDArray[np.int64]) -> Booleans:
    """Return which squares look like a negative: dark bones and bright lungs.

    The rule is the correlation, within an oval about the centre, with the mean of synthetic radiographs. On the real
    films that it was measured on, it finds 99.5 % of negatives; see the project's docs/data.md.
    """
    typical, weights = _typical(pixels.shape[-1])

    def of(chunk: Squares) -> Booleans:
        values = chunk.reshape(len(chunk), -1).astype(np.float32)
        values = values - (values @ weights / weights.sum())[:, None]
        length = np.sqrt((values**2 @ weights) * (typical**2 @ weights))
        return np.asarray((values @ (typical * weights)) / np.maximum(length, 1e-6) < INVERTED)

    return _by_chunk(pixels, slots, of)


def tiny(width: NDArray[np.integer], height: NDArray[np.integer]) -> Booleans:
    """Return which originals have a shorter side below `SMALLEST_SIDE`; 0 is unknown."""
    shorter = np.minimum(width, height)
    return np.asarray((shorter > 0) & (shorter < SMALLEST_SIDE))


@functools.cache
def _typical(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a typical chest film about its weighted mean, and the weights; (size * size,) each."""
    mean = np.mean([phantom(seed, 64, ()) for seed in range(16)], axis=0)
    across = (2 * np.arange(size) + 1) / size - 1
    weights = np.clip((1 - np.hypot(across[:, None], across)) / 0.2, 0, 1).astype(np.float32).ravel()
    film = cv2.resize(mean.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA).ravel()
    return film - film @ weights / weights.sum(), weights


def _by_chunk(pixels: Squares, slots: NDArray[np.int64], of: Callable[[Squares], Booleans]) -> Booleans:
    parts = [of(pixels[slots[start : start + _CHUNK]]) for start in range(0, len(slots), _CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0, bool)
