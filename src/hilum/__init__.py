"""Hilum: a folder of chest radiographs into a classifier that can be trusted. Research use only.

What stands in `__all__` is public and stays; all else may change. Nothing is imported before it is used.

Example:
    >>> model = hilum.load("runs/k")  # doctest: +SKIP
    >>> model.predict("film.png").to_frame()  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hilum.api.functions import (
        audit,
        compare,
        dataset,
        draw_augmented,
        evaluate,
        explore,
        find_gpu,
        layers,
        load,
        read,
        score,
        split,
        train,
        tune,
    )
    from hilum.api.model import Model
    from hilum.api.places import find_data
    from hilum.data.table import Table
    from hilum.errors import HilumError
    from hilum.progress import Lines
    from hilum.recipe import Recipe, load_recipe

__version__ = "0.1.0"

__all__ = [
    "HilumError",
    "Lines",
    "Model",
    "Recipe",
    "Table",
    "audit",
    "compare",
    "dataset",
    "draw_augmented",
    "evaluate",
    "explore",
    "find_data",
    "find_gpu",
    "layers",
    "load",
    "load_recipe",
    "read",
    "score",
    "split",
    "train",
    "tune",
]

_PLACES = {
    **dict.fromkeys(__all__, "hilum.api.functions"),
    "HilumError": "hilum.errors",
    "Lines": "hilum.progress",
    "Model": "hilum.api.model",
    "Recipe": "hilum.recipe",
    "Table": "hilum.data.table",
    "find_data": "hilum.api.places",
    "load_recipe": "hilum.recipe",
}
"""Public name -> the module that it is imported from when it is first used."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'hilum' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
