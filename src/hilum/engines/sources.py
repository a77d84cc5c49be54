"""What every engine says alike of where weights came from, and of the input that they expect."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from hilum.engines import InitialWeights
from hilum.errors import TrainingError

RANDOM = InitialWeights("random", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), licence="none")


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
