"""One TOML file, or values, -> a checked Recipe; an error names the key and what would be right."""

import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hilum.errors import RecipeError, closest, nearest, plain
from hilum.recipe.findings import VOCABULARY, named
from hilum.recipe.keys import unknown_key
from hilum.recipe.schema import Recipe, toml_value

SHIPPED = resources.files("hilum.recipe").joinpath("shipped")
GENERAL = resources.files("hilum.recipe").joinpath("general")


def load_recipe(name_or_path: str | Path, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe: a shipped one by name, or a TOML file by path.

    Args:
        name_or_path: For example `kermany-densenet121` or `my/recipe.toml`; of a general recipe (`multilabel`)
            `changes` must name the findings.
        changes: `section.key=value` each, the value as in TOML (quotes around text may be left out).

    Raises:
        RecipeError: No such recipe, not TOML, an unknown key, a wrong value or an impossible combination.
    """
    text = str(name_or_path)
    if text in (*shipped_recipes(), *general_recipes()):
        content = shipped_text(text)
    elif Path(text).is_file():
        try:
            content = Path(text).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise RecipeError(f"{text} is not a TOML file in UTF-8") from None
    else:
        raise RecipeError(
            f"no recipe {text!r}: neither a file nor one of "
            f"{nearest(text, (*shipped_recipes(), *general_recipes()))}"
        )
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{text} is not TOML: {error}") from None
    for change in changes:
        _apply(values, change)
    if text in general_recipes() and "findings" not in values["task"]:
        raise RecipeError(
            f"the recipe {text} is for the findings of any data; name some with --set 'task.findings=[\"NAME\"]'"
        )
    return parse_recipe(values)


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the complete recipes that come with Hilum."""
    return _names(SHIPPED)


def general_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with Hilum and lack the findings only, one a kind of task."""
    return _names(GENERAL)


def shipped_text(name: str) -> str:
    """Return the TOML of a recipe that comes with Hilum, with its comments."""
    folder = GENERAL if name in general_recipes() else SHIPPED
    return folder.joinpath(f"{name}.toml").read_text(encoding="utf-8")


def changed_keys(changes: Iterable[str]) -> dict[str, Any]:
    """Return what changes of the form `section.key=value` set: `section.key` -> value.

    Raises:
        RecipeError: One is of another form.
    """
    values: dict[str, Any] = {}
    for change in changes:
        _apply(values, change)
    return {
        f"{section}.{key}": value
        for section, keys in values.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
    }


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check the values of a recipe.

    Raises:
        RecipeError: The first thing that is wrong, with the key's name and what would be right.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explain(error)) from None


def _names(folder: Traversable) -> tuple[str, ...]:
    return tuple(
        sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))
    )


def _apply(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) > 2:
        raise RecipeError(
            f"--set {change!r} is not of the form section.key=value, for example train.epochs=3"
        )
    target = values
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise RecipeError(f"--set {change!r}: {part!r} is not a section")
    try:
        target[parts[-1]] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        target[parts[-1]] = text.strip()


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = [str(part) for part in first["loc"]]
    key = ".".join(where)
    model: Any = Recipe
    for part in where[:-1]:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field else None
    if first["type"] == "extra_forbidden":
        section = isinstance(first["input"], dict)
        return unknown_key(".".join([key, *list(first["input"])[:1]]) if section else key)
    if first["type"] == "missing":
        return f"the recipe lacks {key!r}"
    message, given = plain(first["type"], first["msg"]), first.get("input")
    arrived = f" (got {given!r})" if isinstance(given, str | int | float | bool) else ""
    if first["type"] == "tuple_type":
        arrived += f"; a list is written '{key}={_list_of(key, given)}', in quotes for the shell's sake"
    return f"{key}: {message}{arrived}" if key else message


def _list_of(key: str, given: object) -> str:
    """Return what arrived in place of a list as a list in TOML; findings as the vocabulary spells them."""
    if not isinstance(given, str):
        return toml_value([given]) if isinstance(given, int | float) else "[...]"
    parts = [part.strip(" '\"") for part in given.strip("[] ").split(",") if part.strip(" '\"")]
    if key == "task.findings":
        parts = [closest(named(part), VOCABULARY) or part for part in parts]
    return toml_value(parts)
