"""The `weights` of a recipe -> a Keras backbone that holds them, with a record of where they came from.

Three kinds:

`imagenet`
    The library's weights of `keras.applications`; the input normalisation is the one that they were trained with.
`none`
    Random; the input is centred and scaled by constants.
A path to a file
    `.weights.h5` or `.h5`: arrays by layer, as `save_weights` of a backbone of `keras.applications` without its top
    writes them; the normalisation is that of the library's ImageNet weights.

    `.keras`: a bundle's own `weights/model.keras`, or what `save` of Keras wrote of a model that holds the library's
    network. Of what is in it only arrays are read, and in Hilum's own the note of the normalisation; no layer,
    function or class is made from it. Its head is left out.

    `.npz`: convolutions with batch norm folded away, as `hilum.engines.torch.weights` describes them, or arrays in the
    neutral layout of `weight_exchange.py`, which carries weights from one engine to the other. Folded batch norm is
    unfolded with statistics measured on training images.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import h5py
import keras
import numpy as np
import tensorflow

from hilum.engines.contract import InitialWeights
from hilum.engines.keras import weight_exchange
from hilum.engines.keras.backbones import FAMILIES, OWN, layers, make_backbone
from hilum.engines.weight_sources import RANDOM, check_weights, misfit, named, triple, unfetched
from hilum.errors import TrainingError

FOLDED = re.compile(r"\d+_(DEPTHWISE_)?CONV_2D_kernel")
NOTE = "hilum.json"  # in a model.keras: what Keras keeps no place for
BLOCK = 16  # images at a time, where all activations are looked at

Make = Callable[..., Any]


def initialise(
    name: str, source: str, *, make: Make, images: np.ndarray, measure: bool = True
) -> tuple[Any, InitialWeights]:
    """Make a backbone and loads its weights.

    Args:
        name: The name in `keras.applications`, or one of `backbones.OWN`.
        source: `imagenet`, `none` or a path.
        make: Makes the bare backbone: `backbones.make_backbone`, its size given.
        images: uint8 (n, size, size), for unfolding batch norm.
        measure: Whether folded batch norm is unfolded here; else `unfold` can do it later, and `folded` says so.

    Raises:
        TrainingError: The weights cannot be fetched, read, or do not fit the architecture.
    """
    check_weights(source, engine="keras", architecture=name)
    if source == "none":
        return make(name), RANDOM
    if source == "imagenet":
        return _from_hub(name, make)
    path = Path(source).expanduser()
    if path.suffix == ".h5":
        return _from_hdf5(name, path, make)
    if path.suffix == ".keras":
        return _from_keras(name, path, make)
    backbone, initial = _from_npz(name, path, make)
    if initial.folded and measure:
        unfold(backbone, images, initial)
        initial = dataclasses.replace(initial, folded=False)
    return backbone, initial


@functools.cache
def fetch(name: str, *, size: int) -> None:
    """Fetch the library's weights, once in a process, so that it is told before long work where they cannot be had.

    Raises:
        TrainingError: They are not on this machine and could not be fetched.
    """
    _from_hub(name, functools.partial(make_backbone, size=size))


def _from_hub(name: str, make: Make) -> tuple[Any, InitialWeights]:
    try:
        with _quiet():
            backbone = make(name, pretrained=True)
    except Exception as error:  # the library's loader raises bare ones
        make(name)  # where the architecture itself cannot be had, it says so
        raise unfetched(name, error, files=".weights.h5, .h5, .keras or .npz") from error
    family = FAMILIES[name]
    return backbone, InitialWeights(
        f"keras.applications {name} imagenet",
        family.mean,
        family.std,
        citation=f"Keras Applications, weights {name} (ImageNet, Russakovsky et al. 2015)",
        licence=family.licence,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Keras from telling addresses."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _from_hdf5(name: str, path: Path, make: Make) -> tuple[Any, InitialWeights]:
    with _readable(path, "HDF5"), h5py.File(path) as file:
        _check_plain(file, path)
    return make(name, load=partial(_load, name, path=path, told=path)), _initial(name, path)


def _initial(name: str, path: Path) -> InitialWeights:
    """Of a file that says nothing of its normalisation: the library's."""
    usual = RANDOM if name in OWN else FAMILIES[name]
    return InitialWeights(named(path), usual.mean, usual.std)


