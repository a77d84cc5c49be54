"""A storage of Optuna -> a queue of planned trials that outlives its workers; the only user of Optuna.

Every planned trial waits in the storage from the beginning. A worker takes one, and while it works its heart beats. A
trial whose worker has died is marked so and waits anew, as another trial of Optuna's with the same number here.
"""

import contextlib
import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hilum.errors import TrainingError, UsageError, require
from hilum.tuning.study import Dimension, encode, grid

EXTRA = "tune"
BEAT, GRACE = 10, 60
"""Seconds between two heartbeats, and after the last one until a worker on another machine counts as dead."""
MOST_DEATHS = 3
"""Workers that a trial may cost before it counts as failed."""
PATIENCE = 30.0
"""Seconds that one who joins waits for the one who began to write the plan down."""
LOCKED = 60
"""Seconds that SQLite waits for another process."""


@dataclass(frozen=True)
class Plan:
    """What is to be tried.

    Attributes:
        url: Of the storage.
        name: Of the study in it.
        minimise: Whether less of the figure is better.
        dimensions: What is varied.
        search: One of `study.SEARCHES`.
        trials: How many; for a grid all combinations.
        seed: Of the search.
        prune: Whether trials are ended early that do worse than half of those before.
        warm_up: Epochs before any is.
    """

    url: str = field(repr=False)  # it may hold a password
    name: str
    minimise: bool
    dimensions: tuple[Dimension, ...]
    search: str
    trials: int
    seed: int
    prune: bool
    warm_up: int


@dataclass(frozen=True)
class Outcome:
    """What became of a planned trial; `state` is one of `study.STATES`."""

    number: int
    state: str
    point: Mapping[str, Any]
    curve: tuple[float, ...]
    facts: Mapping[str, float]
    reason: str


class Taken:
    """A trial that this process works at.

    Attributes:
        number: From 1.
        point: `section.key` -> what is tried.
    """

    def __init__(self, trial: Any, number: int, point: Mapping[str, Any]) -> None:
        self._trial = trial
        self.number = number
        self.point = point

    def tell(self, epoch: int, value: float) -> bool:
        """Tell the monitored figure of an epoch; say whether the trial should end here."""
        if value != value:
            return False
        self._trial.report(value, epoch)
        return bool(self._trial.should_prune())

    def complete(self, value: float, facts: Mapping[str, float]) -> None:
        """End the trial with the figure of its best epoch."""
        self._end(lambda study: study.tell(self._trial, value), facts=dict(facts))

    def prune(self, facts: Mapping[str, float]) -> None:
        """End the trial early."""
        self._end(
            lambda study: study.tell(self._trial, state=_optuna().trial.TrialState.PRUNED), facts=dict(facts)
        )

    def fail(self, reason: str) -> None:
        """End the trial with the reason why there is no figure."""
        self._end(lambda study: study.tell(self._trial, state=_optuna().trial.TrialState.FAIL), reason=reason)

    def _end(self, tell: Any, **attributes: Any) -> None:
        """Tell the end, unless the trial was given to somebody else because this worker seemed dead."""
        with contextlib.suppress(ValueError, _optuna().exceptions.UpdateFinishedTrialError), _quiet():
            for name, value in attributes.items():
                self._trial.set_user_attr(name, value)
            tell(self._trial.study)


