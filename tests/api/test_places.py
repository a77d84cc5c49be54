"""Where public data sets are looked for: by variable, beside the notebook, and where Kaggle and Colab put them."""

import pytest

import hilum
from hilum.api import places
from hilum.errors import UsageError

LAYOUTS = {
    "kermany": (
        "data/chest_xray/train/NORMAL",
        "kaggle/input/chest-xray-pneumonia/chest_xray/train/NORMAL",
        "kaggle/input/datasets/somebody/chest-xray-pneumonia/chest_xray/train/NORMAL",
        "content/chest_xray/train/PNEUMONIA",
        "content/drive/MyDrive/data/chest_xray/train/NORMAL",
    ),
    "nih": (
        "data/nih/Data_Entry_2017_v2020.csv",
        "kaggle/input/data/Data_Entry_2017.csv",
        "kaggle/input/sample/sample/sample_labels.csv",
        "content/drive/MyDrive/nih/Data_Entry_2017.csv",
    ),
    "nih-sample": (
        "kaggle/input/sample/sample_labels.csv",
        "kaggle/input/sample/sample/sample_labels.csv",
        "content/sample/sample_labels.csv",
        "data/nih/Data_Entry_2017_v2020.csv",
    ),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A machine without data, whose root is `tmp_path`."""
    monkeypatch.setattr(places, "ROOTS", tuple(str(tmp_path / root.lstrip("./")) for root in places.ROOTS))
    for place in places.PLACES.values():
        monkeypatch.delenv(place.variable, raising=False)


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name, paths in LAYOUTS.items() for path in paths]
)
def test_data_are_found_where_they_are_mounted(tmp_path, name, path):
    there = tmp_path / path
    there.mkdir(parents=True)

    found = hilum.find_data(name)

    assert there.is_relative_to(found)
    assert found.name in ("chest_xray", "nih", "data", "sample")


def test_what_lies_beside_the_notebook_comes_first(tmp_path):
    for path in LAYOUTS["kermany"]:
        (tmp_path / path).mkdir(parents=True)

    assert hilum.find_data("kermany") == tmp_path / "data" / "chest_xray"


def test_the_sample_is_preferred_where_it_is_asked_for(tmp_path):
    for path in ("kaggle/input/data/Data_Entry_2017.csv", "kaggle/input/sample/sample_labels.csv"):
        (tmp_path / path).mkdir(parents=True)

    assert hilum.find_data("nih").name == "data"
    assert hilum.find_data("nih-sample").name == "sample"


def test_a_variable_says_where(tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_NIH", str(tmp_path))
    assert hilum.find_data("nih") == tmp_path

    monkeypatch.setenv("HILUM_NIH", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"HILUM_NIH is .*gone, where nothing is"):
        hilum.find_data("nih")


def test_data_that_are_nowhere_are_told(tmp_path):
    (tmp_path / "data" / "chest_xray").mkdir(parents=True)

    with pytest.raises(UsageError, match=r"kermany was not found.*HILUM_KERMANY"):
        hilum.find_data("kermany")
    with pytest.raises(UsageError, match="there are: kermany"):
        hilum.find_data("kermani")
