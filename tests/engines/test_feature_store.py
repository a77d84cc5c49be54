"""What the trainings of a study share, with a backbone that any test can compute."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from hilum.data.batches import fingerprint, training_batches
from hilum.data.cache import Cached
from hilum.engines import Hooks, Validation, feature_store, features
from hilum.engines.feature_store import FeatureFile, Shared, digest
from hilum.engines.features import Extractor, store_features
from hilum.errors import NoRoomError, StoppedError
from hilum.recipe import AugmentSettings

SIZE, NUMBER, VERSIONS, BLOCK = 8, 40, 2, 5
AUGMENT = AugmentSettings(brightness=0.5, rotation=20.0)


def cached():
    pixels = np.random.default_rng(0).integers(0, 256, (NUMBER, SIZE, SIZE)).astype(np.uint8)
    side = np.full(NUMBER, SIZE, np.int32)
    empty = pd.DataFrame(columns=["image", "reason"])
    return Cached(pixels=pixels, slots=np.arange(NUMBER), quarantine=empty, hits=0, width=side, height=side)


class Backbone:
    """Computes something of each image, and remembers which it was given."""

    def __init__(self, seconds=0.0):
        self.seen, self.seconds = [], seconds

    def __call__(self, images):
        self.seen += map(fingerprint, images)
        time.sleep(self.seconds)
        images = images.astype(np.float32)
        return np.stack([images[:, 0, 0], images.mean((1, 2)), images.std((1, 2))], 1)


def fold(shared, folder, *, train=range(NUMBER), val=range(4), backbone=None, batch_size=4, hooks=Hooks()):  # noqa: B008 (frozen)
    images, labels = cached(), np.arange(NUMBER, dtype=np.float32)[:, None] % 2
    batches = training_batches(
        images,
        np.array(train),
        labels,
        batch_size=batch_size,
        augment=AUGMENT,
        seed=3,
        num_workers=2,
    )
    with ThreadPoolExecutor(2) as pool:
        return store_features(
            batches,
            Validation(images.images(np.array(val)), labels[list(val)]),
            Extractor(backbone or Backbone(), BLOCK, pool, "x"),
            versions=VERSIONS,
            folder=folder,
            hooks=hooks,
            shared=shared,
        )


def assert_same(found, expected):
    (ours, our_validation), (theirs, their_validation) = found, expected
    np.testing.assert_array_equal(our_validation.images, their_validation.images)
    for epoch in range(1, 3):
        for one, other in zip(ours.epoch(epoch), theirs.epoch(epoch), strict=True):
            np.testing.assert_array_equal(one.images, other.images)
            np.testing.assert_array_equal(one.rows, other.rows)


rows = st.lists(st.integers(0, NUMBER - 1), min_size=1, max_size=30)


@settings(max_examples=15, deadline=None)
@given(folds=st.lists(st.tuples(rows, rows, st.integers(2, 9)), min_size=1, max_size=4))
def test_any_sequence_of_folds_gives_the_features_of_each_alone_and_computes_none_twice(
    folds, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("study")
    backbone = Backbone()
    for train, val, batch_size in folds:
        given_ = {"train": train, "val": val, "batch_size": batch_size}
        assert_same(
            fold(Shared(folder / "features", "x"), folder, backbone=backbone, **given_),
            fold(None, folder, **given_),
        )

    as_is = {row for train, val, _ in folds for row in (*train, *val)}
    changed = {row for train, _, _ in folds for row in train}
    assert len(set(backbone.seen)) == len(as_is) + len(changed)
    assert len(backbone.seen) <= len(as_is) + len(changed) + len(folds) * (BLOCK - 1), "but to fill blocks up"


def test_what_is_there_is_told_and_not_computed(tmp_path):
    shared, backbone, notes = Shared(tmp_path / "features", "x"), Backbone(), []
    fold(shared, tmp_path, train=range(20), val=range(20, 25))

    fold(shared, tmp_path, train=range(10, 30), backbone=backbone, hooks=Hooks(on_note=notes.append))

    # Of 20 images in two versions, and four that steer, there are 15 and 4 as they are and 10 changed.
    assert notes == ["features: 29 of 44 images (2 versions of each in training) are there already"]
    assert len(backbone.seen) == 15


def test_versions_depend_on_nothing_but_the_picture_seed_and_settings():
    one, other = (
        training_batches(
            found,
            rows,
            np.zeros((NUMBER, 1)),
            batch_size=size,
            augment=AUGMENT,
            seed=3,
            num_workers=0,
        )
        for found, rows, size in (
            (cached(), np.arange(NUMBER), 4),
            (shifted(cached(), 7), np.arange(3, 30), 16),
        )
    )

    np.testing.assert_array_equal(one.version(9, 2), other.version(16, 2))
    assert (one.version(9, 1) != one.version(9, 2)).any()
    np.testing.assert_array_equal(one.version(9, 0), cached().pixels[9])


def shifted(found, by):
    """The same pictures in other rows."""
    return Cached(
        pixels=found.pixels,
        slots=np.roll(found.slots, by),
        quarantine=found.quarantine,
        hits=0,
        width=found.width,
        height=found.height,
    )


def test_two_at_once_compute_nothing_twice(tmp_path):
    shared, backbones, found = Shared(tmp_path / "features", "x"), (Backbone(0.02), Backbone(0.02)), {}

    def work(number):
        found[number] = fold(shared, tmp_path, backbone=backbones[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    seen = [name for backbone in backbones for name in backbone.seen]
    assert len(set(seen)) == VERSIONS * NUMBER
    assert len(seen) <= VERSIONS * NUMBER + 2 * (BLOCK - 1)
    for number in range(2):
        assert_same(found[number], fold(None, tmp_path))


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_feature_store
from hilum.engines import features
from hilum.engines.feature_store import FeatureFile, Shared

features.AHEAD = 1
writes, write = 0, FeatureFile._write

def dying(self, file, start, content):
    global writes
    writes += 1
    if writes == int(sys.argv[3]):
        write(self, file, start, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, file, start, content)

FeatureFile._write = dying
folder = Path(sys.argv[2])
test_feature_store.fold(Shared(folder / "features", "x"), folder)
"""


