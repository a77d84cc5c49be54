"""A recipe and a Table -> a cross-validation: a model a fold, its out-of-fold predictions scored, and an ensemble."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hilum import files
from hilum.bundle import Bundle, read_bundle
from hilum.data.audit import leaks, same_images
from hilum.data.examples import Examples, answering, prepare
from hilum.data.split import check_source, split, split_hash
from hilum.data.table import Table
from hilum.engines import Engine, load_engine
from hilum.engines.feature_store import FOLDER, remove_features
from hilum.errors import BundleError, DataError, RecipeError, UsageError
from hilum.evaluation import cross_validated
from hilum.evaluation.cohort import united
from hilum.evaluation.cross_validated import Repeat
from hilum.evaluation.evaluation import Evaluation
from hilum.inference import ensemble
from hilum.progress import Silent, Watcher
from hilum.recipe import Recipe, parse_recipe
from hilum.runs.folder import RunFolder
from hilum.training.job import check_named
from hilum.training.seal import fingerprint
from hilum.training.train import TrainOptions, train

FORMAT = 1
PLAN = "crossval.json"
ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class FoldPlan:
    """The folds of a cross-validation.

    Attributes:
        folds: How many.
        repeats: How often they are drawn anew, each with the next seed.
    """

    folds: int = 5
    repeats: int = 1


@dataclass(frozen=True)
class CrossValidation:
    """A finished cross-validation.

    Attributes:
        folder: Where everything lies.
        bundles: The sealed models, fold by fold and repeat by repeat.
        ensemble: Of the first repeat's folds.
        evaluations: Of the out-of-fold predictions, one a repeat.
    """

    folder: Path
    bundles: list[Bundle]
    ensemble: Bundle
    evaluations: list[Evaluation]

    @property
    def evaluation(self) -> Evaluation:
        """The evaluation of the first repeat; it tells of the folds of all."""
        return self.evaluations[0]


def cross_validate(
    recipe: Recipe,
    table: Table,
    folder: Path,
    *,
    plan: FoldPlan = FoldPlan(),
    engine: str | Engine = "torch",
    allow_leak: bool = False,
    replicates: int = 2000,
    watch: Watcher | None = None,
) -> CrossValidation:
    """Train a model a fold and score each image by the model that never saw its patient.

    Folds are drawn by patient, each with its share of the findings; patients who share a picture stay together.
    Validation is carved from the other folds. Where the recipe's split keeps the source's own test, that is in no fold.
    The same call again goes on where it stood: finished folds are kept, an unfinished one is resumed.

    Args:
        recipe: What to train; of `split`, `val` and `seed` hold, and `method` says whether a test is kept.
        table: On what.
        folder: Of the cross-validation; new, or one that was begun with the same recipe, data, folds and engine.
        plan: How many folds, how often.
        engine: One of `engines.REGISTRY`, or an engine itself.
        allow_leak: Whether to go on though the source's own test, which is in no fold, shares patients or pictures with
            the folds; the report and the ensemble then say so. The folder keeps what was allowed.
        replicates: Bootstrap resamples of patients.
        watch: Shown the progress.

    Raises:
        UsageError: The folder holds something else, or the numbers are not possible.
        RecipeError: The folder was begun with another recipe, or this one names a fold itself.
        DataError: There are too few patients, or the source's own test leaks into the rest.
        TrainingError: See `train`.
    """
    watch, folder = watch or Silent(), Path(folder)
    loaded = check(recipe, folder, plan=plan, engine=engine)
    answers = answering(table, recipe.task, watch=watch)
    check_source(answers, recipe.split)
    examples = prepare(answers, recipe.data, watch=watch)
    request = _request(recipe, plan, loaded.name)
    request["data"] = fingerprint(examples.table, recipe.task.findings)
    before = _begun(folder, request)
    leaks = _leaks_of_kept_test(recipe, examples, allow=allow_leak, allowed=before.get("leaks", ()))
    for leak in leaks:
        watch.finish(f"warning: --allow-leak: {leak}")
    if not before:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / PLAN, json.dumps({**request, "leaks": leaks}, indent=2) + "\n")
    done = []
    options = TrainOptions(features=folder / FOLDER)
    for repeat in range(1, plan.repeats + 1):
        place = folder_of(folder, repeat, repeats=plan.repeats)
        bundles = [
            _train(
                _of_fold(recipe, repeat, fold, plan.folds),
                table,
                place / f"fold-{fold}",
                engine=loaded,
                options=options,
                watch=watch,
            )
            for fold in range(1, plan.folds + 1)
        ]
        done.append(Repeat(tuple(bundles), _folds([bundle.folder.parent for bundle in bundles])))
    joined = _join(folder / ENSEMBLE, recipe, done[0], leaks, watch)
    warning = (
        f"The source's own test leaks, and training was told to go on: {'; '.join(leaks)}. It is in no fold here; the "
        "ensemble's figures on it flatter"
    )
    evaluations = cross_validated.evaluate(
        done,
        examples,
        notes=(*([warning] if leaks else []), *examples.table.notes[len(table.notes) :]),
        replicates=replicates,
        seed=recipe.train.seed,
        watch=watch,
    )
    watch.finish(remove_features(folder / FOLDER))
    bundles = [bundle for repeat in done for bundle in repeat.bundles]
    return CrossValidation(folder, bundles, joined, evaluations)


def check(recipe: Recipe, folder: Path, *, plan: FoldPlan, engine: str | Engine = "torch") -> Engine:
    """Refuse all that can be refused before any data are read; arguments and errors as of `cross_validate`.

    Returns:
        The engine, loaded.
    """
    name = engine if isinstance(engine, str) else engine.name
    check_named(recipe, name)  # before a framework is loaded, which takes seconds
    _check(recipe, plan)
    _begun(Path(folder), _request(recipe, plan, name))
    loaded = load_engine(engine) if isinstance(engine, str) else engine
    loaded.check(recipe)
    return loaded


def folder_of(folder: Path, repeat: int, *, repeats: int) -> Path:
    """Return the folder of a repeat's folds."""
    return folder if repeats == 1 else folder / f"repeat-{repeat}"


