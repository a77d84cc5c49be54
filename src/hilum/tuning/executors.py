"""Jobs -> trials trained in this process or in several on this machine, begun anew where a worker dies."""

import contextlib
import logging
import math
import multiprocessing
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd

from hilum.data.examples import Examples, load
from hilum.data.table import Table
from hilum.engines import Engine, Hooks, load_engine
from hilum.engines.feature_store import FOLDER
from hilum.errors import HilumError, NoRoomError, TrainingError
from hilum.progress import Silent, Watcher
from hilum.recipe import Recipe
from hilum.training.job import TrainingData
from hilum.tuning.study import changed, figure_name
from hilum.tuning.trials import Plan, Taken, Trials, worker_name

STATES = "state"
POLL = 0.5
"""Seconds between two looks at the storage."""
MOST_FRUITLESS = 3
"""Workers that may die before their first trial."""


@dataclass(frozen=True)
class SearchJob:
    """What a worker needs to train trials; it goes from process to process."""

    plan: Plan
    recipe: Recipe
    table: Table
    engine: str
    folder: Path
    threads: int


@dataclass(frozen=True)
class Trainer:
    """Trains one trial after another on the same images."""

    job: SearchJob
    engine: Engine
    examples: Examples
    watch: Watcher

    def check(self) -> None:
        """Refuse, before the first trial, labels from which nothing can be learned."""
        self._data(self.job.recipe).check()

    def train(self, queue: Trials, taken: Taken) -> None:
        """Train a trial to its end, whatever that is."""
        settings = self.job.recipe.train
        monitor, state = settings.monitor, self.job.folder / STATES / str(taken.number)
        history = pd.DataFrame()
        self.watch.stage(f"Trial {taken.number}/{queue.planned}", settings.epochs)

        def on_epoch(so_far: pd.DataFrame) -> None:
            nonlocal history
            history = so_far
            value = float(so_far[monitor].iloc[-1])
            self.watch.advance(len(so_far), note=f"{figure_name(monitor)} {value:.4f}")
            if taken.tell(len(so_far), value):
                raise _Pruned

        def on_note(note: str) -> None:
            self.watch.advance(0, note=note)

        try:
            shutil.rmtree(state, ignore_errors=True)  # of a worker that died
            state.mkdir(parents=True)
            recipe = changed(self.job.recipe, taken.point)
            with queue.beating(taken):
                job = self._data(recipe).job(state / "last.safetensors", features=self.features_folder)
                trained = self.engine.fit(job, Hooks(on_epoch=on_epoch, on_note=on_note))
            if trained.stopped == "interrupted":
                raise KeyboardInterrupt
            best = trained.history.iloc[trained.best_epoch - 1]
            taken.complete(float(best[monitor]), _facts(trained.history, monitor))
        except _Pruned:
            taken.prune(_facts(history, monitor))
        except NoRoomError:
            queue.give_back()  # no other trial would do better
            raise
        except HilumError as error:
            taken.fail(str(error))
        except Exception as error:
            taken.fail(f"{type(error).__name__}: {error}")
        finally:
            shutil.rmtree(state, ignore_errors=True)

    def _data(self, recipe: Recipe) -> TrainingData:
        return TrainingData(recipe, self.examples, self.job.threads)

    @property
    def features_folder(self) -> Path | None:
        """The folder in which trials share what a frozen backbone makes of the images.

        Where a range of what changes the images themselves is searched, hardly two have the same: they would only fill
        the disk.
        """
        ranges = [dimension.key for dimension in self.job.plan.dimensions if not dimension.choices]
        changing = any(key.startswith("augment.") or key == "train.seed" for key in ranges)
        return None if changing else self.job.folder / FOLDER


class _Pruned(Exception):  # noqa: N818 (it is no error)
    """The trial does worse than half of those before."""


def work(queue: Trials, trainer: Trainer, tell: Callable[[], None] = lambda: None) -> None:
    """Take trial after trial, and wait while others work, whose trials may have to be begun again."""
    while True:
        queue.requeue_dead()
        taken = queue.take()
        if taken is None:
            if not queue.running:
                return
            time.sleep(2 * POLL)
            continue
        trainer.train(queue, taken)
        tell()


def supervise(queue: Trials, job: SearchJob, workers: int, tell: Callable[[], None]) -> None:
    """Start workers, others in the place of those that died, and wait until nothing is left to do."""
    crew: dict[int, tuple[BaseProcess, Connection]] = {}
    fruitless = 0
    try:
        while queue.waiting or queue.running:
            for place in range(workers):
                if place in crew and crew[place][0].is_alive():
                    continue
                if place in crew:
                    process, connection = crew.pop(place)
                    _raise_told(connection)
                    fruitless += process.exitcode != 0 and not queue.has_worked(worker_name(process.pid or 0))
                    if fruitless >= MOST_FRUITLESS:
                        raise TrainingError(
                            f"workers end before their first trial (exit status {process.exitcode}); --workers 1 needs "
                            "less memory and says more"
                        )
                    queue.requeue_dead()
                if queue.waiting:
                    crew[place] = _start(job, place, workers)
            queue.requeue_dead()
            tell()
            time.sleep(POLL)
        tell()
    except BaseException:
        for process, _ in crew.values():
            process.kill()
        for process, _ in crew.values():
            process.join()
            queue.give_back(worker_name(process.pid or 0))
        raise
    for process, _ in crew.values():
        process.join(10)
        process.kill()


def _start(job: SearchJob, place: int, workers: int) -> tuple[BaseProcess, Connection]:
    """Start a worker that Ctrl-C does not reach: this process ends it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_worker, args=(job, there), name=f"hilum-tune-{place}", daemon=True)
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        with _environment(place, workers):
            process.start()
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
    there.close()
    return process, here


def _worker(job: SearchJob, connection: Connection) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.WARNING)  # other libraries' notices: what a user must know, the parent says
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        examples = load(job.table, job.recipe.task, job.recipe.data, watch=Silent())
        trainer = Trainer(job, load_engine(job.engine), examples, Silent())
        trainer.check()
        work(Trials(job.plan), trainer)
    except Exception as error:
        words = str(error) if isinstance(error, HilumError) else f"{type(error).__name__}: {error}"
        connection.send(words)
        os._exit(1)


def _end_with_parent() -> None:
    """End this process with the one that started it, in the middle of whatever it does."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _raise_told(connection: Connection) -> None:
    """Raise what a worker said before it ended, if it did."""
    with contextlib.suppress(EOFError):
        if connection.poll():
            raise TrainingError(str(connection.recv()))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(workers: int) -> int:
    """Threads for each of the workers, which share the cores."""
    return max(1, _cores() // workers)


@contextlib.contextmanager
def _environment(place: int, workers: int) -> Iterator[None]:
    """Set, for a worker that is started meanwhile, how many threads it has and which of several GPUs."""
    share = str(threads(workers))
    settings = {"OMP_NUM_THREADS": share, "TF_NUM_INTRAOP_THREADS": share}
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if len(gpus) > 1:
        settings["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _facts(history: pd.DataFrame, monitor: str) -> dict[str, float]:
    """What is kept of a history: the best epoch and its figures, the number of epochs, the seconds."""
    if history.empty or history[monitor].isna().all():
        return {"epochs": len(history)}
    values = history[monitor]
    best = int(values.idxmin() if monitor == "val_loss" else values.idxmax())
    found = {
        "value": values[best],
        "best_epoch": best + 1,
        "epochs": len(history),
        "val_loss": history["val_loss"][best],
        "val_auroc": history["val_auroc"][best],
        "seconds": history["seconds"].sum(),
    }
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}
