import pytest
import timm
import torch

from hilum.architectures import ARCHITECTURES, architecture
from hilum.engines.torch.backbones import FeatureMap, layers, make_backbone
from hilum.errors import TrainingError, UsageError

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


def test_hidden_layers_behind_the_pool_are_left_out():
    backbone = make_backbone(TORCH["vgg16"], size=SIZE)

    assert 14e6 < sum(parameter.numel() for parameter in backbone.parameters()) < 15e6
    assert "pre_logits" in backbone.left_out


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families_of_timm_are_brought_to_the_same_form(name):
    size = 64 if name not in ("swin_tiny_patch4_window7_224", "levit_128s") else 224
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
def test_layers_hold_each_parameter_once_and_run_from_the_image(name):
    backbone = make_backbone(TORCH[name], size=SIZE)

    found = layers(backbone)

    parameters = [parameter for layer in found for parameter in layer.parameters]
    assert len(parameters) == len(set(parameters)) == len(list(backbone.parameters()))
    first = next(layer for layer in found if layer.parameters and layer.parameters[0].ndim == 4)
    assert first.parameters[0].shape[1] == 3


def test_dropout_of_the_custom_cnn_drops_whole_channels():
    backbone = make_backbone("custom_cnn", size=SIZE, dropout=0.5).train()
    torch.manual_seed(0)

    features = backbone(images())

    empty = (features == 0).all(3).all(2).float().mean()
    assert 0.4 < float(empty) < 0.7
