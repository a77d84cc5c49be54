"""A DICOM file of one chest radiograph becomes grey levels as a viewer would show them.

The order is the standard's (PS3.4 N.2): stored values, modality LUT, VOI LUT, then the inversion of
MONOCHROME1 and the shutter. Every transformation is scaled by its theoretical range, never by the values that
an image happens to have.
"""

import io
import math
import re
import zlib
from pathlib import Path

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_modality_lut, apply_windowing, get_decoder

from hilum.errors import ImageError
from hilum.images.decoded import Decoded, Header, Provenance, check_shape
from hilum.notices import Notice, notice

MAX_INFLATED_BYTES = 128 * 2**20
"""The largest content of a file of the deflated transfer syntax, which can expand a thousandfold."""

_EXPECTED = "a CR or DX image for presentation expected"
_REQUIRED = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
_NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
_COMPRESSED = (
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
)
_COMPRESSED_WITH_EXTRA = (
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
)
_HEADER = ["Rows", "Columns", "ViewPosition", "PatientAge", "PatientSex"]
_VIEWS = {"PA": "PA", "AP": "AP", "LL": "LATERAL", "RL": "LATERAL", "LAT": "LATERAL", "LATERAL": "LATERAL"}
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_MAX_AGE = 120


def decode(data: bytes, decoder_messages: list[str]) -> Decoded:
    """Decode a CR or DX image for presentation; files without file meta too.

    A secondary capture is taken only where it declares itself CR or DX, as the files of some public
    collections do.

    Args:
        data: The file's content.
        decoder_messages: The list that pydicom's warnings go to; their texts hold values and are not handed on.

    Returns:
        The picture at full resolution: 0 is black, 255 white.

    Raises:
        ImageError: It is no such image, or its pixels cannot be had.
        Exception: Whatever pydicom raises for a damaged file.
    """
    _check_inflated(data)
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    _refuse_other_classes(dataset)
    _refuse_other_pixels(dataset)
    dataset.file_meta.TransferSyntaxUID = _transfer_syntax(dataset)
    low, high = _stored_range(dataset)
    stored = _stored_values(dataset)
    if stored.min() < low or stored.max() > high:
        raise ImageError(f"DICOM with pixel values beyond the declared {dataset.BitsStored} bits")
    # Each step up to the inversion is a function of one stored value, so it is evaluated once for each
    # possible value: exact, and much quicker than for each pixel.
    grey, steps = _presented(dataset, np.arange(low, high + 1))
    levels = (grey * 255).astype(np.float32).take(stored.astype(np.int32) - low)
    if _mask_shutter(dataset, levels):
        steps.append("shutter masked")
    height, width = levels.shape
    notices = _notices(dataset)
    view, age, sex = _view(dataset, notices), _age(dataset, notices), _sex(dataset)
    spacing = _pixel_spacing(dataset)
    if decoder_messages:
        notices.append(notice("header-breaks-standard"))
    provenance = Provenance("DICOM", tuple(steps), tuple(notices), view, age, sex, spacing)
    return Decoded(levels, width, height, provenance)


