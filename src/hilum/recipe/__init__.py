"""One TOML file <-> a Recipe: everything that a run needs, checked before anything is read or trained."""

from hilum.recipe.keys import Key, all_keys, describe_keys, unknown_key
from hilum.recipe.load import (
    changed_keys,
    general_recipes,
    load_recipe,
    parse_recipe,
    shipped_recipes,
    shipped_text,
)
from hilum.recipe.schema import (
    AugmentSettings,
    BalanceSettings,
    CalibrateSettings,
    DataSettings,
    ModelSettings,
    Monitor,
    Recipe,
    SplitSettings,
    TrainSettings,
    toml_value,
)
from hilum.recipe.values import InputSpec, Task

__all__ = [
    "AugmentSettings",
    "BalanceSettings",
    "CalibrateSettings",
    "DataSettings",
    "InputSpec",
    "Key",
    "ModelSettings",
    "Monitor",
    "Recipe",
    "SplitSettings",
    "Task",
    "TrainSettings",
    "all_keys",
    "changed_keys",
    "describe_keys",
    "general_recipes",
    "load_recipe",
    "parse_recipe",
    "shipped_recipes",
    "shipped_text",
    "toml_value",
    "unknown_key",
]
