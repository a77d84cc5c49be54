import numpy as np
import onnxruntime
import pytest
import timm
import torch

from hilum.engines.torch import export, models
from hilum.engines.torch.backbones import FeatureMap, layers, make_backbone, timm_config
from hilum.errors import TrainingError, UsageError
from hilum.recipe import load_recipe
from hilum.recipe.architectures import ARCHITECTURES, architecture

SIZE = 64
TORCH = {name: found.engines["torch"] for name, found in ARCHITECTURES.items() if "torch" in found.engines}
# Further families of timm, small: what their heads hide and how their features lie differs.
FAMILIES = (
    "regnety_002",  # channels first
    "mobilenetv3_small_050",  # a convolution behind the pool
    "swin_tiny_patch4_window7_224",  # channels last, a fixed size
    "convnextv2_atto",  # a norm behind the pool
    "deit_tiny_patch16_224",  # a class token
    "poolformerv2_s12",  # a norm behind the pool, channels first
    "levit_128s",  # tokens, a norm in the classifier
)


def images(size=SIZE, number=2):
    return torch.rand(number, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", TORCH)
def test_every_architecture_ends_at_a_feature_map(name):
    backbone = make_backbone(TORCH[name], size=SIZE).eval()

    with torch.inference_mode():
        features = backbone(images())

    assert features.ndim == 4
    assert features.shape[0] == 2
    assert features.shape[2] == features.shape[3] >= 2
    assert bool(torch.isfinite(features).all())


@pytest.mark.parametrize("name", [name for name in TORCH if name != "custom_cnn"])
def test_pinned_weights_exist_and_may_be_used_and_passed_on(name):
    config = timm_config(TORCH[name])

    assert TORCH[name] == f"{config.architecture}.{config.tag}"
    assert config.has_weights
    assert config.license in ("apache-2.0", "bsd-3-clause", "mit")
    assert config.input_size[-1] == architecture(name).input_size


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH)
def test_every_architecture_works_at_the_size_it_was_made_for(name):
    size = architecture(name).input_size
    with torch.inference_mode():
        features = make_backbone(TORCH[name]).eval()(images(size, 1))

    assert features.shape[2] == features.shape[3] == size // {"vit_small": 16, "custom_cnn": 16}.get(name, 32)


POOLS_ONLY = [name for name in TORCH if name not in ("custom_cnn", "vgg16", "convnext_tiny", "vit_small")]


@pytest.mark.parametrize("name", POOLS_ONLY)
def test_the_mean_of_the_map_is_what_the_librarys_own_classifier_reads(name):
    backbone = make_backbone(TORCH[name], size=SIZE).eval()
    with torch.inference_mode():
        expected = backbone.timm.forward_head(backbone.timm.forward_features(images()), pre_logits=True)

        torch.testing.assert_close(backbone(images()).mean((2, 3)), expected)


def test_a_norm_behind_the_pool_is_applied_to_each_place():
    backbone = make_backbone(TORCH["convnext_tiny"], size=SIZE).eval()
    model = timm.create_model("convnext_tiny").eval()
    model.load_state_dict(backbone.timm.state_dict(), strict=False)
    with torch.inference_mode():
        plain = model.forward_features(images())
        expected = model.head.norm(plain)

        torch.testing.assert_close(backbone(images()), expected)
        assert not torch.allclose(plain, expected)


def test_class_tokens_are_dropped_and_places_lie_as_in_the_image():
    backbone = make_backbone(TORCH["vit_small"], size=SIZE).eval()
    with torch.inference_mode():
        tokens = backbone.timm.forward_features(images())
        features = backbone(images())

    assert tokens.shape[1] == 1 + 4 * 4
    torch.testing.assert_close(features[:, :, 1, 2], tokens[:, 1 + 4 * 1 + 2])


def test_register_tokens_are_dropped_and_a_norm_behind_the_pool_of_tokens_is_applied_to_each():
    backbone = make_backbone("vit_little_patch16_reg4_gap_256", size=SIZE).eval()
    with torch.inference_mode():
        backbone.timm.fc_norm.weight.uniform_(0.5, 1.5)
        tokens = backbone.timm.forward_features(images())
        expected = backbone.timm.fc_norm(tokens[:, 4:])

        torch.testing.assert_close(backbone(images()).flatten(2).transpose(1, 2), expected)
    assert tokens.shape[1] == 4 + 4 * 4


def test_channels_last_are_put_first():
    backbone = make_backbone("swin_tiny_patch4_window7_224", size=SIZE).eval()
    with torch.inference_mode():
        plain = backbone.timm.forward_features(images())

        torch.testing.assert_close(backbone(images())[:, :, 0, 1], plain[:, 0, 1, :])
    assert plain.shape == (2, 2, 2, 768)