def _from_keras(name: str, path: Path, make: Make) -> tuple[Any, InitialWeights]:
    with _readable(path, ".keras"), ZipFile(path) as archive:
        content = archive.read("model.weights.h5")
        note = json.loads(archive.read(NOTE)) if NOTE in archive.namelist() else None

    def load(network: Any) -> None:
        expected = _own_shapes(network)
        with tempfile.TemporaryDirectory() as folder:
            own = Path(folder) / "backbone.weights.h5"
            with _readable(path, ".keras"), h5py.File(io.BytesIO(content)) as whole:
                _check_plain(whole, path)
                _copy(_holder(whole, expected), expected, own)
            _load(name, network, path=own, told=path)

    if note is None:
        return make(name, load=load), _initial(name, path)
    with _readable(path, ".keras"):
        initial = InitialWeights(
            named(path),
            triple(note["mean"], path),
            triple(note["std"], path),
            note["citation"],
            note["licence"],
        )
    backbone = make(name)
    load(backbone)
    return backbone, initial


def _holder(whole: h5py.File, expected: Mapping[str, Any]) -> h5py.Group:
    """The group that holds a network: the file itself, or that of a model within the model; the best fit of them."""
    groups: list[h5py.Group] = [whole]
    whole.visititems(lambda _, item: groups.append(item) if isinstance(item, h5py.Group) else None)

    def fitting(group: h5py.Group) -> int:
        return sum(key in group and group[key].shape == shape for key, shape in expected.items())

    return max(groups, key=fitting)


def _copy(group: h5py.Group, expected: Mapping[str, Any], path: Path) -> None:
    """Write what is expected and there to a file of its own."""
    with h5py.File(path, "w") as part:
        for key in expected:
            if isinstance(group.get(key), h5py.Dataset):
                part[key] = group[key][()]


def _load(name: str, backbone: Any, *, path: Path, told: Path) -> None:
    """Let Keras read arrays by layer, if each is there with the shape that it should have."""
    if path.name.endswith(".weights.h5"):
        found = _shapes(path)
        for key, shape in _own_shapes(backbone).items():
            if found.get(key) != shape:
                raise misfit(told.name, name, key, arrived=found.get(key), expected=shape)
    else:
        _check_layers(name, backbone, path=path, told=told)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras warns of what it leaves random
            backbone.load_weights(path)
    except (ValueError, KeyError, OSError, UserWarning) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{told.name} does not fit {name}: {reason}; choose the architecture that it was made for"
        ) from None


