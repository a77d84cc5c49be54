"""What every engine holds, as tests that each engine's own file collects with `from engines.contract import *`.

That file gives the fixture `side`, a `Side`: the engine, and how to look into its models. No process holds two
frameworks, so that the tests of each engine run in a process of their own.
"""

import math
import shutil
from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hilum.data.batches import training_batches
from hilum.data.cache import Cached
from hilum.engines import Hooks, TrainingJob, Validation, state_file
from hilum.engines.validation import validation_figures
from hilum.errors import NotANumberError, StoppedError, TrainingError
from hilum.recipe import AugmentSettings, load_recipe

SIZE, NUMBER = 32, 48
ONES = np.ones((3, 2), np.float32)
LOGITS = np.array([[0.3, -1.0, 2.0], [2.0, 0.5, -3.0]], np.float32)
LABELS = np.array([[1.0, math.nan, 0.0], [0.0, 1.0, 1.0]], np.float32)


class Side(ABC):
    """One engine, and how to look into its models.

    Attributes:
        engine: The engine.
        train: Its module `train`, whose `make_loss` and `to_float` tests replace.
        session: The class of its trainings, made of a job and hooks.
        weight_file: The file of native weights that it exports.
        profile_parts: Of a run's profile, beside `rest`.
        out_of_memory: What its framework raises where memory is not enough.
    """

    @abstractmethod
    def weights(self, model):
        """Every array of a model, by name."""

    @abstractmethod
    def head_kernel(self, model):
        """The kernel of the head's last layer."""

    @abstractmethod
    def backbone_kernels(self, model):
        """The first array of each layer of the backbone, from the image on."""

    @abstractmethod
    def layers(self, model):
        """Copies of every layer's parameters and statistics, the parameters first, from the image on."""

    @abstractmethod
    def head(self, model):
        """Copies of the head's kernels and biases in turn, from the feature map on."""

    @abstractmethod
    def set_head(self, model, arrays):
        """Put arrays as `head` returns them in the place of the head's own."""

    @abstractmethod
    def training_logits(self, model, images):
        """Logits of uint8 images, with dropout as in a step of training."""

    @abstractmethod
    def random_state(self):
        """The state of the global random numbers that the framework or Python draws from, as something comparable."""

    @abstractmethod
    def broken_loss(self):
        """A loss, as `make_loss` returns it, that is not a number."""

    @abstractmethod
    def loss(self, recipe, smoothing=0.0):
        """A function of logits, labels and class weights in NumPy -> the sum, the count, the gradient of the sum."""


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
    side,
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
    job = TrainingJob(
        chosen,
        batches,
        Validation(cached.images(np.arange(32, NUMBER)), labels[32:]),
        class_weights=np.ones((1, 2), np.float32),
        state=state,
        resume=resume,
        features=features,
    )
    return side.engine.fit(job, Hooks(on_step, on_epoch, should_stop))


class CutOffError(Exception):
    """Stands for whatever ends a process."""


def cut_off_after(epochs):
    def on_epoch(history):
        if len(history) == epochs:
            raise CutOffError

    return on_epoch


def test_it_learns_what_is_there_to_learn(side, cached, tmp_path):
    trained = fit(side, cached, tmp_path / "state.safetensors", "train.epochs=6")

    assert trained.history["val_auroc"].max() > 0.95
    assert trained.history["train_loss"].iloc[-1] < trained.history["train_loss"].iloc[0]
    assert trained.best_epoch == int(trained.history["val_loss"].idxmin()) + 1
    assert list(trained.history["epoch"]) == [1, 2, 3, 4, 5, 6]


def test_a_resumed_run_ends_with_the_weights_of_one_never_cut_off(side, cached, tmp_path):
    whole = fit(side, cached, tmp_path / "whole.safetensors", "model.dropout=0.5")
    with pytest.raises(CutOffError):
        fit(side, cached, tmp_path / "cut.safetensors", "model.dropout=0.5", on_epoch=cut_off_after(2))

    resumed = fit(side, cached, tmp_path / "cut.safetensors", "model.dropout=0.5", resume=True)

    assert_equal_weights(side, whole, resumed)
    columns = ["epoch", "train_loss", "val_loss", "learning_rate"]
    pd.testing.assert_frame_equal(resumed.history[columns], whole.history[columns])


