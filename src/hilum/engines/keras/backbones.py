"""An architecture's name -> a Keras backbone that ends at its feature map (batch, h, w, channels)."""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

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
        licence: Of those weights, as whoever published them first has it.
        first: The layer with which the network proper begins; empty where it is the first.
        options: What its maker must be told.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    first: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


# Blue, green, red: the order of the means is all that an order of channels is, since the three are one grey.
CAFFE_MEAN, CAFFE_STD = (103.939 / 255, 116.779 / 255, 123.68 / 255), (1 / 255, 1 / 255, 1 / 255)
_DENSENET = Family(IMAGENET_MEAN, IMAGENET_STD, "BSD-3-Clause")
# The library's name -> the preprocessing with which its weights were trained.
FAMILIES: Mapping[str, Family] = {
    "DenseNet121": _DENSENET,
    "DenseNet169": _DENSENET,
    "DenseNet201": _DENSENET,
    "MobileNetV2": Family((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "Apache-2.0"),
    "VGG16": Family(CAFFE_MEAN, CAFFE_STD, "CC-BY-4.0"),
    "ResNet50": Family(CAFFE_MEAN, CAFFE_STD, "MIT"),
    "EfficientNetB0": Family(IMAGENET_MEAN, IMAGENET_STD, "Apache-2.0", first="stem_conv_pad"),
    "ConvNeXtTiny": Family(IMAGENET_MEAN, IMAGENET_STD, "MIT", options={"include_preprocessing": False}),
}


def make_backbone(
    name: str,
    *,
    size: int,
    pretrained: bool = False,
    load: Callable[[Any], None] | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> Any:
    """Make a backbone that ends at its feature map.

    Args:
        name: One of `OWN` or a name in `keras.applications`.
        size: Side of the images in pixels.
        pretrained: Whether to fetch the library's ImageNet weights.
        load: Fills the network with weights while it is still as the library has it.
        dropout: Of whole channels after each block; for `custom_cnn` alone.
        seed: Of random weights and of the backbone's own dropout.

    Returns:
        A functional `keras.Model`: (batch, size, size, 3) -> (batch, h, w, channels).
    """
    with seeded(seed):
        if name in OWN:
            network = OWN[name](size, dropout)
        else:
            network = getattr(keras.applications, name)(
                include_top=False,
                weights="imagenet" if pretrained else None,
                input_shape=(size, size, 3),
                pooling=None,
                **FAMILIES[name].options,
            )
        if load is not None:
            load(network)
        if name not in OWN:
            network = _adapted(network, FAMILIES[name])
    for layer in layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return network


def _adapted(network: Any, family: Family) -> Any:
    """Cut a normalisation inside the network away, and write grouped convolutions so that they run on a CPU."""
    if family.first:
        network = keras.Model(network.get_layer(family.first).input, network.output, name=network.name)
    if not any(map(_grouped, network.layers)):
        return network
    adapted = keras.models.clone_model(network, clone_function=_depthwise)
    for before, after in zip(network.layers, adapted.layers, strict=True):
        arrays = before.get_weights()
        if _grouped(before):
            arrays[0] = arrays[0].transpose(0, 1, 3, 2)  # (h, w, 1, channels) -> (h, w, channels, 1)
        after.set_weights(arrays)
    return adapted


def _grouped(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Conv2D) and layer.groups > 1


def _depthwise(layer: Any) -> Any:
    """The same layer anew; a convolution with a group a channel becomes the depthwise one that it is."""
    settings = layer.get_config()
    if not _grouped(layer):
        return layer.__class__.from_config(settings)
    assert layer.groups == layer.filters
    kept = ("name", "dtype", "kernel_size", "strides", "padding", "use_bias")
    return keras.layers.DepthwiseConv2D(**{key: settings[key] for key in kept})


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
    return keras.Model(image, features, name="custom_cnn")


OWN: dict[str, Callable[[int, float], Any]] = {"custom_cnn": _custom_cnn}
"""Name -> a function of size and dropout that makes a network: (batch, size, size, 3) -> (batch, h, w, channels)."""


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make what Keras draws follow from a seed, for a while: its seeds are drawn by Python's generator."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