class Trials:
    """The queue; every process that works at a study has its own.

    Raises:
        UsageError: The storage's address is none, or its driver is not installed.
        TrainingError: The storage cannot be reached.
    """

    def __init__(self, plan: Plan) -> None:
        optuna = _optuna()
        self._plan = plan
        self._me = worker_name(os.getpid())
        self._pruner = optuna.pruners.NopPruner()
        if plan.prune:
            self._pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=plan.warm_up + 1)
        with _quiet():
            self._storage = _storage(plan.url, self._again)
            direction = "minimize" if plan.minimise else "maximize"
            try:
                self._study = optuna.create_study(
                    storage=self._storage, study_name=plan.name, direction=direction, pruner=self._pruner
                )
                self.new = True
            except optuna.exceptions.DuplicatedStudyError:
                self._study = optuna.load_study(
                    storage=self._storage, study_name=plan.name, pruner=self._pruner
                )
                self.new = False

    @property
    def definition(self) -> Mapping[str, Any]:
        """What the study was begun with; empty where nobody wrote it down."""
        return json.loads(self._study.user_attrs.get("definition", "{}"))  # type: ignore[no-any-return]

    def plan(self, definition: Mapping[str, Any]) -> None:
        """Write down what is to be tried, unless it stands there, and add trials where more are wanted than before.

        Args:
            definition: What every process that joins must have in common, of the types that JSON has.
        """
        if self.new:
            self._study.set_user_attr("definition", json.dumps(definition))
        ends = time.monotonic() + PATIENCE
        while not self.new and "planned" not in self._study.user_attrs and time.monotonic() < ends:
            time.sleep(0.2)  # somebody else has just begun and is still writing
        if self._study.user_attrs.get("planned", 0) >= self._plan.trials:
            return
        points: list[dict[str, Any]] = [{}] * self._plan.trials
        if self._plan.search == "grid":
            points = list(grid(self._plan.dimensions))
        there = {trial.user_attrs["number"] for trial in self._all()}
        for number, point in enumerate(points, start=1):
            if number not in there:
                values = {key: encode(value) for key, value in point.items()}
                self._study.enqueue_trial(values, user_attrs={"number": number})
        self._study.set_user_attr("planned", len(points))

    def take(self) -> Taken | None:
        """Take the next waiting trial; None where none waits."""
        optuna = _optuna()
        for waiting in self._all("WAITING"):
            trial_id = waiting._trial_id
            try:
                if not self._storage.set_trial_state_values(trial_id, optuna.trial.TrialState.RUNNING):
                    continue
            except optuna.exceptions.UpdateFinishedTrialError:
                continue
            number = waiting.user_attrs["number"]
            self._storage.set_trial_user_attr(trial_id, "worker", self._me)
            with _quiet():
                # Seeded by the trial: workers with one seed would all try the same.
                seed = self._plan.seed * 1_000_003 + number
                self._study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True)
                trial = optuna.trial.Trial(self._study, trial_id)
                point = {each.key: _suggest(trial, each) for each in self._plan.dimensions}
            return Taken(trial, number, point)
        return None

    @contextlib.contextmanager
    def beating(self, taken: Taken) -> Iterator[None]:
        """Let others see, for a while, that somebody works at a trial."""
        ended = threading.Event()
        trial_id = taken._trial._trial_id

        def beat() -> None:
            while not ended.is_set():
                with contextlib.suppress(_optuna().exceptions.StorageInternalError):
                    self._storage.record_heartbeat(trial_id)
                ended.wait(BEAT)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def requeue_dead(self) -> None:
        """Let the trials of workers that died wait anew: at once on this machine, elsewhere after `GRACE` seconds."""
        with _quiet():
            _optuna().storages.fail_stale_trials(self._study)
            for trial in self._all("RUNNING"):
                if self._is_dead(trial) and self._mark_failed(trial):
                    self._again(self._study, trial)

    def give_back(self, worker: str = "") -> None:
        """Let the trials of a worker that was stopped on purpose wait anew; this process's own by default."""
        with _quiet():
            for trial in self._all("RUNNING"):
                if trial.user_attrs.get("worker") == (worker or self._me):
                    self._storage.set_trial_user_attr(trial._trial_id, "given_back", True)
                    if self._mark_failed(trial):
                        self._enqueue_again(trial, deaths=_deaths(trial))

    def has_worked(self, worker: str) -> bool:
        """Whether a worker ever took a trial."""
        return any(trial.user_attrs.get("worker") == worker for trial in self._all())

    @property
    def waiting(self) -> int:
        """Trials that wait."""
        return len(self._all("WAITING"))

    @property
    def running(self) -> int:
        """Trials under way, here or elsewhere."""
        return len(self._all("RUNNING"))

    @property
    def planned(self) -> int:
        """Trials that were asked for."""
        return int(self._study.user_attrs.get("planned", 0))

    @property
    def begun_again(self) -> int:
        """Trials that were begun anew because their worker had died, each time counted."""
        return sum(bool(trial.user_attrs.get("again")) for trial in self._all())

    def outcomes(self) -> list[Outcome]:
        """What became of the planned trials that came to an end, by number."""
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        found = []
        for trial in self._all(*names):
            reason = trial.user_attrs.get("reason", "")
            if trial.state.name == "FAIL" and not reason:
                if trial.user_attrs.get("given_back") or _deaths(trial) + 1 < MOST_DEATHS:
                    continue
                reason = f"its worker died {MOST_DEATHS} times; is there enough memory?"
            curve = trial.intermediate_values
            found.append(
                Outcome(
                    number=trial.user_attrs["number"],
                    state=names[trial.state.name],
                    point={
                        each.key: _decode(each, trial.params[each.key])
                        for each in self._plan.dimensions
                        if each.key in trial.params
                    },
                    curve=tuple(
                        curve.get(epoch, float("nan")) for epoch in range(1, max(curve, default=0) + 1)
                    ),
                    facts=trial.user_attrs.get("facts", {}),
                    reason=reason,
                )
            )
        return sorted(found, key=lambda outcome: outcome.number)

    def importances(self) -> dict[str, float]:
        """Key -> share of the variance that it explains; empty for fewer than four complete trials or two keys."""
        optuna = _optuna()
        complete = self._all("COMPLETE")
        varied = [
            each.key
            for each in self._plan.dimensions
            if len({str(trial.params[each.key]) for trial in complete}) > 1
        ]
        if len(complete) < 4 or len(varied) < 2 or len({trial.value for trial in complete}) < 2:
            return {}
        with _quiet():
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            found = optuna.importance.get_param_importances(
                self._study, evaluator=evaluator, params=varied, normalize=False
            )
        return {key: float(share) for key, share in found.items()}

    def _all(self, *states: str) -> list[Any]:
        """The trials of Optuna's in some states, all where none is named; those begun again come more than once."""
        state = _optuna().trial.TrialState
        wanted = tuple(state[name] for name in states) or None
        return [
            trial
            for trial in self._study.get_trials(deepcopy=False, states=wanted)
            if "number" in trial.user_attrs
        ]

    def _is_dead(self, trial: Any) -> bool:
        """Whether the process that took a trial is gone from this machine, or died before it could say who it was."""
        host, _, process = trial.user_attrs.get("worker", "").rpartition(":")
        if not host:
            begun = trial.datetime_start
            return begun is not None and datetime.now() - begun > timedelta(seconds=GRACE)
        if host != socket.gethostname() or os.name == "nt":  # where asking for a process would end it
            return False
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        # A number that has come round again: this process knows what it works at.
        return False

    def _mark_failed(self, trial: Any) -> bool:
        """End a trial; False where somebody else did."""
        optuna = _optuna()
        try:
            return bool(self._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL))
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def _again(self, _study: Any, trial: Any) -> None:
        """Let a trial wait anew whose worker died, unless it has cost too many."""
        deaths = _deaths(trial) + 1
        if deaths < MOST_DEATHS:
            self._enqueue_again(trial, deaths=deaths, again=True)

    def _enqueue_again(self, trial: Any, **attributes: Any) -> None:
        values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        self._study.enqueue_trial(values, user_attrs={"number": trial.user_attrs["number"], **attributes})