def test_resuming_a_finished_run_trains_no_further(side, cached, tmp_path):
    first = fit(side, cached, tmp_path / "state.safetensors")

    again = fit(side, cached, tmp_path / "state.safetensors", resume=True)

    assert len(again.history) == len(first.history)
    assert_equal_weights(side, first, again)


def test_a_damaged_state_is_told_in_words(side, cached, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"garbage")

    with pytest.raises(TrainingError, match="cannot be read"):
        fit(side, cached, tmp_path / "state.safetensors", resume=True)


def test_ctrl_c_after_an_epoch_keeps_the_best_so_far(side, cached, tmp_path):
    def stop_in_second_epoch(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    trained = fit(side, cached, tmp_path / "state.safetensors", on_step=stop_in_second_epoch)

    assert trained.stopped == "interrupted"
    assert trained.best_epoch == 1


def test_ctrl_c_before_the_first_epoch_ends_is_passed_on(side, cached, tmp_path):
    def stop(_progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(side, cached, tmp_path / "state.safetensors", on_step=stop)

    assert not (tmp_path / "state.safetensors").exists()


def test_a_loss_that_is_not_a_number_stops_training_with_a_remedy(side, cached, tmp_path, monkeypatch):
    monkeypatch.setattr(side.train, "make_loss", lambda *_recipe, **_options: side.broken_loss())

    with pytest.raises(
        NotANumberError, match=r"loss became nan in epoch 1, step 1; lower train.lear"
    ) as raised:
        fit(side, cached, tmp_path / "state.safetensors")
    assert len(set(raised.value.rows)) == 8, "the batch's rows are kept"


def test_dropout_drops_half_of_the_units_in_training_and_none_afterwards(side, cached, tmp_path):
    number = 256
    trained = fit(
        side,
        cached,
        tmp_path / "s.safetensors",
        "train.epochs=1",
        f"model.hidden=[{number}]",
        "model.dropout=0.5",
    )
    kernel, bias, last, offset = side.head(trained.model)
    # Every unit gives 1, and the logit is their mean.
    side.set_head(trained.model, [0 * kernel, bias * 0 + 1, last * 0 + 1 / number, offset * 0])
    images = cached.images(np.arange(16))

    once, again = (side.training_logits(trained.model, images) for _ in range(2))

    assert not np.array_equal(once, again)
    kept = np.concatenate([once, again]) / 2  # what is kept counts twice
    assert kept.mean() == pytest.approx(0.5, abs=0.03)  # 8,192 draws: five deviations
    assert 0.2 < kept.min() < kept.max() < 0.8
    np.testing.assert_allclose(side.engine.logits(trained, images), 1, rtol=1e-6)


def test_the_loss_holds_l2_of_the_hidden_kernels_alone(side, cached, tmp_path):
    rate, l2, nesterov = 0.01, 0.1, 1.9  # of the gradient: the first step of SGD with momentum 0.9

    def head_after_a_step(*changes):
        common = [
            "train.optimizer=sgd",
            f"train.learning_rate={rate}",
            "train.epochs=1",
            "train.keep_final=true",
        ]
        trained = fit(side, cached, tmp_path / "s.safetensors", *common, *changes, rows=range(8))
        return side.head(trained.final)

    before = head_after_a_step("model.l2=0", "train.learning_rate=1e-30")
    without, penalised = head_after_a_step("model.l2=0"), head_after_a_step(f"model.l2={l2}")

    pulled = [ours - theirs for ours, theirs in zip(penalised, without, strict=True)]
    np.testing.assert_allclose(pulled[0], -rate * nesterov * 2 * l2 * before[0], rtol=1e-2, atol=1e-7)
    assert np.abs(pulled[0]).max() > 1e-5
    for others in pulled[1:]:
        np.testing.assert_allclose(others, 0, atol=1e-7)


def test_early_stopping_is_the_policys(side, cached, tmp_path):
    trained = fit(
        side,
        cached,
        tmp_path / "s.safetensors",
        "train.epochs=50",
        "train.patience=1",
        "train.learning_rate=0.1",
    )

    assert trained.stopped == "patience"
    assert len(trained.history) == trained.best_epoch + 1


def test_training_does_not_touch_the_global_random_state(side, cached, tmp_path):
    before = side.random_state()

    fit(side, cached, tmp_path / "state.safetensors", "train.epochs=1")

    assert side.random_state() == before


def test_bf16_and_fp32_agree_roughly(side, cached, tmp_path):
    exact = fit(side, cached, tmp_path / "a.safetensors")
    rounded = fit(side, cached, tmp_path / "b.safetensors", "train.precision=bf16")

    assert rounded.precision == "bf16"
    np.testing.assert_allclose(rounded.history["train_loss"], exact.history["train_loss"], rtol=0.2)
    assert not np.array_equal(rounded.history["train_loss"], exact.history["train_loss"])


def assert_equal_weights(side, one, other):
    expected, found = side.weights(one.model), side.weights(other.model)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


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
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_as_one_that_never_was(
    side, cached, tmp_path, optimizer
):
    changes = [*EVERYTHING, f"train.optimizer={optimizer}"]
    whole = fit(side, cached, tmp_path / "whole.safetensors", *changes)
    steps = []

    with pytest.raises(StoppedError, match=r"in epoch 2 after step 6 of 8; the state is saved"):
        fit(
            side,
            cached,
            tmp_path / "cut.safetensors",
            *changes,
            on_step=steps.append,
            should_stop=lambda: len(steps) >= 8 + 5,
        )
    resumed = fit(side, cached, tmp_path / "cut.safetensors", *changes, resume=True)

    assert_equal_weights(side, whole, resumed)
    pd.testing.assert_frame_equal(
        resumed.history.drop(columns="seconds"), whole.history.drop(columns="seconds")
    )


def test_a_state_of_other_images_is_refused(side, cached, tmp_path):
    fit(side, cached, tmp_path / "state.safetensors")

    with pytest.raises(TrainingError, match="other images, labels, seed, batch size"):
        fit(side, cached, tmp_path / "state.safetensors", "train.batch_size=16", resume=True)


@pytest.fixture(scope="module")
def weights(side, cached, tmp_path_factory):
    """A file of weights, so that a backbone may be frozen."""
    folder = tmp_path_factory.mktemp("weights")
    first = fit(side, cached, folder / "s.safetensors", "train.epochs=1")
    side.engine.export(first, size=SIZE, graph=folder / "m.onnx", weights=folder)
    return folder / side.weight_file


def test_accumulated_small_batches_are_one_large_batch(side, cached, tmp_path, weights):
    frozen = [f"model.weights={weights}", "model.freeze=backbone", "model.dropout=0", "train.optimizer=sgd"]
    large = fit(side, cached, tmp_path / "a.safetensors", *frozen, "train.batch_size=16")
    small = fit(side, cached, tmp_path / "b.safetensors", *frozen, "train.batch_size=8", "train.accumulate=2")

    np.testing.assert_allclose(small.history["val_loss"], large.history["val_loss"], rtol=1e-5)
    assert large.history["val_loss"].diff().abs().min() > 1e-4


def test_the_moving_average_is_what_is_validated_and_kept(side, cached, tmp_path):
    changes = ["train.epochs=4", "train.ema=0.99", "train.monitor=val_auroc", "train.keep_final=true"]
    trained = fit(side, cached, tmp_path / "s.safetensors", *changes)
    labels = (np.arange(NUMBER) % 2)[32:, None].astype(np.float32)

    outputs = side.engine.logits(replace(trained, model=trained.final), cached.images(np.arange(32, NUMBER)))
    found = validation_figures(labels, outputs, multiclass=False)

    assert found["val_auroc"] == pytest.approx(trained.history["val_auroc"].iloc[-1])
    groups, _ = state_file.read_state(tmp_path / "s.safetensors")
    kernel = side.head_kernel(trained.final)

    def holds(group):
        return any(np.array_equal(value, kernel) for value in groups[group].values())

    assert holds("averages")
    assert not holds("model")


def test_best_and_final_are_both_kept_where_asked(side, cached, tmp_path):
    trained = fit(side, cached, tmp_path / "s.safetensors", "train.epochs=6", "train.keep_final=true")
    without = fit(side, cached, tmp_path / "t.safetensors", "train.epochs=1")

    assert without.final is None
    kernels = [side.head_kernel(model) for model in (trained.model, trained.final)]
    assert np.array_equal(*kernels) == (trained.best_epoch == 6)


def test_layers_learn_only_once_they_have_thawed(side, cached, tmp_path, weights):
    changes = [
        f"model.weights={weights}",
        "model.freeze=backbone",
        "train.unfreeze_after=1",
        "train.unfreeze_share=0.5",
        "train.keep_final=true",
    ]

    def kernels(*more):
        return side.backbone_kernels(fit(side, cached, tmp_path / "s.safetensors", *changes, *more).final)

    before, one, three = kernels("train.learning_rate=1e-30"), kernels("train.epochs=1"), kernels()

    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(one, before, strict=True))
    changed = [not np.array_equal(ours, theirs) for ours, theirs in zip(three, before, strict=True)]
    assert changed == [False] * 4 + [True] * 4


def test_discriminative_rates_slow_the_layers_near_the_image(side, cached, tmp_path):
    def moved(*changes):
        common = [
            "train.epochs=1",
            "train.optimizer=sgd",
            "train.learning_rate=0.01",
            "train.keep_final=true",
        ]
        still = fit(side, cached, tmp_path / "s.safetensors", *common, "train.learning_rate=1e-30").final
        now = fit(side, cached, tmp_path / "s.safetensors", *common, *changes).final
        return float(np.abs(side.backbone_kernels(now)[0] - side.backbone_kernels(still)[0]).max())

    assert moved("train.backbone_rate=0.5", "train.depth_rate=0.01") < 0.02 * moved()


def test_out_of_memory_names_a_remedy(side, cached, tmp_path, monkeypatch):
    def greedy(*_):
        raise side.out_of_memory

    monkeypatch.setattr(side.train, "to_float", greedy)

    with pytest.raises(TrainingError, match=r"set train.batch_size=4 and train.accumulate=2 \(the same"):
        fit(side, cached, tmp_path / "state.safetensors")


def test_a_full_disk_is_told_and_the_last_state_stays(side, cached, tmp_path, monkeypatch):
    with pytest.raises(CutOffError):
        fit(side, cached, tmp_path / "state.safetensors", on_epoch=cut_off_after(1))
    before = (tmp_path / "state.safetensors").read_bytes()

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(state_file, "save_file", full)
        with pytest.raises(TrainingError, match=r"No space left on device.*free some space"):
            fit(side, cached, tmp_path / "state.safetensors", resume=True)

    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "state.safetensors"]
    assert len(fit(side, cached, tmp_path / "state.safetensors", resume=True).history) == 3


