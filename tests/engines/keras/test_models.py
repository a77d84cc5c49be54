import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import onnxruntime
import pytest

from hilum.engines.keras import export, models
from hilum.engines.keras.backbones import FAMILIES, OWN, layers
from hilum.errors import UsageError
from hilum.recipe import load_recipe
from hilum.recipe.architectures import ARCHITECTURES

SIZE = 64
KERAS = [name for name, found in ARCHITECTURES.items() if "keras" in found.engines]


def build(architecture, *changes, findings=("Pneumonia",), kind=None, weights="none"):
    kind = kind or ("binary" if len(findings) == 1 else "multilabel")
    settings = load_recipe(
        "kermany-densenet121",
        [
            f"model.architecture={architecture}",
            f"model.weights={weights}",
            "model.freeze=none",
            "model.hidden=[]",
            f"task.kind={kind}",
            "task.negatives=all-others",
            f"task.findings={list(findings)}",
            f"data.size={SIZE}",
            *changes,
        ],
    )
    return models.build(settings, images=grey(8))


def grey(number=3):
    return np.random.default_rng(0).integers(0, 256, (number, SIZE, SIZE)).astype(np.uint8)


def images(number=3):
    return grey(number).astype(np.float32) / 255


# The larger ones of a family differ in size alone; ConvNeXt takes a minute.
DEAR = ("densenet169", "densenet201", "convnext_tiny")


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=[pytest.mark.full] if name in DEAR else []) for name in KERAS],
)
def test_every_architecture_exports_the_contract_graph(architecture, tmp_path):
    model, _ = build(architecture, "model.hidden=[8]", findings=("Mass", "Nodule"))
    expected = [output.numpy() for output in model.explain(images())]

    graph, native = export.export_model(model, size=SIZE, graph=tmp_path / "m.onnx", weights=tmp_path)

    session = onnxruntime.InferenceSession(graph.read_bytes(), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image"]
    assert [value.name for value in session.get_outputs()] == ["logits", "maps", "embedding"]
    for number in (1, 3):
        found = session.run(None, {"image": images()[:number]})
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs[:number], rtol=1e-3, atol=1e-4)
    for file in (graph, native):
        assert b"site-packages" not in file.read_bytes()
        assert b"/src/hilum" not in file.read_bytes()


OPEN = """
import pathlib, sys
import keras, numpy
folder = pathlib.Path(sys.argv[1])
images = numpy.load(folder / "images.npy")
for path in folder.glob("*/model.keras"):
    model = keras.models.load_model(path)
    assert not model.compiled
    numpy.save(path.parent / "found.npy", model.predict(images, verbose=0))
assert not any(name.split(".")[0] == "hilum" for name in sys.modules)
"""
HEADS = [
    ["model.pool=attention", "model.hidden=[8]", "model.activation=gelu"],
    ["model.pool=flatten", "model.block=cbam", "model.dropout=0.5"],
    ["model.pool=max", "model.block=se", "model.hidden=[8]", "model.activation=silu"],
]


def test_every_head_exports_and_the_saved_models_open_without_hilum(tmp_path):
    np.save(tmp_path / "images.npy", images())
    expected = []
    for number, changes in enumerate(HEADS):
        folder = tmp_path / str(number)
        folder.mkdir()
        model, _ = build("custom_cnn", *changes, findings=("Mass", "Nodule", "Edema"), kind="multiclass")
        graph, _ = export.export_model(model, size=SIZE, graph=folder / "m.onnx", weights=folder)
        session = onnxruntime.InferenceSession(graph.read_bytes(), providers=["CPUExecutionProvider"])
        logits, maps, _ = session.run(None, {"image": images()})
        np.testing.assert_allclose(model.explain(images())[1].numpy(), maps, rtol=1e-3, atol=1e-4)
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        expected.append(exponents / exponents.sum(1, keepdims=True))

    subprocess.run(
        [sys.executable, "-c", OPEN, tmp_path],
        check=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )

    for number, probabilities in enumerate(expected):
        np.testing.assert_allclose(np.load(tmp_path / str(number) / "found.npy"), probabilities, atol=1e-4)


@pytest.mark.parametrize("architecture", KERAS)
def test_a_saved_model_holds_nothing_but_what_keras_brings(architecture, tmp_path):
    model, _ = build(architecture, "model.block=cbam", "model.pool=attention")
    export.save(model, tmp_path / "m.keras")

    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        config = json.loads(archive.read("config.json"))

    modules = set(_modules(config))
    assert all(module is None or module.split(".")[0] in ("keras", "builtins") for module in modules)
    assert "Lambda" not in json.dumps(config)
    assert not config.get("compile_config")


def _modules(config):
    if isinstance(config, dict):
        if "class_name" in config and "module" in config:
            yield config["module"]
        for value in config.values():
            yield from _modules(value)
    elif isinstance(config, list):
        for value in config:
            yield from _modules(value)


def test_the_engine_has_what_the_registry_says_and_no_more():
    named = {ARCHITECTURES[name].engines["keras"] for name in KERAS}

    assert named == {*FAMILIES, *OWN}


def test_an_architecture_of_the_other_engine_is_refused_with_what_there_is():
    with pytest.raises(UsageError, match=r"it has: resnet50 \(did you mean it\?\), .*vgg16"):
        build("resnet18")


def test_normalisation_is_in_the_graph():
    model, initial = build("custom_cnn")
    normalised = (images()[..., None] - np.array(initial.mean)) / np.array(initial.std)

    expected = model.backbone(normalised.astype(np.float32)).numpy().mean((1, 2))

    np.testing.assert_allclose(model.explain(images())[2].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_unit_scaling_gives_the_backbone_the_grey_values_as_they_are():
    model, initial = build("custom_cnn", "model.scaling=unit")

    expected = model.backbone(np.repeat(images()[..., None], 3, axis=-1)).numpy().mean((1, 2))

    assert (initial.mean, initial.std) == ((0.0,) * 3, (1.0,) * 3)
    np.testing.assert_allclose(model.explain(images())[2].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", KERAS)
def test_the_feature_map_is_neither_pooled_nor_normalised_inside(architecture):
    model, _ = build(architecture)

    names = [type(layer).__name__ for layer in model.backbone.layers]
    assert len(model.backbone.output_shape) == 4
    assert not {"Rescaling", "Normalization", "GlobalAveragePooling2D"} & set(names[:5] + names[-5:])


def test_a_share_of_the_layers_freezes_from_the_image_on_and_thaws():
    model, _ = build("mobilenetv2")
    model.freeze(0.5)

    free = [layer.trainable for layer in layers(model.backbone)]
    assert free == sorted(free)
    assert 0.4 < 1 - sum(free) / len(free) < 0.6
    model.freeze(0.0)
    assert all(layer.trainable for layer in layers(model.backbone))


def test_a_frozen_backbone_keeps_weights_and_statistics():
    model, _ = build("custom_cnn", "model.backbone_dropout=0.5", "model.dropout=0")
    model.freeze(1.0)
    before = [value.copy() for value in model.backbone.get_weights()]

    first, second = (model(images(), training=True).numpy() for _ in range(2))

    np.testing.assert_array_equal(first, second)
    for ours, theirs in zip(model.backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not model.backbone.trainable_variables


def test_the_same_seed_gives_the_same_weights():
    one, same, other = (build("custom_cnn", f"train.seed={seed}")[0].get_weights() for seed in (1, 1, 2))

    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])
