"""Phantoms as squares, and ways in which a file's picture is changed and stays the same."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from hilum.data.phantom import phantom


def encoded(picture: np.ndarray, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def turned(picture: np.ndarray, degrees: float, **options: object) -> np.ndarray:
    return np.array(Image.fromarray(picture).rotate(degrees, Image.Resampling.BICUBIC, **options))


def resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.array(Image.fromarray(picture).resize((width, height)))


CHANGES: dict[str, Callable[[np.ndarray, float], bytes]] = {
    "re-encoded": lambda picture, _: encoded(picture, 40),
    "resized": lambda picture, _: encoded(resized(picture, 150, 150)),
    "resized to another aspect": lambda picture, _: encoded(resized(picture, 180, 240)),
    "turned": lambda picture, degrees: encoded(turned(picture, degrees)),
    "mirrored": lambda picture, _: encoded(picture[:, ::-1]),
    "all of it": lambda picture, degrees: encoded(resized(turned(picture[:, ::-1], degrees), 180, 180), 60),
}
"""What is done to a picture, uint8 (height, width), given degrees of -5 to 5: the content of a file."""


@pytest.fixture(scope="session")
def phantoms() -> np.ndarray:
    """uint8 (100, 224, 224)."""
    return np.stack([phantom(seed, 224, ()) for seed in range(100)])
