"""A recipe and a Table -> divided Examples -> the TrainingJob that an engine is given; the way of every training."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilum.data import balance
from hilum.data.audit import leaks, same_images
from hilum.data.batches import training_batches
from hilum.data.examples import Examples, answering, prepare
from hilum.data.split import Split, check_list, check_source, split
from hilum.data.table import Table
from hilum.engines import TrainingJob, Validation
from hilum.engines.weight_sources import check_weights
from hilum.errors import DataError
from hilum.progress import Watcher
from hilum.recipe import Recipe
from hilum.recipe.architectures import ENGINES, architecture
from hilum.training.calibration import check_classes

NUM_WORKERS = os.cpu_count() or 1


@dataclass(frozen=True)
class Divided:
    """What a recipe takes of a table.

    Attributes:
        examples: The rows that answer the task, prepared, each with its part of the split.
        parted: The split.
        leaks: What leaks between its parts, in sentences.
    """

    examples: Examples
    parted: Split
    leaks: tuple[str, ...]


def check_named(recipe: Recipe, engine: str) -> None:
    """Refuse a network, weights or a list that a recipe names and that are not there, before anything is loaded.

    Args:
        recipe: Any.
        engine: Its name; of one that is not Hilum's nothing is known.

    Raises:
        RecipeError: The engine has no such network, or there are no such weights.
        UsageError: The list of the split does not exist.
    """
    if engine in ENGINES:
        architecture(recipe.model.architecture, engine)
        check_weights(recipe.model.weights, engine=engine, architecture=recipe.model.architecture)
    check_list(recipe.split)


def divide(
    recipe: Recipe,
    table: Table,
    *,
    allow_leak: bool,
    watch: Watcher,
    allowed: Sequence[str] = (),
    before_preparing: Callable[[], None] = lambda: None,
) -> Divided:
    """Prepare the images that a recipe asks about and divide them.

    Args:
        recipe: What is asked.
        table: Of what.
        allow_leak: Whether the split may leak.
        watch: Shown the progress.
        allowed: Leaks that were allowed before.
        before_preparing: Called when the table is known to fit, before its images are read, which takes long.

    Raises:
        UsageError: The recipe does not fit the table.
        DataError: The data do not allow what the recipe asks, or the split leaks and may not.
    """
    task = recipe.task
    answers = answering(table, task, watch=watch)
    check_source(answers, recipe.split)
    before_preparing()
    examples = prepare(answers, recipe.data, watch=watch)
    image_numbers = same_images(examples.cached.pixels, examples.cached.slots)
    parted = split(examples.table, recipe.split, findings=task.findings, image_numbers=image_numbers)
    leaks = _leaks(parted.table, image_numbers, allow=allow_leak, allowed=allowed)
    return Divided(Examples(parted.table, examples.cached, examples.quarantine), parted, leaks)


@dataclass(frozen=True)
class TrainingData:
    """Divided examples, as a recipe trains on them.

    Attributes:
        recipe: What to train.
        examples: The rows that answer its task, each with its part of the split.
        num_workers: Threads that read and augment images.
    """

    recipe: Recipe
    examples: Examples
    num_workers: int = NUM_WORKERS

    @property
    def labels(self) -> np.ndarray:
        """Labels of the whole table, (rows, findings)."""
        return self.examples.table.labels(self.recipe.task.findings)

    @property
    def rows(self) -> np.ndarray:
        """The rows to train on, balanced."""
        task, seed = self.recipe.task, self.recipe.train.seed
        rows = self.examples.rows("train")
        return balance.balanced_rows(rows, self.labels, self.recipe.balance, kind=task.kind, seed=seed)

    @property
    def balance(self) -> str:
        """What balancing did, in a line."""
        task, before = self.recipe.task, self.labels[self.examples.rows("train")]
        return balance.description(
            before, self.labels[self.rows], self.recipe.balance, kind=task.kind, findings=task.findings
        )

    def check(self) -> None:
        """Refuse labels from which nothing can be learned."""
        check_classes(self.labels[self.rows], self.recipe.task.findings, self.recipe.task.kind)

    def job(
        self,
        state: Path,
        *,
        resume: bool = False,
        devices: int = 1,
        profile: bool = False,
        features: Path | None = None,
    ) -> TrainingJob:
        """Return what an engine is given; see `TrainingJob` for the arguments.

        Raises:
            TrainingError: Nothing can be learned from the labels.
        """
        self.check()
        recipe, labels, rows = self.recipe, self.labels, self.rows
        cached, val_rows = self.examples.cached, self.examples.rows("val")
        batches = training_batches(
            cached,
            rows,
            labels,
            batch_size=recipe.train.batch_size,
            augment=recipe.augment,
            seed=recipe.train.seed,
            num_workers=self.num_workers,
        )
        return TrainingJob(
            recipe,
            batches,
            Validation(cached.images(val_rows), labels[val_rows]),
            class_weights=balance.class_weights(labels[rows], recipe.balance, kind=recipe.task.kind),
            state=state,
            resume=resume,
            devices=devices,
            profile=profile,
            features=features,
        )


def training_samples(recipe: Recipe, table: Table, *, number: int, watch: Watcher) -> Examples:
    """Prepare some of the images that a recipe would train on, drawn by its seed, and no others.

    Patients who share a picture, which only a look at every image tells, may be divided otherwise than in training.

    Args:
        recipe: What would be trained.
        table: On what.
        number: At most so many.
        watch: Told of the preparation.

    Raises:
        UsageError: The recipe does not fit the table.
        DataError: The data do not allow what the recipe asks.
    """
    asked = answering(table, recipe.task, watch=watch)
    parted = split(asked, recipe.split, findings=recipe.task.findings).table
    rows = np.flatnonzero(parted.frame["split"] == "train")
    chosen = np.random.default_rng(recipe.train.seed).permutation(rows)[:number]
    return prepare(parted.select(np.isin(np.arange(len(parted)), chosen)), recipe.data, watch=watch)


def _leaks(
    table: Table, image_numbers: np.ndarray, *, allow: bool, allowed: Sequence[str]
) -> tuple[str, ...]:
    """What leaks between the parts of a split, in sentences; refused where it is not allowed."""
    found = tuple(leak.text for leak in leaks(table, image_numbers))
    if not allow and not set(found) <= set(allowed):
        raise DataError(
            f"the split leaks: {'; '.join(found)}. `hilum data audit` lists them all, and with --without-leaks writes "
            "a table to train on; --allow-leak trains all the same, and every report says so"
        )
    return found
