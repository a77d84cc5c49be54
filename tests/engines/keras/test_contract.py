"""The contract of an engine, held by the Keras engine; its own callbacks, and what it alone refuses."""

import random

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow

from engines.contract import *  # noqa: F403
from engines.contract import Side, fit, settings
from hilum.engines.keras import KerasEngine, train
from hilum.engines.keras.backbones import layers
from hilum.engines.keras.losses import make_loss
from hilum.errors import RecipeError, UsageError


class KerasSide(Side):
    train = train
    session = train.KerasSession
    weight_file = "model.keras"
    profile_parts = ("step", "validation")
    out_of_memory = tensorflow.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    def __init__(self, engine=None):
        self.engine = engine or KerasEngine()

    def weights(self, model):
        return dict(enumerate(model.get_weights()))

    def head_kernel(self, model):
        return model.head.last.kernel.numpy()

    def backbone_kernels(self, model):
        return [layer.get_weights()[0] for layer in layers(model.backbone)]

    def layers(self, model):
        return [layer.get_weights() for layer in layers(model.backbone)]

    def head(self, model):
        return model.head_model.get_weights()

    def set_head(self, model, arrays):
        model.head_model.set_weights(arrays)

    def training_logits(self, model, images):
        return model(train.to_float(images), training=True).numpy()

    def random_state(self):
        return random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002 (the global one is meant)

    def broken_loss(self):
        return lambda outputs, *_: (tensorflow.reduce_sum(outputs) * np.nan, tensorflow.constant(8.0))

    def loss(self, recipe, smoothing=0.0):
        def loss(logits, labels, weights):
            outputs = tensorflow.constant(logits)
            with tensorflow.GradientTape() as tape:
                tape.watch(outputs)
                total, count = make_loss(recipe, smoothing=smoothing)(outputs, labels, weights)
            return float(total), int(count), tape.gradient(total, outputs).numpy()

        return loss


@pytest.fixture(scope="module")
def side():
    return KerasSide()


def test_keras_own_callbacks_find_every_epoch_and_its_figures(cached, tmp_path, capsys):
    callbacks = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "board"),
    ]

    side = KerasSide(KerasEngine(callbacks, verbose=2))

    trained = fit(side, cached, tmp_path / "s.safetensors")

    log = pd.read_csv(tmp_path / "log.csv")
    assert list(log["epoch"]) == [0, 1, 2]
    np.testing.assert_allclose(log["loss"], trained.history["train_loss"])
    np.testing.assert_allclose(log["val_auroc"], trained.history["val_auroc"])
    np.testing.assert_allclose(log["learning_rate"], trained.history["learning_rate"])
    assert list((tmp_path / "board").rglob("events*"))
    shown = capsys.readouterr().out
    assert "Epoch 3/3" in shown
    assert "val_auroc" in shown


def test_what_needs_no_data_is_refused_without_them():
    with pytest.raises(UsageError, match="the keras engine trains in one process"):
        KerasEngine().check(settings(), devices=2)
    with pytest.raises(RecipeError, match="nor a file that exists"):
        KerasEngine().check(settings("model.weights=none.npz"))


def test_several_processes_are_refused_in_words(cached, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")

    with pytest.raises(UsageError, match="trains in one process"):
        fit(KerasSide(), cached, tmp_path / "s.safetensors")
