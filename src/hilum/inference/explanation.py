"""A bundle's Model and an image -> Cases: the image with the map of each finding, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hilum import images
from hilum.errors import UsageError, nearest
from hilum.images import Location
from hilum.images.geometry import resize
from hilum.inference.runtime import Model
from hilum.recipe.findings import named

MAX_SIDE = 1024
NO_BOXES = np.zeros((0, 4))


@dataclass(frozen=True)
class Case:
    """One image with the explanation of one finding, at the resolution of the original.

    Attributes:
        image: Its name.
        grey: float32 (height, width) in [0, 1].
        evidence: The map of `finding` in logit units, float32 (height, width), carried back to the original; at each
            place the contribution of the cell of the feature map that lies there.
        boxes: Boxes of experts as fractions x, y, width, height of the original, float (n, 4); may be empty.
        finding: The finding explained.
        label: 1 present, 0 absent, NaN unknown.
        probability: Calibrated, in [0, 1].
        threshold: Probability from which the finding is called present; None where the most probable class is called.
        called: Whether it is called present.
        truth: Of a task with exactly one class an image, the true one; empty elsewhere, or where it is unknown.
        places: Rows and columns of the feature map that the evidence comes from; (0, 0) unknown.
    """

    image: str
    grey: np.ndarray
    evidence: np.ndarray
    boxes: np.ndarray
    finding: str
    label: float
    probability: float
    threshold: float | None
    called: bool
    truth: str = ""
    places: tuple[int, int] = (0, 0)


def explain(
    model: Model,
    source: Location,
    *,
    name: str | None = None,
    findings: Sequence[str] | None = None,
    labels: Sequence[float] | None = None,
    boxes: np.ndarray = NO_BOXES,
    truth: str = "",
) -> list[Case]:
    """Explains one image.

    Args:
        model: Of a bundle.
        source: Where the image lies.
        name: What to call it; its path if None.
        findings: Which findings to explain, all if None.
        labels: The truth for each of `findings`, unknown if None.
        boxes: Of experts, (n, 4) fractions of the original.
        truth: The true class, for `Case.truth`.

    Returns:
        A case a finding, in the order of `findings`. Images of more than 1024 pixels a side come reduced to that.

    Raises:
        ImageError: The file cannot become a radiograph.
    """
    manifest = model.bundle.manifest
    prepared = images.prepare(source, manifest.input.size, manifest.input.fit)
    outputs = model.graph.outputs(prepared.pixels[None])
    probabilities = model.probabilities(outputs.logits)
    called = manifest.decision.decide(probabilities)[0]
    picture = _reduced(images.read(source).grey)
    geometry = images.Geometry(picture.shape[1], picture.shape[0], manifest.input.size, manifest.input.fit)
    wanted = manifest.findings if findings is None else tuple(findings)
    known = [float("nan")] * len(wanted) if labels is None else labels
    cases = []
    for finding, label in zip(wanted, known, strict=True):
        column = manifest.findings.index(finding)
        cases.append(
            Case(
                image=name or str(source),
                grey=picture,
                evidence=geometry.to_original(outputs.maps[0, column]),
                boxes=boxes,
                finding=finding,
                label=float(label),
                probability=float(probabilities[0, column]),
                threshold=manifest.decision.threshold(column),
                called=bool(called[column]),
                truth=truth,
                places=(outputs.maps.shape[2], outputs.maps.shape[3]),
            )
        )
    return cases


def _reduced(grey: np.ndarray) -> np.ndarray:
    height, width = grey.shape
    scale = MAX_SIDE / max(height, width)
    return grey if scale >= 1 else resize(grey, max(1, round(width * scale)), max(1, round(height * scale)))


def choose(model: Model, names: Sequence[str] | None) -> tuple[str, ...]:
    """Findings of the model by any of their names; all of them if None.

    Raises:
        UsageError: The model does not know a finding; the message lists those that it knows, nearest first.
    """
    known = model.bundle.manifest.findings
    wanted = tuple(named(name) for name in names or known)
    for name in wanted:
        if name not in known:
            raise UsageError(f"the model knows no finding {name!r}; it knows: {nearest(name, known)}")
    return wanted
