"""An architecture's name -> a PyTorch backbone that ends at its feature map (batch, channels, h, w)."""

import contextlib
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from hilum.errors import TrainingError, UsageError

LIBRARY = "timm."  # before the library's names of weights in a FeatureMap's


@dataclass(frozen=True)
class Layer:
    """One layer of a backbone, the unit that is frozen or given a learning rate of its own.

    Attributes:
        name: Its path in the backbone.
        module: Whose parameters and statistics they are. Most have no children; the one that holds position
            embeddings is the whole network.
        parameters: Its own, without its children's; none where a norm has statistics only.
    """

    name: str
    module: nn.Module
    parameters: tuple[nn.Parameter, ...]


def make_backbone(
    name: str,
    *,
    pretrained: bool | Mapping[str, Tensor] = False,
    same_padding: bool = False,
    size: int | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """Make a backbone that ends at its feature map.

    Args:
        name: One of `OWN`, or timm's name, with or without its tag.
        pretrained: Whether to fetch timm's weights for that tag; or such weights, under timm's names, which are
            brought to this size (position embeddings are resampled).
        same_padding: TensorFlow's padding, for weights that were trained with it; batch norm's eps is then 1e-3.
        size: Side of the images in pixels; by default the one that the architecture was made for.
        dropout: Of whole channels after each block; for `custom_cnn` alone.

    Raises:
        UsageError: timm has no such model, it gives no feature map, or it cannot read images of that size.
        TrainingError: The architecture cannot have that padding.
    """
    if name in OWN:
        return OWN[name](dropout=dropout)
    config = timm_config(name)
    size = size or config.input_size[-1]
    options: dict[str, Any] = {"num_classes": 0}
    if config.fixed_input_size and size != config.input_size[-1]:
        options["img_size"] = size
    if same_padding:
        options |= {"pad_type": "same", "bn_eps": 1e-3}
    if isinstance(pretrained, Mapping):
        options["pretrained_cfg_overlay"] = {"state_dict": dict(pretrained)}
    try:
        model = timm.create_model(name, pretrained=bool(pretrained), **options)
    except Exception as error:  # timm's own are of any type
        if pretrained:
            raise
        if same_padding and isinstance(error, TypeError):
            raise _no_same_padding(name) from None
        raise _cannot_read(name, size, own=config.input_size[-1], error=error) from error
    if same_padding and not any(isinstance(module, Conv2dSame) for module in model.modules()):
        raise _no_same_padding(name)
    model.pretrained_cfg = model.default_cfg = config.to_dict()  # timm keeps weights that it was given there
    return FeatureMap(model, name=name, size=size)


def timm_config(name: str) -> Any:
    """The record that timm keeps of a pinned tag: input size, normalisation, licence.

    Raises:
        UsageError: timm has no such model or no such tag; the message names the nearest.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UsageError(
            f"timm has no model {architecture!r}; nearest: {_nearest(architecture, timm.list_models())}"
        )
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UsageError(
            f"timm has no weights {tag!r} for {architecture}; there are: {', '.join(tags) or 'none'}"
        )
    return timm.get_pretrained_cfg(name)


def layers(backbone: nn.Module) -> tuple[Layer, ...]:
    """The layers of a backbone from the image to the feature map, each parameter in exactly one.

    Batch norms are layers of their own. The order is that in which the network registers them.
    """
    found: list[Layer] = []
    seen: set[nn.Parameter] = set()
    for name, module in backbone.named_modules():
        own = tuple(parameter for parameter in module.parameters(recurse=False) if parameter not in seen)
        seen.update(own)
        if own or isinstance(module, nn.modules.batchnorm._BatchNorm):
            found.append(Layer(name, module, own))
    return tuple(found)


class FeatureMap(nn.Module):
    """A timm model up to the map that its head pools, in one form whatever the library's.

    The library's output may be channels first, channels last or a row of tokens; class and register tokens are
    dropped. A norm that the library applies to the pooled features is applied to each place instead. Whatever else
    lies behind its features (hidden layers, attention pools) is taken out.

    Attributes:
        timm: The library's model, so that weights keep the library's names.
        left_out: Names of what was taken out, classifier included; a file of weights may hold them.
    """

    def __init__(self, model: Any, *, name: str, size: int) -> None:
        super().__init__()
        self.timm: Any = model  # nn.Module, with what timm's models have besides
        features, ran, self._norm = _dry_run(model, name=name, size=size)
        self._tokens_dropped = int(getattr(model, "num_prefix_tokens", 0))
        self._layout = _layout(features, channels=model.num_features, dropped=self._tokens_dropped)
        if not self._layout:
            raise UsageError(
                f"{name} gives {_describe(features)}, not a feature map; choose an architecture that gives one"
            )
        self.left_out = tuple(_take_out(model, ran | {self._norm})) + _classifiers(model)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 3, size, size) -> (batch, channels, h, w)."""
        features = self.timm.forward_features(image)
        if self._layout == "tokens":
            features = features[:, self._tokens_dropped :]
        if self._norm:
            features = self.timm.get_submodule(self._norm)(features)
        return LAYOUTS[self._layout](features)


class CustomCNN(nn.Module):
    """Four blocks of 32, 64, 128 and 256 filters: convolution, batch norm, ReLU, max pooling, dropout of channels."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 3
        for filters in (32, 64, 128, 256):
            blocks += [
                nn.Conv2d(channels, filters, 3, padding=1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            channels = filters
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 3, size, size) -> (batch, 256, size / 16, size / 16)."""
        features = image
        for block in self.blocks:
            features = block(features)
            if isinstance(block, nn.MaxPool2d):
                features = self.dropout(features)
        return features


OWN: dict[str, Callable[..., nn.Module]] = {"custom_cnn": CustomCNN}
"""Name -> a network of Hilum's own: (batch, 3, size, size) -> (batch, channels, h, w), made with `dropout`."""


def _grid(tokens: Tensor) -> Tensor:
    """(batch, h x w, channels) -> (batch, channels, h, w), h = w."""
    batch, places, channels = tokens.shape
    side = math.isqrt(places)
    return tokens.transpose(1, 2).reshape(batch, channels, side, side)


# The library's layout of features -> how they become (batch, channels, h, w).
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels first": lambda features: features,
    "channels last": lambda features: features.permute(0, 3, 1, 2),
    "tokens": _grid,
}


