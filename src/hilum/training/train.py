"""A recipe and a Table -> a run: split, trained, sealed into a bundle. This file is the story."""

import contextlib
import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from hilum import files
from hilum.bundle import Bundle, read_bundle
from hilum.data import phantom
from hilum.data.examples import Examples
from hilum.data.table import Table
from hilum.engines import Engine, Hooks, Progress, Trained, TrainingJob, load_engine
from hilum.engines.processes import find_processes
from hilum.errors import (
    BundleError,
    NoRoomError,
    NotANumberError,
    RecipeError,
    TrainingError,
    UsageError,
)
from hilum.progress import Silent, Watcher
from hilum.recipe import Recipe, load_recipe, parse_recipe
from hilum.runs.folder import TABLE, RunFolder
from hilum.training.job import TrainingData, check_named, divide
from hilum.training.seal import Sealing
from hilum.training.tracking import open_trackers

log = logging.getLogger(__name__)

MAY_CHANGE = ("train.epochs", "train.patience")


@dataclass(frozen=True)
class TrainOptions:
    """How a training runs and who follows it; nothing of it changes what is learned.

    Attributes:
        track: Names of `tracking.TRACKERS` that are told of each epoch, beside `history.csv`.
        devices: Processes that share each batch. The others are started by this one, and leave (`SystemExit`) where
            training ends; torchrun or Slurm may have started them all instead.
        profile: Whether the profile's parts wait for the device.
        features: The folder in which trainings of one study share a frozen backbone's features; see `TrainingJob`.
    """

    track: Sequence[str] = ()
    devices: int = 1
    profile: bool = False
    features: Path | None = None


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
    engine: str | Engine = "torch",
    resume: bool = False,
    allow_leak: bool = False,
    options: TrainOptions = TrainOptions(),
    watch: Watcher | None = None,
) -> Run:
    """Train, calibrate and seal a model.

    Args:
        recipe: What to train.
        table: On what.
        folder: The run's folder; it must be new, or hold a run of the same recipe that can go on if `resume`.
        engine: One of `architectures.ENGINES`, or an engine itself.
        resume: Go on from where the run stood. Where nothing is left to train, the bundle stays as it was sealed.
        allow_leak: Whether to train though patients or pictures (pixel for pixel) stand in more than one part of the
            split; the bundle and every report then say so. Copies that were changed only an audit finds. The run
            keeps what was allowed, so that `resume` needs no second word for the same leaks.
        options: How it runs and who follows it.
        watch: Shown the progress.

    Returns:
        The run. `KeyboardInterrupt` after the first epoch ends training early and seals the best epoch so far.

    Raises:
        UsageError: The folder holds something else, the recipe does not fit the table, or the engine lacks its
            architecture.
        DataError: The data do not allow what the recipe asks, or the split leaks.
        StoppedError: SIGTERM arrived; the state is saved.
        NoRoomError: A disk is full or read-only; the message says what stands.
        TrainingError: See `Engine.fit`.
    """
    leads = find_processes(options.devices).leads
    watch = (watch if leads else None) or Silent()
    loaded = check(recipe, folder, engine=engine, resume=resume, devices=options.devices)
    if resume and not RunFolder(folder).recipe.exists():
        watch.finish(f"note: nothing to resume in {folder}: the training begins")
    allowed = _allowed_leaks(folder) if resume else ()
    divided = divide(
        recipe,
        table,
        allow_leak=allow_leak,
        allowed=allowed,
        watch=watch,
        before_preparing=lambda: loaded.fetch_weights(recipe),
    )
    examples, parted, leaks = divided.examples, divided.parted, divided.leaks
    data = TrainingData(recipe, examples)
    job = data.job(
        RunFolder(folder).state,
        resume=resume,
        devices=options.devices,
        profile=options.profile,
        features=options.features,
    )
    if not leads:
        loaded.fit(job, Hooks())
        raise SystemExit(0)
    with _folder(folder, recipe, examples, leaks), _logged(RunFolder(folder).log):
        for note in (*examples.table.notes, *parted.notes, data.balance):
            log.info("%s", note)
        for note in parted.notes:
            watch.finish(f"note: {note}")
        for leak in leaks:
            log.warning("--allow-leak: %s", leak)
            watch.finish(f"warning: --allow-leak: {leak}")
        started = time.perf_counter()
        trained = _watched(loaded, job, examples, folder, options.track, watch)
        seconds = time.perf_counter() - started
        sealed, final = _sealed_before(folder, trained, recipe) if resume else (None, None)
        if sealed is not None:
            files.write_text(RunFolder(folder).recipe, parse_recipe(sealed.manifest.recipe).to_toml())
            watch.finish(f"nothing was left to train: {folder} keeps its bundle as it was sealed")
        else:
            seal = Sealing(loaded, recipe, examples, parted, leaks, data.balance, seconds, watch)
            sealed = seal.seal(trained, RunFolder(folder).bundle)
            if trained.final is not None:
                last = replace(trained, model=trained.final, best_epoch=len(trained.history))
                final = seal.seal(last, RunFolder(folder).final)
        log.info("sealed bundle %s", sealed.hash)
    return Run(folder, sealed, trained.history, trained.best_epoch, trained.stopped, final, trained.profile)


