"""All that a run needs to go on <-> one .safetensors file: tensors, and the rest as JSON in its metadata."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hilum.errors import TrainingError
from hilum.files import replacing


def write(path: Path, tensors: Mapping[str, Sequence[np.ndarray]], rest: Any) -> None:
    """Writes rows of tensors by group, and JSON, whole or not at all.

    Raises:
        TrainingError: The disk is full, or refuses otherwise.
    """
    named = {
        f"{group}.{index:05d}": np.array(value, order="C")
        for group, row in tensors.items()
        for index, value in enumerate(row)
    }
    groups = json.dumps({"groups": list(tensors), **rest})
    try:
        with replacing(path) as temporary:
            save_file(named, temporary, metadata={"state": groups})
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"the training state could not be written ({error}); free some space and go on with --resume"
        ) from error


def read(path: Path) -> tuple[dict[str, list[np.ndarray]], dict[str, Any]]:
    """Reads what `write` wrote.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            rest = json.loads(file.metadata()["state"])
            named = {key: file.get_tensor(key) for key in sorted(file.keys())}
        return {
            group: [value for key, value in named.items() if key.startswith(f"{group}.")]
            for group in rest["groups"]
        }, rest
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the state {path.name} cannot be read ({error}); train anew without --resume"
        ) from None
