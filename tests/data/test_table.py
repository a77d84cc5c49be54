import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from hilum.data.table import BOX_COLUMNS, COLUMNS, FORMAT, Source, Table, make_frame
from hilum.errors import DataError, UsageError

FINDINGS = ("Pneumonia", "Mass")


def table(root, images=("a.png", "sub/b.png", "c.zip::in/c.png"), **changes):
    parts = {
        "frame": make_frame(
            image=list(images),
            source="here",
            patient=[f"p{row % 2}" for row in range(len(images))],
            age=[30.5, np.nan, 4.0][: len(images)],
            view="PA",
            findings=FINDINGS,
            labels=[[1, 0], [np.nan, 1], [0, 0]][: len(images)],
        ),
        "findings": FINDINGS,
        "sources": (Source("here", root, "cite", "terms"),),
        "boxes": boxes(("a.png", "Pneumonia", 0.1, 0.2, 0.3, 0.4)),
        "notes": ("a note",),
    }
    return Table(**{**parts, **changes})


def boxes(*rows):
    return pd.DataFrame(rows, columns=list(BOX_COLUMNS))


def test_what_is_written_is_read(tmp_path):
    written = table(tmp_path)
    written.write(tmp_path / "t.parquet")
    read = Table.read(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read.frame, written.frame)
    pd.testing.assert_frame_equal(read.boxes, written.boxes, check_dtype=False)
    assert (read.findings, read.sources, read.notes) == (written.findings, written.sources, written.notes)


def test_the_file_is_plain_parquet_with_its_facts_in_the_schema(tmp_path):
    table(tmp_path).write(tmp_path / "t.parquet")
    schema = pq.read_schema(tmp_path / "t.parquet")
    facts = json.loads(schema.metadata[b"hilum"])
    assert schema.names == [*COLUMNS, *FINDINGS]
    assert facts["format"] == FORMAT
    assert facts["findings"] == list(FINDINGS)
    assert facts["sources"] == [
        {"name": "here", "root": tmp_path.as_posix(), "citation": "cite", "terms": "terms"}
    ]


def test_an_unknown_format_number_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    table(tmp_path).write(path)
    stored = pq.read_table(path)
    facts = json.loads(stored.schema.metadata[b"hilum"]) | {"format": 99}
    pq.write_table(stored.replace_schema_metadata({b"hilum": json.dumps(facts).encode()}), path)
    with pytest.raises(DataError, match="format 99; this Hilum reads format 1"):
        Table.read(path)


def test_foreign_damaged_and_absent_files_are_refused(tmp_path):
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "foreign.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="no table of Hilum"):
        Table.read(tmp_path / "foreign.parquet")
    with pytest.raises(DataError, match="no whole Parquet file"):
        Table.read(tmp_path / "damaged.parquet")
    with pytest.raises(UsageError, match="there is no table"):
        Table.read(tmp_path / "absent.parquet")
    with pytest.raises(UsageError, match=r"must end in \.parquet"):
        table(tmp_path).write(tmp_path / "t.csv")


def test_boxes_of_another_table_are_refused(tmp_path):
    table(tmp_path).write(tmp_path / "t.parquet")
    table(tmp_path, boxes=boxes(("a.png", "Mass", 0.0, 0.0, 1.0, 1.0))).write(tmp_path / "other.parquet")
    (tmp_path / "other.boxes.parquet").replace(tmp_path / "t.boxes.parquet")
    with pytest.raises(DataError, match="does not belong"):
        Table.read(tmp_path / "t.parquet")
    (tmp_path / "t.boxes.parquet").unlink()
    with pytest.raises(DataError, match="are missing"):
        Table.read(tmp_path / "t.parquet")


def test_a_table_without_boxes_leaves_none_of_an_older_one(tmp_path):
    table(tmp_path).write(tmp_path / "t.parquet")
    table(tmp_path, boxes=boxes().astype({"x": float})).write(tmp_path / "t.parquet")
    assert not (tmp_path / "t.boxes.parquet").exists()
    assert len(Table.read(tmp_path / "t.parquet").boxes) == 0


