"""A feature map -> logits, and their maps in closed form: attention block, pool and dense layers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow

from hilum.engines.initial_head import Dense, InitialHead
from hilum.recipe import ModelSettings


class Connected(NamedTuple):
    """What a head makes of a feature map, symbolically.

    Attributes:
        features: The feature map after the attention block, (batch, h, w, channels).
        pooled: (batch, units).
        sums: Of each hidden layer, before the activation.
        logits: (batch, outputs).
        shares: Of an attention pool, (batch, places, 1); else the same as `pooled`.
    """

    features: Any
    pooled: Any
    sums: tuple[Any, ...]
    logits: Any
    shares: Any


class KerasHead:
    """Attention block, pool, hidden layers with activation and dropout, and one logit an output.

    Made of the library's own layers alone, so that a saved model needs nothing but Keras.

    Attributes:
        hidden: The hidden dense layers.
        last: The dense layer that gives the logits.
    """

    def __init__(
        self, initial: InitialHead, settings: ModelSettings, *, shape: tuple[int, int, int], seed: int
    ) -> None:
        self._shape = shape
        self._settings = settings
        self._block = BLOCKS[settings.block](initial, shape)
        self._pool = POOLS[settings.pool](initial, shape)
        self._reduce = REDUCTIONS.get(settings.pool) if settings.block == "none" else None
        *hidden, last = initial.layers
        self.hidden = [_dense(layer, f"hidden{number}") for number, layer in enumerate(hidden, start=1)]
        self.last = _dense(last, "logits", dtype="float32")
        self._activations = [
            keras.layers.Activation(settings.activation, name=f"activation{number}")
            for number in range(1, len(hidden) + 1)
        ]
        self._dropouts = [
            keras.layers.Dropout(settings.dropout, seed=seed + number, name=f"dropout{number}")
            for number in range(1, max(len(hidden), 1) + 1)
        ]

    def connect(self, features: Any) -> Connected:
        """Apply the head to a symbolic feature map (batch, h, w, channels)."""
        features = self._block(features)
        pooled, shares = self._pool(features)
        units, sums = pooled, []
        if not self.hidden:
            units = self._dropouts[0](units)
        for layer, activation, dropout in zip(
            self.hidden, self._activations, self._dropouts[: len(self.hidden)], strict=True
        ):
            sums.append(layer(units))
            units = dropout(activation(sums[-1]))
        return Connected(features, pooled, tuple(sums), self.last(units), shares)

    @property
    def shape(self) -> tuple[int | None, int | None, int]:
        """Of the maps that it reads: of any height and width, where it begins by a pool that learns nothing."""
        return self._shape if self._reduce is None else (None, None, self._shape[2])

    def reduced(self, features: Any) -> Any:
        """What the head reads of maps (batch, h, w, channels) that never change: of one place, if they are pooled."""
        return features if self._reduce is None else self._reduce(features, (1, 2), keepdims=True)

    @property
    def reduces(self) -> str:
        """How maps are pooled before anything is learned; empty where they are not."""
        return self._settings.pool if self._reduce else ""

    def penalty(self) -> Any:
        """Sum of squares of the hidden kernels."""
        return sum(
            (tensorflow.reduce_sum(tensorflow.square(layer.kernel.value)) for layer in self.hidden),
            tensorflow.constant(0.0),
        )

    def explain(self, connected: Sequence[Any]) -> tuple[Any, Any, Any]:
        """What `connect` gave, as tensors -> logits, maps and embedding, as the graph contract has them.

        The gradient of a logit with respect to what was pooled is the product of the kernels with the activations'
        derivatives between them; the pool turns it into maps.

        Returns:
            Logits (batch, outputs), maps (batch, outputs, h, w), embedding (batch, channels).
        """
        features, pooled, *sums, logits, shares = connected
        slope = SLOPES[self._settings.activation]
        gradient = tensorflow.transpose(self.last.kernel.value)[None]
        for layer, before in zip(self.hidden[::-1], sums[::-1], strict=True):
            gradient = tensorflow.matmul(
                gradient * slope(before)[:, None, :], tensorflow.transpose(layer.kernel.value)
            )
        height, width, channels = self._shape
        places = tensorflow.reshape(features, (-1, height * width, channels))
        if self._settings.pool == "attention":
            maps = _attention_maps(places, pooled, logits, shares, gradient)
        elif self._settings.pool == "flatten":
            outputs = self.last.kernel.shape[1]
            averaged = tensorflow.reshape(gradient, (-1, outputs, channels, height * width))
            maps = tensorflow.matmul(tensorflow.reduce_mean(averaged, 3), places, transpose_b=True)
        else:
            # Grad-CAM weighs each channel by its gradient averaged over places. Whatever share of the pooled value's
            # gradient a place gets, the shares sum to one, for the maximum as for the mean.
            maps = tensorflow.matmul(gradient, places, transpose_b=True) / (height * width)
        maps = tensorflow.reshape(maps, (-1, self.last.kernel.shape[1], height, width))
        return logits, maps, tensorflow.reduce_mean(places, 1)


def _attention_maps(places: Any, pooled: Any, logits: Any, shares: Any, gradient: Any) -> Any:
    """Each place's share of the logit; the shares sum to it.

    At place p with weight a_p and feature f_p, e the pooled vector and J the gradient there, the share is
    a_p (J f_p + logit - J e).
    """
    here = tensorflow.matmul(gradient, places, transpose_b=True)
    there = tensorflow.matmul(gradient, pooled[:, :, None])
    return tensorflow.transpose(shares, (0, 2, 1)) * (here + (logits[:, :, None] - there))


# Pools that learn nothing, as functions of tensors.
REDUCTIONS: Mapping[str, Callable[..., Any]] = {
    "average": tensorflow.reduce_mean,
    "max": tensorflow.reduce_max,
}
Shape = tuple[int, int, int]
Block = Callable[[Any], Any]
Pool = Callable[[Any], tuple[Any, Any]]


def _no_block(_initial: InitialHead, _shape: Shape) -> Block:
    """Leave the feature map as it is."""
    return lambda features: features


def _squeeze_excitation(initial: InitialHead, shape: Shape) -> Block:
    """Weigh each channel by a sigmoid of all channels' means (Hu et al. 2018)."""
    perceptron = _perceptron(initial)
    mean = keras.layers.GlobalAveragePooling2D(name="block_mean")
    sigmoid = keras.layers.Activation("sigmoid", name="block_channels")
    reshape = keras.layers.Reshape((1, 1, shape[2]), name="block_reshape")
    weigh = keras.layers.Multiply(name="block_weighed")

    def block(features: Any) -> Any:
        return weigh([features, reshape(sigmoid(perceptron(mean(features))))])

    return block


