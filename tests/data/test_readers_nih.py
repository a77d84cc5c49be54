import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from hilum import images
from hilum.data import readers
from hilum.errors import DataError, LayoutError
from hilum.recipe.findings import NIH_FINDINGS

HEADER_2020 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
HEADER_2017 = HEADER_2020 + ","
HEADER_SAMPLE = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y"
)
ROWS = (
    "00000001_000.png,Cardiomegaly|Pleural_Thickening,0,1,58,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,No Finding,1,1,59,M,AP,2894,2729,0.143,0.143",
    "00000002_000.png,Infiltration,0,2,81,F,PA,2500,2048,0.171,0.171",
)
SAMPLE_ROWS = (
    "00000013_005.png,Emphysema|Infiltration,005,00000013,060Y,M,AP,3056,2544,0.139,0.139",
    "00000014_000.png,No Finding,000,00000014,013M,F,PA,3056,2544,0.139,0.139",
    "00000015_000.png,No Finding,000,00000015,001D,F,PA,3056,2544,0.139,0.139",
    "00000016_000.png,Hernia,000,00000016,411Y,F,PA,3056,2544,0.139,0.139",
)
NAMES = ("00000001_000.png", "00000001_001.png", "00000002_000.png")
BOXES = (
    "Image Index,Finding Label,Bbox [x,y,w,h],,,",
    "00000002_000.png,Infiltrate,256,512,128,64.0",
    "00099999_000.png,Mass,1,1,1,1",
)


def put_text(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def put_images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("L", (8, 8)).save(folder / name)


def put_zip(path, *members):
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, b"x")


def put_tar(path, *members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            content = io.BytesIO()
            Image.new("L", (40, 40)).save(content, "PNG")
            info = tarfile.TarInfo(member)
            info.size = content.tell()
            content.seek(0)
            archive.addfile(info, content)


def put_csv_2020(root):
    root.mkdir(exist_ok=True)
    return put_text(root / "Data_Entry_2017_v2020.csv", HEADER_2020, *ROWS)


def check_rows(table):
    frame = table.frame
    assert table.findings == NIH_FINDINGS
    np.testing.assert_array_equal(
        table.labels(["Cardiomegaly", "Pleural Thickening", "Infiltration", "Pneumonia"]),
        [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]],
    )
    assert frame["patient"].tolist() == ["00000001", "00000001", "00000002"]
    assert frame["study"].tolist() == ["00000001_000", "00000001_001", "00000002_000"]
    assert frame["age"].tolist() == [58, 59, 81]
    assert frame["sex"].tolist() == ["M", "M", "F"]
    assert frame["view"].tolist() == ["PA", "AP", "PA"]
    assert frame["width"].tolist() == [2682, 2894, 2500]
    assert frame["height"].tolist() == [2749, 2729, 2048]


def test_the_release_of_2020_alone_is_a_table_of_labels(tmp_path):
    table = readers.read(put_csv_2020(tmp_path))
    check_rows(table)
    assert table.frame["image"].tolist() == list(NAMES)
    assert len(table.missing_images()) == 3
    assert "Wang X" in table.sources[0].citation


@pytest.mark.parametrize("name", ["Data_Entry_2017.csv", "Data_entry_2017.csv"])
def test_the_release_of_2017_has_a_trailing_comma(tmp_path, name):
    path = put_text(tmp_path / name, HEADER_2017, *(f"{row}," for row in ROWS))
    check_rows(readers.read(path))
    check_rows(readers.read(tmp_path))


def test_the_sample_has_other_columns_and_ages(tmp_path):
    table = readers.read(put_text(tmp_path / "sample_labels.csv", HEADER_SAMPLE, *SAMPLE_ROWS))
    np.testing.assert_allclose(table.frame["age"], [60, 13 / 12, 1 / 365.25, np.nan])
    assert table.frame["patient"].tolist()[0] == "00000013"
    assert table.frame["study"].tolist()[0] == "00000013_005"
    assert table.frame["width"].tolist()[0] == 3056
    assert "1 ages above 120 years are taken as unknown" in table.notes


