import keras
import numpy as np
import pytest
import tensorflow

from hilum.engines.initial_head import initial_head
from hilum.engines.keras.heads import BLOCKS, POOLS, SLOPES, KerasHead
from hilum.recipe import ModelSettings

SHAPE = HEIGHT, WIDTH, CHANNELS = 4, 5, 12


def make(**settings):
    """A head as two models: feature map -> logits, and -> all that it explains itself with."""
    chosen = ModelSettings(architecture="custom_cnn", weights="none", **settings)
    first = initial_head(chosen, channels=CHANNELS, height=HEIGHT, width=WIDTH, outputs=3, seed=1)
    head = KerasHead(first, chosen, shape=SHAPE, seed=0)
    features = keras.Input(SHAPE)
    found = head.connect(features)
    everything = [found.features, found.pooled, *found.sums, found.logits, found.shares]
    model = keras.Model(features, everything)
    rng = np.random.default_rng(2)
    for variable in model.weights:  # biases of zero would hide a forgotten one
        variable.assign_add(0.1 * rng.standard_normal(variable.shape))
    return head, model


def features(seed=0):
    return tensorflow.constant(np.random.default_rng(seed).standard_normal((2, *SHAPE)), tensorflow.float32)


def explain(head, model, read):
    return [output.numpy() for output in head.explain(model(read))]


def automatic_maps(head, model, read):
    """Grad-CAM as its paper has it: gradients averaged over places, times the features; no final ReLU."""
    maps = []
    for column in range(3):
        with tensorflow.GradientTape() as tape:
            tape.watch(read)
            logit = tensorflow.reduce_sum(model(read)[-2][:, column])
        gradient = tape.gradient(logit, read)
        maps.append(tensorflow.reduce_sum(tensorflow.reduce_mean(gradient, (1, 2), keepdims=True) * read, 3))
    return np.stack(maps, 1)


@pytest.mark.parametrize(
    ("activation", "hidden"), [("relu", ()), *((name, (16,)) for name in SLOPES), ("relu", (16, 8))]
)
@pytest.mark.parametrize("pool", [pool for pool in POOLS if pool != "attention"])
def test_maps_are_grad_cam_for_every_pool_depth_and_activation(pool, activation, hidden):
    head, model = make(pool=pool, activation=activation, hidden=hidden)

    logits, maps, embedding = explain(head, model, features())

    expected = automatic_maps(head, model, features())
    assert np.abs(maps - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(logits, model(features())[-2].numpy())
    np.testing.assert_allclose(embedding, features().numpy().mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hidden", [(), (16,)])
def test_maps_of_an_attention_pool_sum_to_the_logit(hidden):
    logits, maps, _ = explain(*make(pool="attention", hidden=hidden), features())

    np.testing.assert_allclose(maps.sum((2, 3)), logits, rtol=1e-4, atol=1e-5)


def test_flatten_reads_channel_row_column():
    chosen = ModelSettings(architecture="custom_cnn", weights="none", pool="flatten")
    first = initial_head(chosen, channels=CHANNELS, height=HEIGHT, width=WIDTH, outputs=3, seed=1)
    read = keras.Input(SHAPE)

    model = keras.Model(read, KerasHead(first, chosen, shape=SHAPE, seed=0).connect(read).logits)

    expected = np.einsum(
        "bhwc,chwk->bk", features().numpy(), first.layers[0].kernel.reshape(CHANNELS, HEIGHT, WIDTH, 3)
    )
    np.testing.assert_allclose(model(features()).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_squeeze_and_excitation_by_hand():
    _, model = make(block="se")
    (first, one), (second, two) = (
        model.get_layer(name).get_weights() for name in ("block_squeeze", "block_excite")
    )
    read = features().numpy()
    sums = np.maximum(read.mean((1, 2)) @ first + one, 0) @ second + two

    expected = read / (1 + np.exp(-sums))[:, None, None, :]
    np.testing.assert_allclose(model(features())[0].numpy(), expected, rtol=1e-4, atol=1e-6)


def test_cbam_weighs_channels_then_places():
    _, model = make(block="cbam")
    for name in (
        "block_excite",
        "block_spatial",
    ):  # so the channels' weights are one half, and the places' too
        layer = model.get_layer(name)
        layer.set_weights([np.zeros_like(value) for value in layer.get_weights()])

    np.testing.assert_allclose(model(features())[0].numpy(), features().numpy() / 4, rtol=1e-6)


def test_cbam_looks_at_the_mean_and_the_maximum_of_channels():
    _, model = make(block="cbam")
    kernel, bias = model.get_layer("block_spatial").get_weights()
    read = features().numpy()
    squeeze, excite = (model.get_layer(name).get_weights() for name in ("block_squeeze", "block_excite"))
    sums = sum(
        np.maximum(pooled @ squeeze[0] + squeeze[1], 0) @ excite[0] + excite[1]
        for pooled in (read.mean((1, 2)), read.max((1, 2)))
    )
    read = read / (1 + np.exp(-sums))[:, None, None, :]
    both = np.pad(np.stack([read.mean(3), read.max(3)], 3), ((0, 0), (3, 3), (3, 3), (0, 0)))
    scores = np.array(
        [
            [
                [(one[y : y + 7, x : x + 7] * kernel[..., 0]).sum() + bias[0] for x in range(WIDTH)]
                for y in range(HEIGHT)
            ]
            for one in both
        ]
    )

    expected = read / (1 + np.exp(-scores))[..., None]
    np.testing.assert_allclose(model(features())[0].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_keep_the_shape(block):
    _, model = make(block=block)

    assert tuple(model(features())[0].shape) == (2, *SHAPE)
