"""A feature map -> logits, and their maps in closed form: attention block, pool and dense layers."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hilum.engines.initial_head import Dense, InitialHead
from hilum.recipe import ModelSettings


class TorchHead(nn.Module):
    """Pool, hidden layers with activation and dropout, and one logit an output.

    Attributes:
        block: Applied by `Classifier.features` before the map is handed to this head; kept here because it is the
            head's, not the backbone's.
    """

    def __init__(self, initial: InitialHead, settings: ModelSettings) -> None:
        super().__init__()
        self.block = BLOCKS[settings.block](initial)
        self.pool = POOLS[settings.pool](initial)
        self.layers = nn.ModuleList(_linear(layer) for layer in initial.layers)
        self.activation = ACTIVATIONS[settings.activation]
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Feature map (batch, channels, h, w) -> logits (batch, outputs)."""
        units = self.pool(features)
        *hidden, last = self._dense()
        if not hidden:
            units = self.dropout(units)
        for layer in hidden:
            units = self.dropout(self.activation.function(layer(units)))
        logits: Tensor = last(units)
        return logits

    def reduced(self, features: Tensor) -> Tensor:
        """What the head reads of a map that never changes: the pooled values, where nothing is learned before them.

        Returns:
            (batch, channels, h, w), of one place if it is pooled.
        """
        return self.pool(features)[:, :, None, None] if self.reduces else features

    @property
    def reduces(self) -> bool:
        """Whether nothing is learned before a map is averaged."""
        return isinstance(self.block, NoBlock) and isinstance(self.pool, AveragePool)

    def explain(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Feature map -> logits, maps and embedding, as the graph contract has them.

        The gradient of a logit with respect to what was pooled is the product of the kernels with the activations'
        derivatives between them; the pool turns it into maps.
        """
        pooled = self.pool(features)
        units, slopes = pooled, []
        *hidden, last = self._dense()
        for layer in hidden:
            sums = layer(units)
            units = self.activation.function(sums)
            slopes.append(self.activation.derivative(sums))
        logits = last(units)
        gradient = last.weight.unsqueeze(0)
        for layer, slope in zip(hidden[::-1], slopes[::-1], strict=True):
            gradient = (gradient * slope.unsqueeze(1)) @ layer.weight
        maps = self.pool.maps(features, pooled, logits, gradient)
        return logits, maps, features.mean((2, 3))

    def penalty(self) -> Tensor | float:
        """Sum of squares of the hidden kernels."""
        return sum((layer.weight.square().sum() for layer in self._dense()[:-1]), 0.0)

    def _dense(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]


class AveragePool(nn.Module):
    """The mean over places."""

    def __init__(self, _initial: InitialHead) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, h, w) -> (batch, channels)."""
        return features.mean((2, 3))

    def maps(self, features: Tensor, _pooled: Tensor, _logits: Tensor, gradient: Tensor) -> Tensor:
        """Grad-CAM without its final ReLU (Selvaraju et al. 2017).

        Grad-CAM weighs each channel by its gradient averaged over places. Whatever share of the pooled value's
        gradient a place gets, the shares sum to one: the average is `gradient` over the number of places, for the
        maximum as for the mean.

        Args:
            features: (batch, channels, h, w).
            gradient: (batch or 1, outputs, channels), of the logits with respect to the pooled values.

        Returns:
            (batch, outputs, h, w).
        """
        return _weighted(features, gradient) / (features.shape[2] * features.shape[3])


class MaxPool(AveragePool):
    """The maximum over places; its maps are `AveragePool`'s, with the gradient taken at the maxima."""

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, h, w) -> (batch, channels)."""
        return features.amax((2, 3))


class Flatten(nn.Module):
    """All of the feature map, in the order channel, row, column."""

    def __init__(self, _initial: InitialHead) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, h, w) -> (batch, channels * h * w)."""
        return features.flatten(1)

    def maps(self, features: Tensor, _pooled: Tensor, _logits: Tensor, gradient: Tensor) -> Tensor:
        """Grad-CAM without its final ReLU; `gradient` is (batch or 1, outputs, channels * h * w)."""
        averaged = gradient.reshape(*gradient.shape[:2], features.shape[1], -1).mean(3)
        return _weighted(features, averaged)