def test_the_newest_label_file_is_preferred_and_the_others_are_named(tmp_path):
    put_csv_2020(tmp_path)
    put_text(tmp_path / "sample_labels.csv", HEADER_SAMPLE, *SAMPLE_ROWS)
    put_text(tmp_path / "Data_Entry_2017.csv", HEADER_2017)
    table = readers.read(tmp_path)
    assert len(table) == 3
    assert table.notes[0] == (
        "labels are read from Data_Entry_2017_v2020.csv, not from Data_Entry_2017.csv and sample_labels.csv"
    )


def test_images_lie_in_numbered_folders_archives_and_flat(tmp_path):
    put_csv_2020(tmp_path)
    put_images(tmp_path / "images_001" / "images", NAMES[0])
    put_zip(tmp_path / "images_002.zip", f"images/{NAMES[1]}", f"__MACOSX/images/._{NAMES[1]}")
    put_images(tmp_path, NAMES[2])
    table = readers.read(tmp_path)
    assert table.frame["image"].tolist() == [
        "images_001/images/00000001_000.png",
        "images_002.zip::images/00000001_001.png",
        "00000002_000.png",
    ]
    assert len(table.missing_images()) == 0
    assert table.location(1).member == "images/00000001_001.png"


def test_the_archives_of_the_download_are_read_in_place(tmp_path):
    put_csv_2020(tmp_path)
    put_tar(tmp_path / "images" / "images_001.tar.gz", *(f"images/{name}" for name in NAMES[:2]))
    put_tar(tmp_path / "images" / "images_002.tar.gz", f"images/{NAMES[2]}", f"../{NAMES[2]}")
    for source in (tmp_path, tmp_path / "images"):
        table = readers.read(source)
        check_rows(table)
        assert len(table.missing_images()) == 0
        assert all(images.prepare(table.location(row), 32).pixels.shape == (32, 32) for row in range(3))


def test_an_unpacked_image_is_preferred_to_the_archive_beside_it(tmp_path):
    put_csv_2020(tmp_path)
    put_images(tmp_path / "images_001" / "images", *NAMES)
    put_zip(tmp_path / "images_001.zip", *(f"images/{name}" for name in NAMES))
    assert readers.read(tmp_path).frame["image"].str.startswith("images_001/").all()


def test_rows_without_an_image_are_left_out_and_counted(tmp_path):
    put_csv_2020(tmp_path)
    put_images(tmp_path / "images", NAMES[2])
    put_text(tmp_path / "BBox_List_2017.csv", *BOXES)
    table = readers.read(tmp_path)
    assert table.frame["image"].tolist() == ["images/00000002_000.png"]
    assert f"2 of 3 rows have no image under {tmp_path.name} and were left out" in table.notes


def test_two_folders_of_the_same_names_ask_for_a_choice(tmp_path):
    path = put_csv_2020(tmp_path)
    put_images(tmp_path / "images", NAMES[0])
    put_images(tmp_path / "images_256", *NAMES)
    with pytest.raises(LayoutError, match=r"images_256 \(3\), images \(1\). Choose one with --images"):
        readers.read(tmp_path)
    for source in (tmp_path, path):
        table = readers.read(source, images=tmp_path / "images_256")
        assert table.sources[0].root == tmp_path / "images_256"
        assert table.frame["image"].tolist() == list(NAMES)


def test_a_folder_of_images_finds_the_labels_above_it(tmp_path):
    put_csv_2020(tmp_path)
    put_images(tmp_path / "images_256", *NAMES[:2])
    put_images(tmp_path / "other", "x.png")
    assert len(readers.read(tmp_path / "images_256")) == 2
    with pytest.raises(LayoutError, match="no known layout"):
        readers.read(tmp_path / "other")


def test_a_folder_without_images_is_a_table_of_labels_unless_images_were_asked_for(tmp_path):
    put_csv_2020(tmp_path)
    (tmp_path / "empty").mkdir()
    table = readers.read(tmp_path)
    assert len(table) == 3
    assert any("labels only" in note for note in table.notes)
    with pytest.raises(DataError, match="none of the 3 images"):
        readers.read(tmp_path, images=tmp_path / "empty")


def test_boxes_become_fractions_of_the_image_in_the_table(tmp_path):
    put_csv_2020(tmp_path)
    put_zip(tmp_path / "images_001.zip", *(f"images/{name}" for name in NAMES))
    put_text(tmp_path / "BBox_List_2017.csv", *BOXES)
    boxes = readers.read(tmp_path).boxes
    assert boxes.to_numpy().tolist() == [
        ["images_001.zip::images/00000002_000.png", "Infiltration", 0.25, 0.5, 0.125, 0.0625]
    ]


