"""The PyTorch engine: timm backbones, Lightning Fabric for device and precision."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hilum.engines.contract import Hooks, NetworkLayer, Trained, TrainingJob
from hilum.engines.torch import models, train
from hilum.engines.torch.export import export_model
from hilum.engines.torch.weights import check_initial_weights, fetch
from hilum.recipe import Recipe
from hilum.recipe.architectures import architecture


class TorchEngine:
    """See `hilum.engines.Engine`."""

    name = "torch"

    def check(self, recipe: Recipe, *, devices: int = 1) -> None:
        """Refuse a model that timm does not know, weights of another kind, and more devices than there are."""
        name = architecture(recipe.model.architecture, self.name).engines[self.name]
        check_initial_weights(name, recipe.model.weights)
        train.check_devices(devices)

    def fetch_weights(self, recipe: Recipe) -> None:
        """Fetch ImageNet weights from the hub."""
        if recipe.model.weights == "imagenet":
            fetch(architecture(recipe.model.architecture, self.name).engines[self.name])

    def fit(self, job: TrainingJob, hooks: Hooks) -> Trained:
        """Train a model."""
        return train.fit(job, hooks)

    def layers(self, recipe: Recipe) -> Sequence[NetworkLayer]:
        """Return the layers of the recipe's network."""
        return models.network_layers(recipe)

    def find_gpu(self) -> str:
        """Return the name of the first GPU that PyTorch sees; empty where there is none."""
        return train.find_gpu()

    def logits(self, trained: Trained, images: np.ndarray) -> np.ndarray:
        """Run images through the model in full precision."""
        return train.logits(trained.model, images)

    def export(self, trained: Trained, *, size: int, graph: Path, weights: Path) -> Sequence[Path]:
        """Write the ONNX graph and the native weights."""
        return export_model(trained.model, trained.initial, size=size, graph=graph, weights=weights)
