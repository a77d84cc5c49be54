"""A Table of anybody's -> the recipe that suits it, and why: training without a recipe."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hilum.data.table import SPLITS, Table
from hilum.errors import DataError
from hilum.recipe import Recipe, changed_keys, load_recipe, toml_value
from hilum.recipe.findings import NO_FINDING, PARTS, named

LEAST_PATIENTS = 3
"""A finding that fewer patients have, or lack, is left out: train, validation and test need one each."""
FEW_PATIENTS = 30
"""Below, a reason says that figures will be rough."""
FEW_IMAGES = 1000
"""Below, the network's ImageNet layers stay as they are and only its head learns."""
RARE = 0.2
"""A class with a smaller share of the images gets a larger weight in the loss."""


@dataclass(frozen=True)
class Proposal:
    """A recipe for a table.

    Attributes:
        recipe: Complete; written down it can be given again.
        reasons: Why it is what it is, a sentence each.
    """

    recipe: Recipe
    reasons: tuple[str, ...]


def propose(table: Table, *, kind: str | None = None, changes: Sequence[str] = ()) -> Proposal:
    """Choose task, split and network for a table of any findings.

    Args:
        table: Any.
        kind: `binary`, `multilabel` or `multiclass` where it is known already.
        changes: `section.key=value` each; what they touch is not chosen.

    Raises:
        DataError: No finding has enough patients.
        RecipeError: A change is wrong, or does not go with the rest.
    """
    asked = changed_keys(changes)
    kind = kind or asked.get("task.kind")
    reasons: list[str] = []
    if "task.findings" in asked:
        wanted = asked["task.findings"]
        findings = [named(name) for name in ([wanted] if isinstance(wanted, str) else wanted)]
    else:
        findings = _usable(table, reasons)
    kind, findings = _task(table, findings, kind, reasons)
    chosen = [f"name={toml_value(_name(table))}", f"task.findings={toml_value(findings)}"]
    if not any(key.startswith("split.") for key in asked):
        chosen += _split(table, reasons)
    if not {"model.architecture", "model.freeze"} & asked.keys() and asked.get("model.weights") != "none":
        chosen += _network(table, reasons)
    if not any(key.startswith("balance.") for key in asked):
        chosen += _balance(table, kind, findings, reasons)
    return Proposal(load_recipe(kind, [*chosen, *changes]), tuple(reasons))


def _usable(table: Table, reasons: list[str]) -> list[str]:
    """Return the findings that enough patients have and lack, without those that make up another one."""
    whole = {part: name for name, parts in PARTS.items() for part in parts if name in table.findings}
    if parts := [name for name in table.findings if name in whole]:
        reasons.append(f"{_list(parts)} left out, since {whole[parts[0]]} covers them")
    findings = [name for name in table.findings if name not in whole]
    labels, patients = table.labels(findings), table.patient_keys
    least = {
        name: min(len(np.unique(patients[labels[:, column] == value])) for value in (0, 1))
        for column, name in enumerate(findings)
    }
    usable = [name for name in findings if least[name] >= LEAST_PATIENTS]
    if not usable:
        raise DataError(
            f"no finding has {LEAST_PATIENTS} patients with it and {LEAST_PATIENTS} without, as train, validation and "
            f"test need; the table has {_list(findings)}: add data"
        )
    if rare := [name for name in findings if name not in usable]:
        reasons.append(
            f"left out, since fewer than {LEAST_PATIENTS} patients have or lack them: {_list(rare)}"
        )
    if few := [f"{name} {least[name]:,}" for name in usable if least[name] < FEW_PATIENTS]:
        reasons.append(f"few patients have, or lack, {_list(few)}: figures will be rough")
    return usable


def _task(table: Table, findings: list[str], kind: str | None, reasons: list[str]) -> tuple[str, list[str]]:
    """Return the kind of task and its findings; classes where each image has exactly one."""
    labels = table.labels(findings)
    alone = bool(np.isfinite(labels).all() and (labels.sum(axis=1) <= 1).all())
    if kind is None:
        kind = "binary" if len(findings) == 1 else "multiclass" if alone else "multilabel"
        reasons.append(
            {
                "binary": f"one finding, yes or no: {findings[0]}",
                "multiclass": "each image has exactly one class",
                "multilabel": f"{len(findings)} findings, each for itself: images may have several",
            }[kind]
        )
    if kind == "multiclass" and NO_FINDING not in findings and bool((labels == 0).all(axis=1).any()):
        findings = [NO_FINDING, *findings]
    return kind, findings


def _split(table: Table, reasons: list[str]) -> list[str]:
    """Keep the source's own test where it has one and no patient stands on both sides."""
    own = table.frame["split"].to_numpy(str)
    if not {"train", "test"} <= set(own) or not np.isin(own, SPLITS).all():
        reasons.append("split by patient: 20 % test, 10 % validation")
        return []
    shared = np.intersect1d(table.patient_keys[own == "test"], table.patient_keys[own != "test"])
    if len(shared):
        reasons.append(
            f"split by patient: the source's own test shares {len(shared):,} patients with its training images"
        )
        return []
    reasons.append("the source's own test is kept; validation is 10 % of the rest, by patient")
    return ["split.method=folders"]


def _network(table: Table, reasons: list[str]) -> list[str]:
    if len(table) >= FEW_IMAGES:
        reasons.append("MobileNetV2 from ImageNet, all layers trained: small enough for a CPU")
        return []
    reasons.append(
        f"MobileNetV2 from ImageNet, its layers kept and a head trained: {len(table):,} images are too few for more"
    )
    return ["model.freeze=backbone", "train.stored_versions=5", "train.learning_rate=1e-3", "train.epochs=30"]


def _balance(table: Table, kind: str, findings: Sequence[str], reasons: list[str]) -> list[str]:
    """Weigh the classes of a task that has two or more, where one of them is rare."""
    if kind == "multilabel":
        return []
    shares = np.nanmean(table.labels(findings), axis=0)
    if kind == "binary":
        shares = np.append(shares, 1 - shares)
    if shares.min() >= RARE:
        return []
    reasons.append(
        f"classes weigh inversely to their frequency, since the rarest is {shares.min():.0%} of the images"
    )
    return ["balance.method=class-weights"]


def _name(table: Table) -> str:
    """Return the data's name as a recipe's."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(source.name for source in table.sources)).strip("-._")
    return plain or "own-data"


def _list(names: Sequence[str], most: int = 6) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
