"""The Keras engine: keras.applications on TensorFlow, trained by `keras.Model.fit`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hilum.data.batches import Batches
from hilum.engines import Hooks, Trained, Validation
from hilum.engines.keras import backend as backend, export, train
from hilum.recipe import Recipe


class KerasEngine:
    """See `hilum.engines.Engine`."""

    name = "keras"

    def fit(
        self,
        recipe: Recipe,
        batches: Batches,
        validation: Validation,
        *,
        class_weights: np.ndarray,
        state: Path,
        resume: bool,
        hooks: Hooks,
        devices: int = 1,
        profile: bool = False,  # noqa: ARG002 (a compiled step always waits for the device)
    ) -> Trained:
        """Trains a model."""
        return train.fit(
            recipe,
            batches,
            validation,
            class_weights=class_weights,
            state=state,
            resume=resume,
            devices=devices,
            hooks=hooks,
        )

    def logits(self, trained: Trained, images: np.ndarray) -> np.ndarray:
        """Runs images through the model in full precision."""
        return train.logits(trained.model, images)

    def export(self, trained: Trained, *, size: int, graph: Path, weights: Path) -> Sequence[Path]:
        """Writes the ONNX graph and the native weights."""
        return export.export(trained.model, size=size, graph=graph, weights=weights)
