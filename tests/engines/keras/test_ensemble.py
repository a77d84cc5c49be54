import numpy as np
import pytest

from hilum.bundle import write_bundle
from hilum.data import phantom
from hilum.inference import ensemble
from hilum.inference.predictor import Predictor
from hilum.recipe import load_recipe
from hilum.training.train import train

SMALL = [
    "model.architecture=custom_cnn", "model.weights=none", "model.freeze=none", "data.size=32", "train.epochs=1",
    "task.findings=['Lung Opacity']", "task.negatives=all-others", "split.method=patient",
]  # fmt: skip


def raised(member, folder):
    """The same bundle with its graph's number of opset as PyTorch writes it."""
    import onnx

    folder.parent.mkdir(exist_ok=True)
    proto = onnx.version_converter.convert_version(onnx.load_from_string(member.graph), 20)
    onnx.save(proto, folder.parent / "raised.onnx")
    return write_bundle(
        folder,
        member.manifest,
        graph=folder.parent / "raised.onnx",
        weights=member.weights,
        golden=member.golden,
    )


def test_a_keras_bundle_joins_one_of_pytorchs_opset(tmp_path, monkeypatch):
    import onnx

    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    phantoms = phantom.generate(tmp_path / "phantoms", num_images=60, size=64, seed=5)
    settings = load_recipe("kermany-densenet121", SMALL)
    ours = train(settings, phantoms, tmp_path / "a", engine="keras").bundle
    other = raised(ours, tmp_path / "b" / "bundle")
    versions = [onnx.load_from_string(one.graph).opset_import[0].version for one in (ours, other)]
    assert versions == [18, 20]

    joined = Predictor.load(ensemble.ensemble([ours, other], tmp_path / "e"))

    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)
    alone = Predictor.load(ours)
    probabilities = [model.probabilities(model.graph.logits(image)) for model in (joined, alone)]
    np.testing.assert_allclose(*probabilities, atol=1e-6)
    assert joined.bundle.manifest.training.engine == "keras"
    assert joined.graph.outputs(image).maps.shape == pytest.approx(alone.graph.outputs(image).maps.shape)
