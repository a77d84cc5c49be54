import numpy as np
import pytest

from hilum.data import cache, readers
from hilum.data.audit import image_quality
from hilum.data.audit.duplicates import SIDE


def rows(squares):
    return squares, np.arange(len(squares))


def test_blank_is_what_holds_no_greys(phantoms):
    flat = np.full((3, 224, 224), 90, np.uint8)
    flat[1, 100, 100] = 255  # a dead pixel is no picture
    flat[2] += np.linspace(0, 15, 224).astype(np.uint8)
    assert image_quality.blank(*rows(flat)).tolist() == [True, True, True]
    assert not image_quality.blank(*rows(phantoms[:10])).any()


def test_saturated_is_what_is_white_or_black_over_a_large_share(phantoms):
    squares = phantoms[:3].copy()
    squares[1, :30] = 255
    squares[2, :, :100] = 0
    assert image_quality.saturated(*rows(squares)).tolist() == [False, True, True]


def test_a_negative_looks_inverted(phantoms):
    assert not image_quality.inverted(*rows(phantoms)).any()
    assert image_quality.inverted(*rows(255 - phantoms)).all()


def test_tiny_is_the_shorter_side_and_unknown_is_not_tiny():
    width, height = np.array([127, 2000, 128, 0]), np.array([2000, 20, 128, 0])
    assert image_quality.tiny(width, height).tolist() == [True, True, False, False]


def test_slots_choose_the_squares(phantoms):
    both = np.stack([phantoms[0], np.zeros_like(phantoms[0])])
    assert image_quality.blank(both, np.array([1, 0, 1])).tolist() == [True, False, True]
    assert image_quality.blank(both, np.zeros(0, np.int64)).tolist() == []


@pytest.mark.real
@pytest.mark.parametrize(("name", "missed", "told"), [("kermany_224", 0.007, []), ("nih", 0.007, [852, 859])])
def test_the_rule_for_negatives_on_real_films(shared_data, tmp_path, name, missed, told):
    folder = shared_data / name
    source = folder / "Data_Entry_2017_v2020.csv" if name == "nih" else folder
    table = readers.read(source, images=folder / "images_256" if name == "nih" else None)
    if name == "kermany_224":
        table = table.select(np.arange(len(table)) % 4 == 0)
    cached = cache.build(table, size=SIDE, fit="squash", directory=tmp_path)
    squares = cached.images(np.arange(len(table)))

    # Both that are told are negatives indeed.
    assert np.flatnonzero(image_quality.inverted(*rows(squares))).tolist() == told
    assert 1 - np.delete(image_quality.inverted(*rows(255 - squares)), told).mean() <= missed
    assert not image_quality.blank(*rows(squares)).any()
