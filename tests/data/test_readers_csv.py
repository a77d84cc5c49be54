"""CSV files without a column map, and what stands in their cells."""

import numpy as np
import pandas as pd
import pytest

from hilum.data import readers
from hilum.data.readers.base import parse_views
from hilum.data.readers.csv_map import parse_columns
from hilum.data.readers.joined_labels import kinds
from hilum.errors import DataError, LayoutError, UsageError


def put(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def cells(table, *findings):
    return table.labels(findings or table.findings).tolist()


# Columns


def test_plain_columns_need_no_map_and_are_told(tmp_path):
    path = put(
        tmp_path / "x.csv",
        "Dateiname;pid;Rundherd größe;Erguss;Alter;Größe cm",
        "a.png;p0;1;0;45,5;170",
        "b.png;p1;0;;50;2",
    )

    table = readers.read(path)

    np.testing.assert_array_equal(cells(table, "Rundherd größe", "Erguss"), [[1, 0], [0, np.nan]])
    assert table.findings == ("Rundherd größe", "Erguss")
    assert table.frame["patient"].tolist() == ["p0", "p1"]
    assert table.frame["age"].tolist() == [45.5, 50]
    assert "image from 'Dateiname', patient from 'pid', age from 'Alter'" in table.notes[0]
    assert "findings from Rundherd größe, Erguss; left out: Größe cm" in table.notes[0]


def test_columns_that_are_no_findings_are_left_out(tmp_path):
    path = put(tmp_path / "x.csv", ",file,id,male,quality,Fracture", "0,a.png,0,1,3,1", "1,b.png,1,0,1,0")

    table = readers.read(path)

    assert table.findings == ("Fracture",)
    assert "left out: a column without a name, id, male, quality;" in table.notes[0]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,path,Mass", "its images are in 'file' or 'path'"),
        ("image,label,Erguss", "holds findings twice, joined in 'label' and in columns of their own"),
        ("image,Label,labels", "its labels are in 'Label' or 'labels'"),
    ],
)
def test_columns_that_may_mean_two_things_are_asked_for(tmp_path, header, message):
    with pytest.raises(LayoutError, match=message):
        readers.read(put(tmp_path / "x.csv", header, "a,b,1", "c,d,0"))


def test_two_columns_of_one_finding_are_refused(tmp_path):
    with pytest.raises(DataError, match="'Effusion' and 'Pleural Effusion' both mean Effusion"):
        readers.read(put(tmp_path / "x.csv", "image,Effusion,Pleural Effusion", "a.png,1,0"))
    with pytest.raises(DataError, match="2 columns named 'Mass'"):
        readers.read(put(tmp_path / "y.csv", "image,Mass,Mass", "a.png,1,0"))


def test_nih_labels_beside_those_of_radiologists_are_ambiguous(tmp_path):
    path = put(
        tmp_path / "x.csv",
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,Fracture",
        "00000001_000.png,Mass,0,1,57,M,PA,YES",
        "00000002_000.png,No Finding,0,1,57,M,PA,NO",
    )

    with pytest.raises(
        LayoutError, match=r"joined in 'Finding Labels' and in columns of their own \(Fracture\)"
    ):
        readers.read(path)
    chosen = parse_columns(["image=Image Index", "finding=Fracture"], positive=["yes"])
    assert readers.read(path, columns=chosen).findings == ("Fracture",)
    assert "Mass" in readers.read(path, name="nih").findings


# Labels


def test_a_label_of_numbers_is_asked_for_and_may_be_named(tmp_path):
    path = put(tmp_path / "x.csv", "file,label", "a.png,1", "b.png,0", "c.png,nan")

    with pytest.raises(UsageError, match="'image=file' --column 'finding:Pneumonia=label'"):
        readers.read(path)
    table = readers.read(path, columns=parse_columns(["image=file", "finding:Pneumonia=label"]))
    np.testing.assert_array_equal(cells(table, "Pneumonia"), [[1], [0], [np.nan]])


def test_numbers_of_classes_are_no_findings(tmp_path):
    with pytest.raises(UsageError, match="holds the numbers 0, 1, 2"):
        readers.read(put(tmp_path / "x.csv", "image,label", "a.png,1", "b.png,0", "c.png,2"))


