import math
import random
import shutil
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hilum.data.batches import training_batches
from hilum.data.cache import Cached
from hilum.engines import Hooks, Validation
from hilum.engines.keras import KerasEngine, state, train
from hilum.engines.keras.backbones import layers
from hilum.engines.validation import validation_figures
from hilum.errors import NotANumberError, RecipeError, StoppedError, TrainingError, UsageError
from hilum.recipe import AugmentSettings, load_recipe

SIZE, NUMBER = 32, 48


@pytest.fixture(scope="module")
def cached():
    """Images whose mean grey tells the label."""
    rng = np.random.default_rng(0)
    labels = np.arange(NUMBER) % 2
    pixels = rng.integers(0, 100, (NUMBER, SIZE, SIZE)) + 80 * labels[:, None, None]
    side = np.full(NUMBER, SIZE, np.int32)
    return Cached(
        pixels=pixels.astype(np.uint8),
        slots=np.arange(NUMBER),
        quarantine=pd.DataFrame(columns=["image", "reason"]),
        hits=0,
        width=side,
        height=side,
    )


def settings(*changes):
    return load_recipe(
        "kermany-densenet121",
        [
            "model.architecture=custom_cnn",
            "model.weights=none",
            "model.freeze=none",
            "model.hidden=[8]",
            "train.epochs=3",
            "train.batch_size=8",
            "train.learning_rate=1e-3",
            "train.precision=fp32",
            f"data.size={SIZE}",
            *changes,
        ],
    )


def nothing(_what):
    pass


def fit(
    cached,
    state,
    *changes,
    resume=False,
    on_epoch=nothing,
    on_step=nothing,
    should_stop=lambda: False,
    augment=AugmentSettings(rotation=5.0),  # noqa: B008 (frozen)
    features=None,
    rows=range(32),
    **engine,
):
    labels = (np.arange(NUMBER) % 2).astype(np.float32)[:, None]
    chosen = settings(*changes)
    batches = training_batches(
        cached,
        np.array(rows),
        labels,
        batch_size=chosen.train.batch_size,
        augment=augment,
        seed=0,
        num_workers=0,
    )
    return KerasEngine(**engine).fit(
        chosen,
        batches,
        Validation(cached.images(np.arange(32, NUMBER)), labels[32:]),
        class_weights=np.ones((1, 2), np.float32),
        state=state,
        resume=resume,
        hooks=Hooks(on_step, on_epoch, should_stop),
        features=features,
    )


class CutOffError(Exception):
    """Stands for whatever ends a process."""


def cut_off_after(epochs):
    def on_epoch(history):
        if len(history) == epochs:
            raise CutOffError

    return on_epoch


def test_it_learns_what_is_there_to_learn(cached, tmp_path):
    trained = fit(cached, tmp_path / "state.safetensors", "train.epochs=6")

    assert trained.history["val_auroc"].max() > 0.95
    assert trained.history["train_loss"].iloc[-1] < trained.history["train_loss"].iloc[0]
    assert trained.best_epoch == int(trained.history["val_loss"].idxmin()) + 1
    assert list(trained.history["epoch"]) == [1, 2, 3, 4, 5, 6]


def test_a_resumed_run_ends_with_the_weights_of_one_never_cut_off(cached, tmp_path):
    whole = fit(cached, tmp_path / "whole.safetensors", "model.dropout=0.5")
    with pytest.raises(CutOffError):
        fit(cached, tmp_path / "cut.safetensors", "model.dropout=0.5", on_epoch=cut_off_after(2))

    resumed = fit(cached, tmp_path / "cut.safetensors", "model.dropout=0.5", resume=True)

    assert_equal_weights(whole, resumed)
    columns = ["epoch", "train_loss", "val_loss", "learning_rate"]
    pd.testing.assert_frame_equal(resumed.history[columns], whole.history[columns])


def test_resuming_a_finished_run_trains_no_further(cached, tmp_path):
    first = fit(cached, tmp_path / "state.safetensors")

    again = fit(cached, tmp_path / "state.safetensors", resume=True)

    assert len(again.history) == len(first.history)
    assert_equal_weights(first, again)


