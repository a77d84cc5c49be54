"""The figures of each epoch -> where people watch training: TensorBoard and MLflow, by name; no framework here."""

import contextlib
import logging
import os
import re
import textwrap
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from hilum import __version__, files
from hilum.errors import StoppedError, TrainingError, UsageError, nearest, require
from hilum.recipe import Recipe
from hilum.runs.folder import HISTORY, RunFolder
from hilum.runs.listing import read_history

log = logging.getLogger(__name__)

EXTRA = "track"


class Tracker(Protocol):
    """Whoever keeps the figures of a run.

    - It is made with the run's folder, its recipe and the rows of the history so far, and takes those that it lacks.
    - `log` takes an epoch; its number is the step. An epoch that comes again after a resume is kept once.
    - `close` is told how training ended: `FINISHED`, `KILLED` (stopped from outside) or `FAILED`.
    - Any of them may fail; `open_trackers` sees to it that training does not.
    """

    def log(self, row: Mapping[str, float]) -> None:
        """Take a row of the history."""
        ...

    def close(self, status: str) -> None:
        """End the tracking."""
        ...


class TensorBoard:
    """Event files in RUN/tensorboard.

    They are written by TensorBoard's own record writer, not by its `Writer`, which would load TensorFlow where that
    is installed, and would hide a full disk in a thread.
    """

    modules: ClassVar = ("tensorboard",)
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, folder: Path, recipe: Recipe, earlier: Sequence[Mapping[str, float]]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        place = folder / "tensorboard"
        begun = any(place.glob("events.out.tfevents.*"))
        place.mkdir(parents=True, exist_ok=True)
        # Readers take the files by name: seconds first.
        name = f"events.out.tfevents.{time.time():010.0f}.{os.getpid()}"
        self._writer: Any = RecordWriter((place / name).open("ab", buffering=0))
        self._last: int | None = None
        self._write(file_version="brain.Event:2")
        if not begun:
            self._describe(recipe)
            for row in earlier:
                self.log(row)

    def log(self, row: Mapping[str, float]) -> None:
        """Write a scalar a figure."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        epoch = int(row["epoch"])
        if self._last is None or epoch <= self._last:
            # Tells readers to forget what was written of this epoch and later ones before training was killed.
            self._write(step=epoch, session_log=SessionLog(status=SessionLog.START))
        self._last = epoch
        values = [Summary.Value(tag=name, simple_value=value) for name, value in _figures(row).items()]
        self._write(step=epoch, summary=Summary(value=values))

    def close(self, status: str) -> None:  # noqa: ARG002 (an event file does not say how training ended)
        """Close the file."""
        self._writer.close()

    def _describe(self, recipe: Recipe) -> None:
        """The recipe as text, and as hyperparameters to compare runs by."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.summary_v2 import text_pb

        settings = {
            key: value if isinstance(value, bool | int | float) else _text(value)
            for key, value in recipe.flat().items()
        }
        self._write(summary=hparams_pb(settings))
        self._write(summary=text_pb("recipe", f"```toml\n{recipe.to_toml()}```"))

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.write(Event(wall_time=time.time(), **content).SerializeToString())


