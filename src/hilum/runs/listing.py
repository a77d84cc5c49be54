"""A folder of runs -> what became of each, and in what their recipes differ; no framework, no image, no graph."""

import csv
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hilum.errors import HilumError, UsageError, nearest
from hilum.recipe import Recipe, load_recipe
from hilum.runs.folder import RECIPE, RunFolder

SUMS, MANIFEST = "SHA256SUMS", "bundle.json"
T = TypeVar("T")


@dataclass(frozen=True)
class RunSummary:
    """What a run's folder tells; None or empty where it does not.

    Attributes:
        folder: The run's folder.
        name: Its path below the folder that was searched.
        state: `sealed` (there is a bundle), `unfinished`, or `damaged` (`problems` says how).
        problems: What could not be read, a sentence each. A sealed run stays so without a recipe.toml that this
            version of Hilum accepts.
        recipe: What was to be trained.
        engine: That trained it, for example `torch`; known once it is sealed.
        bundle: The bundle's hash, 64 hexadecimal digits. Files are not verified against it: `read_bundle` does that.
        epochs: Finished ones.
        best_epoch: The best by `train.monitor`, from 1.
        monitored: The monitored figure there.
        val_auroc: Validation AUROC there.
        test_auroc: The entry of `evaluation/metrics.json` for this bundle on its own test: `value`, `low`, `high`;
            for several findings of their mean.
        seconds: Of training, all sessions together.
    """

    folder: Path
    name: str
    state: str
    problems: tuple[str, ...] = ()
    recipe: Recipe | None = None
    engine: str = ""
    bundle: str = ""
    epochs: int = 0
    best_epoch: int | None = None
    monitored: float | None = None
    val_auroc: float | None = None
    test_auroc: Mapping[str, Any] | None = None
    seconds: float | None = None

    @property
    def monitor(self) -> str:
        """The name of the monitored figure."""
        return self.recipe.train.monitor if self.recipe else ""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, and the recipe's main keys, of the types that JSON has."""
        recipe = self.recipe
        return {
            "run": self.name,
            "folder": str(self.folder),
            "state": self.state,
            "problems": list(self.problems),
            "recipe": recipe.name if recipe else None,
            "architecture": recipe.model.architecture if recipe else None,
            "engine": self.engine or None,
            "bundle": self.bundle or None,
            "epochs": self.epochs,
            "epochs_planned": recipe.train.epochs if recipe else None,
            "best_epoch": self.best_epoch,
            "monitor": self.monitor or None,
            "monitored": self.monitored,
            "val_auroc": self.val_auroc,
            "test_auroc": dict(self.test_auroc) if self.test_auroc else None,
            "seconds": self.seconds,
        }


