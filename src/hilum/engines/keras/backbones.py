"""An architecture's name -> a Keras backbone that ends at its feature map (batch, h, w, channels)."""

import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from hilum.engines.keras import backend as backend

CUSTOM_CNN = "custom_cnn"
MOMENTUM = (
    0.9  # of batch norm's statistics, as PyTorch's 0.1 has it; the library's 0.99 needs thousands of steps
)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Family:
    """What the library's networks of a kind need to end at their feature map.

    Attributes:
        mean: What their ImageNet weights expect to be subtracted from the image in [0, 1], by channel.
        std: What they expect it to be divided by.
        first: The layer with which the network proper begins; empty where it is the first.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    first: str = ""


_TORCH = Family(IMAGENET_MEAN, IMAGENET_STD)
_TENSORFLOW = Family((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Blue, green, red: the order of the means is all that an order of channels is, since the three are one grey.
_CAFFE = Family((103.939 / 255, 116.779 / 255, 123.68 / 255), (1 / 255, 1 / 255, 1 / 255))
# The library's name -> the preprocessing with which its weights were trained.
FAMILIES: Mapping[str, Family] = {
    "DenseNet121": _TORCH,
    "DenseNet169": _TORCH,
    "DenseNet201": _TORCH,
    "MobileNetV2": _TENSORFLOW,
    "VGG16": _CAFFE,
    "ResNet50": _CAFFE,
    "EfficientNetB0": Family(IMAGENET_MEAN, IMAGENET_STD, first="stem_conv_pad"),
}


def make_backbone(
    name: str, *, size: int, pretrained: bool = False, dropout: float = 0.0, seed: int = 0
) -> Any:
    """Makes a backbone that ends at its feature map.

    Normalisation that the library keeps inside a network is cut away.

    Args:
        name: `custom_cnn` or a name in `keras.applications`.
        size: Side of the images in pixels.
        pretrained: Whether to fetch the library's ImageNet weights.
        dropout: Of whole channels after each block; for `custom_cnn` alone.
        seed: Of random weights and of the backbone's own dropout.

    Returns:
        A functional `keras.Model`: (batch, size, size, 3) -> (batch, h, w, channels).
    """
    with seeded(seed):
        if name == CUSTOM_CNN:
            backbone = _custom_cnn(size, dropout)
        else:
            family = FAMILIES[name]
            backbone = getattr(keras.applications, name)(
                include_top=False,
                weights="imagenet" if pretrained else None,
                input_shape=(size, size, 3),
                pooling=None,
            )
            if family.first:
                backbone = keras.Model(
                    backbone.get_layer(family.first).input, backbone.output, name=backbone.name
                )
    for layer in layers(backbone):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return backbone


def layers(backbone: Any) -> tuple[Any, ...]:
    """The layers of a backbone that hold weights, from the image to the feature map.

    They are the units that are frozen or given a learning rate of their own; batch norms are layers of their own.
    """
    found: list[Any] = []
    for layer in backbone.layers:
        if hasattr(layer, "layers"):
            found.extend(layers(layer))
        elif layer.weights:
            found.append(layer)
    return tuple(found)


def _custom_cnn(size: int, dropout: float) -> Any:
    """Four blocks of 32, 64, 128 and 256 filters: convolution, batch norm, ReLU, max pooling, dropout of channels."""
    image = keras.Input((size, size, 3))
    features = image
    for number, filters in enumerate((32, 64, 128, 256), start=1):
        convolution = keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"block{number}_conv",
        )
        features = convolution(features)
        features = keras.layers.BatchNormalization(epsilon=1e-5, name=f"block{number}_bn")(features)
        features = keras.layers.ReLU(name=f"block{number}_relu")(features)
        features = keras.layers.MaxPooling2D(2, name=f"block{number}_pool")(features)
        features = keras.layers.SpatialDropout2D(dropout, name=f"block{number}_dropout")(features)
    return keras.Model(image, features, name=CUSTOM_CNN)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Makes what Keras draws follow from a seed, for a while: its seeds are drawn by Python's generator."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
