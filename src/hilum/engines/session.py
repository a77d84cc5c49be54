"""The run of a training, alike in every engine: epochs, pauses, history, state and the best weights."""

import contextlib
import dataclasses
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from hilum.data.batches import Batches
from hilum.engines.contract import Hooks, InitialWeights, Progress, Trained, TrainingJob
from hilum.engines.feature_store import Shared
from hilum.engines.features import Extractor, StoredBatches, store_features
from hilum.engines.policy import Policy
from hilum.engines.processes import find_processes
from hilum.engines.state_file import Arrays, read_state, write_state
from hilum.engines.stopwatch import Stopwatch
from hilum.engines.validation import validation_figures
from hilum.errors import NotANumberError, StoppedError, TrainingError
from hilum.recipe import Recipe

log = logging.getLogger(__name__)

NUM_IMAGES_TO_UNFOLD = 512
SAVE_SECONDS = 600.0  # the most that is lost of a long epoch


@dataclass
class Position:
    """Where in an epoch training stands.

    Attributes:
        batches: Done, of the epoch under way.
        loss: Sum of the steps' mean losses, each times its images.
        images: Seen in the epoch.
        seconds: Spent on it.
    """

    batches: int = 0
    loss: float = 0.0
    images: int = 0
    seconds: float = 0.0


