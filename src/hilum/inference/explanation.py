"""A prediction with its maps -> Cases: the image with the map of each finding, carried back to the original."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hilum.bundle import Manifest
from hilum.errors import UsageError, nearest
from hilum.images import Geometry
from hilum.images.geometry import resize
from hilum.inference.prediction import Prediction
from hilum.recipe.findings import named

MAX_SIDE = 1024
"""Pixels of the longer side of the pictures that maps are drawn on."""
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
        cells: Where each of them lies, as fractions x, y, width, height of the original, float (n, 4); may be empty.
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
    cells: np.ndarray = field(default_factory=NO_BOXES.copy)


def make_cases(
    manifest: Manifest,
    prediction: Prediction,
    findings: Sequence[str] | None = None,
    *,
    labels: Sequence[float] | None = None,
    boxes: np.ndarray = NO_BOXES,
    truth: str = "",
) -> list[Case]:
    """Carry a prediction's maps back to the original image.

    Args:
        manifest: Of the bundle that predicted.
        prediction: With maps and picture.
        findings: Which findings to explain; None: all of the bundle's.
        labels: The truth for each of `findings`; None: unknown.
        boxes: Of experts, (n, 4) fractions of the original.
        truth: The true class, for `Case.truth`.

    Returns:
        A case a finding, in the order of `findings`.
    """
    picture, maps = prediction.picture, prediction.maps
    if picture is None or maps is None:
        raise ValueError(f"{prediction.image} was predicted without maps")
    geometry = Geometry(picture.shape[1], picture.shape[0], manifest.input.size, manifest.input.fit)
    wanted = manifest.findings if findings is None else tuple(findings)
    known = [float("nan")] * len(wanted) if labels is None else labels
    columns = [manifest.findings.index(finding) for finding in wanted]
    cells = geometry.boxes_to_original(_cells(*maps.shape[1:]))
    return [
        Case(
            image=prediction.image,
            grey=picture,
            evidence=geometry.to_original(maps[column]),
            boxes=boxes,
            finding=finding,
            label=float(label),
            probability=float(prediction.probabilities[column]),
            threshold=manifest.decision.threshold(column),
            called=prediction.decisions[column] == "present",
            truth=truth,
            places=(maps.shape[1], maps.shape[2]),
            cells=cells,
        )
        for finding, label, column in zip(wanted, known, columns, strict=True)
    ]


def _cells(rows: int, columns: int) -> np.ndarray:
    """Divide a square evenly: (rows x columns, 4), each cell's x, y, width and height as fractions of it."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    sides = np.broadcast_to((1 / columns, 1 / rows), (rows * columns, 2))
    return np.column_stack([column / columns, row / rows, sides])


def reduce_picture(grey: np.ndarray) -> np.ndarray:
    """Return a picture, float32 (height, width), with at most `MAX_SIDE` pixels a side."""
    height, width = grey.shape
    scale = MAX_SIDE / max(height, width)
    return grey if scale >= 1 else resize(grey, max(1, round(width * scale)), max(1, round(height * scale)))


def choose_findings(manifest: Manifest, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the bundle's findings by any of their names; all of them if None.

    Raises:
        UsageError: The bundle does not know a finding; the message lists those that it knows, nearest first.
    """
    known = manifest.findings
    wanted = tuple(named(name) for name in names or known)
    for name in wanted:
        if name not in known:
            raise UsageError(f"the model knows no finding {name!r}; it knows: {nearest(name, known)}")
    return wanted