def _cbam(initial: InitialHead, shape: Shape) -> Block:
    """Weigh channels, then places, each by mean and maximum (Woo et al. 2018)."""
    assert initial.spatial_attention is not None
    height, width, channels = shape
    perceptron = _perceptron(initial)
    mean = keras.layers.GlobalAveragePooling2D(name="block_mean")
    maximum = keras.layers.GlobalMaxPooling2D(name="block_maximum")
    add = keras.layers.Add(name="block_sum")
    sigmoid = keras.layers.Activation("sigmoid", name="block_channels")
    reshape = keras.layers.Reshape((1, 1, channels), name="block_reshape")
    weigh = keras.layers.Multiply(name="block_weighed")
    # No layer reduces channels; a pool over steps does, where places stand as its channels.
    flat = keras.layers.Reshape((height * width, channels), name="block_places")
    channel_mean = keras.layers.GlobalAveragePooling1D(data_format="channels_first", name="block_place_mean")
    channel_maximum = keras.layers.GlobalMaxPooling1D(
        data_format="channels_first", name="block_place_maximum"
    )
    one = keras.layers.Reshape((height, width, 1), name="block_mean_map")
    other = keras.layers.Reshape((height, width, 1), name="block_maximum_map")
    both = keras.layers.Concatenate(name="block_both")
    kernel = initial.spatial_attention
    spatial = keras.layers.Conv2D(
        1, kernel.shape[0], padding="same", activation="sigmoid", name="block_spatial"
    )
    spatial.build((None, height, width, 2))
    spatial.set_weights([kernel[..., None], np.zeros(1, np.float32)])
    weigh_places = keras.layers.Multiply(name="block_weighed_places")

    def block(features: Any) -> Any:
        excited = add([perceptron(mean(features)), perceptron(maximum(features))])
        features = weigh([features, reshape(sigmoid(excited))])
        places = flat(features)
        maps = both([one(channel_mean(places)), other(channel_maximum(places))])
        return weigh_places([features, spatial(maps)])

    return block