def header(path: Path) -> Header | None:
    """Read a file's header as far as its pixels; None where the file is no DICOM file or tells no size."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_HEADER)
        width, height = int(dataset.Columns), int(dataset.Rows)
        found = Header(width, height, _view(dataset, []), _age(dataset, []), _sex(dataset))
    except Exception:  # pydicom raises many things for a damaged file
        return None
    return found if min(width, height) > 0 else None


def _check_inflated(data: bytes) -> None:
    """Bound what a deflated file expands to, before pydicom inflates all of it."""
    if data[128:132] != b"DICM":
        return
    stream = io.BytesIO(data)
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    while piece := stream.read(2**16):
        while piece:
            total += len(inflater.decompress(piece, 2**20))
            if total > MAX_INFLATED_BYTES:
                raise ImageError(f"deflated DICOM of more than {MAX_INFLATED_BYTES // 2**20} MiB")
            piece = inflater.unconsumed_tail


def _refuse_other_classes(dataset: Dataset) -> None:
    sop_class = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    if not sop_class:
        raise ImageError(f"DICOM without a SOP class; {_EXPECTED}")
    modality = str(dataset.get("Modality", "")).strip()
    if sop_class == uid.SecondaryCaptureImageStorage:
        if modality not in ("CR", "DX"):
            raise ImageError(f"Secondary Capture Image Storage that is not declared CR or DX; {_EXPECTED}")
    elif sop_class not in (uid.ComputedRadiographyImageStorage, uid.DigitalXRayImageStorageForPresentation):
        name = uid.UID(sop_class).name
        raise ImageError(f"{name if name != sop_class else 'unknown SOP class'}; {_EXPECTED}")
    if str(dataset.get("PresentationIntentType", "")).strip().upper() == "FOR PROCESSING":
        raise ImageError(f"DICOM for processing; {_EXPECTED}")


def _refuse_other_pixels(dataset: Dataset) -> None:
    for keyword in _REQUIRED:
        if dataset.get(keyword) is None:
            raise ImageError(f"DICOM without {keyword}")
    check_shape(int(dataset.Columns), int(dataset.Rows))
    if (frames := int(dataset.get("NumberOfFrames") or 1)) != 1:
        raise ImageError(f"DICOM of {frames} frames; a single one expected")
    grey = ("MONOCHROME1", "MONOCHROME2")
    if dataset.SamplesPerPixel != 1 or dataset.PhotometricInterpretation not in grey:
        raise ImageError("DICOM in colour; MONOCHROME1 or MONOCHROME2 expected")
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in (8, 16) or not 1 <= stored <= allocated or int(dataset.HighBit) != stored - 1:
        raise ImageError(
            f"DICOM of {stored} bits up to bit {int(dataset.HighBit)} of {allocated}; "
            "at most 16 expected, at the lower end of 8 or 16"
        )
    if dataset.get("PixelData") is None:
        raise ImageError("DICOM without pixel data")


def _stored_values(dataset: Dataset) -> NDArray[np.integer]:
    """Return the pixel data as stored, (rows, columns)."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _NATIVE:
        length = len(dataset.PixelData)
        expected = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
        if length < expected:
            raise ImageError(f"truncated DICOM: {length} of {expected} bytes of pixel data")
    elif syntax not in _COMPRESSED + _COMPRESSED_WITH_EXTRA:
        raise ImageError("DICOM of a transfer syntax that is not for still images, or unknown")
    decoder = get_decoder(syntax)
    # A damaged file can make gdcm take the whole process down.
    plugins = [plugin for plugin in decoder.available_plugins if plugin != "gdcm"]
    if syntax not in _NATIVE and not plugins:
        mend = (
            "install one with: pip install 'hilum[pacs]'"
            if syntax in _COMPRESSED_WITH_EXTRA
            else "convert the file to an uncompressed syntax, for example with dcmdjpeg"
        )
        raise ImageError(f"no decoder for {syntax.name}; {mend}")
    for plugin in plugins or [""]:
        try:
            return np.asarray(decoder.as_array(dataset, index=0, decoding_plugin=plugin)[0])
        except MemoryError:
            raise
        except Exception:
            # The next one may read it: Pillow, for example, has no JPEG of 12 bits.
            continue
    raise ImageError(f"{syntax.name}: the pixel data cannot be decoded, they are damaged or of a rare kind")