def _check_layers(name: str, backbone: Any, *, path: Path, told: Path) -> None:
    """Compare a file of Keras's older form, which has its layers in order; Keras alone would only count them."""
    with _readable(path, "HDF5"), h5py.File(path) as file:
        if "layer_names" not in file.attrs:
            return
        saved = [(layer, file[layer]) for layer in map(_text, file.attrs["layer_names"])]
        saved = [(layer, group) for layer, group in saved if len(group.attrs["weight_names"])]
        own = [layer for layer in backbone.layers if layer.weights]
        for (key, group), layer in zip(saved, own, strict=False):
            arrays = [*map(_text, group.attrs["weight_names"])]
            variables = [*layer.trainable_weights, *layer.non_trainable_weights]
            for array, variable in itertools.zip_longest(arrays, variables):
                arrived = None if array is None else group[array].shape
                expected = None if variable is None else tuple(variable.shape)
                if arrived != expected:
                    raise misfit(
                        told.name, name, array or f"{key}/{variable.name}", arrived=arrived, expected=expected
                    )


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _own_shapes(backbone: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each array that a file of the network's weights holds, by its path there."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own.weights.h5"
        backbone.save_weights(own)
        return _shapes(own)


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
    """Refuse an HDF5 file that reaches outside itself or hold anything but numbers."""

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


def _from_npz(name: str, path: Path, make: Make) -> tuple[Any, InitialWeights]:
    with _readable(path, ".npz"), np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files if not key.endswith("_name")}
    half = np.full(3, 0.5)
    mean, std = (triple(arrays.get(key, half).tolist(), path) for key in ("mean", "std"))
    initial = InitialWeights(named(path), mean, std)
    backbone = make(name)
    if any(weight_exchange.KEY.fullmatch(key) for key in arrays):
        weight_exchange.fill(backbone, arrays, name=name, told=path.name)
        return backbone, initial
    kernels = sorted(key for key in arrays if FOLDED.fullmatch(key))
    try:
        places = _convolutions_with_norms(backbone)
    except TrainingError as error:
        raise TrainingError(f"{path.name} does not fit {name}: {error}") from None
    for key, (convolution, _) in zip(kernels, places, strict=False):
        height, width, inputs, out = convolution.kernel.shape  # of a depthwise one: channels, 1
        if arrays[key].shape != (out, height, width, inputs):
            raise misfit(
                path.name, name, key, arrived=arrays[key].shape, expected=(out, height, width, inputs)
            )
    if len(kernels) != len(places):
        raise TrainingError(
            f"{path.name} does not fit {name}: it holds {len(kernels)} convolutions, {name} has {len(places)}"
        )
    for key, (convolution, norm) in zip(kernels, places, strict=True):
        # (1, h, w, channels) -> (h, w, channels, 1), and (out, h, w, in) -> (h, w, in, out)
        kernel = arrays[key].transpose((1, 2, 3, 0))
        bias_key = key.replace("_kernel", "_bias")
        if bias_key not in arrays:
            raise TrainingError(f"{path.name} lacks {bias_key}; each kernel needs its bias")
        convolution.kernel.assign(kernel)
        norm.moving_mean.assign(np.zeros(norm.moving_mean.shape))
        norm.moving_variance.assign(np.ones(norm.moving_variance.shape))
        norm.gamma.assign(np.full(norm.gamma.shape, (1 + norm.epsilon) ** 0.5))
        norm.beta.assign(arrays[bias_key])
    return backbone, dataclasses.replace(initial, folded=True)


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


def unfold(backbone: Any, images: np.ndarray, initial: InitialWeights) -> None:
    """Give each batch norm the statistics of its input, without changing what the network computes.

    With measured mean m and variance v of the input, gamma = sqrt(v + eps) and beta = bias + m: the layer still adds
    the bias, and batch statistics during training agree with the running ones. What is unfolded stays as it is.

    Args:
        backbone: Of folded weights.
        images: uint8 (n, size, size).
        initial: Its mean and deviation are the input's.
    """
    norms = [norm for _, norm in _convolutions_with_norms(backbone)]
    if any(norm.moving_mean.numpy().any() for norm in norms):
        return
    inputs = keras.Model(backbone.inputs, [norm.input for norm in norms])
    mean, std = tensorflow.constant(initial.mean), tensorflow.constant(initial.std)

    signature = [tensorflow.TensorSpec((None, *images.shape[1:]), tensorflow.uint8)]

    @tensorflow.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def moments(block: Any) -> list[tuple[Any, Any]]:
        grey = tensorflow.cast(block, tensorflow.float32)[..., None] / 255
        activations = inputs((grey - mean) / std, training=False)
        return [
            tensorflow.nn.moments(tensorflow.cast(values, tensorflow.float32), (0, 1, 2))
            for values in activations
        ]

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
    """Say in words that a file is damaged."""
    try:
        yield
    except (ValueError, OSError, BadZipFile, KeyError, TypeError, StopIteration) as error:
        raise TrainingError(f"{path.name} is not a readable {kind} file of plain arrays: {error}") from None
