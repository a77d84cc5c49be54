"""DICOM radiographs come out as the standard says, everything else is refused with its reason."""

import io
import math
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from hilum.errors import ImageError
from hilum.images import dicom, prepare, read

Make = Callable[..., bytes]


def ramp(bits: int = 12, *, signed: bool = False) -> np.ndarray:
    """All values that so many bits can hold, evenly, (64, 96)."""
    low = -(2 ** (bits - 1)) if signed else 0
    return low + np.linspace(0, 2**bits - 1, 64 * 96).round().astype(int).reshape(64, 96)


def table(entries: np.ndarray, *, first: int, bits: int, packed: bool = False) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", entries.astype("u1" if packed else "<u2").tobytes())
    return item


def windowed(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Grey in [0, 1] by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR_EXACT":
        return ((values - center) / width + 0.5).clip(0, 1)
    return ((values - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_the_theoretical_range_becomes_black_to_white(make_dicom: Make, bits: int, signed: bool) -> None:
    stored = ramp(bits, signed=signed)
    radiograph = read(make_dicom(stored, bits=bits, signed=signed))
    low = -(2 ** (bits - 1)) if signed else 0
    np.testing.assert_allclose(radiograph.grey, (stored - low) / (2**bits - 1), atol=1e-6)
    assert radiograph.provenance.format == "DICOM"
    assert radiograph.provenance.steps == ("theoretical range",)


def test_a_dull_image_is_not_stretched(make_dicom: Make) -> None:
    grey = read(make_dicom(np.full((64, 64), 1000))).grey
    np.testing.assert_allclose(grey, 1000 / 4095, atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("slope", [None, "1", "2.5", "-1"])
@pytest.mark.parametrize("signed", [False, True])
def test_rescale_and_window(make_dicom: Make, function: str | None, slope: str | None, signed: bool) -> None:
    stored = ramp(12, signed=signed)
    elements: dict[str, Any] = {"WindowCenter": ["700.5", "1"], "WindowWidth": ["1500", "2"]}
    values = stored.astype(float)
    if function:
        elements["VOILUTFunction"] = function
    if slope:
        elements |= {"RescaleSlope": slope, "RescaleIntercept": "-20", "RescaleType": "US"}
        values = values * float(slope) - 20
    radiograph = read(make_dicom(stored, signed=signed, **elements))
    expected = windowed(values, 700.5, 1500, function or "LINEAR")
    np.testing.assert_allclose(radiograph.grey, expected, atol=1e-6)
    window = f"window {(function or 'LINEAR').lower()}"
    assert radiograph.provenance.steps == (("rescale", window) if slope else (window,))


def test_a_window_about_zero_is_a_window(make_dicom: Make) -> None:
    stored = ramp(12, signed=True)
    radiograph = read(make_dicom(stored, signed=True, WindowCenter="0", WindowWidth="1000"))
    np.testing.assert_allclose(radiograph.grey, windowed(stored, 0, 1000, "LINEAR"), atol=1e-6)


def test_an_empty_window_is_none(make_dicom: Make) -> None:
    data = make_dicom(ramp(), WindowCenter="", WindowWidth="")
    assert read(data).provenance.steps == ("theoretical range",)


def test_rescale_without_window_uses_its_own_range(make_dicom: Make) -> None:
    stored = ramp()
    for slope in ("3", "-3"):
        grey = read(make_dicom(stored, RescaleSlope=slope, RescaleIntercept="50", RescaleType="US")).grey
        rising = stored / 4095
        np.testing.assert_allclose(grey, rising if slope == "3" else 1 - rising, atol=1e-6)


@pytest.mark.parametrize(("bits", "packed"), [(8, False), (8, True), (10, False), (12, False), (16, False)])
def test_voi_lut_comes_before_the_window(make_dicom: Make, bits: int, packed: bool) -> None:
    stored = ramp()
    entries = (np.linspace(0, 1, 3000) ** 2 * (2**bits - 1)).round()
    sequence = [table(entries, first=500, bits=bits, packed=packed)]
    data = make_dicom(stored, VOILUTSequence=sequence, WindowCenter="1", WindowWidth="2")
    expected = entries[(stored - 500).clip(0, 2999)] / (2**bits - 1)
    np.testing.assert_allclose(read(data).grey, expected, atol=1e-6)
    assert read(data).provenance.steps == ("VOI LUT",)


def test_voi_lut_after_rescale_of_negative_values(make_dicom: Make) -> None:
    stored = ramp(10, signed=True)
    entries = np.linspace(0, 4095, 1024).round()
    data = make_dicom(
        stored,
        bits=10,
        signed=True,
        RescaleSlope="1",
        RescaleIntercept="-100",
        RescaleType="US",
        VOILUTSequence=[table(entries, first=-612, bits=12)],
    )
    np.testing.assert_allclose(read(data).grey, entries[stored + 512] / 4095, atol=1e-6)
    assert read(data).provenance.steps == ("rescale", "VOI LUT")


def test_a_full_table_has_65536_entries(make_dicom: Make) -> None:
    stored = ramp(16)
    entries = np.arange(65535, -1, -1)
    data = make_dicom(stored, bits=16, VOILUTSequence=[table(entries, first=0, bits=16)])
    np.testing.assert_allclose(read(data).grey, 1 - stored / 65535, atol=1e-6)


def test_modality_lut(make_dicom: Make) -> None:
    stored = ramp()
    entries = np.sqrt(np.linspace(0, 1, 4096)) * 65535
    sequence = [table(entries.round(), first=0, bits=16)]
    sequence[0].ModalityLUTType = "OD"
    radiograph = read(make_dicom(stored, ModalityLUTSequence=sequence))
    np.testing.assert_allclose(radiograph.grey, np.sqrt(stored / 4095), atol=1e-5)
    assert radiograph.provenance.steps == ("modality LUT", "theoretical range")


def test_a_short_table_is_refused(make_dicom: Make) -> None:
    item = table(np.arange(100), first=0, bits=12)
    item.LUTDescriptor = [4096, 0, 12]
    with pytest.raises(ImageError, match="lookup table of 100 words for 4096 entries"):
        read(make_dicom(ramp(), VOILUTSequence=[item]))


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"WindowCenter": "2000", "WindowWidth": "1000"},
        {"WindowCenter": "2000", "WindowWidth": "1000", "VOILUTFunction": "SIGMOID"},
    ],
)
def test_monochrome1_is_the_twin_of_monochrome2(make_dicom: Make, elements: dict[str, str]) -> None:
    stored = ramp()
    second = make_dicom(stored, **elements)
    # The twin stores the negative; a linear window is half a value off about its centre, so that moves by one.
    mirrored = dict(elements)
    if elements:
        shift = 0 if "VOILUTFunction" in elements else 1
        mirrored["WindowCenter"] = str(4095 - 2000 + shift)
    first = make_dicom(4095 - stored, PhotometricInterpretation="MONOCHROME1", **mirrored)
    np.testing.assert_allclose(read(first).grey, read(second).grey, atol=1e-6)
    np.testing.assert_array_equal(prepare(first, 48).pixels, prepare(second, 48).pixels)
    assert read(first).provenance.steps[-1] == "MONOCHROME1 inverted"


def test_eight_bits_are_the_same_as_a_png(
    make_dicom: Make, picture: np.ndarray, encode: Callable[..., bytes]
) -> None:
    data = make_dicom(picture, bits=8)
    np.testing.assert_array_equal(prepare(data, 64).pixels, prepare(encode(picture, "PNG"), 64).pixels)
    identical = make_dicom(picture[:64, :64], bits=8)
    np.testing.assert_array_equal(prepare(identical, 64).pixels, picture[:64, :64])


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
def test_without_file_meta(make_dicom: Make, syntax: uid.UID) -> None:
    data = make_dicom(
        ramp(), meta=False, syntax=syntax, VOILUTSequence=[table(np.arange(4096), first=0, bits=12)]
    )
    assert data[:1] == b"\x08"
    np.testing.assert_allclose(read(data).grey, ramp() / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian])