@pytest.mark.parametrize(
    ("name", "part", "parameters"),
    [("vgg16", "pre_logits", (14e6, 15e6)), ("mobilenetv3_small_050", "conv_head", (0.2e6, 0.4e6))],
)
def test_hidden_layers_behind_the_pool_are_left_out(name, part, parameters):
    backbone = make_backbone(TORCH.get(name, name), size=SIZE)

    least, most = parameters
    assert least < sum(parameter.numel() for parameter in backbone.parameters()) < most
    assert part in backbone.left_out
    features = backbone(images())
    features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters()), (
        "nothing is left that is unread"
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families_of_timm_are_brought_to_the_same_form(name):
    size = 224 if name == "levit_128s" else SIZE
    assert architecture(f"timm:{name}", "torch").engines == {"torch": name}
    backbone = make_backbone(name, size=size).eval()

    with torch.inference_mode():
        features = backbone(images(size))

    assert isinstance(backbone, FeatureMap)
    assert features.shape[:2] == (2, backbone.timm.num_features)
    assert features.shape[2] == features.shape[3]


@pytest.mark.parametrize("name", ["pit_ti_224", "efficientvim_m1_dist"])
def test_what_gives_no_feature_map_is_refused_by_name(name):
    with pytest.raises(UsageError, match=f"{name} gives .*, not a feature map; choose an architecture"):
        make_backbone(name)


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UsageError, match=r"timm has no model 'resnet1'; nearest: .*resnet18"):
        make_backbone("resnet1")


def test_an_unknown_tag_lists_those_there_are():
    with pytest.raises(UsageError, match=r"timm has no weights 'tv_in2k' for vgg16; there are: tv_in1k"):
        make_backbone("vgg16.tv_in2k")


def test_an_image_too_small_is_told_with_the_size_it_was_made_for():
    with pytest.raises(UsageError, match=r"8 x 8 pixels .* made for data.size=224"):
        make_backbone("vit_small_patch16_224", size=8)


def test_a_network_without_that_padding_is_refused():
    with pytest.raises(TrainingError, match="TensorFlow's padding"):
        make_backbone("resnet18", same_padding=True)


@pytest.mark.parametrize("name", ["resnet18", "vit_small", "mobilenetv2", "custom_cnn"])
def test_layers_hold_each_parameter_once(name):
    backbone = make_backbone(TORCH[name], size=SIZE)

    found = [parameter for layer in layers(backbone) for parameter in layer.parameters]

    assert len(found) == len(set(found))
    assert set(found) == set(backbone.parameters())


@pytest.mark.parametrize(
    "name", ["densenet121", "vgg16", "mobilenetv2", "convnext_tiny", "vit_small", "custom_cnn"]
)
def test_layers_stand_in_the_order_in_which_they_run(name):
    backbone = make_backbone(TORCH[name], size=SIZE).eval()
    found = layers(backbone)
    ran = []
    for layer in found:
        layer.module.register_forward_pre_hook(lambda _module, _inputs, name=layer.name: ran.append(name))
    with torch.inference_mode():
        backbone(images())

    # The one that does not run itself is the whole of a ViT, which holds its position embeddings.
    assert [layer.name for layer in found if layer.name != "timm"] == ran


def test_a_batch_norm_is_a_layer_of_its_own():
    found = layers(make_backbone(TORCH["resnet18"], size=SIZE))

    assert [layer.name for layer in found[:3]] == ["timm.conv1", "timm.bn1", "timm.layer1.0.conv1"]
    assert [len(layer.parameters) for layer in found[:3]] == [1, 2, 1]


def test_the_custom_cnn_is_four_blocks_of_convolution_norm_and_pool():
    blocks = list(make_backbone("custom_cnn", size=SIZE).blocks)

    assert [type(block).__name__ for block in blocks] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"] * 4
    assert [block.out_channels for block in blocks[::4]] == [32, 64, 128, 256]


def test_dropout_of_the_custom_cnn_drops_whole_channels():
    backbone = make_backbone("custom_cnn", size=SIZE, dropout=0.5).train()
    torch.manual_seed(0)

    features = backbone(images())

    empty = (features == 0).all(3).all(2).float().mean()
    assert 0.4 < float(empty) < 0.7


def _largest_difference(name, size, folder):
    """Between the outputs of a model and of its exported graph, relative to the largest, over two batch sizes."""
    settings = load_recipe(
        "kermany-densenet121",
        [f"model.architecture={name}", "model.weights=none", "model.freeze=none", f"data.size={size}"],
    )
    model, initial = models.build(settings, images=torch.rand(2, size, size))
    grey = images(size, 3)[:, 0]
    with torch.inference_mode():
        expected = [output.numpy() for output in model.eval().head.explain(model.features(grey))]
    graph, _ = export.export_model(model, initial, size=size, graph=folder / "model.onnx", weights=folder)
    session = onnxruntime.InferenceSession(graph.read_bytes(), providers=["CPUExecutionProvider"])
    return max(
        float(np.abs(ours - theirs[:number]).max() / np.abs(theirs).max())
        for number in (1, 3)
        for ours, theirs in zip(session.run(None, {"image": grey[:number].numpy()}), expected, strict=True)
    )


def test_a_model_of_timms_exports_the_contract_graph(tmp_path):
    assert _largest_difference("timm:swin_tiny_patch4_window7_224", SIZE, tmp_path) < 1e-3


@pytest.mark.full
@pytest.mark.parametrize("name", [*TORCH, *(f"timm:{family}" for family in FAMILIES)])
def test_every_architecture_exports_at_the_size_it_was_made_for(name, tmp_path):
    assert _largest_difference(name, architecture(name).input_size, tmp_path) < 1e-3


def test_each_layer_of_a_dense_block_reads_all_before_it():
    block = make_backbone(TORCH["densenet121"], size=SIZE).get_submodule("timm.features.denseblock1")
    growth, entering = 32, 64

    read = [layer.conv1.in_channels for layer in block.children()]

    assert read == [entering + growth * place for place in range(6)]
