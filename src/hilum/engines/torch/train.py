"""A TrainingJob -> a trained PyTorch classifier at its best epoch."""

import contextlib
import copy
import logging
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import timm
import torch
from lightning.fabric import Fabric
from torch import Tensor

from hilum.data.batches import Batch
from hilum.engines.contract import Hooks, Trained, TrainingJob
from hilum.engines.feature_store import digest
from hilum.engines.features import NUM_COMPARED, Compute, Extractor, choose_precision
from hilum.engines.processes import Processes, find_processes
from hilum.engines.session import TrainingSession, out_of_memory
from hilum.engines.state_file import Arrays
from hilum.engines.stopwatch import Stopwatch
from hilum.engines.torch.losses import make_loss
from hilum.engines.torch.memory import keep_freed_memory
from hilum.engines.torch.models import TorchClassifier, build, to_float
from hilum.engines.torch.optimizers import make_optimizer
from hilum.engines.torch.weights import unfold
from hilum.errors import UsageError
from hilum.recipe import Recipe

log = logging.getLogger(__name__)

STEPS_BETWEEN_LOSSES = 16  # on a GPU, where reading a loss waits for the device
BATCH = 64  # images that go through the model together where it does not learn


def fit(job: TrainingJob, hooks: Hooks) -> Trained:
    """Train a model; see `hilum.engines.Engine.fit`."""
    recipe = job.recipe
    with torch.random.fork_rng(), _deterministic(recipe.train.deterministic), _memory_in_words(recipe):
        torch.manual_seed(recipe.train.seed)
        return TorchSession(job, hooks).run()


def logits(model: TorchClassifier, images: np.ndarray) -> np.ndarray:
    """Run uint8 (n, size, size) images through the model in full precision; return float32 (n, findings)."""
    model.eval()
    device = model.mean.device
    with torch.inference_mode():
        parts = [
            model(to_float(block, device)).float().cpu()
            for block in np.split(images, range(BATCH, len(images), BATCH))
        ]
    return torch.cat(parts).numpy()