def _perceptron(initial: InitialHead) -> Block:
    first, second = initial.channel_attention
    squeeze = _dense(first, "block_squeeze", activation="relu")
    excite = _dense(second, "block_excite")
    return lambda channels: excite(squeeze(channels))


def _average(_initial: InitialHead, _shape: Shape) -> Pool:
    """The mean over places."""
    return _same(keras.layers.GlobalAveragePooling2D(name="pool"))


def _maximum(_initial: InitialHead, _shape: Shape) -> Pool:
    """The maximum over places."""
    return _same(keras.layers.GlobalMaxPooling2D(name="pool"))


def _flatten(_initial: InitialHead, _shape: Shape) -> Pool:
    """All of the feature map, in the order channel, row, column."""
    permute, flatten = keras.layers.Permute((3, 1, 2), name="pool_order"), keras.layers.Flatten(name="pool")
    return _same(lambda features: flatten(permute(features)))


def _attention(initial: InitialHead, shape: Shape) -> Pool:
    """A mean over places whose weights are learned (Ilse et al. 2018, without their gate)."""
    height, width, channels = shape
    places = keras.layers.Reshape((height * width, channels), name="pool_places")
    hidden = _dense(initial.pool_attention[0], "pool_hidden", activation="tanh")
    last = _dense(initial.pool_attention[1], "pool_scores")
    softmax = keras.layers.Softmax(axis=1, name="pool_shares")
    dot = keras.layers.Dot(axes=1, name="pool_sum")
    reshape = keras.layers.Reshape((channels,), name="pool")

    def pool(features: Any) -> tuple[Any, Any]:
        tokens = places(features)
        shares = softmax(last(hidden(tokens)))
        return reshape(dot([shares, tokens])), shares

    return pool


def _same(layer: Block) -> Pool:
    def pool(features: Any) -> tuple[Any, Any]:
        pooled = layer(features)
        return pooled, pooled

    return pool


BLOCKS: Mapping[str, Callable[[InitialHead, Shape], Block]] = {
    "none": _no_block,
    "se": _squeeze_excitation,
    "cbam": _cbam,
}
POOLS: Mapping[str, Callable[[InitialHead, Shape], Pool]] = {
    "average": _average,
    "max": _maximum,
    "attention": _attention,
    "flatten": _flatten,
}


def _gelu_slope(x: Any) -> Any:
    return (1 + tensorflow.math.erf(x / math.sqrt(2))) / 2 + x * tensorflow.exp(
        -tensorflow.square(x) / 2
    ) / math.sqrt(2 * math.pi)


def _silu_slope(x: Any) -> Any:
    return tensorflow.sigmoid(x) * (1 + x * (1 - tensorflow.sigmoid(x)))


# An activation, which Keras knows by this name -> its derivative, element by element.
SLOPES: Mapping[str, Callable[[Any], Any]] = {
    "relu": lambda x: tensorflow.cast(x > 0, x.dtype),
    "elu": lambda x: tensorflow.exp(tensorflow.minimum(x, 0.0)),
    "gelu": _gelu_slope,
    "silu": _silu_slope,
    "tanh": lambda x: 1 - tensorflow.square(tensorflow.tanh(x)),
}


def _dense(layer: Dense, name: str, *, activation: str | None = None, dtype: str | None = None) -> Any:
    inputs, units = layer.kernel.shape
    dense = keras.layers.Dense(units, activation=activation, name=name, dtype=dtype)
    dense.build((None, inputs))
    dense.set_weights([layer.kernel, layer.bias])
    return dense
