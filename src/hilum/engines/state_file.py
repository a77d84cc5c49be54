"""All that a run needs to go on <-> one .safetensors file: arrays, and the rest as JSON in its metadata."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hilum.errors import NoRoomError, TrainingError
from hilum.files import replacing

Arrays = dict[str, np.ndarray]


def write_state(path: Path, groups: Mapping[str, Mapping[str, np.ndarray]], rest: Mapping[str, Any]) -> None:
    """Write arrays by group and name, and JSON, whole or not at all.

    Raises:
        NoRoomError: The disk is full, or refuses otherwise; what was there before stays.
    """
    arrays = {
        f"{group}.{key}": np.array(value, order="C")
        for group, part in groups.items()
        for key, value in part.items()
    }
    metadata = {"state": json.dumps({"groups": list(groups), **rest})}
    try:
        with replacing(path) as temporary:
            save_file(arrays, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise NoRoomError(f"the training state could not be written ({error}); free some space") from error


def read_state(path: Path) -> tuple[defaultdict[str, Arrays], dict[str, Any]]:
    """Read what `write_state` wrote; a group without arrays is empty. Keys are in alphabetical order.

    Raises:
        TrainingError: The file is damaged.
    """
    groups: defaultdict[str, Arrays] = defaultdict(dict)
    try:
        with safe_open(path, framework="np") as file:
            rest = dict(json.loads(file.metadata()["state"]))
            for name in sorted(file.keys()):
                group, _, key = name.partition(".")
                groups[group][key] = file.get_tensor(name)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the state {path.name} cannot be read ({error}); train anew without --resume"
        ) from None
    return groups, rest
