"""Stacks of arrays are read image by image; what is no image of grey or RGB values has its reason."""

import io
import zipfile

import numpy as np
import pytest

from hilum import images
from hilum.errors import ImageError
from hilum.images import Location, read_bytes


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def test_grey_stays_as_it_is_and_says_that_it_is_small() -> None:
    pixels = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28).astype(np.uint8)
    prepared = images.prepare(npy(pixels), 28)
    np.testing.assert_array_equal(prepared.pixels, pixels)
    assert prepared.provenance.format == "NPY"
    assert tuple(map(str, prepared.provenance.notices)) == ("only 28 x 28 pixels: small findings are lost",)


def test_colour_becomes_grey_by_luma() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[...] = (100, 50, 200)
    prepared = images.prepare(npy(pixels), 64)
    assert set(prepared.pixels.ravel()) == {round(0.299 * 100 + 0.587 * 50 + 0.114 * 200)}
    assert prepared.provenance.notices == ()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((64, 64)), r"array float64 \(64, 64\); uint8"),
        (np.zeros((64, 64, 4), np.uint8), r"\(64, 64, 4\); uint8"),
        (np.zeros((8, 8), np.uint8), "at least 28 x 28 expected"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        images.prepare(npy(array), 64)


def test_nothing_is_unpickled_and_damage_is_told() -> None:
    with pytest.raises(ImageError, match="damaged NPY"):
        images.prepare(npy(np.array([{}], dtype=object), allow_pickle=True), 64)
    with pytest.raises(ImageError, match="damaged NPY"):
        images.prepare(npy(np.zeros((64, 64), np.uint8))[:-5], 64)


def test_one_image_of_a_stack_is_a_file_of_its_own(tmp_path) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (3, 32, 30), dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", train_images=stack)
    for place in (2, 0, 1):
        content = read_bytes(Location(tmp_path / "a.npz", f"train_images.npy/{place}"))
        np.testing.assert_array_equal(np.load(io.BytesIO(content)), stack[place])


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("x.npy/3", "no such image in the stack; it has 3"),
        ("x.npy/-1", "no such member"),
        ("x.npy/01", "no such member"),
        ("y.npy/0", "no such member"),
        ("fortran.npy/0", "not a stack of images"),
        ("single.npy/0", "not a stack of images"),
        ("short.npy/1", "truncated stack"),
        ("text.npy/0", "cannot be read"),
    ],
)
def test_what_is_not_in_a_stack_has_its_reason(tmp_path, member: str, reason: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", npy(np.zeros((3, 32, 32), np.uint8)))
        archive.writestr("fortran.npy", npy(np.asfortranarray(np.zeros((3, 32, 32), np.uint8))))
        archive.writestr("single.npy", npy(np.array(7)))
        archive.writestr("short.npy", npy(np.zeros((3, 32, 32), np.uint8))[:-2000])
        archive.writestr("text.npy", b"hello")
    with pytest.raises(ImageError, match=reason):
        read_bytes(Location(tmp_path / "a.npz", member))
