"""A recipe and what is varied in it -> a Study: trials on training and validation images alone, and the best recipe."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hilum import files
from hilum.data.examples import Examples
from hilum.data.split import split_hash
from hilum.data.table import Table
from hilum.engines import REGISTRY, load_engine
from hilum.engines.feature_store import FOLDER, remove_features
from hilum.engines.registry import check_installed
from hilum.errors import RecipeError, TrainingError, UsageError, nearest, require
from hilum.progress import Silent, Watcher, count
from hilum.recipe import Recipe
from hilum.training.job import check_named, divide
from hilum.training.seal import fingerprint
from hilum.tuning.executors import STATES, SearchJob, Trainer, supervise, threads, work
from hilum.tuning.study import Dimension, Study, changed, dimensions, figure_name, grid, show
from hilum.tuning.trials import Outcome, Plan, Trials, storage_in_words

OF_DATA = ("training and validation images", "their labels")
NAMED = ("model.architecture", "model.weights")
BEST, TRIALS, DEFINITION, DATABASE = "best.toml", "trials.csv", "study.json", "study.db"


@dataclass(frozen=True)
class TuneOptions:
    """How many trials a search has, and how they run.

    Attributes:
        trials: How many, for `tpe`; more than before prolongs a study.
        workers: Processes on this machine. With more than one, a script must begin below
            `if __name__ == "__main__":`, since each process imports it.
        storage: Address of a database that Optuna can use, where others may join; a file in the folder if not given.
        prune: Whether trials that do worse than half of those before are ended early; by default for `tpe` alone.
        allow_leak: As for `train`.
    """

    trials: int = 20
    workers: int = 1
    storage: str | None = None
    prune: bool | None = None
    allow_leak: bool = False

    def prunes(self, search: str) -> bool:
        """Return whether a search ends trials early."""
        return search == "tpe" if self.prune is None else self.prune


def tune(
    recipe: Recipe,
    table: Table,
    folder: Path,
    *,
    vary: Mapping[str, Any],
    search: str = "grid",
    engine: str = "torch",
    options: TuneOptions = TuneOptions(),
    watch: Watcher | None = None,
) -> Study:
    """Search for the values of a recipe's keys that do best on validation.

    A trial is a training as `train` does it, without sealing. The test part is set aside before the first.

    Args:
        recipe: What is varied; `train.monitor` says what is compared.
        table: As for `train`.
        folder: The study's folder: new, or that of the same study, which then goes on where it stood.
        vary: `section.key` -> a list of choices, or a range (low, high) or (low, high, "log"); see `study.dimensions`.
        search: One of `study.SEARCHES`.
        engine: One of `engines.REGISTRY`.
        options: How many trials, and how they run.
        watch: Shown the progress.

    Returns:
        The study, written to the folder as `best.toml`, `trials.csv`, `tune.html` and `plots/`. `KeyboardInterrupt`
        after the first complete trial ends it early with what is there.

    Raises:
        UsageError: What is varied does not fit, or the folder holds something else.
        RecipeError: A value does not fit the recipe, or the study was begun with another recipe or space.
        DataError: As for `train`.
        TrainingError: No trial is complete, workers cannot start, or the storage fails.
        MissingExtraError: Optuna or the engine is not installed.
    """
    watch, folder = watch or Silent(), Path(folder)
    varied = check(recipe, folder, vary=vary, search=search, engine=engine, options=options)
    workers = options.workers
    plan = Plan(
        url=options.storage or f"sqlite:///{(folder / DATABASE).absolute().as_posix()}",
        name=recipe.name if options.storage else "study",
        minimise=recipe.train.monitor == "val_loss",
        dimensions=varied,
        search=search,
        trials=len(list(grid(varied))) if search == "grid" else options.trials,
        seed=recipe.train.seed,
        prune=options.prunes(search),
        warm_up=max(1, recipe.train.epochs // 5),
    )
    if workers == 1:  # others load the framework themselves
        loaded = load_engine(engine)
        for named in _networks(recipe, varied):
            loaded.check(named)
    divided = divide(recipe, table, allow_leak=options.allow_leak, watch=watch)
    for leak in divided.leaks:
        watch.finish(f"warning: --allow-leak: {leak}")
    examples = _without_test(divided.examples)
    definition = _definition(plan, recipe, examples, engine)
    with storage_in_words():
        queue = _begin(plan, definition, folder, watch)
        job = SearchJob(plan, recipe, examples.table, engine, folder, threads(workers))
        teller = _Teller(queue, recipe, watch)
        done = len(queue.outcomes())
        watch.finish(
            f"{count(queue.planned, 'trial')} on {count(workers, 'worker')}"
            + (f"; {done} done already" if done else "")
        )
        interrupted = False
        try:
            if workers == 1:
                trainer = Trainer(job, load_engine(engine), examples, watch)
                trainer.check()
                work(queue, trainer, lambda: teller.tell(stays=False))
            else:
                teller.begin()
                supervise(queue, job, workers, lambda: teller.tell(stays=True))
        except KeyboardInterrupt:
            interrupted = True
            queue.give_back()
            if not any(outcome.state == "complete" for outcome in queue.outcomes()):
                watch.finish("interrupted before a trial was complete; the same command goes on")
        study = _finish(queue, job, examples, interrupted=interrupted)
    if not interrupted and (line := remove_features(folder / FOLDER)):
        watch.finish(line)
    return study


class _Teller:
    """Tells of each trial that has come to an end, once."""

    def __init__(self, queue: Trials, recipe: Recipe, watch: Watcher) -> None:
        self._queue, self._recipe, self._watch = queue, recipe, watch
        self._told = {outcome.number for outcome in queue.outcomes()}

    def begin(self) -> None:
        """Begin the stage in which several workers train."""
        self._watch.stage("Trials", self._queue.planned)

    def tell(self, *, stays: bool) -> None:
        """Tell of what is new; `stays` says that the stage goes on."""
        outcomes = self._queue.outcomes()
        for outcome in outcomes:
            if outcome.number not in self._told:
                self._told.add(outcome.number)
                self._watch.finish(_line(outcome, self._recipe, self._queue.planned))
                if stays:
                    self.begin()
        if stays:
            self._watch.advance(len(outcomes), self._queue.planned)


def check(
    recipe: Recipe,
    folder: Path,
    *,
    vary: Mapping[str, Any],
    search: str = "grid",
    engine: str = "torch",
    options: TuneOptions = TuneOptions(),
) -> tuple[Dimension, ...]:
    """Refuse all that can be refused before any data are read; arguments and errors as of `tune`.

    Returns:
        What is varied.
    """
    varied = dimensions(recipe, vary, search=search)
    require("optuna", extra="tune")
    if engine not in REGISTRY:
        raise UsageError(f"no engine {engine!r}; there are: {nearest(engine, REGISTRY)}")
    check_installed(engine)
    for named in _networks(recipe, varied):
        check_named(named, engine)
    if options.trials < 1 or options.workers < 1:
        raise UsageError(
            f"trials is {options.trials} and workers {options.workers}; expected at least 1 of each"
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a new folder with -o")
    files.check_writable(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / DEFINITION).exists():
        raise UsageError(
            f"{folder} holds something else; give a new folder, or that of a study to go on with it"
        )
    if (folder / DEFINITION).exists():
        asked = _asked(varied, recipe, search=search, prune=options.prunes(search), engine=engine)
        before = _read_definition(folder / DEFINITION)
        _refuse_changes({key: before[key] for key in before if key not in OF_DATA}, asked, str(folder))
    return varied


def _networks(recipe: Recipe, varied: Sequence[Dimension]) -> list[Recipe]:
    """Return a recipe for each network and its weights that the search can name."""
    named = [dimension for dimension in varied if dimension.key in NAMED]
    points = product(*(dimension.choices for dimension in named))
    return [
        changed(recipe, dict(zip([one.key for one in named], choices, strict=True))) for choices in points
    ]


def _without_test(examples: Examples) -> Examples:
    """Set the test part aside, so that nothing after this can read it."""
    kept = examples.table.frame["split"].to_numpy() != "test"
    cached = examples.cached
    part = replace(cached, slots=cached.slots[kept], width=cached.width[kept], height=cached.height[kept])
    return Examples(examples.table.select(kept), part, examples.quarantine)


def _definition(plan: Plan, recipe: Recipe, examples: Examples, engine: str) -> dict[str, Any]:
    """What all who work at a study have in common."""
    asked = _asked(plan.dimensions, recipe, search=plan.search, prune=plan.prune, engine=engine)
    hashes = (split_hash(examples.table), fingerprint(examples.table, recipe.task.findings))
    return {**asked, **{what: value[:16] for what, value in zip(OF_DATA, hashes, strict=True)}}


def _asked(
    found: Sequence[Dimension], recipe: Recipe, *, search: str, prune: bool, engine: str
) -> dict[str, Any]:
    """As much of the definition as is known before the data are."""
    return {
        **recipe.flat(),
        **{f"--vary {each.key}": _exact(each) for each in found},
        "--search": search,
        "--prune": prune,
        "--engine": engine,
    }


def _exact(dimension: Dimension) -> str:
    if dimension.choices:
        return ", ".join(map(str, dimension.choices))
    return f"{dimension.low}..{dimension.high}{':log' * dimension.log}"


def _begin(plan: Plan, definition: Mapping[str, Any], folder: Path, watch: Watcher) -> Trials:
    """Open the study, refuse one that was begun otherwise, and say where it stands."""
    stored = folder / DEFINITION
    if stored.exists():
        _refuse_changes(_read_definition(stored), definition, str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    queue = Trials(plan)
    if not queue.new:
        where, mend = f"the study {plan.name!r} in the storage", " and another name, --set name=NAME"
        _refuse_changes(queue.definition, definition, where, mend)
    files.write_text(stored, json.dumps(definition, indent=2) + "\n")
    queue.plan(definition)
    queue.requeue_dead()
    done, waiting, running = len(queue.outcomes()), queue.waiting, queue.running
    if done or running or queue.begun_again:
        again = f", {queue.begun_again} begun again" if queue.begun_again else ""
        elsewhere = f", {running} under way elsewhere" if running else ""
        watch.finish(f"going on: {done} of {queue.planned} trials done, {waiting} to do{elsewhere}{again}")
    return queue


def _read_definition(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is damaged; give a new folder")
    return found


def _refuse_changes(before: Mapping[str, Any], wanted: Mapping[str, Any], where: str, mend: str = "") -> None:
    """Name the first thing in which a study was begun otherwise."""
    if not before:
        return
    for key in dict.fromkeys([*before, *wanted]):
        if before.get(key) != wanted.get(key):
            was, now = before.get(key, "nothing"), wanted.get(key, "nothing")
            raise RecipeError(
                f"{where} was begun with {key} = {was}, not {now}; run it as it was begun, or give another folder{mend}"
            )


def _line(outcome: Outcome, recipe: Recipe, planned: int) -> str:
    """A trial in a line."""
    values = ", ".join(f"{key.partition('.')[2]} {show(value)}" for key, value in outcome.point.items())
    facts, figure = outcome.facts, figure_name(recipe.train.monitor)
    value = f"{figure} {facts['value']:.4f}" if "value" in facts else ""
    said = {
        "complete": f"{value} in epoch {facts.get('best_epoch', 0):.0f} of {facts.get('epochs', 0):.0f}",
        "pruned": f"ended early after {facts.get('epochs', 0):.0f} epochs, {value}",
        "failed": f"failed: {outcome.reason}",
    }[outcome.state]
    seconds = f", {facts['seconds']:.1f} s" if "seconds" in facts else ""
    return f"Trial {outcome.number}/{planned}  {values}: {said}{seconds}"


def _finish(queue: Trials, job: SearchJob, examples: Examples, *, interrupted: bool) -> Study:
    """Write what there is."""
    from hilum.report.tuning import page

    outcomes = queue.outcomes()
    study = Study(
        folder=job.folder,
        recipe=job.recipe,
        dimensions=job.plan.dimensions,
        search=job.plan.search,
        engine=job.engine,
        planned=queue.planned,
        trials=_frame(outcomes, job.plan.dimensions),
        curves={outcome.number: outcome.curve for outcome in outcomes},
        begun_again=queue.begun_again,
        importances=queue.importances(),
        images={part: _counts(examples, part) for part in ("train", "val")},
        interrupted=interrupted,
    )
    text = study.trials.map(lambda cell: files.spreadsheet_safe(cell) if isinstance(cell, str) else cell)
    files.write_text(job.folder / TRIALS, text.to_csv(index=False))
    if study.ranked.empty:
        if interrupted:
            raise KeyboardInterrupt
        first = next(iter(study.trials["reason"]), "none was planned")
        raise TrainingError(f"none of {len(outcomes)} trials is complete; the first: {first}")
    files.write_text(job.folder / BEST, study.best.to_toml())
    page.write(job.folder, study)
    with contextlib.suppress(OSError):
        (job.folder / STATES).rmdir()  # unless somebody else is at work in it
    return study


def _counts(examples: Examples, part: str) -> tuple[int, int]:
    """Images and patients of a part of the split."""
    table = examples.table.select(examples.table.frame["split"].to_numpy() == part)
    return len(table), table.num_patients


def _frame(outcomes: Sequence[Outcome], found: Sequence[Dimension]) -> pd.DataFrame:
    """One row a trial; see `Study.trials`."""
    rows = [
        {
            "trial": outcome.number,
            "state": outcome.state,
            "value": outcome.facts.get("value", np.nan),
            **{name: outcome.facts.get(name, np.nan) for name in ("best_epoch", "epochs", "val_loss")},
            **{name: outcome.facts.get(name, np.nan) for name in ("val_auroc", "seconds")},
            "reason": outcome.reason,
            **{each.key: outcome.point.get(each.key) for each in found},
        }
        for outcome in outcomes
    ]
    names = ["trial", "state", "value", "best_epoch", "epochs", "val_loss", "val_auroc", "seconds", "reason"]
    frame = pd.DataFrame(rows, columns=[*names, *(each.key for each in found)])
    return frame.astype({"best_epoch": "Int64", "epochs": "Int64"})
