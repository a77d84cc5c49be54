import numpy as np
import pytest
from PIL import Image

from hilum.errors import UsageError
from hilum.inference.explanation import Case
from hilum.report.drawing import map_files


@pytest.fixture
def case():
    grey = np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(64, 48)
    evidence = np.zeros((64, 48), np.float32)
    evidence[10:30, 10:30] = 1.0
    return Case("a.png", grey, evidence, np.zeros((0, 4)), "Pleural Thickening", 1.0, 0.8, 0.5, True)


def planned(folder, images, findings=("Mass",)):
    return [[path.name for path in paths] for paths in map_files.plan(folder, images, findings)]


def test_a_picture_a_case_is_written(tmp_path, case):
    ((path,),) = map_files.plan(tmp_path / "maps", [case.image], [case.finding])

    map_files.write([path], [case], bundle="0" * 64)

    assert path == tmp_path / "maps" / "a-Pleural_Thickening.png"
    with Image.open(path) as picture:
        assert picture.width >= 1000
        assert np.asarray(picture.convert("L")).std() > 10


def test_a_picture_of_an_earlier_command_is_not_replaced(tmp_path):
    (tmp_path / "A-Mass.png").write_text("of another patient")

    with pytest.raises(UsageError, match=r"a-Mass\.png is there already"):
        map_files.plan(tmp_path, ["there/a.png"], ["Mass"])


def test_names_are_the_images_own_and_equal_ones_are_numbered(tmp_path):
    found = planned(tmp_path, ["x/a.png", "y/A.png", "a-2.png", "z.zip::b/../c.jpeg", "..", "é.png"])

    assert found == [
        ["a-Mass.png"],
        ["A-2-Mass.png"],
        ["a-2-2-Mass.png"],
        ["c-Mass.png"],
        ["image-Mass.png"],
        ["é-Mass.png"],
    ]


@pytest.mark.parametrize(
    ("images", "findings"),
    [
        (["a.png", "a-Old.png"], ["Old-TB", "TB"]),
        (["a.png"], ["TB?", "tb!"]),
        (["x" * 300 + ".png", "x" * 301 + ".png"], ["正" * 200, "常"]),
    ],
)
def test_no_two_pictures_have_one_file(tmp_path, images, findings):
    names = [name for row in planned(tmp_path, images, findings) for name in row]

    assert len({name.casefold() for name in names}) == len(images) * len(findings)
    assert max(len(name.encode()) for name in names) < 255
