import sys
import zipfile

import h5py
import numpy as np
import pytest

from hilum.engines import InitialWeights
from hilum.engines.keras import export, models, weight_exchange, weights
from hilum.engines.keras.backbones import FAMILIES, layers, make_backbone
from hilum.errors import RecipeError, TrainingError

SIZE = 64
MOBILENET = "MobileNetV2"


def make(name, **options):
    return make_backbone(name, size=SIZE, **options)


def grey():
    return np.random.default_rng(1).integers(0, 256, (16, SIZE, SIZE)).astype(np.uint8)


def normalised():
    return (grey()[..., None].repeat(3, 3) / 255 - 0.5).astype(np.float32) / 0.5


def initialise(name, source):
    return weights.initialise(name, str(source), make=make, images=grey())


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """A MobileNetV2 with batch norm folded away, as a converter writes it, and the outputs that it had."""
    rng = np.random.default_rng(3)
    backbone = make(MOBILENET)
    arrays = {}
    for number, (convolution, norm) in enumerate(weights._convolutions_with_norms(backbone)):
        channels = norm.gamma.shape[0]
        gamma, variance = rng.uniform(0.5, 1.5, (2, channels))
        beta, mean = rng.normal(0, 0.2, (2, channels))
        norm.set_weights([gamma, beta, mean, variance])
        scale = gamma / np.sqrt(variance + norm.epsilon)
        depthwise = type(convolution).__name__ == "DepthwiseConv2D"
        kernel = convolution.kernel.numpy() * (scale[:, None] if depthwise else scale)
        operation = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        arrays[f"{number:02d}_{operation}_kernel"] = kernel.transpose(3, 0, 1, 2).astype(np.float32)
        arrays[f"{number:02d}_{operation}_bias"] = (beta - mean * scale).astype(np.float32)
    path = tmp_path_factory.mktemp("weights") / "folded.npz"
    np.savez(path, **arrays)
    return path, backbone(normalised(), training=False).numpy(), arrays


def test_folded_weights_compute_the_same_function_after_import(folded):
    path, expected, _ = folded

    backbone, initial = initialise(MOBILENET, path)

    found = backbone(normalised(), training=False).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert initial.mean == initial.std == (0.5, 0.5, 0.5)
    assert "folded.npz, sha256 " in initial.source
    in_training = backbone(normalised(), training=True).numpy()
    assert np.abs(in_training - found).mean() < 0.05 * np.abs(found).mean(), (
        "batch statistics and running statistics must agree where training starts"
    )


