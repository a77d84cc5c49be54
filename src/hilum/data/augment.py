"""Turns a training image into a slightly different one: one affine warp, then brightness, contrast, noise."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.recipe import AugmentSettings


def augment(
    image: NDArray[np.uint8], settings: AugmentSettings, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw one random change within `settings` and apply it.

    Each setting is the largest change: angles, shifts, brightness and contrast are drawn uniformly from both
    sides of zero, the scale from [1 - zoom, 1 + zoom] (above 1 enlarges), the noise's deviation from
    [0, noise]; half of the images are flipped.

    All geometry is one bilinear warp, so that an image is resampled once. What comes in from outside is
    black, as beyond a collimator and as the padding of `fit = "pad"`: repeating or mirroring the edge would
    paint ribs and lungs that are not there. Contrast turns about the image's own mean, so that it leaves the
    brightness alone.

    Args:
        image: uint8 (size, size), grey value x 255. Not changed.
        settings: How far to go. With the defaults `image` itself is returned.
        rng: Where the randomness comes from. The same state gives the same image.

    Returns:
        uint8 (size, size), clipped to 0..255.
    """
    # All are drawn, whichever settings are on: switching one on leaves the draws of the others as they were.
    draws = rng.uniform(-1, 1, size=9)
    result = image
    matrix = affine(settings, draws, size=image.shape[0])
    if not np.array_equal(matrix, np.eye(2, 3)):
        warped = cv2.warpAffine(image, matrix, image.shape[::-1], flags=cv2.INTER_LINEAR, borderValue=0)
        result = np.asarray(warped, np.uint8)
    if settings.brightness or settings.contrast or settings.noise:
        mean = cv2.mean(result)[0]
        gain, offset = 1 + settings.contrast * draws[6], 255 * settings.brightness * draws[7]
        # A change of each of the 256 levels, looked up for each pixel.
        grey = cv2.LUT(result, (mean + gain * (np.arange(256) - mean) + offset).astype(np.float32))
        if settings.noise:
            deviation = np.float32(255 * settings.noise * abs(draws[8]))
            grey = grey + deviation * rng.standard_normal(grey.shape, dtype=np.float32)
        result = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return result


def affine(settings: AugmentSettings, draws: NDArray[np.float64], *, size: int) -> NDArray[np.float64]:
    """Compose flip, zoom, shear, rotation and shift, in this order, about the centre of the image.

    Args:
        settings: The largest changes.
        draws: (at least 6,) in [-1, 1]: the share of each to take; rotation, shift along x, shift along y,
            shear, zoom, and flip where the value is positive.
        size: Side of the image in pixels.

    Returns:
        (2, 3), from input to output pixel coordinates (x, y, 1), the centre of the first pixel at (0, 0).
        A positive rotation turns counterclockwise as seen on a screen; a positive shift moves right and down.
    """
    angle = math.radians(settings.rotation * draws[0])
    slant = math.tan(math.radians(settings.shear * draws[3]))
    zoom = 1 + settings.zoom * draws[4]
    mirror = -1.0 if settings.flip and draws[5] > 0 else 1.0
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    linear = turn @ np.array([[1.0, slant], [0.0, 1.0]]) @ np.diag([zoom * mirror, zoom])
    centre = np.full(2, (size - 1) / 2)
    offset = centre - linear @ centre + settings.shift * size * draws[1:3]
    return np.column_stack([linear, offset])
