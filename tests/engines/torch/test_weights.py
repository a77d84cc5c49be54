import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hilum.engines.torch import models, weights
from hilum.errors import TrainingError

SIZE = 64
MOBILENET = "mobilenetv2_100.ra_in1k"


def images():
    return torch.rand(16, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def initialise(name, source):
    return weights.initialise(name, str(source), make=models.make_backbone, images=images())


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """A MobileNetV2 with batch norm folded away, as a converter writes it, and the outputs that it had."""
    torch.manual_seed(3)
    backbone = models.make_backbone(MOBILENET, same_padding=True)
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
        (lambda arrays: arrays.pop("05_CONV_2D_kernel"), "51 convolutions"),
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
    with pytest.raises(TrainingError, match="do not fit resnet18"):
        initialise("resnet18.tv_in1k", folded[0])


def test_safetensors_round_trip_with_its_notes(tmp_path):
    backbone = models.make_backbone("resnet18.tv_in1k")
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
    save_file(models.make_backbone("custom_cnn").state_dict(), tmp_path / "w.safetensors")

    with pytest.raises(TrainingError, match="does not fit resnet18"):
        initialise("resnet18.tv_in1k", tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors"])
def test_garbage_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"garbage")

    with pytest.raises(TrainingError, match="not a readable"):
        initialise("resnet18.tv_in1k", tmp_path / name)


def test_a_pickle_is_refused(tmp_path):
    torch.save({}, tmp_path / "w.pth")

    with pytest.raises(TrainingError, match=r"from .safetensors and .npz files, not '.pth'"):
        initialise("resnet18.tv_in1k", tmp_path / "w.pth")


def test_a_missing_file_is_told_from_the_two_words():
    with pytest.raises(TrainingError, match="neither 'imagenet', 'none' nor a file that exists"):
        initialise("resnet18.tv_in1k", "imagnet")


def test_hub_weights_that_cannot_be_had_are_told_in_words(monkeypatch):
    def offline(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(models.timm, "create_model", offline)
    with pytest.raises(TrainingError, match=r"could not be fetched .*model.weights=none"):
        initialise("resnet18.tv_in1k", "imagenet")


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