def test_the_profile_covers_the_time(side, cached, tmp_path):
    profile = fit(side, cached, tmp_path / "s.safetensors").profile

    assert set(profile) == {"features", *side.profile_parts, "rest"}
    assert profile.pop("features") == 0, "nothing is stored"
    assert all(seconds > 0 for seconds in profile.values())


@pytest.mark.parametrize("monitor", ["val_average_precision", "val_accuracy", "val_f1", "val_recall"])
def test_any_figure_of_validation_may_steer(side, cached, tmp_path, monitor):
    trained = fit(side, cached, tmp_path / "s.safetensors", f"train.monitor={monitor}")

    assert trained.best_epoch == int(trained.history[monitor].idxmax()) + 1


def test_three_exclusive_classes_are_learned_by_softmax(side, cached, tmp_path):
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
    job = TrainingJob(
        chosen.model_copy(update={"train": chosen.train.model_copy(update={"epochs": 8})}),
        batches,
        Validation(images.images(np.arange(32, NUMBER)), labels[32:]),
        class_weights=ONES,
        state=tmp_path / "s.safetensors",
    )
    trained = side.engine.fit(job, Hooks())

    assert trained.history["val_accuracy"].max() > 0.9


@pytest.mark.parametrize("pool", ["average", "max", "attention", "flatten"])
def test_stored_features_train_the_head_as_images_do(side, cached, tmp_path, weights, pool):
    """Without augmentation and dropout every epoch sees the same features, stored or not."""
    common = [f"model.weights={weights}", "model.freeze=backbone", "model.dropout=0", f"model.pool={pool}"]
    plain = {"augment": AugmentSettings()}
    slow = fit(side, cached, tmp_path / "a.safetensors", *common, **plain)
    fast = fit(side, cached, tmp_path / "b.safetensors", *common, "train.stored_versions=1", **plain)

    for figure in ("train_loss", "val_loss"):
        np.testing.assert_allclose(fast.history[figure], slow.history[figure], rtol=1e-4)
    assert slow.history["val_loss"].diff().abs().min() > 1e-5, "something is learned"
    images = cached.images(np.arange(8))
    np.testing.assert_allclose(
        side.engine.logits(fast, images), side.engine.logits(slow, images), rtol=1e-3, atol=1e-4
    )


