"""What `bundle.json` says: the records of a manifest, and from logits to probabilities and decisions."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from scipy.special import expit, softmax

from hilum.bundle.decision import DecisionRule
from hilum.recipe.values import InputSpec, Task

FORMAT = 4
READABLE = (1, 2, 3, 4)
"""Format 1 does not name the link, which was the sigmoid; 1 and 2 have neither intercepts nor recalibrations. Up to
format 3 the limit of likeness was the largest distance on validation, by deviations without a floor, and no bundle was
an ensemble."""
FLAT = {
    "task": {"kind": "task", "findings": "findings", "negatives": "negatives"},
    "input": {"size": "size", "fit": "fit"},
}
"""Nested values of the manifest whose keys stand at the top level of the file, each with its name there."""
INTENDED_USE = "Research only: not a medical device, not for diagnosis or treatment of patients."


class Record(BaseModel):
    """A part of the manifest: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Calibration(Record):
    """From logits to probabilities and decisions; all of it fitted on validation, or on another site's images.

    By the sigmoid each finding has its temperature and its threshold. By the softmax exactly one class holds: one
    temperature for all, and no threshold, since the most probable class is called. Intercepts, one a finding or class,
    are added after the division; without any they are 0.
    """

    link: Literal["sigmoid", "softmax"] = "sigmoid"
    temperatures: tuple[Annotated[float, Field(gt=0)], ...]
    intercepts: tuple[float, ...] = ()
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    rule: str

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, float64 in [0, 1], of logits (n, findings); by the softmax rows sum to 1."""
        scaled = np.asarray(logits, np.float64) / np.array(self.temperatures)
        if self.intercepts:
            scaled = scaled + np.array(self.intercepts)
        return np.asarray(softmax(scaled, axis=1) if self.link == "softmax" else expit(scaled))

    @property
    def decision(self) -> DecisionRule:
        """How findings are called: by the thresholds, or the most probable class."""
        return DecisionRule(self.thresholds or None, self.rule)


class Seen(Record):
    """What the training images were, so that images unlike them can be recognised.

    `ages` are the lowest and the highest in years, `sides` the smallest and the largest shorter side in pixels; None
    where unknown. `typical_share` of the validation images lie within `typical_distance` (`runtime.typical_limit`); 1,
    as in bundles before format 4, stands for the largest one.
    """

    sources: tuple[str, ...]
    views: tuple[str, ...]
    ages: tuple[float, float] | None
    sides: tuple[int, int] | None = None
    typical_distance: float
    typical_share: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def likeness(self) -> str:
        """The limit of likeness with its meaning, in words."""
        if self.typical_share == 1:
            return f"at most {self.typical_distance:.2f} on validation"
        return f"{self.typical_share:.0%} on validation within {self.typical_distance:.2f}".replace("%", " %")


class Training(Record):
    """How the model was trained."""

    engine: str
    architecture: str
    precision: str
    num_train: int
    num_val: int
    num_test: int
    num_patients: int
    balance: str = ""
    data_fingerprint: str
    split_method: str
    split_description: str
    split_hash: str
    leaky: bool
    leaks: tuple[str, ...] = ()
    epochs: int
    best_epoch: int
    stopped: str
    seconds: float
    initial_weights: str
    initial_weights_citation: str
    initial_weights_licence: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class DataSource(Record):
    """A data set that was trained on, with its citation and terms of use."""

    name: str
    citation: str
    terms: str


class Recalibration(Record):
    """A new calibration, fitted on images of another site, of the same weights and graph.

    `positives` and `negatives` count patients a finding; the calibration of the findings in `kept` is the parent's.
    `cautions` name the findings whose ranking was not surely better than chance there.
    """

    parent: str
    created: str
    site: str
    part: str
    num_images: int
    num_patients: int
    positives: tuple[int, ...]
    negatives: tuple[int, ...]
    kept: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    data: tuple[DataSource, ...]

    @property
    def summary(self) -> str:
        """What it was fitted on, in one line."""
        return f"recalibrated on {self.site}: {self.num_images:,} images of {self.num_patients:,} patients, {self.part}"


class Member(Record):
    """A bundle that an ensemble was made of: its hash and its whole manifest."""

    hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    manifest: "Manifest"


class Manifest(Record):
    """The content of `bundle.json`.

    `members` are those of an ensemble, in the order in which its graph holds them; empty for one model. Of an ensemble
    `training` holds what its members have in common, and otherwise the values of each.
    """

    format: Literal[1, 2, 3, 4] = 4
    name: str
    created: str
    intended_use: str = INTENDED_USE
    task: Task
    input: InputSpec
    calibration: Calibration
    seen: Seen
    training: Training
    data: tuple[DataSource, ...]
    recipe: dict[str, Any]
    versions: dict[str, str]
    recalibrations: tuple[Recalibration, ...] = ()
    members: tuple[Member, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, values: Any) -> Any:
        """The keys of `task` and `input` stand side by side in the file."""
        if not isinstance(values, dict) or isinstance(values.get("task"), Task):
            return values
        flat = dict(values)
        for name, keys in FLAT.items():
            missing = [stored for stored in keys.values() if stored not in flat]
            if missing:
                raise ValueError(f"{missing[0]} is missing")
            flat[name] = {key: flat.pop(stored) for key, stored in keys.items()}
        return flat

    @model_serializer(mode="wrap")
    def _flat(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for name, value in dump(self).items():
            flat |= (
                {stored: value[key] for key, stored in FLAT[name].items()} if name in FLAT else {name: value}
            )
        return flat

    @model_validator(mode="after")
    def _agrees(self) -> "Manifest":
        calibration, classes = self.calibration, self.task.exclusive
        if classes != (calibration.link == "softmax"):
            raise ValueError(f"task {self.task.kind} does not go with the link {calibration.link}")
        expected = (1, 0) if classes else (len(self.findings), len(self.findings))
        if (len(calibration.temperatures), len(calibration.thresholds)) != expected:
            raise ValueError(
                f"temperatures and thresholds of {self.task.kind} should be {expected} in number"
            )
        if len(calibration.intercepts) not in (0, len(self.findings)):
            raise ValueError(f"{len(calibration.intercepts)} intercepts for {len(self.findings)} findings")
        for member in self.members:
            if member.manifest.members or member.manifest.findings != self.findings:
                raise ValueError("a member is no single model of the same findings")
        return self

    @property
    def recalibrated(self) -> Recalibration | None:
        """The last recalibration, None for a bundle whose calibration comes from its training's validation."""
        return self.recalibrations[-1] if self.recalibrations else None

    @property
    def temperature_notes(self) -> tuple[str, ...]:
        """Notes on findings whose temperature could not be fitted, though the recipe asks for it; empty if all could.

        A fit never ends at exactly 1, nor at exactly one of its bounds: those are what is left where it failed.
        """
        # Here, since predicting needs no statistics, which take a second to load.
        from hilum.stats.calibration import MIN_LABELS, TEMPERATURE_BOUNDS

        if self.members:
            lacking = sum(bool(member.manifest.temperature_notes) for member in self.members)
            members = f"of {lacking} of {len(self.members)} members"
            return (f"{members} not all temperatures could be fitted; see their reports",) if lacking else ()
        if not self.recipe.get("calibrate", {}).get("temperature", True):
            return ()
        classes = self.calibration.link == "softmax"
        names = ("the classes",) if classes else self.findings
        values = dict(zip(names, self.calibration.temperatures, strict=True))
        kept = [name for name, value in values.items() if value == 1]
        ends = [name for name, value in values.items() if value in TEMPERATURE_BOUNDS]
        few = f"fewer than {MIN_LABELS} images{'' if classes else ' with it or without it'} on validation"
        why = f"{few}, or none that the logits get wrong"
        notes = (
            f"no temperature could be fitted for {', '.join(kept)} ({why}): probabilities are as the network gave them"
            if kept
            else "",
            f"the temperature of {', '.join(ends)} stands at the end of what is allowed: probabilities tell little"
            if ends
            else "",
        )
        return tuple(filter(None, notes))

    @property
    def knows_images(self) -> bool:
        """Whether images of another site calibrated it or a member, so that their fingerprints are sealed in it."""
        return bool(self.recalibrations) or any(member.manifest.knows_images for member in self.members)

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings of the task, in the order of the graph's outputs."""
        return self.task.findings

    @property
    def decision(self) -> DecisionRule:
        """How findings are called: by the thresholds, or the most probable class."""
        return self.calibration.decision
