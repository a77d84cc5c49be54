"""A recipe and a Table -> a run: split, trained, sealed into a bundle. This file is the story."""

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import signal
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hilum import bundle, files, recipe as recipes, runtime
from hilum.bundle import Bundle, DataSource, Manifest, Seen, Training
from hilum.data import balance, cache, phantom
from hilum.data.batches import training_batches
from hilum.data.examples import Examples, load
from hilum.data.split import Split, split
from hilum.data.table import Table
from hilum.engines import Engine, Hooks, Progress, Trained, Validation, load_engine
from hilum.engines.processes import find_processes
from hilum.errors import BundleError, NotANumberError, RecipeError, TrainingError, UsageError
from hilum.progress import Silent, Watcher
from hilum.recipe import Recipe
from hilum.training.calibrate import calibrate, check_classes
from hilum.training.tracking import open_trackers

log = logging.getLogger(__name__)

RECIPE = "recipe.toml"
TABLE = "table.parquet"
HISTORY = "history.csv"
QUARANTINE = "quarantine.csv"
BAD_BATCH = "bad_batch.csv"
BUNDLE = "bundle"
FINAL = "final"
STATE = Path("state") / "last.safetensors"
PARITY = 1e-4
NUM_WORKERS = os.cpu_count() or 1
PACKAGES = (
    "hilum",
    "numpy",
    "onnx",
    "onnxruntime",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "keras",
    "tensorflow",
    "tf2onnx",
    "grain",
)
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
        final: The model of the last epoch, sealed likewise; None unless `train.keep_final`.
        profile: Seconds of training by part; see `engines.Trained`.
    """

    folder: Path
    bundle: Bundle
    history: pd.DataFrame
    best_epoch: int
    stopped: str
    final: Bundle | None = None
    profile: Mapping[str, float] = field(default_factory=dict)


def train(
    recipe: Recipe,
    table: Table,
    folder: Path,
    *,
    engine: str = "torch",
    resume: bool = False,
    track: Sequence[str] = (),
    devices: int = 1,
    profile: bool = False,
    watch: Watcher | None = None,
) -> Run:
    """Trains, calibrates and seals a model.

    Args:
        recipe: What to train.
        table: On what.
        folder: The run's folder; it must be new, or hold a run of the same recipe if `resume`.
        engine: One of `architectures.ENGINES`.
        resume: Go on from where the run stood.
        track: Names of `tracking.TRACKERS` that are told of each epoch, beside `history.csv`.
        devices: Processes that share each batch. The others are started by this one, and leave (`SystemExit`) where
            training ends; torchrun or Slurm may have started them all instead.
        profile: Whether the profile's parts wait for the device.
        watch: Told how it goes.

    Returns:
        The run. `KeyboardInterrupt` after the first epoch ends training early and seals the best epoch so far.

    Raises:
        UsageError: The folder holds something else, or the recipe does not fit the table.
        DataError: The data do not allow what the recipe asks.
        StoppedError: SIGTERM arrived; the state is saved.
        TrainingError: See `engines.Engine.fit`.
    """
    leads = find_processes(devices).leads
    watch = (watch if leads else None) or Silent()
    found = load_engine(engine)
    if leads:
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
    fitting = _Fitting(found, recipe, examples, folder / STATE, resume, devices, profile)
    if not leads:
        fitting.fit(Hooks())
        raise SystemExit(0)
    with _folder(folder, recipe, examples), _logged(folder / "log.txt"):
        for note in (*examples.table.notes, *parted.notes, fitting.balance):
            log.info("%s", note)
        started = time.perf_counter()
        trained = _watched(fitting, folder, track, watch)
        seconds = time.perf_counter() - started
        sealed, final = _sealed_before(folder, trained, recipe) if resume else (None, None)
        if sealed is None:
            seal = _Sealing(found, recipe, examples, parted, fitting.balance, seconds, watch)
            sealed = seal.seal(trained, folder / BUNDLE)
            if trained.final is not None:
                last = replace(trained, model=trained.final, best_epoch=len(trained.history))
                final = seal.seal(last, folder / FINAL)
        log.info("sealed bundle %s", sealed.hash)
    return Run(folder, sealed, trained.history, trained.best_epoch, trained.stopped, final, trained.profile)


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


@dataclass(frozen=True)
class _Fitting:
    """What the engine is given."""

    engine: Engine
    recipe: Recipe
    examples: Examples
    state: Path
    resume: bool
    devices: int
    profile: bool

    @property
    def labels(self) -> np.ndarray:
        """Of the whole table."""
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

    def fit(self, hooks: Hooks) -> Trained:
        """Trains."""
        recipe, labels, rows = self.recipe, self.labels, self.rows
        val_rows = self.examples.rows("val")
        check_classes(labels[rows], recipe.task.findings, recipe.task.kind)
        batches = training_batches(
            self.examples.cached,
            rows,
            labels,
            batch_size=recipe.train.batch_size,
            augment=recipe.augment,
            seed=recipe.train.seed,
            num_workers=NUM_WORKERS,
        )
        return self.engine.fit(
            recipe,
            batches,
            Validation(self.examples.cached.images(val_rows), labels[val_rows]),
            class_weights=balance.class_weights(labels[rows], recipe.balance, kind=recipe.task.kind),
            state=self.state,
            resume=self.resume,
            devices=self.devices,
            hooks=hooks,
            profile=self.profile,
        )


def _watched(fitting: _Fitting, folder: Path, track: Sequence[str], watch: Watcher) -> Trained:
    """Trains, telling the watcher, history.csv, the log and the trackers; SIGTERM stops it at the batch's end."""
    epochs, images = fitting.recipe.train.epochs, len(fitting.rows)
    monitor = fitting.recipe.train.monitor
    watch.stage("Loading the model")

    def on_step(progress: Progress) -> None:
        if progress.step == 1:
            watch.stage(f"Epoch {progress.epoch}/{epochs}", progress.steps)
        watch.advance(progress.step, progress.steps, f"loss {progress.loss:.3f}")

    def on_epoch(history: pd.DataFrame) -> None:
        files.write_text(folder / HISTORY, history.to_csv(index=False))
        last = history.iloc[-1]
        shown = {monitor: monitor.replace("_", " "), "val_loss": "val loss", "val_auroc": "val AUROC"}
        line = (
            f"Epoch {last['epoch']:.0f}/{epochs}  train loss {last['train_loss']:.4f}  "
            + "  ".join(f"{name} {last[key]:.4f}" for key, name in shown.items())
            + f"  {last['seconds']:.0f} s, {images / last['seconds']:.1f} images/s"
        )
        log.info("%s", line)
        watch.finish(line)
        for tracker in trackers:
            tracker.log({str(key): float(value) for key, value in last.items()})

    with open_trackers(track, folder, fitting.recipe) as trackers, _sigterm() as asked_to_stop:
        try:
            return fitting.fit(Hooks(on_step, on_epoch, asked_to_stop))
        except NotANumberError as error:
            frame = fitting.examples.table.frame.iloc[list(error.rows)]
            files.write_text(folder / BAD_BATCH, frame.to_csv(index=False))
            raise TrainingError(f"{error}. The batch's images are listed in {folder / BAD_BATCH}") from error