def test_other_native_syntaxes(make_dicom: Make, syntax: uid.UID) -> None:
    np.testing.assert_allclose(read(make_dicom(ramp(), syntax=syntax)).grey, ramp() / 4095, atol=1e-6)


def test_big_endian(make_dicom: Make) -> None:
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(ramp())))
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    dataset.PixelData = ramp().astype(">u2").tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, implicit_vr=False, little_endian=False)
    np.testing.assert_allclose(read(stream.getvalue()).grey, ramp() / 4095, atol=1e-6)


def compressed(data: bytes, syntax: uid.UID, frame: bytes | None = None) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    if frame is None:
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def test_rle(make_dicom: Make) -> None:
    data = compressed(make_dicom(ramp()), uid.RLELossless)
    np.testing.assert_allclose(read(data).grey, ramp() / 4095, atol=1e-6)


def test_jpeg_and_jpeg_2000(make_dicom: Make, picture: np.ndarray, encode: Callable[..., bytes]) -> None:
    plain = make_dicom(picture, bits=8)
    jpeg = encode(picture, "JPEG", quality=95)
    data = compressed(plain, uid.JPEGBaseline8Bit, jpeg)
    np.testing.assert_allclose(read(data).grey, read(jpeg).grey, atol=1e-6)
    lossless = encode(picture, "JPEG2000", irreversible=False, no_jp2=True)
    data = compressed(plain, uid.JPEG2000Lossless, lossless)
    np.testing.assert_allclose(read(data).grey * 255, picture, atol=1e-3)


