"""What an engine is: the one place where a training framework meets the rest of Hilum.

An engine takes NumPy batches and gives back weights and an ONNX graph; nothing else of its framework leaves it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from hilum.architectures import ENGINES
from hilum.data.batches import Batches
from hilum.errors import UsageError, nearest, require
from hilum.recipe import Recipe


@dataclass(frozen=True)
class InitialWeights:
    """Where a backbone's first weights came from, and the input that they expect.

    Attributes:
        source: For example `timm densenet121.tv_in1k`, a file's name and hash, or `random`.
        mean: Three channel means subtracted from the grey image in [0, 1].
        std: Three channel deviations that it is then divided by.
        citation: How to cite them; empty for random ones.
        licence: Their terms; `unknown` where nothing says.
    """

    source: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    citation: str = ""
    licence: str = "unknown"


@dataclass(frozen=True)
class Validation:
    """The images that steer training.

    Attributes:
        images: uint8 (n, size, size), grey value times 255.
        labels: float32 (n, findings), 1 present, 0 absent, NaN unknown.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Progress:
    """What training tells whoever watches, once a step.

    Attributes:
        epoch: From 1.
        step: From 1, within the epoch.
        steps: Steps in an epoch.
        loss: Of this step.
    """

    epoch: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Trained:
    """A model at its best epoch.

    Attributes:
        model: The engine's own object; only its engine looks inside.
        initial: Where the backbone's first weights came from.
        history: One row an epoch: epoch, train_loss, val_loss, val_auroc, learning_rate, seconds.
        best_epoch: The epoch whose weights these are, from 1.
        stopped: Why training ended: `epochs`, `patience` or `interrupted`.
        precision: What it was trained in: `fp32` or `bf16`.
    """

    model: Any
    initial: InitialWeights
    history: pd.DataFrame
    best_epoch: int
    stopped: str
    precision: str


class Engine(Protocol):
    """The contract of an engine.

    - The same recipe and seed give the same initial head, the same batches and the same decisions in every engine;
      only the arithmetic is the framework's.
    - `fit` builds, trains and returns the weights of the best epoch; every decision is `policy.Policy`'s.
    - `fit` writes `state` whole or not at all at each epoch's end, and goes on from it if asked to resume.
    - A KeyboardInterrupt after the first epoch ends training with the best weights so far; before it, it propagates.
    - `export` writes `model.onnx` by the graph contract and the native weights.
    """

    name: str

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
        """Trains a model.

        Args:
            recipe: What to build and how to train it.
            batches: The training images.
            validation: The images that steer.
            class_weights: float32 (findings, 2), the loss's weight of absent and of present.
            state: The file that holds everything needed to go on.
            resume: Whether to go on from `state` if it is there.
            on_step: Called after each step.
            on_epoch: Called after each epoch with the history so far.

        Raises:
            TrainingError: Weights that cannot be had or do not fit, a loss that is not a number, a full disk.
        """
        ...

    def logits(self, trained: Trained, images: np.ndarray) -> np.ndarray:
        """Runs uint8 (n, size, size) images through the model; returns float32 (n, findings), full precision."""
        ...

    def export(self, trained: Trained, *, size: int, graph: Path, weights: Path) -> Sequence[Path]:
        """Writes the ONNX graph to the file `graph` and native weights into the folder `weights`."""
        ...


def load_engine(name: str) -> Engine:
    """Imports an engine and its framework.

    Raises:
        UsageError: No engine of that name.
        MissingExtraError: Its framework is not installed.
    """
    if name not in ENGINES:
        raise UsageError(f"no engine {name!r}; there are: {nearest(name, ENGINES)}")
    for module in ("torch", "timm", "lightning", "safetensors", "onnxscript", "grain"):
        require(module, extra="torch")
    from hilum.engines.torch import TorchEngine

    return TorchEngine()
