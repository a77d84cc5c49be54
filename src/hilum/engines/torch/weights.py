"""The `weights` of a recipe -> a backbone that holds them, with a record of where they came from.

Three kinds:

`imagenet`
    The hub weights of the pinned timm tag; the input normalisation is that tag's own.
`none`
    Random; the input is centred and scaled by constants.
A path to a file
    `.safetensors`: a state dict by timm's names (a bundle's `weights/model.safetensors` too; its head is left out,
    and so is what timm keeps behind the feature map). Position embeddings of another image size are resampled. Text
    metadata `mean`, `std` (three numbers, comma separated) and `padding` (`same` or `symmetric`) may say what
    the weights expect; without them the normalisation is that of the pinned timm tag.

    `.npz`: convolutions in the order in which the network runs them, as converters from TensorFlow Lite write them:
    `NN_CONV_2D_kernel` (out, height, width, in), `NN_DEPTHWISE_CONV_2D_kernel` (1, height, width, channels), each
    with `NN_..._bias` (out,), NN counting from 00. Batch norm is folded into kernels and biases, padding is
    TensorFlow's, and the input is scaled to [-1, 1] unless arrays `mean` and `std` (3,) say otherwise. Dense layers
    are left out. Or arrays in the layout of `weight_exchange.py`, which carries weights from one engine to the other.
    Folded batch norm is unfolded again with statistics measured on training images: the function stays the
    same, and training starts from sane statistics.
"""

import contextlib
import dataclasses
import functools
import logging
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from huggingface_hub import constants, get_session
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hilum.engines.contract import InitialWeights
from hilum.engines.quiet import quiet_loggers
from hilum.engines.torch import weight_exchange
from hilum.engines.torch.backbones import LIBRARY, OWN, make_backbone, timm_config
from hilum.engines.weight_sources import RANDOM, check_weights, misfit, named, triple, unfetched
from hilum.errors import HilumError, TrainingError

PATIENCE = 10.0
"""Seconds in which the hub has to answer."""

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)

Make = Callable[..., nn.Module]


def initialise(
    name: str, source: str, *, make: Make, images: Tensor, measure: bool = True
) -> tuple[nn.Module, InitialWeights]:
    """Make a backbone and loads its weights.

    Args:
        name: timm's name, with its tag or without, or one of `backbones.OWN`.
        source: `imagenet`, `none` or a path.
        make: Makes the bare backbone: `backbones.make_backbone`.
        images: Float (n, size, size) in [0, 1], for unfolding batch norm.
        measure: Whether folded batch norm is unfolded here; else `unfold` can do it later, and `folded` says so.

    Raises:
        TrainingError: The weights cannot be fetched, read, or do not fit the architecture.
    """
    check_initial_weights(name, source)
    if source == "none":
        return make(name), RANDOM
    if source == "imagenet":
        return _from_hub(name, make)
    path = Path(source).expanduser()
    if path.suffix == ".safetensors":
        return _from_safetensors(name, path, make)
    backbone, initial = _from_npz(name, path, make, images)
    if initial.folded and measure:
        unfold(backbone, images, initial)
        initial = dataclasses.replace(initial, folded=False)
    return backbone, initial


def check_initial_weights(name: str, source: str) -> None:
    """Refuse what needs no look at the weights: a name that timm does not know, weights that nobody has.

    Raises:
        UsageError: timm has no such model.
        TrainingError: There are no such weights.
    """
    check_weights(source, engine="torch", architecture=name)
    if name not in OWN and not timm_config(name).has_weights and source == "imagenet":
        raise TrainingError(
            f"timm has no weights for {name}; give model.weights the path of a .safetensors or .npz file, or "
            "model.weights=none"
        )


@functools.cache
def fetch(name: str) -> None:
    """Fetch the hub's weights, once in a process, so that it is told before long work where they cannot be had.

    Raises:
        TrainingError: They are not on this machine, and no hub can be reached.
    """
    _from_hub(name, make_backbone)


def _from_hub(name: str, make: Make) -> tuple[nn.Module, InitialWeights]:
    config = timm_config(name)
    try:
        with _quick_and_quiet():
            backbone = make(name, pretrained=True)
    except HilumError:
        raise
    except Exception as error:  # the hub's client raises some dozen unrelated types
        make(name)  # where the architecture itself cannot be had, it says so
        raise unfetched(name, error, files=".safetensors or .npz") from error
    pinned = f"{config.architecture}.{config.tag}"
    return backbone, InitialWeights(
        f"timm {pinned}",
        config.mean,
        config.std,
        citation=_citation(pinned),
        licence=config.license or "unknown",
    )