@pytest.mark.parametrize(
    ("syntax", "mend"),
    [(uid.JPEGLSLossless, r"pip install 'hilum\[pacs\]'"), (uid.JPEGLosslessSV1, "dcmdjpeg")],
)
def test_a_missing_decoder_is_named(
    make_dicom: Make, monkeypatch: pytest.MonkeyPatch, syntax: uid.UID, mend: str
) -> None:
    monkeypatch.setattr(type(pydicom.pixels.get_decoder(syntax)), "available_plugins", ("gdcm",))
    with pytest.raises(ImageError, match=f"no decoder for JPEG.*; .*{mend}"):
        read(compressed(make_dicom(ramp()), syntax, b"\xff\xd8"))


def test_damaged_compressed_pixels_are_refused(make_dicom: Make) -> None:
    data = compressed(make_dicom(ramp(8), bits=8), uid.JPEGBaseline8Bit, b"\xff\xd8\xff\xe0 no jpeg")
    with pytest.raises(ImageError, match=r"^JPEG Baseline \(Process 1\): the pixel data cannot be decoded"):
        read(data)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, "DICOM for processing; a CR or DX image"),
        ({"SOPClassUID": uid.DigitalXRayImageStorageForProcessing}, "For Processing; a CR or DX image"),
        ({"SOPClassUID": uid.CTImageStorage}, "^CT Image Storage; a CR or DX"),
        ({"SOPClassUID": uid.SecondaryCaptureImageStorage, "Modality": "OT"}, "not declared CR or DX"),
        ({"SOPClassUID": "1.2.826.0.1.3680043.9.1"}, "^unknown SOP class; a CR or DX"),
        ({"NumberOfFrames": "2"}, "^DICOM of 2 frames; a single one expected$"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "^DICOM in colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "^DICOM in colour"),
        ({"Rows": None}, "^DICOM without Rows$"),
        ({"PixelData": None}, "^DICOM without pixel data$"),
        ({"BitsStored": 17}, "^DICOM of 17 bits"),
        ({"HighBit": 15}, "^DICOM of 12 bits up to bit 15 of 16"),
        ({"Rows": 65535, "Columns": 65535}, "^65535 x 65535 pixels; at most 100 megapixels"),
        ({"Rows": 3, "Columns": 3}, "^3 x 3 pixels; at least 32 x 32 expected$"),
        ({"Rows": 65}, "^truncated DICOM: 12288 of 12480 bytes of pixel data$"),
        ({"WindowCenter": "1", "WindowWidth": "0"}, "^damaged DICOM"),
        ({"WindowCenter": "1", "WindowWidth": "5", "VOILUTFunction": "CUBIC"}, "^damaged DICOM"),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, "no finite grey values"),
    ],
)
def test_what_is_no_radiograph_is_refused(make_dicom: Make, elements: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read(make_dicom(ramp(), **elements))


def test_every_truncation_is_refused(make_dicom: Make) -> None:
    data = make_dicom(ramp())
    for length in (len(data) - 2, len(data) // 2, 400, 200, 140):
        with pytest.raises(ImageError):
            read(data[:length])


def test_a_deflate_bomb_is_refused(make_dicom: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "MAX_INFLATED_BYTES", 4 * 2**20)
    deflated = make_dicom(ramp(), syntax=uid.DeflatedExplicitVRLittleEndian)
    start = 132 + 12 + int.from_bytes(deflated[140:144], "little")
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(8 * 2**20)) + deflater.flush()
    assert len(bomb) < 2**14
    with pytest.raises(ImageError, match="deflated DICOM of more than 4 MiB"):
        read(deflated[:start] + bomb)


def test_a_secondary_capture_declared_dx_is_read_with_a_warning(make_dicom: Make) -> None:
    data = make_dicom(ramp(), SOPClassUID=uid.SecondaryCaptureImageStorage, Modality="DX")
    assert "secondary capture" in read(data).provenance.notices[0].text


@pytest.mark.parametrize(
    ("told", "years"),
    [
        ("060Y", 60),
        ("013M", 13 / 12),
        ("004W", 28 / 365.25),
        ("001D", 1 / 365.25),
        ("000Y", 0),
        ("", math.nan),
    ],
)
def test_age(make_dicom: Make, told: str, years: float) -> None:
    provenance = read(make_dicom(ramp(), PatientAge=told)).provenance
    assert provenance.age == pytest.approx(years, nan_ok=True)
    assert provenance.notices == ()


@pytest.mark.parametrize(
    ("told", "years", "warning"),
    [("081 ", 81, "no unit"), ("411Y", math.nan, "cannot be"), ("aged", math.nan, "cannot be")],
)
def test_odd_ages_warn_without_telling_them(make_dicom: Make, told: str, years: float, warning: str) -> None:
    data = make_dicom(ramp(), PatientAge="060Y").replace(b"060Y", told.encode())
    provenance = read(data).provenance
    assert provenance.age == pytest.approx(years, nan_ok=True)
    assert any(warning in sentence for sentence in map(str, provenance.notices))
    assert told not in str(provenance)


def test_what_the_header_tells(make_dicom: Make) -> None:
    provenance = read(
        make_dicom(
            ramp(),
            ViewPosition="LL",
            PatientSex="F",
            BurnedInAnnotation="YES",
            ImagerPixelSpacing=["0.2", "0.1"],
            PatientName="Doe^Jane",
        )
    ).provenance
    assert (provenance.view, provenance.sex, provenance.pixel_spacing) == ("LATERAL", "F", (0.2, 0.1))
    assert tuple(map(str, provenance.notices)) == ("burned-in annotation is declared",)
    assert "Doe" not in str(provenance)
    unknown = read(make_dicom(ramp(), ViewPosition="XTABLE")).provenance
    assert unknown.view == ""
    assert "view position" in unknown.notices[0].text


def test_header_values_beyond_the_standard_are_told_without_them(make_dicom: Make) -> None:
    data = make_dicom(ramp(), PixelSpacing=["0.123", "0.123"]).replace(b"0.123\\0.123", b"0.1x3\\0.123")
    with pytest.raises(ImageError, match=r"^damaged DICOM \(ValueError\)$"):
        read(data)
    data = make_dicom(ramp(), PatientAge="060Y", PatientSex="F").replace(b"060Y", b"0x0Y")
    provenance = read(data).provenance
    assert "0x0Y" not in str(provenance)
    assert math.isnan(provenance.age)


@pytest.mark.parametrize(("photometric", "stored"), [("MONOCHROME1", 0), ("MONOCHROME2", 4095)])
def test_shutters_blacken_what_they_cover(make_dicom: Make, photometric: str, stored: int) -> None:
    rows, columns = np.mgrid[1:65, 1:97]
    rectangle = {
        "ShutterLeftVerticalEdge": 11,
        "ShutterRightVerticalEdge": 90,
        "ShutterUpperHorizontalEdge": 5,
        "ShutterLowerHorizontalEdge": 60,
    }
    circle = {"CenterOfCircularShutter": [32, 48], "RadiusOfCircularShutter": 30}
    triangle = {"VerticesOfThePolygonalShutter": [1, 1, 64, 1, 1, 96]}
    in_rectangle = (columns >= 11) & (columns <= 90) & (rows >= 5) & (rows <= 60)
    in_circle = (rows - 32) ** 2 + (columns - 48) ** 2 <= 900
    in_triangle = (rows - 1) / 63 + (columns - 1) / 95 <= 1

    def white(**elements: Any) -> np.ndarray:
        data = make_dicom(np.full((64, 96), stored), PhotometricInterpretation=photometric, **elements)
        radiograph = read(data)
        assert radiograph.provenance.steps[-1] == "shutter masked"
        assert set(np.unique(radiograph.grey)) == {0, 1}
        return radiograph.grey == 1

    np.testing.assert_array_equal(white(ShutterShape="RECTANGULAR", **rectangle), in_rectangle)
    both = white(ShutterShape=["RECTANGULAR", "CIRCULAR"], **rectangle, **circle)
    np.testing.assert_array_equal(both, in_rectangle & in_circle)
    polygon = white(ShutterShape="POLYGONAL", **triangle)
    assert np.count_nonzero(polygon != in_triangle) < 64  # the slanted edge's own pixels


def test_bits_beyond_the_stored_ones_are_no_pixels(make_dicom: Make) -> None:
    # Old files keep an overlay in the four bits above twelve.
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(ramp())))
    dataset.PixelData = (ramp() | 0x3000).astype("<u2").tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream)
    np.testing.assert_allclose(read(stream.getvalue()).grey, ramp() / 4095, atol=1e-6)


