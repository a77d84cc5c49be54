"""What an engine is: the one place where a training framework meets the rest of Hilum.

An engine takes NumPy batches and gives back weights and an ONNX graph; nothing else of its framework leaves it.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from hilum.data.batches import Batches, load_grain
from hilum.errors import UsageError, nearest, require
from hilum.recipe import Recipe
from hilum.recipe.architectures import ENGINES

# Engine -> what its extra installs. Keras and TensorFlow are not named: their engine imports them in its own way.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch", "timm", "lightning", "safetensors", "onnxscript", "grain"),
    "keras": ("h5py", "safetensors", "grain"),
}


@dataclass(frozen=True)
class InitialWeights:
    """Where a backbone's first weights came from, and the input that they expect.

    Attributes:
        source: For example `timm densenet121.tv_in1k`, a file's name and hash, or `random`.
        mean: Three channel means subtracted from the grey image in [0, 1].
        std: Three channel deviations that it is then divided by.
        citation: How to cite them; empty for random ones.
        licence: Their terms; `unknown` where nothing says.
        folded: Whether batch norm is still folded into them, so that its statistics are to be measured.
    """

    source: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    citation: str = ""
    licence: str = "unknown"
    folded: bool = False

    def scaled(self, scaling: str) -> "InitialWeights":
        """The same weights, given what `model.scaling` says."""
        if scaling == "weights":
            return self
        return dataclasses.replace(self, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Validation:
    """The images that steer training.

    Attributes:
        images: uint8 (n, size, size), grey value times 255; inside an engine also features, float32.
        labels: float32 (n, findings), 1 present, 0 absent, NaN unknown; for `multiclass` 1 in one place a row.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Progress:
    """What training tells whoever watches, once a step.

    Attributes:
        epoch: From 1; 0 while a frozen backbone computes the features that are stored, with no loss.
        step: From 1, within the epoch.
        steps: Steps in an epoch.
        loss: Of this step.
    """

    epoch: int
    step: int
    steps: int
    loss: float


def _nobody(_what: object) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Hooks:
    """Who is told how training goes, and who may end it.

    Attributes:
        on_step: Called after each step.
        on_epoch: Called after each epoch with the history so far.
        should_stop: Asked after each step; if it says so, the state is saved and `StoppedError` raised.
        on_note: Told in words what is worth knowing before the first epoch.
    """

    on_step: Callable[[Progress], None] = _nobody
    on_epoch: Callable[[pd.DataFrame], None] = _nobody
    should_stop: Callable[[], bool] = bool
    on_note: Callable[[str], None] = _nobody


@dataclass(frozen=True)
class Trained:
    """A model at its best epoch.

    Attributes:
        model: The engine's own object; only its engine looks inside.
        initial: Where the backbone's first weights came from.
        history: One row an epoch: epoch, train_loss, val_loss, the figures of `figures.validation_figures`,
            learning_rate, seconds (of training alone).
        best_epoch: The epoch whose weights these are, from 1.
        stopped: Why training ended: `epochs`, `patience` or `interrupted`.
        precision: What it was trained in: `fp32` or `bf16`.
        final: As `model`, at the last epoch; None unless `train.keep_final`.
        profile: Seconds by part: loader, forward, backward, optimizer, validation, rest (where steps are compiled
            whole: step, validation, rest); of this process, since it was started.
    """

    model: Any
    initial: InitialWeights
    history: pd.DataFrame
    best_epoch: int
    stopped: str
    precision: str
    final: Any = None
    profile: Mapping[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """The contract of an engine.

    - The same recipe and seed give the same initial head, the same batches and the same decisions in every engine;
      only the arithmetic is the framework's.
    - `fit` builds, trains and returns the weights of the best epoch; every decision is `policy.Policy`'s.
    - `fit` writes `state` whole or not at all, at each epoch's end, from time to time within long epochs and when it is
      asked to stop, and goes on from it if asked to resume, as if it had never stopped.
    - A KeyboardInterrupt after the first epoch ends training with the best weights so far; before it, it propagates.
    - `check` refuses, before any data are read, what `fit` would refuse whatever the data.
    - `export` writes `model.onnx` by the graph contract and the native weights.
    """

    name: str

    def check(self, recipe: Recipe, *, devices: int = 1) -> None:
        """Refuses what cannot be trained here whatever the data.

        Raises:
            UsageError: It does not have the architecture, or not so many devices.
            TrainingError: There are no such weights.
        """
        ...

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
        """Trains a model.

        Args:
            recipe: What to build and how to train it.
            batches: The training images.
            validation: The images that steer.
            class_weights: float32 (findings, 2), the loss's weight of absent and of present; a softmax loss reads the
                latter.
            state: The file that holds everything needed to go on.
            resume: Whether to go on from `state` if it is there.
            devices: Processes that share each batch; see `processes.find_processes`.
            hooks: Who is told and asked.
            profile: Whether to wait for the device at each part, so that `Trained.profile` tells the truth there too.
            features: The folder in which trainings of one study share what a frozen backbone makes of their images;
                None where this training keeps it to itself. The result is the same to the bit.

        Raises:
            NotANumberError: The loss is not a number; it holds the rows of the batch.
            StoppedError: `hooks.should_stop` said so; the state is saved.
            TrainingError: Weights that cannot be had or do not fit, a full disk, not enough memory.
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
        UsageError: No engine of that name, or this process holds the other: two frameworks in one process share
            neither threads nor memory, nor the versions of what both bring along.
        MissingExtraError: Its framework is not installed.
    """
    if name not in ENGINES:
        raise UsageError(f"no engine {name!r}; there are: {nearest(name, ENGINES)}")
    for other in ENGINES:
        if other != name and f"hilum.engines.{other}" in sys.modules:
            raise UsageError(f"this process holds the {other} engine; start another for {name}")
    load_grain(name)  # before Keras does, which lets it warn and set up the root logger
    for module in REQUIRED[name]:
        require(module, extra=name)
    if name == "keras":
        from hilum.engines.keras import KerasEngine

        return KerasEngine()
    from hilum.engines.torch import TorchEngine

    return TorchEngine()
