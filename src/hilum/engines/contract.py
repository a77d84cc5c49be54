"""The contract of an engine: what it is given, what it gives back, and whom it tells."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from hilum.data.batches import Batches
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
        folded: Whether batch norm is still folded into them, so that its statistics are to be measured.
    """

    source: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    citation: str = ""
    licence: str = "unknown"
    folded: bool = False

    def scaled(self, scaling: str) -> "InitialWeights":
        """Return the same weights with the input scaling that `model.scaling` asks for."""
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
class TrainingJob:
    """All that an engine needs to train a model.

    Attributes:
        recipe: What to build and how to train it.
        batches: The training images.
        validation: The images that steer.
        class_weights: float32 (findings, 2), the loss's weight of absent and of present; a softmax loss reads the
            latter.
        state: The file that holds everything needed to go on.
        resume: Whether to go on from `state` if it exists.
        devices: Processes that share each batch; see `processes.find_processes`.
        profile: Whether to wait for the device at each part, so that `Trained.profile` is right on a GPU too.
        features: The folder in which the trainings of one study share the features of a frozen backbone; None where
            this training keeps them to itself. The result is the same to the bit.
    """

    recipe: Recipe
    batches: Batches
    validation: Validation
    class_weights: np.ndarray
    state: Path
    resume: bool = False
    devices: int = 1
    profile: bool = False
    features: Path | None = None


@dataclass(frozen=True)
class Progress:
    """The progress of training after a step.

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


def _ignore(_event: object) -> None:
    """Do nothing: nobody watches."""


@dataclass(frozen=True)
class Hooks:
    """Callbacks that follow a training, and may end it.

    Attributes:
        on_step: Called after each step.
        on_epoch: Called after each epoch with the history so far.
        should_stop: Asked after each step; if it says so, the state is saved and `StoppedError` raised.
        on_note: Called before the first epoch with sentences worth knowing.
    """

    on_step: Callable[[Progress], None] = _ignore
    on_epoch: Callable[[pd.DataFrame], None] = _ignore
    should_stop: Callable[[], bool] = bool
    on_note: Callable[[str], None] = _ignore


@dataclass(frozen=True)
class Trained:
    """A model at its best epoch.

    Attributes:
        model: The engine's own object; only its engine looks inside.
        initial: Where the backbone's first weights came from.
        history: One row an epoch: epoch, train_loss, val_loss, the figures of `validation.validation_figures`,
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


@dataclass(frozen=True)
class NetworkLayer:
    """A layer of a network that holds parameters.

    Attributes:
        name: Its path in the network; that of the head begins with `head`.
        kind: Its class in the framework, such as `Conv2d`.
        parameters: How many numbers are learned in it; statistics of batch norm are none.
        frozen: Whether it stays as it is when training begins.
    """

    name: str
    kind: str
    parameters: int
    frozen: bool


class Engine(Protocol):
    """The contract of an engine.

    - The same recipe and seed give the same initial head, the same batches and the same decisions in every engine;
      only the arithmetic is the framework's.
    - `fit` builds, trains and returns the weights of the best epoch; every decision is `policy.Policy`'s.
    - `fit` writes the job's state whole or not at all, at each epoch's end, from time to time within long epochs and
      when it is asked to stop, and goes on from it if asked to resume, as if it had never stopped.
    - A KeyboardInterrupt after the first epoch ends training with the best weights so far; before it, it propagates.
    - `check` refuses, before any data are read, what `fit` would refuse whatever the data.
    - `export` writes `model.onnx` by the graph contract and the native weights.
    """

    name: str

    def check(self, recipe: Recipe, *, devices: int = 1) -> None:
        """Refuse what cannot be trained here whatever the data.

        Raises:
            UsageError: It does not have the architecture, or not so many devices.
            TrainingError: There are no such weights.
        """
        ...

    def fetch_weights(self, recipe: Recipe) -> None:
        """Bring the initial weights here that come from a hub; those that are here already are not fetched again.

        Raises:
            TrainingError: They could not be fetched.
        """
        ...

    def fit(self, job: TrainingJob, hooks: Hooks) -> Trained:
        """Train a model.

        Raises:
            NotANumberError: The loss is not a number; it holds the rows of the batch.
            StoppedError: `hooks.should_stop` said so; the state is saved.
            TrainingError: Weights that cannot be had or do not fit, a full disk, not enough memory.
        """
        ...

    def layers(self, recipe: Recipe) -> Sequence[NetworkLayer]:
        """Build the recipe's network from random weights; return its layers from the image to the logits.

        Raises:
            UsageError: This engine does not have the architecture.
        """
        ...

    def find_gpu(self) -> str:
        """Return the name of the GPU that `fit` would use; empty where there is none."""
        ...

    def logits(self, trained: Trained, images: np.ndarray) -> np.ndarray:
        """Run uint8 (n, size, size) images through the model; return float32 (n, findings), full precision."""
        ...

    def export(self, trained: Trained, *, size: int, graph: Path, weights: Path) -> Sequence[Path]:
        """Write the ONNX graph to the file `graph` and native weights into the folder `weights`."""
        ...
