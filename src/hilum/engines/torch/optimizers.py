"""A recipe's train section and a classifier -> its optimizer, with a learning rate a layer."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from hilum.engines.torch.models import TorchClassifier
from hilum.recipe import TrainSettings

ADAM_EPSILON = 1e-7  # Keras's; PyTorch's own is 1e-8


def make_optimizer(
    model: TorchClassifier, settings: TrainSettings, *, most_frozen: float
) -> torch.optim.Optimizer:
    """Make the optimizer.

    Args:
        model: Its parameters are taken, but those of layers that stay frozen throughout.
        settings: Names the optimizer and the rates.
        most_frozen: The share of the backbone's layers, from the image on, that never thaws.

    Returns:
        Its groups carry `scale`, by which the learning rate is multiplied: 1 for the head; for the backbone
        `backbone_rate` at its last layer, times `depth_rate` at its first, geometric in between.
    """
    scales: dict[float, list[nn.Parameter]] = {1.0: list(model.head.parameters())}
    deepest = max(len(model.layers) - 1, 1)
    for index, layer in enumerate(model.layers):
        if index >= round(most_frozen * len(model.layers)):
            depth = (len(model.layers) - 1 - index) / deepest
            scale = settings.backbone_rate * settings.depth_rate**depth
            scales.setdefault(scale, []).extend(layer.parameters)
    groups = [{"params": parameters, "scale": scale} for scale, parameters in scales.items()]
    return OPTIMIZERS[settings.optimizer](groups, settings)


def _adam(groups: Iterable[Any], settings: TrainSettings) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=settings.learning_rate, eps=ADAM_EPSILON, fused=True)


def _adamw(groups: Iterable[Any], settings: TrainSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, eps=ADAM_EPSILON, weight_decay=settings.weight_decay, fused=True
    )


def _sgd(groups: Iterable[Any], settings: TrainSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
        fused=True,
    )


OPTIMIZERS: Mapping[str, Callable[[Iterable[Any], TrainSettings], torch.optim.Optimizer]] = {
    "adam": _adam,
    "adamw": _adamw,
    "sgd": _sgd,
}
