"""The PyTorch engine: timm backbones, Lightning Fabric for device and precision."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hilum.data.batches import Batches
from hilum.engines import Hooks, Trained, Validation
from hilum.engines.torch import export, train, weights as initial_weights
from hilum.recipe import Recipe, architectures


class TorchEngine:
    """See `hilum.engines.Engine`."""

    name = "torch"

    def check(self, recipe: Recipe, *, devices: int = 1) -> None:
        """Refuses a model that timm does not know, weights that nobody has, and more devices than there are."""
        found = architectures.architecture(recipe.model.architecture, self.name)
        initial_weights.check(found.engines[self.name], recipe.model.weights)
        train.check_devices(devices)

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
        profile: bool = False,
        features: Path | None = None,
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
            profile=profile,
            features=features,
        )

    def logits(self, trained: Trained, images: np.ndarray) -> np.ndarray:
        """Runs images through the model in full precision."""
        return train.logits(trained.model, images)

    def export(self, trained: Trained, *, size: int, graph: Path, weights: Path) -> Sequence[Path]:
        """Writes the ONNX graph and the native weights."""
        return export.export(trained.model, trained.initial, size=size, graph=graph, weights=weights)
