import math

import numpy as np
import pandas as pd
import pytest
import torch

from hilum import recipe
from hilum.data.batches import training_batches
from hilum.data.cache import Cached
from hilum.engines import Validation
from hilum.engines.torch import TorchEngine, train
from hilum.errors import TrainingError
from hilum.recipe import AugmentSettings

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
    return recipe.load(
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


def fit(
    cached, state, *changes, resume=False, on_epoch=lambda _history: None, on_step=lambda _progress: None
):
    labels = (np.arange(NUMBER) % 2).astype(np.float32)[:, None]
    chosen = settings(*changes)
    batches = training_batches(
        cached,
        np.arange(32),
        labels,
        batch_size=chosen.train.batch_size,
        augment=AugmentSettings(rotation=5.0),
        seed=0,
        num_workers=0,
    )
    return TorchEngine().fit(
        chosen,
        batches,
        Validation(cached.images(np.arange(32, NUMBER)), labels[32:]),
        class_weights=np.ones((1, 2), np.float32),
        state=state,
        resume=resume,
        on_step=on_step,
        on_epoch=on_epoch,
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

    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key
    columns = ["epoch", "train_loss", "val_loss", "learning_rate"]
    pd.testing.assert_frame_equal(resumed.history[columns], whole.history[columns])


def test_resuming_a_finished_run_trains_no_further(cached, tmp_path):
    first = fit(cached, tmp_path / "state.safetensors")

    again = fit(cached, tmp_path / "state.safetensors", resume=True)

    assert len(again.history) == len(first.history)
    assert torch.equal(again.model.head.layers[0].weight, first.model.head.layers[0].weight)


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
    monkeypatch.setattr(train, "masked_bce", lambda *_: torch.tensor(math.nan, requires_grad=True))

    with pytest.raises(TrainingError, match=r"loss became nan in epoch 1, step 1; lower train.learning_rate"):
        fit(cached, tmp_path / "state.safetensors")


def test_early_stopping_is_the_policys(cached, tmp_path):
    trained = fit(
        cached, tmp_path / "s.safetensors", "train.epochs=50", "train.patience=1", "train.learning_rate=0.1"
    )

    assert trained.stopped == "patience"
    assert len(trained.history) == trained.best_epoch + 1


def test_training_does_not_touch_the_global_random_state(cached, tmp_path):
    before = torch.get_rng_state()

    fit(cached, tmp_path / "state.safetensors", "train.epochs=1")

    assert torch.equal(torch.get_rng_state(), before)


def test_bf16_and_fp32_agree_roughly(cached, tmp_path):
    exact = fit(cached, tmp_path / "a.safetensors")
    rounded = fit(cached, tmp_path / "b.safetensors", "train.precision=bf16")

    assert rounded.precision == "bf16"
    np.testing.assert_allclose(rounded.history["train_loss"], exact.history["train_loss"], rtol=0.2)
    assert not np.array_equal(rounded.history["train_loss"], exact.history["train_loss"])


def test_masked_loss_ignores_unknown_labels_and_weighs_classes():
    outputs = torch.tensor([[0.3, -1.0], [2.0, 0.5]])
    labels = torch.tensor([[1.0, math.nan], [0.0, 1.0]])
    weights = torch.tensor([[2.0, 3.0], [5.0, 7.0]])

    found = train.masked_bce(outputs, labels, weights)

    def log_loss(logit, label):
        probability = 1 / (1 + math.exp(-logit))
        return -math.log(probability if label else 1 - probability)

    expected = (3 * log_loss(0.3, 1) + 2 * log_loss(2.0, 0) + 7 * log_loss(0.5, 1)) / 3
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_unknown_labels_send_no_gradient():
    outputs = torch.zeros(2, 1, requires_grad=True)
    train.masked_bce(outputs, torch.tensor([[math.nan], [1.0]]), torch.ones(1, 2)).backward()

    assert outputs.grad is not None
    assert float(outputs.grad[0]) == 0
    assert float(outputs.grad[1]) != 0
