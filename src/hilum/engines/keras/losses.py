"""A recipe's loss: logits and labels -> the sum over what is known, and how much that is."""

from collections.abc import Callable
from typing import Any

import tensorflow

from hilum.recipe import Recipe, TrainSettings

Loss = Callable[[Any, Any, Any], tuple[Any, Any]]


def make_loss(recipe: Recipe, *, smoothing: float = 0.0) -> Loss:
    """Makes the loss of a recipe.

    Args:
        recipe: Its task and its train section are read.
        smoothing: How far labels move toward the middle.

    Returns:
        A function of logits (batch, outputs), labels (batch, outputs) from 0 to 1 with NaN for unknown, and class
        weights (outputs, 2) of absent and of present. It gives the sum of the losses of what is known, and the number
        of known labels (of rows for `multiclass`): the mean loss is their ratio, over whatever they are summed.
    """
    settings, multiclass = recipe.train, recipe.task.exclusive
    per_label = _per_class(settings) if multiclass else _per_finding(settings)
    middle = 1 / len(recipe.task.findings) if multiclass else 0.5

    def loss(outputs: Any, labels: Any, class_weights: Any) -> tuple[Any, Any]:
        known = tensorflow.logical_not(tensorflow.math.is_nan(labels))
        if multiclass:
            known = tensorflow.broadcast_to(
                tensorflow.reduce_all(known, 1, keepdims=True), tensorflow.shape(labels)
            )
        target = tensorflow.where(known, labels, tensorflow.zeros_like(labels))
        target = target * (1 - smoothing) + smoothing * middle
        losses = per_label(tensorflow.cast(outputs, tensorflow.float32), target, class_weights)
        counted = known[:, 0] if multiclass else known
        total = tensorflow.reduce_sum(tensorflow.where(known, losses, tensorflow.zeros_like(losses)))
        return total, tensorflow.reduce_sum(tensorflow.cast(counted, tensorflow.float32))

    return loss


def _per_finding(settings: TrainSettings) -> Loss:
    """Sigmoid losses: each label for itself.

    With p the probability and t the label: -w1 t a log p - w0 (1 - t) b log(1 - q), where

    - binary cross-entropy: a = b = 1, q = p;
    - focal (Lin et al. 2017): a = (1 - p)^gamma, b = p^gamma, q = p;
    - asymmetric (Ridnik et al. 2021): a = (1 - p)^gamma_positive, b = q^gamma_negative, q = max(p - margin, 0).
    """

    def losses(outputs: Any, target: Any, class_weights: Any) -> Any:
        present, absent = tensorflow.math.softplus(-outputs), tensorflow.math.softplus(outputs)
        if settings.loss == "focal":
            present = present * tensorflow.sigmoid(-outputs) ** settings.focal_gamma
            absent = absent * tensorflow.sigmoid(outputs) ** settings.focal_gamma
        elif settings.loss == "asymmetric":
            shifted = tensorflow.maximum(tensorflow.sigmoid(outputs) - settings.negative_margin, 1e-8)
            present = present * tensorflow.sigmoid(-outputs) ** settings.gamma_positive
            absent = (
                -tensorflow.math.log1p(-tensorflow.minimum(shifted, 1 - 1e-7))
                * shifted**settings.gamma_negative
            )
        return class_weights[:, 1] * target * present + class_weights[:, 0] * (1 - target) * absent

    return losses


def _per_class(settings: TrainSettings) -> Loss:
    """Softmax losses: -w t log p for each class, times (1 - p)^gamma for the focal loss."""

    def losses(outputs: Any, target: Any, class_weights: Any) -> Any:
        logarithms = tensorflow.nn.log_softmax(outputs, 1)
        values = -class_weights[:, 1] * target * logarithms
        if settings.loss == "focal":
            values = values * (1 - tensorflow.exp(logarithms)) ** settings.focal_gamma
        return values

    return losses