@contextlib.contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Takes SIGTERM as a wish instead of an end, for a while; yields what tells whether it came."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def _sealed_before(folder: Path, trained: Trained, recipe: Recipe) -> tuple[Bundle | None, Bundle | None]:
    """The bundles of a run that was finished when it was resumed, so that its hash stays."""
    try:
        sealed = bundle.read(folder / BUNDLE)
        final = bundle.read(folder / FINAL) if recipe.train.keep_final else None
    except (UsageError, BundleError):
        return None, None
    same = sealed.manifest.training.epochs == len(
        trained.history
    ) and sealed.manifest.recipe == recipe.model_dump(mode="json")
    return (sealed, final) if same else (None, None)


@dataclass(frozen=True)
class _Sealing:
    """What a bundle tells beside its weights."""

    engine: Engine
    recipe: Recipe
    examples: Examples
    parted: Split
    balance: str
    seconds: float
    watch: Watcher

    def seal(self, trained: Trained, target: Path) -> Bundle:
        """Exports the graph, calibrates through it on validation, and seals the bundle."""
        recipe, examples, watch = self.recipe, self.examples, self.watch
        val_rows = examples.rows("val")
        watch.stage("Sealing the bundle", len(val_rows))
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as temporary:
            graph_file, *weights = self.engine.export(
                trained, size=recipe.data.size, graph=Path(temporary) / bundle.GRAPH, weights=Path(temporary)
            )
            graph = runtime.Graph(graph_file.read_bytes())
            logits, embedding = _validation_outputs(graph, examples, val_rows, watch)
            _check_parity(self.engine, trained, examples.cached.images(val_rows[:32]), logits[:32])
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
                calibration=calibrate(recipe, logits, examples.table.labels(recipe.task.findings)[val_rows]),
                seen=_seen(examples, float(distances.max())),
                training=self._training(trained),
                data=tuple(
                    DataSource(name=source.name, citation=source.citation, terms=source.terms)
                    for source in examples.table.sources
                ),
                recipe=recipe.model_dump(mode="json"),
                versions=_versions(),
            )
            golden = runtime.golden(graph, phantom.phantom(0, recipe.data.size, ()), typical)
            sealed = bundle.write(target, manifest, graph=graph_file, weights=weights, golden=golden)
        runtime.check_golden(graph, sealed.golden)
        watch.finish(f"Sealed {sealed.folder} ({sealed.hash[:16]})")
        return sealed

    def _training(self, trained: Trained) -> Training:
        table, train_rows = self.examples.table, self.examples.rows("train")
        training_table = table.select(table.frame["split"].to_numpy() == "train")
        return Training(
            engine=self.engine.name,
            architecture=self.recipe.model.architecture,
            precision=trained.precision,
            num_train=len(train_rows),
            num_val=len(self.examples.rows("val")),
            num_test=len(self.examples.rows("test")),
            num_patients=training_table.num_patients,
            balance=self.balance,
            data_fingerprint=_fingerprint(training_table, self.recipe.task.findings),
            split_method=self.parted.method,
            split_description=self.parted.description,
            split_hash=self.parted.hash,
            leaky=self.parted.leaky,
            epochs=len(trained.history),
            best_epoch=trained.best_epoch,
            stopped=trained.stopped,
            seconds=self.seconds,
            initial_weights=trained.initial.source,
            initial_weights_citation=trained.initial.citation,
            initial_weights_licence=trained.initial.licence,
            mean=trained.initial.mean,
            std=trained.initial.std,
        )


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


def _seen(examples: Examples, typical_distance: float) -> Seen:
    frame = examples.table.frame.iloc[examples.rows("train")]
    ages = frame["age"].dropna()
    return Seen(
        sources=tuple(sorted(frame["source"].unique())),
        views=tuple(sorted(view for view in frame["view"].unique() if view)),
        ages=(float(ages.min()), float(ages.max())) if len(ages) else None,
        typical_distance=typical_distance,
    )


def _fingerprint(table: Table, findings: tuple[str, ...]) -> str:
    """SHA-256 over the training images' names and labels, whatever their order."""
    names, values = table.frame[["source", "image"]].to_numpy(str), table.labels(findings).tolist()
    lines = sorted("\t".join([*name, *map(str, value)]) for name, value in zip(names, values, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


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
        if new and not any((folder / kept).exists() for kept in (STATE, BAD_BATCH)):
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