def test_folded_weights_may_be_unfolded_later_once(folded):
    expected, _ = initialise(MOBILENET, folded[0])
    backbone, initial = weights.initialise(
        MOBILENET, str(folded[0]), make=make, images=grey()[:1], measure=False
    )
    assert initial.folded

    for _ in range(2):
        weights.unfold(backbone, grey(), initial)

    for ours, theirs in zip(backbone.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda arrays: arrays.pop("05_CONV_2D_kernel"),
            r"w.npz does not fit MobileNetV2: \d+_\w+ has shape \(.*\), \(.*\) expected",
        ),
        (lambda arrays: arrays.pop("51_CONV_2D_kernel"), "51 convolutions"),
        (
            lambda arrays: arrays.update({"00_CONV_2D_kernel": np.zeros((32, 5, 5, 3), np.float32)}),
            "00_CONV_2D_kernel has shape",
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


def test_folded_weights_of_a_network_without_norms_are_refused(folded):
    with pytest.raises(
        TrainingError, match=r"folded.npz does not fit VGG16: folded .npz weights need a network"
    ):
        initialise("VGG16", folded[0])


def test_an_hdf5_file_gives_its_arrays_and_the_librarys_normalisation(tmp_path):
    backbone = make(MOBILENET, seed=5)
    backbone.save_weights(tmp_path / "w.weights.h5")

    loaded, initial = initialise(MOBILENET, tmp_path / "w.weights.h5")

    for ours, theirs in zip(loaded.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (initial.mean, initial.std) == (FAMILIES[MOBILENET].mean, FAMILIES[MOBILENET].std)


def published(name):
    """A network as the library makes it, its weights all different, with its options."""
    import keras

    network = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(SIZE, SIZE, 3), **FAMILIES[name].options
    )
    rng = np.random.default_rng(8)
    network.set_weights([value + rng.normal(0, 0.01, value.shape) for value in network.get_weights()])
    return network


def test_a_file_of_the_librarys_own_network_fits_though_its_normalisation_is_cut_away(tmp_path):
    """EfficientNet holds a Normalization and two Rescalings of its own, which make [0, 255] of what they get."""
    network = published("EfficientNetB0")
    network.save_weights(tmp_path / "w.weights.h5")
    pictures = np.random.default_rng(2).random((2, SIZE, SIZE, 3)).astype(np.float32)

    loaded, _ = initialise("EfficientNetB0", tmp_path / "w.weights.h5")

    import keras

    bare = keras.Model(network.get_layer("stem_conv_pad").input, network.output)
    np.testing.assert_allclose(loaded(pictures), bare(pictures), rtol=1e-5, atol=1e-5)


def test_grouped_convolutions_become_depthwise_ones_that_compute_the_same(tmp_path):
    network = published("ConvNeXtTiny")
    network.save_weights(tmp_path / "w.weights.h5")
    pictures = np.random.default_rng(2).random((2, SIZE, SIZE, 3)).astype(np.float32)

    loaded, initial = initialise("ConvNeXtTiny", tmp_path / "w.weights.h5")

    np.testing.assert_allclose(loaded(pictures), network.predict(pictures, verbose=0), rtol=1e-4, atol=1e-4)
    assert initial.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("nested", [False, True])
def test_what_save_wrote_of_a_notebooks_model_gives_its_backbone(tmp_path, nested):
    import keras

    network = published(MOBILENET)
    image = keras.Input((SIZE, SIZE, 3))
    start, features = (image, network(image)) if nested else (network.input, network.output)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(8, activation="relu")(pooled))
    keras.Model(start, keras.layers.Dense(1, activation="sigmoid")(hidden)).save(tmp_path / "notebook.keras")

    loaded, initial = initialise(MOBILENET, tmp_path / "notebook.keras")

    for ours, theirs in zip(loaded.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert initial.mean == (0.5, 0.5, 0.5), "the library's, since such a file says nothing"


def test_an_hdf5_file_of_another_network_is_refused(tmp_path):
    make("custom_cnn").save_weights(tmp_path / "w.weights.h5")

    with pytest.raises(
        TrainingError, match=r"w.weights.h5 does not fit MobileNetV2: layers/\S+ (has shape|is not there)"
    ):
        initialise(MOBILENET, tmp_path / "w.weights.h5")


def test_an_hdf5_file_of_kerass_older_form_names_the_first_array_that_does_not_fit(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["Conv1/kernel:0"] = np.zeros((3, 3, 3, 16), np.float32)
        file["Conv1"].attrs["weight_names"] = [b"kernel:0"]
        file.attrs["layer_names"] = [b"Conv1"]

    with pytest.raises(
        TrainingError,
        match=r"w.h5 does not fit MobileNetV2: kernel:0 has shape \(3, 3, 3, 16\), \(3, 3, 3, 32\) expected",
    ):
        initialise(MOBILENET, tmp_path / "w.h5")


def test_an_hdf5_file_that_reaches_outside_itself_is_refused(tmp_path):
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/passwd", "/")

    with pytest.raises(TrainingError, match="holds a link, layers; plain arrays expected"):
        initialise("custom_cnn", tmp_path / "w.weights.h5")


@pytest.fixture
def sealed(tmp_path):
    """A model.keras as a bundle holds it, and its classifier."""
    from hilum.recipe import load_recipe

    settings = load_recipe(
        "kermany-densenet121",
        ["model.architecture=custom_cnn", "model.weights=none", "model.freeze=none", f"data.size={SIZE}"],
    )
    model, _ = models.build(settings, images=grey())
    export.save(model, tmp_path / "model.keras")
    return tmp_path / "model.keras", model


def test_a_bundles_own_weights_are_read_without_its_head(sealed):
    path, model = sealed

    loaded, initial = initialise("custom_cnn", path)

    for ours, theirs in zip(loaded.get_weights(), model.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose([initial.mean, initial.std], [[0.5] * 3, [0.25] * 3], rtol=1e-6)


def test_a_bundles_own_weights_for_another_network_are_refused(sealed):
    with pytest.raises(TrainingError, match=r"model.keras does not fit MobileNetV2"):
        initialise(MOBILENET, sealed[0])


def test_a_keras_file_is_never_deserialised(sealed, monkeypatch):
    def never(*_args, **_options):
        raise AssertionError("something was made from a file")

    monkeypatch.setattr("keras.models.load_model", never)
    monkeypatch.setattr("keras.Model.from_config", never)

    initialise("custom_cnn", sealed[0])


def test_neutral_arrays_there_and_back(tmp_path):
    backbone = make(MOBILENET, seed=7)
    np.savez(tmp_path / "w.npz", mean=np.zeros(3), std=np.ones(3), **weight_exchange.arrays(backbone))

    loaded, initial = initialise(MOBILENET, tmp_path / "w.npz")

    for ours, theirs in zip(loaded.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert (initial.mean, initial.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("001_norm_gamma"), "001_norm_gamma is not there"),
        (
            lambda arrays: arrays.update({"000_convolution_kernel": np.zeros(3)}),
            "000_convolution_kernel has shape",
        ),
        (
            lambda arrays: arrays.update({"900_norm_beta": np.zeros(3)}),
            "900_norm_beta has shape .* has no such array",
        ),
    ],
)
def test_neutral_arrays_that_do_not_fit_are_refused(tmp_path, change, message):
    arrays = weight_exchange.arrays(make("custom_cnn"))
    change(arrays)
    np.savez(tmp_path / "w.npz", **arrays)

    with pytest.raises(TrainingError, match=message):
        initialise("custom_cnn", tmp_path / "w.npz")


def test_the_normalisation_is_the_librarys_own_preprocessing():
    import keras

    grey_values = np.linspace(0, 255, 8).reshape(1, 8, 1, 1).repeat(3, 3).astype(np.float32)
    for name, module in {"VGG16": "vgg16", "MobileNetV2": "mobilenet_v2", "DenseNet121": "densenet"}.items():
        expected = getattr(keras.applications, module).preprocess_input(grey_values.copy())
        family = FAMILIES[name]

        found = (grey_values / 255 - np.array(family.mean)) / np.array(family.std)

        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["w.npz", "w.weights.h5", "w.keras"])
def test_garbage_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"garbage")

    with pytest.raises(TrainingError, match="not a readable"):
        initialise("custom_cnn", tmp_path / name)


