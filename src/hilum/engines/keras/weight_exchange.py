"""A Keras backbone <-> arrays in the layout that carries weights from one engine to the other.

Keys count the layers in the order in which they run: `NNN_convolution_kernel` (out, in, h, w; in = 1 for a depthwise
one), `NNN_convolution_bias` (out,), `NNN_norm_gamma`, `_beta`, `_mean`, `_variance` (channels,), `_epsilon` (). Beside
them stand `padding` (`same`, TensorFlow's, or `symmetric`) and, by whoever writes the file, `mean` and `std` (3,), the
normalisation of the input. It carries networks of convolutions and batch norms that run one after the other: DenseNet,
VGG, and MobileNetV2 with TensorFlow's padding.
"""

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from hilum.engines.keras.backbones import layers
from hilum.engines.weight_sources import misfit
from hilum.errors import TrainingError

KEY = re.compile(r"\d{3}_(convolution|norm)_\w+")
STATISTICS = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "variance": "moving_variance"}


def arrays(backbone: Any) -> dict[str, np.ndarray]:
    """Take the weights out.

    Raises:
        TrainingError: There are layers of another kind.
    """
    found = {"padding": np.array(_padding(backbone))}
    for index, layer in enumerate(layers(backbone)):
        if isinstance(layer, keras.layers.BatchNormalization):
            for role, attribute in STATISTICS.items():
                found[f"{index:03d}_norm_{role}"] = getattr(layer, attribute).numpy()
            found[f"{index:03d}_norm_epsilon"] = np.array(layer.epsilon)
            continue
        kernel = _checked(layer).kernel.numpy()
        order = (2, 3, 0, 1) if _depthwise(layer) else (3, 2, 0, 1)
        found[f"{index:03d}_convolution_kernel"] = np.ascontiguousarray(kernel.transpose(order))
        if layer.use_bias:
            found[f"{index:03d}_convolution_bias"] = layer.bias.numpy()
    return found


def fill(backbone: Any, given: Mapping[str, np.ndarray], *, name: str, told: str) -> None:
    """Put weights in.

    Where the library's epsilon is another than the file's, the variance takes up the difference: the function is the
    same.

    Args:
        backbone: Whose weights are replaced.
        given: As `arrays` gives them; other keys are left out.
        name: The architecture, for a message.
        told: The file, for a message.

    Raises:
        TrainingError: They do not fit; the message names the first that does not.
    """
    padding = str(given.get("padding", _padding(backbone)))
    if padding != _padding(backbone):
        raise TrainingError(
            f"{told} does not fit {name}: it was trained with {padding} padding, "
            f"{_padding(backbone)} is what Keras's {name} has"
        )
    left = {key for key in given if KEY.fullmatch(key)}

    def take(key: str, shape: tuple[int, ...]) -> np.ndarray:
        left.discard(key)
        if key not in given or given[key].shape != shape:
            arrived = given[key].shape if key in given else None
            raise misfit(told, name, key, arrived=arrived, expected=shape)
        return given[key]

    for index, layer in enumerate(layers(backbone)):
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = tuple(layer.gamma.shape)
            found = {role: take(f"{index:03d}_norm_{role}", shape) for role in STATISTICS}
            epsilon = float(take(f"{index:03d}_norm_epsilon", ()))
            found["variance"] = np.maximum(found["variance"] + epsilon - layer.epsilon, 0)
            for role, attribute in STATISTICS.items():
                getattr(layer, attribute).assign(found[role])
            continue
        height, width, inputs, outputs = _checked(layer).kernel.shape
        depthwise = _depthwise(layer)
        shape = (inputs, outputs, height, width) if depthwise else (outputs, inputs, height, width)
        kernel = take(f"{index:03d}_convolution_kernel", shape)
        layer.kernel.assign(kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0)))
        if layer.use_bias:
            layer.bias.assign(take(f"{index:03d}_convolution_bias", (outputs,)))
    if left:
        raise misfit(told, name, min(left), arrived=given[min(left)].shape, expected=None)


def _padding(backbone: Any) -> str:
    """How strided convolutions pad; the others pad alike either way."""
    strided = [layer for layer in layers(backbone) if getattr(layer, "strides", (1, 1)) != (1, 1)]
    return "same" if any(layer.padding == "same" for layer in strided) else "symmetric"


def _depthwise(layer: Any) -> bool:
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def _checked(layer: Any) -> Any:
    if not isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
        raise TrainingError(
            f"weights in the neutral layout are of convolutions and batch norms alone, not of {type(layer).__name__}"
        )
    return layer