def test_official_lists(tmp_path):
    path = put_csv_2020(tmp_path)
    put_text(tmp_path / "train_val_list.txt", NAMES[0])
    put_text(tmp_path / "test_list.txt", NAMES[2], "00099999_000.png")
    table = readers.read(path)
    assert table.frame["split"].tolist() == ["train", "", "test"]
    assert "1 images are in neither official list" in table.notes


def test_a_damaged_archive_is_named(tmp_path):
    put_csv_2020(tmp_path)
    (tmp_path / "images_001.zip").write_bytes(b"PK, half")
    with pytest.raises(DataError, match=r"images_001\.zip is no whole ZIP archive"):
        readers.read(tmp_path)


def test_a_missing_column_and_an_unknown_label_are_named(tmp_path):
    path = put_text(tmp_path / "sample_labels.csv", "Image Index,Finding Labels,Patient", "a.png,Mass,1")
    with pytest.raises(DataError, match="no column 'Follow-up #'"):
        readers.read(path)
    put_text(path, HEADER_2020, ROWS[0].replace("Cardiomegaly", "Kardiomegaly"))
    with pytest.raises(DataError, match=r"unknown label 'Kardiomegaly'; known are: Cardiomegaly \(did you"):
        readers.read(path)


def test_a_link_back_up_does_not_read_twice(tmp_path):
    put_csv_2020(tmp_path)
    put_images(tmp_path / "images", *NAMES)
    (tmp_path / "images" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert len(readers.read(tmp_path)) == 3


@pytest.mark.real
def test_the_real_label_file(shared_data):
    table = readers.read(shared_data / "nih" / "Data_Entry_2017_v2020.csv")
    frame = table.frame
    assert len(table) == 112_120
    assert table.num_patients == 30_805
    assert dict(zip(NIH_FINDINGS, table.labels(NIH_FINDINGS).sum(axis=0).astype(int), strict=True)) == {
        "Atelectasis": 11559,
        "Cardiomegaly": 2776,
        "Effusion": 13317,
        "Infiltration": 19894,
        "Mass": 5782,
        "Nodule": 6331,
        "Pneumonia": 1431,
        "Pneumothorax": 5302,
        "Consolidation": 4667,
        "Edema": 2303,
        "Emphysema": 2516,
        "Fibrosis": 1686,
        "Pleural Thickening": 3385,
        "Hernia": 227,
    }
    assert frame["view"].value_counts().to_dict() == {"PA": 67310, "AP": 44810}
    assert frame["split"].value_counts().to_dict() == {"train": 86524, "test": 25596}
    assert (frame.groupby("patient")["split"].nunique() == 1).all()
    assert frame["age"].max() == 95
    assert frame["age"].notna().all()
    assert len(table.boxes) == 984
    boxed = frame.loc[frame["image"].isin(table.boxes["image"]), "split"]
    assert set(boxed) == {"test"}


@pytest.mark.real
def test_the_real_sample(shared_data):
    table = readers.read(shared_data / "nih" / "sample_labels.csv")
    assert len(table) == 5606
    assert table.num_patients == 4230
    assert int(table.frame["age"].isna().sum()) == 1
    assert table.frame["age"].max() == 94
    assert table.frame["age"].min() == pytest.approx(1 / 365.25)


@pytest.mark.real
def test_the_real_images(shared_data):
    folder = shared_data / "nih"
    with pytest.raises(LayoutError, match=r"images_256 \(1,112\), images \(81\). Choose one with --images"):
        readers.read(folder)
    tables = [
        readers.read(folder, images=folder / "images_256"),
        readers.read(folder / "Data_Entry_2017_v2020.csv", images=folder / "images_256"),
        readers.read(folder / "images_256"),
    ]
    for table in tables:
        assert len(table) == 1112
        assert table.num_patients == 959
        assert int(table.frame["Pneumonia"].sum()) == 261
        assert len(table.missing_images()) == 0
        assert "111,008 of 112,120 rows have no image under images_256 and were left out" in table.notes
