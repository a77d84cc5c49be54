"""Names of engines -> their modules, which are imported when they are asked for. The engines are in `REGISTRY`."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.data.batches import load_grain
from hilum.data.examples import Examples
from hilum.engines.contract import Engine
from hilum.errors import UsageError, nearest, require


@dataclass(frozen=True)
class EngineEntry:
    """How an engine is found.

    Attributes:
        module: Where its class is.
        class_name: The class, made without arguments.
        packages: What it needs of its extra, the framework first.
        weight_files: Endings of the files that it reads weights from.
    """

    module: str
    class_name: str
    packages: tuple[str, ...]
    weight_files: tuple[str, ...]


REGISTRY: dict[str, EngineEntry] = {
    "torch": EngineEntry(
        module="hilum.engines.torch",
        class_name="TorchEngine",
        packages=("torch", "timm", "lightning", "safetensors", "onnxscript", "grain"),
        weight_files=(".safetensors", ".npz"),
    ),
    "keras": EngineEntry(
        module="hilum.engines.keras",
        class_name="KerasEngine",
        packages=("tensorflow", "keras", "h5py", "safetensors", "grain"),
        weight_files=(".weights.h5", ".h5", ".keras", ".npz"),
    ),
}
"""Engine's name -> where it is and what it needs."""


def load_engine(name: str) -> Engine:
    """Import an engine and its framework.

    Raises:
        UsageError: No engine of that name, or this process holds the other: two frameworks in one process share
            neither threads nor memory, nor the versions of what both bring along.
        MissingExtraError: Its framework is not installed.
    """
    if name not in REGISTRY:
        raise UsageError(f"no engine {name!r}; there are: {nearest(name, REGISTRY)}")
    for other, entry in REGISTRY.items():
        if other != name and entry.module in sys.modules:
            raise UsageError(f"this process holds the {other} engine; start another for {name}")
    check_installed(name)
    load_grain(name)  # before Keras does, which lets it warn and set up the root logger
    entry = REGISTRY[name]
    engine: Engine = getattr(importlib.import_module(entry.module), entry.class_name)()
    return engine


def load_make_dataset(name: str) -> Callable[[Examples, np.ndarray], Any]:
    """Import the function by which an engine's framework takes prepared images; errors as of `load_engine`."""
    load_engine(name)
    make: Callable[[Examples, np.ndarray], Any] = importlib.import_module(
        f"{REGISTRY[name].module}.dataset"
    ).make_dataset
    return make


def check_installed(name: str) -> None:
    """Refuse an engine that lacks a package, without importing any, which takes seconds.

    Raises:
        MissingExtraError: A package is not installed.
    """
    for package in REGISTRY[name].packages:
        if sys.modules.get(package) is None and importlib.util.find_spec(package) is None:
            require(package, extra=name)