class AttentionPool(nn.Module):
    """A mean over places whose weights are learned (Ilse et al. 2018, without their gate)."""

    def __init__(self, initial: InitialHead) -> None:
        super().__init__()
        hidden, last = initial.pool_attention
        self.hidden, self.last = _linear(hidden), _linear(last)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, h, w) -> (batch, channels)."""
        return (features.flatten(2) @ self._shares(features)).squeeze(2)

    def maps(self, features: Tensor, pooled: Tensor, logits: Tensor, gradient: Tensor) -> Tensor:
        """Each place's share of the logit; the shares sum to it.

        At place p with weight a_p and feature f_p, e the pooled vector and J the gradient there, the share is
        a_p (J f_p + logit - J e).
        """
        here = gradient @ features.flatten(2)  # (batch, outputs, places)
        there = (gradient @ pooled.unsqueeze(2)).squeeze(2)
        shares = self._shares(features).transpose(1, 2) * (here + (logits - there).unsqueeze(2))
        return shares.reshape(*shares.shape[:2], *features.shape[2:])

    def _shares(self, features: Tensor) -> Tensor:
        """(batch, places, 1), each from 0 to 1, summing to 1."""
        scores: Tensor = self.last(torch.tanh(self.hidden(features.flatten(2).transpose(1, 2))))
        return scores.softmax(1)


class NoBlock(nn.Module):
    """Leaves the feature map as it is."""

    def __init__(self, _initial: InitialHead) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, h, w) -> the same."""
        return features


class SqueezeExcitation(nn.Module):
    """Weighs each channel by a sigmoid of all channels' means (Hu et al. 2018)."""

    def __init__(self, initial: InitialHead) -> None:
        super().__init__()
        first, second = initial.channel_attention
        self.squeeze, self.excite = _linear(first), _linear(second)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, h, w) -> the same shape."""
        weights = self._perceptron(features.mean((2, 3))).sigmoid()
        return features * weights[:, :, None, None]

    def _perceptron(self, channels: Tensor) -> Tensor:
        excited: Tensor = self.excite(torch.relu(self.squeeze(channels)))
        return excited


class CBAM(SqueezeExcitation):
    """Weighs channels, then places, each by mean and maximum (Woo et al. 2018)."""

    def __init__(self, initial: InitialHead) -> None:
        super().__init__(initial)
        assert initial.spatial_attention is not None
        kernel = initial.spatial_attention
        self.spatial = nn.Conv2d(2, 1, kernel.shape[0], padding="same")
        _fill(self.spatial, kernel.transpose(2, 0, 1)[None], np.zeros(1, np.float32))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, h, w) -> the same shape."""
        channels = self._perceptron(features.mean((2, 3))) + self._perceptron(features.amax((2, 3)))
        features = features * channels.sigmoid()[:, :, None, None]
        both = torch.stack([features.mean(1), features.amax(1)], 1)
        weighted: Tensor = features * self.spatial(both).sigmoid()
        return weighted


class Activation(NamedTuple):
    """A function and its derivative, element by element."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def _gelu_slope(x: Tensor) -> Tensor:
    return (1 + torch.erf(x / math.sqrt(2))) / 2 + x * torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)


def _silu_slope(x: Tensor) -> Tensor:
    return x.sigmoid() * (1 + x * (1 - x.sigmoid()))


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation(torch.relu, lambda x: (x > 0).to(x.dtype)),
    "elu": Activation(nn.functional.elu, lambda x: torch.exp(x.clamp(max=0))),
    "gelu": Activation(nn.functional.gelu, _gelu_slope),
    "silu": Activation(nn.functional.silu, _silu_slope),
    "tanh": Activation(torch.tanh, lambda x: 1 - torch.tanh(x).square()),
}
POOLS: Mapping[str, type] = {
    "average": AveragePool,
    "max": MaxPool,
    "attention": AttentionPool,
    "flatten": Flatten,
}
BLOCKS: Mapping[str, type] = {"none": NoBlock, "se": SqueezeExcitation, "cbam": CBAM}


def _weighted(features: Tensor, weights: Tensor) -> Tensor:
    """(batch, channels, h, w) and (batch or 1, outputs, channels) -> sums over channels (batch, outputs, h, w)."""
    sums = weights @ features.flatten(2)
    return sums.reshape(*sums.shape[:2], *features.shape[2:])


def _linear(layer: Dense) -> nn.Linear:
    inputs, units = layer.kernel.shape
    linear = nn.Linear(inputs, units)
    _fill(linear, layer.kernel.T, layer.bias)
    return linear


def _fill(layer: nn.Linear | nn.Conv2d, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        assert layer.bias is not None
        layer.bias.copy_(torch.from_numpy(bias))
