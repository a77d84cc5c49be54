"""A recipe's train section and a classifier -> its optimizer, with a learning rate a layer.

The arithmetic is PyTorch's: Keras's own Adam adds epsilon before its bias correction, counts the steps of all variables
as one, and its weight decay never enters the gradient; from equal weights both engines should move alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from hilum.engines.keras.backbones import layers
from hilum.engines.keras.models import KerasClassifier
from hilum.recipe import TrainSettings

ADAM_EPSILON = 1e-7  # Keras's; PyTorch's own is 1e-8
BETAS = (0.9, 0.999)


class Layered(keras.optimizers.Optimizer):
    """An optimizer with a learning rate a variable and a momentum that may move.

    Attributes:
        scales: By which the learning rate of each variable is multiplied.
        momentum: The current one (Adam's first beta), in double precision.
    """

    def __init__(self, settings: TrainSettings, scales: Sequence[float], momentum: float) -> None:
        super().__init__(settings.learning_rate, name=settings.optimizer)
        self.scales = tuple(scales)
        self.settings = settings
        self.momentum = keras.Variable(momentum, dtype="float64", trainable=False, name="momentum")


class Adam(Layered):
    """Adam (Kingma & Ba 2015, algorithm 1), or with decoupled weight decay (Loshchilov & Hutter 2019)."""

    def __init__(self, settings: TrainSettings, scales: Sequence[float]) -> None:
        super().__init__(settings, scales, BETAS[0])

    def build(self, variables: Sequence[Any]) -> None:
        """Make the moments, and a count of steps for each variable: one that thaws late starts at its own zero."""
        if self.built:
            return
        super().build(variables)
        self._first, self._second = self.add_optimizer_variables(variables, ["first", "second"])
        self._steps = [
            self.add_variable(shape=(), initializer="zeros", dtype="float64", name=f"steps{index}")
            for index in range(len(variables))
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one variable."""
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, "float32") * self.scales[index]
        beta = ops.convert_to_tensor(self.momentum)
        first, second, steps = self._first[index], self._second[index], self._steps[index]
        step = ops.convert_to_tensor(steps) + 1
        mean = first + (gradient - first) * ops.cast(1 - beta, "float32")
        square = second + (ops.square(gradient) - second) * (1 - BETAS[1])
        corrections = (1 - beta**step, ops.sqrt(1 - ops.cast(BETAS[1], "float64") ** step))
        one, two = (ops.cast(correction, "float32") for correction in corrections)
        kept = variable
        if self.settings.optimizer == "adamw":
            kept = variable * (1 - rate * self.settings.weight_decay)
        moved = kept - rate / one * mean / (ops.sqrt(square) / two + ADAM_EPSILON)
        for slot, value in ((steps, step), (first, mean), (second, square), (variable, moved)):
            self.assign(slot, value)


class SGD(Layered):
    """Stochastic gradient descent with Nesterov momentum, its weight decay in the gradient."""

    def __init__(self, settings: TrainSettings, scales: Sequence[float]) -> None:
        super().__init__(settings, scales, settings.momentum)

    def build(self, variables: Sequence[Any]) -> None:
        """Make the buffers."""
        if self.built:
            return
        super().build(variables)
        self._buffers = self.add_optimizer_variables(variables, "buffer")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one variable."""
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, "float32") * self.scales[index]
        momentum = ops.cast(self.momentum, "float32")
        gradient = gradient + self.settings.weight_decay * variable
        buffer = momentum * self._buffers[index] + gradient
        self.assign(self._buffers[index], buffer)
        step = gradient + momentum * buffer if self.settings.momentum else buffer
        self.assign(variable, variable - rate * step)


OPTIMIZERS: Mapping[str, type[Layered]] = {"adam": Adam, "adamw": Adam, "sgd": SGD}


def make_optimizer(model: KerasClassifier, settings: TrainSettings, *, most_frozen: float) -> Layered:
    """Make the optimizer.

    Args:
        model: Its variables are taken, but those of layers that stay frozen throughout.
        settings: Names the optimizer and the rates.
        most_frozen: The share of the backbone's layers, from the image on, that never thaws.

    Returns:
        The optimizer, built. The learning rate is multiplied by 1 for the head; for the backbone by `backbone_rate` at
        its last layer, times `depth_rate` at its first, geometric in between.
    """
    stages = layers(model.backbone)
    deepest = max(len(stages) - 1, 1)
    scaled: list[tuple[Any, float]] = []
    for index, layer in enumerate(stages):
        if index >= round(most_frozen * len(stages)):
            depth = (len(stages) - 1 - index) / deepest
            scale = settings.backbone_rate * settings.depth_rate**depth
            scaled += [(variable, scale) for variable in _ever_trainable(layer)]
    scaled += [(variable, 1.0) for variable in model.head_model.trainable_variables]
    variables, scales = zip(*scaled, strict=True)
    optimizer = OPTIMIZERS[settings.optimizer](settings, scales)  # type: ignore[call-arg]
    optimizer.build(list(variables))
    return optimizer


def _ever_trainable(layer: Any) -> list[Any]:
    """What a layer learns where it is not frozen."""
    before = layer.trainable
    layer.trainable = True
    found = list(layer.trainable_variables)
    layer.trainable = before
    return found
