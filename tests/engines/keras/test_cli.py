import sys

import numpy as np
import pytest

from hilum import __main__
from hilum.bundle import read_bundle
from hilum.data import phantom
from hilum.inference.predictor import Predictor

SMALL = [
    "--set", "model.architecture=custom_cnn", "--set", "model.weights=none", "--set", "model.freeze=none",
    "--set", "data.size=32", "--set", "train.epochs=1", "--set", "task.findings=['Lung Opacity']",
    "--set", "task.negatives=all-others", "--set", "split.method=patient", "--set", "train.keep_final=true",
]  # fmt: skip


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    phantom.generate(folder, num_images=80, size=64, seed=5).write(folder / "table.parquet")
    return folder / "table.parquet"


@pytest.fixture
def hilum(capsys, monkeypatch):
    """Runs the command line in this process; gives exit status and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hilum", *map(str, arguments)])
        status = 0
        try:
            __main__.main()
        except SystemExit as exit_:
            status = exit_.code or 0
        return status, capsys.readouterr().err

    return run


def test_a_run_is_sealed_evaluated_and_saved_for_plain_keras(hilum, phantoms, tmp_path):
    import keras

    saved = tmp_path / "saved" / "model.keras"
    status, told = hilum(
        "train", "kermany-densenet121", *SMALL, "--engine", "keras", "--data", phantoms,
        "-o", tmp_path / "run", "--saved-model", saved,
    )  # fmt: skip
    assert status == 0, told

    sealed = read_bundle(tmp_path / "run")
    assert sealed.manifest.training.engine == "keras"
    assert {"keras", "tensorflow", "tf2onnx"} <= set(sealed.manifest.versions)
    assert (tmp_path / "run" / "final" / "weights" / "model.keras").is_file()
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32)).astype(np.uint8)
    logits = Predictor.load(sealed).graph.outputs(image).logits
    found = keras.models.load_model(saved).predict(image / np.float32(255), verbose=0)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-4)
    for file in sealed.folder.rglob("*"):
        assert not file.is_file() or str(tmp_path).encode() not in file.read_bytes()
    assert hilum("evaluate", tmp_path / "run")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--saved-model", "m.keras"], "--engine torch does not have"),
        (["--engine", "keras", "--saved-model", "m.h5"], "should be a file that ends in .keras"),
        (
            ["--engine", "keras", "--set", "model.architecture=resnet18"],
            "it has: resnet50 (did you mean it?)",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_words(hilum, phantoms, tmp_path, options, message):
    status, told = hilum(
        "train", "kermany-densenet121", *SMALL, "--data", phantoms, "-o", tmp_path / "r", *options
    )

    assert status == 2
    assert message in " ".join(told.split())