class TorchSession(TrainingSession):
    """A training by PyTorch; Lightning Fabric gives device, precision and processes.

    Attributes:
        model: The classifier.
        wrapped: The same, as Fabric trains it.
    """

    model: TorchClassifier

    def __init__(self, job: TrainingJob, hooks: Hooks) -> None:
        recipe = job.recipe
        self.precision = resolve_precision(recipe.train.precision)
        self.fabric = _fabric(find_processes(job.devices), self.precision)
        self.fabric.launch()
        device = self.fabric.device
        if device.type == "cpu":
            keep_freed_memory()
        waits = job.profile and device.type == "cuda"
        super().__init__(job, hooks, Stopwatch(torch.cuda.synchronize if waits else None))
        self.model, self.initial = build(recipe, images=to_float(self.sample), measure=self.measures)
        self.model.to(device).to(memory_format=torch.channels_last)
        optimizer = make_optimizer(self.model, recipe.train, most_frozen=self.policy.always_frozen_share)
        self.optimizer = self.fabric.setup_optimizers(optimizer)
        self.wrapped = self.fabric.setup_module(self.model)
        self._averages = {
            key: value.detach().clone()
            for key, value in self.model.state_dict().items()
            if recipe.train.ema and value.is_floating_point()
        }
        self.num_updates = 0
        self._loss = make_loss(recipe, smoothing=recipe.train.label_smoothing)
        self._class_weights = torch.from_numpy(job.class_weights).to(device)
        self._unrecorded: list[tuple[int, Batch, Tensor]] = []
        log.info(
            "torch on %s, %s, %d process(es), %d trainable parameters",
            device.type,
            self.precision,
            self.processes.number,
            sum(p.numel() for p in self.model.parameters() if p.requires_grad),
        )

    def train(self) -> None:
        """Train epoch after epoch until the policy is finished."""
        while not self.policy.finished:
            self.begin_epoch()
            self.train_epoch()
            self.end_epoch()

    def train_epoch(self) -> None:
        """Go through what is left of the epoch."""
        self.model.train()
        steps, start = self.batches.steps, self.position.batches
        at_once = 1 if self.fabric.device.type == "cpu" else STEPS_BETWEEN_LOSSES
        shard = (self.processes.rank, self.processes.number)
        batches = self.batches.epoch(self.policy.epoch + 1, start=start, shard=shard)
        for step in range(start + 1, steps + 1):
            with self.stopwatch.part("loader"):
                batch = next(batches)
            share, ends = self.group(step)
            loss = self._backward(batch, share=share, synchronise=ends)
            if ends:
                with self.stopwatch.part("optimizer"):
                    self._update(within=(step - 1) / steps)
            self._unrecorded.append((step, batch, loss))
            if len(self._unrecorded) == at_once or step == steps:
                self.flush()
            self.finish_step(step)

    def _backward(self, batch: Batch, *, share: float, synchronise: bool) -> Tensor:
        """Add the gradients of a batch; return its mean loss."""
        device, labels = self.fabric.device, torch.from_numpy(batch.labels)
        images, several = to_float(batch.images, device), self.processes.number > 1
        if not len(labels):  # this process has no part of the batch, but goes along with the others
            images = torch.zeros(1, *images.shape[1:], device=device)
            labels = torch.full((1, labels.shape[1]), math.nan)
        with self.fabric.no_backward_sync(self.wrapped, enabled=not synchronise and several):
            with self.stopwatch.part("forward"):
                total, count = self._loss(self.wrapped(images), labels.to(device), self._class_weights)
                if several:
                    # The processes' gradients are averaged: this makes it the mean over the whole batch.
                    count = self._summed(count) / self.processes.number
                loss = total / count.clamp(min=1 / self.processes.number)
                penalised = loss + self.recipe.model.l2 * self.model.head.penalty()
            with self.stopwatch.part("backward"):
                self.fabric.backward(penalised * share if share != 1 else penalised)
        return loss.detach()

    def _update(self, *, within: float) -> None:
        """Move the weights, and their average after them."""
        settings = self.recipe.train
        learning_rate, momentum = self.policy.learning_rate_at(within), self.policy.momentum_at(within)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
            if momentum is not None:
                key = "momentum" if "momentum" in group else "betas"
                group[key] = momentum if key == "momentum" else (momentum, group["betas"][1])
        if settings.clip_norm:
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.num_updates += 1
        if self._averages:
            # The young average follows fast: its decay rises to the one asked for.
            decay = min(settings.ema, (1 + self.num_updates) / (10 + self.num_updates))
            current, averages = self.model.state_dict(), self._averages
            with torch.no_grad():
                torch._foreach_lerp_(list(averages.values()), [current[key] for key in averages], 1 - decay)

    def flush(self) -> None:
        """Read the losses of the steps since the last time, which waits for the device, and record them."""
        if not self._unrecorded:
            return
        steps, self._unrecorded = self._unrecorded, []
        losses = torch.stack([loss for _, _, loss in steps])
        if self.processes.number > 1:
            losses = self._summed(losses) / self.processes.number
        for (step, batch, _), loss in zip(steps, losses.tolist(), strict=True):
            self.record(step, loss, batch.rows)

    def agree_to_stop(self, stop: bool) -> bool:
        """Return whether any of the processes was asked to stop."""
        if self.processes.number > 1:
            return bool(self._summed(torch.tensor(float(stop), device=self.fabric.device)))
        return stop

    def after_thaw(self) -> None:
        """Join the processes anew: what joins them knows only the layers that were free when it was made."""
        if self.processes.number > 1:
            self.wrapped = self.fabric.setup_module(self.model)

    def validation_logits(self) -> np.ndarray:
        """Run the images of validation through the model in the training's precision, each process its part."""
        self.wrapped.eval()
        rank, number = self.processes.rank, self.processes.number
        images = np.array_split(self.validation.images, number)[rank]
        with torch.inference_mode(), self.fabric.autocast():
            parts = [
                self.model(to_float(block, self.fabric.device)).float().cpu()
                for block in np.split(images, range(BATCH, len(images), BATCH))
                if len(block)
            ]
        outputs = torch.cat(parts) if parts else torch.zeros(0, self.validation.labels.shape[1])
        if number > 1:
            gathered: list[Any] = [None] * number
            torch.distributed.all_gather_object(gathered, outputs)
            outputs = torch.cat(gathered)
        return outputs.numpy()

    def validation_loss(self, logits: np.ndarray) -> float:
        """Compute the mean loss of validation, without class weights and smoothing."""
        labels = torch.from_numpy(self.validation.labels)
        total, count = make_loss(self.recipe)(
            torch.from_numpy(logits), labels, torch.ones(labels.shape[1], 2)
        )
        return float(total / count.clamp(min=1))

    def weights(self) -> Arrays:
        """Copy the model's weights."""
        return _arrays(self.model.state_dict())

    def set_weights(self, weights: Arrays) -> None:
        """Give the model weights as `weights` returns them."""
        self.model.load_state_dict(_tensors(weights))

    def averages(self) -> Arrays:
        """Copy the moving average of the weights; empty where the recipe wants none."""
        return _arrays(self._averages)

    def state(self) -> dict[str, Arrays]:
        """Copy the model, the averages, the optimizer's moments, and the state of torch's random numbers."""
        slots = {
            f"{index}.{key}": value
            for index, parameter in self.optimizer.optimizer.state_dict()["state"].items()
            for key, value in parameter.items()
            if value is not None
        }
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        return {
            "model": self.weights(),
            "averages": self.averages(),
            "optimizer": _arrays(slots),
            "random": _arrays(random),
        }

    def set_state(self, state: Mapping[str, Arrays]) -> None:
        """Go on from tensors as `state` returns them."""
        self.set_weights(state["model"])
        for key, value in _tensors(state["averages"]).items():
            self._averages[key].copy_(value)
        optimizer = self.optimizer.optimizer
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        slots: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, value in _tensors(state["optimizer"]).items():
            index, _, key = name.partition(".")
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                # The fused optimizer walks memory: its moments must lie in memory as their parameter does.
                value = torch.empty_like(parameter).copy_(value)
            slots[int(index)][key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": dict(slots)})
        random = _tensors(state["random"])
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["cuda"])

    def load(self) -> None:
        """Go on from what `save` wrote; it holds the leader's random numbers alone."""
        super().load()
        if not self.processes.leads:
            torch.manual_seed(hash((self.recipe.train.seed, self.policy.epoch, self.processes.rank)))

    def finished_model(self, weights: Arrays) -> TorchClassifier:
        """Make a classifier that holds some weights and is not trained further."""
        model = copy.deepcopy(self.model).eval()
        model.load_state_dict(_tensors(weights))
        return model

    def unfold(self, model: TorchClassifier, images: np.ndarray) -> None:
        """Unfold a finished model's batch norm with statistics of uint8 (n, size, size) images."""
        model.eval()
        unfold(model.backbone, to_float(images, model.mean.device), self.initial)

    @contextlib.contextmanager
    def extractor(self) -> Iterator[Extractor]:
        """Open what computes the features of a backbone that stays frozen."""
        device = self.fabric.device
        self.model.eval()

        def exact(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                features: np.ndarray = self.model.stored(to_float(images, device)).float().cpu().numpy()
            return features

        def fast(images: np.ndarray) -> np.ndarray:
            with torch.autocast(device.type, torch.bfloat16):
                return exact(images)

        compute: Compute = exact
        if self.precision == "bf16":
            compute, _ = choose_precision(fast, exact, self.job.batches.sample(NUM_COMPARED))
        # On a processor, blocks side by side with one thread each: threads within a layer wait for one another.
        threads = torch.get_num_threads()
        workers, block = (threads, 8) if device.type == "cpu" else (1, 64)
        key = self._features_key("bf16" if compute is fast else "fp32", block)
        try:
            with ThreadPoolExecutor(workers, initializer=partial(torch.set_num_threads, 1)) as pool:
                yield Extractor(compute, block, pool, key)
        finally:
            torch.set_num_threads(threads)  # a part of the setting is the whole process's

    def _features_key(self, precision: str, block: int) -> str:
        """Return the digest of all that stored features depend on beside the pictures."""
        weights = self.model.backbone.state_dict()
        return digest(
            *("torch", torch.__version__, timm.__version__),
            *(self.recipe.model.architecture, self.recipe.data.size, self.initial.mean, self.initial.std),
            *(self.model.head.reduces, precision, self.fabric.device.type, block),
            *(part for key, value in weights.items() for part in (key, value.detach().cpu().numpy())),
        )

    def _summed(self, value: Tensor) -> Tensor:
        total: Tensor = self.fabric.all_reduce(value.float(), reduce_op="sum")
        return total


def _arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """Copy tensors to NumPy arrays."""
    return {key: value.detach().cpu().clone().numpy() for key, value in tensors.items()}


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {key: torch.tensor(value) for key, value in arrays.items()}


def find_gpu() -> str:
    """Return the name of the first GPU; empty where there is none."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


def resolve_precision(precision: str) -> str:
    """Return `bf16` for `auto` where this machine computes in it, else `fp32`."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def check_devices(devices: int) -> None:
    """Refuse more processes than this machine has GPUs, where it has any."""
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
    """Make torch refuse what may differ from run to run, for a while."""
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
    """Turn a failed allocation into advice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise out_of_memory(recipe) from error
