"""`prepare` and `read`: the same pixels from every source, and a reason for every file that is none."""

import itertools
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from hilum.errors import ImageError, UsageError
from hilum.images import FITS, IMAGE_SUFFIXES, PREPARE_VERSION, Location, is_image, prepare, radiograph, read

Encode = Callable[..., bytes]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "DICOM"])
def test_every_source_gives_the_same_pixels(
    picture: np.ndarray, encode: Encode, make_dicom: Callable[..., bytes], tmp_path: Path, form: str
) -> None:
    data = make_dicom(picture, bits=8) if form == "DICOM" else encode(picture, form)
    plain, archive = tmp_path / "no-suffix", tmp_path / "a.zip"
    plain.write_bytes(data)
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("folder/b", data)
    prepared = [
        prepare(source, 48, "pad")
        for source in (
            data,
            plain,
            str(plain),
            Location(plain),
            Location(archive, "folder/b"),
            f"{archive}::folder/b",
        )
    ]
    assert prepared[0].provenance.format == form
    for other in prepared[1:]:
        np.testing.assert_array_equal(other.pixels, prepared[0].pixels)
        assert other.geometry == prepared[0].geometry
        assert other.provenance == prepared[0].provenance


@pytest.mark.parametrize("fit", FITS)
def test_a_square_of_the_right_size_is_untouched(picture: np.ndarray, encode: Encode, fit: str) -> None:
    square = picture[:80, :80]
    prepared = prepare(encode(square, "PNG"), 80, fit)
    np.testing.assert_array_equal(prepared.pixels, square)
    assert prepared.pixels.dtype == np.uint8
    assert prepared.grey.dtype == np.float32
    np.testing.assert_array_equal(prepared.grey, square / np.float32(255))


def test_read_is_what_prepare_sees(picture: np.ndarray, encode: Encode) -> None:
    for form in ("PNG", "JPEG"):
        square = encode(picture[:80, :80], form)
        np.testing.assert_array_equal(np.rint(read(square).grey * 255), prepare(square, 80).pixels)


GOLDEN = {
    "squash": [[17, 35, 52, 70], [40, 63, 87, 111], [62, 92, 122, 152], [85, 121, 157, 192]],
    "pad": [[21, 39, 58, 77], [51, 78, 104, 131], [81, 116, 151, 185], [0, 0, 0, 0]],
    "crop": [[26, 38, 49, 61], [51, 67, 83, 99], [77, 97, 117, 137], [103, 127, 151, 174]],
}