def _transfer_syntax(dataset: Dataset) -> uid.UID:
    """Return the declared one; for a file without file meta the one it could be read with."""
    declared = dataset.file_meta.get("TransferSyntaxUID")
    if declared:
        return uid.UID(declared)
    if dataset["PixelData"].is_undefined_length:
        raise ImageError("compressed DICOM without file meta: nothing tells how it is compressed")
    implicit, little = dataset.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _stored_range(dataset: Dataset) -> tuple[int, int]:
    bits = int(dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


def _presented(dataset: Dataset, stored: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[str]]:
    """Grey in [0, 1] of each possible stored value, and the path chosen."""
    steps = []
    if dataset.get("ModalityLUTSequence"):
        values, top = _look_up(dataset, dataset.ModalityLUTSequence[0], stored)
        low, high = 0.0, top
        steps.append("modality LUT")
    else:
        values = np.asarray(apply_modality_lut(stored, dataset), np.float64)
        low, high = values.min(), values.max()
        if _filled(dataset, "RescaleSlope") and _filled(dataset, "RescaleIntercept"):
            steps.append("rescale")

    voi = dataset.get("VOILUTSequence")
    if voi and _filled(voi[0], "LUTDescriptor") and _filled(voi[0], "LUTData"):
        values, high = _look_up(dataset, voi[0], values)
        low = 0.0
        steps.append("VOI LUT")
    elif _filled(dataset, "WindowCenter") and _filled(dataset, "WindowWidth"):
        # On behalf of a data set of its own: pydicom would else take the output's range from the rescale
        # slope, and turn the picture into its negative where that is negative.
        window = Dataset()
        window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 16, 0
        window.VOILUTFunction = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
        window.add(dataset["WindowCenter"])
        window.add(dataset["WindowWidth"])
        values = np.asarray(apply_windowing(values, window))
        low, high = 0.0, 2.0**16 - 1
        steps.append(f"window {window.VOILUTFunction.lower()}")
    else:
        steps.append("theoretical range")

    with np.errstate(all="ignore"):
        grey = (values - low) / (high - low)
    if not np.isfinite(grey).all():
        raise ImageError("the DICOM header's rescale, window or lookup table gives no finite grey values")
    grey = grey.clip(0, 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
        steps.append("MONOCHROME1 inverted")
    return grey, steps


def _filled(dataset: Dataset, keyword: str) -> bool:
    return keyword in dataset and not dataset[keyword].is_empty


def _look_up(
    dataset: Dataset, item: Dataset, values: NDArray[np.number]
) -> tuple[NDArray[np.float64], float]:
    """Return the values' entries in the lookup table of a sequence's item, and the largest that an entry can be.

    Not by pydicom's functions: they keep the place in an 8-bit table in 8 bits, and cannot read tables packed
    into bytes (PS3.3 C.11.2.1.1), nor modality tables of 10 to 15 bits.
    """
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count or 2**16
    if isinstance(item.LUTData, bytes):
        little = dataset.file_meta.TransferSyntaxUID.is_little_endian
        words = np.frombuffer(item.LUTData, "<u2" if little else ">u2").astype("<u2")
    else:
        words = np.atleast_1d(np.asarray(item.LUTData, np.int64)).astype("<u2")
    entries = words if len(words) >= count else words.view(np.uint8)
    if len(entries) < count or not 8 <= bits <= 16:
        raise ImageError(
            f"DICOM with a lookup table of {len(words)} words for {count} entries of {bits} bits"
        )
    places = np.rint(values).clip(first, first + count - 1).astype(np.int64) - first
    return entries[places].astype(np.float64), 2.0**bits - 1


def _mask_shutter(dataset: Dataset, levels: NDArray[np.float32]) -> bool:
    """Blacken, in place, what lies outside of the declared shutter (PS3.3 C.7.6.11)."""
    shapes = dataset.get("ShutterShape") or ()
    shapes = [shapes] if isinstance(shapes, str) else list(shapes)
    visible = np.ones(levels.shape, np.uint8)
    # The standard counts rows and columns from 1.
    rows, columns = np.arange(1, levels.shape[0] + 1)[:, None], np.arange(1, levels.shape[1] + 1)
    if "RECTANGULAR" in shapes:
        visible &= (rows >= dataset.ShutterUpperHorizontalEdge) & (rows <= dataset.ShutterLowerHorizontalEdge)
        visible &= (columns >= dataset.ShutterLeftVerticalEdge) & (
            columns <= dataset.ShutterRightVerticalEdge
        )
    if "CIRCULAR" in shapes:
        row, column = dataset.CenterOfCircularShutter
        visible &= (rows - row) ** 2 + (columns - column) ** 2 <= int(dataset.RadiusOfCircularShutter) ** 2
    if "POLYGONAL" in shapes:
        vertices = np.array(dataset.VerticesOfThePolygonalShutter, np.int32).reshape(-1, 2)
        inside = np.zeros_like(visible)
        cv2.fillPoly(inside, [vertices[:, ::-1] - 1], 1)
        visible &= inside
    if visible.all():
        return False
    levels[visible == 0] = 0
    return True


def _notices(dataset: Dataset) -> list[Notice]:
    notices = []
    if (dataset.get("SOPClassUID") or "") == uid.SecondaryCaptureImageStorage:
        notices.append(notice("secondary-capture"))
    if str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        notices.append(notice("burned-in-annotation"))
    return notices


def _view(dataset: Dataset, notices: list[Notice]) -> str:
    told = str(dataset.get("ViewPosition") or "").strip().upper()
    if told and told not in _VIEWS:
        notices.append(notice("view-left-out"))
    return _VIEWS.get(told, "")


def _age(dataset: Dataset, notices: list[Notice]) -> float:
    """Years, from `"060Y"`, `"013M"`, `"006W"`, `"001D"`, or a bare number, which is none by the standard."""
    told = str(dataset.get("PatientAge") or "").strip().upper()
    if not told:
        return math.nan
    match = re.fullmatch(r"(\d{1,3})([YMWD]?)", told, re.ASCII)
    years = int(match[1]) * _YEARS[match[2] or "Y"] if match else math.nan
    if not years <= _MAX_AGE:
        notices.append(notice("age-left-out"))
        return math.nan
    if match and not match[2]:
        notices.append(notice("age-without-unit"))
    return years


def _sex(dataset: Dataset) -> str:
    told = str(dataset.get("PatientSex") or "").strip().upper()
    return told if told in ("M", "F", "O") else ""


def _pixel_spacing(dataset: Dataset) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        told = dataset.get(keyword)
        if told is not None and not isinstance(told, str) and len(told) == 2:
            down, across = float(told[0]), float(told[1])
            if 0 < down < math.inf and 0 < across < math.inf:
                return down, across
    return None
