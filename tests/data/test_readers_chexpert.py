import numpy as np
import pytest
from PIL import Image

from hilum.data import readers
from hilum.errors import DataError, LayoutError, UsageError

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
TRAIN = (
    "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
    "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,AP,,,-1.0,1.0,,-1.0,-1.0,,,,1.0,,,",
    "CheXpert-v1.0-small/train/patient00002/study2/view2_lateral.jpg,Unknown,0,Lateral,,,,,,,,,,,,,,,",
)
VALID = (
    (
        "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,LL,"
        "0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0"
    ),
)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "CheXpert-v1.0-small"
    root.mkdir()
    for name, rows in (("train.csv", TRAIN), ("valid.csv", VALID)):
        (root / name).write_text("\n".join((HEADER, *rows)) + "\n")
        for row in rows:
            image = tmp_path / row.split(",")[0]
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(image)
    return root


def test_both_files_become_one_table(folder):
    table = readers.read(folder)

    frame = table.frame
    assert len(table.missing_images()) == 0
    assert frame["image"].iloc[0] == "train/patient00001/study1/view1_frontal.jpg"
    assert frame["split"].tolist() == ["train", "train", "train", "val"]
    assert frame["patient"].tolist() == ["patient00001", "patient00002", "patient00002", "patient64541"]
    assert frame["study"].tolist()[:2] == ["patient00001_study1", "patient00002_study2"]
    assert frame["view"].tolist() == ["AP", "AP", "LATERAL", ""]
    assert frame["sex"].tolist() == ["F", "F", "", "M"]
    assert frame["age"].tolist() == [68, 87, 0, 73]
    assert len(table.findings) == 13
    assert "Effusion" in table.findings
    assert "Irvin J" in table.sources[0].citation


def test_what_is_uncertain_or_empty_is_unknown_by_default(folder):
    table = readers.read(folder)

    labels = table.labels(["Cardiomegaly", "Lung Opacity", "Support Devices"])
    np.testing.assert_array_equal(
        labels, [[0, 0, 1], [np.nan, 1, np.nan], [np.nan, np.nan, np.nan], [1, 1, 0]]
    )
    assert "3 uncertain labels (-1) are taken as unknown" in table.notes


@pytest.mark.parametrize(("policy", "value"), [("ignore", np.nan), ("zeros", 0), ("ones", 1)])
def test_policies_decide_and_are_noted(folder, policy, value):
    uncertain = readers.read(folder, uncertain=policy)
    empty = readers.read(folder, empty=policy)

    np.testing.assert_equal(uncertain.frame["Edema"].tolist(), [0, value, np.nan, 0])
    np.testing.assert_equal(empty.frame["Edema"].tolist(), [0, np.nan, value, 0])
    np.testing.assert_equal(empty.frame["Fracture"].tolist(), [0, value, value, 0])
    word = {"ignore": "unknown", "zeros": "absent", "ones": "present"}[policy]
    assert f"3 uncertain labels (-1) are taken as {word}" in uncertain.notes
    assert any(note.endswith(f"empty labels are taken as {word}") for note in empty.notes)


def test_no_finding_says_nothing_of_devices(folder):
    path = folder / "train.csv"
    path.write_text(f"{HEADER}\n{TRAIN[0].removesuffix('1.0')}\n")

    table = readers.read(path)

    assert np.isnan(table.frame["Support Devices"].iloc[0])
    assert table.frame["Edema"].iloc[0] == 0


def test_its_parent_its_files_and_images_elsewhere_are_read(folder, tmp_path):
    assert len(readers.read(tmp_path)) == 4
    assert len(readers.read(folder / "valid.csv").missing_images()) == 0
    (tmp_path / "labels").mkdir()
    (folder / "train.csv").rename(tmp_path / "labels" / "train.csv")
    for images in (folder, tmp_path):
        moved = readers.read(tmp_path / "labels" / "train.csv", images=images)
        assert len(moved) == 3
        assert moved.sources[0].root == folder


def test_rows_without_an_image_are_left_out(folder):
    (folder / "train/patient00001/study1/view1_frontal.jpg").unlink()
    table = readers.read(folder)
    assert len(table) == 3
    assert any(note.startswith("1 of 4 rows have no image") for note in table.notes)


def test_wrong_content_is_named(folder, tmp_path):
    path = folder / "train.csv"
    path.write_text(f"{HEADER}\n{TRAIN[0].replace('/train/patient', '/other/patient')}\n")
    with pytest.raises(DataError, match="1 paths are not of the form train/patient00001"):
        readers.read(path)
    path.write_text(f"{HEADER}\n{TRAIN[0].removesuffix('1.0')}maybe\n")
    with pytest.raises(DataError, match=r"line 2: the column 'Support Devices' holds 'maybe'"):
        readers.read(path)
    with pytest.raises(UsageError, match=r"no policy; known are: zeros \(did you mean it"):
        readers.read(folder, uncertain="zero")
    (tmp_path / "x.csv").write_text("image,label\na.png,Mass\n")
    with pytest.raises(LayoutError, match=r"train\.csv or valid\.csv of CheXpert"):
        readers.read(tmp_path / "x.csv", name="chexpert")
    with pytest.raises(UsageError, match="joins several"):
        readers.read(tmp_path / "x.csv", uncertain="zeros")
