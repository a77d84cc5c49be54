"""Detection and arguments, class folders, and CSV files; the data sets have files of their own."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hilum.data import readers
from hilum.data.readers import READERS, ColumnMap
from hilum.errors import DataError, LayoutError, UsageError


def put_images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("L", (8, 8)).save(folder / name)


def put_text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def values(table, finding):
    return dict(zip(table.frame["image"], table.frame[finding], strict=True))


# Detection


def test_an_unknown_layout_names_what_is_there_and_every_layout(tmp_path):
    put_images(tmp_path / "pictures", "a.png")
    put_text(tmp_path / "readme.txt", "hello")
    with pytest.raises(LayoutError) as caught:
        readers.read(tmp_path)
    message = str(caught.value)
    assert "folders: pictures; files by ending: .txt 1" in message
    assert "--as NAME" in message
    assert all(name in message for name in READERS)
    assert len(message.splitlines()) <= 6


def test_an_unknown_csv_file_names_its_columns(tmp_path):
    path = put_text(tmp_path / "x.csv", "file,diagnosis", "a.png,Mass")
    with pytest.raises(LayoutError, match="with the columns file, diagnosis"):
        readers.read(path)


def test_several_layouts_ask_for_a_name(tmp_path):
    put_text(tmp_path / "labeled_images.csv", "image_path,label", "00000001_000.png,Mass")
    put_text(tmp_path / "sample_labels.csv", "Image Index,Finding Labels", "00000001_000.png,Mass")
    with pytest.raises(LayoutError, match=r"fits several layouts: nih, labeled\. Choose with --as NAME"):
        readers.read(tmp_path)
    assert len(readers.read(tmp_path, name="labeled")) == 1


def test_what_is_not_there_or_not_known_is_wrong_use(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there is no file or folder"):
        readers.read(tmp_path / "absent")
    with pytest.raises(UsageError, match="there is no folder"):
        readers.read(tmp_path, images=tmp_path / "absent")
    with pytest.raises(DataError, match="is empty"):
        readers.read(tmp_path / "empty")
    with pytest.raises(UsageError, match=r"unknown layout 'kermani'; known are: kermany \(did you mean it"):
        readers.read(tmp_path, name="kermani")


def test_a_file_that_is_no_label_file_is_refused_by_each_reader(tmp_path):
    path = put_text(tmp_path / "x.txt", "hello")
    for name in READERS:
        with pytest.raises((DataError, UsageError)):
            readers.read(path, name=name)


def test_arguments_that_a_layout_cannot_use_are_refused(tmp_path):
    put_images(tmp_path / "Mass", "a.png")
    put_images(tmp_path / "Normal", "b.png")
    with pytest.raises(UsageError, match="--remap changes image paths written in a CSV file"):
        readers.read(tmp_path, remap=("/old", "/new"))
    with pytest.raises(UsageError, match="a column map belongs to the layout csv, not to folders"):
        readers.read(tmp_path, name="folders", columns=ColumnMap(image="image", label="label"))


def test_a_stored_table_is_read_and_its_roots_remapped(tmp_path):
    put_images(tmp_path / "old" / "Mass", "a.png")
    put_images(tmp_path / "old" / "Normal", "b.png")
    readers.read(tmp_path / "old").write(tmp_path / "t.parquet")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = readers.read(tmp_path / "t.parquet", remap=(str(tmp_path / "old"), str(tmp_path / "new")))
    assert len(moved.missing_images()) == 0
    assert len(readers.read(tmp_path / "t.parquet").missing_images()) == 2
    assert len(readers.read(tmp_path / "t.parquet", images=tmp_path / "new").missing_images()) == 0
    with pytest.raises(UsageError, match="begins with /nowhere"):
        readers.read(tmp_path / "t.parquet", remap=("/nowhere", "/new"))
    with pytest.raises(UsageError, match="is a table already"):
        readers.read(tmp_path / "t.parquet", name="nih")


# Class folders


def test_class_folders(tmp_path):
    put_images(tmp_path / "COVID-19", "a.png", "b.JPG", ".hidden.png")
    put_images(tmp_path / "Lung_Opacity", "c.png")
    put_images(tmp_path / "NORMAL", "d.png")
    put_images(tmp_path / "NORMAL" / "masks", "d.png")
    put_images(tmp_path / "__MACOSX" / "NORMAL", "d.png")
    put_text(tmp_path / ".DS_Store", "")
    table = readers.read(tmp_path)
    assert table.findings == ("Lung Opacity", "COVID-19")
    assert values(table, "COVID-19") == {
        "COVID-19/a.png": 1,
        "COVID-19/b.JPG": 1,
        "Lung_Opacity/c.png": 0,
        "NORMAL/d.png": 0,
    }
    assert table.num_patients == 4
    assert "each image counts as its own patient" in " ".join(table.notes)
    assert "each image counts as its own patient" in table.sources[0].terms


def test_class_folders_with_splits(tmp_path):
    for split in ("train", "valid", "TEST"):
        put_images(tmp_path / split / "PNEUMONIA", "a.png")
        put_images(tmp_path / split / "No_Pneumonia", "b.png")
    table = readers.read(tmp_path)
    assert table.findings == ("Pneumonia",)
    assert sorted(zip(table.frame["split"], table.frame["Pneumonia"], strict=True)) == [
        ("test", 0),
        ("test", 1),
        ("train", 0),
        ("train", 1),
        ("val", 0),
        ("val", 1),
    ]


def test_spellings_of_one_class_are_one_finding(tmp_path):
    put_images(tmp_path / "train" / "COVID_19", "a.png")
    put_images(tmp_path / "train" / "NORMAL", "b.png")
    put_images(tmp_path / "test" / "Covid 19 ", "a.png")
    put_images(tmp_path / "test" / "Normal", "b.png")
    put_images(tmp_path / "test" / "Unauff\u00e4llig", "c.png")
    put_images(tmp_path / "train" / "Unauffa\u0308llig", "c.png")
    table = readers.read(tmp_path)
    assert len(table.findings) == 1
    assert table.labels(table.findings).sum() == 2
    assert "'Covid 19 ' and 'COVID_19' are one finding, Covid 19" in table.notes


def test_the_class_taken_as_normal_is_named(tmp_path):
    put_images(tmp_path / "a" / "Gesund", "a.png")
    put_images(tmp_path / "a" / "Lungenentz\u00fcndung", "b.png")
    table = readers.read(tmp_path / "a")
    assert table.findings == ("Lungenentz\u00fcndung",)
    assert table.sources[0].states_no_finding
    assert "Gesund: taken as No Finding, every finding is absent" in table.notes
    put_images(tmp_path / "b" / "Tuberculosis", "a.png")
    put_images(tmp_path / "b" / "Sarcoidosis", "b.png")
    assert any(
        "each of the 2 classes is a finding of its own" in note for note in readers.read(tmp_path / "b").notes
    )


def test_images_beside_masks_are_read_and_masks_are_counted(tmp_path):
    for name in ("COVID", "Normal"):
        put_images(tmp_path / name / "images", "a.png", "b.png")
        put_images(tmp_path / name / "masks", "a.png", "b.png")
    table = readers.read(tmp_path)
    assert table.findings == ("COVID",)
    assert table.frame["image"].tolist() == [
        f"{name}/images/{image}.png" for name in ("COVID", "Normal") for image in "ab"
    ]
    assert "4 left out: images in folders masks inside class folders" in table.notes


def test_images_of_any_suffix_are_read_and_the_others_counted(tmp_path):
    put_images(tmp_path / "Normal", "a.png")
    mass = tmp_path / "Mass"
    put_images(mass, "a.bmp", "b.webp", "c.TIF", "d.png", "e.png", "g.gif")
    (mass / "d.png").rename(mass / "d")
    (mass / "e.png").rename(mass / "1.2.840")
    (mass / "f.JFIF").write_bytes((mass / "d").read_bytes())
    for name in ("readme.txt", "licence.TXT", "NOTES", "Thumbs.db", "desktop.ini", ".DS_Store"):
        put_text(mass / name, "hello")
    table = readers.read(tmp_path)
    assert sorted(table.frame["image"]) == sorted(
        ["Normal/a.png", *(f"Mass/{name}" for name in ("a.bmp", "b.webp", "c.TIF", "d", "1.2.840", "f.JFIF"))]
    )
    assert {note for note in table.notes if "left out" in note} == {
        "1 left out: files that end in .gif",
        "1 left out: files that end in no suffix",
        "2 left out: files that end in .txt",
    }


def test_links_are_followed_and_those_that_lead_nowhere_are_counted(tmp_path):
    put_images(tmp_path / "elsewhere", "a.png")
    put_images(tmp_path / "set" / "Normal", "a.png")
    (tmp_path / "set" / "Mass").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "Normal" / "b.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "set" / "Normal" / "c.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "set" / "Nodule").symlink_to(tmp_path / "gone")
    table = readers.read(tmp_path / "set")
    assert table.frame["image"].tolist() == ["Mass/a.png", "Normal/a.png", "Normal/b.png"]
    assert "2 left out: links that lead nowhere, such as Nodule" in table.notes
    assert len(table.missing_images()) == 0


def test_patients_are_taken_from_the_names_that_tell(tmp_path):
    put_images(tmp_path / "Mass", "00000001_000.png", "00000001_001.png", "x.png")
    put_images(tmp_path / "Normal", "IM-0001-0001.jpeg", "20240101_001.png")
    table = readers.read(tmp_path)
    assert table.frame["patient"].tolist() == [
        *("00000001", "00000001", "Mass/x.png", "Normal/20240101_001.png", "IM-0001")
    ]
    assert any("patients of 3 images are taken from the file names" in note for note in table.notes)


def test_names_that_are_not_utf8_are_left_out_and_named(tmp_path):
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/Thorax\xfc"))
    for name in ("Normal", "Mass", "Nodule\udce4"):
        put_images(root / name, "a.png", "film\udcff.png")
    table = readers.read(root)
    assert table.frame["image"].tolist() == ["Mass/a.png", "Normal/a.png"]
    assert set(table.frame["source"]) == {r"Thorax\xfc"}
    assert r"3 left out: names that are not UTF-8, such as Nodule\xe4" in table.notes
    table.write(tmp_path / "t.parquet")
    assert len(readers.read(tmp_path / "t.parquet").missing_images()) == 0


def test_no_x_says_nothing_of_the_other_classes(tmp_path):
    for name in ("Pneumonia", "No Pneumonia", "Mass"):
        put_images(tmp_path / name, "a.png")
    table = readers.read(tmp_path)
    assert table.findings == ("Mass", "Pneumonia")
    assert values(table, "Pneumonia")["No Pneumonia/a.png"] == 0
    assert np.isnan(values(table, "Mass")["No Pneumonia/a.png"])


@pytest.mark.parametrize("other", ["images_256", "masks"])
def test_folders_of_images_are_no_classes(tmp_path, other):
    put_images(tmp_path / "images", "a.png")
    put_images(tmp_path / other, "a.png")
    with pytest.raises(LayoutError, match="no known layout"):
        readers.read(tmp_path)


def test_one_class_is_not_enough(tmp_path):
    put_images(tmp_path / "Mass", "a.png")
    with pytest.raises(LayoutError, match="at least two"):
        readers.read(tmp_path, name="folders")


# labeled_images.csv


def test_labeled_images(tmp_path):
    put_images(tmp_path / "img", "00000001_000.png", "00000001_001.png", "00000002_000.png")
    put_text(
        tmp_path / "labeled_images.csv",
        "image_path,label",
        "img/00000001_000.png,Pneumonia|Mass",
        f"{tmp_path}/img/00000001_001.png,No Finding",
        "img/00000002_000.png,Pleural_Thickening",
    )
    table = readers.read(tmp_path)
    assert table.findings == ("Mass", "Pneumonia", "Pleural Thickening")
    np.testing.assert_array_equal(table.labels(table.findings), [[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    assert table.frame["patient"].tolist() == ["00000001", "00000001", "00000002"]
    assert table.frame["image"].tolist()[1] == "img/00000001_001.png"
    assert len(table.missing_images()) == 0


def test_paths_of_another_machine_are_remapped(tmp_path):
    put_images(tmp_path / "here", "a.png", "b.png")
    path = put_text(
        tmp_path / "labeled_images.csv",
        "image_path,label",
        "/drive/nih/a.png,Mass",
        "/drive/nih/b.png,No Finding",
    )
    table = readers.read(path, remap=("/drive/nih", str(tmp_path / "here")))
    assert table.frame["image"].tolist() == ["here/a.png", "here/b.png"]
    assert len(table.missing_images()) == 0
    with pytest.raises(UsageError, match="no image path"):
        readers.read(path, remap=("/elsewhere", "/x"))


def test_paths_of_another_machine_are_found_by_name_under_images(tmp_path):
    put_images(tmp_path / "here" / "deep", "a.png")
    path = put_text(
        tmp_path / "labeled_images.csv", "image_path,label", r"C:\nih\a.png,Mass", "/drive/b.png,No Finding"
    )
    table = readers.read(path, images=tmp_path / "here")
    assert table.frame["image"].tolist() == ["deep/a.png"]
    assert "1 of 2 rows have no image under here and were left out" in table.notes
    assert any("by their file names" in note for note in table.notes)


def test_names_that_are_not_unique_are_not_guessed(tmp_path):
    put_images(tmp_path / "here" / "x", "a.png")
    put_images(tmp_path / "here" / "y", "a.png")
    path = put_text(tmp_path / "labeled_images.csv", "image_path,label", "/drive/a.png,Mass")
    with pytest.raises(LayoutError, match="not unique"):
        readers.read(path, images=tmp_path / "here")


def test_labels_without_any_image_are_a_table_of_labels(tmp_path):
    path = put_text(
        tmp_path / "labeled_images.csv", "image_path,label", "/drive/a.png,Mass", "/drive/b.png,Mass"
    )
    (tmp_path / "empty").mkdir()
    table = readers.read(path)
    assert len(table.missing_images()) == 2
    assert any("labels only" in note for note in table.notes)
    with pytest.raises(DataError, match=r"none of the 2 images .* --images, or .* --remap"):
        readers.read(path, images=tmp_path / "empty")


# Any CSV file


def test_a_csv_file_by_a_column_map(tmp_path):
    put_images(tmp_path / "img", "a.png", "b.png", "c.png")
    path = put_text(
        tmp_path / "site.csv",
        "file, pid ,codes,projection,gender,years,part",
        "img/a.png,7,Infiltrate;Mass,pa,female,060Y,training",
        "img/b.png,7,,lateral,x,013M,test",
        "img/c.png,,normal,AP,M,411Y,",
    )
    columns = ColumnMap(
        image="file",
        patient="pid",
        label="codes",
        separator=";",
        view="projection",
        sex="gender",
        age="years",
        split="part",
    )
    table = readers.read(path, columns=columns)
    frame = table.frame
    assert table.findings == ("Infiltration", "Mass")
    np.testing.assert_array_equal(table.labels(table.findings), [[1, 1], [np.nan, np.nan], [0, 0]])
    assert frame["patient"].tolist() == ["7", "7", "img/c.png"]
    assert frame["view"].tolist() == ["PA", "LATERAL", "AP"]
    assert frame["sex"].tolist() == ["F", "", "M"]
    assert frame["split"].tolist() == ["train", "test", ""]
    np.testing.assert_allclose(frame["age"], [60, 13 / 12, np.nan])
    notes = " ".join(table.notes)
    assert "1 cells of 'gender' say none of" in notes
    assert "1 ages above 120 years" in notes
    assert "1 rows name no patient" in notes


def test_a_csv_file_with_one_column_a_finding(tmp_path):
    path = put_text(
        tmp_path / "chexpert_like.csv",
        "image,patient,No Finding,Pleural Effusion,Mass",
        "a.png,1,1.0,,",
        "b.png,1,,-1.0,1",
        "c.png,2,,0,",
    )
    table = readers.read(path)
    assert table.findings == ("Effusion", "Mass")
    np.testing.assert_array_equal(table.labels(table.findings), [[0, 0], [np.nan, 1], [0, np.nan]])
    assert "1 uncertain labels (-1) are taken as unknown" in table.notes


def test_images_in_an_archive_by_a_csv_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("in/a.png", b"x")
    path = put_text(tmp_path / "x.csv", "image,label", "z.zip::in/a.png,Mass")
    assert len(readers.read(path).missing_images()) == 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,label", "b.png,Mass", "a.png,No Finding|Mass"], r"line 3 \(a.png\): .* beside a finding"),
        (["image,Mass", "b.png,1", "a.png,maybe"], r"x.csv, line 3 \(a.png\): .* holds 'maybe'; 1, 0, -1"),
        (["image,label", ",Mass"], "line 2: the column 'image' holds no image path"),
        (["image,label", "a.png,Mass", "./a.png,Mass"], "names a.png twice, in lines 2 and 3"),
        (["image,label"], "has a header but no rows"),
        (["image,label", "a.png,Mass,x,y"], "no CSV file"),
        (["image,label", "a.png,No Finding"], "names no finding"),
        (["image,label", "a.png,Mass;Nodule"], "where ';' joins findings, give --separator ';'"),
        (
            ["image,Mass", "a.png,yes"],
            "name the cell that means present with --positive, beside a column map",
        ),
    ],
)
def test_wrong_csv_files_are_refused(tmp_path, lines, message):
    path = put_text(tmp_path / "x.csv", *lines)
    with pytest.raises(DataError, match=message):
        readers.read(path, name="csv")


def test_findings_that_may_be_joined_otherwise_are_noted(tmp_path):
    path = put_text(tmp_path / "x.csv", "image,label", "a.png,Mass;calcified", "b.png,Nodule/Mass")
    table = readers.read(path, name="csv")
    assert any("'Mass;calcified' are taken for one finding; where ';' joins" in note for note in table.notes)


def test_a_missing_column_names_the_nearest(tmp_path):
    path = put_text(tmp_path / "x.csv", "Image_Path,label,age", "a.png,Mass,3")
    with pytest.raises(DataError, match=r"no column 'image_path'; it has: Image_Path \(did you mean it\?\)"):
        readers.read(path, columns=ColumnMap(image="image_path", label="label"))


def test_a_csv_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"image,label\na\0.png,Mass\n")
    with pytest.raises(DataError, match="bytes that are no text"):
        readers.read(tmp_path / "x.csv", name="csv")


def test_a_column_map_names_either_labels_or_findings(tmp_path):
    path = put_text(tmp_path / "x.csv", "image,label,Mass", "a.png,Mass,1")
    with pytest.raises(UsageError, match="needs the findings: --column label=COLUMN"):
        readers.read(path, columns=ColumnMap(image="image"))
    with pytest.raises(UsageError, match="label=label and --column finding=Mass were both given"):
        readers.read(path, columns=ColumnMap(image="image", label="label", findings=("Mass",)))


@pytest.mark.parametrize(
    ("header", "rows", "stated"),
    [
        ("image,label", ("1.png,Normal", "2.png,Mass"), True),
        ("image,label", ("1.png,No Mass", "2.png,Mass"), False),
        ("image,Mass", ("1.png,0", "2.png,1"), False),
        ("image,Mass,No Finding", ("1.png,0,1", "2.png,1,0"), True),
        ("image,Mass,No Finding", ("1.png,0,1", "2.png,0,0"), False),
    ],
)
def test_a_source_states_no_finding_where_each_image_without_any_is_called_so(tmp_path, header, rows, stated):
    (tmp_path / "labels.csv").write_text("\n".join((header, *rows)))

    assert readers.read(tmp_path / "labels.csv").sources[0].states_no_finding is stated