def _check(recipe: Recipe, plan: FoldPlan) -> None:
    if plan.folds < 2 or plan.repeats < 1:
        raise UsageError(
            f"{plan.folds} folds, {plan.repeats} repeats: two or more folds and one or more repeats expected"
        )
    if recipe.split.folds:
        raise RecipeError(
            f"split.folds = {recipe.split.folds}: the recipe names one fold; cross-validation sets split.folds and "
            "split.fold itself, so leave them out"
        )
    if recipe.split.method == "image":
        raise RecipeError(
            "split.method = 'image' does not go with cross-validation: folds are drawn by patient"
        )


def _leaks_of_kept_test(
    recipe: Recipe, examples: Examples, *, allow: bool, allowed: Sequence[str]
) -> tuple[str, ...]:
    """Return in sentences what the source's own test shares with the folds; refuse what is not allowed."""
    if recipe.split.method == "patient":
        return ()
    image_numbers = same_images(examples.cached.pixels, examples.cached.slots)
    parted = split(examples.table, recipe.split, findings=recipe.task.findings, image_numbers=image_numbers)
    kept = tuple(leak.text for leak in leaks(parted.table, image_numbers))
    if not allow and not set(kept) <= set(allowed):
        raise DataError(
            f"the source's own test leaks: {'; '.join(kept)}. `hilum data audit` lists them all, and with "
            "--without-leaks writes a table to cross-validate on; split.method=patient divides anew; --allow-leak goes "
            "on all the same, and every report says so"
        )
    return kept


def _request(recipe: Recipe, plan: FoldPlan, engine: str) -> dict[str, Any]:
    """Return what was asked for, as far as it is known before the data are."""
    return {"format": FORMAT, **asdict(plan), "engine": engine, "recipe": recipe.flat()}


