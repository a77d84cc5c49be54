import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset

from hilum.data import readers
from hilum.errors import DataError

LABELS = (
    "patientId,x,y,width,height,Target",
    "0004cfab-14fd,,,,,0",
    "00313ee0-9eaa,,,,,0",
    "00436515-870c,264.0,152.0,213.0,379.0,1",
    "00436515-870c,562.0,152.0,256.0,453.0,1",
)
CLASSES = (
    "patientId,class",
    "0004cfab-14fd,No Lung Opacity / Not Normal",
    "00313ee0-9eaa,Normal",
    "00436515-870c,Lung Opacity",
    "00436515-870c,Lung Opacity",
)


def put(folder, *, classes=CLASSES, labels=LABELS, suffix=".dcm"):
    images = folder / "stage_2_train_images"
    images.mkdir(parents=True)
    (folder / "stage_2_test_images").mkdir()
    (folder / "stage_2_test_images" / "ffff.dcm").touch()
    for name in {row.partition(",")[0] for row in labels[1:]}:
        (images / f"{name}{suffix}").touch()
    (folder / "stage_2_train_labels.csv").write_text("\n".join(labels) + "\n")
    if classes:
        (folder / "stage_2_detailed_class_info.csv").write_text("\n".join(classes) + "\n")
    return folder


def test_the_set_with_its_classes_and_boxes(tmp_path):
    table = readers.read(put(tmp_path / "rsna"))

    assert table.frame["image"].tolist() == ["0004cfab-14fd.dcm", "00313ee0-9eaa.dcm", "00436515-870c.dcm"]
    assert len(table.missing_images()) == 0
    np.testing.assert_array_equal(
        table.labels(["Pneumonia", "Other Abnormality", "No Finding"]), [[0, 1, 0], [0, 0, 1], [1, np.nan, 0]]
    )
    assert table.boxes["image"].tolist() == ["00436515-870c.dcm"] * 2
    np.testing.assert_array_equal(
        table.boxes[["x", "y", "width", "height"]],
        np.array([[264, 152, 213, 379], [562, 152, 256, 453]]) / 1024,
    )
    assert any("each image counts as its own patient" in note for note in table.notes)


def put_header(path, **told):
    header = pydicom.Dataset()
    with pydicom.config.disable_value_validation():
        header.update({"Rows": 1024, "Columns": 1000} | told)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.save_as(path, enforce_file_format=True)


def test_view_sex_age_and_size_come_from_the_headers(tmp_path):
    images = put(tmp_path / "rsna") / "stage_2_train_images"
    # As the challenge writes them: ages without a unit, and one of 148 years.
    put_header(images / "0004cfab-14fd.dcm", PatientAge="051", PatientSex="F", ViewPosition="AP")
    put_header(images / "00313ee0-9eaa.dcm", PatientAge="148", PatientSex="M", ViewPosition="PA")

    table = readers.read(tmp_path / "rsna")

    assert table.frame["view"].tolist() == ["AP", "PA", ""]
    assert table.frame["sex"].tolist() == ["F", "M", ""]
    np.testing.assert_array_equal(table.frame["age"], [51, np.nan, np.nan])
    assert table.frame["width"].tolist() == [1000, 1000, 0]
    assert table.frame["height"].tolist() == [1024, 1024, 0]
    assert any(note.startswith("1 DICOM headers could not be read") for note in table.notes)


def test_without_classes_no_image_is_known_to_be_normal(tmp_path):
    table = readers.read(put(tmp_path / "rsna", classes=None) / "stage_2_train_labels.csv")

    np.testing.assert_array_equal(table.frame["Pneumonia"], [0, 0, 1])
    np.testing.assert_array_equal(table.labels(["No Finding"])[:, 0], [np.nan, np.nan, 0])


def test_copies_in_another_format_are_found(tmp_path):
    folder = put(tmp_path / "rsna", suffix=".png")
    table = readers.read(folder, images=folder / "stage_2_train_images")
    assert table.frame["image"].tolist()[0] == "0004cfab-14fd.png"
    (folder / "stage_2_train_images" / "0004cfab-14fd.dcm").touch()
    assert readers.read(folder).frame["image"].tolist()[0] == "0004cfab-14fd.dcm"


def test_labels_alone_and_missing_images(tmp_path):
    folder = put(tmp_path / "rsna")
    (folder / "stage_2_train_images" / "00436515-870c.dcm").unlink()
    table = readers.read(folder)
    assert len(table) == 2
    assert len(table.boxes) == 0
    assert any("1 of 3 rows have no image" in note for note in table.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": (*CLASSES, "0004cfab-14fd,Normal")}, "gives 1 images two classes"),
        ({"classes": CLASSES[:3]}, "does not name 1 of the 3"),
        ({"classes": (*CLASSES[:3], "00436515-870c,Normal")}, "contradicts stage_2_train_labels.csv about 1"),
        ({"classes": (*CLASSES[:3], "00436515-870c,Opacity")}, "unknown class 'Opacity'"),
        ({"labels": (*LABELS, "00436515-870c,,,,,0")}, "1 images have both Target 0 and Target 1"),
        ({"labels": (*LABELS[:3], "00436515-870c,,,,,1")}, "box cannot be read"),
        ({"labels": (*LABELS[:3], "00436515-870c,1,1,0,5,1")}, "1 boxes without a width"),
        ({"labels": (*LABELS[:3], "00436515-870c,1,1,1,5,2")}, "neither 0 nor 1 in 1 rows"),
    ],
)
def test_contradictions_are_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        readers.read(put(tmp_path / "rsna", **change))