def check(
    recipe: Recipe, folder: Path, *, engine: str | Engine = "torch", resume: bool = False, devices: int = 1
) -> Engine:
    """Refuse all that can be refused before any data are read; arguments and errors as of `train`.

    Returns:
        The engine, loaded.
    """
    name = engine if isinstance(engine, str) else engine.name
    check_named(recipe, name)  # before a framework is loaded, which takes seconds
    if find_processes(devices).leads:
        _check_folder(folder, recipe, resume=resume)
    loaded = load_engine(engine) if isinstance(engine, str) else engine
    loaded.check(recipe, devices=devices)
    return loaded


def draw_phantoms(recipe: Recipe, watch: Watcher | None = None) -> Table:
    """Draw the synthetic radiographs of a recipe that needs no data; those drawn before are used again.

    Args:
        recipe: `data.phantoms` says how many, `train.seed` which.
        watch: Told how it goes.
    """
    watch = watch or Silent()
    number, seed = recipe.data.phantoms, recipe.train.seed
    folder = files.cache_directory() / f"phantoms-v{phantom.VERSION}-{number}-{seed}"
    stored = folder / TABLE
    if not stored.exists():
        watch.stage("Drawing phantoms", number)
        phantom.generate(folder, num_images=number, seed=seed, on_progress=watch.advance).write(stored)
        watch.finish(f"{number:,} synthetic radiographs drawn into {folder}")
    return Table.read(stored)


def _watched(
    engine: Engine, job: TrainingJob, examples: Examples, folder: Path, track: Sequence[str], watch: Watcher
) -> Trained:
    """Train, telling the watcher, history.csv, the log and the trackers; SIGTERM stops it at the batch's end."""
    epochs, images = job.recipe.train.epochs, len(job.batches.rows)
    monitor = job.recipe.train.monitor
    watch.stage("Loading the model")

    def on_step(progress: Progress) -> None:
        if progress.step == 1:
            title = (
                f"Epoch {progress.epoch}/{epochs}" if progress.epoch else "Features of the frozen backbone"
            )
            watch.stage(title, progress.steps)
        watch.advance(progress.step, progress.steps, f"loss {progress.loss:.3f}" if progress.epoch else "")
        if not progress.epoch and progress.step == progress.steps:
            versions = job.recipe.train.stored_versions
            watch.finish(
                f"Features of each training image, in {versions} version(s), and of validation are stored"
            )

    def on_epoch(history: pd.DataFrame) -> None:
        files.write_text(RunFolder(folder).history, history.to_csv(index=False))
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

    with open_trackers(track, folder, job.recipe) as trackers, _sigterm() as asked_to_stop:
        try:
            trained = engine.fit(job, Hooks(on_step, on_epoch, asked_to_stop, watch.finish))
        except NotANumberError as error:
            frame = examples.table.frame.iloc[list(error.rows)]
            files.write_text(RunFolder(folder).bad_batch, frame.to_csv(index=False))
            raise TrainingError(
                f"{error}. The batch's images are listed in {RunFolder(folder).bad_batch}"
            ) from error
    # Again, for a run that was killed between its last state and this file.
    files.write_text(RunFolder(folder).history, trained.history.to_csv(index=False))
    return trained


