"""Names of network architectures -> what each is and which engine has it under which name; no framework here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from hilum.errors import UsageError, nearest

ENGINES = ("torch",)


@dataclass(frozen=True)
class Architecture:
    """One backbone that a recipe can name.

    Attributes:
        name: The name in recipes, reports and bundles.
        input_size: Side in pixels at which it was designed; recipes may choose another.
        paper: Where it was published.
        engines: Engine -> that engine's name for it, with the pinned tag of its hub weights where it has some.
    """

    name: str
    input_size: int
    paper: str
    engines: Mapping[str, str] = field(default_factory=dict)


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        architecture.name: architecture
        for architecture in (
            Architecture(
                "densenet121",
                224,
                "Huang et al., Densely Connected Convolutional Networks, CVPR 2017",
                {"torch": "densenet121.tv_in1k"},
            ),
            Architecture(
                "mobilenetv2_100",
                224,
                "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018",
                {"torch": "mobilenetv2_100.ra_in1k"},
            ),
            Architecture(
                "resnet18",
                224,
                "He et al., Deep Residual Learning for Image Recognition, CVPR 2016",
                {"torch": "resnet18.tv_in1k"},
            ),
            Architecture(
                "custom_cnn",
                128,
                "Four blocks of 32, 64, 128 and 256 filters, each with batch normalisation and max pooling",
                {"torch": "custom_cnn"},
            ),
        )
    }
)


def architecture(name: str, engine: str | None = None) -> Architecture:
    """Looks an architecture up by name.

    Args:
        name: As a recipe spells it.
        engine: If given, the engine that must have it.

    Raises:
        UsageError: Unknown, or not offered by that engine; the message lists what is, nearest first.
    """
    offered = {n: a for n, a in ARCHITECTURES.items() if engine is None or engine in a.engines}
    if name not in offered:
        whose = f"the {engine} engine has" if engine and name in ARCHITECTURES else "known are"
        raise UsageError(f"architecture {name!r} is not one of Hilum's; {whose}: {nearest(name, offered)}")
    return offered[name]
