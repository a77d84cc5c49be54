import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from huggingface_hub import constants as hub
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from hilum.data.batches import training_batches
from hilum.data.cache import Cached
from hilum.engines import Hooks, TrainingJob, Validation
from hilum.engines.torch import TorchEngine, weights
from hilum.engines.torch.backbones import make_backbone
from hilum.errors import HilumError, RecipeError, TrainingError, UsageError
from hilum.recipe import load_recipe

SIZE = 64
MOBILENET = "mobilenetv2_100.ra_in1k"


def images():
    return torch.rand(16, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def initialise(name, source):
    make = partial(make_backbone, size=SIZE)
    return weights.initialise(name, str(source), make=make, images=images())


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """A MobileNetV2 with batch norm folded away, as a converter writes it, and the outputs that it had."""
    torch.manual_seed(3)
    backbone = make_backbone(MOBILENET, same_padding=True)
    pairs = weights._convolutions_with_norms(backbone, SIZE)
    for _, norm in pairs:
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(0, 0.2)
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
    backbone.eval()
    with torch.inference_mode():
        expected = backbone((images().unsqueeze(1).expand(-1, 3, -1, -1) - 0.5) / 0.5)
    arrays = {}
    for number, (convolution, norm) in enumerate(pairs):
        scale = norm.weight.data / (norm.running_var + norm.eps).sqrt()
        kernel = (convolution.weight.data * scale.view(-1, 1, 1, 1)).numpy()
        depthwise = convolution.groups > 1
        operation = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        layout = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        arrays[f"{number:02d}_{operation}_kernel"] = kernel.transpose(layout)
        arrays[f"{number:02d}_{operation}_bias"] = (norm.bias.data - norm.running_mean * scale).numpy()
    path = tmp_path_factory.mktemp("weights") / "folded.npz"
    np.savez(path, **arrays)
    return path, expected, arrays


def test_folded_weights_compute_the_same_function_after_import(folded):
    path, expected, _ = folded

    backbone, initial = initialise(MOBILENET, path)

    with torch.inference_mode():
        found = backbone.eval()((images().unsqueeze(1).expand(-1, 3, -1, -1) - 0.5) / 0.5)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert initial.mean == initial.std == (0.5, 0.5, 0.5)
    assert "folded.npz, sha256 " in initial.source


def test_folded_weights_may_be_unfolded_later_once(folded):
    expected, _ = initialise(MOBILENET, folded[0])
    make = partial(make_backbone, size=SIZE)
    backbone, initial = weights.initialise(
        MOBILENET, str(folded[0]), make=make, images=images()[:1], measure=False
    )
    assert initial.folded

    for _ in range(2):
        weights.unfold(backbone, images(), initial)

    for key, value in expected.state_dict().items():
        assert torch.equal(backbone.state_dict()[key], value), key


def test_a_backbone_that_stayed_folded_is_unfolded_where_it_is_exported(folded, tmp_path, monkeypatch):
    settings = load_recipe(
        "kermany-densenet121",
        [
            "model.architecture=mobilenetv2",
            f"model.weights={folded[0]}",
            f"data.size={SIZE}",
            "train.epochs=1",
            "train.keep_final=true",
            "train.precision=fp32",
            "train.stored_versions=1",
        ],
    )
    pixels = (images().numpy() * 255).astype(np.uint8)
    side, none = np.full(16, SIZE, np.int32), pd.DataFrame(columns=["image", "reason"])
    cached = Cached(pixels=pixels, slots=np.arange(16), quarantine=none, hits=0, width=side, height=side)
    labels = (np.arange(16) % 2).astype(np.float32)[:, None]
    options = {"batch_size": 8, "augment": settings.augment, "seed": 0, "num_workers": 0}
    engine = TorchEngine()
    job = TrainingJob(
        settings,
        training_batches(cached, np.arange(16), labels, **options),
        Validation(pixels, labels),
        class_weights=np.ones((1, 2), np.float32),
        state=tmp_path / "s.safetensors",
    )
    trained = engine.fit(job, Hooks())
    before = [engine.logits(replace(trained, model=one), pixels) for one in (trained.final, trained.model)]

    monkeypatch.setattr(torch.onnx, "export", cut_off)  # it takes seconds, and comes behind

    for model in (trained, replace(trained, model=trained.final)):
        with pytest.raises(InterruptedError):
            engine.export(model, size=SIZE, graph=tmp_path / "m.onnx", weights=tmp_path)
        norms = [one for one in model.model.backbone.modules() if isinstance(one, torch.nn.BatchNorm2d)]
        assert norms
        assert all(norm.running_mean.any() for norm in norms)
        np.testing.assert_allclose(
            engine.logits(model, pixels), before[model is trained], rtol=1e-3, atol=1e-4
        )


def cut_off(*_args, **_options):
    raise InterruptedError


def test_unfolded_batch_norm_has_the_statistics_of_its_input(folded):
    path, _, _ = folded
    backbone, _ = initialise(MOBILENET, path)
    normalised = (images().unsqueeze(1).expand(-1, 3, -1, -1) - 0.5) / 0.5

    with torch.inference_mode():
        in_evaluation = backbone.eval()(normalised)
        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0
        in_training = backbone.train()(normalised)

    difference = (in_training - in_evaluation).abs().mean() / in_evaluation.abs().mean()
    assert float(difference) < 0.05, (
        "batch statistics and running statistics must agree where training starts"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda arrays: arrays.pop("05_CONV_2D_kernel"),
            r"w.npz does not fit mobilenetv2\S*: \d+_\w+ has shape \(.*\), \(.*\) expected",
        ),
        (lambda arrays: arrays.pop("51_CONV_2D_kernel"), "51 convolutions"),
        (
            lambda arrays: arrays.update({"00_CONV_2D_kernel": np.zeros((32, 5, 5, 3), np.float32)}),
            "has shape",
        ),
        (lambda arrays: arrays.pop("00_CONV_2D_bias"), "lacks 00_CONV_2D_bias"),
        (lambda arrays: arrays.update(mean=np.zeros(2)), "three numbers"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(folded, tmp_path, change, message):
    arrays = dict(folded[2])
    change(arrays)
    np.savez(tmp_path / "w.npz", **arrays)

    with pytest.raises(TrainingError, match=message):
        initialise(MOBILENET, tmp_path / "w.npz")


def test_folded_weights_of_another_network_are_refused(folded):
    with pytest.raises(
        TrainingError,
        match=r"folded\.npz does not fit resnet18\S*: 00_CONV_2D_kernel has shape \(.*\), \(64, 7, 7, 3\) exp",
    ):
        initialise("resnet18.tv_in1k", folded[0])


def test_safetensors_round_trip_with_its_notes(tmp_path):
    backbone = make_backbone("resnet18.tv_in1k")
    tensors = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    save_file(
        tensors | {"head.layers.0.weight": torch.zeros(1, 512)}, tmp_path / "w.safetensors", {"mean": "0,0,0"}
    )

    loaded, initial = initialise("resnet18.tv_in1k", tmp_path / "w.safetensors")

    for key, value in backbone.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert initial.mean == (0.0, 0.0, 0.0)
    assert initial.std == (0.229, 0.224, 0.225), "what the file does not say comes from the pinned timm tag"


def test_safetensors_of_another_network_are_refused(tmp_path):
    save_file(make_backbone("custom_cnn").state_dict(), tmp_path / "w.safetensors")

    with pytest.raises(
        TrainingError,
        match=r"w.safetensors does not fit resnet18\S*: conv1.weight is not there, \(64, 3, 7, 7\) expected",
    ):
        initialise("resnet18.tv_in1k", tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnextv2_atto", "test_vit2"])
def test_a_plain_state_dict_of_timms_loads_and_its_head_is_left_out(tmp_path, name):
    torch.manual_seed(5)
    model = timm.create_model(name, **({"img_size": SIZE} if "vit" in name else {}))
    save_file(model.state_dict(), tmp_path / "w.safetensors")

    backbone, initial = initialise(name, tmp_path / "w.safetensors")

    loaded = backbone.timm.state_dict()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.items())
    assert len(loaded) < len(model.state_dict())
    assert initial.mean == timm.get_pretrained_cfg(name).mean


def test_position_embeddings_of_another_image_size_are_resampled(tmp_path):
    model = timm.create_model("deit_tiny_patch16_224")
    save_file(model.state_dict(), tmp_path / "w.safetensors")

    backbone, _ = initialise("deit_tiny_patch16_224", tmp_path / "w.safetensors")

    expected = resample_abs_pos_embed(model.pos_embed.detach(), [4, 4], num_prefix_tokens=1)
    torch.testing.assert_close(backbone.timm.pos_embed.detach(), expected)
    assert torch.equal(backbone.timm.norm.weight, model.norm.weight)
    assert torch.equal(backbone.timm.blocks[3].mlp.fc1.weight, model.blocks[3].mlp.fc1.weight)
    assert not backbone.timm.pretrained_cfg.get("state_dict"), "the file's tensors are not kept a second time"


@pytest.mark.parametrize(
    ("name", "key"),
    [("resnet18", "layer1.0.conv1.weight"), ("deit_tiny_patch16_224", "blocks.2.attn.proj.weight")],
)
def test_weights_of_another_shape_are_refused_with_the_first_that_differs(tmp_path, name, key):
    tensors = make_backbone(name, size=SIZE).timm.state_dict()
    tensors[key] = tensors[key][:-1].contiguous()
    save_file(tensors, tmp_path / "w.safetensors")

    with pytest.raises(
        TrainingError, match=rf"does not fit {name}: {key} has shape \(\d+, .*\), \(\d+, .*\) expected"
    ):
        initialise(name, tmp_path / "w.safetensors")


def test_weights_with_more_than_the_network_has_are_refused(tmp_path):
    tensors = make_backbone("resnet18").timm.state_dict() | {"adapter.weight": torch.zeros(1)}
    save_file(tensors, tmp_path / "w.safetensors")

    with pytest.raises(TrainingError, match=r"adapter.weight has shape \(1,\), resnet18 has no such array"):
        initialise("resnet18", tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors"])
def test_garbage_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"garbage")

    with pytest.raises(TrainingError, match="not a readable"):
        initialise("resnet18.tv_in1k", tmp_path / name)


def test_a_pickle_is_refused(tmp_path):
    torch.save({}, tmp_path / "w.pth")

    with pytest.raises(RecipeError, match=r"from .safetensors and .npz files, not '.pth'"):
        initialise("resnet18.tv_in1k", tmp_path / "w.pth")


def test_a_model_that_timm_lacks_is_told_before_any_data_are_read():
    with pytest.raises(UsageError, match="timm has no model 'resnet19'"):
        TorchEngine().check(load_recipe("nih-infiltration", ["model.architecture=timm:resnet19"]))


def test_a_missing_file_is_told_from_the_two_words():
    with pytest.raises(RecipeError, match="neither 'imagenet', 'none' nor a file that exists"):
        initialise("resnet18.tv_in1k", "imagnet")


@pytest.fixture(autouse=True)
def unreachable(monkeypatch):
    """No test asks the hub."""

    class Session:
        def head(self, *_, **__):
            raise OSError("Name or service not known")

    monkeypatch.setattr(weights, "get_session", Session)


def test_a_hub_that_does_not_answer_is_not_tried_again_and_says_nothing(monkeypatch):
    seen = []

    def create(*_names, **_options):
        seen.append(
            (hub.HF_HUB_OFFLINE, logging.getLogger("huggingface_hub.utils").isEnabledFor(logging.WARNING))
        )
        raise OSError("the file is not in the cache. Go to https://example.org/where/else\nand more")

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(HilumError):
        initialise("resnet18.tv_in1k", "imagenet")

    assert seen == [(True, False), (False, True)], "while it fetches, and afterwards"


def test_hub_weights_that_cannot_be_had_are_told_in_words(monkeypatch):
    create = timm.create_model

    def offline(*names, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host: https://example.org/model.bin\nmore debris")
        return create(*names, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(TrainingError) as told:
        initialise("resnet18.tv_in1k", "imagenet")
    assert str(told.value) == (
        "the ImageNet weights resnet18.tv_in1k are not on this machine and could not be fetched (no route to host); "
        "go online once, or give model.weights the path of a .safetensors or .npz file, or model.weights=none"
    )
    with pytest.raises(UsageError, match="cannot be had for images of 8 x 8 pixels"):
        weights.initialise(
            "vit_tiny_patch16_224", "imagenet", make=partial(make_backbone, size=8), images=images()
        )


def test_hub_weights_are_recorded_with_their_tag_terms_and_normalisation(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **options: create(name, **options))

    _, initial = initialise("vit_tiny_patch16_224", "imagenet")

    assert initial.source == "timm vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert "ImageNet" in initial.citation
    assert initial.licence == "apache-2.0"
    assert initial.mean == initial.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", ["custom_cnn", "coatnet_0_224"])
def test_what_has_no_hub_weights_says_so(name):
    with pytest.raises((RecipeError, TrainingError), match=rf"{name}.*model.weights=none"):
        initialise(name, "imagenet")


@pytest.mark.real
def test_the_imported_mobilenet_sees_imagenet_like_features_in_radiographs(shared_data):
    path = shared_data / "weights" / "mobilenet_v2_imagenet_int8dequant_bnfolded.npz"

    backbone, _ = initialise(MOBILENET, path)

    with torch.inference_mode():
        features = backbone.eval()((images().unsqueeze(1).expand(-1, 3, -1, -1) - 0.5) / 0.5)
    assert features.shape == (16, 1280, 2, 2)
    assert float(features.min()) >= 0
    assert float(features.max()) <= 6
    assert 0.02 < float((features > 0).float().mean()) < 0.98
