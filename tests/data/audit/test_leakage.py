from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hilum.data.audit.leakage import across, compare, leaks
from hilum.data.split import split
from hilum.data.table import Source, Table, make_frame
from hilum.recipe import SplitSettings
from hilum.stats.intervals import clustered_mean


def table(patients, splits, **columns):
    count = len(patients)
    frame = make_frame(
        image=[f"{row}.png" for row in range(count)],
        source="here",
        patient=patients,
        findings=("Mass",),
        labels=columns.pop("labels", np.zeros(count)),
        split=splits,
        **columns,
    )
    return Table(frame, ("Mass",), (Source("here", Path("/images"), "", ""),))


unknown = np.full(100, -1)


def test_across_gives_the_rows_of_what_is_in_two_parts():
    groups = np.array([1, 1, 2, 2, 3, 3, 4])
    parts = np.array(["train", "test", "train", "train", "val", "", ""])
    assert [rows.tolist() for rows in across(groups, parts)] == [[0, 1]]


def test_leaks_of_patients_and_of_pictures_are_told_apart():
    made = table(["p", "p", "q", "r"], ["train", "test", "val", "test"])
    pictures = np.array([-1, -1, 7, 7])
    assert tuple(leak.text for leak in leaks(made, pictures)) == (
        "1 patient is in more than one part (first: p in train and test)",
        "1 picture is in more than one part (first: 2.png in val is 3.png in test)",
    )
    assert leaks(table(["p", "q"], ["train", "test"]), np.array([-1, -1])) == ()


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 40)), min_size=30, max_size=80), st.integers(0, 3)
)
def test_a_split_by_patient_that_knows_the_pictures_never_leaks(rows, seed):
    # Each picture is shared by two of the first patients at most, so that enough groups are left to draw from.
    patients = [f"p{patient}" for patient, _ in rows] + [f"q{number}" for number in range(40)]
    pictures = np.array([picture if picture < 4 else -1 for _, picture in rows] + [-1] * 40)
    divided = split(table(patients, ""), SplitSettings(val=0.2, test=0.2, seed=seed), image_numbers=pictures)
    assert leaks(divided.table, pictures) == ()


def test_pictures_nobody_shares_change_no_split():
    patients = [f"p{row // 2}" for row in range(100)]
    plain = split(table(patients, ""), SplitSettings())
    assert split(table(patients, ""), SplitSettings(), image_numbers=np.arange(100)).hash == plain.hash
    assert split(table(patients, ""), SplitSettings(), image_numbers=unknown).hash == plain.hash


def compared(name, made):
    return next(one for one in compare(made) if one.name == name)


def test_shares_and_ages_that_differ_are_told():
    splits = ["train"] * 200 + ["test"] * 200
    made = table(
        [f"p{row}" for row in range(400)],
        splits,
        view=["PA"] * 150 + ["AP"] * 50 + ["PA"] * 50 + ["AP"] * 150,
        age=np.r_[np.linspace(20, 60, 200), np.linspace(30, 70, 200)],
        labels=np.tile([1.0, 0.0, 0.0, 0.0], 100),
    )
    assert compared("view PA", made).differing == ("train", "test")
    assert compared("view PA", made).parts["train"].value == pytest.approx(0.75)
    assert compared("age", made).differing == ("train", "test")
    assert compared("Mass", made).differing is None


def test_images_of_one_patient_prove_no_difference():
    splits = ["train"] * 200 + ["test"] * 200
    made = table(["a"] * 100 + ["b"] * 100 + ["c"] * 200, splits, labels=np.repeat([1.0, 0.0], [100, 300]))
    assert compared("Mass", made).differing is None


def test_a_few_images_that_happen_to_be_alike_prove_no_difference():
    labels = np.r_[np.tile([1.0, 0.0], 100), np.zeros(4)]
    made = table([f"p{row}" for row in range(204)], ["train"] * 200 + ["val"] * 4, labels=labels)
    assert compared("Mass", made).differing is None


def test_unknown_values_are_left_out():
    made = table(["p", "q", "r"], ["train", "train", "test"], view=["PA", "", "AP"], age=[np.nan, np.nan, 3])
    assert compared("view PA", made).parts["train"].value == 1
    assert set(compared("age", made).parts) == {"test"}


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(0, 1000))
def test_without_repeated_patients_the_error_is_the_usual_one(count, seed):
    values = np.random.default_rng(seed).normal(size=count)
    mean, error = clustered_mean(values, np.arange(count))
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(count))