def test_images_are_found_in_folders_and_archives(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").touch()
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("in/c.png", b"x")
    made = table(tmp_path)
    assert made.missing_images().tolist() == [1]
    assert str(made.location(0)) == str(tmp_path / "a.png")
    assert made.location(2).path == tmp_path / "c.zip"
    assert made.location(2).member == "in/c.png"


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "c.zip").write_bytes(b"PK half")
    with pytest.raises(DataError, match=r"c\.zip is no whole ZIP archive"):
        table(tmp_path).missing_images()


def test_reading_can_point_to_another_folder_of_images(tmp_path):
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "a.png").touch()
    (tmp_path / "empty").mkdir()
    path = tmp_path / "t.parquet"
    table(tmp_path / "gone").write(path)
    assert Table.read(path, images=tmp_path / "moved").missing_images().tolist() == [1, 2]
    with pytest.raises(DataError, match="none of the table's 3 images"):
        Table.read(path, images=tmp_path / "empty")
    with pytest.raises(UsageError, match="there is no folder"):
        Table.read(path, images=tmp_path / "absent")


def test_one_folder_cannot_serve_two_sources(tmp_path):
    two = table(tmp_path)
    two = replace(two, sources=(*two.sources, Source("there", tmp_path, "", "")))
    two.write(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="several sources"):
        Table.read(tmp_path / "t.parquet", images=tmp_path)


def test_labels_take_any_spelling_and_refuse_the_unknown(tmp_path):
    labels = table(tmp_path).labels(["MASS", "pneumonia"])
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, [[0, 1], [1, np.nan], [0, 0]])
    with pytest.raises(UsageError, match="no finding 'Hernia'"):
        table(tmp_path).labels(["Hernia"])


@given(
    arrays(
        np.float64, st.tuples(st.integers(1, 6), st.integers(1, 3)), elements=st.sampled_from([0, 1, np.nan])
    )
)
def test_no_finding_is_derived_from_all_findings(values):
    findings = ("Pneumonia", "Mass", "Nodule")[: values.shape[1]]
    names = [f"{row}.png" for row in range(len(values))]
    frame = make_frame(image=names, source="here", patient=names, findings=findings, labels=values)
    made = Table(frame, findings, (Source("here", Path("/images"), "", ""),))

    derived = made.labels(["Normal", findings[0]])

    expected = [0 if 1 in row else 1 if set(row) == {0} else np.nan for row in values.tolist()]
    np.testing.assert_array_equal(derived[:, 0], expected)
    np.testing.assert_array_equal(derived[:, 1], values[:, 0])
    assert made.findings == findings


def test_a_table_without_findings_knows_of_no_absence():
    frame = make_frame(image=["a.png"], source="here", patient=["p"], findings=(), labels=np.zeros((1, 0)))

    labels = Table(frame, (), (Source("here", Path("/images"), "", ""),)).labels(["No Finding"])

    assert np.isnan(labels).all()


def test_selecting_takes_boxes_and_sources_along(tmp_path):
    made = table(tmp_path)
    chosen = made.select(np.array([False, True, True]))
    assert chosen.frame["image"].tolist() == ["sub/b.png", "c.zip::in/c.png"]
    assert len(chosen.boxes) == 0
    assert len(made.select(np.array([True, False, False])).boxes) == 1
    assert made.select(np.zeros(3, bool)).sources == ()
    with pytest.raises(DataError, match="one a row"):
        made.select(np.array([0, 1, 1]))


def test_the_split_can_be_replaced(tmp_path):
    made = table(tmp_path)
    assert made.with_split(["test", "", "val"]).frame["split"].tolist() == ["test", "", "val"]
    assert made.frame["split"].tolist() == ["", "", ""]
    with pytest.raises(DataError, match="2 splits arrived for a table of 3 rows"):
        made.with_split(["test", "val"])


def test_later_changes_of_the_callers_frame_do_not_reach_the_table(tmp_path):
    frame = table(tmp_path).frame.copy()
    made = table(tmp_path, frame=frame)
    frame.loc[0, "Pneumonia"] = 7.0
    assert made.frame["Pneumonia"].iloc[0] == 1


