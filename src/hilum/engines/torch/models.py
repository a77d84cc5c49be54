"""A recipe's model section -> a PyTorch classifier whose maps come in closed form."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hilum.engines.contract import InitialWeights, NetworkLayer
from hilum.engines.initial_head import initial_head
from hilum.engines.torch.backbones import Layer, layers, make_backbone
from hilum.engines.torch.heads import TorchHead
from hilum.engines.torch.weights import initialise
from hilum.errors import UsageError
from hilum.recipe import Recipe
from hilum.recipe.architectures import architecture


class TorchClassifier(nn.Module):
    """Grey images -> logits; normalisation is inside.

    Attributes:
        backbone: (batch, 3, size, size) -> feature map (batch, channels, h, w).
        head: Feature map -> logits.
        layers: The backbone's, from the image on.
        unfold: Unfolds folded batch norm; None where there is none. Of a backbone that stays frozen it is left to the
            export: what is computed is the same, and the statistics are of use only to who trains on.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: TorchHead, initial: InitialWeights) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", torch.tensor(initial.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(initial.std).view(1, 3, 1, 1))
        self.layers: tuple[Layer, ...] = layers(backbone)
        self.num_frozen = 0
        self.unfold: Callable[[], None] | None = None

    def stored(self, image: Tensor) -> Tensor:
        """Float (batch, size, size) in [0, 1] -> what `forward` takes in its place while the backbone is frozen."""
        return self.head.reduced(self._mapped(image))

    def features(self, image: Tensor) -> Tensor:
        """Float (batch, size, size) in [0, 1] -> the feature map (batch, channels, h, w) that the head reads."""
        features: Tensor = self.head.block(image if image.ndim == 4 else self._mapped(image))
        return features

    def forward(self, image: Tensor) -> Tensor:
        """Float (batch, size, size) in [0, 1], or what `stored` made of it -> logits (batch, outputs)."""
        logits: Tensor = self.head(self.features(image))
        return logits

    def _mapped(self, image: Tensor) -> Tensor:
        features: Tensor = self.backbone((image.unsqueeze(1) - self.mean) / self.std)
        return features

    @property
    def num_layers(self) -> int:
        """Number of the backbone's layers."""
        return len(self.layers)

    def freeze(self, share: float) -> None:
        """Keep the first layers of the backbone as they are, batch-norm statistics included, and frees the others.

        Args:
            share: Of the layers, counted from the image; 1 is all of the backbone.
        """
        self.num_frozen = round(share * len(self.layers))
        for index, layer in enumerate(self.layers):
            for parameter in layer.parameters:
                parameter.requires_grad_(index >= self.num_frozen)

    def train(self, mode: bool = True) -> "TorchClassifier":
        """Switch between training and evaluation; frozen layers stay in evaluation."""
        super().train(mode)
        if self.num_frozen == len(self.layers):
            self.backbone.eval()
        for layer in self.layers[: self.num_frozen]:
            layer.module.training = False
        return self


def to_float(images: np.ndarray, device: Any = "cpu") -> Tensor:
    """Bring uint8 (n, size, size) to float32 in [0, 1] on the device; features stay as they are."""
    tensor = torch.from_numpy(images).to(device)
    return tensor if tensor.is_floating_point() else tensor.float().div_(255)


def build(recipe: Recipe, *, images: Tensor, measure: bool = True) -> tuple[TorchClassifier, InitialWeights]:
    """Make the classifier of a recipe, its initial weights loaded and its layers frozen.

    Args:
        recipe: Its task, data, model and train.seed are read.
        images: Training images, float (n, size, size) in [0, 1]; weights whose batch norm is folded need them.
        measure: Whether those are unfolded here; see `weights.initialise`.

    Raises:
        TrainingError: The weights cannot be had or do not fit.
        UsageError: This engine does not have the architecture, or it gives no feature map.
    """
    settings, size, seed = recipe.model, recipe.data.size, recipe.train.seed
    name = architecture(settings.architecture, "torch").engines["torch"]
    make = partial(make_backbone, size=size, dropout=settings.backbone_dropout)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone, initial = initialise(name, settings.weights, make=make, images=images, measure=measure)
    initial = initial.scaled(settings.scaling)
    with torch.inference_mode():
        shape = backbone.eval()(torch.zeros(1, 3, size, size)).shape
    if len(shape) != 4:
        raise UsageError(
            f"{settings.architecture} gives an output of shape {tuple(shape)}, not a feature map "
            "(batch, channels, h, w); choose another architecture"
        )
    outputs = len(recipe.task.findings)
    first = initial_head(
        settings, channels=shape[1], height=shape[2], width=shape[3], outputs=outputs, seed=seed
    )
    model = TorchClassifier(backbone, TorchHead(first, settings), initial)
    model.freeze(settings.frozen_share)
    return model, initial


def network_layers(recipe: Recipe) -> tuple[NetworkLayer, ...]:
    """Return the layers of a recipe's network that hold parameters, from the image to the logits."""
    size = recipe.data.size
    model, _ = build(recipe.with_random_weights(), images=torch.zeros(1, size, size))
    backbone = [
        NetworkLayer(
            layer.name, type(layer.module).__name__, _numbers(layer.parameters), index < model.num_frozen
        )
        for index, layer in enumerate(model.layers)
        if layer.parameters
    ]
    head = [
        NetworkLayer(f"head.{name}", type(module).__name__, _numbers(module.parameters(recurse=False)), False)
        for name, module in model.head.named_modules()
        if list(module.parameters(recurse=False))
    ]
    return (*backbone, *head)


def _numbers(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
