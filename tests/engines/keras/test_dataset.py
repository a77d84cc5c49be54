"""Prepared images and labels as TensorFlow takes them."""

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
    dataset = hilum.dataset(table, ["Effusion", "Nodule"], framework="keras", size=64, fit="squash")
    image, labels = list(dataset)[3]
    assert dataset.cardinality() == len(table)
    assert np.array_equal(image.numpy()[..., 0], prepare(table.location(3), 64, "squash").grey)
    assert np.array_equal(labels.numpy(), table.labels(["Effusion", "Nodule"])[3], equal_nan=True)


def test_a_part_that_is_not_there_is_refused(table):
    with pytest.raises(UsageError, match="no part 'val'"):
        hilum.dataset(table, framework="keras", split="val")
