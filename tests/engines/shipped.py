"""What every engine makes of each shipped recipe, as tests that its own file collects as it does `contract`'s.

The networks are those that the recipes name, with random weights and images of 64 pixels; all else is the recipe's.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from hilum.data.batches import training_batches
from hilum.data.cache import Cached
from hilum.engines import Hooks, TrainingJob, Validation
from hilum.recipe import load_recipe, shipped_recipes

SIZE, NUMBER, BATCH = 64, 12, 4
TRAINED = 2 * BATCH  # images, so that an epoch is two steps


@dataclass(frozen=True)
class Network:
    """What the published description of a recipe's network says.

    Attributes:
        convolutions: Kernels of the backbone that are convolutions.
        inputs: Of the first dense layer, with images of 64 pixels.
        dense: Units of each dense layer.
        frozen: The share of the layers that begins frozen, from the image on.
        thawed: The share that is still frozen in the end.
        rate: Adam's learning rate; None of a recipe whose rate changes from step to step.
    """

    convolutions: int
    inputs: int
    dense: tuple[int, ...]
    frozen: float = 0.0
    thawed: float = 0.0
    rate: float | None = 1e-4


NETWORKS = {
    "demo": Network(4, 256, (5,), rate=None),
    "kermany-custom-cnn": Network(4, 256 * 4 * 4, (512, 256, 1)),
    "kermany-densenet121": Network(120, 1024, (128, 1), frozen=1, thawed=1),
    "kermany-subtype": Network(120, 1024, (3,)),
    "kermany-vgg16": Network(13, 512 * 2 * 2, (512, 1), frozen=1, thawed=1),
    "nih-infiltration": Network(52, 1280, (64, 1), frozen=1, thawed=1, rate=1e-3),
    "nih-multilabel": Network(120, 1024, (14,)),
    "nih-pneumonia": Network(120, 1024, (128, 1), frozen=1, thawed=0.7),
}


@dataclass(frozen=True)
class Moment:
    """Copies of a network's weights at the end of an epoch; layers have their statistics with them."""

    layers: list
    head: list


# The others run in seconds: the two small networks of four blocks, and MobileNetV2.
LONG = [name for name, network in NETWORKS.items() if network.convolutions in (13, 120)]
THAWING = [name for name, network in NETWORKS.items() if network.frozen > network.thawed]


def small(name, epochs):
    """A shipped recipe with random weights and small images, and two steps an epoch."""
    recipe = load_recipe(name)
    changes = {
        "data": {"size": SIZE},
        "model": {"weights": "none"},
        "train": {"batch_size": BATCH, "epochs": epochs, "precision": "fp32"},
    }
    # Past the check that refuses a frozen backbone without weights: here nothing is to be learned.
    return recipe.model_copy(
        update={
            section: getattr(recipe, section).model_copy(update=values) for section, values in changes.items()
        }
    )


def follow(side, recipe, folder):
    """Train; return the weights before the first step and after each epoch."""
    outputs = len(recipe.task.findings)
    rows = np.arange(NUMBER)[:, None]
    labels = (
        (rows % outputs == np.arange(outputs)) if recipe.task.exclusive else (rows + np.arange(outputs)) % 2
    )
    labels = labels.astype(np.float32)
    pixels = np.random.default_rng(0).integers(0, 256, (NUMBER, SIZE, SIZE)).astype(np.uint8)
    sides = np.full(NUMBER, SIZE, np.int32)
    cached = Cached(
        pixels=pixels,
        slots=np.arange(NUMBER),
        quarantine=pd.DataFrame(columns=["image", "reason"]),
        hits=0,
        width=sides,
        height=sides,
    )
    batches = training_batches(
        cached, np.arange(TRAINED), labels, batch_size=BATCH, augment=recipe.augment, seed=0, num_workers=0
    )
    job = TrainingJob(
        recipe,
        batches,
        Validation(pixels[TRAINED:], labels[TRAINED:]),
        class_weights=np.ones((outputs, 2), np.float32),
        state=folder / "state.safetensors",
    )
    moments = []
    session = side.session(
        job,
        Hooks(
            on_epoch=lambda _: moments.append(Moment(side.layers(session.model), side.head(session.model)))
        ),
    )
    moments.append(Moment(side.layers(session.model), side.head(session.model)))
    session.run()
    return moments


def changed(before, after):
    """Whether any array of a layer is another than before."""
    return any(not np.array_equal(ours, theirs) for ours, theirs in zip(before, after, strict=True))


def furthest(before, after):
    """The most that any value moved."""
    return max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(before, after, strict=True))


def test_every_shipped_recipe_is_described():
    assert set(NETWORKS) == set(shipped_recipes())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] if name in LONG else []) for name in NETWORKS]
)
def test_a_shipped_recipe_trains_and_freezes_what_its_description_says(side, name, tmp_path):
    network = NETWORKS[name]

    start, end = follow(side, small(name, epochs=1), tmp_path)

    convolutions = [layer[0] for layer in start.layers if layer and layer[0].ndim == 4]
    kernels = [array for array in start.head if array.ndim == 2]
    assert len(convolutions) == network.convolutions
    assert kernels[0].size == network.inputs * network.dense[0]
    assert tuple(array.size for array in start.head if array.ndim == 1) == network.dense
    first = round(network.frozen * len(start.layers))
    layers = [changed(*pair) for pair in zip(start.layers, end.layers, strict=True)]
    assert not any(layers[:first]), "frozen layers keep weights and statistics"
    assert all(layers[first:]), "the others learn"
    assert changed(start.head, end.head)
    if (
        network.rate
    ):  # Adam's first step moves a weight by its rate, whatever the gradient, and the second by no more
        assert network.rate < furthest(start.head, end.head) < 2.01 * network.rate


@pytest.mark.full
@pytest.mark.parametrize("name", THAWING)
def test_a_shipped_recipe_thaws_what_it_says_at_its_lower_rate(side, name, tmp_path):
    epochs_frozen = load_recipe(name).train.unfreeze_after

    start, *_, before, after = follow(side, small(name, epochs=epochs_frozen + 1), tmp_path)

    first = round(NETWORKS[name].thawed * len(start.layers))
    assert not any(changed(*pair) for pair in zip(start.layers, before.layers, strict=True)), "until then"
    layers = [changed(*pair) for pair in zip(before.layers, after.layers, strict=True)]
    assert not any(layers[:first])
    assert all(layers[first:])
    moved = furthest([layer[0] for layer in before.layers], [layer[0] for layer in after.layers])
    assert moved < 0.2 * furthest(before.head, after.head)