@pytest.mark.parametrize("write", [1, 2, 3, 8, 9])
def test_a_worker_killed_while_it_writes_leaves_nothing_wrong(tmp_path, write):
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), str(write)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    backbone = Backbone()

    found = fold(Shared(tmp_path / "features", "x"), tmp_path, backbone=backbone)

    assert_same(found, fold(None, tmp_path))
    if write > 3:
        assert len(backbone.seen) < VERSIONS * NUMBER, "what it finished is there"


def test_another_goes_on_where_one_died_that_it_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "POLL", 0.01)
    shared, backbone = Shared(tmp_path / "features", "x"), Backbone()
    with closing(shared.open(1, AUGMENT, 3)) as holder, holder.locked(0) as alone:
        assert alone
        waiting = threading.Thread(target=fold, args=(shared, tmp_path), kwargs={"backbone": backbone})
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive()
    waiting.join(10)

    assert not waiting.is_alive()
    assert len(set(backbone.seen)) == VERSIONS * NUMBER


def test_whoever_waits_for_another_hears_that_it_should_stop(tmp_path):
    shared, asked = Shared(tmp_path / "features", "x"), threading.Event()
    threading.Timer(0.2, asked.set).start()
    with closing(shared.open(0, AUGMENT, 3)) as holder, holder.locked(0), pytest.raises(StoppedError):
        fold(shared, tmp_path, hooks=Hooks(should_stop=asked.is_set))


@pytest.mark.parametrize("shared", [True, False])
def test_a_full_disk_is_told_and_what_is_done_stays(tmp_path, monkeypatch, shared):
    monkeypatch.setattr(features, "AHEAD", 1)
    place = Shared(tmp_path / "features", "x") if shared else None
    with monkeypatch.context() as patch:
        room = iter([10**9] * 6)
        patch.setattr(feature_store.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(room, 0)))
        mend = "free some space and .*, or set" if shared else "free some space, or set"
        with pytest.raises(NoRoomError, match=f"No space left on device; {mend} train.stored_versions=0"):
            fold(place, tmp_path)
    backbone = Backbone()

    assert_same(fold(place, tmp_path, backbone=backbone), fold(None, tmp_path))

    assert (len(backbone.seen) < VERSIONS * NUMBER) == shared


def test_a_file_whose_features_were_cut_off_computes_them_again(tmp_path):
    shared = Shared(tmp_path / "features", "x")
    fold(shared, tmp_path)
    for path in shared.folder.glob("*.f32"):
        os.truncate(path, path.stat().st_size // 2)

    assert_same(fold(shared, tmp_path), fold(None, tmp_path))


def test_only_later_versions_have_a_file_for_each_seed_and_augmentation(tmp_path):
    def names(version, augment=AUGMENT, seed=3, backbone="x"):
        return Shared(tmp_path, backbone).name(version, augment, seed)

    other = AUGMENT.model_copy(update={"rotation": 21.0})
    assert names(0) == names(0, augment=other) == names(0, seed=4)
    assert len({names(0), names(1), names(2), names(1, augment=other), names(1, seed=4)}) == 5
    assert names(0) != names(0, backbone="y")


def test_a_digest_is_of_contents_shapes_and_types():
    array = np.arange(6, dtype=np.float32)
    digests = {
        digest(array),
        digest(array.reshape(2, 3)),
        digest(array.astype(np.float64)),
        digest(array + 1),
        digest(str(array)),
        digest("a", "b"),
        digest("ab"),
        digest(1),
        digest(1.0),
    }

    assert len(digests) == 9
    assert digest(array[::2]) == digest(array[::2].copy())


def test_what_a_study_shared_is_removed_and_its_size_told(tmp_path):
    folder = tmp_path / "features"
    assert feature_store.remove_features(folder) == ""
    with closing(FeatureFile(folder, "x")) as one:
        one.add([b"0123456789abcdef"], np.ones((1, 250_000), np.float32))
        array = one.array()

    assert feature_store.remove_features(folder) == "features of the frozen backbone removed, 1.0 MB"
    assert not folder.exists()
    assert array.all(), "whoever has it open still reads it"
