"""The peer of `frozen.py`, a frozen DenseNet121 trained by `fit` as a notebook writes it in Keras.

python -m benchmarks._notebook FOLDER WEIGHTS EPOCHS SEED AUGMENT prints seconds and validation's AUROC as JSON.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from hilum.engines.keras import weight_exchange

import keras  # isort: skip (on the backend that the engine has chosen)
import tensorflow as tf  # isort: skip

SIZE, BATCH = 224, 32


def main() -> None:
    folder, weights, epochs, seed, augment = sys.argv[1:]
    keras.utils.set_random_seed(int(seed))
    base = keras.applications.DenseNet121(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    with np.load(weights) as file:
        weight_exchange.fill(base, dict(file), name="densenet121", told=weights)
    base.trainable = False
    started = time.perf_counter()
    training, validation = (_augmented if augment == "yes" else _plain)(Path(folder))
    model = keras.Sequential(
        [
            base,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss="binary_crossentropy", metrics=["accuracy"])
    model.fit(training, validation_data=validation, epochs=int(epochs), verbose=0)
    seconds = time.perf_counter() - started
    still = _plain(Path(folder))[1]
    labels = np.concatenate([y.numpy().ravel() for _, y in still])
    auroc = roc_auc_score(labels, model.predict(still, verbose=0).ravel())
    print(json.dumps({"seconds": seconds, "auroc": float(auroc)}))


def _plain(folder: Path):
    """`image_dataset_from_directory`, scaled to [0, 1]."""

    def read(part: str, *, shuffle: bool):
        found = keras.utils.image_dataset_from_directory(
            folder / part,
            label_mode="binary",
            image_size=(SIZE, SIZE),
            batch_size=BATCH,
            shuffle=shuffle,
            verbose=False,
        )
        return found.map(lambda images, labels: (images / 255.0, labels)).prefetch(tf.data.AUTOTUNE)

    return read("train", shuffle=True), read("val", shuffle=False)


def _augmented(folder: Path):
    """`ImageDataGenerator` with rotation, shifts, shear, zoom and mirror."""
    generator = tf.keras.preprocessing.image.ImageDataGenerator
    changes = {
        "rotation_range": 20,
        "width_shift_range": 0.2,
        "height_shift_range": 0.2,
        "shear_range": 10,
        "zoom_range": 0.2,
        "horizontal_flip": True,
    }
    flow = {"target_size": (SIZE, SIZE), "batch_size": BATCH, "class_mode": "binary"}
    training = generator(rescale=1 / 255, **changes).flow_from_directory(str(folder / "train"), **flow)
    validation = generator(rescale=1 / 255).flow_from_directory(str(folder / "val"), shuffle=False, **flow)
    return training, validation


if __name__ == "__main__":
    main()