def _begun(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the folder was begun with, empty for a new one; refuse another request."""
    stored = folder / PLAN
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a new folder with -o")
    files.check_writable(folder)
    if not stored.exists():
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(
                f"{folder} already holds something else (no {PLAN}); give another folder with -o"
            )
        return {}
    try:
        before = dict(json.loads(stored.read_text(encoding="utf-8")))
        recipe = dict(before["recipe"])
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{stored} is damaged; give another folder with -o") from None
    for key, value in request["recipe"].items():
        if recipe.get(key) != value:
            raise RecipeError(
                f"{folder} was begun with {key} = {recipe.get(key)!r}, not {value!r}; go on with the same recipe, or "
                "give another folder with -o"
            )
    for key in [key for key in request if key != "recipe"]:
        if before.get(key) != request[key]:
            what = (
                "other images or labels" if key == "data" else f"{key} {before.get(key)}, not {request[key]}"
            )
            raise UsageError(
                f"{folder} was begun with {what}; go on with the same, or give another folder with -o"
            )
    return before


def _of_fold(recipe: Recipe, repeat: int, fold: int, folds: int) -> Recipe:
    """Return the recipe of one fold; by itself it trains the same model again."""
    values = recipe.model_dump(mode="json")
    values["split"] |= {"folds": folds, "fold": fold, "seed": recipe.split.seed + repeat - 1}
    return parse_recipe(values)


def _train(
    recipe: Recipe, table: Table, folder: Path, *, engine: Engine, options: TrainOptions, watch: Watcher
) -> Bundle:
    """Train a fold, go on with it, or read it where it is finished."""
    name = f"fold {recipe.split.fold} of {recipe.split.folds}, {folder}"
    try:
        sealed = read_bundle(folder)
    except UsageError:
        sealed = None
    except BundleError as error:
        raise BundleError(f"{error}; or remove {folder}, and it is trained again") from None
    if sealed is not None and sealed.manifest.training.stopped != "interrupted":
        if sealed.manifest.recipe != recipe.model_dump(mode="json"):
            raise RecipeError(f"{folder} is not of this cross-validation: its bundle has another recipe")
        watch.finish(f"kept: {name} ({sealed.hash[:16]})")
        return sealed
    watch.finish(f"training {name}")
    begun = RunFolder(folder).recipe.is_file()
    run = train(recipe, table, folder, engine=engine, resume=begun, options=options, watch=watch)
    if run.stopped == "interrupted":
        raise KeyboardInterrupt
    return run.bundle


def _folds(runs: Sequence[Path]) -> np.ndarray:
    """Return the fold in which each row was tested, int64 (rows,), 0 for none, as the runs' own tables say."""
    tested = [Table.read(RunFolder(run).table).frame["split"].to_numpy() == "test" for run in runs]
    if (np.sum(tested, axis=0) > 1).any():
        raise DataError(
            f"folds in {runs[0].parent} overlap; they are not of one cross-validation: train them again"
        )
    return np.asarray(np.sum([fold * rows for fold, rows in enumerate(tested, start=1)], axis=0), np.int64)


def _join(folder: Path, recipe: Recipe, repeat: Repeat, leaks: Sequence[str], watch: Watcher) -> Bundle:
    """Return the folds' ensemble, in a folder like a run's: its test is what no member was trained or tuned on."""
    hashes = {bundle.hash for bundle in repeat.bundles}
    try:
        sealed = read_bundle(folder)
    except (UsageError, BundleError):
        sealed = None
    if sealed is not None and {member.hash for member in sealed.manifest.members} == hashes:
        return sealed
    # One of folds that were trained again since, or a damaged one; the ledger of test reads beside it stays.
    shutil.rmtree(RunFolder(folder).bundle, ignore_errors=True)
    tables = [Table.read(RunFolder(bundle.folder.parent).table) for bundle in repeat.bundles]
    divided = united(tables[0], tables)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(RunFolder(folder).recipe, recipe.to_toml())
    divided.write(RunFolder(folder).table)
    return ensemble.ensemble(
        repeat.bundles,
        RunFolder(folder).bundle,
        split_hash=split_hash(divided),
        leaks=leaks,
        watch=watch,
    )
