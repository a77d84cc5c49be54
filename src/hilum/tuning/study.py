"""What is varied in a recipe -> checked dimensions; a search over them and what came of it -> a Study; no Optuna."""

import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import pandas as pd

from hilum.errors import RecipeError, UsageError, nearest
from hilum.recipe import Recipe, parse_recipe, unknown_key

SEARCHES: Mapping[str, str] = {
    "grid": "every combination of the choices, once",
    "tpe": "each trial where the trials before it promise most (tree-structured Parzen estimator)",
}
STATES = ("complete", "pruned", "failed")
"""What becomes of a trial."""
LOG_RATES = ("train.weight_decay", "model.l2")
"""Keys that are searched by their logarithm, beside those that end in `_rate`."""
NOT_VARIED = {
    "data": "trials share the images that are prepared once",
    "task": "trials would answer different questions",
    "split": "trials would be compared on different validation images",
    "calibrate": "it is fitted after training and changes no trial",
    "train.monitor": "trials would be compared by different figures",
    "train.keep_final": "it changes no trial",
}
LOSS_KEYS = (
    "train.loss",
    "train.focal_gamma",
    "train.gamma_negative",
    "train.gamma_positive",
    "train.negative_margin",
)
"""Keys that change what `val_loss` measures."""
MOST_CHECKED = 10_000
"""Combinations that are checked before anything runs."""


@dataclass(frozen=True)
class Dimension:
    """A key of a recipe and the values that it may take: choices, or a range with both ends.

    Attributes:
        key: `section.key`.
        choices: As in the recipe; empty for a range.
        low: The lower end.
        high: The upper end.
        log: Whether the range is searched by the logarithm.
        whole: Whether only whole numbers count.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def name(self) -> str:
        """The key without its section, in words."""
        return self.key.partition(".")[2].replace("_", " ")

    @property
    def corners(self) -> tuple[Any, ...]:
        """The choices, or both ends."""
        return self.choices or ((int(self.low), int(self.high)) if self.whole else (self.low, self.high))

    def __str__(self) -> str:
        if self.choices:
            return ", ".join(map(show, self.choices))
        return f"{show(self.low)} to {show(self.high)}{' (log)' if self.log else ''}"


@dataclass(frozen=True)
class Study:
    """A search and what came of it.

    Attributes:
        folder: Where `best.toml`, `trials.csv`, `tune.html` and the plots lie.
        recipe: As it was before the search.
        dimensions: What was varied.
        search: One of `SEARCHES`.
        engine: That trained, for example `torch`.
        planned: Trials that were asked for.
        trials: One row a trial that came to an end: trial (from 1), state (one of `STATES`), value (the monitored
            figure of the best epoch; NaN where failed), best_epoch, epochs, val_loss and val_auroc there, seconds (of
            training), reason, and a column a varied key.
        curves: Trial -> the monitored figure epoch by epoch, from 1; NaN where there was none.
        begun_again: Trials that were begun anew because their worker had died.
        importances: Key -> share of the figure's variance over the search space that it explains (fANOVA; Hutter et
            al. 2014); empty for fewer than four complete trials or two keys.
        images: Part of the split -> (images, patients); there is no test.
        interrupted: Whether it was ended before all trials were done.
    """

    folder: Path
    recipe: Recipe
    dimensions: tuple[Dimension, ...]
    search: str
    engine: str
    planned: int
    trials: pd.DataFrame
    curves: Mapping[int, tuple[float, ...]]
    begun_again: int
    importances: Mapping[str, float]
    images: Mapping[str, tuple[int, int]]
    interrupted: bool = False

    @property
    def monitor(self) -> str:
        """The name of the figure that is compared."""
        return self.recipe.train.monitor

    @property
    def figure(self) -> str:
        """That name in words, `val AUROC`."""
        return figure_name(self.monitor)

    @property
    def minimised(self) -> bool:
        """Whether less is better."""
        return self.monitor == "val_loss"

    @property
    def ranked(self) -> pd.DataFrame:
        """The complete trials, best first; of equals the earlier."""
        complete = self.trials[self.trials["state"] == "complete"]
        return complete.sort_values(["value", "trial"], ascending=[self.minimised, True])

    @property
    def nothing_learned(self) -> str:
        """Say so where the best complete trial ranks no better than a constant, by its AUROC; else empty."""
        ranked = self.ranked
        area = float(ranked.iloc[0].get("val_auroc", float("nan"))) if len(ranked) else float("nan")
        if not area <= 0.5:
            return ""
        return (
            f"Nothing was learned: the best trial's val AUROC is {area:.4f}, no better than the 0.5 of one and the "
            "same probability for every image"
        )

    @property
    def best(self) -> Recipe:
        """The recipe with the values of the best complete trial.

        Raises:
            UsageError: No trial is complete.
        """
        ranked = self.ranked
        if ranked.empty:
            raise UsageError(f"no trial of {self.folder} is complete yet")
        row = ranked.iloc[0]
        return changed(self.recipe, {each.key: row[each.key] for each in self.dimensions})


def parse_vary(texts: Sequence[str]) -> dict[str, Any]:
    """Read what the command line says is varied.

    Args:
        texts: `KEY=a,b,c`, `KEY=low..high` or `KEY=low..high:log` each; values as in TOML, quotes around text may be
            left out.

    Returns:
        As `dimensions` takes it.

    Raises:
        UsageError: A text is of no such form, or a key comes twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not key or not equals or not values:
            raise UsageError(
                f"--vary {text!r} is not of the form KEY=a,b,c or KEY=low..high, "
                "for example train.learning_rate=1e-5,1e-4 or model.dropout=0.2..0.7"
            )
        if key in found:
            raise UsageError(f"--vary {key} comes twice; give all its values at once")
        found[key] = _range(text, values) if ".." in values else _choices(values)
    return found


