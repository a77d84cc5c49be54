import numpy as np
import onnxruntime
import pytest
import torch

from hilum.engines.initial_head import initial_head
from hilum.engines.torch import export, models
from hilum.recipe import ModelSettings, load_recipe
from hilum.recipe.architectures import ARCHITECTURES

SIZE = 64
TORCH = [name for name, found in ARCHITECTURES.items() if "torch" in found.engines]


def build(architecture, *more, hidden="[]", findings=("Pneumonia",), weights="none"):
    kind = "binary" if len(findings) == 1 else "multilabel"
    changes = [
        f"model.architecture={architecture}",
        f"model.weights={weights}",
        "model.freeze=none",
        f"model.hidden={hidden}",
        f"task.kind={kind}",
        "task.negatives=all-others",
        f"task.findings={list(findings)}",
        f"data.size={SIZE}",
        *more,
    ]
    settings = load_recipe("kermany-densenet121", changes)
    model, initial = models.build(settings, images=torch.rand(8, SIZE, SIZE))
    return model.eval(), initial


def images(number=3):
    return torch.rand(number, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("hidden", ["[]", "[16]"])
def test_a_map_sums_to_the_part_of_the_logit_that_comes_from_the_image(hidden):
    model, _ = build("resnet18", hidden=hidden)
    with torch.inference_mode():
        features = model.features(images())
        logits, maps, embedding = model.head.explain(features)
        units, offset = embedding, None
        weight = model.head.layers[0].weight
        if hidden == "[]":
            offset = model.head.layers[0].bias
        else:
            mask = (model.head.layers[0](units) > 0).float()
            offset = (mask * model.head.layers[0].bias) @ model.head.layers[1].weight.T + model.head.layers[
                1
            ].bias
        assert weight.shape[1] == embedding.shape[1]

    torch.testing.assert_close(maps.sum((2, 3)) + offset, logits, rtol=1e-4, atol=1e-5)


# The larger ones of a family differ in size alone.
LARGER = ("densenet169", "densenet201")


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=[pytest.mark.full] if name in LARGER else []) for name in TORCH],
)
def test_every_architecture_exports_the_contract_graph(architecture, tmp_path):
    model, initial = build(architecture, hidden="[8]", findings=("Mass", "Nodule"))
    with torch.inference_mode():
        expected = [output.numpy() for output in model.head.explain(model.features(images()))]

    graph, weights = export.export_model(
        model, initial, size=SIZE, graph=tmp_path / "m.onnx", weights=tmp_path
    )

    session = onnxruntime.InferenceSession(graph.read_bytes(), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image"]
    assert [value.name for value in session.get_outputs()] == ["logits", "maps", "embedding"]
    for number in (1, 3):
        found = session.run(None, {"image": images()[:number].numpy()})
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs[:number], rtol=1e-3, atol=1e-4)
    assert weights.name == "model.safetensors"


def test_the_graph_does_not_tell_where_it_was_made(tmp_path):
    model, initial = build("custom_cnn")

    graph, _ = export.export_model(model, initial, size=SIZE, graph=tmp_path / "m.onnx", weights=tmp_path)

    content = graph.read_bytes()
    assert b"site-packages" not in content
    assert b"/src/hilum" not in content


def test_normalisation_is_in_the_graph():
    model, initial = build("resnet18")
    grey = images(1)
    with torch.inference_mode():
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (initial.mean, initial.std))
        expected = model.backbone((grey.unsqueeze(1).expand(-1, 3, -1, -1) - mean) / std)

        torch.testing.assert_close(model.features(grey), expected)


def test_unit_scaling_gives_the_backbone_the_grey_values_as_they_are():
    settings = load_recipe("demo", ["model.scaling=unit", f"data.size={SIZE}"])
    model, initial = models.build(settings, images=torch.rand(8, SIZE, SIZE))
    model.eval()
    grey = images(1)
    channels = next(model.backbone.parameters()).shape[1]
    with torch.inference_mode():
        torch.testing.assert_close(
            model.features(grey), model.backbone(grey.unsqueeze(1).expand(-1, channels, -1, -1))
        )
    assert (initial.mean, initial.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("name", "million"),
    [("kermany-vgg16", 27.6), ("kermany-custom-cnn", 8.9)],
)
def test_networks_of_published_notebooks_have_as_many_parameters_as_the_documents_say(name, million):
    settings = load_recipe(name, ["model.weights=none", "model.freeze=none"])

    with torch.device("meta"):
        model, _ = models.build(settings, images=torch.rand(2, settings.data.size, settings.data.size))

    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(
        million, abs=0.05
    )


def test_a_frozen_backbone_keeps_weights_and_statistics():
    model, _ = build("resnet18")
    model.freeze(1.0)
    model.train()

    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert not any(module.training for module in model.backbone.modules())
    assert model.head.training


def test_a_share_of_the_layers_freezes_from_the_image_on():
    model, _ = build("resnet18")
    model.freeze(0.5)
    model.train()

    free = [layer.parameters[0].requires_grad for layer in model.layers]
    assert free == sorted(free)
    assert 0.4 < 1 - sum(free) / len(free) < 0.6
    norms = [layer.module for layer in model.layers if isinstance(layer.module, torch.nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [norm.weight.requires_grad for norm in norms]


def test_what_was_frozen_thaws():
    model, _ = build("resnet18")
    model.freeze(1.0)
    model.freeze(0.0)
    model.train()

    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.backbone.modules())


def test_the_initial_head_depends_on_the_seed_alone():
    settings = ModelSettings(architecture="resnet18", weights="none", hidden=(16,))
    first, again, other = (
        initial_head(settings, channels=32, height=2, width=2, outputs=2, seed=seed).layers
        for seed in (1, 1, 2)
    )

    assert all(np.array_equal(a.kernel, b.kernel) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].kernel, other[0].kernel)
    assert [layer.kernel.shape for layer in first] == [(32, 16), (16, 2)]
    assert np.abs(first[-1].kernel).max() < 0.06