def test_a_damaged_state_is_told_in_words(cached, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"garbage")

    with pytest.raises(TrainingError, match="cannot be read"):
        fit(cached, tmp_path / "state.safetensors", resume=True)


def test_ctrl_c_after_an_epoch_keeps_the_best_so_far(cached, tmp_path):
    def stop_in_second_epoch(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    trained = fit(cached, tmp_path / "state.safetensors", on_step=stop_in_second_epoch)

    assert trained.stopped == "interrupted"
    assert trained.best_epoch == 1


def test_ctrl_c_before_the_first_epoch_ends_is_passed_on(cached, tmp_path):
    def stop(_progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(cached, tmp_path / "state.safetensors", on_step=stop)

    assert not (tmp_path / "state.safetensors").exists()


def test_a_loss_that_is_not_a_number_stops_training_with_a_remedy(cached, tmp_path, monkeypatch):
    def broken(*_recipe, **_options):
        return lambda outputs, *_: (tf.reduce_sum(outputs) * math.nan, tf.constant(8.0))

    monkeypatch.setattr(train, "make_loss", broken)

    with pytest.raises(
        NotANumberError, match=r"loss became nan in epoch 1, step 1; lower train.lear"
    ) as told:
        fit(cached, tmp_path / "state.safetensors")
    assert len(set(told.value.rows)) == 8, "the batch's rows are kept"


def test_early_stopping_is_the_policys(cached, tmp_path):
    trained = fit(
        cached, tmp_path / "s.safetensors", "train.epochs=50", "train.patience=1", "train.learning_rate=0.1"
    )

    assert trained.stopped == "patience"
    assert len(trained.history) == trained.best_epoch + 1


def test_training_does_not_touch_the_global_random_state(cached, tmp_path):
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002 (the global one is meant)

    fit(cached, tmp_path / "state.safetensors", "train.epochs=1")

    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


def test_bf16_and_fp32_agree_roughly(cached, tmp_path):
    exact = fit(cached, tmp_path / "a.safetensors")
    rounded = fit(cached, tmp_path / "b.safetensors", "train.precision=bf16")

    assert rounded.precision == "bf16"
    np.testing.assert_allclose(rounded.history["train_loss"], exact.history["train_loss"], rtol=0.2)
    assert not np.array_equal(rounded.history["train_loss"], exact.history["train_loss"])


def assert_equal_weights(one, other):
    for ours, theirs in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


EVERYTHING = [
    "model.dropout=0.5",
    "model.backbone_dropout=0.2",
    "model.block=cbam",
    "model.pool=attention",
    "train.accumulate=3",
    "train.ema=0.9",
    "train.clip_norm=1",
    "train.schedule=one-cycle",
    "train.loss=focal",
    "train.label_smoothing=0.1",
    "train.depth_rate=0.5",
    "train.deterministic=true",
    "train.batch_size=4",
]


@pytest.mark.parametrize(
    "optimizer",
    ["adam", pytest.param("adamw", marks=pytest.mark.full), "sgd"],  # Adam and AdamW keep the same state
)
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_as_one_that_never_was(cached, tmp_path, optimizer):
    changes = [*EVERYTHING, f"train.optimizer={optimizer}"]
    whole = fit(cached, tmp_path / "whole.safetensors", *changes)
    steps = []

    with pytest.raises(StoppedError, match=r"in epoch 2 after step 6 of 8; the state is saved"):
        fit(
            cached,
            tmp_path / "cut.safetensors",
            *changes,
            on_step=steps.append,
            should_stop=lambda: len(steps) >= 8 + 5,
        )
    resumed = fit(cached, tmp_path / "cut.safetensors", *changes, resume=True)

    assert_equal_weights(whole, resumed)
    pd.testing.assert_frame_equal(
        resumed.history.drop(columns="seconds"), whole.history.drop(columns="seconds")
    )


def test_a_state_of_other_images_is_refused(cached, tmp_path):
    fit(cached, tmp_path / "state.safetensors")

    with pytest.raises(TrainingError, match="other images, labels, seed, batch size"):
        fit(cached, tmp_path / "state.safetensors", "train.batch_size=16", resume=True)


@pytest.fixture(scope="module")
def weights(cached, tmp_path_factory):
    """A file of weights, so that a backbone may be frozen."""
    folder = tmp_path_factory.mktemp("weights")
    first = fit(cached, folder / "s.safetensors", "train.epochs=1")
    KerasEngine().export(first, size=SIZE, graph=folder / "m.onnx", weights=folder)
    return folder / "model.keras"


def test_accumulated_small_batches_are_one_large_batch(cached, tmp_path, weights):
    frozen = [f"model.weights={weights}", "model.freeze=backbone", "model.dropout=0", "train.optimizer=sgd"]
    large = fit(cached, tmp_path / "a.safetensors", *frozen, "train.batch_size=16")
    small = fit(cached, tmp_path / "b.safetensors", *frozen, "train.batch_size=8", "train.accumulate=2")

    np.testing.assert_allclose(small.history["val_loss"], large.history["val_loss"], rtol=1e-5)
    assert large.history["val_loss"].diff().abs().min() > 1e-4


def test_the_moving_average_is_what_is_validated_and_kept(cached, tmp_path):
    changes = ["train.epochs=4", "train.ema=0.99", "train.monitor=val_auroc", "train.keep_final=true"]
    trained = fit(cached, tmp_path / "s.safetensors", *changes)
    labels = (np.arange(NUMBER) % 2)[32:, None].astype(np.float32)

    outputs = train.logits(trained.final, cached.images(np.arange(32, NUMBER)))
    found = validation_figures(labels, outputs, multiclass=False)

    assert found["val_auroc"] == pytest.approx(trained.history["val_auroc"].iloc[-1])
    raw, _ = state.read(tmp_path / "s.safetensors")
    assert not np.array_equal(raw["averages"][-2], trained.model.head.last.kernel.numpy() * 0)
    np.testing.assert_array_equal(trained.final.get_weights()[-2], raw["averages"][-2])
    assert not any(np.array_equal(value, raw["averages"][-2]) for value in raw["model"])


def test_best_and_final_are_both_kept_where_asked(cached, tmp_path):
    trained = fit(cached, tmp_path / "s.safetensors", "train.epochs=6", "train.keep_final=true")
    without = fit(cached, tmp_path / "t.safetensors", "train.epochs=1")

    assert without.final is None
    weights = [model.head.last.kernel.numpy() for model in (trained.model, trained.final)]
    assert np.array_equal(*weights) == (trained.best_epoch == 6)


def test_layers_learn_only_once_they_have_thawed(cached, tmp_path, weights):
    changes = [
        f"model.weights={weights}",
        "model.freeze=backbone",
        "train.unfreeze_after=1",
        "train.unfreeze_share=0.5",
        "train.keep_final=true",
    ]

    def kernels(*more):
        final = fit(cached, tmp_path / "s.safetensors", *changes, *more).final
        return [layer.get_weights()[0] for layer in layers(final.backbone)]

    before, one, three = kernels("train.learning_rate=1e-30"), kernels("train.epochs=1"), kernels()

    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(one, before, strict=True))
    changed = [not np.array_equal(ours, theirs) for ours, theirs in zip(three, before, strict=True)]
    assert changed == [False] * 4 + [True] * 4


def test_discriminative_rates_slow_the_layers_near_the_image(cached, tmp_path):
    def moved(*changes):
        common = [
            "train.epochs=1",
            "train.optimizer=sgd",
            "train.learning_rate=0.01",
            "train.keep_final=true",
        ]
        still = fit(cached, tmp_path / "s.safetensors", *common, "train.learning_rate=1e-30").final
        now = fit(cached, tmp_path / "s.safetensors", *common, *changes).final
        return float(np.abs(now.get_weights()[0] - still.get_weights()[0]).max())

    assert moved("train.backbone_rate=0.5", "train.depth_rate=0.01") < 0.02 * moved()


def test_out_of_memory_names_a_remedy(cached, tmp_path, monkeypatch):
    def greedy(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(train, "to_float", greedy)

    with pytest.raises(TrainingError, match=r"set train.batch_size=4 and train.accumulate=2 \(the same"):
        fit(cached, tmp_path / "state.safetensors")


def test_a_full_disk_is_told_and_the_last_state_stays(cached, tmp_path, monkeypatch):
    with pytest.raises(CutOffError):
        fit(cached, tmp_path / "state.safetensors", on_epoch=cut_off_after(1))
    before = (tmp_path / "state.safetensors").read_bytes()

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", full)
        with pytest.raises(TrainingError, match=r"No space left on device.*free some space"):
            fit(cached, tmp_path / "state.safetensors", resume=True)

    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "state.safetensors"]
    assert len(fit(cached, tmp_path / "state.safetensors", resume=True).history) == 3


def test_the_profile_covers_the_time(cached, tmp_path):
    profile = fit(cached, tmp_path / "s.safetensors").profile

    assert set(profile) == {"features", "step", "validation", "rest"}
    assert profile.pop("features") == 0, "nothing is stored"
    assert all(seconds > 0 for seconds in profile.values())


def test_keras_own_callbacks_find_every_epoch_and_its_figures(cached, tmp_path, capsys):
    callbacks = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "board"),
    ]

    trained = fit(cached, tmp_path / "s.safetensors", callbacks=callbacks, verbose=2)

    log = pd.read_csv(tmp_path / "log.csv")
    assert list(log["epoch"]) == [0, 1, 2]
    np.testing.assert_allclose(log["loss"], trained.history["train_loss"])
    np.testing.assert_allclose(log["val_auroc"], trained.history["val_auroc"])
    np.testing.assert_allclose(log["learning_rate"], trained.history["learning_rate"])
    assert list((tmp_path / "board").rglob("events*"))
    shown = capsys.readouterr().out
    assert "Epoch 3/3" in shown
    assert "val_auroc" in shown


