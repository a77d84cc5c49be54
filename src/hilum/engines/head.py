"""A recipe's head -> its initial weights in NumPy, so that every engine starts from the same ones."""

from dataclasses import dataclass

import numpy as np

from hilum.recipe import ModelSettings


@dataclass(frozen=True)
class Dense:
    """One dense layer.

    Attributes:
        kernel: float32 (inputs, units).
        bias: float32 (units,).
    """

    kernel: np.ndarray
    bias: np.ndarray


def initial_head(settings: ModelSettings, *, inputs: int, outputs: int, seed: int) -> tuple[Dense, ...]:
    """Draws the head's layers: the hidden ones and the last.

    Hidden kernels are He-normal (He et al. 2015). The last is normal with deviation 0.01, so that training starts
    near probability 0.5 instead of with confident nonsense; biases are 0.

    Args:
        settings: Names the hidden layers.
        inputs: Channels that the head reads.
        outputs: Logits.
        seed: Of the draw.
    """
    rng = np.random.default_rng([seed, 0x4EAD])
    layers = []
    for units in settings.hidden:
        kernel = rng.normal(0, np.sqrt(2 / inputs), (inputs, units))
        layers.append(Dense(kernel.astype(np.float32), np.zeros(units, np.float32)))
        inputs = units
    last = rng.normal(0, 0.01, (inputs, outputs)).astype(np.float32)
    return (*layers, Dense(last, np.zeros(outputs, np.float32)))
