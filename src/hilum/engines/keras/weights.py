"""The `weights` of a recipe -> a Keras backbone that holds them, with a record of where they came from.

Three kinds:

`imagenet`
    The library's weights of `keras.applications`; the input normalisation is the one that they were trained with.
`none`
    Random; the input is centred and scaled by constants.
A path to a file
    `.weights.h5` or `.h5`: arrays by layer, as `save_weights` of a backbone of `keras.applications` without its top
    writes them; the normalisation is that of the library's ImageNet weights.

    `.keras`: a bundle's own `weights/model.keras`. Of what is in it only arrays and three means and deviations are
    read; no layer, function or class is made from it. Its head is left out.

    `.npz`: convolutions with batch norm folded away, as `hilum.engines.torch.weights` describes them, or arrays in the
    neutral layout of `neutral.py`, which carries weights from one engine to the other. Folded batch norm is unfolded
    with statistics measured on training images.
"""

import contextlib
import io
import itertools
import json
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import h5py
import keras
import numpy as np
import tensorflow as tf

from hilum.engines import InitialWeights
from hilum.engines.keras import backend as backend, neutral
from hilum.engines.keras.backbones import CUSTOM_CNN, FAMILIES, layers
from hilum.engines.sources import RANDOM, named, triple
from hilum.errors import TrainingError

FOLDED = re.compile(r"\d+_(DEPTHWISE_)?CONV_2D_kernel")
BLOCK = 16  # images at a time, where all activations are looked at

Make = Callable[..., Any]


def initialise(name: str, source: str, *, make: Make, images: np.ndarray) -> tuple[Any, InitialWeights]:
    """Makes a backbone and loads its weights.

    Args:
        name: The name in `keras.applications`, or `custom_cnn`.
        source: `imagenet`, `none` or a path.
        make: Makes the bare backbone: `backbones.make_backbone`, its size given.
        images: uint8 (n, size, size), for unfolding batch norm.

    Raises:
        TrainingError: The weights cannot be fetched, read, or do not fit the architecture.
    """
    if source == "none":
        return make(name), RANDOM
    if source == "imagenet":
        return _from_hub(name, make)
    path = Path(source).expanduser()
    if not path.is_file():
        raise TrainingError(
            f"model.weights = {source!r} is neither 'imagenet', 'none' nor a file that exists; give one of the three"
        )
    if path.suffix == ".h5":
        return _from_hdf5(name, path, make)
    if path.suffix == ".keras":
        return _from_bundle(name, path, make)
    if path.suffix == ".npz":
        return _from_npz(name, path, make, images)
    raise TrainingError(
        f"{path.name}: the keras engine reads weights from .weights.h5, .h5, .keras and .npz files, not {path.suffix!r}"
    )


def _from_hub(name: str, make: Make) -> tuple[Any, InitialWeights]:
    if name == CUSTOM_CNN:
        raise TrainingError(f"{name} has no ImageNet weights; set model.weights=none")
    try:
        backbone = make(name, pretrained=True)
    except Exception as error:  # the library's loader raises bare ones
        make(name)  # where the architecture itself cannot be had, it says so
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise TrainingError(
            f"the ImageNet weights of {name} could not be fetched by Keras ({reason[0][:120]}); go online once, "
            "or set model.weights=FILE.weights.h5, or train from nothing with model.weights=none"
        ) from error
    family = FAMILIES[name]
    return backbone, InitialWeights(
        f"keras.applications {name} imagenet",
        family.mean,
        family.std,
        citation=f"Keras Applications, weights {name} (ImageNet, Russakovsky et al. 2015)",
    )


def _from_hdf5(name: str, path: Path, make: Make) -> tuple[Any, InitialWeights]:
    backbone = make(name)
    with _readable(path, "HDF5"), h5py.File(path) as file:
        _check_plain(file, path)
    _load(name, backbone, path, told=path)
    if name == CUSTOM_CNN:
        return backbone, InitialWeights(named(path), RANDOM.mean, RANDOM.std)
    return backbone, InitialWeights(named(path), FAMILIES[name].mean, FAMILIES[name].std)


def _from_bundle(name: str, path: Path, make: Make) -> tuple[Any, InitialWeights]:
    backbone = make(name)
    with _readable(path, ".keras"), ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        content = archive.read("model.weights.h5")
        rescaling = next(
            layer["config"]
            for layer in config["config"]["layers"]
            if layer["class_name"] == "Rescaling" and layer["config"]["name"] == "normalisation"
        )
        scale, offset = np.array(rescaling["scale"], float), np.array(rescaling["offset"], float)
        initial = InitialWeights(
            named(path), triple((-offset / scale).tolist(), path), triple((1 / scale).tolist(), path)
        )
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "backbone.weights.h5"
        with _readable(path, ".keras"), h5py.File(io.BytesIO(content)) as whole, h5py.File(own, "w") as part:
            _check_plain(whole, path)
            nested = next(group for group in whole["layers"].values() if "layers" in group)
            for key in nested:
                nested.copy(key, part)
        _load(name, backbone, own, told=path)
    return backbone, initial


