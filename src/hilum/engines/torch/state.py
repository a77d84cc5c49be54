"""All that a run needs to go on <-> one .safetensors file: tensors, and the rest as JSON in its metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hilum.errors import TrainingError
from hilum.files import replacing


def write(
    path: Path, tensors: Mapping[str, Mapping[str, Tensor]], optimizer: torch.optim.Optimizer, rest: Any
) -> None:
    """Writes tensors by group and name, the optimizer's moments, torch's random state and JSON, whole or not at all.

    Raises:
        TrainingError: The disk is full, or refuses otherwise.
    """
    named = {f"{group}.{key}": value for group, part in tensors.items() for key, value in part.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        named |= {f"optimizer.{index}.{key}": value for key, value in slots.items() if value is not None}
    named["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        named["random.cuda"] = torch.cuda.get_rng_state()
    contiguous = {key: value.detach().cpu().contiguous() for key, value in named.items()}
    groups = json.dumps({"groups": list(tensors), **rest})
    try:
        with replacing(path) as temporary:
            save_file(contiguous, temporary, metadata={"state": groups})
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"the training state could not be written ({error}); free some space and go on with --resume"
        ) from error


def read(path: Path, optimizer: torch.optim.Optimizer) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Reads what `write` wrote; restores the optimizer and torch's random state.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            rest = json.loads(file.metadata()["state"])
            named = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
        groups = {group: _part(named, f"{group}.") for group in rest["groups"]}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the state {path.name} cannot be read ({error}); train anew without --resume"
        ) from None
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in _part(named, "optimizer.").items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            # The fused optimizer walks memory: its moments must lie in memory as their parameter does.
            value = torch.empty_like(parameter).copy_(value)
        slots.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    torch.set_rng_state(named["random.cpu"])
    if "random.cuda" in named and torch.cuda.is_available():
        torch.cuda.set_rng_state(named["random.cuda"])
    return groups, rest


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
