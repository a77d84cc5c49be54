"""Training images/s of the Keras engine against plain `keras.Model.fit` with its tensors in memory.

The peer: the same network, precision, optimizer's kind and batch size; colour images, already normalised, lie in memory
as one float32 array. It neither decodes, augments, schedules nor looks at each loss. Both compute with deterministic
operations, since TensorFlow cannot be told so for one model alone.
"""

import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks._timing import compare
from benchmarks._training import BATCH, SIZE, prepared, write_radiographs
from hilum.engines import Hooks
from hilum.engines.keras.train import KerasSession, StepCallback, be_deterministic
from hilum.engines.session import Position

import keras  # isort: skip (on the backend that the engine has chosen)


def main() -> None:
    be_deterministic(True)
    keras.utils.set_random_seed(0)  # without one the peer refuses to shuffle
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HILUM_CACHE"] = f"{folder}/cache"
        labels = write_radiographs(Path(folder) / "images")
        for architecture, name in (("mobilenetv2", "MobileNetV2"), ("densenet121", "DenseNet121")):
            compare(
                f"training {architecture} with Keras, {SIZE} px, against keras.Model.fit on tensors in memory",
                _ours(architecture, Path(folder), labels),
                _plain(name, labels),
                at_least=1.0,
                rounds=5,
            )


def _ours(architecture: str, folder: Path, labels: np.ndarray):
    """An epoch of the engine, loader included; the images are in the cache, as from the second epoch on."""
    session = KerasSession(prepared(architecture, folder, labels), Hooks())

    def loop() -> None:
        session.position = Position()
        session.model.fit(
            session.stream(1, 1),
            steps_per_epoch=session.batches.steps,
            shuffle=False,
            verbose=0,
            callbacks=[StepCallback(session)],
        )

    return loop


def _plain(name: str, labels: np.ndarray):
    network = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(SIZE, SIZE, 3), pooling="avg"
    )
    model = keras.Model(network.input, keras.layers.Dense(1)(network.output))
    model.compile(
        optimizer=keras.optimizers.Adam(1e-4), loss=keras.losses.BinaryCrossentropy(from_logits=True)
    )
    images = np.random.default_rng(0).random((len(labels), SIZE, SIZE, 3), np.float32)

    def loop() -> None:
        model.fit(images, labels[:, None], batch_size=BATCH, verbose=0)

    return loop
