"""A recipe's head -> its initial weights in NumPy, so that every engine starts from the same ones."""

from dataclasses import dataclass

import numpy as np

from hilum.recipe import ModelSettings

ATTENTION_UNITS = 128
REDUCTION = 16
SPATIAL_KERNEL = 7


@dataclass(frozen=True)
class Dense:
    """One dense layer.

    Attributes:
        kernel: float32 (inputs, units).
        bias: float32 (units,).
    """

    kernel: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class InitialHead:
    """The weights that a head starts from.

    Attributes:
        layers: The hidden layers and the last. With `pool = "flatten"` the first reads the feature map in the order
            channel, row, column.
        channel_attention: For the blocks `se` and `cbam`: channels -> channels / 16 -> channels; else empty.
        spatial_attention: For `cbam`: float32 (7, 7, 2), over the mean and the maximum of the channels; else None.
        pool_attention: For `pool = "attention"`: channels -> 128 -> 1; else empty.
    """

    layers: tuple[Dense, ...]
    channel_attention: tuple[Dense, ...] = ()
    spatial_attention: np.ndarray | None = None
    pool_attention: tuple[Dense, ...] = ()


def initial_head(
    settings: ModelSettings, *, channels: int, height: int, width: int, outputs: int, seed: int
) -> InitialHead:
    """Draw the head's weights.

    Hidden kernels are He-normal (He et al. 2015). The last is normal with deviation 0.01, so that training starts
    near probability 0.5 instead of with confident nonsense; biases are 0.

    Args:
        settings: Names the layers.
        channels: Of the feature map.
        height: Of the feature map.
        width: Of the feature map.
        outputs: Logits.
        seed: Of the draw.
    """
    rng = np.random.default_rng([seed, 0x4EAD])
    inputs = channels * height * width if settings.pool == "flatten" else channels
    layers = []
    for units in settings.hidden:
        layers.append(_dense(rng, inputs, units))
        inputs = units
    layers.append(_dense(rng, inputs, outputs, deviation=0.01))
    # Each of the rest from its own generator: switching one on leaves the draws of the others as they were.
    squeezed = max(channels // REDUCTION, 1)
    rng = np.random.default_rng([seed, 0xB10C])
    excitation = (_dense(rng, channels, squeezed), _dense(rng, squeezed, channels))
    places = SPATIAL_KERNEL * SPATIAL_KERNEL * 2
    spatial = rng.normal(0, np.sqrt(2 / places), (SPATIAL_KERNEL, SPATIAL_KERNEL, 2)).astype(np.float32)
    rng = np.random.default_rng([seed, 0xA77E])
    attention = (_dense(rng, channels, ATTENTION_UNITS), _dense(rng, ATTENTION_UNITS, 1, deviation=0.01))
    return InitialHead(
        layers=tuple(layers),
        channel_attention=excitation if settings.block != "none" else (),
        spatial_attention=spatial if settings.block == "cbam" else None,
        pool_attention=attention if settings.pool == "attention" else (),
    )


def _dense(rng: np.random.Generator, inputs: int, units: int, *, deviation: float | None = None) -> Dense:
    spread = np.sqrt(2 / inputs) if deviation is None else deviation
    kernel = rng.normal(0, spread, (inputs, units)).astype(np.float32)
    return Dense(kernel, np.zeros(units, np.float32))