def test_a_run_on_stored_features_resumes_to_the_same_weights(side, cached, tmp_path, weights):
    changes = [
        f"model.weights={weights}",
        "model.freeze=backbone",
        "model.dropout=0.5",
        "train.stored_versions=2",
    ]
    whole = fit(side, cached, tmp_path / "whole.safetensors", *changes)
    with pytest.raises(CutOffError):
        fit(side, cached, tmp_path / "cut.safetensors", *changes, on_epoch=cut_off_after(2))

    resumed = fit(side, cached, tmp_path / "cut.safetensors", *changes, resume=True)

    assert_equal_weights(side, whole, resumed)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_shared_features_give_the_same_history_and_weights_to_the_bit(
    side, cached, tmp_path, weights, precision
):
    """Whoever computed them: another fold, in blocks of other images, or a trial before."""
    changes = [
        f"model.weights={weights}",
        "model.freeze=backbone",
        "model.pool=max",
        "train.stored_versions=2",
        f"train.precision={precision}",
    ]
    alone = fit(side, cached, tmp_path / "a.safetensors", *changes)
    fit(side, cached, tmp_path / "b.safetensors", *changes, features=tmp_path / "features", rows=range(5, 16))

    shared = fit(side, cached, tmp_path / "c.safetensors", *changes, features=tmp_path / "features")

    pd.testing.assert_frame_equal(
        shared.history.drop(columns="seconds"), alone.history.drop(columns="seconds"), check_exact=True
    )
    assert_equal_weights(side, alone, shared)


