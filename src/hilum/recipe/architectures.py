"""Names of network architectures -> what each is and which engine has it under which name; no framework here."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hilum.errors import UsageError, nearest

ENGINES = ("torch", "keras")
TIMM = "timm:"


@dataclass(frozen=True)
class Architecture:
    """One backbone that a recipe can name.

    Attributes:
        name: The name in recipes, reports and bundles.
        input_size: Side in pixels at which it was designed; recipes may choose another.
        paper: Where it was published.
        engines: Engine -> that engine's name for it, with the pinned tag of its hub weights where it has some.
        pretrained: Whether a hub has ImageNet weights for it.
    """

    name: str
    input_size: int
    paper: str
    engines: Mapping[str, str] = field(default_factory=dict)
    pretrained: bool = True


DENSENET = "Huang et al., Densely Connected Convolutional Networks, CVPR 2017"
RESNET = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture("densenet121", 224, DENSENET, {"torch": "densenet121.tv_in1k", "keras": "DenseNet121"}),
        Architecture("densenet169", 224, DENSENET, {"torch": "densenet169.tv_in1k", "keras": "DenseNet169"}),
        Architecture("densenet201", 224, DENSENET, {"torch": "densenet201.tv_in1k", "keras": "DenseNet201"}),
        Architecture(
            "mobilenetv2",
            224,
            "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018",
            {"torch": "mobilenetv2_100.ra_in1k", "keras": "MobileNetV2"},
        ),
        Architecture(
            "vgg16",
            224,
            "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015",
            {"torch": "vgg16.tv_in1k", "keras": "VGG16"},
        ),
        Architecture("resnet18", 224, RESNET, {"torch": "resnet18.tv_in1k"}),
        Architecture("resnet50", 224, RESNET, {"torch": "resnet50.tv_in1k", "keras": "ResNet50"}),
        Architecture(
            "efficientnet_b0",
            224,
            "Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019",
            {"torch": "efficientnet_b0.ra_in1k", "keras": "EfficientNetB0"},
        ),
        Architecture(
            "convnext_tiny",
            224,
            "Liu et al., A ConvNet for the 2020s, CVPR 2022",
            {"torch": "convnext_tiny.fb_in1k", "keras": "ConvNeXtTiny"},
        ),
        Architecture(
            "vit_small",
            224,
            "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; Steiner et al., How to train your ViT?, "
            "TMLR 2022",
            {"torch": "vit_small_patch16_224.augreg_in21k_ft_in1k"},
        ),
        Architecture(
            "custom_cnn",
            128,
            "Four blocks of 32, 64, 128 and 256 filters, each with batch normalisation and max pooling",
            {"torch": "custom_cnn", "keras": "custom_cnn"},
            pretrained=False,
        ),
    )
}


def architecture(name: str, engine: str | None = None) -> Architecture:
    """Look an architecture up by name.

    Args:
        name: As a recipe spells it: one of ARCHITECTURES, or `timm:NAME` with or without timm's tag, for example
            `timm:regnety_002` or `timm:regnety_002.pycls_in1k`. Whether timm has that model only its engine knows.
        engine: If given, the engine that must have it.

    Raises:
        UsageError: Unknown, or not offered by that engine; the message lists what is, nearest first.
    """
    if name.startswith(TIMM):
        model = _of_timm(name)
        if engine in (None, *model.engines):
            return model
    offered = {n: a for n, a in ARCHITECTURES.items() if engine is None or engine in a.engines}
    if name not in offered:
        if engine and (name in ARCHITECTURES or name.startswith(TIMM)):
            raise UsageError(
                f"the {engine} engine has no architecture {name!r}; it has: {nearest(name, offered)}"
            )
        raise UsageError(
            f"architecture {name!r} is not one of Hilum's; there is {TIMM}NAME for a model of timm's, and: "
            f"{nearest(name, offered)}"
        )
    return offered[name]


def names_another(recipe: str, own: Iterable[str]) -> bool:
    """Return whether a recipe's name tells of a network that is none of `own`, nor a part of their names."""
    name, ours = recipe.replace("_", "-"), [each.replace("_", "-") for each in own]
    others = [each.replace("_", "-") for each in ARCHITECTURES]
    return any(
        other in name for other in others if other not in ours and not any(other in one for one in ours)
    )


def title(recipe: str, network: str) -> str:
    """Return a recipe's name so that it tells of no other network than its own.

    Recipes are called after networks, which `--set` may have changed.

    Args:
        recipe: Its name.
        network: The name of its architecture.

    Example:
        >>> title("demo", "custom_cnn")
        'demo (custom_cnn)'
        >>> title("kermany-densenet121", "custom_cnn")
        'kermany-densenet121, changed: model.architecture = custom_cnn'
    """
    if names_another(recipe, [network]):
        return f"{recipe}, changed: model.architecture = {network}"
    return recipe if network.replace("_", "-") in recipe.replace("_", "-") else f"{recipe} ({network})"


def _of_timm(name: str) -> Architecture:
    model = name.removeprefix(TIMM)
    if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_-]+)?", model):
        raise UsageError(
            f"architecture {name!r} does not name a model of timm's; "
            f"it should look like {TIMM}regnety_002 or {TIMM}regnety_002.pycls_in1k"
        )
    return Architecture(name, 224, "Wightman, PyTorch Image Models (timm), 2019", {"torch": model})