class MLflow:
    """An MLflow run, on the server that MLFLOW_TRACKING_URI names, else in RUN/mlflow.db.

    The experiment is called as the recipe, the run as its folder. The run's id lies in RUN/state/mlflow-run, so that
    training that goes on goes on in the same MLflow run if the server still has it.
    """

    modules: ClassVar = ("mlflow", "sqlalchemy", "alembic")
    # A server that does not answer must not hold training up for long; a hospital's machine reports to nobody; only
    # the command line prints.
    environment: ClassVar[Mapping[str, str]] = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }

    def __init__(self, folder: Path, recipe: Recipe, earlier: Sequence[Mapping[str, float]]) -> None:
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)  # what fails is told once, below
        local = f"sqlite:///{(folder.resolve() / 'mlflow.db').as_posix()}"
        self._client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or local)
        stored = RunFolder(folder).mlflow_run
        self._run, self._last = self._find(stored)
        if not self._run:
            self._run = self._begin(folder.resolve().name, recipe)
            files.write_text(stored, self._run)
        for row in earlier:
            self.log(row)

    def log(self, row: Mapping[str, float]) -> None:
        """Send the figures of an epoch."""
        from mlflow.entities import Metric

        epoch = int(row["epoch"])
        if epoch <= self._last:
            return
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, epoch) for name, value in (_figures(row) | {"epoch": epoch}).items()
        ]
        self._client.log_batch(self._run, metrics=metrics)
        self._last = epoch

    def close(self, status: str) -> None:
        """Tell the server how it ended."""
        self._client.set_terminated(self._run, status)

    def _find(self, stored: Path) -> tuple[str, int]:
        """The id of the run to go on with and its last epoch; an empty id where the server has no such run."""
        from mlflow.exceptions import MlflowException

        if not stored.is_file():
            return "", 0
        name = stored.read_text(encoding="utf-8").strip()
        try:
            run = self._client.get_run(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return "", 0
        if run.info.lifecycle_stage != "active":
            return "", 0
        self._client.update_run(name, status="RUNNING")
        return name, int(run.data.metrics.get("epoch", 0))

    def _begin(self, name: str, recipe: Recipe) -> str:
        from mlflow.entities import Param

        known = self._client.get_experiment_by_name(recipe.name)
        experiment = known.experiment_id if known else self._client.create_experiment(recipe.name)
        run = self._client.create_run(experiment, run_name=name, tags={"hilum.version": __version__})
        params = [Param(key, _text(value)) for key, value in recipe.flat().items()]
        for start in range(0, len(params), 100):  # a server takes no more at once
            self._client.log_batch(run.info.run_id, params=params[start : start + 100])
        return str(run.info.run_id)


TRACKERS: Mapping[str, type[TensorBoard] | type[MLflow]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def check(names: Sequence[str]) -> None:
    """Refuse, before any work, trackers that cannot be had.

    Raises:
        UsageError: No tracker of that name.
        MissingExtraError: Its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"no tracker {name!r}; there are: {nearest(name, TRACKERS)}")
    with _quiet():
        for tracker in map(TRACKERS.__getitem__, names):
            for variable, value in tracker.environment.items():
                os.environ.setdefault(variable, value)  # before the import, which reads some of them
            for module in tracker.modules:
                require(module, extra=EXTRA)


@contextlib.contextmanager
def open_trackers(names: Sequence[str], folder: Path, recipe: Recipe) -> Iterator[list[Tracker]]:
    """Yield the trackers of a run; one that fails later is left out with a warning, and training goes on.

    Args:
        names: Of `TRACKERS`.
        folder: The run's folder. Epochs in its history.csv that a tracker lacks are given to it first.
        recipe: What is trained.

    Raises:
        UsageError: No tracker of that name.
        MissingExtraError: Its package is not installed.
        TrainingError: A tracker cannot begin: no server, no right to write.
    """
    check(names)
    history = RunFolder(folder).history
    earlier = read_history(history) if history.is_file() else []
    trackers: list[_Careful] = []
    status = "FAILED"
    try:
        for name in dict.fromkeys(names):
            tracker = _begin(name, folder, recipe, earlier)
            trackers.append(_Careful(name, tracker))
        yield list(trackers)
        status = "FINISHED"
    except (KeyboardInterrupt, StoppedError):
        status = "KILLED"
        raise
    finally:
        for begun in trackers:
            begun.close(status)


class _Careful:
    """A tracker whose failure ends the tracking and not the training."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name = name
        self._tracker = tracker
        self._failed = False

    def log(self, row: Mapping[str, float]) -> None:
        if not self._failed:
            with self._careful():
                self._tracker.log(row)

    def close(self, status: str) -> None:
        with self._careful():
            self._tracker.close(status)

    @contextlib.contextmanager
    def _careful(self) -> Iterator[None]:
        try:
            with _quiet():
                yield
        except Exception as error:
            if not self._failed:
                words = "%s takes no more figures (%s); training goes on, and %s has every epoch"
                log.warning(words, self._name, _reason(error), HISTORY)
            self._failed = True


def _begin(name: str, folder: Path, recipe: Recipe, earlier: Sequence[Mapping[str, float]]) -> Tracker:
    try:
        with _quiet():
            return TRACKERS[name](folder, recipe, earlier)
    except Exception as error:
        raise TrainingError(
            f"{name} cannot begin to track the run: {_reason(error)}; mend it, or leave out --track {name}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the packages' own deprecations from whoever trains: they are not about the run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(error: Exception) -> str:
    """What went wrong, in one line without the password of an address."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return textwrap.shorten(re.sub(r"//[^/@\s]*@", "//", text), 200, placeholder=" ...")


def _figures(row: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != "epoch"}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
