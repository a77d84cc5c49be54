import json
import subprocess
import sys
import threading
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

import hilum.data.batches
from hilum.data.batches import Batch, Batches, training_batches
from hilum.data.cache import Cached
from hilum.errors import DataError, TrainingError, UsageError
from hilum.recipe import AugmentSettings

CHANGES = AugmentSettings(rotation=15, shift=0.1, zoom=0.1, flip=True, brightness=0.1, noise=0.02)
MIXED = CHANGES.model_copy(update={"mixup": 0.4})


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
    chosen = {"batch_size": 8, "augment": CHANGES, "seed": 0, "num_workers": 0, **options}
    rows, labels = chosen.pop("rows", np.arange(count)), chosen.pop("labels", labels_of(count))
    return training_batches(cached_of(count), rows, labels, **chosen)  # type: ignore[arg-type]


def assert_equal(left: Iterable[Batch], right: Iterable[Batch]) -> None:
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.rows, other.rows)


def part_of(batch: Batch, *, shard: tuple[int, int]) -> Batch:
    index, count = shard
    return Batch(batch.images[index::count], batch.labels[index::count], batch.rows[index::count])


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


@pytest.mark.parametrize("changes", [CHANGES, MIXED], ids=["plain", "mixup"])
@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_the_stream_does_not_depend_on_the_number_of_workers(
    num_workers: int, changes: AugmentSettings
) -> None:
    for epoch in (0, 3):
        alone, many = (
            batches_of(50, augment=changes, num_workers=number).epoch(epoch) for number in (0, num_workers)
        )
        assert_equal(alone, many)


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
    [
        {"seed": 1},
        {"batch_size": 4},
        {"augment": AugmentSettings()},
        {"augment": MIXED},
        {"rows": np.arange(49)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_state_of_another_stream_is_refused(options: dict[str, object]) -> None:
    state = batches_of(50).state(0, 2)
    with pytest.raises(TrainingError, match="resume with the same recipe"):
        batches_of(50, **options).resume(state)


def test_an_epoch_left_early_leaves_no_threads() -> None:
    before = set(threading.enumerate())
    for batch in batches_of(200, num_workers=2, batch_size=2).epoch(0):
        assert len(batch.rows) == 2
        break
    for thread in threading.enumerate():
        if thread.name.startswith("grain"):
            thread.join(timeout=5)
    assert set(threading.enumerate()) <= before


def test_a_sample_shows_training_images_as_they_are() -> None:
    batches = batches_of(20, rows=np.arange(5, 15))
    sample = batches.sample(4)
    of_rows = batches.cached.images(np.arange(5, 15))
    assert sample.shape == (4, 16, 16)
    assert all((image == of_rows).all(axis=(1, 2)).any() for image in sample)
    np.testing.assert_array_equal(sample, batches.sample(4))
    assert len(batches.sample(100)) == 10


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    processes=st.integers(1, 5),
    start=st.integers(0, 6),
    mixup=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 3),
)
def test_processes_together_see_what_one_alone_would_see(
    count: int, batch_size: int, processes: int, start: int, mixup: float, seed: int
) -> None:
    changes = CHANGES.model_copy(update={"mixup": mixup})
    batches = batches_of(count, batch_size=batch_size, augment=changes, seed=seed)
    alone = list(batches.epoch(2))[start:]
    for index in range(processes):
        shard = (index, processes)
        assert_equal(
            batches.epoch(2, start=start, shard=shard), [part_of(batch, shard=shard) for batch in alone]
        )


def test_a_process_for_which_a_batch_has_no_image_gets_an_empty_one() -> None:
    batches = batches_of(10, augment=MIXED)
    *_, last = batches.epoch(0, shard=(3, 4))
    assert (last.images.shape, last.labels.shape, last.rows.shape) == ((0, 16, 16), (0, 3), (0,))
    assert (last.images.dtype, last.labels.dtype, last.rows.dtype) == (np.uint8, np.float32, np.int64)


@pytest.mark.parametrize("changes", [CHANGES, MIXED], ids=["plain", "mixup"])
def test_a_state_goes_on_with_any_number_of_processes(changes: AugmentSettings) -> None:
    batches = batches_of(50, augment=changes)
    rest = list(batches.epoch(5))[3:]
    for shard in [(0, 2), (1, 2), (2, 3)]:
        assert_equal(
            batches.resume(batches.state(5, 3), shard=shard), [part_of(batch, shard=shard) for batch in rest]
        )


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_there_is_not_is_refused(shard: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="expected an index from 0 and a count above it"):
        next(batches_of(5).epoch(0, shard=shard))


