import json
import subprocess
import sys
import threading
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest

from hilum.data.batches import Batch, Batches, evaluation_batches, training_batches
from hilum.data.cache import Cached
from hilum.errors import DataError, TrainingError, UsageError
from hilum.recipe import AugmentSettings

CHANGES = AugmentSettings(rotation=15, shift=0.1, zoom=0.1, flip=True, brightness=0.1, noise=0.02)


def cached_of(count: int, *, unreadable: Iterable[int] = ()) -> Cached:
    pixels = np.random.default_rng(0).integers(0, 256, (count + 3, 16, 16), dtype=np.uint8)
    slots = np.random.default_rng(1).permutation(count + 3)[:count]
    slots[list(unreadable)] = -1
    sides = np.full(count, 16, np.int32)
    return Cached(pixels, slots, pd.DataFrame(columns=["image", "reason"]), 0, sides, sides)


def labels_of(count: int) -> np.ndarray:
    labels = np.random.default_rng(2).integers(0, 2, (count, 3)).astype(np.float32)
    labels[::4, 1] = np.nan
    return labels


def batches_of(count: int, **options: object) -> Batches:
    settings = {"batch_size": 8, "augment": CHANGES, "seed": 0, "num_workers": 0, **options}
    rows = settings.pop("rows", np.arange(count))
    return training_batches(cached_of(count), rows, labels_of(count), **settings)  # type: ignore[arg-type]


def assert_equal(left: Iterable[Batch], right: Iterable[Batch]) -> None:
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.rows, other.rows)


def test_a_batch_has_the_images_and_labels_of_its_rows() -> None:
    cached, labels = cached_of(20), labels_of(20)
    batches = training_batches(
        cached, np.arange(20), labels, batch_size=8, augment=AugmentSettings(), seed=0, num_workers=2
    )
    for batch in batches.epoch(0):
        np.testing.assert_array_equal(batch.images, cached.images(batch.rows))
        np.testing.assert_array_equal(batch.labels, labels[batch.rows])
        assert (batch.images.dtype, batch.labels.dtype, batch.rows.dtype) == (np.uint8, np.float32, np.int64)


def test_unknown_labels_stay_unknown() -> None:
    labels = np.concatenate([batch.labels for batch in batches_of(20).epoch(0)])
    assert np.isnan(labels).sum() == np.isnan(labels_of(20)).sum() == 5


@pytest.mark.parametrize("count", [1, 2, 8, 9, 16, 17, 21])
def test_each_row_comes_once_an_epoch(count: int) -> None:
    batches = batches_of(count, num_workers=2)
    for epoch in (0, 1):
        parts = [batch.rows for batch in batches.epoch(epoch)]
        assert len(parts) == batches.steps
        assert sorted(np.concatenate(parts)) == list(range(count))
        assert count == 1 or min(map(len, parts)) > 1


def test_a_last_single_image_joins_the_batch_before() -> None:
    assert [len(batch.rows) for batch in batches_of(17).epoch(0)] == [8, 9]
    assert [len(batch.rows) for batch in batches_of(18).epoch(0)] == [8, 8, 2]
    assert [len(batch.rows) for batch in batches_of(3, batch_size=1).epoch(0)] == [1, 1, 1]


def test_a_repeated_row_comes_as_often_as_it_stands_there_with_other_changes() -> None:
    (batch,) = batches_of(9, rows=np.array([4, 4, 4, 7])).epoch(0)
    assert sorted(batch.rows) == [4, 4, 4, 7]
    repeated = batch.images[batch.rows == 4]
    assert (repeated[0] != repeated[1]).any()
    assert (repeated[1] != repeated[2]).any()


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_the_stream_does_not_depend_on_the_number_of_workers(num_workers: int) -> None:
    for epoch in (0, 3):
        assert_equal(batches_of(50).epoch(epoch), batches_of(50, num_workers=num_workers).epoch(epoch))


def test_an_epoch_is_the_same_whenever_it_is_asked_for() -> None:
    batches = batches_of(30)
    first = list(batches.epoch(2))
    list(batches.epoch(0))
    assert_equal(first, batches.epoch(2))


