"""What the trainings of a study share: the same study as without, a fraction of the passes."""

import numpy as np
import pandas as pd
import pytest

from hilum.data import phantom
from hilum.engines import feature_store
from hilum.engines.torch import TorchEngine
from hilum.engines.torch.models import TorchClassifier
from hilum.errors import NoRoomError
from hilum.recipe import load_recipe
from hilum.training.crossval import FoldPlan, cross_validate
from hilum.training.train import train
from hilum.tuning import executors
from hilum.tuning.tune import TuneOptions, tune

SMALL = [
    "model.architecture=custom_cnn",
    "model.hidden=[8]",
    "data.size=32",
    "train.epochs=2",
    "train.precision=fp32",
    "task.findings=['Lung Opacity']",
    "task.negatives=all-others",
    "split.method=folders",
    "split.val=0.3",
]
GRID = {"train.learning_rate": [1e-3, 1e-2], "train.batch_size": [8, 16]}
VERSIONS = 3


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    found = phantom.generate(tmp_path_factory.mktemp("phantoms"), num_images=60, size=64, seed=11)
    patients = {name: place for place, name in enumerate(sorted(set(found.frame["patient"])))}
    parts = ["test" if patients[name] % 4 == 0 else "train" for name in found.frame["patient"]]
    return found.with_split(parts)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory, table):
    """A recipe with a frozen backbone, whose weights one epoch has given."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    learning = load_recipe(
        "kermany-densenet121", [*SMALL, "model.freeze=none", "model.weights=none", "train.epochs=1"]
    )
    weights = train(learning, table, folder).folder / "bundle" / "weights" / "model.safetensors"
    return load_recipe(
        "kermany-densenet121", [*SMALL, f"model.weights={weights}", f"train.stored_versions={VERSIONS}"]
    )


@pytest.fixture
def passed(monkeypatch):
    """How many images each call of a frozen backbone had."""
    found, stored = [], TorchClassifier.stored

    def counted(self, images):
        found.append(len(images))
        return stored(self, images)

    monkeypatch.setattr(TorchClassifier, "stored", counted)
    return found


def test_trials_share_what_they_have_in_common_and_come_to_the_same(
    table, frozen, tmp_path, passed, monkeypatch
):
    shared = tune(frozen, table, tmp_path / "shared", vary=GRID)
    together = sum(passed)
    monkeypatch.setattr(executors.Trainer, "features_folder", None)
    alone = tune(frozen, table, tmp_path / "alone", vary=GRID)

    pd.testing.assert_frame_equal(
        shared.trials.drop(columns="seconds"), alone.trials.drop(columns="seconds"), check_exact=True
    )
    assert sum(passed) - together == 4 * together
    assert not (tmp_path / "shared" / "features").exists()


def test_an_interrupted_study_keeps_what_is_stored_and_goes_on_with_it(
    table, frozen, tmp_path, passed, monkeypatch
):
    trials, fit = [], TorchEngine.fit

    def interrupted(self, job, hooks):
        trials.append(job)
        if len(trials) == 2:
            raise KeyboardInterrupt
        return fit(self, job, hooks)

    with monkeypatch.context() as patch:
        patch.setattr(TorchEngine, "fit", interrupted)
        assert tune(frozen, table, tmp_path, vary=GRID).interrupted
    assert len(list((tmp_path / "features").glob("*.f32"))) == VERSIONS
    before = len(passed)

    study = tune(frozen, table, tmp_path, vary=GRID)

    assert study.trials["state"].tolist() == ["complete"] * 4
    assert len(passed) == before
    assert not (tmp_path / "features").exists()


def test_a_full_disk_ends_the_study_and_fails_no_trial(table, frozen, tmp_path, monkeypatch):
    def full(_shelf, _file, _start, _content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(feature_store.FeatureFile, "_write", full)
        with pytest.raises(NoRoomError, match="free some space and run the same command to go on"):
            tune(frozen, table, tmp_path, vary=GRID)

    assert tune(frozen, table, tmp_path, vary=GRID).trials["state"].tolist() == ["complete"] * 4


@pytest.mark.parametrize(
    ("key", "values", "shares"),
    [
        ("augment.rotation", (1.0, 9.0), False),
        ("augment.rotation", [1.0, 9.0], True),
        ("train.seed", (0, 9), False),
        ("train.learning_rate", (1e-4, 1e-2), True),
    ],
)
def test_a_range_of_changes_to_images_is_not_hoarded(
    table, frozen, tmp_path, monkeypatch, key, values, shares
):
    found = []

    def work(_queue, trainer, _tell):
        found.append(trainer.features_folder is not None)
        raise NoRoomError

    monkeypatch.setattr("hilum.tuning.tune.work", work)
    search = "grid" if isinstance(values, list) else "tpe"
    with pytest.raises(NoRoomError):
        tune(frozen, table, tmp_path, vary={key: values}, search=search, options=TuneOptions(trials=2))

    assert found == [shares]


@pytest.mark.slow
def test_folds_share_each_image_and_come_to_the_same(table, frozen, tmp_path, passed, monkeypatch):
    shared = cross_validate(frozen, table, tmp_path / "shared", plan=FoldPlan(3), replicates=100)
    together = sum(passed)
    of_fold = train

    def alone(*args, options, **more):
        assert options.features is not None
        return of_fold(*args, **more)

    monkeypatch.setattr("hilum.training.crossval.train", alone)
    expected = cross_validate(frozen, table, tmp_path / "alone", plan=FoldPlan(3), replicates=100)

    np.testing.assert_array_equal(shared.evaluation.probabilities, expected.evaluation.probabilities)
    images = int((table.frame["split"] == "train").sum())
    assert together <= VERSIONS * images + 3 * 7, "each once in each version, and blocks of eight filled up"
    assert sum(passed) > 2.2 * together
    assert not (tmp_path / "shared" / "features").exists()
