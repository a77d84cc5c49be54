"""Sums over images are exact, and the sample depends on names and seed alone."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from hilum.data import pixel_statistics
from hilum.data.table import Source, Table, make_frame
from hilum.progress import Silent

GREYS = (0, 51, 102, 153, 204, 255, 255, 255)


@pytest.fixture
def greys(tmp_path):
    """Pictures of one grey each, of two patients a class; the last file is broken and one is missing."""
    names = [f"{number}.png" for number in range(len(GREYS))]
    for name, grey in zip(names, GREYS, strict=True):
        Image.new("L", (80, 40), grey).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    names += ["broken.png", "missing.png"]
    frame = make_frame(
        image=names,
        source="made",
        patient=["a", "a", "a", "a", "b", "c", "d", "e", "f", "g"],
        findings=("Mass",),
        labels=np.array([0.0] * 4 + [1.0] * 6)[:, None],
    )
    return Table(frame, ("Mass",), (Source("made", tmp_path, "", ""),))


def look(table, *, limit=100, seed=0, groups=None):
    mass = table.frame["Mass"].to_numpy() == 1
    groups = groups or {"absent": ~mass, "Mass": mass}
    return pixel_statistics.look(table, groups, shown=groups, limit=limit, seed=seed, watch=Silent())


def test_a_look_is_the_mean_of_what_was_read(greys):
    seen = look(greys)

    dark, bright = seen.looks["absent"], seen.looks["Mass"]
    assert (dark.num_images, bright.num_images) == (4, 4)
    np.testing.assert_allclose(dark.mean, np.mean(GREYS[:4]) / 255, atol=1e-6)
    assert dark.histogram.sum() == 4 * pixel_statistics.SIDE**2
    assert {level: count for level, count in enumerate(bright.histogram) if count} == {
        204: pixel_statistics.SIDE**2,
        255: 3 * pixel_statistics.SIDE**2,
    }
    brightness = dict(zip(seen.rows.tolist(), seen.brightness.tolist(), strict=True))
    assert brightness == pytest.approx({row: grey / 255 for row, grey in enumerate(GREYS)})
    assert set(seen.width) == {80}
    assert seen.aspect() == 0.5


def test_what_cannot_be_read_is_told(greys):
    seen = look(greys)

    assert list(seen.unreadable) == ["broken.png"]
    assert seen.num_missing == 1
    assert len(seen.rows) + len(seen.unreadable) + seen.num_missing == len(greys)


def test_samples_are_of_different_patients(greys):
    seen = look(greys)

    assert len(seen.looks["absent"].samples) == 1
    assert len(seen.looks["Mass"].samples) == 4


def test_an_image_of_several_groups_is_read_once_and_shown_once(greys):
    everything = np.ones(len(greys), bool)
    mass = greys.frame["Mass"].to_numpy() == 1

    seen = look(greys, groups={"all": everything, "Mass": mass})

    assert (seen.looks["all"].num_images, seen.looks["Mass"].num_images) == (8, 4)
    assert len(seen.rows) == 8
    shown = [sample.image for each in seen.looks.values() for sample in each.samples]
    assert len(shown) == len(set(shown))


def test_a_group_whose_images_are_all_shown_elsewhere_shows_one_again(greys):
    one = np.arange(len(greys)) == 4

    seen = look(greys, groups={"this": one, "that": one})

    assert [len(each.samples) for each in seen.looks.values()] == [1, 1]


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_no_more_than_the_limit_is_read_of_a_group(greys, limit):
    seen = look(greys, limit=limit)

    assert seen.looks["absent"].num_images == limit
    assert seen.looks["Mass"].num_images + len(seen.unreadable) == limit


def test_a_larger_sample_begins_with_the_smaller_one(greys):
    small, large = (set(look(greys, limit=limit).rows.tolist()) for limit in (2, 4))

    assert small < large


def test_the_sample_follows_the_seed_and_not_the_order_of_the_rows(greys):
    order = np.random.default_rng(1).permutation(len(greys))
    turned = dataclasses.replace(greys, frame=greys.frame.iloc[order].reset_index(drop=True))

    def names(table, seed):
        return set(table.frame["image"].iloc[look(table, limit=2, seed=seed).rows])

    assert names(greys, 0) == names(turned, 0)
    assert len({frozenset(names(greys, seed)) for seed in range(8)}) > 1
