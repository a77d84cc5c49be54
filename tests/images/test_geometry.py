"""Squash, pad and crop: where the original lies in the square, and the way back."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hilum.errors import UsageError
from hilum.images import FITS, Geometry
from hilum.images.geometry import resize

sides = st.integers(32, 300)
geometries = st.builds(
    Geometry, width=sides, height=sides, size=st.integers(8, 256), fit=st.sampled_from(FITS)
)


@pytest.mark.parametrize(
    ("fit", "scaled", "corner"),
    [("squash", (100, 100), (0, 0)), ("pad", (100, 50), (0, 25)), ("crop", (200, 100), (-50, 0))],
)
def test_where_a_wide_picture_lies(fit: str, scaled: tuple[int, int], corner: tuple[int, int]) -> None:
    geometry = Geometry(400, 200, 100, fit)
    assert geometry.scaled == scaled
    assert geometry.corner == corner


def test_unknown_fit_and_size_are_refused() -> None:
    with pytest.raises(UsageError, match=r"fit is 'crob'; known: crop \(did you mean it\?\)"):
        Geometry(100, 100, 64, "crob")
    with pytest.raises(UsageError, match="size is 0"):
        Geometry(100, 100, 0, "pad")


@settings(deadline=None)
@given(geometry=geometries)
def test_one_side_fits_exactly(geometry: Geometry) -> None:
    width, height = geometry.scaled
    if geometry.fit == "pad":
        assert max(width, height) == geometry.size
    else:
        assert min(width, height) == geometry.size


@settings(deadline=None)
@given(geometry=geometries, grey=st.integers(0, 255))
def test_an_even_picture_stays_even(geometry: Geometry, grey: int) -> None:
    square = geometry.to_square(np.full((geometry.height, geometry.width), grey, np.uint8))
    width, height = geometry.scaled
    assert square.shape == (geometry.size, geometry.size)
    assert np.count_nonzero(square == grey) >= min(width, geometry.size) * min(height, geometry.size)
    assert set(np.unique(square)) <= {0, grey}


@settings(deadline=None)
@given(geometry=geometries, seed=st.integers(0, 99))
def test_boxes_come_back(geometry: Geometry, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.random((2, 5, 2)), axis=0)
    inside = geometry.boxes_to_original(np.array([[0, 0, 1, 1]]))[0]  # what crop leaves of the original
    low, high = (inside[:2] + corner * inside[2:] for corner in (low, high))
    boxes = np.hstack([low, high - low])
    np.testing.assert_allclose(geometry.boxes_to_original(geometry.boxes_to_square(boxes)), boxes, atol=1e-12)


def test_crop_cuts_boxes_off() -> None:
    geometry = Geometry(400, 200, 100, "crop")
    boxes = np.array([[0.0, 0.0, 0.5, 1.0], [0.0, 0.2, 0.2, 0.2]])
    np.testing.assert_allclose(geometry.boxes_to_square(boxes), [[0, 0, 0.5, 1], [0, 0.2, 0, 0.2]])


def test_padding_is_cut_off_boxes() -> None:
    geometry = Geometry(400, 200, 100, "pad")
    np.testing.assert_allclose(geometry.boxes_to_original(np.array([[0, 0, 1, 0.5]])), [[0, 0, 1, 0.5]])


def test_no_boxes_are_no_boxes() -> None:
    assert Geometry(40, 60, 32, "pad").boxes_to_square(np.empty((0, 4))).shape == (0, 4)


@settings(deadline=None, max_examples=50)
@given(geometry=geometries, x=st.floats(0.2, 0.8), y=st.floats(0.2, 0.8))
def test_a_hot_spot_comes_back(geometry: Geometry, x: float, y: float) -> None:
    inside = geometry.boxes_to_original(np.array([[0, 0, 1, 1]]))[0]
    column = int((inside[0] + x * inside[2]) * geometry.width)
    row = int((inside[1] + y * inside[3]) * geometry.height)
    rows, columns = np.mgrid[: geometry.height, : geometry.width]
    spread = 6 * max(1, geometry.width / geometry.size, geometry.height / geometry.size)
    spot = 255 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * spread**2))
    back = geometry.to_original(geometry.to_square(spot.astype(np.float32)).astype(np.float32))
    assert back.shape == spot.shape
    found = np.argwhere(back == back.max()).mean(axis=0)
    # Rounding to 256 levels flattens the top of a spot this wide; half a pixel of the square comes on top.
    step = np.array([geometry.height / geometry.scaled[1], geometry.width / geometry.scaled[0]])
    assert (np.abs(found - [row, column]) <= 0.5 * step + 0.12 * spread + 0.5).all()


@settings(deadline=None, max_examples=50)
@given(geometry=geometries, rows=st.integers(1, 16), columns=st.integers(1, 16))
def test_maps_of_any_resolution_come_back(geometry: Geometry, rows: int, columns: int) -> None:
    maps = np.ones((2, 3, rows, columns), np.float32) * np.float32(7)
    back = geometry.to_original(maps)
    assert back.shape == (2, 3, geometry.height, geometry.width)
    assert back.dtype == np.float32
    left, top = geometry.corner
    width, height = geometry.scaled
    across = left + width * (np.arange(geometry.width) + 0.5) / geometry.width
    down = top + height * (np.arange(geometry.height) + 0.5) / geometry.height
    seen = ((down > 0) & (down < geometry.size))[:, None] & ((across > 0) & (across < geometry.size))
    assert np.abs(back - seen * np.float32(7)).max() < 1e-5


def test_map_of_the_original_shape_is_unchanged() -> None:
    maps = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    np.testing.assert_array_equal(Geometry(64, 64, 224, "squash").to_original(maps), maps)


def test_map_is_interpolated_between_the_cells_centres() -> None:
    maps = np.array([[0.0, 1.0]], np.float32)
    back = Geometry(40, 40, 20, "squash").to_original(maps)
    # Centres of the two cells are at 1/4 and 3/4 of the width.
    expected = np.clip(((np.arange(40) + 0.5) / 40 - 0.25) * 2, 0, 1)
    np.testing.assert_allclose(back, np.tile(expected, (40, 1)), atol=1e-6)


def test_shrinking_averages_and_growing_interpolates() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    assert (resize(stripes, 32, 64) == 127.5).all()
    one_axis_each = resize(stripes, 32, 100)
    assert one_axis_each.shape == (100, 32)
    assert (one_axis_each == 127.5).all()


def test_rounds_half_to_even() -> None:
    pairs = np.repeat(np.array([[0, 1, 1, 2]], np.uint8), 4, axis=0)
    np.testing.assert_array_equal(Geometry(4, 4, 2, "squash").to_square(pairs), [[0, 2], [0, 2]])


@settings(deadline=None)
@given(width=sides, height=sides, size=st.integers(8, 256), seed=st.integers(0, 9))
def test_sixteen_times_the_precision_changes_nothing(width: int, height: int, size: int, seed: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    geometry = Geometry(width, height, size, "squash")
    as_float = (grey.astype(np.uint16) * 257).astype(np.float32) / np.float32(257)
    np.testing.assert_array_equal(geometry.to_square(grey), geometry.to_square(as_float))
