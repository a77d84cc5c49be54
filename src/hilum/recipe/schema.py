"""One TOML file <-> a Recipe: everything a run needs, checked before anything is read or trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hilum.recipe import architectures
from hilum.recipe.losses import LOSSES
from hilum.recipe.validation_metrics import METRICS
from hilum.recipe.values import InputSpec, RecipeSection, Task

if TYPE_CHECKING:
    Monitor = str
    LossName = str
else:  # the names are in one place each, and a type checker reads no dict
    Monitor = Literal["val_loss", *METRICS]
    LossName = Literal["auto", *LOSSES]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Whole = Annotated[int, Field(ge=1)]


class DataSettings(InputSpec):
    """How a radiograph becomes the square that the network sees."""

    phantoms: Annotated[int, Field(ge=0)] = 0
    """How many synthetic radiographs to make where no data are given; 0 means that data must be given."""


class SplitSettings(RecipeSection):
    """Which images train, which steer (validation), and which are kept for the test."""

    method: Literal["patient", "folders", "official", "given", "list", "image"] = "patient"
    """`patient`: at random, a patient's images together. `folders`: the source's own test, validation carved from
    the rest by patient. `official`: the data set's published lists, likewise. `given`: the source's own train, val and
    test as they are, however few steer (Kermany's 16). `list`: a file of image and split.
    `image`: at random by image, which leaks patients and is called leaky wherever it shows."""
    val: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Fraction for validation."""
    test: Fraction = 0.2
    """Fraction for the test (not used where the source has its own)."""
    seed: int = 0
    """Seed of the random choice."""
    list: Path | None = None
    """For `list`: a CSV file with the columns image and split."""
    folds: Annotated[int, Field(ge=0, le=100)] = 0
    """For cross-validation: all that is not the source's own test is divided into so many folds by patient, of which
    one is the test; 0 is none. `hilum crossval` sets this key and the next."""
    fold: Annotated[int, Field(ge=1)] = 1
    """Which of the folds is the test."""

    @model_validator(mode="after")
    def _fits(self) -> "SplitSettings":
        if self.folds == 1 or self.fold > max(self.folds, 1):
            raise ValueError(
                f"fold {self.fold} of {self.folds}: folds from 2 on, and a fold among them, expected"
            )
        if self.folds and self.method == "image":
            raise ValueError("folds are drawn by patient; method = 'image' does not go with them")
        if self.method == "list" and not self.list:
            raise ValueError("method = 'list' needs list = 'FILE.csv' with the columns image and split")
        if self.val + self.test >= 1:
            raise ValueError(f"val + test = {self.val + self.test:g} leaves nothing to train on")
        return self


class BalanceSettings(RecipeSection):
    """What is done about rare classes, on the training split only."""

    method: Literal["none", "class-weights", "positive-weights", "oversample", "downsample"] = "none"
    """`class-weights`: in the loss each class weighs inversely to its frequency, per finding. `positive-weights`: only
    the present weigh more, by absent / present. `oversample`: images of rarer classes come several times an epoch.
    `downsample`: images of commoner classes are left out at random, for the whole training."""
    number: Annotated[int, Field(ge=0)] = 0
    """For `downsample`: the most images a class keeps; 0 is as many as the rarest class has."""
    weigh_rest: bool = False
    """For `downsample`: whether what stays unequal weighs in the loss as by `class-weights`."""

    @model_validator(mode="after")
    def _number(self) -> "BalanceSettings":
        if self.number and self.method != "downsample":
            raise ValueError("number goes with method = 'downsample'")
        return self


class AugmentSettings(RecipeSection):
    """Random changes to training images; 0 is none. The geometric ones are one warp."""

    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest angle in degrees, either way."""
    shift: Fraction = 0.0
    """Largest shift as a fraction of the side, each axis."""
    shear: Annotated[float, Field(ge=0, le=45)] = 0.0
    """Largest shear angle in degrees."""
    zoom: Fraction = 0.0
    """Largest relative change of scale."""
    flip: bool = False
    """Mirror half of the images; it puts the heart on the other side, so it is off unless asked for."""
    brightness: Fraction = 0.0
    """Largest shift of the grey value, as a fraction of the range."""
    contrast: Fraction = 0.0
    """Largest relative change of contrast."""
    noise: Fraction = 0.0
    """Largest standard deviation of Gaussian noise, as a fraction of the range."""
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Images and labels of a batch are blended in pairs, the share drawn from Beta(mixup, mixup)."""


class ModelSettings(RecipeSection):
    """The network."""

    architecture: str = "densenet121"
    """The backbone; `hilum recipes --architectures` lists them."""
    weights: str = "imagenet"
    """Initial weights of the backbone: `imagenet` (from the hub), `none` (random), or a path to a .safetensors or
    .npz file."""
    scaling: Literal["weights", "unit"] = "weights"
    """What the backbone is given. `weights`: grey values scaled as its initial weights were trained to see them.
    `unit`: values from 0 to 1 whatever the weights expect, as published notebooks often do; only to measure what
    that costs."""
    freeze: Literal["backbone", "none"] | float = "none"
    """`backbone`: only the head learns. A number between 0 and 1: this share of the backbone's layers, counted from
    the image, stays as it is. Batch norm of frozen layers keeps its statistics."""
    backbone_dropout: Fraction = 0.0
    """For `custom_cnn`: dropout of whole channels after each block."""
    block: Literal["none", "se", "cbam"] = "none"
    """Attention before the pool: over channels (squeeze and excitation), or over channels and places (CBAM)."""
    pool: Literal["average", "max", "attention", "flatten"] = "average"
    """How the feature map becomes a vector: mean or maximum over places, a learned weighted mean, or all of it."""
    hidden: tuple[Whole, ...] = ()
    """Units of the head's hidden layers, each followed by the activation and dropout."""
    activation: Literal["relu", "elu", "gelu", "silu", "tanh"] = "relu"
    """Of the hidden layers."""
    dropout: Fraction = 0.0
    """Dropout after each hidden layer, or of the pooled features where there is none."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty on the kernels of the head's hidden layers: l2 times the sum of squares is added to the loss."""

    @field_validator("architecture")
    @classmethod
    def _known(cls, name: str) -> str:
        return architectures.architecture(name).name

    @field_validator("freeze", mode="before")
    @classmethod
    def _share(cls, value: object) -> object:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value in ("backbone", "none") or (number and 0 < float(value) < 1):  # type: ignore[arg-type]
            return value
        raise ValueError("should be 'backbone', 'none' or a number between 0 and 1")

    @model_validator(mode="after")
    def _something_learned(self) -> "ModelSettings":
        if self.freeze != "none" and self.weights == "none":
            raise ValueError(
                f"freeze = {self.freeze!r} with weights = 'none' would train a head on random features; "
                "give weights, or set model.freeze=none"
            )
        if self.backbone_dropout and self.architecture != "custom_cnn":
            raise ValueError(
                "backbone_dropout goes with architecture = 'custom_cnn'; use dropout for the head's"
            )
        return self

    @property
    def frozen_share(self) -> float:
        """The share of the backbone's layers, counted from the image, that starts frozen."""
        return {"backbone": 1.0, "none": 0.0}[self.freeze] if isinstance(self.freeze, str) else self.freeze


class TrainSettings(RecipeSection):
    """How it learns."""

    epochs: Whole = 20
    """Most epochs."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Images a step, over all devices."""
    accumulate: Whole = 1
    """Steps whose gradients are summed before the weights move: the effective batch is batch_size times as large."""
    learning_rate: Positive = 1e-4
    """At the start; for `cosine` and `one-cycle` the highest."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam, Adam with decoupled weight decay, or stochastic gradient descent with Nesterov momentum."""
    momentum: Fraction = 0.9
    """For `sgd`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay, for `adamw` (decoupled) and `sgd`."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Gradients are scaled down to this norm over all weights where theirs is larger; 0 never."""
    ema: Fraction = 0.0
    """Decay a step of an exponential moving average of the weights, which is then what is validated and kept; 0 is
    none."""
    loss: LossName = "auto"
    """`auto`: binary cross-entropy per finding, softmax cross-entropy for `multiclass`. `focal` weighs down what is
    easy (either task); `asymmetric` what is easily absent (not for `multiclass`)."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """For `focal`: the exponent of 1 - p."""
    gamma_negative: Annotated[float, Field(ge=0)] = 4.0
    """For `asymmetric`: the exponent for absent findings."""
    gamma_positive: Annotated[float, Field(ge=0)] = 1.0
    """For `asymmetric`: the exponent for present findings."""
    negative_margin: Fraction = 0.05
    """For `asymmetric`: probabilities of absent findings below this cost nothing."""
    label_smoothing: Fraction = 0.0
    """Labels are moved by this share toward the middle: 1 becomes 1 - s / 2 and 0 becomes s / 2, or s over the number
    of classes."""
    monitor: Monitor = "val_loss"
    """What chooses the best epoch, stops early and lowers the learning rate."""
    patience: Annotated[int, Field(ge=0)] = 5
    """Stop after so many epochs without a better one; 0 never stops."""
    schedule: Literal["plateau", "cosine", "one-cycle", "constant"] = "plateau"
    """How the learning rate moves. `plateau`: it falls where validation no longer improves. `cosine`: it rises over a
    warm-up and falls along a cosine over the epochs. `one-cycle`: the same along cosines both ways, momentum moving
    against it. `constant`: not at all."""
    warm_up: Fraction = 0.1
    """For `cosine` and `one-cycle`: the share of all epochs over which it rises to `learning_rate`."""
    plateau_patience: Annotated[int, Field(ge=0)] = 2
    """For `plateau`: lower it after so many epochs without a better one; 0 never lowers."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """By this factor."""
    unfreeze_after: Annotated[int, Field(ge=0)] = 0
    """Frozen layers begin to thaw, those next to the head first, after so many epochs; 0 never."""
    unfreeze_steps: Whole = 1
    """The number of epochs over which they thaw, an equal part each."""
    unfreeze_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The share of the backbone's layers, counted from the head, that is free in the end."""
    backbone_rate: Positive = 1.0
    """The learning rate of the backbone's last layer, relative to the head's."""
    depth_rate: Positive = 1.0
    """The learning rate of the backbone's first layer, relative to its last; geometric in between."""
    stored_versions: Annotated[int, Field(ge=0)] = 0
    """Of a backbone that stays frozen: each image goes through it so many times in all, once as it is, then augmented,
    and the head learns from what came out; 0 sends every image through anew in every epoch. Not used where layers of
    the backbone learn."""
    keep_final: bool = False
    """Whether the weights of the last epoch are sealed too, as RUN/final, beside those of the best."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 autocast where the processor has it, else fp32."""
    deterministic: bool = False
    """Whether to refuse operations that may differ from run to run; slower on a GPU."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the head, of which images are drawn and in which order, of augmentation and dropout."""

    @model_validator(mode="after")
    def _decay(self) -> "TrainSettings":
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError("weight_decay goes with optimizer = 'adamw' or 'sgd'")
        return self


class CalibrateSettings(RecipeSection):
    """What is fitted on validation after training, through the sealed graph."""

    temperature: bool = True
    """Divide the logits by a temperature, fitted per finding (one for all classes of `multiclass`)."""
    threshold: Literal["youden", "sensitivity", "fixed"] = "youden"
    """The probability from which a finding is called: by Youden's J, at a given sensitivity, or fixed at 0.5. Of
    `multiclass` the most probable class is called, whatever stands here."""
    sensitivity: Annotated[float, Field(gt=0, le=1)] = 0.95
    """For threshold = `sensitivity`: the sensitivity wanted on validation."""


class Recipe(RecipeSection):
    """Everything that a run needs, but the data."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """A short name; it stands in reports."""
    description: str = ""
    """A sentence for people."""
    data: DataSettings = DataSettings()
    task: Task
    split: SplitSettings = SplitSettings()
    balance: BalanceSettings = BalanceSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    calibrate: CalibrateSettings = CalibrateSettings()

    @model_validator(mode="after")
    def _sections_agree(self) -> "Recipe":
        kind, method, loss = self.task.kind, self.balance.method, self.train.loss
        if kind == "multilabel" and method in ("oversample", "downsample"):
            raise ValueError(
                f"balance.method = {method!r} does not go with task.kind = 'multilabel': an image has several "
                "findings at once; use 'positive-weights' or 'class-weights'"
            )
        if kind == "multiclass" and method == "positive-weights":
            raise ValueError(
                "balance.method = 'positive-weights' does not go with task.kind = 'multiclass'; use 'class-weights'"
            )
        if kind == "multiclass" and loss != "auto" and LOSSES[loss].classes is None:
            raise ValueError(
                f"train.loss = {loss!r} does not go with task.kind = 'multiclass'; use {_losses(exclusive=True)}"
            )
        if kind != "multiclass" and loss != "auto" and LOSSES[loss].findings is None:
            raise ValueError(
                f"train.loss = {loss!r} is for exactly one class an image, not for task.kind = {kind!r}; "
                f"use {_losses(exclusive=False)}, or task.kind = 'multiclass'"
            )
        if self.train.unfreeze_after and self.model.freeze == "none":
            raise ValueError("train.unfreeze_after needs frozen layers; set model.freeze=backbone or a share")
        if self.stores_features and self.augment.mixup:
            raise ValueError(
                "train.stored_versions does not go with augment.mixup, which mixes images anew; set one to 0"
            )
        return self

    @property
    def stores_features(self) -> bool:
        """Whether images go through the backbone before training, and never again."""
        stays = self.model.frozen_share == 1 and not self.train.unfreeze_after
        return bool(self.train.stored_versions) and stays

    def with_random_weights(self) -> "Recipe":
        """Return the same network without its first weights, frozen as before: to be looked at, not to be trained."""
        return self.model_copy(update={"model": self.model.model_copy(update={"weights": "none"})})

    def flat(self) -> dict[str, Any]:
        """Return every key but name and description, as `section.key` -> its value, of the types that JSON has."""
        return {
            f"{section}.{key}": value
            for section, values in self.model_dump(mode="json").items()
            if isinstance(values, dict)
            for key, value in values.items()
        }

    def to_toml(self) -> str:
        """Return the recipe as a TOML file with every key in it."""
        values = self.model_dump(mode="json")
        top = [f"{key} = {toml_value(value)}" for key, value in values.items() if not isinstance(value, dict)]
        parts = ["\n".join(top)]
        for name, section in values.items():
            if isinstance(section, dict):
                lines = [
                    f"{key} = {toml_value(value)}" for key, value in section.items() if value is not None
                ]
                parts.append("\n".join([f"[{name}]", *lines]))
        return "\n\n".join(parts) + "\n"


def _losses(*, exclusive: bool) -> str:
    """Return the losses that have a formula for classes, or for findings, as a message names them."""
    fitting = [name for name, loss in LOSSES.items() if (loss.classes if exclusive else loss.findings)]
    return " or ".join(map(repr, fitting))


def toml_value(value: Any) -> str:
    """Return a value of JSON's types as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return repr(value)