def _layout(features: object, *, channels: int, dropped: int) -> str:
    """Which of LAYOUTS it is; nothing if none."""
    shape = tuple(features.shape) if isinstance(features, Tensor) else ()
    if len(shape) == 4 and shape[1] == channels:
        return "channels first"
    if len(shape) == 4 and shape[3] == channels:
        return "channels last"
    places = shape[1] - dropped if len(shape) == 3 and shape[2] == channels else 0
    return "tokens" if places > 1 and math.isqrt(places) ** 2 == places else ""


def _describe(features: object) -> str:
    if isinstance(features, Tensor):
        return f"an output of shape {tuple(features.shape)}"
    return f"a {type(features).__name__}"


def _dry_run(model: Any, *, name: str, size: int) -> tuple[object, set[str], str]:
    """Run a black image.

    Returns:
        The library's features; the names of the modules that ran for them; and the name of the norm with which the
        library's head begins once it has pooled, empty if it begins with something else.
    """
    ran: list[str] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, _output, path=path: ran.append(path))
        for path, module in model.named_modules()
    ]
    training = model.training
    try:
        with torch.inference_mode():
            features = model.eval().forward_features(torch.zeros(1, 3, size, size))
            num_ran = len(ran)
            with contextlib.suppress(NotImplementedError):  # some have no head
                model.forward_head(features, pre_logits=True)
    except Exception as error:  # timm's own are of any type
        raise _cannot_read(name, size, own=model.pretrained_cfg["input_size"][-1], error=error) from error
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return features, set(ran[:num_ran]), _first_norm(model, ran[num_ran:])


def _first_norm(model: nn.Module, head: Iterable[str]) -> str:
    """The norm with which a head begins; empty if other weights come first. Pools and dropout have none."""
    for path in head:
        part = model.get_submodule(path)
        is_norm = "norm" in type(part).__name__.lower()
        if any(True for _ in part.parameters(recurse=False)) or (is_norm and not [*part.children()]):
            return path if is_norm else ""
    return ""


def _take_out(module: nn.Module, needed: set[str], prefix: str = "") -> Iterator[str]:
    """Replace the parts that hold parameters and of which nothing is needed; give their paths.

    What lies inside a module that ran is kept: some use the weights of a part without calling it.
    """
    for name, child in list(module.named_children()):
        path = prefix + name
        if path in needed:
            continue
        if any(other.startswith(f"{path}.") for other in needed):
            yield from _take_out(child, needed, f"{path}.")
        elif any(True for _ in child.parameters()):
            setattr(module, name, nn.Identity())
            yield path


def _classifiers(model: Any) -> tuple[str, ...]:
    names = model.pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _nearest(name: str, known: Iterable[str]) -> str:
    return (
        ", ".join(difflib.get_close_matches(name, known, n=5, cutoff=0.4)) or "none; see timm.list_models()"
    )


def _cannot_read(name: str, size: int, *, own: int, error: Exception) -> UsageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    return UsageError(
        f"{name} cannot be had for images of {size} x {size} pixels ({reason}); it was made for data.size={own}"
    )


def _no_same_padding(name: str) -> TrainingError:
    return TrainingError(
        f"weights that were trained with TensorFlow's padding do not fit {name}, which does not have it"
    )
