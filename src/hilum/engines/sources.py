"""What every engine says alike of where weights come from, and of the input that they expect."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from hilum.engines import InitialWeights
from hilum.errors import TrainingError

RANDOM = InitialWeights("random", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), licence="none")


SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "torch": (".safetensors", ".npz"),
    "keras": (".weights.h5", ".h5", ".keras", ".npz"),
}
"""Engine -> the files that it reads weights from."""
NO_HUB = "custom_cnn"
"""The architecture that no hub has weights for."""


def check_weights(source: str, *, engine: str, architecture: str) -> None:
    """Refuses initial weights that cannot be had, as far as no framework is needed to tell.

    Args:
        source: `imagenet`, `none` or a path.
        engine: That is to read them.
        architecture: That they are for.

    Raises:
        TrainingError: The file is not there, not of a kind that the engine reads, or no hub has such weights.
    """
    if source == "imagenet" and architecture == NO_HUB:
        raise TrainingError(f"{architecture} has no ImageNet weights; set model.weights=none")
    if source in ("imagenet", "none"):
        return
    path = Path(source).expanduser()
    if not path.is_file():
        raise TrainingError(
            f"model.weights = {source!r} is neither 'imagenet', 'none' nor a file that exists; give one of the three"
        )
    if not path.name.endswith(SUFFIXES[engine]):
        *suffixes, last = SUFFIXES[engine]
        raise TrainingError(
            f"{path.name}: the {engine} engine reads weights from {', '.join(suffixes)} and {last} files, "
            f"not {path.suffix!r}"
        )


def named(path: Path) -> str:
    """A file's name and the beginning of its hash."""
    return f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def triple(values: str | Sequence[float], path: Path) -> tuple[float, float, float]:
    """Three numbers from metadata (comma separated) or from an array.

    Raises:
        TrainingError: They are not three numbers.
    """
    try:
        first, second, third = map(float, values.split(",") if isinstance(values, str) else values)
    except (TypeError, ValueError):
        raise TrainingError(f"{path.name}: its mean or std is {values!r}; three numbers expected") from None
    return first, second, third