def test_what_features_depend_on_has_files_of_its_own_and_nothing_else_has(side, cached, tmp_path, weights):
    def files(*changes, **options):
        common = [f"model.weights={weights}", "model.freeze=backbone", "train.epochs=1"]
        versions = ["train.stored_versions=2", "train.precision=fp32"]
        folder = tmp_path / "features"
        shutil.rmtree(folder, ignore_errors=True)
        fit(
            side, cached, tmp_path / "s.safetensors", *common, *versions, *changes, features=folder, **options
        )
        return {path.name for path in folder.glob("*.f32")}

    base = files()
    same = ["train.learning_rate=0.1", "model.dropout=0.1", "train.batch_size=4", "model.hidden=[4]"]
    assert files(*same, "train.optimizer=sgd", "train.loss=focal") == base
    assert len(base) == 2
    assert len(files(augment=AugmentSettings(rotation=6.0)) & base) == 1, "an image as it is stays so"
    for change in ("model.pool=attention", "model.scaling=unit", "train.precision=bf16"):
        assert not files(change) & base, change
    other = fit(side, cached, tmp_path / "s.safetensors", "train.epochs=1", "train.seed=1")
    side.engine.export(other, size=SIZE, graph=tmp_path / "m.onnx", weights=tmp_path)
    assert not files(f"model.weights={tmp_path / side.weight_file}") & base
    assert files("model.freeze=none") == files("train.stored_versions=0") == set()


def loss_of(side, name, *, kind="multilabel", smoothing=0.0, **settings):
    findings = ["No Finding", "Mass", "Nodule"] if kind == "multiclass" else ["Mass", "Nodule", "Edema"]
    changes = [f"train.{key}={value}" for key, value in settings.items()]
    task = [f"task.kind={kind}", f"task.findings={findings}", f"train.loss={name}"]
    return side.loss(load_recipe("nih-multilabel", [*task, *changes]), smoothing)


def log_loss(logit, label):
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if label else 1 - probability)


def test_bce_ignores_unknown_labels_and_weighs_classes(side):
    weights = np.array([[2.0, 3.0], [5.0, 7.0], [11.0, 13.0]], np.float32)

    total, count, _ = loss_of(side, "bce")(LOGITS, LABELS, weights)

    expected = (
        3 * log_loss(0.3, 1)
        + 11 * log_loss(2.0, 0)
        + 2 * log_loss(2.0, 0)
        + 7 * log_loss(0.5, 1)
        + 13 * log_loss(-3.0, 1)
    )
    assert total == pytest.approx(expected, rel=1e-6)
    assert count == 5


@pytest.mark.parametrize("loss", ["bce", "focal", "asymmetric"])
def test_unknown_labels_send_no_gradient(side, loss):
    _, _, gradient = loss_of(side, loss)(LOGITS, LABELS, ONES)

    np.testing.assert_array_equal(gradient != 0, ~np.isnan(LABELS))


