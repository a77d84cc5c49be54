"""Prepared images and labels as torch takes them."""

import numpy as np
import pytest

import hilum
from hilum.data import phantom
from hilum.errors import UsageError
from hilum.images import prepare


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    drawn = phantom.generate(tmp_path_factory.mktemp("phantoms"), num_images=6, seed=0)
    return drawn.with_split(["train", "train", "train", "train", "test", "test"])


def test_an_item_is_the_prepared_square_and_its_labels(table):
    dataset = hilum.dataset(table, ["Effusion", "Nodule"], size=64, fit="squash")
    image, labels = dataset[3]
    assert len(dataset) == len(table)
    assert np.array_equal(image.numpy()[0], prepare(table.location(3), 64, "squash").grey)
    assert np.array_equal(labels.numpy(), table.labels(["Effusion", "Nodule"])[3], equal_nan=True)


def test_a_loader_batches_a_part_of_the_split(table):
    from torch.utils.data import DataLoader

    [(images, labels)] = DataLoader(hilum.dataset(table, split="test", size=32), batch_size=4)
    assert images.shape == (2, 1, 32, 32)
    assert labels.shape == (2, len(table.findings))


def test_a_row_that_is_not_there_ends_a_loop(table):
    assert len(list(hilum.dataset(table, size=32))) == len(table)


def test_a_part_that_is_not_there_is_refused(table):
    with pytest.raises(UsageError, match="no part 'val'"):
        hilum.dataset(table, split="val")