def dimensions(recipe: Recipe, vary: Mapping[str, Any], *, search: str) -> tuple[Dimension, ...]:
    """Check what is varied against the recipe, in every combination of choices and end.

    Args:
        recipe: What is varied.
        vary: `section.key` -> a list of choices, or a range (low, high) or (low, high, "log"). Ranges of rates are
            searched by the logarithm anyway.
        search: One of `SEARCHES`.

    Raises:
        UsageError: No such search, nothing is varied, or a range in a grid.
        RecipeError: An unknown key, one that cannot be varied, a wrong value or an impossible combination.
    """
    if search not in SEARCHES:
        raise UsageError(f"no search {search!r}; there are: {nearest(search, SEARCHES)}")
    if not vary:
        raise UsageError("nothing is varied; say what with --vary, for example train.learning_rate=1e-5,1e-4")
    found = tuple(_dimension(recipe, key, values) for key, values in vary.items())
    ranges = [each.key for each in found if not each.choices]
    if search == "grid" and ranges:
        raise UsageError(
            f"{ranges[0]} is a range, and a grid takes choices; give them as a,b,c or use --search tpe"
        )
    losses = [each.key for each in found if each.key in LOSS_KEYS]
    if losses and recipe.train.monitor == "val_loss":
        raise RecipeError(
            f"{losses[0]} changes what val_loss measures, so that trials could not be compared by it; "
            "set train.monitor=val_auroc"
        )
    for values in islice(product(*(each.corners for each in found)), MOST_CHECKED):
        changed(recipe, dict(zip((each.key for each in found), values, strict=True)))
    return found