def _load(name: str, backbone: Any, path: Path, *, told: Path) -> None:
    """Lets Keras read arrays by layer, if each is there with the shape that it should have."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own.weights.h5"
        backbone.save_weights(own)
        expected, found = _shapes(own), _shapes(path)
    if path.name.endswith(".weights.h5"):
        for key, shape in expected.items():
            if found.get(key) != shape:
                arrived = f"has shape {found[key]}" if key in found else "is not there"
                raise TrainingError(
                    f"{told.name} does not fit {name}: {key} {arrived}, {shape} expected; "
                    "choose the architecture that it was made for"
                )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras warns of what it leaves random
            backbone.load_weights(path)
    except (ValueError, KeyError, OSError, UserWarning) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{told.name} does not fit {name}: {reason}; choose the architecture that it was made for"
        ) from None


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each array in a file, by its path."""
    found: dict[str, tuple[int, ...]] = {}

    def look(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[key] = item.shape

    with h5py.File(path) as file:
        file.visititems(look)
    return found


def _check_plain(file: h5py.File, path: Path) -> None:
    """Refuses an HDF5 file that reaches outside itself or holds anything but numbers."""

    def look(group: h5py.Group) -> None:
        for key in group:
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise TrainingError(f"{path.name} holds a link, {key}; plain arrays expected")
            item = group[key]
            if isinstance(item, h5py.Group):
                look(item)
            elif item.external or item.is_virtual or item.dtype.kind not in "fiu":
                raise TrainingError(f"{path.name} holds {key}, which is no plain array of numbers")

    look(file)


def _from_npz(name: str, path: Path, make: Make, images: np.ndarray) -> tuple[Any, InitialWeights]:
    with _readable(path, ".npz"), np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files if not key.endswith("_name")}
    half = np.full(3, 0.5)
    mean, std = (triple(arrays.get(key, half).tolist(), path) for key in ("mean", "std"))
    initial = InitialWeights(named(path), mean, std)
    backbone = make(name)
    if any(neutral.KEY.fullmatch(key) for key in arrays):
        neutral.fill(backbone, arrays, name=name, told=path.name)
        return backbone, initial
    kernels = sorted(key for key in arrays if FOLDED.fullmatch(key))
    places = _convolutions_with_norms(backbone)
    if len(kernels) != len(places):
        raise TrainingError(
            f"{path.name} does not fit {name}: it holds {len(kernels)} convolutions, {name} has {len(places)}"
        )
    for key, (convolution, norm) in zip(kernels, places, strict=True):
        # (1, h, w, channels) -> (h, w, channels, 1), and (out, h, w, in) -> (h, w, in, out)
        kernel = arrays[key].transpose((1, 2, 3, 0))
        if kernel.shape != tuple(convolution.kernel.shape):
            raise TrainingError(
                f"{path.name} does not fit {name}: {key} has shape {arrays[key].shape}, "
                f"the kernel is {tuple(convolution.kernel.shape)} (h, w, in, out)"
            )
        bias_key = key.replace("_kernel", "_bias")
        if bias_key not in arrays:
            raise TrainingError(f"{path.name} lacks {bias_key}; each kernel needs its bias")
        convolution.kernel.assign(kernel)
        norm.moving_mean.assign(np.zeros(norm.moving_mean.shape))
        norm.moving_variance.assign(np.ones(norm.moving_variance.shape))
        norm.gamma.assign(np.full(norm.gamma.shape, (1 + norm.epsilon) ** 0.5))
        norm.beta.assign(arrays[bias_key])
    _unfold([norm for _, norm in places], backbone, images, initial)
    return backbone, initial


def _convolutions_with_norms(backbone: Any) -> list[tuple[Any, Any]]:
    """The convolutions in the order in which they run, each with the batch norm that follows it."""
    found = layers(backbone)
    pairs = [
        (first, second)
        for first, second in itertools.pairwise(found)
        if isinstance(first, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
        and isinstance(second, keras.layers.BatchNormalization)
    ]
    if 2 * len(pairs) != len(found):
        raise TrainingError(
            "folded .npz weights need a network in which batch norm follows each convolution, as in MobileNetV2; "
            "use a .weights.h5 file"
        )
    return pairs


def _unfold(norms: list[Any], backbone: Any, images: np.ndarray, initial: InitialWeights) -> None:
    """Gives each batch norm the statistics of its input, without changing what the network computes.

    With measured mean m and variance v of the input, gamma = sqrt(v + eps) and beta = bias + m: the layer still adds
    the bias, and batch statistics during training agree with the running ones.
    """
    inputs = keras.Model(backbone.inputs, [norm.input for norm in norms])
    mean, std = tf.constant(initial.mean), tf.constant(initial.std)

    @tf.function(input_signature=[tf.TensorSpec((None, *images.shape[1:]), tf.uint8)])  # type: ignore[untyped-decorator]
    def moments(block: Any) -> list[tuple[Any, Any]]:
        grey = tf.cast(block, tf.float32)[..., None] / 255
        activations = inputs((grey - mean) / std, training=False)
        return [tf.nn.moments(tf.cast(values, tf.float32), (0, 1, 2)) for values in activations]

    # Each block's mean and mean square, weighted by its images; summed in double.
    sums = [np.zeros((2, norm.gamma.shape[0])) for norm in norms]
    for block in np.split(images, range(BLOCK, len(images), BLOCK)):
        for total, (average, variance) in zip(sums, moments(block), strict=True):
            averages = average.numpy().astype(np.float64)
            total += len(block) * np.stack([averages, variance.numpy() + averages**2])
    for norm, total in zip(norms, sums, strict=True):
        average, square = total / len(images)
        variance = np.maximum(square - average**2, 1e-6)
        norm.moving_mean.assign(average)
        norm.moving_variance.assign(variance)
        norm.gamma.assign(np.sqrt(variance + norm.epsilon))
        norm.beta.assign(norm.beta.numpy() + average)


@contextlib.contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """Says in words that a file is damaged."""
    try:
        yield
    except (ValueError, OSError, BadZipFile, KeyError, TypeError, StopIteration) as error:
        raise TrainingError(f"{path.name} is not a readable {kind} file of plain arrays: {error}") from None