@pytest.mark.parametrize("monitor", ["val_average_precision", "val_accuracy", "val_f1", "val_recall"])
def test_any_figure_of_validation_may_steer(cached, tmp_path, monitor):
    trained = fit(cached, tmp_path / "s.safetensors", f"train.monitor={monitor}")

    assert trained.best_epoch == int(trained.history[monitor].idxmax()) + 1


def test_three_exclusive_classes_are_learned_by_softmax(cached, tmp_path):
    labels = np.eye(3, dtype=np.float32)[np.arange(NUMBER) % 3]
    pixels = (80 * (np.arange(NUMBER) % 3))[:, None, None] + np.zeros((1, SIZE, SIZE))
    noise = np.random.default_rng(1).integers(0, 60, pixels.shape)
    chosen = settings(
        "task.kind=multiclass", "task.findings=['No Finding', 'Mass', 'Nodule']", "task.negatives=all-others"
    )
    images = replace(cached, pixels=(pixels + noise).astype(np.uint8))
    batches = training_batches(
        images, np.arange(32), labels, batch_size=8, augment=AugmentSettings(), seed=0, num_workers=0
    )
    trained = KerasEngine().fit(
        chosen.model_copy(update={"train": chosen.train.model_copy(update={"epochs": 8})}),
        batches,
        Validation(images.images(np.arange(32, NUMBER)), labels[32:]),
        class_weights=np.ones((3, 2), np.float32),
        state=tmp_path / "s.safetensors",
        resume=False,
        hooks=Hooks(),
    )

    assert trained.history["val_accuracy"].max() > 0.9