def changed(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return the recipe with other values, `section.key` -> value.

    Raises:
        RecipeError: See `recipe.parse`.
    """
    content = recipe.model_dump(mode="json")
    for key, value in values.items():
        section, _, name = key.partition(".")
        content[section][name] = value
    try:
        return parse_recipe(content)
    except RecipeError as error:
        if len(values) == 1:
            raise
        together = ", ".join(f"{key}={show(value)}" for key, value in values.items())
        raise RecipeError(f"{error} (with {together})") from None


def grid(found: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the choices, the last key changing fastest."""
    for values in product(*(each.choices for each in found)):
        yield dict(zip((each.key for each in found), values, strict=True))


def show(value: Any) -> str:
    """Write a value of a recipe for people: `1e-05`, `0.5`, `true`, `[64, 32]`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(show, value))}]"
    return str(value)


def figure_name(monitor: str) -> str:
    """Write the name of a monitored figure for people."""
    return monitor.replace("_", " ").replace("auroc", "AUROC").replace("f1", "F1")


def _dimension(recipe: Recipe, key: str, values: Any) -> Dimension:
    now = _current(recipe, key)
    if isinstance(values, list):
        if not values:
            raise UsageError(f"{key}: no choice is given")
        choices = tuple(_as_stored(recipe, key, value) for value in values)
        twice = [value for place, value in enumerate(choices) if value in choices[:place]]
        if twice:
            raise RecipeError(f"{key}: {show(twice[0])} stands twice among the choices")
        return Dimension(key, choices)
    log = isinstance(values, tuple) and len(values) == 3 and values[2] == "log"
    if not isinstance(values, tuple) or len(values) not in (2, 3) or (len(values) == 3 and not log):
        raise UsageError(
            f"{key}: {values!r} is neither a list of choices nor a range; give [a, b, c], (low, high) or "
            '(low, high, "log")'
        )
    low, high = values[:2]
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or isinstance(now, bool) or not all(map(math.isfinite, (low, high))):
        raise RecipeError(f"{key}: a range goes between two numbers, not from {low!r} to {high!r}")
    if low >= high:
        raise RecipeError(
            f"{key}: the range from {show(low)} to {show(high)} is empty; the lower end comes first"
        )
    if log and low <= 0:
        raise RecipeError(f"{key}: the logarithm of {show(low)} does not exist; begin above 0")
    whole = isinstance(now, int)
    rate = (key.endswith("_rate") or key in LOG_RATES) and low > 0
    found = Dimension(key, (), float(low), float(high), log or rate, whole)
    if whole and not all(float(end).is_integer() for end in (low, high)):
        raise RecipeError(f"{key} takes whole numbers; the range goes from {show(low)} to {show(high)}")
    return found


def _current(recipe: Recipe, key: str) -> Any:
    """The recipe's own value of a key that may be varied."""
    flat = recipe.flat()
    section, dot, _ = key.partition(".")
    for refused in (section, key):
        if refused in NOT_VARIED and (dot or refused == key):
            raise RecipeError(f"{key} cannot be varied: {NOT_VARIED[refused]}")
    if key in flat:
        return flat[key]
    known = [each for each in flat if each.partition(".")[0] not in NOT_VARIED and each not in NOT_VARIED]
    raise RecipeError(unknown_key(key, known))


def _as_stored(recipe: Recipe, key: str, value: Any) -> Any:
    """The value as the recipe has it: 1 may become 1.0. One that only others make possible stays as it is."""
    try:
        return changed(recipe, {key: value}).flat()[key]
    except RecipeError:
        return value


def _range(text: str, values: str) -> tuple[Any, ...]:
    ends, colon, scale = values.partition(":")
    low, _, high = ends.partition("..")
    if colon and scale.strip() != "log":
        raise UsageError(f"--vary {text!r}: after the colon only log is known, as in 1e-5..1e-2:log")
    try:
        numbers = [int(end) if end.strip().lstrip("+-").isdigit() else float(end) for end in (low, high)]
    except ValueError:
        raise UsageError(
            f"--vary {text!r}: a range goes between two numbers, as in model.dropout=0.2..0.7"
        ) from None
    return (*numbers, "log") if colon else tuple(numbers)


def _choices(values: str) -> list[Any]:
    """Values between commas; lists keep theirs."""
    try:
        return list(tomllib.loads(f"values = [{values}]")["values"])
    except tomllib.TOMLDecodeError:
        return [_value(part.strip()) for part in values.split(",")]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def encode(value: Any) -> Any:
    """Turn a choice into what Optuna stores: lists become JSON."""
    return json.dumps(value) if isinstance(value, list) else value