@pytest.mark.parametrize("word", ["", "nan", "None", "NA", "todo", "Unknown"])
def test_cells_that_are_no_label_are_unknown(tmp_path, word):
    joined = readers.read(put(tmp_path / "x.csv", "image,label", "a.png,Mass", f"b.png,{word}"))
    column = readers.read(put(tmp_path / "y.csv", "image,Mass,pid", "a.png,1,7", f"b.png,{word},{word}"))

    for table in (joined, column):
        np.testing.assert_array_equal(cells(table, "Mass"), [[1], [np.nan]])
        assert any(f"say {word}" in note for note in table.notes) is bool(word)
    assert column.frame["patient"].tolist() == ["7", "b.png"]


def test_what_stands_beside_no_label_is_all_that_is_known(tmp_path):
    table = readers.read(put(tmp_path / "x.csv", "image,label", "a.png,Mass|Unknown", "b.png,Edema"))

    np.testing.assert_array_equal(cells(table, "Mass", "Edema"), [[1, np.nan], [0, 1]])


def test_lists_as_python_writes_them_are_read(tmp_path):
    path = put(
        tmp_path / "x.csv",
        "image,label",
        "a.png,\"['Pneumonia', 'Effusion']\"",
        "b.png,['No Finding']",
        "c.png,[]",
    )

    np.testing.assert_array_equal(
        cells(readers.read(path), "Pneumonia", "Effusion"), [[1, 1], [0, 0], [np.nan, np.nan]]
    )


def test_a_slash_leads_to_kinds_which_are_their_parents_too(tmp_path):
    path = put(
        tmp_path / "x.csv",
        "image,label",
        *(
            "a.png,Pneumonia/Viral/COVID-19",
            "b.png,Pneumonia/Viral/SARS",
            "c.png,Pneumonia",
            "d.png,No Finding",
        ),
    )

    table = readers.read(path)

    known = cells(table, "Pneumonia", "Pneumonia/Viral", "Pneumonia/Viral/COVID-19")
    np.testing.assert_array_equal(known, [[1, 1, 1], [1, 1, 0], [1, np.nan, np.nan], [0, 0, 0]])
    assert any(
        "Pneumonia/Viral/COVID-19 implies Pneumonia and Pneumonia/Viral" in note for note in table.notes
    )


def test_a_slash_between_findings_of_their_own_means_or():
    assert kinds({"Nodule/Mass", "Mass/Edema", "Mass", "Edema"}) == {}


def test_true_and_false_are_numbers(tmp_path):
    table = readers.read(put(tmp_path / "x.csv", "image,Mass", "a.png,True", "b.png,False"))

    assert cells(table, "Mass") == [[1], [0]]


# Views and paths


@pytest.mark.parametrize(
    ("text", "view"),
    [
        *(("AP Supine", "AP"), ("AP ERECT", "AP"), ("PA standing", "PA"), ("Lateral left", "LATERAL")),
        *(
            ("RL", "LATERAL"),
            ("LL", "LATERAL"),
            ("a.-p.", "AP"),
            ("postero-anterior", "PA"),
            ("AP_horizontal", "AP"),
        ),
        *(("AP/PA", ""), ("PA LLD", ""), ("left", ""), ("oblique", ""), ("", "")),
    ],
)
def test_views_are_read_in_their_usual_spellings(text, view):
    assert parse_views(pd.Series([text], dtype=object), column="view")[0].tolist() == [view]


@pytest.mark.parametrize("remap", [("C:\\site\\images", "images"), ("C:/site/", "")])
def test_paths_of_windows_are_remapped_in_either_form(tmp_path, remap):
    path = put(
        tmp_path / "x.csv",
        "image,label",
        "C:\\site\\images\\n\\a.png,Mass",
        "C:\\site\\images\\p\\a.png,Mass",
    )

    table = readers.read(path, remap=remap)

    assert table.frame["image"].tolist() == ["images/n/a.png", "images/p/a.png"]


def test_paths_of_windows_are_read_where_they_are_relative_or_their_names_are_unique(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"x")

    for written in ("images\\a.png", "D:\\elsewhere\\a.png"):
        table = readers.read(put(tmp_path / "x.csv", "image,label", f"{written},Mass"))
        assert table.frame["image"].tolist() == ["images/a.png"]
        assert len(table.missing_images()) == 0
        assert any("paths are Windows'" in note for note in table.notes)


def test_paths_of_windows_that_names_do_not_tell_apart_ask_for_a_remap(tmp_path):
    path = put(tmp_path / "x.csv", "image,label", "C:\\n\\a.png,Mass", "C:\\p\\a.png,Mass")

    with pytest.raises(LayoutError, match="--remap OLD=NEW"):
        readers.read(path)
