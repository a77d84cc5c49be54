import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tests.data.audit.conftest import CHANGES, encoded, turned

from hilum import images
from hilum.data import cache, readers
from hilum.data.audit import duplicates
from hilum.data.audit.duplicates import DuplicatePair
from hilum.errors import UsageError


def prepared(contents):
    return np.stack([images.prepare(content, duplicates.SIDE).pixels for content in contents])


def found_in(squares):
    return duplicates.find(squares, np.arange(len(squares)))


@pytest.fixture(scope="module")
def squares(phantoms):
    return prepared([encoded(picture, 95) for picture in phantoms])


def test_different_phantoms_are_different(squares):
    assert found_in(squares) == ()


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_the_same(squares, phantoms, change):
    degrees = np.linspace(-5, 5, 20)
    changed = prepared([CHANGES[change](phantoms[row], degrees[row]) for row in range(20)])

    pairs = found_in(np.concatenate([squares, changed]))

    assert {(pair.first, pair.second) for pair in pairs} == {(row, 100 + row) for row in range(20)}
    assert all(pair.mirrored == (change in ("mirrored", "all of it")) for pair in pairs)
    told = np.array([pair.degrees for pair in sorted(pairs, key=lambda pair: pair.first)])
    expected = np.abs(degrees) if change in ("turned", "all of it") else np.zeros(20)
    np.testing.assert_allclose(told, expected, atol=0.5)


def test_a_turn_that_enlarges_the_canvas_is_found(squares, phantoms):
    changed = prepared([encoded(turned(phantoms[row], 3, expand=True)) for row in range(10)])

    pairs = found_in(np.concatenate([squares, changed]))

    assert {(pair.first, pair.second) for pair in pairs} == {(row, 100 + row) for row in range(10)}


def test_a_large_turn_is_not_promised(squares, phantoms):
    changed = prepared([encoded(turned(phantoms[row], 15)) for row in range(10)])
    assert found_in(np.concatenate([squares, changed])) == ()


def test_equal_squares_are_paired_with_the_first_alone(squares):
    slots = np.array([3, 7, 3, 3, 9])
    pairs = duplicates.find(squares, slots)
    assert pairs == (DuplicatePair(0, 2, 1.0), DuplicatePair(0, 3, 1.0))


def test_very_many_copies_end_in_one_group(phantoms):
    rng = np.random.default_rng(0)
    noise = rng.integers(-4, 5, (120, *phantoms[0].shape))
    many = prepared([encoded(np.clip(phantoms[0] + one, 0, 255).astype(np.uint8)) for one in noise])

    pairs = found_in(many)

    assert len(pairs) < 20 * len(many)
    assert len(set(duplicates.groups(pairs, len(many)))) == 1


def test_what_is_flat_or_little_is_like_nothing():
    flat = np.full((3, 64, 64), 100, np.uint8)
    flat[1] += 1
    flat[2, 30, 30] += 1
    assert found_in(flat) == ()
    assert found_in(flat[:0]) == ()
    assert found_in(flat[:1]) == ()


def test_two_pictures_are_enough(phantoms):
    assert len(found_in(prepared([encoded(phantoms[0]), encoded(turned(phantoms[0], 4))]))) == 1


def test_squares_of_another_size_are_refused():
    with pytest.raises(UsageError, match="expected"):
        duplicates.find(np.zeros((2, 32, 32), np.uint8), np.arange(2))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_groups_are_what_pairs_connect(ends):
    numbers = duplicates.groups([DuplicatePair(first, second, 1.0) for first, second in ends], 10)
    assert all(numbers[first] == numbers[second] for first, second in ends)
    # No more is joined than there are pairs.
    assert len(set(numbers)) >= 10 - len(ends)


def test_digests_tell_pixels_not_slots():
    pixels = np.zeros((3, 8, 8), np.uint8)
    pixels[1, 0, 0] = 1
    one, other, again = duplicates.digests(pixels, np.array([0, 1, 2]))
    assert one == again != other


# Real data


@pytest.fixture(scope="module")
def kermany(shared_data, tmp_path_factory):
    table = readers.read(shared_data / "kermany_224")
    return table, cache.build(
        table, size=duplicates.SIDE, fit="squash", directory=tmp_path_factory.mktemp("cache")
    )


@pytest.mark.real
@pytest.mark.slow
def test_kermanys_byte_identical_films_and_no_other(kermany):
    table, cached = kermany
    pairs = duplicates.find(cached.pixels, cached.slots)
    patient = table.frame["patient"].to_numpy()

    assert len(pairs) == 32
    assert len({int(number) for number in duplicates.groups(pairs, len(table))}) == len(table) - 32
    assert all(cached.slots[pair.first] == cached.slots[pair.second] for pair in pairs)
    different = [pair for pair in pairs if patient[pair.first] != patient[pair.second]]
    assert [patient[row] for row in (different[0].first, different[0].second)] == [
        "NORMAL2-IM-0095",
        "NORMAL2-IM-0096",
    ]
    assert len(different) == 1


@pytest.mark.real
def test_nihs_films_of_different_patients_are_different(shared_data, tmp_path):
    folder = shared_data / "nih"
    table = readers.read(folder / "Data_Entry_2017_v2020.csv", images=folder / "images_256")
    cached = cache.build(table, size=duplicates.SIDE, fit="squash", directory=tmp_path)
    patient = table.frame["patient"].to_numpy()
    pairs = duplicates.find(cached.pixels, cached.slots)
    assert not [pair for pair in pairs if patient[pair.first] != patient[pair.second]]
