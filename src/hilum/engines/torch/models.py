"""A recipe's model section -> a PyTorch classifier whose maps come in closed form."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hilum import architectures
from hilum.engines import InitialWeights
from hilum.engines.head import Dense, initial_head
from hilum.engines.torch import weights
from hilum.engines.torch.backbones import make_backbone
from hilum.errors import UsageError
from hilum.recipe import Recipe


class Classifier(nn.Module):
    """Grey images -> logits; normalisation is inside.

    Attributes:
        backbone: (batch, 3, size, size) -> feature map (batch, channels, h, w).
        head: Feature map -> logits.
        frozen: Whether the backbone stays as it is, batch-norm statistics included.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: "Head", initial: InitialWeights, *, frozen: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.frozen = frozen
        self.register_buffer("mean", torch.tensor(initial.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(initial.std).view(1, 3, 1, 1))
        if frozen:
            backbone.requires_grad_(False)

    def features(self, image: Tensor) -> Tensor:
        """Float (batch, size, size) in [0, 1] -> feature map (batch, channels, h, w)."""
        features: Tensor = self.backbone((image.unsqueeze(1) - self.mean) / self.std)
        return features

    def forward(self, image: Tensor) -> Tensor:
        """Float (batch, size, size) in [0, 1] -> logits (batch, findings)."""
        logits: Tensor = self.head(self.features(image))
        return logits

    def train(self, mode: bool = True) -> "Classifier":
        """Switches between training and evaluation; a frozen backbone stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self


class Head(nn.Module):
    """Average pool, hidden layers with ReLU and dropout, and one logit a finding."""

    def __init__(self, layers: Sequence[Dense], *, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_linear(layer) for layer in layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Feature map (batch, channels, h, w) -> logits (batch, findings)."""
        units = features.mean((2, 3))
        *hidden, last = self._dense()
        if not hidden:
            units = self.dropout(units)
        for layer in hidden:
            units = self.dropout(torch.relu(layer(units)))
        logits: Tensor = last(units)
        return logits

    def explain(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Feature map -> logits, maps and embedding, as the graph contract has them.

        The gradient of a logit with respect to the pooled features is the product of the kernels with the ReLU
        masks between them; Grad-CAM (Selvaraju et al. 2017) averages the gradient over places, so that the map is
        that gradient times the features, divided by the number of places, and sums to the logit's linear part.
        """
        embedding = features.mean((2, 3))
        units, masks = embedding, []
        *hidden, last = self._dense()
        for layer in hidden:
            units = torch.relu(layer(units))
            masks.append((units > 0).to(units.dtype))
        logits = last(units)
        gradient = last.weight.unsqueeze(0)
        for layer, mask in zip(hidden[::-1], masks[::-1], strict=True):
            gradient = (gradient * mask.unsqueeze(1)) @ layer.weight
        batch, channels, height, width = features.shape
        places = features.reshape(batch, channels, height * width)
        maps = (gradient @ places).reshape(batch, -1, height, width) / (height * width)
        return logits, maps, embedding

    def _dense(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]


def build(recipe: Recipe, *, images: Tensor) -> tuple[Classifier, InitialWeights]:
    """Makes the classifier of a recipe, its initial weights loaded.

    Args:
        recipe: Its task, model and train.seed sections are read.
        images: Training images, float (n, size, size) in [0, 1]; weights whose batch norm is folded need them.

    Raises:
        TrainingError: The weights cannot be had or do not fit.
        UsageError: This engine does not have the architecture.
    """
    settings = recipe.model
    name = architectures.architecture(settings.architecture, "torch").engines["torch"]
    with torch.random.fork_rng():
        torch.manual_seed(recipe.train.seed)
        backbone, initial = weights.initialise(name, settings.weights, make=make_backbone, images=images)
    with torch.inference_mode():
        shape = backbone.eval()(torch.zeros(1, 3, recipe.data.size, recipe.data.size)).shape
    if len(shape) != 4:
        raise UsageError(
            f"{settings.architecture} gives an output of shape {tuple(shape)}, not a feature map "
            "(batch, channels, h, w); choose another architecture"
        )
    layers = initial_head(
        settings, inputs=shape[1], outputs=len(recipe.task.findings), seed=recipe.train.seed
    )
    head = Head(layers, dropout=settings.dropout)
    return Classifier(backbone, head, initial, frozen=settings.freeze == "backbone"), initial


def _linear(layer: Dense) -> nn.Linear:
    inputs, units = layer.kernel.shape
    linear = nn.Linear(inputs, units)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(layer.kernel.T.copy()))
        linear.bias.copy_(torch.from_numpy(layer.bias))
    return linear
