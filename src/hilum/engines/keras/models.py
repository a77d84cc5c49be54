"""A recipe's model section -> a Keras classifier whose maps come in closed form."""

import contextlib
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow

from hilum.engines.contract import InitialWeights, NetworkLayer
from hilum.engines.initial_head import initial_head
from hilum.engines.keras.backbones import layers, make_backbone, seeded
from hilum.engines.keras.heads import KerasHead
from hilum.engines.keras.weights import initialise
from hilum.recipe import Recipe
from hilum.recipe.architectures import architecture

POLICIES = {"fp32": "float32", "bf16": "mixed_bfloat16"}
LINKS = {"binary": "sigmoid", "multilabel": "sigmoid", "multiclass": "softmax"}


class KerasClassifier(keras.Model):
    """Grey images -> logits; normalisation is inside.

    Attributes:
        backbone: (batch, size, size, 3) -> feature map (batch, h, w, channels).
        head: What is applied to the feature map.
        head_model: The same, from a feature map to logits.
        connected: The same, to all that `KerasHead.connect` gives, in a row.
        link: From logits to probabilities: `sigmoid` or `softmax`.
        num_frozen: Layers of the backbone, counted from the image, that stay as they are.
        learn: A step of training; set by whoever trains, called by `fit`.
        unfold: Unfolds folded batch norm; None where there is none. Of a backbone that stays frozen it is left to the
            export: what is computed is the same, and the statistics are of use only to who trains on.
    """

    def __init__(
        self, backbone: Any, head: KerasHead, initial: InitialWeights, *, size: int, link: str
    ) -> None:
        super().__init__(dtype="float32", name="classifier")
        self.size = size
        self.link = link
        self.initial = initial
        self._normalisation = _normalisation(initial, size)
        self.backbone = backbone
        self.head = head
        features = keras.Input(head.shape)
        connected = head.connect(features)
        self.head_model = keras.Model(features, connected.logits, name="head")
        everything = [
            connected.features,
            connected.pooled,
            *connected.sums,
            connected.logits,
            connected.shares,
        ]
        self.connected = keras.Model(features, everything, name="connected")
        self.num_frozen = 0
        self.learn: Any = None
        self.unfold: Any = None
        # Traced once for any number of images.
        self.run = tensorflow.function(
            self._run, input_signature=[tensorflow.TensorSpec((None, size, size), tensorflow.uint8)]
        )
        self.built = True  # as all its parts are

    def call(self, image: Any, training: bool = False) -> Any:
        """Float (batch, size, size) in [0, 1], or what `stored` made of it -> logits (batch, outputs)."""
        if len(image.shape) == 4:
            return self.head_model(image, training=training)
        frozen = self.num_frozen == len(layers(self.backbone))
        features = self.backbone(_through(self._normalisation, image), training=training and not frozen)
        return self.head_model(features, training=training)

    def stored(self, image: Any) -> Any:
        """Float (batch, size, size) in [0, 1] -> what `call` takes in its place while the backbone is frozen."""
        features = self.backbone(_through(self._normalisation, image), training=False)
        return self.head.reduced(tensorflow.cast(features, tensorflow.float32))

    def explain(self, image: Any) -> tuple[Any, Any, Any]:
        """Float (batch, size, size) in [0, 1] -> logits, maps (batch, outputs, h, w), embedding."""
        features = self.backbone(_through(self._normalisation, image), training=False)
        return self.head.explain(self.connected(features, training=False))

    @property
    def num_layers(self) -> int:
        """Number of the backbone's layers that hold weights."""
        return len(layers(self.backbone))

    def freeze(self, share: float) -> None:
        """Keep the first layers of the backbone as they are, batch-norm statistics included, and frees the others.

        Args:
            share: Of the layers, counted from the image; 1 is all of the backbone.
        """
        stages = layers(self.backbone)
        self.num_frozen = round(share * len(stages))
        for index, layer in enumerate(stages):
            layer.trainable = index >= self.num_frozen

    def train_step(self, data: Any) -> Any:
        """What `fit` calls for each batch."""
        return self.learn(data)

    def probability_model(self) -> Any:
        """The same network as a functional model of built-in layers: grey (size, size) in, probabilities out."""
        image = keras.Input((self.size, self.size), name="image")
        features = self.backbone(_through(self._normalisation, image))
        logits = self.head.connect(features).logits
        probability = keras.layers.Activation(self.link, dtype="float32", name="probability")(logits)
        return keras.Model(image, probability, name="hilum")

    def _run(self, images: Any) -> Any:
        """uint8 (batch, size, size) -> float32 logits, as in evaluation."""
        return tensorflow.cast(self(to_float(images), training=False), tensorflow.float32)