def test_what_needs_no_data_is_refused_without_them():
    with pytest.raises(UsageError, match="the keras engine trains in one process"):
        KerasEngine().check(settings(), devices=2)
    with pytest.raises(RecipeError, match="nor a file that exists"):
        KerasEngine().check(settings("model.weights=none.npz"))


def test_several_processes_are_refused_in_words(cached, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")

    with pytest.raises(UsageError, match="trains in one process"):
        fit(cached, tmp_path / "s.safetensors")


@pytest.mark.parametrize("pool", ["average", "max", "attention", "flatten"])
def test_stored_features_train_the_head_as_images_do(cached, tmp_path, weights, pool):
    """Without augmentation and dropout every epoch sees the same features, stored or not."""
    common = [f"model.weights={weights}", "model.freeze=backbone", "model.dropout=0", f"model.pool={pool}"]
    plain = {"augment": AugmentSettings()}
    slow = fit(cached, tmp_path / "a.safetensors", *common, **plain)
    fast = fit(cached, tmp_path / "b.safetensors", *common, "train.stored_versions=1", **plain)

    for figure in ("train_loss", "val_loss"):
        np.testing.assert_allclose(fast.history[figure], slow.history[figure], rtol=1e-4)
    assert slow.history["val_loss"].diff().abs().min() > 1e-5, "something is learned"
    images = cached.images(np.arange(8))
    np.testing.assert_allclose(
        KerasEngine().logits(fast, images), KerasEngine().logits(slow, images), rtol=1e-3, atol=1e-4
    )


def test_a_run_on_stored_features_resumes_to_the_same_weights(cached, tmp_path, weights):
    changes = [
        f"model.weights={weights}",
        "model.freeze=backbone",
        "model.dropout=0.5",
        "train.stored_versions=2",
    ]
    whole = fit(cached, tmp_path / "whole.safetensors", *changes)
    with pytest.raises(CutOffError):
        fit(cached, tmp_path / "cut.safetensors", *changes, on_epoch=cut_off_after(2))

    resumed = fit(cached, tmp_path / "cut.safetensors", *changes, resume=True)

    assert_equal_weights(whole, resumed)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_shared_features_give_the_same_history_and_weights_to_the_bit(cached, tmp_path, weights, precision):
    """Whoever computed them: another fold, in blocks of other images, or a trial before."""
    changes = [
        f"model.weights={weights}",
        "model.freeze=backbone",
        "model.pool=max",
        "train.stored_versions=2",
        f"train.precision={precision}",
    ]
    alone = fit(cached, tmp_path / "a.safetensors", *changes)
    fit(cached, tmp_path / "b.safetensors", *changes, features=tmp_path / "features", rows=range(5, 16))

    shared = fit(cached, tmp_path / "c.safetensors", *changes, features=tmp_path / "features")

    pd.testing.assert_frame_equal(
        shared.history.drop(columns="seconds"), alone.history.drop(columns="seconds"), check_exact=True
    )
    assert_equal_weights(alone, shared)


def test_what_features_depend_on_has_shelves_of_its_own_and_nothing_else_has(cached, tmp_path, weights):
    def shelves(*changes, **options):
        common = [f"model.weights={weights}", "model.freeze=backbone", "train.epochs=1"]
        versions = ["train.stored_versions=2", "train.precision=fp32"]
        folder = tmp_path / "features"
        shutil.rmtree(folder, ignore_errors=True)
        fit(cached, tmp_path / "s.safetensors", *common, *versions, *changes, features=folder, **options)
        return {path.name for path in folder.glob("*.f32")}

    base = shelves()
    same = ["train.learning_rate=0.1", "model.dropout=0.1", "train.batch_size=4", "model.hidden=[4]"]
    assert shelves(*same, "train.optimizer=sgd", "train.loss=focal") == base
    assert len(base) == 2
    assert len(shelves(augment=AugmentSettings(rotation=6.0)) & base) == 1, "an image as it is stays so"
    for change in ("model.pool=attention", "model.scaling=unit", "train.precision=bf16"):
        assert not shelves(change) & base, change
    other = fit(cached, tmp_path / "s.safetensors", "train.epochs=1", "train.seed=1")
    KerasEngine().export(other, size=SIZE, graph=tmp_path / "m.onnx", weights=tmp_path)
    assert not shelves(f"model.weights={tmp_path / 'model.keras'}") & base
    assert shelves("model.freeze=none") == shelves("train.stored_versions=0") == set()
