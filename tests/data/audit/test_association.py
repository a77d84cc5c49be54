from pathlib import Path

import numpy as np
import pytest

from hilum.data import readers
from hilum.data.audit.association import FACTORS, TOGETHER, associations
from hilum.data.table import Source, Table, make_frame

RNG = np.random.default_rng(0)


def made(count=600, *, labels=None, per_patient=2, **columns):
    frame = make_frame(
        image=[f"{row}.png" for row in range(count)],
        source="here",
        patient=[f"p{row // per_patient}" for row in range(count)],
        findings=("Mass",),
        labels=RNG.random(count) < 0.3 if labels is None else labels,
        **columns,
    )
    return Table(frame, ("Mass",), (Source("here", Path("/images"), "", ""),))


def of(table, factor, **sizes):
    return next(one for one in associations(table, **sizes) if one.factor == factor)


def test_a_view_that_tells_the_label_is_told():
    labels = np.repeat(RNG.random(300) < 0.4, 2)
    wrong = np.repeat(RNG.random(300) < 0.1, 2)
    found = of(made(labels=labels, view=np.where(labels ^ wrong, "AP", "PA")), "view")
    assert found.value == pytest.approx(0.9, abs=0.04)
    assert found.low < found.value < found.high
    assert found.predictable


def test_a_relation_of_any_shape_is_seen():
    age = RNG.uniform(0, 90, 600)
    found = of(made(labels=np.abs(age - 45) > 30, age=age), "age")
    assert found.value > 0.9


def test_what_means_nothing_predicts_nothing():
    table = made(
        2000,
        view=RNG.choice(["AP", "PA"], 2000),
        sex=RNG.choice(["F", "M"], 2000),
        age=RNG.uniform(0, 90, 2000),
    )
    for factor in ("view", "sex", "age", TOGETHER):
        found = of(table, factor)
        assert found.value == pytest.approx(0.5, abs=0.06)
        assert not found.predictable


def test_the_patient_is_not_mistaken_for_the_factor():
    # Every patient has a size of his own, all films of a patient one label: only knowing the patient would tell.
    labels = np.repeat(RNG.random(60) < 0.5, 10)
    size = np.repeat(np.arange(60) + 500, 10)
    found = of(made(labels=labels, per_patient=10, width=size, height=size), "image size")
    assert found.value < 0.7


def test_sizes_come_from_the_images_where_the_table_does_not_tell():
    labels = RNG.random(600) < 0.4
    sizes = np.where(labels, 1000, 2000)
    assert of(made(labels=labels), "image size").reason.text == "unknown"
    assert of(made(labels=labels), "image size", width=sizes, height=sizes).value > 0.95


def test_where_no_two_images_have_one_size_the_area_tells():
    labels = np.arange(5000) % 5 < 2
    side = np.arange(5000) + 5000 * labels + 1
    assert of(made(5000, labels=labels, width=side, height=side), "image size").value > 0.95


def test_what_cannot_be_estimated_says_why():
    reasons = {one.factor: str(one.reason) for one in associations(made(view="PA"))}
    assert reasons["view"] == "the same in all images"
    assert reasons["sex"] == "unknown"
    few = associations(made(40, labels=np.arange(40) < 4, view=["AP", "PA"] * 20))
    assert {one.factor for one in few} == set(FACTORS)
    assert all(one.value is None and "under 10 patients" in str(one.reason) for one in few)


@pytest.mark.real
def test_nihs_edema_is_told_by_the_view(shared_data):
    table = readers.read(shared_data / "nih" / "Data_Entry_2017_v2020.csv")
    chosen = table.select(np.arange(len(table)) % 8 == 0)
    found = {(one.finding, one.factor): one for one in associations(chosen)}
    assert found["Edema", "view"].predictable
    assert found["Edema", "view"].value == pytest.approx(0.73, abs=0.03)
    assert not found["Nodule", "view"].predictable
