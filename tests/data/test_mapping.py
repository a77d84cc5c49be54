import numpy as np
import pytest
from hypothesis import given, strategies as st

from hilum.data.mapping import map_findings
from hilum.data.table import Source, Table, make_frame
from hilum.errors import UsageError


def table(findings, labels):
    labels = np.array(labels, float).reshape(-1, len(findings))
    names = [f"{number}.png" for number in range(len(labels))]
    frame = make_frame(image=names, source="site", patient=names, findings=findings, labels=labels)
    return Table(frame, tuple(findings), (Source("site", ".", "", ""),))


def test_a_finding_of_its_own_is_left_as_it_is():
    there = table(["Mass", "Pneumonia"], [[0, 1], [1, np.nan]])

    mapped = map_findings(there, ("Pneumonia",))

    assert mapped.findings == ("Pneumonia",)
    assert (mapped.origins, mapped.missing, mapped.notes) == ({}, (), ())
    assert mapped.table.findings == there.findings


def test_a_finding_is_made_up_of_its_parts():
    values = [[1, 0], [0, 1], [0, 0], [np.nan, 1], [np.nan, 0], [np.nan, np.nan]]

    mapped = map_findings(table(["Bacterial Pneumonia", "Viral Pneumonia"], values), ("Pneumonia",))

    np.testing.assert_array_equal(mapped.table.labels(["Pneumonia"])[:, 0], [1, 1, 0, 1, np.nan, np.nan])
    np.testing.assert_array_equal(mapped.table.labels(["No Finding"])[:, 0], [0, 0, 1, 0, np.nan, np.nan])
    assert mapped.notes == ("Pneumonia is read from Bacterial Pneumonia and Viral Pneumonia",)


def test_a_part_alone_does_not_make_the_whole():
    with pytest.raises(UsageError, match="no finding is common: the model knows Pneumonia; site knows Viral"):
        map_findings(table(["Viral Pneumonia"], [[1], [0]]), ("Pneumonia",))


def test_names_outside_of_the_vocabulary_may_differ_in_case():
    mapped = map_findings(table(["my_TB"], [[1], [0]]), ("My TB",))

    np.testing.assert_array_equal(mapped.table.labels(["My TB"])[:, 0], [1, 0])
    assert mapped.notes == ("My TB is read from my_TB",)


def test_what_the_table_does_not_know_is_named():
    mapped = map_findings(table(["Mass", "Edema"], [[1, 0]]), ("Hernia", "Edema", "Mass"))

    assert mapped.findings == ("Edema", "Mass")
    assert mapped.missing == ("Hernia",)
    assert mapped.notes == ("not known to this data set, and left out: Hernia (it knows Mass, Edema)",)


def test_classes_are_needed_all():
    there = table(["Mass"], [[1], [0]])

    with pytest.raises(UsageError, match="site lacks Hernia: the model knows No Finding, Mass, Hernia"):
        map_findings(there, ("No Finding", "Mass", "Hernia"), all_needed=True)
    assert map_findings(there, ("No Finding", "Mass"), all_needed=True).findings == ("No Finding", "Mass")
    with pytest.raises(UsageError, match="no finding is common"):
        map_findings(there, ("No Finding", "Hernia"))


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, np.nan])] * 2), min_size=1))
def test_a_whole_is_never_less_than_a_part(rows):
    mapped = map_findings(table(["Nodule", "Mass"], rows), ("Nodule/Mass",))

    whole = mapped.table.labels(["Nodule/Mass"])[:, 0]
    parts = np.array(rows, float)
    assert (whole[(parts == 1).any(axis=1)] == 1).all()
    assert ((whole == 0) == (parts == 0).all(axis=1)).all()
