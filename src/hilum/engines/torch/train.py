"""Batches -> a trained PyTorch classifier at its best epoch."""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from hilum.data.batches import Batches
from hilum.engines import InitialWeights, Progress, Trained, Validation
from hilum.engines.policy import Policy, validation_auroc
from hilum.engines.torch.models import Classifier, build
from hilum.errors import TrainingError
from hilum.files import replacing
from hilum.recipe import Recipe

log = logging.getLogger(__name__)

NUM_IMAGES_TO_UNFOLD = 512
ADAM_EPSILON = 1e-7  # Keras's; PyTorch's own is 1e-8
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def fit(
    recipe: Recipe,
    batches: Batches,
    validation: Validation,
    *,
    class_weights: np.ndarray,
    state: Path,
    resume: bool,
    on_step: Callable[[Progress], None],
    on_epoch: Callable[[pd.DataFrame], None],
) -> Trained:
    """Trains a model; see `hilum.engines.Engine.fit`."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.train.seed)
        run = Run(recipe, batches, class_weights=class_weights)
        if resume and state.exists():
            run.load(state)
        stopped = "patience" if run.policy.out_of_patience else "epochs"
        try:
            while not run.policy.finished:
                run.epoch(validation, on_step)
                run.save(state)
                on_epoch(run.history)
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
        policy: Decides.
    """

    def __init__(self, recipe: Recipe, batches: Batches, *, class_weights: np.ndarray) -> None:
        self.recipe = recipe
        self.batches = batches
        self.policy = Policy.of(recipe.train)
        self.history = pd.DataFrame()
        self.best: dict[str, Tensor] = {}
        self.precision = resolve_precision(recipe.train.precision)
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        self.fabric = Fabric(
            accelerator=accelerator,
            devices=1,
            precision="bf16-mixed" if self.precision == "bf16" else "32-true",
        )
        self.initial: InitialWeights
        self.module, self.initial = build(recipe, images=to_float(batches.sample(NUM_IMAGES_TO_UNFOLD)))
        self.module.to(memory_format=torch.channels_last)
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        options = {"weight_decay": recipe.train.weight_decay} if recipe.train.optimizer == "adamw" else {}
        optimizer = OPTIMIZERS[recipe.train.optimizer](
            parameters, lr=recipe.train.learning_rate, eps=ADAM_EPSILON, fused=True, **options
        )
        self.model, self.optimizer = self.fabric.setup(self.module, optimizer)
        self.class_weights = torch.from_numpy(class_weights).to(self.fabric.device)
        log.info(
            "torch on %s, %s, %d trainable parameters",
            accelerator,
            self.precision,
            sum(p.numel() for p in parameters),
        )

    def epoch(self, validation: Validation, on_step: Callable[[Progress], None]) -> None:
        """Trains one epoch, looks at validation, and lets the policy decide."""
        number = self.policy.epoch + 1
        learning_rate = self.policy.learning_rate_at(0)
        started = time.perf_counter()
        train_loss = self._train(number, on_step)
        train_seconds = time.perf_counter() - started
        val_loss, val_auroc = self._validate(validation)
        decision = self.policy.step(val_loss=val_loss, val_auroc=val_auroc)
        if decision.best:
            self.best = {key: value.detach().cpu().clone() for key, value in self.module.state_dict().items()}
        row = {
            "epoch": number,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "val_auroc": val_auroc,
            "learning_rate": learning_rate,
            "seconds": train_seconds,
        }
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)

    def _train(self, number: int, on_step: Callable[[Progress], None]) -> float:
        self.model.train()
        total, seen = 0.0, 0
        for step, batch in enumerate(self.batches.epoch(number), start=1):
            for group in self.optimizer.param_groups:
                group["lr"] = self.policy.learning_rate_at((step - 1) / self.batches.steps)
            images = to_float(batch.images, self.fabric.device)
            labels = torch.from_numpy(batch.labels).to(self.fabric.device)
            loss = masked_bce(self.model(images), labels, self.class_weights)
            penalised = loss + self.recipe.model.l2 * _squares(self.module.head.layers[:-1])
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(penalised)
            self.optimizer.step()
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss became {value} in epoch {number}, step {step}; "
                    f"lower train.learning_rate (now {self.policy.learning_rate:g}) or set train.precision=fp32"
                )
            total += value * len(batch.images)
            seen += len(batch.images)
            on_step(Progress(epoch=number, step=step, steps=self.batches.steps, loss=value))
        return total / seen

    def _validate(self, validation: Validation) -> tuple[float, float]:
        self.model.eval()
        with torch.inference_mode():
            parts = [
                self.model(to_float(block, self.fabric.device)).float()
                for block in np.split(validation.images, range(64, len(validation.images), 64))
            ]
        outputs = torch.cat(parts)
        labels = torch.from_numpy(validation.labels).to(outputs.device)
        loss = masked_bce(outputs, labels, torch.ones_like(self.class_weights))
        return float(loss), validation_auroc(validation.labels, outputs.cpu().numpy())

    def trained(self, stopped: str) -> Trained:
        """The model with the weights of the best epoch."""
        if not self.best:
            raise TrainingError(
                f"no epoch had a usable {self.policy.monitor} on validation; "
                "set train.monitor=val_loss, or give validation images of both kinds"
            )
        self.module.load_state_dict(self.best)
        model = self.module.eval()
        return Trained(model, self.initial, self.history, self.policy.best_epoch, stopped, self.precision)

    def save(self, path: Path) -> None:
        """Writes all that going on needs, as one file: tensors, and the rest as JSON in its metadata."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"model.{key}": value for key, value in self.module.state_dict().items()}
        tensors |= {f"best.{key}": value for key, value in self.best.items()}
        for index, slots in optimizer["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in slots.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        rest = {
            "recipe": self.recipe.to_toml(),
            "policy": self.policy.state(),
            "history": self.history.to_dict(orient="list"),
        }
        contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        try:
            with replacing(path) as temporary:
                save_file(contiguous, temporary, metadata={"state": json.dumps(rest)})
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"the training state could not be written ({error}); free some space and go on with --resume"
            ) from error

    def load(self, path: Path) -> None:
        """Goes on from what `save` wrote."""
        try:
            with safe_open(path, framework="pt") as file:
                rest = json.loads(file.metadata()["state"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"the state {path.name} cannot be read ({error}); train anew without --resume"
            ) from None
        self.module.load_state_dict(_part(tensors, "model."))
        self.best = _part(tensors, "best.")
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in _part(tensors, "optimizer.").items():
            index, name = key.split(".", 1)
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                # The fused optimizer walks memory: its moments must lie in memory as their parameter does.
                value = torch.empty_like(parameter).copy_(value)
            slots.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        self.policy = Policy(**{**rest["policy"], **_renewed(self.recipe)})
        self.history = pd.DataFrame(rest["history"])
        log.info("going on after epoch %d", self.policy.epoch)


def masked_bce(outputs: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Mean weighted binary cross-entropy over the labels that are known.

    Args:
        outputs: Logits (batch, findings).
        labels: (batch, findings), NaN unknown.
        class_weights: (findings, 2), of absent and of present.
    """
    known = ~torch.isnan(labels)
    target = torch.where(known, labels, torch.zeros_like(labels))
    loss = binary_cross_entropy_with_logits(outputs.float(), target, reduction="none")
    weight = torch.where(target > 0.5, class_weights[:, 1], class_weights[:, 0])
    loss = torch.where(known, loss * weight, torch.zeros_like(loss))
    return loss.sum() / known.sum().clamp(min=1)


def to_float(images: np.ndarray, device: Any = "cpu") -> Tensor:
    """uint8 (n, size, size) -> float32 in [0, 1] on the device."""
    return torch.from_numpy(images).to(device).float().div_(255)


def resolve_precision(wanted: str) -> str:
    """`auto` -> `bf16` where this machine computes in it, else `fp32`."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def _squares(layers: nn.ModuleList) -> Tensor | float:
    return sum((layer.weight.square().sum() for layer in layers), 0.0)  # type: ignore[operator]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _renewed(recipe: Recipe) -> dict[str, int]:
    """What a resumed run may have changed: how long to go on."""
    return {"epochs": recipe.train.epochs, "patience": recipe.train.patience}