@contextlib.contextmanager
def _quick_and_quiet() -> Iterator[None]:
    """Where the hub cannot be reached, let its client look into its cache alone, and say nothing.

    It would try each file six times, for half a minute, and tell of each try.
    """
    offline = constants.HF_HUB_OFFLINE
    with quiet_loggers("huggingface_hub", "timm", level=logging.CRITICAL):
        try:
            constants.HF_HUB_OFFLINE = offline or not _reachable()
            yield
        finally:
            constants.HF_HUB_OFFLINE = offline


def _reachable() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # of its transport, whichever that is
        return False
    return True


def _from_safetensors(name: str, path: Path, make: Make) -> tuple[nn.Module, InitialWeights]:
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path.name} is not a readable .safetensors file: {error}") from None
    make = partial(make, same_padding=notes.get("padding") == "same")
    backbone = _load(name, path, _of_backbone(tensors), make)
    config = RANDOM if name in OWN else timm_config(name)
    mean = triple(notes["mean"], path) if "mean" in notes else config.mean
    std = triple(notes["std"], path) if "std" in notes else config.std
    return backbone, InitialWeights(
        named(path), mean, std, notes.get("citation", ""), notes.get("licence", "unknown")
    )


def _of_backbone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A bundle's tensors without its head, a plain state dict as it is; both under the library's names."""
    ours = {
        key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")
    }
    return {key.removeprefix(LIBRARY): value for key, value in (ours or tensors).items()}


def _load(name: str, path: Path, tensors: dict[str, Tensor], make: Make) -> nn.Module:
    """Make a backbone that holds the tensors."""
    backbone = make(name)
    expected = {key.removeprefix(LIBRARY): value for key, value in backbone.state_dict().items()}
    left_out = tuple(f"{part}." for part in getattr(backbone, "left_out", ()))
    extra = [key for key in tensors if key not in expected and not key.startswith(left_out)]
    missing = [key for key in expected if key not in tensors and not key.endswith("num_batches_tracked")]
    misshapen = [key for key in expected if key in tensors and tensors[key].shape != expected[key].shape]
    if misshapen and not (extra or missing) and name not in OWN and timm_config(name).fixed_input_size:
        # Position embeddings may be of another image size. timm resamples them, and raises anything if it is not that.
        with contextlib.suppress(Exception):
            return make(name, pretrained=tensors)
    # In the network's order: that of a file is its writer's.
    for key in (*(key for key in expected if key in misshapen or key in missing), *extra):
        shapes = (tensors.get(key), expected.get(key))
        arrived, wanted = (None if tensor is None else tensor.shape for tensor in shapes)
        raise misfit(path.name, name, key, arrived=arrived, expected=wanted)
    own = backbone.state_dict()
    backbone.load_state_dict(
        {key: tensors.get(key.removeprefix(LIBRARY), value) for key, value in own.items()}
    )
    return backbone


def _from_npz(name: str, path: Path, make: Make, images: Tensor) -> tuple[nn.Module, InitialWeights]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files if not key.endswith("_name")}
    except (ValueError, OSError, BadZipFile, KeyError) as error:
        raise TrainingError(f"{path.name} is not a readable .npz file of plain arrays: {error}") from None
    half = np.full(3, 0.5)
    mean, std = (triple(arrays.get(key, half).tolist(), path) for key in ("mean", "std"))
    initial = InitialWeights(named(path), mean, std)
    kernels = sorted(key for key in arrays if re.fullmatch(r"\d+_(DEPTHWISE_)?CONV_2D_kernel", key))
    if any(weight_exchange.KEY.fullmatch(key) for key in arrays):
        backbone = make(name, same_padding=str(arrays.get("padding")) == "same")
        weight_exchange.fill(backbone, arrays, images.shape[-1], name=name, told=path.name)
        return backbone, initial
    try:
        backbone = make(name, same_padding=True).eval()
        places = _convolutions_with_norms(backbone, images.shape[-1])
    except TrainingError as error:
        own = [module for module in make(name).modules() if isinstance(module, nn.Conv2d)]
        _check_shapes(name, path, {key: arrays[key] for key in kernels}, own)
        raise TrainingError(f"{path.name} does not fit {name}: {error}") from None
    _check_shapes(
        name, path, {key: arrays[key] for key in kernels}, [convolution for convolution, _ in places]
    )
    if len(kernels) != len(places):
        raise TrainingError(
            f"{path.name} does not fit {name}: it holds {len(kernels)} convolutions, {name} has {len(places)}"
        )
    for key, (convolution, norm) in zip(kernels, places, strict=True):
        kernel = arrays[key]
        # (1, h, w, channels) -> (channels, 1, h, w), and (out, h, w, in) -> (out, in, h, w)
        kernel = kernel.transpose(3, 0, 1, 2) if "DEPTHWISE" in key else kernel.transpose(0, 3, 1, 2)
        bias_key = key.replace("_kernel", "_bias")
        if bias_key not in arrays:
            raise TrainingError(f"{path.name} lacks {bias_key}; each kernel needs its bias")
        bias = torch.from_numpy(np.ascontiguousarray(arrays[bias_key]))
        with torch.no_grad():
            convolution.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
            norm.running_mean.zero_()
            norm.running_var.fill_(1)
            norm.weight.fill_((1 + norm.eps) ** 0.5)
            norm.bias.copy_(bias)
    return backbone, dataclasses.replace(initial, folded=True)


def _check_shapes(
    name: str, path: Path, kernels: dict[str, np.ndarray], convolutions: list[nn.Conv2d]
) -> None:
    """Refuse kernels of another network by the first whose shape differs."""
    for (key, kernel), convolution in zip(kernels.items(), convolutions, strict=False):
        out, inputs, height, width = convolution.weight.shape
        fitting = (1, height, width, out) if convolution.groups > 1 else (out, height, width, inputs)
        if kernel.shape != fitting:
            raise misfit(path.name, name, key, arrived=kernel.shape, expected=fitting)


def _convolutions_with_norms(backbone: nn.Module, size: int) -> list[tuple[nn.Conv2d, Any]]:
    """The convolutions in the order in which they run, each with the batch norm that follows it."""
    ran: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, _inputs, _output: ran.append(module))
        for module in backbone.modules()
        if isinstance(module, (nn.Conv2d, *NORMS))
    ]
    with torch.inference_mode():
        backbone(torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device))
    for hook in hooks:
        hook.remove()
    pairs = [
        (first, second)
        for first, second in zip(ran, [*ran[1:], None], strict=True)
        if isinstance(first, nn.Conv2d) and isinstance(second, NORMS)
    ]
    if 2 * len(pairs) != len(ran):
        raise TrainingError(
            "folded .npz weights need a network in which batch norm follows each convolution, as in MobileNetV2; "
            "use a .safetensors file"
        )
    return pairs


def unfold(backbone: nn.Module, images: Tensor, initial: InitialWeights) -> None:
    """Give each batch norm the statistics of its input, without changing what the network computes.

    With measured mean m and variance v of the input, gamma = sqrt(v + eps) and beta = bias + m: the layer still adds
    the bias, and batch statistics during training agree with the running ones. What is unfolded stays as it is.

    Args:
        backbone: In evaluation, of folded weights.
        images: Float (n, size, size) in [0, 1].
        initial: Its mean and deviation are the input's.
    """
    norms = [norm for _, norm in _convolutions_with_norms(backbone, images.shape[-1])]
    if any(norm.running_mean.any() for norm in norms):
        return
    # Each block's mean and mean square, weighted by its images; summed in double.
    count = 0
    means, squares = ({norm: torch.zeros_like(norm.bias).double() for norm in norms} for _ in range(2))

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance, average = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        means[norm] += len(inputs[0]) * average.double()
        squares[norm] += len(inputs[0]) * (variance.double() + average.double().square())

    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    mean, std = (
        torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (initial.mean, initial.std)
    )
    with torch.inference_mode():
        for block in torch.split(images, 32):
            backbone((block.unsqueeze(1) - mean) / std)
            count += len(block)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for norm in norms:
            average = means[norm] / count
            variance = (squares[norm] / count - average.square()).clamp(min=1e-6)
            norm.running_mean.copy_(average)
            norm.running_var.copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.add_(average.to(norm.bias.dtype))


def _citation(name: str) -> str:
    images = " (ImageNet, Russakovsky et al. 2015)" if re.search(r"in(1|12|21|22)k", name) else ""
    return f"timm, PyTorch Image Models, weights {name}{images}"
