"""The keys of a recipe, for people: what each takes and does, and which is nearest to one that no recipe has."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hilum.errors import closest
from hilum.recipe.schema import Recipe, toml_value
from hilum.recipe.values import RecipeSection


@dataclass(frozen=True)
class Key:
    """A key of a recipe, for people.

    Attributes:
        name: `section.key`.
        values: What it takes: its choices, or a type with its range.
        default: As in TOML; empty where it must be given.
        text: What it does.
    """

    name: str
    values: str
    default: str
    text: str


def all_keys() -> tuple[Key, ...]:
    """Return every key that a recipe has, in order, from the sections themselves."""
    sections = {
        name: field.annotation
        for name, field in Recipe.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, RecipeSection)
    }
    keys = []
    for section, model in sections.items():
        for name, schema in model.model_json_schema()["properties"].items():
            default = toml_value(schema["default"]) if schema.get("default") is not None else ""
            text = " ".join(schema["description"].split())
            keys.append(Key(f"{section}.{name}", _values(schema), default, text))
    return tuple(keys)


def describe_keys() -> str:
    """Return `all_keys` as a Markdown table."""
    rows = [f"| `{key.name}` | {key.values} | {key.default} | {key.text} |" for key in all_keys()]
    return "\n".join(["| key | takes | default | what it does |", "| --- | --- | --- | --- |", *rows]) + "\n"


def unknown_key(name: str, known: Iterable[str] = ()) -> str:
    """Return the sentence for a key that no recipe has: which are nearest to it, and how to list all.

    Args:
        name: What arrived, `section.key` or either alone.
        known: The keys that it could have been; all of a recipe's if none is given.

    Returns:
        For example `"unknown key 'train.epoch'; did you mean train.epochs? hilum recipes --keys lists all"`.
    """
    keys = list(known) or ["name", "description", *(key.name for key in all_keys())]
    section, _, own = name.rpartition(".")
    # In its section first, then of that name in any, and without a section as a whole.
    inside = [key for key in keys if key.rpartition(".")[0] == section]
    near = [
        key
        for key in inside
        if key.rpartition(".")[2] == closest(own, (key.rpartition(".")[2] for key in inside))
    ]
    if not near:
        leaf = closest(own, {key.rpartition(".")[2] for key in keys})
        near = [key for key in keys if key.rpartition(".")[2] == leaf]
        same = closest(section, {key.rpartition(".")[0] for key in near})
        near = [key for key in near if key.rpartition(".")[0] == same] or near
    if not near and not section:
        near = difflib.get_close_matches(name, keys, n=3, cutoff=0.6)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown key {name!r}; {meant}`hilum recipes --keys` lists all"


def _values(schema: Mapping[str, Any]) -> str:
    """Return what a key takes, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(_values(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if schema["type"] == "array":
        return f"list of {schema['items']['type']}s"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[bound]:g}" for bound, sign in bounds.items() if bound in schema]
    return " ".join([schema["type"], ", ".join(limits)]).strip()