def test_an_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.keras", "w") as archive:
        archive.writestr("config.json", "{}")

    with pytest.raises(TrainingError, match="not a readable"):
        initialise("custom_cnn", tmp_path / "w.keras")


def test_a_file_of_the_other_engine_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"")

    with pytest.raises(RecipeError, match=r"the keras engine reads weights from .* not '.safetensors'"):
        initialise("custom_cnn", tmp_path / "w.safetensors")


def test_a_missing_file_is_told_from_the_two_words():
    with pytest.raises(RecipeError, match="neither 'imagenet', 'none' nor a file that exists"):
        initialise("custom_cnn", "imagnet")


def test_imagenet_weights_that_cannot_be_had_are_told_in_words(capsys):
    def offline(name, *, pretrained=False):
        if pretrained:
            sys.stdout.write("Downloading data from https://example.org/weights.h5")
            raise Exception(
                "URL fetch failure on https://example.org/weights.h5: None -- [Errno -2] Not known"
            )
        return make("custom_cnn")

    with pytest.raises(TrainingError) as told:
        weights.initialise(MOBILENET, "imagenet", make=offline, images=grey())

    assert str(told.value) == (
        "the ImageNet weights MobileNetV2 are not on this machine and could not be fetched ([Errno -2] Not known); "
        "go online once, or give model.weights the path of a .weights.h5, .h5, .keras or .npz file, "
        "or model.weights=none"
    )
    assert not capsys.readouterr().out


def test_random_weights_come_with_constants():
    _, initial = initialise("custom_cnn", "none")

    assert isinstance(initial, InitialWeights)
    assert initial.source == "random"
    assert layers(make("custom_cnn"))[1].momentum == 0.9


@pytest.mark.real
def test_the_imported_mobilenet_sees_imagenet_like_features_in_radiographs(shared_data):
    path = shared_data / "weights" / "mobilenet_v2_imagenet_int8dequant_bnfolded.npz"

    backbone, _ = initialise(MOBILENET, path)

    features = backbone(normalised(), training=False).numpy()
    assert features.shape == (16, 2, 2, 1280)
    assert features.min() >= 0
    assert features.max() <= 6
    assert 0.02 < (features > 0).mean() < 0.98