@pytest.mark.parametrize(("first", "second"), [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 1), (1, 0))], ids=str)
def test_epochs_and_seeds_differ_in_order_and_changes(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    (one,), (other,) = (
        list(batches_of(40, seed=seed, batch_size=40).epoch(epoch)) for seed, epoch in (first, second)
    )
    assert (one.rows == other.rows).sum() < 10
    by_row = one.images[np.argsort(one.rows)], other.images[np.argsort(other.rows)]
    assert (by_row[0] != by_row[1]).any(axis=(1, 2)).all()


def test_the_order_is_uniform() -> None:
    # Where the first of six rows comes, over 240 epochs: each place 40 times, give or take four deviations.
    batches = batches_of(6, augment=AugmentSettings())
    places = [
        int(np.flatnonzero(batch.rows == 0)[0]) for epoch in range(240) for batch in batches.epoch(epoch)
    ]
    assert (np.abs(np.bincount(places, minlength=6) - 40) < 24).all()


@pytest.mark.parametrize("done", [0, 1, 3, 7])
def test_training_goes_on_from_a_state_in_the_middle_of_an_epoch(done: int) -> None:
    batches = batches_of(50, num_workers=2)
    state = json.loads(json.dumps(batches.state(5, done)))
    assert_equal(batches_of(50).resume(state), list(batches.epoch(5))[done:])


@pytest.mark.parametrize(
    "options",
    [{"seed": 1}, {"batch_size": 4}, {"augment": AugmentSettings()}, {"rows": np.arange(49)}],
    ids=lambda options: next(iter(options)),
)
def test_a_state_of_another_stream_is_refused(options: dict[str, object]) -> None:
    state = batches_of(50).state(0, 2)
    with pytest.raises(TrainingError, match="resume with the same recipe"):
        batches_of(50, **options).resume(state)


def test_an_epoch_left_early_leaves_no_threads() -> None:
    before = threading.active_count()
    for batch in batches_of(200, num_workers=2, batch_size=2).epoch(0):
        assert len(batch.rows) == 2
        break
    for thread in threading.enumerate():
        if thread.name.startswith("grain"):
            thread.join(timeout=5)
    assert threading.active_count() == before


def test_a_sample_shows_training_images_as_they_are() -> None:
    batches = batches_of(20, rows=np.arange(5, 15))
    sample = batches.sample(4)
    of_rows = batches.cached.images(np.arange(5, 15))
    assert sample.shape == (4, 16, 16)
    assert all((image == of_rows).all(axis=(1, 2)).any() for image in sample)
    np.testing.assert_array_equal(sample, batches.sample(4))
    assert len(batches.sample(100)) == 10


def test_evaluation_keeps_order_and_pixels() -> None:
    cached, labels = cached_of(11), labels_of(11)
    rows = np.array([7, 3, 3, 10, 0])
    batches = list(evaluation_batches(cached, rows, labels, batch_size=2))
    assert [batch.rows.tolist() for batch in batches] == [[7, 3], [3, 10], [0]]
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), cached.images(rows))
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), labels[rows])


def test_rows_without_an_image_are_refused() -> None:
    cached, labels = cached_of(5, unreadable=[2, 4]), labels_of(5)
    with pytest.raises(DataError, match="2 of 5 images could not be read"):
        evaluation_batches(cached, np.arange(5), labels, batch_size=2)
    kept = evaluation_batches(cached, np.array([0, 1, 3]), labels, batch_size=3)
    assert len(list(kept)) == 1


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="there are no images"):
        batches_of(5, rows=np.array([], dtype=np.int64))


def test_labels_of_the_rows_alone_are_refused() -> None:
    with pytest.raises(UsageError, match=r"labels have the shape \(3, 3\)"):
        evaluation_batches(cached_of(5), np.arange(3), labels_of(3), batch_size=2)


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"num_workers": -1}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(option: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected"):
        batches_of(5, **option)


def test_an_evaluation_batch_size_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size is 0; expected at least 1"):
        evaluation_batches(cached_of(5), np.arange(5), labels_of(5), batch_size=0)


def test_frameworks_are_not_imported_and_logging_is_left_alone() -> None:
    script = """
import logging, sys
import hilum.data.batches
heavy = {"grain", "torch", "tensorflow", "jax", "keras"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
hilum.data.batches._grain()
assert not (heavy - {"grain"}) & set(sys.modules), heavy & set(sys.modules)
assert not logging.root.handlers
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