def test_patients_are_counted_within_sources(tmp_path):
    frame = table(tmp_path).frame.assign(source=["here", "there", "there"], patient="1")
    sources = (Source("here", tmp_path, "", ""), Source("there", tmp_path, "", ""))
    assert table(tmp_path, frame=frame, sources=sources).num_patients == 2


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("image", ["a.png", "a.png", "b.png"], "twice"),
        ("image", ["../a.png", "b.png", "c.png"], "inside its root"),
        ("image", ["/a.png", "b.png", "c.png"], "inside its root"),
        ("image", ["z.zip::../a.png", "b.png", "c.png"], "inside its root"),
        ("image", ["a.png", "", "c.png"], r"in 1 of 3 rows \(the first is row 1\) image is empty"),
        ("patient", ["p", "", "q"], "patient is empty"),
        ("patient", [1, 2, 3], "column 'patient' holds int64"),
        ("source", ["here", "elsewhere", "here"], "rows come from 'elsewhere'"),
        ("split", ["train", "dev", ""], "split is none of train, val, test"),
        ("view", ["PA", "pa", ""], "view is none of"),
        ("sex", ["F", "female", ""], "sex is none of"),
        ("age", [5.0, -1.0, np.nan], "age is not between"),
        ("age", [5, 1, 2], "column 'age' holds int64"),
        ("width", [1, -1, 0], "width is negative"),
        ("width", [1.0, 2.0, 3.0], "column 'width' holds float64"),
        ("Mass", [0.0, 0.5, 1.0], "Mass is none of 0, 1 and NaN"),
        ("Mass", [0.0, -1.0, 1.0], "Mass is none of 0, 1 and NaN"),
        ("Mass", [True, False, True], "column 'Mass' holds bool"),
    ],
)
def test_wrong_values_are_refused(tmp_path, column, values, message):
    frame = table(tmp_path).frame.assign(**{column: values})
    with pytest.raises(DataError, match=message):
        table(tmp_path, frame=frame, boxes=boxes().astype({"x": float}))


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        (("Pneumonia", "Pleural_Thickening"), "is called 'Pleural Thickening' here"),
        (("Pneumonia", "No Finding"), "cannot be a finding"),
        (("Pneumonia", "Pneumonia"), "listed twice"),
        (("Pneumonia", "Hernia"), "missing: Hernia; not expected: Mass"),
    ],
)
def test_wrong_findings_are_refused(tmp_path, findings, message):
    with pytest.raises(DataError, match=message):
        table(tmp_path, findings=findings)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (("z.png", "Mass", 0.0, 0.0, 1.0, 1.0), "not in the table"),
        (("a.png", "Hernia", 0.0, 0.0, 1.0, 1.0), "not in the table"),
        (("a.png", "Mass", 0.5, 0.0, 0.6, 1.0), "outside the image"),
        (("a.png", "Mass", 0.5, 0.0, 0.0, 1.0), "is empty"),
        (("a.png", "Mass", np.nan, 0.0, 0.1, 1.0), "outside the image"),
        (("a.png", "Mass", 10, 20, 30, 40), "float64 fractions"),
    ],
)
def test_wrong_boxes_are_refused(tmp_path, box, message):
    with pytest.raises(DataError, match=message):
        table(tmp_path, boxes=boxes(box))


def test_a_box_of_an_image_that_is_in_two_sources_is_refused(tmp_path):
    frame = table(tmp_path).frame.assign(image="a.png", source=["here", "there", "third"])
    sources = tuple(Source(name, tmp_path, "", "") for name in ("here", "there", "third"))
    with pytest.raises(DataError, match="two sources"):
        table(tmp_path, frame=frame, sources=sources)


def test_rows_are_numbered_from_0(tmp_path):
    frame = table(tmp_path).frame
    with pytest.raises(DataError, match="reset_index"):
        table(tmp_path, frame=frame[::-1])


def test_a_roots_way_back_is_taken_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Source("s", "sub/../images", "", "").root == tmp_path / "images"


def test_the_same_number_in_two_sources_is_two_patients(tmp_path):
    frames = [
        make_frame(image=[f"{source}.png"], source=source, patient=["1"], findings=["Mass"], labels=[[1]])
        for source in ("a", "b")
    ]
    sources = tuple(Source(name=name, root=tmp_path, citation="", terms="") for name in ("a", "b"))
    table = Table(frame=pd.concat(frames, ignore_index=True), findings=("Mass",), sources=sources)

    assert table.patient_keys.tolist() == ["a:1", "b:1"]
    assert table.num_patients == 2