@pytest.mark.parametrize("fit", FITS)
def test_golden_pixels(encode: Encode, fit: str) -> None:
    """Whoever changes these pixels raises PREPARE_VERSION, so that no cache keeps the old ones."""
    rows, columns = np.mgrid[:40, :60]
    grey = (2 * rows + columns + rows * columns // 25).astype(np.uint8)
    assert PREPARE_VERSION == 1
    np.testing.assert_array_equal(prepare(encode(grey, "PNG"), 4, fit).pixels, GOLDEN[fit])


def test_geometry_holds_the_original_shape(encode: Encode) -> None:
    for form in ("PNG", "JPEG"):
        geometry = prepare(encode(np.zeros((900, 1300), np.uint8), form), 64, "crop").geometry
        assert (geometry.width, geometry.height, geometry.size, geometry.fit) == (1300, 900, 64, "crop")


def test_wrong_use_is_told_before_reading() -> None:
    with pytest.raises(UsageError, match="known: squash"):
        prepare("missing.png", 64, "squish")
    with pytest.raises(UsageError, match="size is -1"):
        prepare("missing.png", -1)


def test_suffixes_are_lower_case_and_dotted() -> None:
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


def test_a_file_is_an_image_by_its_name_else_by_its_first_bytes(tmp_path: Path, encode: Encode) -> None:
    content = {
        "png": encode(np.zeros((40, 40), np.uint8), "PNG"),
        "dcm": bytes(128) + b"DICM",
        "txt": b"text",
    }
    for name, (kind, expected) in {
        "a.JFIF": ("txt", True),
        "a": ("png", True),
        "1.2.840.7": ("dcm", True),
        "README": ("txt", False),
        "a.txt": ("png", False),
    }.items():
        (tmp_path / name).write_bytes(content[kind])
        assert is_image(tmp_path / name) is expected
    assert not is_image(tmp_path / "missing")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "^empty file$"),
        (b"This is no image at all.", "^not a PNG, JPEG, TIFF, BMP, WebP or DICOM file$"),
        (b"GIF89a" + bytes(100), "^not a PNG, JPEG, TIFF, BMP, WebP or DICOM file$"),
        (b"\x89PNG\r\n\x1a\n", "^damaged PNG"),
        (b"\xff\xd8\xff", "^damaged JPEG"),
        (b"II*\0", "^damaged TIFF"),
        (bytes(128) + b"DICM", "^DICOM without a SOP class"),
    ],
)
def test_no_image(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "patient.png").write_bytes(content)
    for source in (content, tmp_path / "patient.png"):
        with pytest.raises(ImageError, match=reason) as caught:
            prepare(source, 64)
        assert "patient" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^no such file$"):
        prepare(tmp_path / "missing.png", 64)
    with pytest.raises(ImageError, match=r"^a folder; a file expected$"):
        prepare(str(tmp_path), 64)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_truncated(encode: Encode, form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    data = encode(noise, form)
    with pytest.raises(ImageError, match=f"^(truncated|damaged) {form}"):
        prepare(data[: len(data) // 2], 64)


def test_too_small(encode: Encode) -> None:
    with pytest.raises(ImageError, match=r"^3 x 3 pixels; at least 32 x 32 expected$"):
        prepare(encode(np.zeros((3, 3), np.uint8), "PNG"), 64)
    with pytest.raises(ImageError, match=r"^32 x 31 pixels"):
        prepare(encode(np.zeros((31, 32), np.uint8), "PNG"), 64)
    assert prepare(encode(np.zeros((32, 32), np.uint8), "PNG"), 64).pixels.shape == (64, 64)


def test_too_narrow(encode: Encode) -> None:
    with pytest.raises(ImageError, match=r"^400 x 32 pixels; no side over 10 times the other expected$"):
        prepare(encode(np.zeros((32, 400), np.uint8), "PNG"), 64, "crop")


@pytest.mark.parametrize("side", [10_001, 12_000, 60_000, 2**31 - 1])
def test_bombs_are_refused_undecoded(make_png_header: Callable[[int, int], bytes], side: int) -> None:
    with pytest.raises(ImageError, match="at most 100 megapixels expected"):
        prepare(make_png_header(side, side), 64)


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radiograph, "MAX_BYTES", 10)
    with pytest.raises(ImageError, match="MiB expected"):
        prepare(bytes(11), 64)


def test_lack_of_memory_is_an_image_error(
    picture: np.ndarray, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(ImageError, match=r"^PNG too large for the memory at hand$"):
        prepare(encode(picture, "PNG"), 64)


def test_interruption_is_none(picture: np.ndarray, encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image, "open", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(encode(picture, "PNG"), 64)


@pytest.fixture(scope="module")
def samples(picture: np.ndarray, encode: Encode, make_dicom: Callable[..., bytes]) -> dict[str, bytes]:
    small = picture[:40, :48]
    return {
        "PNG": encode(small, "PNG"),
        "JPEG": encode(small, "JPEG"),
        "TIFF": encode(small, "TIFF", compression="tiff_lzw"),
        "16-bit PNG": encode(small.astype(np.uint16) * 257, "PNG"),
        "DICOM": make_dicom(small, WindowCenter="100", WindowWidth="200", PatientAge="060Y", ShutterShape="CIRCULAR",
                            CenterOfCircularShutter=[20, 20], RadiusOfCircularShutter=20),
        "DICOM without meta": make_dicom(small, meta=False),
    }  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_mutated_files_end_read_or_refused(samples: dict[str, bytes], data: st.DataObject) -> None:
    content = bytearray(samples[data.draw(st.sampled_from(sorted(samples)))])
    for _ in range(data.draw(st.integers(1, 8))):
        # Mostly the headers, where there is more to break.
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, min(len(content), 500) - 1))
        content[place] = data.draw(st.integers(0, 255))
    reason = ""
    try:
        pixels = prepare(bytes(content), 32).pixels
    except ImageError as error:
        reason = str(error)
    assert pixels.shape == (32, 32) if not reason else (len(reason) < 200 and "\n" not in reason)


def test_threads_get_the_same_pixels(samples: dict[str, bytes]) -> None:
    expected = {name: prepare(content, 64).pixels for name, content in samples.items()}
    wrong: list[str] = []

    def work() -> None:
        for name, content in itertools.chain.from_iterable([samples.items()] * 5):
            if not np.array_equal(prepare(content, 64).pixels, expected[name]):
                wrong.append(name)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
