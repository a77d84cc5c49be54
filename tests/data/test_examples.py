from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hilum.data.examples import load
from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError, UsageError
from hilum.progress import Silent
from hilum.recipe import InputSpec, Task

FINDINGS = ("Pneumonia", "Mass", "Nodule")
NAN = np.nan
ROWS = {
    "normal": [0, 0, 0],
    "pneumonia": [1, 0, 0],
    "mass": [0, 1, 0],
    "nodule": [0, 0, 1],
    "pneumonia with nodule": [1, 0, 1],
    "pneumonia, mass unknown": [1, NAN, 0],
    "all unknown": [NAN, NAN, NAN],
    "nothing seen, nodule unknown": [0, 0, NAN],
}
TWO = {"pneumonia with mass": [1, 1, 0], "both again": [1, 1, NAN]}


class Listener(Silent):
    def __init__(self):
        self.lines = []

    def finish(self, line=""):
        self.lines.append(line)


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def make(tmp_path):
    def make(rows):
        names = [f"{name}.png" for name in rows]
        for grey, name in enumerate(names):
            Image.new("L", (40, 40), 10 * grey).save(tmp_path / name)
        frame = make_frame(
            image=names, source="here", patient=names, findings=FINDINGS, labels=list(rows.values())
        )
        return Table(frame, FINDINGS, (Source("here", tmp_path, "", ""),), notes=("read",))

    return make


def loaded(table, kind, findings, *, negatives="all-others", watch=None):
    return load(
        table,
        Task(kind=kind, findings=findings, negatives=negatives),
        InputSpec(size=32),
        watch=watch or Silent(),
    )


def names(examples):
    return [name.removesuffix(".png") for name in examples.table.frame["image"]]


def test_each_finding_keeps_the_images_that_know_it(make):
    found = loaded(make(ROWS), "multilabel", ("Mass", "Nodule"))

    assert names(found) == [name for name in ROWS if name != "all unknown"]
    assert found.table.notes == ("read",)


def test_negatives_without_any_finding(make):
    found = loaded(make(ROWS), "binary", ("Pneumonia",), negatives="no-finding")

    assert names(found) == ["normal", "pneumonia", "pneumonia with nodule", "pneumonia, mass unknown"]


def test_classes_keep_the_images_that_have_exactly_one_and_lack_the_others(make):
    classes = ("No Finding", "Pneumonia", "Mass")

    found = loaded(make(ROWS), "multiclass", classes)

    assert names(found) == ["normal", "pneumonia", "mass", "pneumonia with nodule"]
    labels = found.table.labels(classes)
    assert Counter(labels.ravel().tolist()) == {1.0: 4, 0.0: 8}
    assert (labels.sum(axis=1) == 1).all()


def test_images_of_no_class_are_counted_in_notes_and_to_the_watcher(make):
    watch = Listener()

    found = loaded(make(ROWS), "multiclass", ("No Finding", "Pneumonia", "Mass"), watch=watch)

    expected = (
        "1 images have none of the classes and are left out",
        "3 images are not known to have exactly one of the classes and are left out",
    )
    assert found.table.notes == ("read", *expected)
    assert watch.lines[:2] == [f"note: {note}" for note in expected]


def test_loading_what_was_kept_leaves_nothing_more_out(make):
    classes = ("No Finding", "Pneumonia", "Mass")
    once = loaded(make(ROWS), "multiclass", classes)

    again = loaded(once.table, "multiclass", classes)

    assert again.table.notes == once.table.notes
    assert names(again) == names(once)


def test_images_of_two_classes_are_refused_with_the_first_of_them(make):
    with pytest.raises(DataError) as refusal:
        loaded(make(ROWS | TWO), "multiclass", ("Mass", "Nodule", "Pneumonia"))

    for words in (
        "3 images have two or more of the classes Mass, Nodule, Pneumonia",
        "(first: pneumonia with nodule.png has Nodule and Pneumonia)",
        "multiclass takes exactly one",
        "task.kind = 'multilabel'",
    ):
        assert words in str(refusal.value)


def test_classes_that_no_image_has_are_refused(make):
    with pytest.raises(DataError, match="none of 1 images tells anything about Mass, Nodule"):
        loaded(make({"normal": [0, 0, 0]}), "multiclass", ("Mass", "Nodule"))


def test_a_class_that_the_table_lacks_is_refused(make):
    with pytest.raises(UsageError, match="no finding 'Hernia'"):
        loaded(make(ROWS), "multiclass", ("No Finding", "Hernia"))