class TrainingSession(ABC):
    """One training, from epoch to epoch.

    An engine supplies the model, its steps, its outputs on validation, and its weights and other tensors as arrays.
    It calls `begin_epoch`, then `record` and `finish_step` for each step, then `end_epoch`.

    Attributes:
        job: What to train.
        hooks: Whom to tell.
        batches: The training images, or the stored features of a frozen backbone.
        validation: The images that steer, or their features.
        policy: Decides.
        position: In the epoch under way.
        history: One row an epoch.
        best: The weights of the best epoch so far, on the CPU; empty before the first.
        processes: That train the model together.
        stopwatch: Measures the profile.
        model: The engine's classifier; it has `freeze`, `num_frozen` and `num_layers`.
        initial: Where the backbone's first weights came from.
        precision: `fp32` or `bf16`.
        num_updates: How often the weights were moved.
    """

    model: Any
    initial: InitialWeights
    precision: str
    num_updates: int

    def __init__(self, job: TrainingJob, hooks: Hooks, stopwatch: Stopwatch) -> None:
        self.job = job
        self.hooks = hooks
        self.batches: Batches | StoredBatches = job.batches
        self.validation = job.validation
        self.policy = Policy.of(job.recipe)
        self.position = Position()
        self.history = pd.DataFrame()
        self.best: Arrays = {}
        self.processes = find_processes(job.devices)
        self.stopwatch = stopwatch
        self._saved = time.monotonic()
        self._clock_offset = 0.0

    @abstractmethod
    def train(self) -> None:
        """Train epoch after epoch until the policy is finished."""

    @abstractmethod
    def extractor(self) -> AbstractContextManager[Extractor]:
        """Open what computes the features of a backbone that stays frozen."""

    @abstractmethod
    def validation_logits(self) -> np.ndarray:
        """Run the images of validation through the model as it is; return float32 (n, findings)."""

    @abstractmethod
    def validation_loss(self, logits: np.ndarray) -> float:
        """Compute the mean loss of validation, without class weights and smoothing."""

    @abstractmethod
    def weights(self) -> Arrays:
        """Copy the model's weights."""

    @abstractmethod
    def set_weights(self, weights: Arrays) -> None:
        """Give the model weights as `weights` returns them."""

    @abstractmethod
    def averages(self) -> Arrays:
        """Copy the moving average of the weights; empty where the recipe wants none."""

    @abstractmethod
    def state(self) -> dict[str, Arrays]:
        """Copy the tensors needed to go on, beside the best weights: of the model, the averages, the optimizer."""

    @abstractmethod
    def set_state(self, state: Mapping[str, Arrays]) -> None:
        """Go on from tensors as `state` returns them."""

    @abstractmethod
    def finished_model(self, weights: Arrays) -> Any:
        """Make a classifier in full precision that holds some weights and is not trained further."""

    @abstractmethod
    def unfold(self, model: Any, images: np.ndarray) -> None:
        """Unfold a finished model's batch norm with statistics of uint8 (n, size, size) images."""

    def agree_to_stop(self, stop: bool) -> bool:
        """Return whether any of the processes was asked to stop."""
        return stop

    @abstractmethod
    def flush(self) -> None:
        """Record the losses of steps that are not recorded yet."""

    @abstractmethod
    def after_thaw(self) -> None:
        """Do what a framework needs once other layers are frozen than before."""

    @property
    def recipe(self) -> Recipe:
        """What to build and how to train it."""
        return self.job.recipe

    @property
    def sample(self) -> np.ndarray:
        """Training images for `build`, uint8 (n, size, size): many where folded batch norm is to be measured."""
        return self.job.batches.sample(NUM_IMAGES_TO_UNFOLD if self.measures else 1)

    @property
    def measures(self) -> bool:
        """Whether folded batch norm is unfolded before training.

        It is not where features are stored: folds and trials see the same backbone only if it is as its file has it.
        """
        return not self.recipe.stores_features

    def run(self) -> Trained:
        """Train from the beginning, or from the state that is there, to the end; return the best weights."""
        if self.recipe.stores_features:
            self._store_features()
        if self.job.resume and self.job.state.exists():
            self.load()
        interrupted = False
        try:
            self.train()
        except KeyboardInterrupt:
            if not self.best:
                raise
            interrupted = True
        return self._trained(interrupted=interrupted)

    def _store_features(self) -> None:
        """Put what the frozen backbone makes of the images in their place."""
        folder = self.job.features
        with self.stopwatch.part("features"), self.extractor() as extractor:
            self.batches, self.validation = store_features(
                self.job.batches,
                self.validation,
                extractor,
                versions=self.recipe.train.stored_versions,
                folder=self.job.state.parent,
                hooks=self.hooks,
                shared=Shared(folder, extractor.key) if folder else None,
            )
        self.position.seconds = self.stopwatch.seconds()["features"]

    def begin_epoch(self) -> None:
        """Freeze what the policy wants frozen in the epoch that begins, and start the clock."""
        before = self.model.num_frozen
        self.model.freeze(self.policy.frozen_share)
        if self.model.num_frozen != before:
            log.info(
                "%d of %d layers of the backbone are frozen", self.model.num_frozen, self.model.num_layers
            )
            self.after_thaw()
        self._clock_offset = self.position.seconds - time.perf_counter()

    def group(self, step: int) -> tuple[float, bool]:
        """Return a step's share in its group of accumulated steps, and whether it ends the group."""
        accumulate, steps = self.recipe.train.accumulate, self.batches.steps
        whole = step <= steps - steps % accumulate
        return 1 / (accumulate if whole else steps % accumulate), step % accumulate == 0 or step == steps

    def record(self, step: int, loss: float, rows: np.ndarray) -> None:
        """Add a step's loss to the epoch's, and tell of it.

        Args:
            step: Of the epoch, from 1.
            loss: The mean over the batch.
            rows: The table's rows of the batch.

        Raises:
            NotANumberError: The loss is not a number.
        """
        epoch = self.policy.epoch + 1
        if not math.isfinite(loss):
            raise _not_a_number(loss, self.policy, step=step, rows=rows.tolist())
        self.position.loss += loss * len(rows)
        self.position.images += len(rows)
        self.hooks.on_step(Progress(epoch=epoch, step=step, steps=self.batches.steps, loss=loss))

    def finish_step(self, step: int) -> None:
        """Move the position on; between groups of steps save where it is time to, and stop where asked.

        Raises:
            StoppedError: `hooks.should_stop` said so; the state is saved.
        """
        self.position.batches = step
        self.position.seconds = self._clock_offset + time.perf_counter()
        if step == self.batches.steps or step % self.recipe.train.accumulate:
            return
        stop = self.agree_to_stop(self.hooks.should_stop())
        if not stop and time.monotonic() - self._saved < SAVE_SECONDS:
            return
        self.flush()
        self.save()
        if stop:
            raise StoppedError(
                f"stopped from outside in epoch {self.policy.epoch + 1} after step {step} of {self.batches.steps}; "
                "the state is saved, go on with --resume"
            )

    def end_epoch(self) -> dict[str, float]:
        """Compute the figures of validation, let the policy decide, save, and tell; return the row of history."""
        learning_rate = self.policy.learning_rate_at(0)
        with self.stopwatch.part("validation"):
            figures = self.validate()
        if self.policy.step(figures).best:
            self.best = self.kept_weights()
        row = {
            "epoch": self.policy.epoch,
            "train_loss": self.position.loss / self.position.images,
            **figures,
            "learning_rate": learning_rate,
            "seconds": self.position.seconds,
        }
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
        self.position = Position()
        self.save()
        self.hooks.on_epoch(self.history)
        return row

    def validate(self) -> dict[str, float]:
        """Compute `val_loss` and the other figures of validation, with the averaged weights where there are some."""
        labels = self.validation.labels
        with self._averaged():
            logits = self.validation_logits()
        figures = validation_figures(labels, logits, multiclass=self.recipe.task.exclusive)
        return {"val_loss": self.validation_loss(logits), **figures}

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the moving average in the weights' place for a while."""
        averages = self.averages()
        if not averages:
            yield
            return
        current = self.weights()
        self.set_weights({**current, **averages})
        try:
            yield
        finally:
            self.set_weights(current)

    def kept_weights(self) -> Arrays:
        """Copy the weights that validation sees."""
        return {**self.weights(), **self.averages()}

    def save(self) -> None:
        """Write all that going on needs; see `state_file`."""
        if not self.processes.leads:
            return
        rest = {
            "recipe": self.recipe.to_toml(),
            "policy": self.policy.state(),
            "position": dataclasses.asdict(self.position),
            "stream": self.batches.state(self.policy.epoch + 1, self.position.batches),
            "num_updates": self.num_updates,
            "history": self.history.to_dict(orient="list"),
        }
        write_state(self.job.state, {**self.state(), "best": self.best}, rest)
        self._saved = time.monotonic()

    def load(self) -> None:
        """Go on from what `save` wrote.

        Raises:
            TrainingError: The state is damaged, or of another model, other images or settings.
        """
        tensors, rest = read_state(self.job.state)
        self.set_state(tensors)
        self.best = tensors["best"]
        # What a resumed run may have changed: how long to go on.
        renewed = {"epochs": self.recipe.train.epochs, "patience": self.recipe.train.patience}
        self.policy = Policy(**{**rest["policy"], **renewed})
        self.position = Position(**rest["position"])
        self.batches.resume(rest["stream"])
        self.num_updates = rest["num_updates"]
        self.history = pd.DataFrame(rest["history"])
        log.info("going on after epoch %d, batch %d", self.policy.epoch, self.position.batches)

    def _trained(self, *, interrupted: bool) -> Trained:
        """Return the model at the best epoch, and at the last if the recipe wants it."""
        if not self.best:
            raise TrainingError(
                f"no epoch had a usable {self.policy.monitor} on validation; "
                "set train.monitor=val_loss, or give validation images of both kinds"
            )
        best = self.finished_model(self.best)
        final = self.finished_model(self.kept_weights()) if self.recipe.train.keep_final else None
        if self.initial.folded:
            for model in filter(None, (best, final)):
                model.unfold = partial(self._unfold, model)
        finished = "patience" if self.policy.out_of_patience else "epochs"
        return Trained(
            model=best,
            initial=self.initial,
            history=self.history,
            best_epoch=self.policy.best_epoch,
            stopped="interrupted" if interrupted else finished,
            precision=self.precision,
            final=final,
            profile=self.stopwatch.seconds(),
        )

    def _unfold(self, model: Any) -> None:
        self.unfold(model, self.job.batches.sample(NUM_IMAGES_TO_UNFOLD))


def out_of_memory(recipe: Recipe) -> TrainingError:
    """Return the error, with its remedy, where memory was not enough."""
    size, half = recipe.train.batch_size, max(recipe.train.batch_size // 2, 2)
    return TrainingError(
        f"out of memory with batches of {size} images of {recipe.data.size} pixels; "
        f"set train.batch_size={half} and train.accumulate={recipe.train.accumulate * 2} "
        "(the same effective batch), or a smaller data.size"
    )


def _not_a_number(loss: float, policy: Policy, *, step: int, rows: Sequence[int]) -> NotANumberError:
    return NotANumberError(
        f"the loss became {loss} in epoch {policy.epoch + 1}, step {step}; lower train.learning_rate "
        f"(now {policy.learning_rate:g}), set train.clip_norm=1, or train.precision=fp32",
        rows,
    )