def find_runs(folder: Path) -> list[RunSummary]:
    """Find the runs in a folder and below, by name; a run that cannot be read is told as damaged.

    Args:
        folder: Of runs, or a run itself. Links to folders are not followed.

    Raises:
        UsageError: There is no such folder.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} {what}; give a folder with runs in it, as hilum train -o writes them")
    names = {run: run.relative_to(folder).as_posix() for run in _folders(folder)}
    return sort_runs(
        [_read(run, folder.resolve().name if run == folder else name) for run, name in names.items()], "run"
    )


def recipe_differences(runs: Sequence[RunSummary]) -> dict[str, dict[str, Any]]:
    """Return in which keys the recipes of runs differ.

    Returns:
        `section.key` -> name of the run -> its value, in the recipe's order; runs without a recipe are left out.
    """
    values = {run.name: run.recipe.flat() for run in runs if run.recipe}
    keys = dict.fromkeys(key for flat in values.values() for key in flat)
    found = {key: {name: flat[key] for name, flat in values.items()} for key in keys}
    return {key: each for key, each in found.items() if len(set(map(repr, each.values()))) > 1}


def sort_runs(runs: Sequence[RunSummary], key: str) -> list[RunSummary]:
    """Sort runs: text by the alphabet, counts and times from small to large, scores best first, the unknown last.

    Args:
        runs: The runs.
        key: One of `SORTS`.

    Raises:
        UsageError: No such key.
    """
    if key not in SORTS:
        raise UsageError(f"--sort {key!r}: {nearest(key, SORTS)} expected")
    value = SORTS[key]
    return sorted(runs, key=lambda run: (value(run) in (None, ""), value(run) or 0, run.name))


def read_history(path: Path) -> list[dict[str, float]]:
    """Read a history.csv: one row an epoch, NaN where a cell is empty.

    Raises:
        ValueError: It is no history.
    """
    with path.open(encoding="utf-8", newline="") as file:
        try:
            rows = [
                {name: float(cell or "nan") for name, cell in row.items()} for row in csv.DictReader(file)
            ]
        except (TypeError, ValueError, csv.Error):
            raise ValueError("it is no table of numbers") from None
    if not all(row.get("epoch", math.nan) > 0 for row in rows):
        raise ValueError("it has no column epoch")
    return rows


SORTS: Mapping[str, Callable[[RunSummary], Any]] = {
    "run": lambda run: run.name,
    "recipe": lambda run: run.recipe and run.recipe.name,
    "architecture": lambda run: run.recipe and run.recipe.model.architecture,
    "engine": lambda run: run.engine,
    "epochs": lambda run: run.epochs,
    "best_epoch": lambda run: run.best_epoch,
    "monitored": lambda run: (
        None if run.monitored is None else (run.monitor, -_score(run.monitor, run.monitored))
    ),
    "val_auroc": lambda run: None if run.val_auroc is None else -run.val_auroc,
    "test_auroc": lambda run: -run.test_auroc["value"] if run.test_auroc else None,
    "seconds": lambda run: run.seconds,
    "state": lambda run: run.state,
}


def _folders(root: Path) -> Iterator[Path]:
    """Yield every run's folder; bundles hold none, and what is hidden is not looked into."""
    for path, folders, files in os.walk(root):
        if SUMS in files:
            folders.clear()
        elif RECIPE in files:
            yield Path(path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _read(folder: Path, name: str) -> RunSummary:
    run = RunFolder(folder)
    problems: list[str] = []

    def attempt(path: Path, read: Callable[[Path], T], otherwise: T) -> T:
        try:
            return read(path)
        except FileNotFoundError:
            return otherwise
        except (HilumError, OSError, ValueError) as error:
            problems.append(f"{path.relative_to(folder).as_posix()}: {error}")
            return otherwise

    recipe = attempt(run.recipe, load_recipe, None)
    rows: list[dict[str, float]] = attempt(run.history, read_history, [])
    digest = attempt(run.bundle, _read_sums, "")
    training: dict[str, Any] = attempt(run.bundle / MANIFEST, _read_training, {})
    best = training.get("best_epoch") or (_best_epoch(rows, recipe.train.monitor) if recipe else None)
    at_best: Mapping[str, float] = next((row for row in rows if row["epoch"] == best), {})
    test_auroc = attempt(run.metrics, lambda path: _read_test_auroc(path, digest), None)
    # A sealed run needs no recipe.toml; one of another version of Hilum may be refused by this one.
    damaged = [problem for problem in problems if not (digest and problem.startswith(RECIPE))]
    state = "damaged" if damaged else "sealed" if digest else "unfinished"
    return RunSummary(
        folder=folder,
        name=name,
        test_auroc=test_auroc,
        state=state,
        problems=tuple(problems),
        recipe=recipe,
        engine=training.get("engine", ""),
        bundle=digest,
        epochs=len(rows),
        best_epoch=best,
        monitored=_known(at_best.get(recipe.train.monitor)) if recipe else None,
        val_auroc=_known(at_best.get("val_auroc")),
        seconds=_known(sum(row.get("seconds", math.nan) for row in rows)) if rows else None,
    )


def _read_sums(bundle: Path) -> str:
    """Return the bundle's hash; its files are looked for, not read."""
    if not bundle.is_dir():
        return ""
    if not (bundle / SUMS).is_file():
        raise ValueError(f"it lacks {SUMS}")
    content = (bundle / SUMS).read_bytes()
    for line in content.decode("ascii").splitlines():
        if not (bundle / line[66:]).is_file():
            raise ValueError(f"it lacks {line[66:]}")
    return hashlib.sha256(content).hexdigest()


def _read_training(manifest: Path) -> dict[str, Any]:
    """Return what a manifest of any format says of training."""
    try:
        training = json.loads(manifest.read_text(encoding="utf-8"))["training"]
        return {"engine": str(training["engine"]), "best_epoch": int(training["best_epoch"])}
    except (KeyError, TypeError, ValueError):
        raise ValueError("it is no manifest") from None


def _read_test_auroc(metrics: Path, digest: str) -> dict[str, Any] | None:
    """Return the AUROC of this bundle on its own test; None for another bundle's, another part or other data."""
    try:
        found = json.loads(metrics.read_text(encoding="utf-8"))
        if (found["bundle"], found["split"], found["internal"]) != (digest, "test", True):
            return None
        entry = found["macro"]["auroc"]
        return {key: entry[key] for key in ("value", "low", "high")} if entry["value"] is not None else None
    except (KeyError, TypeError, ValueError):
        raise ValueError("it is no metrics.json of Hilum") from None


def _best_epoch(rows: Sequence[Mapping[str, float]], monitor: str) -> int | None:
    """Return the epoch that the policy holds for the best: the first of equals, and never one that is not a number."""
    scored = [
        (_score(monitor, row[monitor]), row) for row in rows if not math.isnan(row.get(monitor, math.nan))
    ]
    return int(max(scored, key=lambda pair: pair[0])[1]["epoch"]) if scored else None


def _score(monitor: str, value: float) -> float:
    """Return the monitored figure, turned so that more is better."""
    return -value if monitor == "val_loss" else value


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