def worker_name(process: int) -> str:
    """How a process of this machine is known in the storage."""
    return f"{socket.gethostname()}:{process}"


@contextlib.contextmanager
def storage_in_words() -> Iterator[None]:
    """Turn a storage that fails into words."""
    try:
        yield
    except _optuna().exceptions.StorageInternalError as error:
        raise TrainingError(
            f"the study's storage failed ({_short(error.__cause__ or error)}); what was done is kept, "
            "run the same command to go on"
        ) from error


def _optuna() -> Any:
    return require("optuna", extra=EXTRA)


def _storage(url: str, again: Any) -> Any:
    """Open a storage of rows and columns, with hearts that beat."""
    optuna, sqlalchemy = _optuna(), require("sqlalchemy", extra=EXTRA)
    try:
        address = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise UsageError(
            "--storage is no address of a database, such as sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from None
    shown = address.render_as_string(hide_password=True)
    sqlite = address.get_backend_name() == "sqlite"
    for attempt in range(3):
        try:
            storage = optuna.storages.RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": LOCKED}} if sqlite else {},
                heartbeat_interval=BEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=again,
            )
            break
        except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
            raise UsageError(
                f"--storage {shown} needs a driver that is not installed: {_short(error)}"
            ) from None
        except sqlalchemy.exc.SQLAlchemyError as error:
            if attempt == 2:  # two that begin at once may both make the tables
                raise TrainingError(f"the storage {shown} cannot be opened: {_short(error)}") from error
            time.sleep(0.5)
    if sqlite:
        _lock_first(storage.engine)
    return storage


def _lock_first(engine: Any) -> None:
    """Make SQLite lock before it reads, so that two workers never find the same trial waiting."""
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections opened before know nothing of it


def _suggest(trial: Any, dimension: Dimension) -> Any:
    """The value of a dimension in a trial."""
    if dimension.choices:
        stored = trial.suggest_categorical(dimension.key, list(map(encode, dimension.choices)))
        return _decode(dimension, stored)
    if dimension.whole:
        return trial.suggest_int(dimension.key, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(dimension.key, dimension.low, dimension.high, log=dimension.log)


def _decode(dimension: Dimension, stored: Any) -> Any:
    return next((choice for choice in dimension.choices if encode(choice) == stored), stored)


def _deaths(trial: Any) -> int:
    """Workers that the trial had cost before this attempt."""
    return int(trial.user_attrs.get("deaths", 0))


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's notices and its warnings of what is experimental from the terminal, for a while."""
    logging = _optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=_optuna().exceptions.ExperimentalWarning)
            yield
    finally:
        logging.set_verbosity(before)
