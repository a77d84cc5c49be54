import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from hilum import images
from hilum.data import readers
from hilum.data.readers import vinbigdata
from hilum.errors import DataError, LayoutError

ROWS = (
    "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
    "aaa,Cardiomegaly,3,R8,100,200,300,400",
    "aaa,Cardiomegaly,3,R9,110,200,310,400",
    "aaa,Cardiomegaly,3,R9,0,0,20,20",
    "aaa,Pleural effusion,10,R9,10,10,50,50",
    "aaa,No finding,14,R10,,,,",
    "bbb,No finding,14,R1,,,,",
    "bbb,No finding,14,R2,,,,",
    "bbb,No finding,14,R3,,,,",
    "ccc,Aortic enlargement,0,R8,390,0,402,30",
    "ccc,Aortic enlargement,0,R9,380,0,400,30",
    "ccc,Aortic enlargement,0,R10,380,0,400,30",
)


def put(folder, rows=ROWS):
    (folder / "train").mkdir(parents=True)
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    return folder


def put_dicom(path, *, width, height):
    header = pydicom.Dataset()
    header.Rows, header.Columns = height, width
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.save_as(path, enforce_file_format=True)


@pytest.fixture
def folder(tmp_path):
    root = put(tmp_path / "vin")
    for name in ("aaa", "bbb", "ccc"):
        put_dicom(root / "train" / f"{name}.dicom", width=400, height=800)
    return root


def test_the_majority_of_readers_decides(folder):
    table = readers.read(folder)

    assert table.frame["image"].tolist() == ["aaa.dicom", "bbb.dicom", "ccc.dicom"]
    np.testing.assert_array_equal(
        table.labels(["Cardiomegaly", "Effusion", "Aortic Enlargement", "No Finding"]),
        [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]],
    )
    assert len(table.findings) == 14
    assert "1 findings that a minority of an image's readers marked are taken as absent" in table.notes


def test_agreement_is_kept(folder):
    table = readers.read(folder)
    votes = vinbigdata.votes(folder / "train.csv")

    # Cardiomegaly: two of three, none, none. Observed 7/9; chance 0.222^2 + 0.778^2.
    kappa = (7 / 9 - (4 + 49) / 81) / (1 - (4 + 49) / 81)
    assert any(
        f"Cardiomegaly {kappa:.2f}" in note and "Aortic Enlargement 1.00" in note for note in table.notes
    )
    assert votes["readers"].tolist() == [3, 3, 3]
    assert votes["Cardiomegaly"].tolist() == [2, 0, 0]
    assert votes["Effusion"].tolist() == [1, 0, 0]


def test_boxes_are_all_readers_of_what_was_voted(folder):
    table = readers.read(folder)

    assert table.boxes["finding"].tolist() == ["Cardiomegaly"] * 3 + ["Aortic Enlargement"] * 3
    np.testing.assert_allclose(table.boxes.iloc[0, 2:].astype(float), [0.25, 0.25, 0.5, 0.25])
    np.testing.assert_allclose(table.boxes.iloc[3, 2:].astype(float), [390 / 400, 0, 10 / 400, 30 / 800])
    assert "1 boxes of findings that were voted down are left out" in table.notes


def test_the_original_size_of_copies_comes_from_their_list(tmp_path):
    root = put(tmp_path / "vin")
    for name in ("aaa", "bbb", "ccc"):
        Image.new("L", (8, 8)).save(root / "train" / f"{name}.png")
    without = readers.read(root)
    (root / "train_meta.csv").write_text("image_id,dim0,dim1\naaa,800,400\nccc,1000,500\n")
    with_sizes = readers.read(root)

    assert len(without.boxes) == 0
    assert any(note.startswith("6 boxes are left out: the size") for note in without.notes)
    np.testing.assert_allclose(with_sizes.boxes.iloc[0, 2:].astype(float), [0.25, 0.25, 0.5, 0.25])
    np.testing.assert_allclose(with_sizes.boxes.iloc[5, 2:].astype(float), [0.76, 0, 0.04, 0.03])


def test_half_of_the_readers_leave_it_unknown(tmp_path):
    rows = (ROWS[0], "aaa,Cardiomegaly,3,R8,1,1,3,4", "aaa,No finding,14,R9,,,,")
    table = readers.read(put(tmp_path / "vin", rows))
    assert np.isnan(table.frame["Cardiomegaly"].iloc[0])
    assert any("exactly half of the readers" in note for note in table.notes)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="'Pneumonia', which is none of this data set's"):
        readers.read(put(tmp_path / "a", (ROWS[0], "aaa,Pneumonia,3,R8,1,1,3,4")))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").touch()
    with pytest.raises(LayoutError, match=r"no train\.csv"):
        readers.read(tmp_path / "b", name="vinbigdata")


def test_a_header_tells_the_size_without_pixels(tmp_path):
    put_dicom(tmp_path / "a.dicom", width=31, height=7)
    (tmp_path / "b.dicom").write_bytes(b"no DICOM")
    header = images.header(tmp_path / "a.dicom")
    assert (header.width, header.height, header.view, header.sex) == (31, 7, "", "")
    assert np.isnan(header.age)
    assert images.header(tmp_path / "b.dicom") is None
    assert images.header(tmp_path / "c.dicom") is None
