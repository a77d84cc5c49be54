import numpy as np
import pytest
from PIL import Image

from hilum.inference.explanation import Case
from hilum.report.drawing import map_files


@pytest.fixture
def case():
    grey = np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(64, 48)
    evidence = np.zeros((64, 48), np.float32)
    evidence[10:30, 10:30] = 1.0
    return Case("a.png", grey, evidence, np.zeros((0, 4)), "Pleural Thickening", 1.0, 0.8, 0.5, True)


def test_a_picture_a_case_is_written_and_replaced(tmp_path, case):
    first = map_files.write(tmp_path / "maps", [case], name="a", bundle="0" * 64)
    second = map_files.write(tmp_path / "maps", [case], name="a", bundle="0" * 64)

    assert [path.name for path in first] == ["a-Pleural_Thickening.png"]
    assert first == second
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["a-Pleural_Thickening.png"]
    with Image.open(first[0]) as picture:
        assert picture.width >= 1000
        assert np.asarray(picture.convert("L")).std() > 10


def test_names_are_the_images_own_and_equal_ones_are_numbered():
    found = map_files.names(["x/a.png", "y/a.png", "z.zip::b/../c.jpeg", "..", "é.png"])

    assert found[:3] == ["a", "a-2", "c"]
    assert len(set(found)) == 5
    assert all("/" not in name and not name.startswith(".") for name in found)
