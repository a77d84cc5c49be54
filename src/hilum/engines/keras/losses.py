"""A recipe's loss: logits and labels -> the sum over what is known, and how much that is."""

from collections.abc import Callable
from typing import Any

import tensorflow

from hilum.recipe import Recipe
from hilum.recipe.losses import LossInputs, find_formula

TensorLoss = Callable[[Any, Any, Any], tuple[Any, Any]]


class TensorFlowFunctions:
    """See `hilum.recipe.losses.Functions`."""

    exp = staticmethod(tensorflow.exp)
    log1p = staticmethod(tensorflow.math.log1p)
    sigmoid = staticmethod(tensorflow.sigmoid)
    at_least = staticmethod(tensorflow.maximum)
    at_most = staticmethod(tensorflow.minimum)

    def log_sigmoid(self, x: Any) -> Any:
        """Return the logarithm of the sigmoid."""
        return -tensorflow.math.softplus(-x)

    def log_softmax(self, x: Any) -> Any:
        """Return the logarithm of the softmax over the columns."""
        return tensorflow.nn.log_softmax(x, 1)


def make_loss(recipe: Recipe, *, smoothing: float = 0.0) -> TensorLoss:
    """Make the loss of a recipe; see `make_loss` of the torch engine, to the letter.

    Args:
        recipe: Its task and its train section are read.
        smoothing: How far labels move toward the middle.
    """
    exclusive, functions = recipe.task.exclusive, TensorFlowFunctions()
    formula = find_formula(recipe.train.loss, exclusive=exclusive)
    middle = 1 / len(recipe.task.findings) if exclusive else 0.5

    def loss(outputs: Any, labels: Any, class_weights: Any) -> tuple[Any, Any]:
        known = tensorflow.logical_not(tensorflow.math.is_nan(labels))
        if exclusive:
            all_known = tensorflow.reduce_all(known, 1, keepdims=True)
            known = tensorflow.broadcast_to(all_known, tensorflow.shape(labels))
        target = tensorflow.where(known, labels, tensorflow.zeros_like(labels))
        target = target * (1 - smoothing) + smoothing * middle
        logits = tensorflow.cast(outputs, tensorflow.float32)
        losses = formula(functions, LossInputs(logits, target, class_weights, recipe.train))
        counted = known[:, 0] if exclusive else known
        total = tensorflow.reduce_sum(tensorflow.where(known, losses, tensorflow.zeros_like(losses)))
        return total, tensorflow.reduce_sum(tensorflow.cast(counted, tensorflow.float32))

    return loss
