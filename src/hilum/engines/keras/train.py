"""Batches -> a trained Keras classifier at its best epoch."""

import contextlib
import dataclasses
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from hilum.data.batches import Batches
from hilum.engines import Hooks, InitialWeights, Progress, Trained, Validation
from hilum.engines.feature_store import Shared, digest
from hilum.engines.features import LOOKED_AT, Compute, StoredBatches, fastest, store
from hilum.engines.keras import backend as backend, state
from hilum.engines.keras.losses import make_loss
from hilum.engines.keras.models import Classifier, build, in_full_precision, to_float
from hilum.engines.keras.optimizers import make_optimizer
from hilum.engines.keras.weights import unfold
from hilum.engines.policy import Policy
from hilum.engines.processes import find_processes
from hilum.engines.session import (
    NUM_IMAGES_TO_UNFOLD,
    SAVE_SECONDS,
    Position,
    no_best,
    no_memory,
    no_number,
    stop_asked,
)
from hilum.engines.stopwatch import Stopwatch
from hilum.engines.validation import validation_figures
from hilum.errors import TrainingError, UsageError
from hilum.recipe import Recipe

log = logging.getLogger(__name__)

BLOCK = 32  # images that go through a frozen backbone together
PARTS = ("features", "step", "validation")  # a step is compiled as one, loader included


def fit(
    recipe: Recipe,
    batches: Batches,
    validation: Validation,
    *,
    class_weights: np.ndarray,
    state: Path,
    resume: bool,
    hooks: Hooks,
    devices: int = 1,
    callbacks: Sequence[Any] = (),
    verbose: int = 0,
    features: Path | None = None,
) -> Trained:
    """Trains a model; see `hilum.engines.Engine.fit`, and `KerasEngine` for callbacks and verbose."""
    check_devices(devices)
    _be_deterministic(recipe.train.deterministic)
    with _memory_in_words(recipe):
        run = Run(recipe, batches, class_weights=class_weights, state=state)
        if recipe.stores_features:
            validation = run.store(validation, hooks, features)
        if resume and state.exists():
            run.load()
        try:
            run.fit(validation, hooks, callbacks=callbacks, verbose=verbose)
            stopped = "patience" if run.policy.out_of_patience else "epochs"
        except KeyboardInterrupt:
            if not run.best:
                raise
            stopped = "interrupted"
        return run.trained(stopped)


def check_devices(devices: int) -> None:
    """Refuses more than one process."""
    if find_processes(devices).number > 1:
        raise UsageError(
            "the keras engine trains in one process; leave out --devices, or train with --engine torch"
        )


def logits(model: Classifier, images: np.ndarray) -> np.ndarray:
    """Runs uint8 (n, size, size) images, or their stored features, through the model; returns float32 (n, findings)."""
    run = model.run if images.dtype == np.uint8 else model.head_model
    parts = [np.asarray(run(block), np.float32) for block in np.split(images, range(64, len(images), 64))]
    return np.concatenate(parts)


