"""What every engine says alike of where weights come from, and of the input that they expect."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from hilum.engines.contract import InitialWeights
from hilum.engines.registry import REGISTRY
from hilum.errors import RecipeError, TrainingError
from hilum.recipe.architectures import ARCHITECTURES

RANDOM = InitialWeights("random", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), licence="none")


def check_weights(source: str, *, engine: str, architecture: str) -> None:
    """Refuse initial weights that cannot be had, as far as no framework is needed to tell.

    Args:
        source: `imagenet`, `none` or a path.
        engine: That is to read them.
        architecture: That they are for.

    Raises:
        RecipeError: The file is not there, not of a kind that the engine reads, or no hub has such weights.
    """
    known = ARCHITECTURES.get(architecture)
    if source == "imagenet" and known and not known.pretrained:
        raise RecipeError(f"{architecture} has no ImageNet weights; set model.weights=none")
    if source in ("imagenet", "none"):
        return
    path = Path(source).expanduser()
    if not path.is_file():
        raise RecipeError(
            f"model.weights = {source!r} is neither 'imagenet', 'none' nor a file that exists; give one of the three"
        )
    endings = REGISTRY[engine].weight_files
    if not path.name.endswith(endings):
        *others, last = endings
        raise RecipeError(
            f"{path.name}: the {engine} engine reads weights from {', '.join(others)} and {last} files, "
            f"not {path.suffix!r}"
        )


def unfetched(weights: str, error: Exception, *, files: str) -> TrainingError:
    """Say in words that ImageNet weights could not be had.

    Args:
        weights: Their name.
        error: What the library that fetches them raised; its addresses and line breaks are left out.
        files: The kinds of file that the engine reads instead.
    """
    text = re.sub(r"\w+://\S+", "", str(error)).strip() or type(error).__name__
    # Keras puts the reason behind a dash, after the address.
    reason = " ".join(text.splitlines()[0].rpartition(" -- ")[2].split()).rstrip(" .:")
    told = reason if len(reason) <= 160 else f"{reason[:160].rsplit(' ', 1)[0]} ..."
    return TrainingError(
        f"the ImageNet weights {weights} are not on this machine and could not be fetched ({told}); go online once, "
        f"or give model.weights the path of a {files} file, or model.weights=none"
    )


def named(path: Path) -> str:
    """A file's name and the beginning of its hash."""
    return f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def misfit(
    file: str, name: str, key: str, *, arrived: Sequence[int] | None, expected: Sequence[int] | None
) -> TrainingError:
    """Say of weights of another network what does not fit first.

    Args:
        file: The file's name.
        name: The network that was wanted.
        key: The array.
        arrived: Its shape in the file, None where it is not there.
        expected: Its shape in the network, None where it has no such array.
    """
    came = "is not there" if arrived is None else f"has shape {tuple(arrived)}"
    wanted = f"{tuple(expected)} expected" if expected is not None else f"{name} has no such array"
    return TrainingError(
        f"{file} does not fit {name}: {key} {came}, {wanted}; choose the architecture that it was made for"
    )


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