def test_focal_without_focus_is_bce_and_asymmetric_without_asymmetry_too(side):
    expected, _, _ = loss_of(side, "bce")(LOGITS, LABELS, ONES)
    plain = loss_of(side, "asymmetric", gamma_negative=0, gamma_positive=0, negative_margin=0)

    assert loss_of(side, "focal", focal_gamma=0)(LOGITS, LABELS, ONES)[0] == pytest.approx(expected, rel=1e-6)
    assert plain(LOGITS, LABELS, ONES)[0] == pytest.approx(expected, rel=1e-5)


def test_focal_loss_of_one_label_by_its_formula(side):
    labels = np.array([[math.nan, 1.0, math.nan]] * 2, np.float32)

    total, _, _ = loss_of(side, "focal", focal_gamma=2)(LOGITS, labels, ONES)

    expected = sum((1 - 1 / (1 + math.exp(-x))) ** 2 * log_loss(x, 1) for x in (-1.0, 0.5))
    assert total == pytest.approx(expected, rel=1e-5)


def test_asymmetric_loss_forgives_what_is_surely_absent(side):
    sure, absent = np.full((1, 3), -5.0, np.float32), np.zeros((1, 3), np.float32)

    total, _, gradient = loss_of(side, "asymmetric")(sure, absent, ONES)

    assert total == pytest.approx(0, abs=1e-7)
    assert np.isfinite(gradient).all()


def test_asymmetric_loss_of_an_absent_finding_by_its_formula(side):
    labels = np.array([[0.0, math.nan, math.nan]], np.float32)
    loss = loss_of(side, "asymmetric", gamma_negative=4, negative_margin=0.05)

    total, _, _ = loss(np.ones((1, 3), np.float32), labels, ONES)

    shifted = 1 / (1 + math.exp(-1.0)) - 0.05
    assert total == pytest.approx(-math.log(1 - shifted) * shifted**4, rel=1e-5)


@pytest.mark.parametrize(("name", "smoothing"), [("softmax", 0.0), ("auto", 0.1)])
def test_softmax_is_cross_entropy_with_class_weights_and_smoothing(side, name, smoothing):
    labels = np.eye(3, dtype=np.float32)[[2, 0]]
    weights = np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 5.0]], np.float32)
    logarithms = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))

    total, count, _ = loss_of(side, name, kind="multiclass", smoothing=smoothing)(LOGITS, labels, weights)

    soft = labels * (1 - smoothing) + smoothing / 3
    assert total == pytest.approx(-(soft * logarithms * [2, 3, 5]).sum(), rel=1e-5)
    assert count == 2


def test_smoothing_moves_sigmoid_targets_half_as_far(side):
    known = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], np.float32)

    total, _, _ = loss_of(side, "bce", smoothing=0.2)(LOGITS, known, ONES)

    soft, probabilities = known * 0.8 + 0.1, 1 / (1 + np.exp(-LOGITS.astype(float)))
    expected = -(soft * np.log(probabilities) + (1 - soft) * np.log(1 - probabilities)).sum()
    assert total == pytest.approx(expected, rel=1e-6)


def test_mixed_labels_weigh_both_classes(side):
    zeros, quarters = np.zeros((1, 3), np.float32), np.full((1, 3), 0.25, np.float32)
    weights = np.array([[2.0, 4.0]] * 3, np.float32)

    total, _, _ = loss_of(side, "bce")(zeros, quarters, weights)

    assert total == pytest.approx(3 * (0.75 * 2 + 0.25 * 4) * math.log(2), rel=1e-6)


def test_the_layers_of_a_network_are_told_with_what_is_learned_in_them(side):
    recipe = load_recipe(
        "demo",
        ["model.architecture=custom_cnn", f"data.size={SIZE}", "model.hidden=[8]", "model.pool=average"],
    )
    found = side.engine.layers(
        recipe.model_copy(update={"model": recipe.model.model_copy(update={"freeze": 0.5})})
    )

    convolutions = [9 * before * after for before, after in ((3, 32), (32, 64), (64, 128), (128, 256))]
    norms = [2 * channels for channels in (32, 64, 128, 256)]
    backbone = [number for pair in zip(convolutions, norms, strict=True) for number in pair]
    findings = len(recipe.task.findings)
    assert [layer.parameters for layer in found] == [*backbone, 256 * 8 + 8, 8 * findings + findings]
    assert [layer.frozen for layer in found] == [True] * 4 + [False] * 6
    assert [layer.name.startswith("head.") for layer in found] == [False] * 8 + [True] * 2


def test_a_gpu_is_named_where_there_is_one(side):
    assert isinstance(side.engine.find_gpu(), str)
