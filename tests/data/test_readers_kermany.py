import numpy as np
import pytest
from PIL import Image

from hilum.data import readers
from hilum.errors import DataError, LayoutError

FILES = {
    "train/NORMAL": ["IM-0115-0001.jpeg", "NORMAL2-IM-0927-0001-0001.jpeg", "NORMAL2-IM-0927-0001.jpeg"],
    "train/PNEUMONIA": ["person1_bacteria_1.jpeg", "person1_virus_6.jpeg", "person1_bacteria_2_1.jpeg"],
    "val/NORMAL": ["NORMAL2-IM-1427-0001.jpeg"],
    "val/PNEUMONIA": ["person1946_bacteria_4874.jpeg"],
    "test/NORMAL": ["IM-0001-0001.jpeg"],
    "test/PNEUMONIA": ["person80_virus_150.jpeg"],
}


def put(root, files=FILES):
    for folder, names in files.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            Image.new("L", (8, 8)).save(root / folder / name)
        (root / folder / ".DS_Store").touch()


def test_patients_findings_view_and_split(tmp_path):
    put(tmp_path / "chest_xray")
    table = readers.read(tmp_path / "chest_xray")
    frame = table.frame.set_index("image")
    assert len(frame) == 10
    assert set(frame["view"]) == {"AP"}
    assert frame["age"].isna().all()
    patients = frame["patient"]
    assert patients["train/PNEUMONIA/person1_bacteria_1.jpeg"] == "person1_bacteria"
    assert patients["train/PNEUMONIA/person1_bacteria_2_1.jpeg"] == "person1_bacteria"
    assert patients["train/PNEUMONIA/person1_virus_6.jpeg"] == "person1_virus"
    assert patients["train/NORMAL/IM-0115-0001.jpeg"] == "IM-0115"
    assert patients["train/NORMAL/NORMAL2-IM-0927-0001-0001.jpeg"] == "NORMAL2-IM-0927"
    values = frame[list(table.findings)]
    assert table.findings == ("Pneumonia", "Bacterial Pneumonia", "Viral Pneumonia")
    assert values.loc["train/PNEUMONIA/person1_bacteria_1.jpeg"].tolist() == [1, 1, 0]
    assert values.loc["test/PNEUMONIA/person80_virus_150.jpeg"].tolist() == [1, 0, 1]
    assert values.loc["test/NORMAL/IM-0001-0001.jpeg"].tolist() == [0, 0, 0]
    assert frame["split"].value_counts().to_dict() == {"train": 6, "val": 2, "test": 2}
    assert "CC BY 4.0" in table.sources[0].terms


@pytest.mark.parametrize("inner", ["chest_xray", "ChestXRay2017/chest_xray", "chest_xray/chest_xray"])
def test_the_set_is_found_below_what_was_unpacked(tmp_path, inner):
    put(tmp_path / inner)
    table = readers.read(tmp_path)
    assert len(table) == 10
    assert table.sources[0].root == tmp_path / inner


def test_the_nested_duplicate_and_macos_copies_are_passed_over(tmp_path):
    put(tmp_path / "chest_xray")
    put(tmp_path / "chest_xray" / "chest_xray")
    put(tmp_path / "chest_xray" / "__MACOSX")
    (tmp_path / "chest_xray" / "train" / "NORMAL" / "._IM-0115-0001.jpeg").touch()
    assert len(readers.read(tmp_path)) == 10
    assert len(readers.read(tmp_path / "chest_xray")) == 10


def test_the_mendeley_release_has_no_val(tmp_path):
    put(tmp_path, {folder: names for folder, names in FILES.items() if not folder.startswith("val")})
    assert set(readers.read(tmp_path).frame["split"]) == {"train", "test"}


def test_a_pneumonia_of_another_name_has_an_unknown_cause(tmp_path):
    put(tmp_path, FILES | {"train/PNEUMONIA": ["person1_bacteria_1.jpeg", "scan.jpeg"]})
    table = readers.read(tmp_path)
    row = table.frame["image"].tolist().index("train/PNEUMONIA/scan.jpeg")
    np.testing.assert_array_equal(table.labels(table.findings)[row], [1, np.nan, np.nan])
    assert any("1 file names are not of Kermany's form" in note for note in table.notes)


def test_other_peoples_pneumonia_folders_are_not_taken_for_kermanys(tmp_path):
    put(tmp_path, {"NORMAL": ["a.jpeg"], "PNEUMONIA": ["b.jpeg"]})
    table = readers.read(tmp_path)
    assert table.findings == ("Pneumonia",)
    assert set(table.frame["view"]) == {""}


def test_by_name_without_the_folders(tmp_path):
    put(tmp_path, {"train/NORMAL": ["IM-0115-0001.jpeg"]})
    with pytest.raises(LayoutError, match="no NORMAL and PNEUMONIA folders"):
        readers.read(tmp_path, name="kermany")
    (tmp_path / "train" / "PNEUMONIA").mkdir()
    (tmp_path / "train" / "NORMAL" / "IM-0115-0001.jpeg").unlink()
    with pytest.raises(DataError, match="hold no images"):
        readers.read(tmp_path, name="kermany")


@pytest.mark.real
def test_the_real_set(shared_data):
    table = readers.read(shared_data / "kermany_224")
    counts = table.frame.groupby(["split", "Pneumonia"]).size().to_dict()
    assert counts == {
        ("train", 0): 1341,
        ("train", 1): 3875,
        ("val", 0): 8,
        ("val", 1): 8,
        ("test", 0): 234,
        ("test", 1): 390,
    }
    causes = table.labels(["Bacterial Pneumonia", "Viral Pneumonia"]).sum(axis=0)
    assert causes.tolist() == [2530 + 8 + 242, 1345 + 148]
    assert table.num_patients == 4097
    assert not any("not of Kermany's form" in note for note in table.notes)
    assert len(table.missing_images()) == 0


@pytest.mark.real
def test_every_real_image_is_of_exactly_one_of_three_classes(shared_data):
    table = readers.read(shared_data / "kermany_224")

    labels = table.labels(["No Finding", "Bacterial Pneumonia", "Viral Pneumonia"])

    assert labels.sum(axis=0).tolist() == [1583, 2780, 1493]
    assert (labels.sum(axis=1) == 1).all()


@pytest.mark.real
def test_no_real_patient_is_in_two_folders(shared_data):
    frame = readers.read(shared_data / "kermany_224").frame
    assert (frame.groupby("patient")["split"].nunique() == 1).all()
