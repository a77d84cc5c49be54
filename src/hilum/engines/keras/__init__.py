"""The Keras engine: keras.applications on TensorFlow, trained by `keras.Model.fit`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import hilum.engines.keras.backend  # noqa: F401  (before Keras is imported)
from hilum.engines.contract import Hooks, NetworkLayer, Trained, TrainingJob
from hilum.engines.keras import models, train
from hilum.engines.keras.export import export_model
from hilum.engines.keras.weights import fetch
from hilum.engines.weight_sources import check_weights
from hilum.recipe import Recipe
from hilum.recipe.architectures import architecture


class KerasEngine:
    """See `hilum.engines.Engine`.

    Attributes:
        callbacks: More of Keras's callbacks, for example its CSVLogger or TensorBoard. In the logs at an epoch's end
            they find loss, learning_rate and the figures of validation. They watch: what they change in the model,
            Hilum neither saves nor undoes.
        verbose: As in `keras.Model.fit`: 1 draws Keras's own progress bar, 2 prints a line an epoch.
    """

    name = "keras"

    def __init__(self, callbacks: Sequence[Any] = (), *, verbose: int = 0) -> None:
        self.callbacks = tuple(callbacks)
        self.verbose = verbose

    def check(self, recipe: Recipe, *, devices: int = 1) -> None:
        """Refuse weights that cannot be had, and more than one process."""
        check_weights(recipe.model.weights, engine=self.name, architecture=recipe.model.architecture)
        train.check_devices(devices)

    def fetch_weights(self, recipe: Recipe) -> None:
        """Fetch ImageNet weights."""
        if recipe.model.weights == "imagenet":
            name = architecture(recipe.model.architecture, self.name).engines[self.name]
            fetch(name, size=recipe.data.size)

    def fit(self, job: TrainingJob, hooks: Hooks) -> Trained:
        """Train a model; of the job's profile nothing is read, since a compiled step always waits for the device."""
        return train.fit(job, hooks, callbacks=self.callbacks, verbose=self.verbose)

    def layers(self, recipe: Recipe) -> Sequence[NetworkLayer]:
        """Return the layers of the recipe's network."""
        return models.network_layers(recipe)

    def find_gpu(self) -> str:
        """Return the name of the first GPU that TensorFlow sees; empty where there is none."""
        return train.find_gpu()

    def logits(self, trained: Trained, images: np.ndarray) -> np.ndarray:
        """Run images through the model in full precision."""
        return train.logits(trained.model, images)

    def export(self, trained: Trained, *, size: int, graph: Path, weights: Path) -> Sequence[Path]:
        """Write the ONNX graph and the native weights."""
        return export_model(trained.model, size=size, graph=graph, weights=weights)