class Run:
    """One training: the model, its optimizer and the policy, from epoch to epoch.

    Attributes:
        history: One row an epoch.
        best: The weights of the best epoch so far; empty before the first.
        averages: The moving average of the weights; empty where the recipe wants none.
        policy: Decides.
        position: In the epoch under way.
        rows: Those of the table, by epoch and step, of the batches that are read and not yet trained on.
    """

    def __init__(self, recipe: Recipe, batches: Batches, *, class_weights: np.ndarray, state: Path) -> None:
        self.recipe = recipe
        self.batches: Batches | StoredBatches = batches
        self.state = state
        self.policy = Policy.of(recipe)
        self.position = Position()
        self.history = pd.DataFrame()
        self.best: list[np.ndarray] = []
        self.rows: dict[tuple[int, int], np.ndarray] = {}
        self.precision = resolve_precision(recipe.train.precision)
        self.stopwatch = Stopwatch(parts=PARTS)
        self.initial: InitialWeights
        # Folds and trials see the same backbone only if it is as its file has it.
        measure = not recipe.stores_features
        sample = batches.sample(NUM_IMAGES_TO_UNFOLD if measure else 1)
        self.model, self.initial = build(recipe, images=sample, precision=self.precision, measure=measure)
        self.model.learn = self._step
        self.optimizer = make_optimizer(
            self.model, recipe.train, most_frozen=min(self.policy.frozen, self._last_frozen())
        )
        self.model.compile(optimizer=self.optimizer, jit_compile=False)
        self.averages = [tf.Variable(value) for value in self.model.get_weights() if recipe.train.ema]
        self.num_updates = tf.Variable(0, dtype=tf.int64)
        self._gradients: dict[str, tf.Variable] = {}
        if recipe.train.accumulate > 1:
            self._gradients = {
                variable.path: tf.Variable(tf.zeros(variable.shape))
                for variable in self.optimizer._trainable_variables
            }
        self.loss = make_loss(recipe, smoothing=recipe.train.label_smoothing)
        self.class_weights = tf.constant(class_weights)
        self.saved = time.monotonic()
        log.info(
            "keras on %s, %s, %d trainable parameters",
            "cuda" if tf.config.list_physical_devices("GPU") else "cpu",
            self.precision,
            sum(math.prod(variable.shape) for variable in self.model.trainable_variables),
        )

    def store(self, validation: Validation, hooks: Hooks, folder: Path | None) -> Validation:
        """Puts what the frozen backbone makes of the images in their place; returns that of validation's.

        Args:
            validation: The images that steer.
            hooks: Who is told and asked.
            folder: Where the trainings of a study share it; None where this one is alone.
        """
        assert isinstance(self.batches, Batches)
        size, precision = self.recipe.data.size, self.precision
        compute = fast = _computing(self.model, size)
        if precision == "bf16":
            exact = _computing(in_full_precision(self.recipe, self.model), size)
            compute, _ = fastest(fast, exact, self.batches.sample(LOOKED_AT))
            precision = "bf16" if compute is fast else "fp32"
        shared = Shared(folder, self._depends_on(precision)) if folder else None
        with self.stopwatch.part("features"), ThreadPoolExecutor(1) as pool:
            self.batches, found = store(
                self.batches,
                validation,
                compute=compute,
                pool=pool,
                block=BLOCK,
                versions=self.recipe.train.stored_versions,
                folder=self.state.parent,
                hooks=hooks,
                shared=shared,
            )
        self.position.seconds = self.stopwatch.seconds()["features"]
        return found

    def _depends_on(self, precision: str) -> str:
        """The digest of all that stored features depend on beside the pictures."""
        # Rounding differs with the threads' number.
        threads = os.environ.get("TF_NUM_INTRAOP_THREADS"), os.environ.get("OMP_NUM_THREADS")
        device = "cuda" if tf.config.list_physical_devices("GPU") else "cpu"
        return digest(
            *("keras", keras.__version__, tf.__version__, threads),
            *(self.recipe.model.architecture, self.recipe.data.size, self.initial.mean, self.initial.std),
            *(self.model.head.reduces, precision, device, BLOCK),
            *self.model.backbone.get_weights(),
        )

    def fit(
        self, validation: Validation, hooks: Hooks, *, callbacks: Sequence[Any] = (), verbose: int = 0
    ) -> None:
        """Lets Keras train until the policy says that it is finished; what is left of an epoch begun has its own call.

        Args:
            validation: The images that steer.
            hooks: Who is told and asked.
            callbacks: More of Keras's own; they come last, so that they find the figures of validation in the logs.
            verbose: As in `keras.Model.fit`.
        """
        while not self.policy.finished:
            first = self.policy.epoch
            last = first + 1 if self.position.batches else self.recipe.train.epochs
            self.model.fit(
                self._stream(first + 1, last),
                initial_epoch=first,
                epochs=last,
                steps_per_epoch=self.batches.steps - self.position.batches,
                shuffle=False,
                verbose=verbose,
                callbacks=[Schedule(self), Steps(self, hooks), Decide(self, validation, hooks), *callbacks],
            )

    def trained(self, stopped: str) -> Trained:
        """The model with the weights of the best epoch, and of the last if the recipe wants them."""
        if not self.best:
            raise no_best(self.policy)
        final = None
        if self.recipe.train.keep_final:
            final = in_full_precision(self.recipe, self.model)
            final.set_weights(self.weights())
        best = in_full_precision(self.recipe, self.model)
        best.set_weights(self.best)
        for model in filter(None, (best, final)) if self.initial.folded else ():
            model.unfold = partial(self._unfold, model)
        return Trained(
            model=best,
            initial=self.initial,
            history=self.history,
            best_epoch=self.policy.best_epoch,
            stopped=stopped,
            precision=self.precision,
            final=final,
            profile=self.stopwatch.seconds(),
        )

    def _unfold(self, model: Any) -> None:
        images = self.batches.images if isinstance(self.batches, StoredBatches) else self.batches
        unfold(model.backbone, images.sample(NUM_IMAGES_TO_UNFOLD), self.initial)

    def save(self) -> None:
        """Writes all that going on needs; see `state.write`."""
        rest = {
            "recipe": self.recipe.to_toml(),
            "policy": self.policy.state(),
            "position": dataclasses.asdict(self.position),
            "stream": self.batches.state(self.policy.epoch + 1, self.position.batches),
            "num_updates": int(self.num_updates.numpy()),
            "history": self.history.to_dict(orient="list"),
        }
        tensors = {
            "model": [variable.numpy() for variable in self._variables()],
            "best": self.best,
            "averages": [value.numpy() for value in self.averages],
            "optimizer": [variable.numpy() for variable in self.optimizer.variables],
        }
        state.write(self.state, tensors, rest)
        self.saved = time.monotonic()

    def load(self) -> None:
        """Goes on from what `save` wrote."""
        tensors, rest = state.read(self.state)
        for group, variables in (
            ("model", self._variables()),
            ("averages", self.averages),
            ("optimizer", self.optimizer.variables),
        ):
            found = [value.shape for value in tensors[group]]
            if found != [tuple(variable.shape) for variable in variables]:
                raise TrainingError(
                    f"the state {self.state.name} is of another model ({group}); train anew without --resume"
                )
            for variable, value in zip(variables, tensors[group], strict=True):
                variable.assign(value)
        self.best = tensors["best"]
        # What a resumed run may have changed: how long to go on.
        renewed = {"epochs": self.recipe.train.epochs, "patience": self.recipe.train.patience}
        self.policy = Policy(**{**rest["policy"], **renewed})
        self.position = Position(**rest["position"])
        self.batches.resume(rest["stream"])  # refuses a state of other images or settings
        self.num_updates.assign(rest["num_updates"])
        self.history = pd.DataFrame(rest["history"])
        log.info("going on after epoch %d, batch %d", self.policy.epoch, self.position.batches)

    def weights(self) -> list[np.ndarray]:
        """What validation sees."""
        return [value.numpy() for value in self.averages] or list(self.model.get_weights())

    def _variables(self) -> list[Any]:
        """Of the model, the seeds of its dropouts included."""
        return list(self.model.variables)

    def _stream(self, first: int, last: int) -> Any:
        """What is left of some epochs, as a Dataset of images, labels, their share of a group, and whether it ends."""
        accumulate, steps, size = self.recipe.train.accumulate, self.batches.steps, self.recipe.data.size
        begun = self.position.batches
        last_whole = steps - steps % accumulate
        self.rows = {}

        def stream() -> Iterator[tuple[np.ndarray, np.ndarray, np.float32, bool]]:
            for number in range(first, last + 1):
                start = begun if number == first else 0
                for step, batch in enumerate(self.batches.epoch(number, start=start), start + 1):
                    self.rows[number, step] = batch.rows
                    together = accumulate if step <= last_whole else steps % accumulate
                    ends = step % accumulate == 0 or step == steps
                    yield batch.images, batch.labels, np.float32(1 / together), ends

        images = tf.TensorSpec((None, size, size), tf.uint8)
        if isinstance(self.batches, StoredBatches):
            images = tf.TensorSpec((None, *self.batches.shape), tf.float32)
        signature = (
            images,
            tf.TensorSpec((None, len(self.recipe.task.findings)), tf.float32),
            tf.TensorSpec((), tf.float32),
            tf.TensorSpec((), tf.bool),
        )
        return tf.data.Dataset.from_generator(stream, output_signature=signature).prefetch(1)

    def _step(self, data: Any) -> dict[str, Any]:
        """Adds the gradients of a batch, and moves the weights where a group of batches ends."""
        images, labels, share, ends = data
        with tf.GradientTape() as tape:
            total, count = self.loss(self.model(to_float(images), training=True), labels, self.class_weights)
            loss = total / tf.maximum(count, 1.0)
            penalised = (loss + self.recipe.model.l2 * self.model.head.penalty()) * share
        variables = self.model.trainable_variables
        gradients = tape.gradient(penalised, variables)
        if not self._gradients:
            self._update(gradients, variables)
            return {"loss": loss}
        sums = [self._gradients[variable.path] for variable in variables]
        for value, gradient in zip(sums, gradients, strict=True):
            value.assign_add(gradient)

        def update() -> Any:
            self._update([tf.identity(value) for value in sums], variables)
            for value in sums:
                value.assign(tf.zeros_like(value))
            return tf.constant(True)

        tf.cond(ends, update, lambda: tf.constant(False))
        return {"loss": loss}

    def _update(self, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Moves the weights, and their average after them."""
        settings = self.recipe.train
        if settings.clip_norm:
            factor = tf.minimum(settings.clip_norm / (tf.linalg.global_norm(gradients) + 1e-6), 1.0)
            gradients = [gradient * factor for gradient in gradients]
        self.optimizer.apply(gradients, variables)
        number = self.num_updates.assign_add(1)
        # The young average follows fast: its decay rises to the one asked for.
        decay = tf.minimum(settings.ema, tf.cast((1 + number) / (10 + number), tf.float32))
        for average, variable in zip(self.averages, self.model.weights if self.averages else (), strict=True):
            average.assign(average + (variable.value - average) * (1 - decay))

    def thaw(self) -> None:
        """Freezes what the policy wants frozen in the epoch that begins."""
        before = self.model.num_frozen
        self.model.freeze(self.policy.frozen_share)
        if self.model.num_frozen != before:
            log.info("%d layers of the backbone are frozen", self.model.num_frozen)
            self.model.make_train_function(force=True)

    def _last_frozen(self) -> float:
        return self.policy.thawed if self.policy.thaw_after else self.policy.frozen

    def validate(self, validation: Validation) -> dict[str, float]:
        """The loss, without class weights and smoothing, and the other figures of validation."""
        with self._averaged():
            outputs = logits(self.model, validation.images)
        plain = tf.ones((validation.labels.shape[1], 2))
        total, count = make_loss(self.recipe)(tf.constant(outputs), tf.constant(validation.labels), plain)
        multiclass = self.recipe.task.exclusive
        figures = validation_figures(validation.labels, outputs, multiclass=multiclass)
        return {"val_loss": float(total / tf.maximum(count, 1.0)), **figures}

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Puts the moving average in the weights' place for a while."""
        if not self.averages:
            yield
            return
        current = self.model.get_weights()
        self.model.set_weights([value.numpy() for value in self.averages])
        try:
            yield
        finally:
            self.model.set_weights(current)


class Schedule(keras.callbacks.Callback):
    """Freezes what the policy wants frozen, and hands its learning rate and momentum to the optimizer at each step."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Before each epoch."""
        self._run.thaw()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Before each step."""
        run = self._run
        within = run.position.batches / run.batches.steps
        run.optimizer.learning_rate = run.policy.learning_rate_at(within)
        momentum = run.policy.momentum_at(within)
        if momentum is not None:
            run.optimizer.momentum.assign(momentum)


class Steps(keras.callbacks.Callback):
    """Looks at each step's loss, tells of it, saves where it is time to, and stops where somebody asks for it."""

    def __init__(self, run: Run, hooks: Hooks) -> None:
        super().__init__()
        self._run = run
        self._hooks = hooks
        self._before = 0.0
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Starts the clock."""
        self._before = self._run.position.seconds
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """After each step."""
        run, position = self._run, self._run.position
        number, step, steps = run.policy.epoch + 1, position.batches + 1, run.batches.steps
        loss, rows = float(logs["loss"]), run.rows.pop((number, step))
        if not math.isfinite(loss):
            raise no_number(loss, run.policy, step=step, rows=rows.tolist())
        position.batches = step
        position.loss += loss * len(rows)
        position.images += len(rows)
        position.seconds = self._before + time.perf_counter() - self._started
        self._hooks.on_step(Progress(epoch=number, step=step, steps=steps, loss=loss))
        if step < steps and step % run.recipe.train.accumulate == 0:
            self._pause(step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Counts the seconds."""
        self._run.stopwatch.add("step", time.perf_counter() - self._started)

    def _pause(self, step: int) -> None:
        run, stop = self._run, self._hooks.should_stop()
        if not stop and time.monotonic() - run.saved < SAVE_SECONDS:
            return
        run.save()
        if stop:
            raise stop_asked(run.policy, step=step, steps=run.batches.steps)


class Decide(keras.callbacks.Callback):
    """Looks at validation where an epoch ends, lets the policy decide, saves, and tells of it."""

    def __init__(self, run: Run, validation: Validation, hooks: Hooks) -> None:
        super().__init__()
        self._run = run
        self._validation = validation
        self._hooks = hooks

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """After each epoch."""
        run, position = self._run, self._run.position
        learning_rate = run.policy.learning_rate_at(0)
        with run.stopwatch.part("validation"):
            figures = run.validate(self._validation)
        decision = run.policy.step(figures)
        if decision.best:
            run.best = run.weights()
        row = {
            "epoch": run.policy.epoch,
            "train_loss": position.loss / position.images,
            **figures,
            "learning_rate": learning_rate,
            "seconds": position.seconds,
        }
        run.history = pd.concat([run.history, pd.DataFrame([row])], ignore_index=True)
        run.position = Position()
        run.save()
        self._hooks.on_epoch(run.history)
        self.model.stop_training = run.policy.finished
        # For the callbacks behind this one.
        logs.update({"loss": row["train_loss"], "learning_rate": learning_rate, **figures})


def _computing(model: Classifier, size: int) -> Compute:
    """A model's frozen backbone, as `features.store` wants it."""

    @tf.function(input_signature=[tf.TensorSpec((None, size, size), tf.uint8)])  # type: ignore[untyped-decorator]
    def stored(images: Any) -> Any:
        return model.stored(to_float(images))

    return lambda images: np.asarray(stored(images), np.float32)


def resolve_precision(wanted: str) -> str:
    """`auto` -> `bf16` on a GPU that computes in it, else `fp32`."""
    if wanted != "auto":
        return wanted
    found = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(device) for device in found]
    return "bf16" if details and all(d.get("compute_capability", (0, 0))[0] >= 8 for d in details) else "fp32"


def _be_deterministic(wanted: bool) -> None:
    """Makes TensorFlow refuse what may differ from run to run.

    On the CPU it always does, so that a resumed run ends as one that was never stopped. TensorFlow has no public way
    back, which is why it stays so for the process.
    """
    if wanted or not tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def _memory_in_words(recipe: Recipe) -> Iterator[None]:
    """Turns a failed allocation into advice."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise no_memory(recipe) from error
