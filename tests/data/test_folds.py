from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hilum.data.split import draw_folds, split
from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError, RecipeError
from hilum.recipe import load_recipe

MASS = ("Mass",)


def make_table(sizes, positive, parts=None):
    """A patient a size, all of whose images have the finding or not."""
    number = sum(sizes)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    frame = make_frame(
        image=[f"{row}.png" for row in range(number)],
        source="here",
        patient=[f"p{one}" for one in owner],
        findings=MASS,
        labels=np.asarray(positive, float)[owner][:, None],
        **({"split": parts} if parts else {}),
    )
    return Table(frame, MASS, (Source("here", Path("here"), "", ""),))


def of_fold(fold, folds, **changes):
    values = {"split.folds": folds, "split.fold": fold, **changes}
    return load_recipe("nih-infiltration", [f"{key}={value}" for key, value in values.items()]).split


@given(
    st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=8, max_size=60),
    st.integers(2, 5),
    st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_every_image_is_in_one_fold_and_every_patient_too(people, number, seed):
    table = make_table(*zip(*people, strict=True))
    groups, labels = table.patient_keys, table.labels(MASS)

    folds = draw_folds(groups, labels, np.ones(len(table), bool), number=number, seed=seed)

    assert set(folds.tolist()) <= set(range(1, number + 1))
    for patient in np.unique(groups.astype(str)):
        assert len(set(folds[groups == patient])) == 1
    sizes = np.bincount(folds, minlength=number + 1)[1:]
    # Each fold misses its share of what is left by half of the largest patient at most, and those after it inherit
    # that in equal parts: the first against the last differ most.
    largest = max(images for images, _ in people)
    inherited = number / (number - 1) + sum(1 / left for left in range(1, number - 1))
    assert sizes.max() - sizes.min() <= largest / 2 * inherited


@given(st.lists(st.booleans(), min_size=10, max_size=80), st.integers(2, 6), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_folds_have_their_share_of_the_finding_within_one(positive, number, seed):
    table = make_table([1] * len(positive), positive)

    folds = draw_folds(
        table.patient_keys, table.labels(MASS), np.ones(len(table), bool), number=number, seed=seed
    )

    for rows in (np.ones(len(table), bool), table.labels(MASS)[:, 0] == 1):
        counts = np.bincount(folds[rows], minlength=number + 1)[1:]
        assert counts.max() - counts.min() <= 1


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does():
    rng = np.random.default_rng(0)
    table = make_table([1] * 60, rng.random(60) < 0.3)
    order = rng.permutation(60)
    everything = np.ones(60, bool)

    def draw(rows, seed):
        return draw_folds(table.patient_keys[rows], table.labels(MASS)[rows], everything, number=5, seed=seed)

    np.testing.assert_array_equal(draw(np.arange(60), 1)[order], draw(order, 1))
    assert (draw(order, 1) != draw(order, 2)).any()


def test_the_parts_of_a_fold_share_no_patient_and_the_tests_of_all_are_the_table():
    rng = np.random.default_rng(1)
    table = make_table(rng.integers(1, 4, 80), rng.random(80) < 0.3)

    tested = []
    for fold in range(1, 5):
        parted = split(table, of_fold(fold, 4), findings=MASS)
        frame = parted.table.frame
        assert frame.groupby("patient")["split"].nunique().max() == 1
        assert set(frame["split"]) == {"train", "val", "test"}
        assert not parted.leaky
        tested += frame["image"][frame["split"] == "test"].tolist()
    assert sorted(tested) == sorted(table.frame["image"])


@pytest.mark.parametrize("method", ["folders", "official"])
def test_the_sources_own_test_is_in_no_part(method):
    rng = np.random.default_rng(2)
    own = np.where(rng.random(80) < 0.25, "test", "train").tolist()
    table = make_table([1] * 80, rng.random(80) < 0.3, own)

    parted = split(table, of_fold(2, 4, **{"split.method": method}), findings=MASS)

    parts = parted.table.frame["split"].to_numpy(str)
    np.testing.assert_array_equal(parts == "", np.array(own) == "test")
    assert "the source's own test is in no fold" in parted.description


def test_too_few_patients_are_refused():
    table = make_table([3, 3, 3], [True, False, True])

    with pytest.raises(DataError, match="3 patients cannot be divided into 5 folds"):
        split(table, of_fold(1, 5), findings=MASS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split.folds": 1}, "fold 1 of 1"),
        ({"split.folds": 3, "split.fold": 4}, "fold 4 of 3"),
        ({"split.folds": 3, "split.method": "image"}, "drawn by patient"),
    ],
)
def test_folds_that_cannot_be_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("nih-infiltration", [f"{key}={value}" for key, value in changes.items()])