def to_float(images: Any) -> Any:
    """uint8 (n, size, size) -> float32 in [0, 1]; features stay as they are."""
    return images if images.dtype == tensorflow.float32 else tensorflow.cast(images, tensorflow.float32) / 255


def build(
    recipe: Recipe, *, images: np.ndarray, precision: str = "fp32", measure: bool = True
) -> tuple[KerasClassifier, InitialWeights]:
    """Make the classifier of a recipe, its initial weights loaded and its layers frozen.

    Args:
        recipe: Its task, data, model and train.seed are read.
        images: Training images, uint8 (n, size, size); weights whose batch norm is folded need them.
        precision: What it computes in: `fp32`, or `bf16` with weights in full precision.
        measure: Whether folded weights are unfolded here; see `weights.initialise`.

    Raises:
        TrainingError: The weights cannot be had or do not fit.
        UsageError: This engine does not have the architecture.
    """
    settings = recipe.model
    name = architecture(settings.architecture, "keras").engines["keras"]
    make = partial(
        make_backbone, size=recipe.data.size, dropout=settings.backbone_dropout, seed=recipe.train.seed
    )
    with _policy(precision), seeded(recipe.train.seed):
        backbone, initial = initialise(name, settings.weights, make=make, images=images, measure=measure)
        initial = initial.scaled(settings.scaling)
        return _classifier(recipe, backbone, initial), initial


def in_full_precision(recipe: Recipe, model: KerasClassifier) -> KerasClassifier:
    """A new classifier with the same weights, that computes in fp32."""
    settings = recipe.model
    name = architecture(settings.architecture, "keras").engines["keras"]
    with _policy("fp32"), seeded(recipe.train.seed):
        backbone = make_backbone(
            name, size=recipe.data.size, dropout=settings.backbone_dropout, seed=recipe.train.seed
        )
        copy = _classifier(recipe, backbone, model.initial)
    copy.set_weights(model.get_weights())
    return copy


def network_layers(recipe: Recipe) -> tuple[NetworkLayer, ...]:
    """Return the layers of a recipe's network that hold parameters, from the image to the logits."""
    size = recipe.data.size
    model, _ = build(recipe.with_random_weights(), images=np.zeros((1, size, size), np.uint8))
    num_frozen = model.num_frozen
    model.freeze(0)  # of a frozen layer Keras counts no variable as one that is learned
    backbone = [
        NetworkLayer(layer.name, type(layer).__name__, _numbers(layer), index < num_frozen)
        for index, layer in enumerate(layers(model.backbone))
    ]
    head = [
        NetworkLayer(f"head.{layer.name}", type(layer).__name__, _numbers(layer), False)
        for layer in model.head_model.layers
    ]
    return tuple(layer for layer in (*backbone, *head) if layer.parameters)


def _numbers(layer: Any) -> int:
    return sum(math.prod(variable.shape) for variable in layer.trainable_variables)


def _classifier(recipe: Recipe, backbone: Any, initial: InitialWeights) -> KerasClassifier:
    _, height, width, channels = backbone.output_shape
    first = initial_head(
        recipe.model,
        channels=channels,
        height=height,
        width=width,
        outputs=len(recipe.task.findings),
        seed=recipe.train.seed,
    )
    head = KerasHead(first, recipe.model, shape=(height, width, channels), seed=recipe.train.seed)
    model = KerasClassifier(backbone, head, initial, size=recipe.data.size, link=LINKS[recipe.task.kind])
    model.freeze(recipe.model.frozen_share)
    return model


def _normalisation(initial: InitialWeights, size: int) -> tuple[Any, ...]:
    """Layers that copy the grey to three channels and normalise each, in full precision."""
    return (
        keras.layers.Reshape((size, size, 1), dtype="float32", name="channel"),
        keras.layers.Concatenate(dtype="float32", name="channels"),
        keras.layers.Rescaling(
            [1 / std for std in initial.std],
            [-mean / std for mean, std in zip(initial.mean, initial.std, strict=True)],
            dtype="float32",
            name="normalisation",
        ),
    )


def _through(normalisation: tuple[Any, ...], image: Any) -> Any:
    channel, channels, rescaling = normalisation
    grey = channel(image)
    return rescaling(channels([grey, grey, grey]))


@contextlib.contextmanager
def _policy(precision: str) -> Iterator[None]:
    """Make the layers that are made inside compute in a precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
