"""A TrainingJob -> a trained Keras classifier at its best epoch."""

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow

from hilum.engines.contract import Hooks, Trained, TrainingJob
from hilum.engines.feature_store import digest
from hilum.engines.features import NUM_COMPARED, Compute, Extractor, StoredBatches, choose_precision
from hilum.engines.keras.losses import make_loss
from hilum.engines.keras.models import KerasClassifier, build, in_full_precision, to_float
from hilum.engines.keras.optimizers import make_optimizer
from hilum.engines.keras.weights import unfold
from hilum.engines.processes import find_processes
from hilum.engines.session import TrainingSession, out_of_memory
from hilum.engines.state_file import Arrays
from hilum.engines.stopwatch import Stopwatch
from hilum.errors import TrainingError, UsageError
from hilum.recipe import Recipe

log = logging.getLogger(__name__)

BLOCK = 32  # images that go through a frozen backbone together
PARTS = ("features", "step", "validation")  # a step is compiled as one, loader included


def fit(job: TrainingJob, hooks: Hooks, *, callbacks: Sequence[Any] = (), verbose: int = 0) -> Trained:
    """Train a model; see `hilum.engines.Engine.fit`, and `KerasEngine` for callbacks and verbose."""
    check_devices(job.devices)
    be_deterministic(job.recipe.train.deterministic)
    with _memory_in_words(job.recipe):
        return KerasSession(job, hooks, callbacks=callbacks, verbose=verbose).run()


def check_devices(devices: int) -> None:
    """Refuse more than one process."""
    if find_processes(devices).number > 1:
        raise UsageError(
            "the keras engine trains in one process; leave out --devices, or train with --engine torch"
        )


def logits(model: KerasClassifier, images: np.ndarray) -> np.ndarray:
    """Run uint8 (n, size, size) images, or their stored features, through the model; return float32 (n, findings)."""
    run = model.run if images.dtype == np.uint8 else model.head_model
    parts = [np.asarray(run(block), np.float32) for block in np.split(images, range(64, len(images), 64))]
    return np.concatenate(parts)


