"""Batches -> a trained PyTorch classifier at its best epoch."""

import contextlib
import copy
import dataclasses
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from lightning.fabric import Fabric
from torch import Tensor

from hilum.data.batches import Batch, Batches
from hilum.engines import Hooks, InitialWeights, Progress, Trained, Validation
from hilum.engines.feature_store import Shared, digest
from hilum.engines.features import LOOKED_AT, Compute, StoredBatches, fastest, store
from hilum.engines.policy import Policy
from hilum.engines.processes import Processes, find_processes
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
from hilum.engines.torch import state
from hilum.engines.torch.losses import make_loss
from hilum.engines.torch.memory import keep_freed_memory
from hilum.engines.torch.models import Classifier, build
from hilum.engines.torch.optimizers import make_optimizer
from hilum.engines.torch.weights import unfold
from hilum.engines.validation import validation_figures
from hilum.errors import UsageError
from hilum.recipe import Recipe

log = logging.getLogger(__name__)

STEPS_BETWEEN_LOOKS = 16  # at the losses on a GPU, which each look makes wait


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
    profile: bool = False,
    features: Path | None = None,
) -> Trained:
    """Trains a model; see `hilum.engines.Engine.fit`."""
    with torch.random.fork_rng(), _deterministic(recipe.train.deterministic), _memory_in_words(recipe):
        torch.manual_seed(recipe.train.seed)
        run = Run(recipe, batches, class_weights=class_weights, state=state, devices=devices, profile=profile)
        if recipe.stores_features:
            validation = run.store(validation, hooks, features)
        if resume and state.exists():
            run.load()
        stopped = "patience" if run.policy.out_of_patience else "epochs"
        try:
            while not run.policy.finished:
                run.epoch(validation, hooks)
                hooks.on_epoch(run.history)
                stopped = "patience" if run.policy.out_of_patience else "epochs"
        except KeyboardInterrupt:
            if not run.best:
                raise
            stopped = "interrupted"
        return run.trained(stopped)


def logits(model: Classifier, images: np.ndarray) -> np.ndarray:
    """Runs uint8 (n, size, size) images through the model in full precision; returns float32 (n, findings)."""
    model.eval()
    device = model.mean.device
    with torch.inference_mode():
        parts = [
            model(to_float(block, device)).float().cpu()
            for block in np.split(images, range(64, len(images), 64))
        ]
    return torch.cat(parts).numpy()


