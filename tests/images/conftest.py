"""Synthetic files that the tests of this folder share."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """A smooth grey picture with a bright square, uint8 (96, 128)."""
    rows, columns = np.mgrid[:96, :128]
    grey = 100 + 60 * np.sin(rows / 17) + 60 * np.cos(columns / 23)
    grey[20:30, 90:104] = 255
    return np.rint(grey.clip(0, 255)).astype(np.uint8)


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Encodes an array or a Pillow image: `encode(array, "PNG", **options)`."""

    def encode(image: np.ndarray | Image.Image, form: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, form, **options)
        return stream.getvalue()

    return encode


@pytest.fixture(scope="session")
def make_png_header() -> Callable[[int, int], bytes]:
    """A PNG file that declares any size, with hardly any pixels in it."""

    def make(width: int, height: int) -> bytes:
        def chunk(name: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        body = zlib.compress(bytes(1000))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")

    return make


@pytest.fixture(scope="session")
def make_dicom() -> Callable[..., bytes]:
    """A CR file: `make_dicom(stored, bits=12, signed=False, syntax=..., meta=True, WindowCenter=..., ...)`."""

    def make(
        stored: np.ndarray,
        *,
        bits: int = 12,
        signed: bool = False,
        syntax: UID = ExplicitVRLittleEndian,
        meta: bool = True,
        **elements: Any,
    ) -> bytes:
        dataset = Dataset()
        dataset.SOPClassUID = ComputedRadiographyImageStorage
        dataset.SOPInstanceUID = "1.2.3.4"
        dataset.Modality = "CR"
        dataset.Rows, dataset.Columns = stored.shape
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = 8 if bits <= 8 else 16
        dataset.BitsStored = bits
        dataset.HighBit = bits - 1
        dataset.PixelRepresentation = int(signed)
        words = stored.astype(np.int64) & (2**bits - 1)
        dataset.PixelData = words.astype("u1" if bits <= 8 else "<u2").tobytes()
        dataset["PixelData"].VR = "OB" if bits <= 8 else "OW"
        for keyword, value in elements.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        stream = io.BytesIO()
        if meta:
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.save_as(stream, enforce_file_format=True)
        else:
            dataset.save_as(stream, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
        return stream.getvalue()

    return make