class KerasSession(TrainingSession):
    """A training by `keras.Model.fit`, which calls the session back."""

    model: KerasClassifier

    def __init__(
        self, job: TrainingJob, hooks: Hooks, *, callbacks: Sequence[Any] = (), verbose: int = 0
    ) -> None:
        super().__init__(job, hooks, Stopwatch(parts=PARTS))
        recipe = job.recipe
        self._callbacks, self._verbose = callbacks, verbose
        self._rows: dict[tuple[int, int], np.ndarray] = {}  # of batches that are read and not yet trained on
        self.precision = resolve_precision(recipe.train.precision)
        self.model, self.initial = build(
            recipe, images=self.sample, precision=self.precision, measure=self.measures
        )
        self.model.learn = self._step
        self.optimizer = make_optimizer(self.model, recipe.train, most_frozen=self.policy.always_frozen_share)
        self.model.compile(optimizer=self.optimizer, jit_compile=False)
        self._averages = [
            tensorflow.Variable(value) for value in self.model.get_weights() if recipe.train.ema
        ]
        self._num_updates = tensorflow.Variable(0, dtype=tensorflow.int64)
        self._gradients: dict[str, Any] = {}
        if recipe.train.accumulate > 1:
            self._gradients = {
                variable.path: tensorflow.Variable(tensorflow.zeros(variable.shape))
                for variable in self.optimizer._trainable_variables
            }
        self._loss = make_loss(recipe, smoothing=recipe.train.label_smoothing)
        self._class_weights = tensorflow.constant(job.class_weights)
        log.info(
            "keras on %s, %s, %d trainable parameters",
            _device(),
            self.precision,
            sum(math.prod(variable.shape) for variable in self.model.trainable_variables),
        )

    @property
    def num_updates(self) -> int:
        """How often the weights were moved."""
        return int(self._num_updates.numpy())

    @num_updates.setter
    def num_updates(self, number: int) -> None:
        """Set it, for a run that goes on."""
        self._num_updates.assign(number)

    def train(self) -> None:
        """Let Keras train until the policy is finished; what is left of an epoch begun has its own call."""
        while not self.policy.finished:
            first = self.policy.epoch
            last = first + 1 if self.position.batches else self.recipe.train.epochs
            self.model.fit(
                self.stream(first + 1, last),
                initial_epoch=first,
                epochs=last,
                steps_per_epoch=self.batches.steps - self.position.batches,
                shuffle=False,
                verbose=self._verbose,
                callbacks=[StepCallback(self), EpochCallback(self), *self._callbacks],
            )

    def stream(self, first: int, last: int) -> Any:
        """Make a Dataset of what is left of some epochs: images, labels, their share of a group, whether it ends."""
        size, begun = self.recipe.data.size, self.position.batches
        self._rows = {}

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray, np.float32, bool]]:
            for epoch in range(first, last + 1):
                start = begun if epoch == first else 0
                for step, batch in enumerate(self.batches.epoch(epoch, start=start), start + 1):
                    self._rows[epoch, step] = batch.rows
                    share, ends = self.group(step)
                    yield batch.images, batch.labels, np.float32(share), ends

        images = tensorflow.TensorSpec((None, size, size), tensorflow.uint8)
        if isinstance(self.batches, StoredBatches):
            images = tensorflow.TensorSpec((None, *self.batches.shape), tensorflow.float32)
        signature = (
            images,
            tensorflow.TensorSpec((None, len(self.recipe.task.findings)), tensorflow.float32),
            tensorflow.TensorSpec((), tensorflow.float32),
            tensorflow.TensorSpec((), tensorflow.bool),
        )
        return tensorflow.data.Dataset.from_generator(batches, output_signature=signature).prefetch(1)

    def begin_step(self) -> None:
        """Hand the policy's learning rate and momentum to the optimizer."""
        within = self.position.batches / self.batches.steps
        self.optimizer.learning_rate = self.policy.learning_rate_at(within)
        momentum = self.policy.momentum_at(within)
        if momentum is not None:
            self.optimizer.momentum.assign(momentum)

    def end_step(self, loss: float) -> None:
        """Record a step that Keras has done."""
        step = self.position.batches + 1
        self.record(step, loss, self._rows.pop((self.policy.epoch + 1, step)))
        self.finish_step(step)

    def _step(self, data: Any) -> dict[str, Any]:
        """Add the gradients of a batch, and move the weights where a group of batches ends."""
        images, labels, share, ends = data
        with tensorflow.GradientTape() as tape:
            outputs = self.model(to_float(images), training=True)
            total, count = self._loss(outputs, labels, self._class_weights)
            loss = total / tensorflow.maximum(count, 1.0)
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
            self._update([tensorflow.identity(value) for value in sums], variables)
            for value in sums:
                value.assign(tensorflow.zeros_like(value))
            return tensorflow.constant(True)

        tensorflow.cond(ends, update, lambda: tensorflow.constant(False))
        return {"loss": loss}

    def _update(self, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Move the weights, and their average after them."""
        settings = self.recipe.train
        if settings.clip_norm:
            norm = tensorflow.linalg.global_norm(gradients)
            factor = tensorflow.minimum(settings.clip_norm / (norm + 1e-6), 1.0)
            gradients = [gradient * factor for gradient in gradients]
        self.optimizer.apply(gradients, variables)
        number = self._num_updates.assign_add(1)
        # The young average follows fast: its decay rises to the one asked for.
        decay = tensorflow.minimum(
            settings.ema, tensorflow.cast((1 + number) / (10 + number), tensorflow.float32)
        )
        weights = self.model.weights if self._averages else ()
        for average, variable in zip(self._averages, weights, strict=True):
            average.assign(average + (variable.value - average) * (1 - decay))

    def flush(self) -> None:
        """Do nothing: each step is recorded at once."""

    def after_thaw(self) -> None:
        """Compile the step anew: other variables learn."""
        self.model.make_train_function(force=True)

    def validation_logits(self) -> np.ndarray:
        """Run the images of validation through the model as it is; return float32 (n, findings)."""
        return logits(self.model, self.validation.images)

    def validation_loss(self, logits: np.ndarray) -> float:
        """Compute the mean loss of validation, without class weights and smoothing."""
        labels = tensorflow.constant(self.validation.labels)
        plain = tensorflow.ones((labels.shape[1], 2))
        total, count = make_loss(self.recipe)(tensorflow.constant(logits), labels, plain)
        return float(total / tensorflow.maximum(count, 1.0))

    def weights(self) -> Arrays:
        """Copy the model's weights."""
        return _numbered(self.model.get_weights())

    def set_weights(self, weights: Arrays) -> None:
        """Give the model weights as `weights` returns them."""
        self.model.set_weights(list(weights.values()))

    def averages(self) -> Arrays:
        """Copy the moving average of the weights; empty where the recipe wants none."""
        return _numbered([value.numpy() for value in self._averages])

    def state(self) -> dict[str, Arrays]:
        """Copy the model with the seeds of its dropouts, the averages, and the optimizer's variables."""
        return {
            group: _numbered([variable.numpy() for variable in variables])
            for group, variables in self._variables().items()
        }

    def set_state(self, state: Mapping[str, Arrays]) -> None:
        """Go on from tensors as `state` returns them.

        Raises:
            TrainingError: They are of another model.
        """
        for group, variables in self._variables().items():
            arrays = list(state[group].values())
            if [value.shape for value in arrays] != [tuple(variable.shape) for variable in variables]:
                raise TrainingError(
                    f"the state {self.job.state.name} is of another model ({group}); train anew without --resume"
                )
            for variable, value in zip(variables, arrays, strict=True):
                variable.assign(value)

    def _variables(self) -> dict[str, Sequence[Any]]:
        return {
            "model": self.model.variables,
            "averages": self._averages,
            "optimizer": self.optimizer.variables,
        }

    def finished_model(self, weights: Arrays) -> KerasClassifier:
        """Make a classifier in full precision that holds some weights and is not trained further."""
        model = in_full_precision(self.recipe, self.model)
        model.set_weights(list(weights.values()))
        return model

    def unfold(self, model: KerasClassifier, images: np.ndarray) -> None:
        """Unfold a finished model's batch norm with statistics of uint8 (n, size, size) images."""
        unfold(model.backbone, images, self.initial)

    @contextlib.contextmanager
    def extractor(self) -> Iterator[Extractor]:
        """Open what computes the features of a backbone that stays frozen."""
        size, precision = self.recipe.data.size, self.precision
        compute = fast = _computing(self.model, size)
        if precision == "bf16":
            exact = _computing(in_full_precision(self.recipe, self.model), size)
            compute, _ = choose_precision(fast, exact, self.job.batches.sample(NUM_COMPARED))
            precision = "bf16" if compute is fast else "fp32"
        with ThreadPoolExecutor(1) as pool:
            yield Extractor(compute, BLOCK, pool, self._features_key(precision))

    def _features_key(self, precision: str) -> str:
        """Return the digest of all that stored features depend on beside the pictures."""
        # Rounding differs with the threads' number.
        threads = os.environ.get("TF_NUM_INTRAOP_THREADS"), os.environ.get("OMP_NUM_THREADS")
        return digest(
            *("keras", keras.__version__, tensorflow.__version__, threads),
            *(self.recipe.model.architecture, self.recipe.data.size, self.initial.mean, self.initial.std),
            *(self.model.head.reduces, precision, _device(), BLOCK),
            *self.model.backbone.get_weights(),
        )


class StepCallback(keras.callbacks.Callback):
    """Begins the session's epochs and steps, and ends its steps."""

    def __init__(self, session: KerasSession) -> None:
        super().__init__()
        self._session = session
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Begin the epoch."""
        self._session.begin_epoch()
        self._started = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Begin the step."""
        self._session.begin_step()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """End the step."""
        self._session.end_step(float(logs["loss"]))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Count the seconds of the epoch's steps."""
        self._session.stopwatch.add("step", time.perf_counter() - self._started)


class EpochCallback(keras.callbacks.Callback):
    """Ends the session's epochs, and puts the figures into the logs for the callbacks behind this one."""

    def __init__(self, session: KerasSession) -> None:
        super().__init__()
        self._session = session

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """End the epoch."""
        row = self._session.end_epoch()
        self.model.stop_training = self._session.policy.finished
        logs.update({"loss": row["train_loss"]})
        logs.update({key: row[key] for key in row if key not in ("epoch", "train_loss", "seconds")})


def _numbered(values: Sequence[np.ndarray]) -> Arrays:
    """Name arrays by their place, so that alphabetical order is theirs."""
    return {f"{place:05d}": value for place, value in enumerate(values)}


def _computing(model: KerasClassifier, size: int) -> Compute:
    """Compile a model's frozen backbone."""
    signature = [tensorflow.TensorSpec((None, size, size), tensorflow.uint8)]

    @tensorflow.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def stored(images: Any) -> Any:
        return model.stored(to_float(images))

    return lambda images: np.asarray(stored(images), np.float32)


def find_gpu() -> str:
    """Return the name of the first GPU; empty where there is none."""
    gpus = tensorflow.config.list_physical_devices("GPU")
    details = tensorflow.config.experimental.get_device_details(gpus[0]) if gpus else {}
    return str(details.get("device_name", "GPU")) if gpus else ""


def _device() -> str:
    return "cuda" if tensorflow.config.list_physical_devices("GPU") else "cpu"


def resolve_precision(precision: str) -> str:
    """Return `bf16` for `auto` on a GPU that computes in it, else `fp32`."""
    if precision != "auto":
        return precision
    gpus = tensorflow.config.list_physical_devices("GPU")
    details = [tensorflow.config.experimental.get_device_details(gpu) for gpu in gpus]
    capable = [detail.get("compute_capability", (0, 0))[0] >= 8 for detail in details]
    return "bf16" if capable and all(capable) else "fp32"


def be_deterministic(wanted: bool) -> None:
    """Make TensorFlow refuse what may differ from run to run.

    On the CPU it always does, so that a resumed run ends as one that was never stopped. TensorFlow has no public way
    back, which is why it stays so for the process.
    """
    if wanted or not tensorflow.config.list_physical_devices("GPU"):
        tensorflow.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def _memory_in_words(recipe: Recipe) -> Iterator[None]:
    """Turn a failed allocation into advice."""
    try:
        yield
    except (tensorflow.errors.ResourceExhaustedError, MemoryError) as error:
        raise out_of_memory(recipe) from error
