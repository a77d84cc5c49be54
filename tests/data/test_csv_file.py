import gzip

import pytest

from hilum.data import csv_file
from hilum.errors import DataError, LayoutError

GERMAN = "Datei;Größe;Alter\r\na.png;1;45,5\r\nb.png;0;50\r\n"


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        ('Datei,Größe,Alter\na.png,1,"45,5"\nb.png,0,50\n'.encode(), []),
        (("\ufeff" + GERMAN).encode(), ["semicolons between its cells"]),
        (GERMAN.encode("cp1252"), ["semicolons", "not UTF-8 and is read as Windows-1252"]),
        (GERMAN.replace(";", "\t").encode("utf-16"), ["tabs", "UTF-16"]),
        (b"sep=;\r\n" + GERMAN.encode(), ["semicolons"]),
        (gzip.compress(GERMAN.encode()), ["semicolons"]),
        ((GERMAN + ";;\r\n\r\n").encode(), ["semicolons"]),
    ],
    ids=["commas", "mark", "Windows-1252", "UTF-16", "sep", "gzip", "empty rows"],
)
def test_a_file_of_any_form_gives_the_same_cells(tmp_path, content, notes):
    (tmp_path / "x.csv").write_bytes(content)

    found = csv_file.read(tmp_path / "x.csv")

    assert found.header == ("Datei", "Größe", "Alter")
    assert found.frame.to_numpy().tolist() == [["a.png", "1", "45,5"], ["b.png", "0", "50"]]
    assert len(found.notes) == len(notes)
    assert all(part in note for part, note in zip(notes, found.notes, strict=True))


def test_findings_joined_by_semicolons_are_no_delimiter(tmp_path):
    (tmp_path / "x.csv").write_text("image,label\na.png,Mass;Nodule;Edema\nb.png,Mass;Nodule;Edema\n")

    assert csv_file.read(tmp_path / "x.csv").delimiter == ","


@pytest.mark.parametrize("first", ["", "sep=,\n"])
def test_lines_are_those_of_the_file(tmp_path, first):
    (tmp_path / "x.csv").write_text(f'{first}image,note\na.png,"two\nlines"\n\nb.png,x\nb.png,y\n')

    found = csv_file.read(tmp_path / "x.csv").lines("image", ["b.png"])

    assert found == ([5, 6] if not first else [6, 7])


def test_two_columns_of_one_name_are_refused_by_name(tmp_path):
    (tmp_path / "x.csv").write_text("image,Mass, Mass\na.png,1,0\n")

    with pytest.raises(DataError, match=r"2 columns named 'Mass' \(columns 2 and 3\)"):
        _ = csv_file.read(tmp_path / "x.csv").frame


@pytest.mark.parametrize(
    ("name", "content"), [("x.xlsx", b"x"), ("x.csv", b"PK\x03\x04 sheet"), ("x.xls", b"x")]
)
def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(LayoutError, match=r"is a spreadsheet.* save it as CSV"):
        csv_file.read(tmp_path / name)


def test_a_damaged_gzip_is_told(tmp_path):
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(GERMAN.encode())[:30])

    with pytest.raises(DataError, match="no whole gzip file"):
        csv_file.read(tmp_path / "x.csv.gz")