class Run:
    """One training: the model, its optimizer and the policy, from epoch to epoch.

    Attributes:
        history: One row an epoch.
        best: The state dict of the best epoch so far, on the CPU; empty before the first.
        averages: The moving average of the weights; empty where the recipe wants none.
        policy: Decides.
        position: In the epoch under way.
    """

    def __init__(
        self,
        recipe: Recipe,
        batches: Batches,
        *,
        class_weights: np.ndarray,
        state: Path,
        devices: int = 1,
        profile: bool = False,
    ) -> None:
        self.recipe = recipe
        self.batches: Batches | StoredBatches = batches
        self.state = state
        self.policy = Policy.of(recipe)
        self.position = Position()
        self.history = pd.DataFrame()
        self.best: dict[str, Tensor] = {}
        self.precision = resolve_precision(recipe.train.precision)
        self.processes = find_processes(devices)
        self.fabric = _fabric(self.processes, self.precision)
        self.fabric.launch()
        device = self.fabric.device
        if device.type == "cpu":
            keep_freed_memory()
        self.stopwatch = Stopwatch(torch.cuda.synchronize if profile and device.type == "cuda" else None)
        self.initial: InitialWeights
        # Folds and trials see the same backbone only if it is as its file has it.
        measure = not recipe.stores_features
        sample = batches.sample(NUM_IMAGES_TO_UNFOLD if measure else 1)
        self.module, self.initial = build(recipe, images=to_float(sample), measure=measure)
        self.module.to(device).to(memory_format=torch.channels_last)
        self.optimizer = self.fabric.setup_optimizers(
            make_optimizer(
                self.module, recipe.train, most_frozen=min(self.policy.frozen, self._last_frozen())
            )
        )
        self.model = self.fabric.setup_module(self.module)
        self.averages = {
            key: value.detach().clone()
            for key, value in self.module.state_dict().items()
            if recipe.train.ema and value.is_floating_point()
        }
        self.num_updates = 0
        self.loss = make_loss(recipe, smoothing=recipe.train.label_smoothing)
        self.class_weights = torch.from_numpy(class_weights).to(device)
        self.saved = time.monotonic()
        log.info(
            "torch on %s, %s, %d process(es), %d trainable parameters",
            device.type,
            self.precision,
            self.processes.number,
            sum(p.numel() for p in self.module.parameters() if p.requires_grad),
        )

    def store(self, validation: Validation, hooks: Hooks, folder: Path | None) -> Validation:
        """Puts what the frozen backbone makes of the images in their place; returns that of validation's.

        Args:
            validation: The images that steer.
            hooks: Who is told and asked.
            folder: Where the trainings of a study share it; None where this one is alone.
        """
        assert isinstance(self.batches, Batches)
        device = self.fabric.device
        self.module.eval()

        def exact(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                found: np.ndarray = self.module.stored(to_float(images, device)).float().cpu().numpy()
            return found

        def fast(images: np.ndarray) -> np.ndarray:
            with torch.autocast(device.type, torch.bfloat16):
                return exact(images)

        compute: Compute = exact
        if self.precision == "bf16":
            compute, _ = fastest(fast, exact, self.batches.sample(LOOKED_AT))
        # On a processor, blocks side by side with one thread each: threads within a layer wait for one another.
        number = torch.get_num_threads()
        workers, block = (number, 8) if device.type == "cpu" else (1, 64)
        depends_on = self._depends_on("bf16" if compute is fast else "fp32", block)
        shared = Shared(folder, depends_on) if folder else None
        threads = ThreadPoolExecutor(workers, initializer=partial(torch.set_num_threads, 1))
        try:
            with self.stopwatch.part("features"), threads as pool:
                self.batches, found = store(
                    self.batches,
                    validation,
                    compute=compute,
                    pool=pool,
                    block=block,
                    versions=self.recipe.train.stored_versions,
                    folder=self.state.parent,
                    hooks=hooks,
                    shared=shared,
                )
        finally:
            torch.set_num_threads(number)  # a part of the setting is the whole process's
        self.position.seconds = self.stopwatch.seconds()["features"]
        return found

    def _depends_on(self, precision: str, block: int) -> str:
        """The digest of all that stored features depend on beside the pictures."""
        state = self.module.backbone.state_dict()
        return digest(
            *("torch", torch.__version__, timm.__version__),
            *(self.recipe.model.architecture, self.recipe.data.size, self.initial.mean, self.initial.std),
            *(self.module.head.reduces, precision, self.fabric.device.type, block),
            *(part for key, value in state.items() for part in (key, value.detach().cpu().numpy())),
        )

    def epoch(self, validation: Validation, hooks: Hooks) -> None:
        """Trains one epoch, looks at validation, lets the policy decide, and saves."""
        self._thaw()
        number = self.policy.epoch + 1
        learning_rate = self.policy.learning_rate_at(0)
        self._train(number, hooks)
        with self.stopwatch.part("validation"):
            figures = self._validate(validation)
        decision = self.policy.step(figures)
        if decision.best:
            self.best = self._weights()
        row = {
            "epoch": number,
            "train_loss": self.position.loss / self.position.images,
            **figures,
            "learning_rate": learning_rate,
            "seconds": self.position.seconds,
        }
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
        self.position = Position()
        self.save()

    def trained(self, stopped: str) -> Trained:
        """The model with the weights of the best epoch, and of the last if the recipe wants them."""
        if not self.best:
            raise no_best(self.policy)
        final = None
        if self.recipe.train.keep_final:
            final = copy.deepcopy(self.module).eval()
            final.load_state_dict(self._weights())
        self.module.load_state_dict(self.best)
        for module in filter(None, (self.module, final)) if self.initial.folded else ():
            module.unfold = partial(self._unfold, module)
        return Trained(
            model=self.module.eval(),
            initial=self.initial,
            history=self.history,
            best_epoch=self.policy.best_epoch,
            stopped=stopped,
            precision=self.precision,
            final=final,
            profile=self.stopwatch.seconds(),
        )

    def _unfold(self, module: Classifier) -> None:
        images = self.batches.images if isinstance(self.batches, StoredBatches) else self.batches
        module.eval()
        sample = to_float(images.sample(NUM_IMAGES_TO_UNFOLD), module.mean.device)
        unfold(module.backbone, sample, self.initial)

    def save(self) -> None:
        """Writes all that going on needs; see `state.write`."""
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
        state.write(
            self.state,
            {"model": self.module.state_dict(), "best": self.best, "averages": self.averages},
            self.optimizer.optimizer,
            rest,
        )
        self.saved = time.monotonic()

    def load(self) -> None:
        """Goes on from what `save` wrote."""
        tensors, rest = state.read(self.state, self.optimizer.optimizer)
        self.module.load_state_dict(tensors["model"])
        self.best = tensors["best"]
        for key, value in tensors["averages"].items():
            self.averages[key].copy_(value)
        # What a resumed run may have changed: how long to go on.
        renewed = {"epochs": self.recipe.train.epochs, "patience": self.recipe.train.patience}
        self.policy = Policy(**{**rest["policy"], **renewed})
        self.position = Position(**rest["position"])
        self.batches.resume(rest["stream"])  # refuses a state of other images or settings
        self.num_updates = rest["num_updates"]
        self.history = pd.DataFrame(rest["history"])
        if not self.processes.leads:  # the state holds the leader's random numbers alone
            torch.manual_seed(hash((self.recipe.train.seed, self.policy.epoch, self.processes.rank)))
        log.info("going on after epoch %d, batch %d", self.policy.epoch, self.position.batches)

    def _train(self, number: int, hooks: Hooks) -> None:
        """Goes through what is left of an epoch."""
        self.model.train()
        settings, steps = self.recipe.train, self.batches.steps
        before, started = self.position.seconds, time.perf_counter()
        looks = 1 if self.fabric.device.type == "cpu" else STEPS_BETWEEN_LOOKS
        unseen: list[tuple[int, Batch, Tensor]] = []
        shard = (self.processes.rank, self.processes.number)
        batches = self.batches.epoch(number, start=self.position.batches, shard=shard)
        for step in range(self.position.batches + 1, steps + 1):
            with self.stopwatch.part("loader"):
                batch = next(batches)
            ends = step % settings.accumulate == 0 or step == steps
            together = (
                settings.accumulate
                if step <= steps - steps % settings.accumulate
                else steps % settings.accumulate
            )
            loss = self._backward(batch, share=1 / together, synchronise=ends)
            if ends:
                with self.stopwatch.part("optimizer"):
                    self._update(within=(step - 1) / steps)
            unseen.append((step, batch, loss))
            if len(unseen) == looks or step == steps:
                self._look(number, unseen, hooks)
                unseen = []
            self.position.batches = step
            self.position.seconds = before + time.perf_counter() - started
            if ends and step < steps:
                self._pause(number, step, unseen, hooks)

    def _backward(self, batch: Batch, *, share: float, synchronise: bool) -> Tensor:
        """Adds the gradients of a batch; returns its mean loss."""
        device, labels = self.fabric.device, torch.from_numpy(batch.labels)
        images = to_float(batch.images, device)
        if not len(labels):  # this process has no part of the batch, but goes along with the others
            images, labels = (
                torch.zeros(1, *images.shape[1:], device=device),
                torch.full((1, labels.shape[1]), math.nan),
            )
        with self.fabric.no_backward_sync(self.model, enabled=not synchronise and self.processes.number > 1):
            with self.stopwatch.part("forward"):
                total, count = self.loss(self.model(images), labels.to(device), self.class_weights)
                if self.processes.number > 1:
                    # The processes' gradients are averaged: this makes it the mean over the whole batch.
                    count = self._summed(count) / self.processes.number
                loss = total / count.clamp(min=1 / self.processes.number)
                penalised = loss + self.recipe.model.l2 * self.module.head.penalty()
            with self.stopwatch.part("backward"):
                self.fabric.backward(penalised * share if share != 1 else penalised)
        return loss.detach()

    def _update(self, *, within: float) -> None:
        """Moves the weights, and their average after them."""
        settings = self.recipe.train
        learning_rate, momentum = self.policy.learning_rate_at(within), self.policy.momentum_at(within)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
            if momentum is not None:
                key = "momentum" if "momentum" in group else "betas"
                group[key] = momentum if key == "momentum" else (momentum, group["betas"][1])
        if settings.clip_norm:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.num_updates += 1
        if self.averages:
            # The young average follows fast: its decay rises to the one asked for.
            decay = min(settings.ema, (1 + self.num_updates) / (10 + self.num_updates))
            current = self.module.state_dict()
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.averages.values()), [current[key] for key in self.averages], 1 - decay
                )

    def _look(self, number: int, steps: list[tuple[int, Batch, Tensor]], hooks: Hooks) -> None:
        """Reads the losses of some steps, which waits for the device, and tells of them."""
        losses = torch.stack([loss for _, _, loss in steps])
        if self.processes.number > 1:
            losses = self._summed(losses) / self.processes.number
        for (step, batch, _), loss in zip(steps, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise no_number(loss, self.policy, step=step, rows=batch.rows.tolist())
            self.position.loss += loss * len(batch.images)
            self.position.images += len(batch.images)
            hooks.on_step(Progress(epoch=number, step=step, steps=self.batches.steps, loss=loss))

    def _pause(self, number: int, step: int, unseen: list[tuple[int, Batch, Tensor]], hooks: Hooks) -> None:
        """Saves where it is time to, and stops where somebody asks for it."""
        stop = hooks.should_stop()
        if self.processes.number > 1:
            stop = bool(self._summed(torch.tensor(float(stop), device=self.fabric.device)))
        if not stop and time.monotonic() - self.saved < SAVE_SECONDS:
            return
        if unseen:
            self._look(number, unseen, hooks)
            unseen.clear()
        self.save()
        if stop:
            raise stop_asked(self.policy, step=step, steps=self.batches.steps)

    def _thaw(self) -> None:
        """Freezes what the policy wants frozen in the epoch that begins."""
        before = self.module.num_frozen
        self.module.freeze(self.policy.frozen_share)
        if self.module.num_frozen != before:
            log.info(
                "%d of %d layers of the backbone are frozen", self.module.num_frozen, len(self.module.layers)
            )
            if (
                self.processes.number > 1
            ):  # what joins the processes knows only the layers free when it was made
                self.model = self.fabric.setup_module(self.module)

    def _last_frozen(self) -> float:
        return self.policy.thawed if self.policy.thaw_after else self.policy.frozen

    def _validate(self, validation: Validation) -> dict[str, float]:
        """The loss, without class weights and smoothing, and the other figures of validation."""
        self.model.eval()
        device, (rank, number) = self.fabric.device, (self.processes.rank, self.processes.number)
        mine = np.array_split(validation.images, number)[rank]
        with self._averaged(), torch.inference_mode():
            parts = [
                self._outputs(to_float(block, device))
                for block in np.split(mine, range(64, len(mine), 64))
                if len(block)
            ]
        outputs = torch.cat(parts) if parts else torch.zeros(0, validation.labels.shape[1])
        if number > 1:
            gathered: list[Any] = [None] * number
            torch.distributed.all_gather_object(gathered, outputs)
            outputs = torch.cat(gathered)
        labels = torch.from_numpy(validation.labels)
        plain = torch.ones(validation.labels.shape[1], 2)
        total, count = make_loss(self.recipe)(outputs, labels, plain)
        multiclass = self.recipe.task.exclusive
        figures = validation_figures(validation.labels, outputs.numpy(), multiclass=multiclass)
        return {"val_loss": float(total / count.clamp(min=1)), **figures}

    def _outputs(self, images: Tensor) -> Tensor:
        """Logits of images in the training's precision, on the CPU."""
        with self.fabric.autocast():
            outputs: Tensor = self.module(images)
        return outputs.float().cpu()

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Puts the moving average in the weights' place for a while."""
        if not self.averages:
            yield
            return
        current = {key: value.clone() for key, value in self.module.state_dict().items()}
        self.module.load_state_dict({**current, **self.averages})
        try:
            yield
        finally:
            self.module.load_state_dict(current)

    def _weights(self) -> dict[str, Tensor]:
        """What validation sees, copied to the CPU."""
        kept: Mapping[str, Tensor] = {**self.module.state_dict(), **self.averages}
        return {key: value.detach().cpu().clone() for key, value in kept.items()}

    def _summed(self, value: Tensor) -> Tensor:
        summed: Tensor = self.fabric.all_reduce(value.float(), reduce_op="sum")
        return summed


def to_float(images: np.ndarray, device: Any = "cpu") -> Tensor:
    """uint8 (n, size, size) -> float32 in [0, 1] on the device; features stay as they are."""
    found = torch.from_numpy(images).to(device)
    return found if found.is_floating_point() else found.float().div_(255)


def resolve_precision(wanted: str) -> str:
    """`auto` -> `bf16` where this machine computes in it, else `fp32`."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def check_devices(devices: int) -> None:
    """Refuses more processes than this machine has GPUs, where it has any."""
    here, gpus = find_processes(devices).devices, torch.cuda.device_count()
    if gpus and here > gpus:
        raise UsageError(f"--devices {here}, but this machine has {gpus} GPU(s); ask for as many")


def _fabric(processes: Processes, precision: str) -> Fabric:
    check_devices(processes.devices)
    gpus = torch.cuda.device_count()
    # Lightning speaks of itself on the terminal, through handlers of its own.
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return Fabric(
        accelerator="cuda" if gpus else "cpu",
        devices=processes.devices,
        num_nodes=processes.machines,
        strategy="ddp" if processes.number > 1 else "auto",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )


@contextlib.contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Makes torch refuse what may differ from run to run, for a while."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def _memory_in_words(recipe: Recipe) -> Iterator[None]:
    """Turns a failed allocation into advice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise no_memory(recipe) from error
