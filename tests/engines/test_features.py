from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from hilum.data.batches import training_batches
from hilum.data.cache import Cached
from hilum.engines import Hooks, Validation
from hilum.engines.features import TOLERANCE, Extractor, choose_precision, store_features
from hilum.errors import RecipeError, StoppedError
from hilum.recipe import AugmentSettings, load_recipe

SIZE, NUMBER = 8, 30


def cached():
    """Images of one grey each: its number."""
    pixels = np.arange(NUMBER, dtype=np.uint8)[:, None, None] + np.zeros((1, SIZE, SIZE), np.uint8)
    side = np.full(NUMBER, SIZE, np.int32)
    empty = pd.DataFrame(columns=["image", "reason"])
    return Cached(pixels=pixels, slots=np.arange(NUMBER), quarantine=empty, hits=0, width=side, height=side)


def batches(rows, *, augment=AugmentSettings(), batch_size=4):  # noqa: B008 (frozen)
    labels = np.arange(NUMBER, dtype=np.float32)[:, None] % 2
    return training_batches(
        cached(), np.array(rows), labels, batch_size=batch_size, augment=augment, seed=3, num_workers=0
    )


def first_and_mean(images):
    images = images.astype(np.float32)
    return np.stack([images[:, 0, 0], images.mean((1, 2))], 1)


def stored(source, folder, *, versions=1, compute=first_and_mean, hooks=Hooks()):  # noqa: B008 (frozen)
    validation = Validation(cached().pixels[:7], np.zeros((7, 1), np.float32))
    with ThreadPoolExecutor(2) as pool:
        return store_features(
            source,
            validation,
            Extractor(compute, 5, pool, "x"),
            versions=versions,
            folder=folder,
            hooks=hooks,
        )


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.integers(0, NUMBER - 1), min_size=1, max_size=40),
    batch_size=st.integers(2, 9),
    versions=st.integers(1, 3),
)
def test_features_come_in_the_order_of_their_images_also_of_rows_that_come_twice(
    rows, batch_size, versions, tmp_path_factory
):
    source = batches(rows, batch_size=batch_size)
    found, _ = stored(source, tmp_path_factory.getbasetemp(), versions=versions)

    for epoch in (1, 2):
        for ours, theirs in zip(found.epoch(epoch), source.epoch(epoch), strict=True):
            np.testing.assert_array_equal(ours.images, first_and_mean(theirs.images))
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            np.testing.assert_array_equal(ours.rows, theirs.rows)


def test_an_epoch_begun_later_and_in_shards_is_the_same(tmp_path):
    found, _ = stored(batches(range(NUMBER)), tmp_path)
    whole = [batch.images for batch in found.epoch(2)]

    rest = [batch.images for batch in found.epoch(2, start=3)]
    shards = [[batch.images for batch in found.epoch(2, shard=(index, 2))] for index in range(2)]

    for ours, theirs in zip(rest, whole[3:], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for even, odd, both in zip(*shards, whole, strict=True):
        np.testing.assert_array_equal(even, both[::2])
        np.testing.assert_array_equal(odd, both[1::2])


def test_each_image_goes_through_as_often_as_it_should_and_every_version_is_used(tmp_path):
    seen = []

    def compute(images):
        seen.append(images)
        return first_and_mean(images)

    dark = AugmentSettings(brightness=0.5)
    found, validation = stored(
        batches([*range(NUMBER), 5, 5], augment=dark), tmp_path, versions=3, compute=compute
    )

    assert sum(map(len, seen)) == 3 * NUMBER, "the seven that steer are among them"
    np.testing.assert_array_equal(validation.images[:, 0], np.arange(7))
    of_image_5 = {
        float(value)
        for epoch in range(1, 4)
        for batch in found.epoch(epoch)
        for value in batch.images[batch.rows == 5][:, 0]
    }
    assert len(of_image_5) > 1
    assert 5.0 in of_image_5, "the first version is the image as it is"
    assert not list(tmp_path.iterdir()), "the file has no name, so that nothing stays behind"


def test_whoever_asks_it_to_stop_is_heard(tmp_path):
    with pytest.raises(StoppedError, match="begin again with --resume"):
        stored(batches(range(NUMBER)), tmp_path, hooks=Hooks(should_stop=lambda: True))


def test_the_fast_way_is_taken_only_where_it_is_near_enough():
    def exact(images):
        return first_and_mean(images)

    def near(images):
        return exact(images) * (1 + TOLERANCE / 2)

    def far(images):
        return exact(images) * (1 + TOLERANCE * 2)

    images = cached().pixels[1:]
    assert choose_precision(near, exact, images)[0] is near
    chosen, error = choose_precision(far, exact, images)
    assert chosen is exact
    assert error == pytest.approx(2 * TOLERANCE, rel=1e-3)


@pytest.mark.parametrize("change", ["model.freeze=none", "model.freeze=0.5", "train.unfreeze_after=2"])
def test_nothing_is_stored_where_layers_of_the_backbone_learn(change):
    assert load_recipe("kermany-densenet121", ["train.stored_versions=2"]).stores_features
    assert not load_recipe("kermany-densenet121", ["train.stored_versions=2", change]).stores_features


def test_mixup_cannot_be_stored():
    with pytest.raises(RecipeError, match=r"does not go with augment\.mixup"):
        load_recipe("kermany-densenet121", ["train.stored_versions=2", "augment.mixup=0.2"])
