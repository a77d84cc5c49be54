"""Whose images belong together, and how often patients are drawn anew -> how intervals are made."""

from dataclasses import dataclass
from typing import Literal, get_args

from numpy.typing import ArrayLike

from hilum.errors import UsageError, nearest
from hilum.stats.inputs import check_confidence

Method = Literal["recommended", "percentile", "bca"]


@dataclass(frozen=True, eq=False)
class Resampling:
    """How intervals are made: whose images belong together, and the bootstrap over these patients.

    Attributes:
        clusters: (images,) the patient of each image, numbers or text; None: every image is its own patient.
        replicates: Bootstrap resamples of patients, 100 at least.
        seed: Makes the resamples repeatable; the same seed pairs two models' resamples.
        confidence: Of the intervals, in (0, 1).
        method: "recommended" (per metric what held best in simulation: docs/statistics.md), or "percentile" or "bca"
            for all.

    Raises:
        UsageError: A setting is out of range.
    """

    clusters: ArrayLike | None = None
    replicates: int = 2000
    seed: int = 0
    confidence: float = 0.95
    method: Method = "recommended"

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if self.replicates < 100:
            raise UsageError(f"replicates is {self.replicates}; an interval needs at least 100, better 2000")
        if self.method not in get_args(Method):
            raise UsageError(
                f"unknown method {self.method!r}; known: {nearest(self.method, get_args(Method))}"
            )

    @property
    def units(self) -> str:
        """What is resampled."""
        return "images" if self.clusters is None else "patients"


BY_IMAGE = Resampling()
"""Every image is its own patient."""