@pytest.mark.skipif(shutil.which("dcmj2pnm") is None, reason="DCMTK's renderer dcmj2pnm is not installed")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_dcmtk_renders_the_same(
    make_dicom: Make, tmp_path: Path, photometric: str, bits: int, signed: bool
) -> None:
    stored = ramp(bits, signed=signed)
    middle = 2 ** (bits - 1) + int(stored.min())
    span = 2**bits
    # DCMTK has no LINEAR_EXACT, and rounds rescaled values to whole numbers.
    window = {"WindowCenter": str(middle + 3), "WindowWidth": str(span // 2)}
    rescale = {"RescaleSlope": "-2", "RescaleIntercept": "7", "RescaleType": "US"}
    moved = {"WindowCenter": str(-2 * middle + 7), "WindowWidth": str(span)}
    entries = (np.linspace(0, 1, min(span, 30000)) ** 2 * 4095).round()
    lut = {"VOILUTSequence": [table(entries, first=int(stored.min()), bits=12)]}
    for elements, option in (
        ({}, []),
        (window, ["+Wi", "1"]),
        (window | {"VOILUTFunction": "SIGMOID"}, ["+Wi", "1"]),
        (rescale | moved, ["+Wi", "1"]),
        (lut, ["+Wl", "1"]),
    ):
        data = make_dicom(stored, bits=bits, signed=signed, PhotometricInterpretation=photometric, **elements)
        (tmp_path / "a.dcm").write_bytes(data)
        command = ["dcmj2pnm", "+on", *option, str(tmp_path / "a.dcm"), str(tmp_path / "a.png")]
        subprocess.run(command, check=True, capture_output=True)
        rendered = np.asarray(Image.open(tmp_path / "a.png")).astype(float)
        assert np.abs(np.rint(read(data).grey * 255) - rendered).max() <= 1
