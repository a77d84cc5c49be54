"""PNG, JPEG and TIFF files of every kind become the grey values that they store."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from hilum.errors import ImageError
from hilum.images import FITS, prepare, prepare_and_read, read

Encode = Callable[..., bytes]


def levels(data: bytes) -> np.ndarray:
    """Grey x 255 at full resolution."""
    return read(data).grey * np.float32(255)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_and_grey_colour_are_exact(picture: np.ndarray, encode: Encode, form: str) -> None:
    colour = np.repeat(picture[..., None], 3, axis=2)
    assert read(encode(picture, form)).provenance.steps == ()
    np.testing.assert_array_equal(np.rint(levels(encode(picture, form))), picture)
    np.testing.assert_array_equal(levels(encode(colour, form)), levels(encode(picture, form)))


def test_grey_colour_jpeg_is_nearly_its_grey_twin(picture: np.ndarray, encode: Encode) -> None:
    # Both store the same luma; the chroma that the coloured one has besides is not even decoded.
    colour = np.repeat(picture[..., None], 3, axis=2)
    np.testing.assert_array_equal(
        levels(encode(colour, "JPEG", quality=90)), levels(encode(picture, "JPEG", quality=90))
    )


def test_colour_becomes_luma(encode: Encode) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    radiograph = read(encode(colour, "PNG"))
    assert np.abs(radiograph.grey * 255 - colour @ [0.299, 0.587, 0.114]).max() < 0.51
    assert radiograph.provenance.steps == ("colour to grey by ITU-R 601 luma",)


def test_opaque_alpha_is_dropped(picture: np.ndarray, encode: Encode) -> None:
    opaque = np.full_like(picture, 255)
    for channels in ([picture] * 3 + [opaque], [picture, opaque]):
        radiograph = read(encode(np.dstack(channels), "PNG"))
        np.testing.assert_array_equal(np.rint(radiograph.grey * 255), picture)
        assert "opaque alpha dropped" in radiograph.provenance.steps
        assert radiograph.provenance.notices == ()


def test_transparent_pixels_lie_on_black(picture: np.ndarray, encode: Encode) -> None:
    alpha = np.full_like(picture, 255)
    alpha[:, :64], alpha[:10] = 0, 51
    radiograph = read(encode(np.dstack([picture, alpha]), "PNG"))
    np.testing.assert_allclose(radiograph.grey * 255, picture * (alpha / 255), atol=1e-3)
    assert "laid on black" in radiograph.provenance.steps
    assert "transparent" in radiograph.provenance.notices[0].text


def test_palette(picture: np.ndarray, encode: Encode) -> None:
    image = Image.fromarray(picture // 2)
    image.putpalette([255 - entry // 3 for entry in range(768)])  # entry k is the grey 255 - k
    np.testing.assert_array_equal(np.rint(levels(encode(image, "PNG"))), 255 - picture // 2)
    transparent = read(encode(image, "PNG", transparency=bytes([0] * 50 + [255] * 206)))
    expected = np.where(picture // 2 < 50, 0, 255 - picture // 2)
    np.testing.assert_array_equal(np.rint(transparent.grey * 255), expected)
    assert transparent.provenance.notices


def test_one_bit(picture: np.ndarray, encode: Encode) -> None:
    for form in ("PNG", "TIFF"):
        data = encode(Image.fromarray(picture > 99), form)
        np.testing.assert_array_equal(levels(data), np.where(picture > 99, 255, 0))


def test_grey_of_two_and_four_bits(picture: np.ndarray, tmp_path: Path) -> None:
    for bits in (2, 4):
        top = 2**bits - 1
        small = picture // 2 ** (8 - bits)
        image = Image.fromarray(small)
        image.putpalette([round(entry // 3 * 255 / top) for entry in range(3 * (top + 1))])
        stream = io.BytesIO()
        image.save(stream, "PNG", bits=bits)
        np.testing.assert_array_equal(np.rint(levels(stream.getvalue())), np.rint(small * (255 / top)))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("size", [64, 96, 224])
def test_sixteen_bits_are_the_same_picture(picture: np.ndarray, encode: Encode, form: str, size: int) -> None:
    fine = picture.astype(np.uint16) * 257
    np.testing.assert_array_equal(
        prepare(encode(fine, form), size).pixels, prepare(encode(picture, form), size).pixels
    )


def test_sixteen_bits_keep_their_precision(encode: Encode) -> None:
    fine = np.random.default_rng(0).integers(0, 65536, (96, 96), np.uint16)
    radiograph = read(encode(fine, "PNG"))
    np.testing.assert_allclose(radiograph.grey, fine / 65535, atol=1e-7)
    assert radiograph.provenance.steps == ("16-bit grey",)
    # One level of 256 is 257 of these: rounding before the mean would show.
    even = np.full((64, 64), 1000 * 257 // 10, np.uint16)
    even[::2] += 100
    assert (prepare(encode(even, "PNG"), 32).pixels == round((100 * 257 + 50) / 257)).all()


def test_dark_sixteen_bits_warn_and_are_not_stretched(encode: Encode) -> None:
    dark = np.full((64, 64), 4095, np.uint16)
    radiograph = read(encode(dark, "PNG"))
    assert radiograph.grey.max() == pytest.approx(4095 / 65535)
    assert "brightest of 65536 possible values is 4095" in radiograph.provenance.notices[0].text
    assert read(encode(dark * 3, "PNG")).provenance.notices == ()


def test_sixteen_bit_colour_is_read_with_eight() -> None:
    colour = np.full((40, 40, 3), 200 * 257, np.uint16)
    radiograph = read(cv2.imencode(".png", colour)[1].tobytes())
    assert (np.rint(radiograph.grey * 255) == 200).all()
    assert "16-bit colour read with 8 bits" in radiograph.provenance.steps


def test_white_is_zero_tiff(picture: np.ndarray, encode: Encode) -> None:
    photometric = 262
    # Pillow turns 8-bit pictures into their negative when it writes such a file, 16-bit ones not.
    eight = encode(picture, "TIFF", tiffinfo={photometric: 0})
    np.testing.assert_array_equal(np.rint(levels(eight)), picture)
    sixteen = encode((65535 - picture.astype(np.uint16) * 257), "TIFF", tiffinfo={photometric: 0})
    np.testing.assert_array_equal(np.rint(levels(sixteen)), picture)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate"])
def test_compressed_tiff(picture: np.ndarray, encode: Encode, compression: str) -> None:
    np.testing.assert_array_equal(np.rint(levels(encode(picture, "TIFF", compression=compression))), picture)


def test_interlaced_png(picture: np.ndarray) -> None:
    # Adam7 by hand: Pillow reads it but does not write it.
    import struct
    import zlib

    rows = b""
    for left, top, across, down in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
    ):  # fmt: skip
        rows += b"".join(b"\0" + row.tobytes() for row in picture[top::down, left::across])

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", picture.shape[1], picture.shape[0], 8, 0, 0, 0, 1)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    np.testing.assert_array_equal(np.rint(levels(data + chunk(b"IEND", b""))), picture)


def test_profiles_are_ignored_and_told(picture: np.ndarray, encode: Encode) -> None:
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"odd"):
        radiograph = read(encode(picture, "PNG", icc_profile=profile))
        np.testing.assert_array_equal(np.rint(radiograph.grey * 255), picture)
        assert radiograph.provenance.steps == ("ICC profile ignored",)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "sixteen"), [("PNG", False), ("JPEG", False), ("TIFF", False), ("TIFF", True), ("PNG", True)]
)
def test_orientation_is_undone(
    picture: np.ndarray, encode: Encode, form: str, sixteen: bool, orientation: int
) -> None:
    upright = cv2.GaussianBlur(picture, (9, 9), 0)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    stored = np.ascontiguousarray(turned)
    exif = Image.Exif()
    exif[274] = orientation
    options: dict[str, Any] = {"quality": 98} if form == "JPEG" else {}
    data = encode(stored.astype(np.uint16) * 257 if sixteen else stored, form, exif=exif, **options)
    np.testing.assert_allclose(levels(data), upright, atol=4 if form == "JPEG" else 0.01)
    geometry = prepare(data, 32).geometry
    assert (geometry.width, geometry.height) == (128, 96)


@pytest.fixture(scope="module")
def large() -> np.ndarray:
    """Something like a radiograph in its frequencies: smooth, some noise, a sharp marker; uint8 (1501, 1203)."""
    rng = np.random.default_rng(0)
    grey = np.zeros((1501, 1203), np.float32)
    for coarseness in (16, 64, 256):
        shape = (1203 // coarseness, 1501 // coarseness)
        noise = rng.normal(size=shape[::-1]).astype(np.float32)
        grey += coarseness / 8 * cv2.resize(noise, grey.shape[::-1], interpolation=cv2.INTER_CUBIC)
    grey = 128 + grey + rng.normal(0, 2, grey.shape).astype(np.float32)
    grey[1390:1430, 1000:1100] = grey[1300:1430, 1000:1030] = 255
    return np.rint(grey.clip(0, 255)).astype(np.uint8)


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_reduced_decode_differs_little_from_a_full_one(large: np.ndarray, encode: Encode, fit: str) -> None:
    data = encode(large, "JPEG", quality=92)
    reduced = prepare(data, 160, fit)
    full = prepare(encode(np.asarray(Image.open(io.BytesIO(data))), "PNG"), 160, fit)
    assert reduced.provenance.steps == ("decoded at 1/4 scale" if fit == "pad" else "decoded at 1/2 scale",)
    assert reduced.geometry == full.geometry
    difference = np.abs(reduced.pixels.astype(float) - full.pixels)
    # In grey levels of 255; found: mean 0.09 to 0.11, largest 6, at the marker's edge.
    assert difference.mean() < 0.2
    assert difference.max() <= 8
    assert difference[:, -4:].mean() < 0.4  # no shift towards the right and lower edge
    assert difference[-4:].mean() < 0.4


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("size", [1, 7, 100, 400, 800])
def test_reduced_decode_keeps_twice_the_pixels(encode: Encode, fit: str, size: int) -> None:
    from hilum.images import Geometry, raster

    data = encode(np.zeros((1000, 700), np.uint8), "JPEG")
    decoded = raster.decode(data, [], scaled=lambda width, height: Geometry(width, height, size, fit).scaled)
    width, height = Geometry(700, 1000, size, fit).scaled
    assert (decoded.width, decoded.height) == (700, 1000)
    assert decoded.levels.shape[0] >= min(2 * height, 1000)
    assert decoded.levels.shape[1] >= min(2 * width, 700)


def test_what_has_no_grey_is_refused(picture: np.ndarray, encode: Encode) -> None:
    with pytest.raises(ImageError, match="JPEG of mode CMYK"):
        read(encode(Image.new("CMYK", (64, 64)), "JPEG"))
    with pytest.raises(ImageError, match="TIFF of mode F"):
        read(encode(picture.astype(np.float32), "TIFF"))
    with pytest.raises(ImageError, match="TIFF of mode I"):
        read(encode(picture.astype(np.int32), "TIFF"))


def test_several_pictures_are_refused(picture: np.ndarray, encode: Encode) -> None:
    pages = [Image.fromarray(picture), Image.fromarray(picture[::-1].copy())]
    for form in ("TIFF", "PNG"):
        with pytest.raises(ImageError, match=f"{form} with 2 pictures"):
            read(encode(pages[0], form, save_all=True, append_images=pages[1:]))


def test_pillow_warnings_are_handed_on(picture: np.ndarray, encode: Encode) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\x01"
    radiograph = read(encode(picture, "JPEG", exif=exif))
    assert "Corrupt EXIF data" in radiograph.provenance.notices[0].text


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_square_and_picture_of_one_decoding_are_those_of_two(
    encode: Encode, form: str, orientation: int, fit: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (331, 447), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(pixels, form, exif=exif)

    prepared, radiograph = prepare_and_read(data, 48, fit)

    alone = prepare(data, 48, fit)
    np.testing.assert_array_equal(prepared.pixels, alone.pixels)
    assert (prepared.geometry, prepared.provenance) == (alone.geometry, alone.provenance)
    np.testing.assert_array_equal(radiograph.grey, read(data).grey)
    assert radiograph.provenance == read(data).provenance
    assert any("scale" in step for step in prepared.provenance.steps) == (form == "JPEG")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("before_pixels", [True, False])
def test_a_png_with_a_large_text_is_read_without_it(
    picture: np.ndarray, encode: Encode, before_pixels: bool
) -> None:
    data = encode(picture, "PNG")
    place = data.index(b"IDAT" if before_pixels else b"IEND") - 4
    text = png_chunk(b"zTXt", b"XMP\0\0" + zlib.compress(bytes(3 * 2**20)))
    radiograph = read(data[:place] + text + data[place:])
    np.testing.assert_array_equal(np.rint(radiograph.grey * 255), picture)
    assert radiograph.provenance.steps == ("texts left out",)


def test_a_damaged_png_with_a_text_stays_damaged(picture: np.ndarray, encode: Encode) -> None:
    data = encode(picture, "PNG")
    place = data.index(b"IDAT") - 4
    with pytest.raises(ImageError, match=r"^(damaged|truncated) PNG"):
        read(data[:place] + png_chunk(b"tEXt", b"a\0b") + data[place : place + 20])


@pytest.mark.parametrize(("form", "options"), [("BMP", {}), ("WEBP", {"lossless": True})])
def test_bitmaps_and_webp_are_read(
    picture: np.ndarray, encode: Encode, form: str, options: dict[str, bool]
) -> None:
    radiograph = read(encode(picture, form, **options))
    np.testing.assert_array_equal(np.rint(radiograph.grey * 255), picture)
    assert radiograph.provenance.format == form