@contextlib.contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Take SIGTERM as a wish instead of an end, for a while; yields what tells whether it came."""
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
    """Return the bundles of a run that had nothing left to train when it was resumed, so that its hash stays."""
    try:
        sealed = read_bundle(RunFolder(folder).bundle)
        final = read_bundle(RunFolder(folder).final) if recipe.train.keep_final else None
    except (UsageError, BundleError):
        return None, None
    before = parse_recipe(sealed.manifest.recipe)
    same = sealed.manifest.training.epochs == len(trained.history) and not _changed(before, recipe)
    return (sealed, final) if same else (None, None)


def _changed(before: Recipe, wanted: Recipe) -> list[str]:
    """Return the keys in which two recipes differ, and which may not change where a run goes on."""
    values = before.flat()
    return [key for key, value in wanted.flat().items() if values.get(key) != value and key not in MAY_CHANGE]


def _check_folder(folder: Path, recipe: Recipe, *, resume: bool) -> None:
    stored = RunFolder(folder).recipe
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a new folder with -o")
    files.check_writable(folder)
    if not resume:
        if folder.exists() and any(folder.iterdir()):
            what = "a run; go on with it by --resume, or" if stored.exists() else "something else;"
            raise UsageError(f"{folder} already holds {what} give another folder with -o")
        return
    if not stored.exists():
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} holds no run to resume (no {stored.name}); give the run's folder")
        return
    before = load_recipe(stored)
    if changed := _changed(before, recipe):
        was, wanted = before.flat()[changed[0]], recipe.flat()[changed[0]]
        raise RecipeError(
            f"{folder} was begun with {changed[0]} = {was!r}, not {wanted!r}; "
            f"resume with the same recipe ({', '.join(MAY_CHANGE)} may change) or give another folder"
        )
    _check_epochs(RunFolder(folder), recipe.train.epochs)


def _check_epochs(run: RunFolder, wanted: int) -> None:
    """Refuse to go on with a run that has more epochs behind it than wanted, or whose state is gone."""
    done = len(pd.read_csv(run.history)) if run.history.is_file() else 0
    if done and not run.state.is_file():
        raise UsageError(
            f"{run.path} has {done} epochs behind it but no state to go on from ({run.state.name}); train anew in "
            "another folder"
        )
    if done > wanted:
        raise RecipeError(
            f"{run.path} has {done} epochs behind it, more than train.epochs = {wanted}; give {done} or more, or "
            "another folder"
        )


def _allowed_leaks(folder: Path) -> tuple[str, ...]:
    """The leaks that this run was begun with on purpose, in sentences."""
    stored = RunFolder(folder).allowed_leaks
    return tuple(stored.read_text(encoding="utf-8").splitlines()) if stored.is_file() else ()


@contextlib.contextmanager
def _folder(folder: Path, recipe: Recipe, examples: Examples, leaks: Sequence[str]) -> Iterator[None]:
    """Set up the run's folder; if nothing worth keeping comes of it and it was new, it goes again.

    What stopped the training tells what stands.
    """
    new, run = not folder.exists(), RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files.write_text(run.recipe, recipe.to_toml())
        if leaks:
            files.write_text(run.allowed_leaks, "\n".join(leaks) + "\n")
        examples.table.write(run.table)
        files.write_text(run.quarantine, examples.quarantine.map(files.spreadsheet_safe).to_csv(index=False))
        yield
    except BaseException as error:
        gone = new and not any(path.exists() for path in (run.state, run.bad_batch))
        if gone:
            shutil.rmtree(folder, ignore_errors=True)
        stands = (
            "nothing is kept"
            if gone
            else "what was saved stands: --resume goes on (of crossval the same command)"
        )
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(stands) from None
        if isinstance(error, NoRoomError):
            raise NoRoomError(f"{error}; {stands}") from error
        if reason := files.refusal(error):
            raise NoRoomError(f"{folder} cannot be written: {reason}; {stands}") from error
        raise


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send what the library logs to a file."""
    handler = _LogFile(path, encoding="utf-8")
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
        with contextlib.suppress(OSError):
            handler.close()


class _LogFile(logging.FileHandler):
    """A log that a full disk costs lines, and nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's own name)
        """Lose the line; what training cannot do without says itself that the disk is full."""
