"""A PyTorch backbone <-> arrays in the layout that carries weights from one engine to the other.

Keys count the layers in the order in which they run: `NNN_convolution_kernel` (out, in, h, w; in = 1 for a depthwise
one), `NNN_convolution_bias` (out,), `NNN_norm_gamma`, `_beta`, `_mean`, `_variance` (channels,), `_epsilon` (). Beside
them stand `padding` (`same`, TensorFlow's, or `symmetric`) and, by whoever writes the file, `mean` and `std` (3,), the
normalisation of the input. It carries networks of convolutions and batch norms that run one after the other: DenseNet,
VGG, and MobileNetV2 with TensorFlow's padding.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from timm.layers import Conv2dSame
from torch import nn

from hilum.engines.weight_sources import misfit
from hilum.errors import TrainingError

KEY = re.compile(r"\d{3}_(convolution|norm)_\w+")
STATISTICS = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
Norm = nn.BatchNorm2d | nn.SyncBatchNorm


def arrays(backbone: nn.Module, size: int) -> dict[str, np.ndarray]:
    """Take the weights out.

    Args:
        backbone: With a layer of another kind it cannot be carried.
        size: Side of the images in pixels.
    """
    same = any(isinstance(module, Conv2dSame) for module in backbone.modules())
    found = {"padding": np.array("same" if same else "symmetric")}
    for index, layer in enumerate(_in_order(backbone, size)):
        if isinstance(layer, Norm):
            for role, attribute in STATISTICS.items():
                found[f"{index:03d}_norm_{role}"] = getattr(layer, attribute).detach().cpu().numpy()
            found[f"{index:03d}_norm_epsilon"] = np.array(layer.eps)
            continue
        found[f"{index:03d}_convolution_kernel"] = layer.weight.detach().cpu().contiguous().numpy()
        if layer.bias is not None:
            found[f"{index:03d}_convolution_bias"] = layer.bias.detach().cpu().numpy()
    return found


def fill(backbone: nn.Module, given: Mapping[str, np.ndarray], size: int, *, name: str, told: str) -> None:
    """Put weights in.

    Where the network's epsilon is another than the file's, the variance takes up the difference: the function is the
    same.

    Args:
        backbone: Whose weights are replaced.
        given: As `arrays` gives them; other keys are left out.
        size: Side of the images in pixels.
        name: The architecture, for a message.
        told: The file, for a message.

    Raises:
        TrainingError: They do not fit; the message names the first that does not.
    """
    left = {key for key in given if KEY.fullmatch(key)}

    def take(key: str, shape: tuple[int, ...]) -> torch.Tensor:
        left.discard(key)
        if key not in given or given[key].shape != shape:
            arrived = given[key].shape if key in given else None
            raise misfit(told, name, key, arrived=arrived, expected=shape)
        return torch.from_numpy(np.array(given[key]))

    with torch.no_grad():
        for index, layer in enumerate(_in_order(backbone, size)):
            if isinstance(layer, Norm):
                shape = tuple(layer.weight.shape)
                found = {role: take(f"{index:03d}_norm_{role}", shape) for role in STATISTICS}
                epsilon = float(take(f"{index:03d}_norm_epsilon", ()))
                found["variance"] = (found["variance"] + (epsilon - layer.eps)).clamp(min=0)
                for role, attribute in STATISTICS.items():
                    getattr(layer, attribute).copy_(found[role])
                continue
            layer.weight.copy_(take(f"{index:03d}_convolution_kernel", tuple(layer.weight.shape)))
            if layer.bias is not None:
                layer.bias.copy_(take(f"{index:03d}_convolution_bias", tuple(layer.bias.shape)))
    if left:
        raise misfit(told, name, min(left), arrived=given[min(left)].shape, expected=None)


def _in_order(backbone: nn.Module, size: int) -> list[Any]:
    """The layers that hold weights, in the order in which they run."""
    ran: list[Any] = []
    own = [module for module in backbone.modules() if any(True for _ in module.parameters(recurse=False))]
    hooks = [
        module.register_forward_hook(lambda module, _inputs, _output: ran.append(module)) for module in own
    ]
    training = backbone.training
    with torch.inference_mode():
        backbone.eval()(torch.zeros(1, 3, size, size))
    backbone.train(training)
    for hook in hooks:
        hook.remove()
    for module in own:
        if not isinstance(module, nn.Conv2d | Norm) or ran.count(module) != 1:
            raise TrainingError(
                "weights in the neutral layout are of convolutions and batch norms that run once, "
                f"not of {type(module).__name__}"
            )
    return ran
