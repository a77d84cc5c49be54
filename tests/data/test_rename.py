"""Findings get other names, and what gets one name becomes one."""

from pathlib import Path

import numpy as np
import pytest

from hilum.data.rename import rename
from hilum.data.table import Source, Table, make_frame
from hilum.errors import UsageError


def make(labels, findings):
    names = [f"{row}.png" for row in range(len(labels))]
    frame = make_frame(image=names, source="s", patient=names, findings=findings, labels=labels)
    return Table(frame, findings, (Source("s", Path(), citation="", terms=""),))


def test_a_finding_gets_another_name_and_the_others_keep_theirs():
    table = rename(make([[1, 0], [0, np.nan]], ("Rundherd", "Stauung")), {"rundherd": "Nodule"})
    assert table.findings == ("Nodule", "Stauung")
    assert np.array_equal(table.labels(["Nodule", "Stauung"]), [[1, 0], [0, np.nan]], equal_nan=True)
    assert table.notes == ("renamed: Rundherd to Nodule",)


@pytest.mark.parametrize(
    ("pair", "joined"),
    [([1, 0], 1), ([np.nan, 1], 1), ([0, 0], 0), ([0, np.nan], np.nan), ([np.nan] * 2, np.nan)],
)
def test_findings_of_one_name_become_one(pair, joined):
    table = rename(make([pair], ("TB", "Tbc")), {"TB": "Tuberculosis", "Tbc": "Tuberculosis"})
    assert table.findings == ("Tuberculosis",)
    assert np.array_equal(table.labels(["Tuberculosis"]), [[joined]], equal_nan=True)


def test_what_is_called_no_finding_is_the_absence_of_the_others():
    table = rename(make([[1, np.nan], [0, 1]], ("Ruhig", "Stauung")), {"Ruhig": "No Finding"})
    assert table.findings == ("Stauung",)
    assert table.labels(["Stauung", "No Finding"]).tolist() == [[0, 1], [1, 0]]
    assert table.sources[0].states_no_finding


def test_boxes_follow():
    table = make([[1.0]], ("Rundherd",))
    boxes = table.boxes.reindex([0]).assign(
        image="0.png", finding="Rundherd", x=0.1, y=0.1, width=0.2, height=0.2
    )
    boxed = Table(table.frame, table.findings, table.sources, boxes)
    assert rename(boxed, {"Rundherd": "Nodule"}).boxes["finding"].tolist() == ["Nodule"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"Rundhert": "Nodule"}, r"no such finding; it has: Rundherd \(did you mean it"),
        ({"Rundherd": " "}, "a new name is expected"),
        ({"Rundherd": "Normal"}, "no finding is left"),
        ({"Rundherd": "view"}, "cannot be called 'view'"),
    ],
)
def test_what_cannot_be_renamed_is_refused(names, told):
    with pytest.raises(Exception, match=told) as refused:
        rename(make([[1.0]], ("Rundherd",)), names)
    assert isinstance(refused.value, UsageError) or "view" in told