def test_a_process_prepares_no_image_twice_and_none_that_it_does_not_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepared = []
    augment = hilum.data.batches.augment

    def counting(image: np.ndarray, *rest: object) -> np.ndarray:
        prepared[-1] += 1
        return augment(image, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(hilum.data.batches, "augment", counting)
    for changes, shard in [(CHANGES, (0, 1)), (CHANGES, (1, 4)), (MIXED, (0, 1)), (MIXED, (1, 4))]:
        prepared.append(0)
        list(batches_of(64, batch_size=16, augment=changes).epoch(0, shard=shard))
    plain, plain_part, mixed, mixed_part = prepared
    assert (plain, plain_part, mixed) == (64, 16, 64)
    assert 16 < mixed_part <= 32


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(2, 12), st.floats(0.01, 10), st.integers(0, 100))
def test_mixup_blends_each_image_and_its_labels_with_those_of_a_partner(
    count: int, batch_size: int, alpha: float, seed: int
) -> None:
    # Each row has a finding of its own, so that the labels tell who was blended, and how much of it.
    options = {"labels": np.eye(count, dtype=np.float32), "batch_size": batch_size, "seed": seed}
    plain = batches_of(count, augment=CHANGES, **options).epoch(1)
    mixed = batches_of(count, augment=CHANGES.model_copy(update={"mixup": alpha}), **options).epoch(1)
    for before, after in zip(plain, mixed, strict=True):
        np.testing.assert_array_equal(after.rows, before.rows)
        shares = after.labels[:, before.rows]
        np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-6)
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
        assert len(np.unique(np.diag(shares)[np.diag(shares) < 1])) <= 1
        blend = np.einsum("ij,jxy->ixy", shares.astype(float), before.images)
        np.testing.assert_allclose(after.images, blend, atol=0.501)


def test_the_share_follows_the_beta_distribution_and_partners_are_uniform() -> None:
    batches = batches_of(50, augment=MIXED)
    draws = [batches._pairs(epoch, step, 4) for epoch in range(100) for step in range(6)]
    shares, partners = zip(*draws, strict=True)
    assert len(set(shares)) > 590
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 0.01
    # The first of four: each of them 150 times, give or take four deviations.
    assert (np.abs(np.bincount([partner[0] for partner in partners]) - 150) < 43).all()


def test_a_label_unknown_in_either_of_a_pair_is_unknown() -> None:
    labels = np.array([[0.0], [1.0], [np.nan], [np.nan]], np.float32)
    options = {"augment": AugmentSettings(mixup=1.0), "batch_size": 4}
    pairs = [next(batches_of(4, labels=np.eye(4), **options).epoch(epoch)).labels for epoch in range(20)]
    blends = [next(batches_of(4, labels=labels, **options).epoch(epoch)).labels for epoch in range(20)]
    for pair, blend in zip(pairs, blends, strict=True):
        np.testing.assert_array_equal(np.isnan(blend[:, 0]), (pair[:, 2:] > 0).any(axis=1))
    assert 0 < np.isnan(np.concatenate(blends)).mean() < 1


def test_rows_without_an_image_are_refused() -> None:
    options = {"batch_size": 2, "augment": CHANGES, "seed": 0, "num_workers": 0}
    cached, labels = cached_of(5, unreadable=[2, 4]), labels_of(5)
    with pytest.raises(DataError, match="2 of 5 images could not be read"):
        training_batches(cached, np.arange(5), labels, **options)  # type: ignore[arg-type]
    kept = training_batches(cached, np.array([0, 1, 3]), labels, **options)  # type: ignore[arg-type]
    assert kept.steps == 1


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="there are no images"):
        batches_of(5, rows=np.array([], dtype=np.int64))


def test_labels_of_the_rows_alone_are_refused() -> None:
    with pytest.raises(UsageError, match=r"labels have the shape \(3, 3\)"):
        batches_of(5, rows=np.arange(3), labels=labels_of(3))


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"num_workers": -1}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(option: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected"):
        batches_of(5, **option)


def test_frameworks_are_not_imported_and_logging_is_left_alone() -> None:
    script = """
import logging, sys
import hilum.data.batches
heavy = {"grain", "torch", "tensorflow", "jax", "keras"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
hilum.data.batches.load_grain()
assert not (heavy - {"grain"}) & set(sys.modules), heavy & set(sys.modules)
assert not logging.root.handlers
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
