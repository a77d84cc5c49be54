"""The PyTorch engine: timm backbones, Lightning Fabric for device and precision."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hilum.data.batches import Batches
from hilum.engines import Progress, Trained, Validation
from hilum.engines.torch import export, train
from hilum.recipe import Recipe


class TorchEngine:
    """See `hilum.engines.Engine`."""

    name = "torch"

    def fit(
        self,
        recipe: Recipe,
        batches: Batches,
        validation: Validation,
        *,
        class_weights: np.ndarray,
        state: Path,
        resume: bool,
        on_step: Callable[[Progress], None],
        on_epoch: Callable[[pd.DataFrame], None],
    ) -> Trained:
        """Trains a model."""
        return train.fit(
            recipe,
            batches,
            validation,
            class_weights=class_weights,
            state=state,
            resume=resume,
            on_step=on_step,
            on_epoch=on_epoch,
        )

    def logits(self, trained: Trained, images: np.ndarray) -> np.ndarray:
        """Runs images through the model in full precision."""
        return train.logits(trained.model, images)

    def export(self, trained: Trained, *, size: int, graph: Path, weights: Path) -> Sequence[Path]:
        """Writes the ONNX graph and the native weights."""
        return export.export(trained.model, trained.initial, size=size, graph=graph, weights=weights)
