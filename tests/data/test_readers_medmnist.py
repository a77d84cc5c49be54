import numpy as np
import pytest

from hilum import images
from hilum.data import cache, readers
from hilum.errors import DataError, LayoutError, UsageError
from hilum.recipe.findings import NIH_FINDINGS

COUNTS = {"train": 5, "val": 2, "test": 3}


def put(path, *, findings=1, side=28, save=np.savez_compressed, **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, side, side), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count * findings).reshape(count, findings) % 2).astype(
            np.uint8
        )
    arrays |= changes
    save(path, **{name: value for name, value in arrays.items() if value is not None})
    return arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pneumoniamnist_is_read_in_place(tmp_path, save):
    arrays = put(tmp_path / "pneumoniamnist.npz", save=save)

    table = readers.read(tmp_path / "pneumoniamnist.npz")
    cached = cache.build(table, size=28, fit="squash", directory=tmp_path / "cache")

    assert table.findings == ("Pneumonia",)
    assert table.frame["split"].tolist() == ["train"] * 5 + ["val"] * 2 + ["test"] * 3
    assert table.frame["Pneumonia"].tolist() == [0, 1, 0, 1, 0, 0, 1, 0, 1, 0]
    assert table.frame["image"].iloc[6] == "pneumoniamnist.npz::val_images.npy/1"
    assert set(table.frame["width"]) == {28}
    assert len(table.missing_images()) == 0
    assert len(cached.quarantine) == 0
    expected = np.concatenate([arrays[f"{split}_images"] for split in COUNTS])
    np.testing.assert_array_equal(cached.images(np.arange(10)), expected)


def test_images_are_read_in_any_order(tmp_path):
    arrays = put(tmp_path / "pneumoniamnist.npz")
    table = readers.read(tmp_path)
    for row in (4, 0, 3, 3):
        content = images.read_bytes(table.location(row))
        grey = images.prepare(content, 28).pixels
        np.testing.assert_array_equal(grey, arrays["train_images"][row])
        assert images.Location.parse(str(table.location(row))) == table.location(row)


def test_chestmnist_has_the_14_findings_in_their_order(tmp_path):
    put(tmp_path / "chestmnist_64.npz", findings=14, side=64)
    table = readers.read(tmp_path)
    assert table.findings == NIH_FINDINGS
    assert table.sources[0].name == "chestmnist_64"
    assert table.frame["Cardiomegaly"].iloc[0] == 1
    assert table.frame["Atelectasis"].iloc[0] == 0


def test_other_archives_and_several_are_not_taken(tmp_path):
    put(tmp_path / "breastmnist.npz")
    with pytest.raises(LayoutError, match="no known layout"):
        readers.read(tmp_path)
    with pytest.raises(LayoutError, match=r"holds none of pneumoniamnist\.npz, chestmnist\.npz"):
        readers.read(tmp_path, name="medmnist")
    put(tmp_path / "pneumoniamnist.npz")
    put(tmp_path / "pneumoniamnist_64.npz", side=64)
    with pytest.raises(
        LayoutError, match=r"holds pneumoniamnist\.npz, pneumoniamnist_64\.npz .* give one file"
    ):
        readers.read(tmp_path)


def test_damaged_archives_are_named(tmp_path):
    path = tmp_path / "pneumoniamnist.npz"
    put(path, train_labels=np.zeros((4, 1), np.uint8))
    with pytest.raises(DataError, match=r"train_labels are \(4, 1\); 0 or 1 for 5 images"):
        readers.read(path)
    put(path, val_labels=np.array([["a", {}]], dtype=object))
    with pytest.raises(DataError, match=r"damaged \(ValueError in val\)"):
        readers.read(path)
    put(path, val_labels=None)
    with pytest.raises(DataError, match="no whole archive"):
        readers.read(path, name="medmnist")
    put(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="no whole archive"):
        readers.read(path, name="medmnist")
    with pytest.raises(UsageError, match="--images does not apply"):
        readers.read(path, name="medmnist", images=tmp_path)
