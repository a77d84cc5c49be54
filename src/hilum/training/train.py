"""A recipe and a Table -> a run: split, trained, sealed into a bundle. This file is the story."""

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hilum import bundle, files, recipe as recipes, runtime, stats
from hilum.bundle import Bundle, Calibration, DataSource, Manifest, Seen, Training
from hilum.data import cache, phantom
from hilum.data.balance import class_weights
from hilum.data.batches import training_batches
from hilum.data.examples import Examples, load
from hilum.data.split import Split, split
from hilum.data.table import Table
from hilum.engines import Engine, Progress, Trained, Validation, load_engine
from hilum.errors import RecipeError, TrainingError, UsageError
from hilum.progress import Silent, Watcher
from hilum.recipe import Recipe

log = logging.getLogger(__name__)

RECIPE = "recipe.toml"
TABLE = "table.parquet"
HISTORY = "history.csv"
QUARANTINE = "quarantine.csv"
STATE = Path("state") / "last.safetensors"
PARITY = 1e-4
NUM_WORKERS = os.cpu_count() or 1
PACKAGES = ("hilum", "numpy", "onnx", "onnxruntime", "torch", "torchvision", "timm", "lightning", "grain")
MAY_CHANGE = ("train.epochs", "train.patience")


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: Where everything lies.
        bundle: The sealed model.
        history: One row an epoch.
        best_epoch: Whose weights were sealed.
        stopped: Why training ended: `epochs`, `patience` or `interrupted`.
    """

    folder: Path
    bundle: Bundle
    history: pd.DataFrame
    best_epoch: int
    stopped: str


def train(
    recipe: Recipe,
    table: Table,
    folder: Path,
    *,
    engine: str = "torch",
    resume: bool = False,
    watch: Watcher | None = None,
) -> Run:
    """Trains, calibrates and seals a model.

    Args:
        recipe: What to train.
        table: On what.
        folder: The run's folder; it must be new, or hold a run of the same recipe if `resume`.
        engine: One of `architectures.ENGINES`.
        resume: Go on from the last finished epoch.
        watch: Told how it goes.

    Returns:
        The run. `KeyboardInterrupt` after the first epoch ends training early and seals the best epoch so far.

    Raises:
        UsageError: The folder holds something else, or the recipe does not fit the table.
        DataError: The data do not allow what the recipe asks.
        TrainingError: See `engines.Engine.fit`.
    """
    watch = watch or Silent()
    found = load_engine(engine)
    _check_folder(folder, recipe, resume=resume)
    task = recipe.task
    examples = load(
        table,
        kind=task.kind,
        findings=task.findings,
        negatives=task.negatives,
        size=recipe.data.size,
        fit=recipe.data.fit,
        watch=watch,
    )
    parted = split(examples.table, recipe.split, findings=task.findings)
    examples = Examples(parted.table, examples.cached, examples.quarantine)
    with _folder(folder, recipe, examples), _logged(folder / "log.txt"):
        for note in (*table.notes, *parted.notes):
            log.info("%s", note)
        started = time.perf_counter()
        trained = _fit(found, recipe, examples, folder, resume=resume, watch=watch)
        seconds = time.perf_counter() - started
        sealed = _seal(found, trained, recipe, examples, parted, folder, seconds=seconds, watch=watch)
        log.info("sealed bundle %s", sealed.hash)
    return Run(folder, sealed, trained.history, trained.best_epoch, trained.stopped)


def draw_phantoms(recipe: Recipe, watch: Watcher | None = None) -> Table:
    """Draws the synthetic radiographs of a recipe that needs no data; those drawn before are used again.

    Args:
        recipe: `data.phantoms` says how many, `train.seed` which.
        watch: Told how it goes.
    """
    watch = watch or Silent()
    number, seed = recipe.data.phantoms, recipe.train.seed
    folder = cache.default_directory() / f"phantoms-v{phantom.VERSION}-{number}-{seed}"
    stored = folder / TABLE
    if not stored.exists():
        watch.stage("Drawing phantoms", number)
        phantom.generate(folder, num_images=number, seed=seed, on_progress=watch.advance).write(stored)
        watch.finish(f"{number:,} synthetic radiographs drawn into {folder}")
    return Table.read(stored)


def _fit(
    engine: Engine, recipe: Recipe, examples: Examples, folder: Path, *, resume: bool, watch: Watcher
) -> Trained:
    findings = recipe.task.findings
    labels = examples.table.labels(findings)
    train_rows, val_rows = examples.rows("train"), examples.rows("val")
    _check_classes(labels[train_rows], findings)
    batches = training_batches(
        examples.cached,
        train_rows,
        labels,
        batch_size=recipe.train.batch_size,
        augment=recipe.augment,
        seed=recipe.train.seed,
        num_workers=NUM_WORKERS,
    )
    watch.stage("Loading the model")

    def on_step(progress: Progress) -> None:
        if progress.step == 1:
            watch.stage(f"Epoch {progress.epoch}/{recipe.train.epochs}", progress.steps)
        watch.advance(progress.step, progress.steps, f"loss {progress.loss:.3f}")

    def on_epoch(history: pd.DataFrame) -> None:
        files.write_text(folder / HISTORY, history.to_csv(index=False))
        last = history.iloc[-1]
        line = (
            f"Epoch {last['epoch']:.0f}/{recipe.train.epochs}  train loss {last['train_loss']:.4f}  "
            f"val loss {last['val_loss']:.4f}  val AUROC {last['val_auroc']:.4f}  "
            f"{last['seconds']:.0f} s, {len(train_rows) / last['seconds']:.1f} images/s"
        )
        log.info("%s", line)
        watch.finish(line)

    return engine.fit(
        recipe,
        batches,
        Validation(examples.cached.images(val_rows), labels[val_rows]),
        class_weights=class_weights(labels[train_rows], recipe.balance),
        state=folder / STATE,
        resume=resume,
        on_step=on_step,
        on_epoch=on_epoch,
    )


def _seal(
    engine: Engine,
    trained: Trained,
    recipe: Recipe,
    examples: Examples,
    parted: Split,
    folder: Path,
    *,
    seconds: float,
    watch: Watcher,
) -> Bundle:
    """Exports the graph, calibrates through it on validation, and seals the bundle."""
    val_rows = examples.rows("val")
    watch.stage("Sealing the bundle", len(val_rows))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        graph_file, *weights = engine.export(
            trained, size=recipe.data.size, graph=Path(temporary) / bundle.GRAPH, weights=Path(temporary)
        )
        graph = runtime.Graph(graph_file.read_bytes())
        logits, embedding = _validation_outputs(graph, examples, val_rows, watch)
        _check_parity(engine, trained, examples.cached.images(val_rows[:32]), logits[:32])
        typical = np.stack([embedding.mean(axis=0), embedding.std(axis=0)]).astype(np.float32)
        distances = runtime.typical_distance(embedding, typical)
        manifest = Manifest(
            name=recipe.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            task=recipe.task.kind,
            findings=recipe.task.findings,
            negatives=recipe.task.negatives,
            size=recipe.data.size,
            fit=recipe.data.fit,
            calibration=_calibrate(recipe, logits, examples.table.labels(recipe.task.findings)[val_rows]),
            seen=_seen(examples, float(distances.max())),
            training=_training(engine, trained, recipe, examples, parted, seconds),
            data=tuple(
                DataSource(name=source.name, citation=source.citation, terms=source.terms)
                for source in examples.table.sources
            ),
            recipe=recipe.model_dump(mode="json"),
            versions=_versions(),
        )
        golden = runtime.golden(graph, phantom.phantom(0, recipe.data.size, ()), typical)
        sealed = bundle.write(folder / "bundle", manifest, graph=graph_file, weights=weights, golden=golden)
    runtime.check_golden(graph, sealed.golden)
    watch.finish(f"Sealed {sealed.folder} ({sealed.hash[:16]})")
    return sealed


def _validation_outputs(
    graph: runtime.Graph, examples: Examples, rows: np.ndarray, watch: Watcher
) -> tuple[np.ndarray, np.ndarray]:
    logits, embeddings = [], []
    for start in range(0, len(rows), 32):
        outputs = graph.outputs(examples.cached.images(rows[start : start + 32]))
        logits.append(outputs.logits)
        embeddings.append(outputs.embedding)
        watch.advance(start + len(outputs.logits), len(rows))
    return np.concatenate(logits), np.concatenate(embeddings)


def _check_parity(engine: Engine, trained: Trained, images: np.ndarray, logits: np.ndarray) -> None:
    ours, theirs = (
        1 / (1 + np.exp(-values.astype(np.float64))) for values in (logits, engine.logits(trained, images))
    )
    difference = float(np.abs(ours - theirs).max())
    if not difference <= PARITY:
        raise TrainingError(
            f"the exported graph differs from the trained model by {difference:.2g} in probability; at most {PARITY} "
            "expected. The state is kept; please report this with the recipe"
        )


def _calibrate(recipe: Recipe, logits: np.ndarray, labels: np.ndarray) -> Calibration:
    settings, findings = recipe.calibrate, recipe.task.findings
    temperatures = [1.0] * len(findings)
    if settings.temperature:
        fitted = stats.sigmoid_temperatures(logits, labels)
        temperatures = [temperature.value for temperature in fitted]
        for finding, temperature in zip(findings, fitted, strict=True):
            if temperature.reason:
                log.info("temperature of %s: %s", finding, temperature.reason)
    calibration = Calibration(temperatures=tuple(temperatures), thresholds=(0.5,) * len(findings), rule="")
    thresholds = stats.choose_thresholds(
        labels,
        calibration.probabilities(logits),
        rule=settings.threshold,
        sensitivity=settings.sensitivity,
        findings=findings,
    )
    for finding, threshold in zip(findings, thresholds, strict=True):
        if threshold.reason:
            log.warning("threshold of %s: %s", finding, threshold.reason)
    rules = {
        "youden": "Youden's J on validation",
        "sensitivity": f"sensitivity {settings.sensitivity:g} on validation",
        "fixed": "fixed at 0.5",
    }
    return Calibration(
        temperatures=tuple(temperatures),
        thresholds=tuple(threshold.value for threshold in thresholds),
        rule=rules[settings.threshold],
    )


def _seen(examples: Examples, typical_distance: float) -> Seen:
    frame = examples.table.frame.iloc[examples.rows("train")]
    ages = frame["age"].dropna()
    return Seen(
        sources=tuple(sorted(frame["source"].unique())),
        views=tuple(sorted(view for view in frame["view"].unique() if view)),
        ages=(float(ages.min()), float(ages.max())) if len(ages) else None,
        typical_distance=typical_distance,
    )


def _training(
    engine: Engine, trained: Trained, recipe: Recipe, examples: Examples, parted: Split, seconds: float
) -> Training:
    frame = examples.table.frame
    train_rows = examples.rows("train")
    return Training(
        engine=engine.name,
        architecture=recipe.model.architecture,
        precision=trained.precision,
        num_train=len(train_rows),
        num_val=len(examples.rows("val")),
        num_test=len(examples.rows("test")),
        num_patients=examples.table.select(frame["split"].to_numpy() == "train").num_patients,
        data_fingerprint=_fingerprint(frame.iloc[train_rows], recipe.task.findings),
        split_method=parted.method,
        split_description=parted.description,
        split_hash=parted.hash,
        leaky=parted.leaky,
        epochs=len(trained.history),
        best_epoch=trained.best_epoch,
        stopped=trained.stopped,
        seconds=seconds,
        initial_weights=trained.initial.source,
        initial_weights_citation=trained.initial.citation,
        initial_weights_licence=trained.initial.licence,
        mean=trained.initial.mean,
        std=trained.initial.std,
    )


def _fingerprint(frame: pd.DataFrame, findings: tuple[str, ...]) -> str:
    """SHA-256 over the training images' names and labels, whatever their order."""
    lines = sorted(
        "\t".join(map(str, row))
        for row in frame[["source", "image", *findings]].itertuples(index=False, name=None)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _check_classes(labels: np.ndarray, findings: tuple[str, ...]) -> None:
    """Training needs both classes of at least one finding; a finding that lacks one is said in the log."""
    for column, finding in enumerate(findings):
        positives, negatives = int((labels[:, column] == 1).sum()), int((labels[:, column] == 0).sum())
        if not positives or not negatives:
            message = f"{finding} has {positives} positive and {negatives} negative training images; both are needed"
            if len(findings) == 1:
                raise TrainingError(f"{message}: check the labels and the split")
            log.warning("%s, so nothing about it is learned", message)


def _check_folder(folder: Path, recipe: Recipe, *, resume: bool) -> None:
    stored = folder / RECIPE
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a new folder with -o")
    if not resume:
        if folder.exists() and any(folder.iterdir()):
            what = "a run; go on with it by --resume, or" if stored.exists() else "something else;"
            raise UsageError(f"{folder} already holds {what} give another folder with -o")
        return
    if not stored.exists():
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} holds no run to resume (no {RECIPE}); give the run's folder")
        return
    before = _flat(recipes.parse(tomllib.loads(stored.read_text(encoding="utf-8"))))
    changed = [
        key for key, value in _flat(recipe).items() if before.get(key) != value and key not in MAY_CHANGE
    ]
    if changed:
        raise RecipeError(
            f"{folder} was begun with {changed[0]} = {before[changed[0]]!r}, not {_flat(recipe)[changed[0]]!r}; "
            f"resume with the same recipe ({', '.join(MAY_CHANGE)} may change) or give another folder"
        )


def _flat(recipe: Recipe) -> dict[str, Any]:
    values = recipe.model_dump(mode="json")
    return {
        f"{section}.{key}": value
        for section, part in values.items()
        for key, value in (part.items() if isinstance(part, dict) else [("", part)])
        if section not in ("name", "description")
    }


@contextlib.contextmanager
def _folder(folder: Path, recipe: Recipe, examples: Examples) -> Iterator[None]:
    """Sets up the run's folder; if nothing worth keeping comes of it and it was new, it goes again."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files.write_text(folder / RECIPE, recipe.to_toml())
        examples.table.write(folder / TABLE)
        files.write_text(folder / QUARANTINE, examples.quarantine.to_csv(index=False))
        yield
    except BaseException:
        if new and not (folder / STATE).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Sends what the library logs to a file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("hilum")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
