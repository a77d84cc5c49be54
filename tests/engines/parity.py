"""One side of test_parity.py: `python parity.py ENGINE WHAT FOLDER OPTIONS` writes FOLDER/ENGINE-WHAT.npz.

`give` makes backbones, writes their weights in the neutral layout and their features; `take` reads those weights and
writes its own features; `learn` trains the custom CNN from them for ten steps and writes the losses.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from hilum.data.batches import training_batches
from hilum.data.cache import Cached
from hilum.engines import Hooks, TrainingJob, Validation, load_engine
from hilum.recipe import AugmentSettings, architectures, load_recipe

NUMBER = 56
LEARN = {
    "sgd": ["train.optimizer=sgd", "train.learning_rate=1e-2"],
    "adam": ["train.optimizer=adam"],
    "everything": [
        "train.optimizer=adamw",
        "train.weight_decay=0.01",
        "train.clip_norm=0.5",
        "train.ema=0.9",
        "train.accumulate=2",
        "train.schedule=one-cycle",
        "train.loss=focal",
        "train.label_smoothing=0.1",
        "train.backbone_rate=0.5",
        "train.depth_rate=0.1",
        "model.freeze=0.25",
        "model.block=cbam",
        "model.pool=attention",
        "model.hidden=[8]",
        "model.activation=gelu",
        "model.l2=1e-3",
    ],
}


def pictures(number, size):
    return np.random.default_rng(4).random((number, size, size, 3), np.float32) * 2 - 1


def scrambled(shape, role, rng):
    """Statistics that differ from layer to layer, so that one left out or mistaken shows."""
    return rng.uniform(0.8, 1.2, shape) if role in ("gamma", "variance") else rng.normal(0, 0.1, shape)


def torch_features(architecture, size, given=None):
    import torch

    from hilum.engines.torch import weight_exchange
    from hilum.engines.torch.backbones import make_backbone

    torch.manual_seed(0)
    same = architecture == "mobilenetv2"
    name = architectures.architecture(architecture).engines["torch"]
    backbone = make_backbone(name, same_padding=same, size=size)
    given = given or shaken(weight_exchange.arrays(backbone, size))
    weight_exchange.fill(backbone, given, size, name=name, told="weights")
    with torch.inference_mode():
        found = backbone.eval()(torch.from_numpy(pictures(2, size)).permute(0, 3, 1, 2))
    return given, found.permute(0, 2, 3, 1).numpy()


def keras_features(architecture, size, given=None):
    from hilum.engines.keras import weight_exchange
    from hilum.engines.keras.backbones import make_backbone

    name = architectures.architecture(architecture).engines["keras"]
    backbone = make_backbone(name, size=size)
    given = given or shaken(weight_exchange.arrays(backbone))
    weight_exchange.fill(backbone, given, name=name, told="weights")
    return given, backbone(pictures(2, size), training=False).numpy()


def shaken(arrays):
    rng = np.random.default_rng(5)
    return {
        key: scrambled(value.shape, role, rng).astype(np.float32)
        if (role := key.rpartition("_")[2]) in ("gamma", "beta", "mean", "variance", "bias")
        else value
        for key, value in arrays.items()
    }


FEATURES = {"torch": torch_features, "keras": keras_features}


def learn(engine, folder):
    size = 32
    rng = np.random.default_rng(0)
    labels = (np.arange(NUMBER) % 2).astype(np.float32)[:, None]
    pixels = rng.integers(0, 100, (NUMBER, size, size)) + 80 * labels[:, :, None].astype(int)
    side = np.full(NUMBER, size, np.int32)
    cached = Cached(
        pixels=pixels.astype(np.uint8),
        slots=np.arange(NUMBER),
        quarantine=pd.DataFrame(columns=["image", "reason"]),
        hits=0,
        width=side,
        height=side,
    )
    found = {}
    for name, changes in LEARN.items():
        chosen = load_recipe(
            "kermany-densenet121",
            [
                "model.architecture=custom_cnn",
                f"model.weights={folder / 'custom_cnn.npz'}",
                "model.freeze=none",
                "model.hidden=[]",
                "model.dropout=0",
                "train.epochs=2",
                "train.batch_size=8",
                "train.learning_rate=1e-3",
                "train.precision=fp32",
                f"data.size={size}",
                *changes,
            ],
        )
        losses = []
        job = TrainingJob(
            chosen,
            training_batches(
                cached, np.arange(40), labels, batch_size=8, augment=AugmentSettings(), seed=0, num_workers=0
            ),
            Validation(cached.images(np.arange(40, NUMBER)), labels[40:]),
            class_weights=np.array([[1.0, 2.0]], np.float32),
            state=folder / f"{engine}.safetensors",
        )
        hooks = Hooks(on_step=lambda progress, losses=losses: losses.append(progress.loss))
        trained = load_engine(engine).fit(job, hooks)
        found[name] = np.array(losses)
        found[f"{name}-validation"] = trained.history["val_loss"].to_numpy()
    return found


def main(engine, what, folder, options):
    folder = Path(folder)
    if what == "learn":
        np.savez(folder / f"{engine}-{what}.npz", **learn(engine, folder))
        return
    found = {}
    for architecture, size in json.loads(options)["architectures"].items():
        given = None
        if what == "take":
            with np.load(folder / f"{architecture}.npz") as file:
                given = dict(file)
        given, found[architecture] = FEATURES[engine](architecture, size, given)
        if what == "give":
            np.savez(folder / f"{architecture}.npz", **given)
    np.savez(folder / f"{engine}-{what}.npz", **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
