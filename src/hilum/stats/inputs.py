"""Labels, probabilities and patients as they arrive -> arrays that the rest of this room can trust."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import DataError, UsageError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Inputs:
    """What was predicted and what is true, checked.

    Attributes:
        labels: (images, findings), 1 present, 0 absent, NaN unknown.
        probabilities: (images, findings) in [0, 1].
        clusters: (images,) in 0 .. num_clusters - 1: the patient of each image.
        num_clusters: How many patients there are.
        findings: One name a column.
    """

    labels: Floats
    probabilities: Floats
    clusters: Integers
    num_clusters: int
    findings: tuple[str, ...]


def check(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    findings: Sequence[str] | None = None,
) -> Inputs:
    """Check what a caller hands in and bring it to one form.

    Args:
        labels: (images, findings) or (images,), 1 present, 0 absent, NaN unknown.
        probabilities: The same shape, in [0, 1].
        clusters: (images,) patient of each image, numbers or text; None: every image is its own patient.
        findings: One name a column; None: "finding 1", "finding 2", ...

    Raises:
        UsageError: Shapes or lengths differ.
        DataError: A label is not 0, 1 or NaN, a probability is NaN or outside [0, 1], a patient is unknown.
    """
    truth, predicted = columns(labels, name="labels"), columns(probabilities, name="probabilities")
    if truth.shape != predicted.shape:
        raise UsageError(
            f"labels are {_shape(truth)} and probabilities {_shape(predicted)}; "
            "give one of each per image and finding"
        )
    names = (
        tuple(findings) if findings is not None else tuple(f"finding {i + 1}" for i in range(truth.shape[1]))
    )
    if len(names) != truth.shape[1] or len(set(names)) != len(names):
        raise UsageError(
            f"{len(names)} finding names ({len(set(names))} different) for {truth.shape[1]} columns; "
            "name each once"
        )
    _refuse(truth, ~(np.isnan(truth) | (truth == 0) | (truth == 1)), names, "label", "0, 1 or NaN (unknown)")
    _refuse(
        predicted,
        ~((predicted >= 0) & (predicted <= 1)),
        names,
        "probability",
        "0 to 1 (logits go through a sigmoid or softmax first)",
    )
    codes, count = number_clusters(clusters, num_images=len(truth))
    return Inputs(truth, predicted, codes, count, names)


def columns(values: ArrayLike, *, name: str) -> Floats:
    """Return float64 (images, findings); one dimension becomes one column.

    Raises:
        UsageError: Not numbers, or of another number of dimensions.
        DataError: There is no image or no finding.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UsageError(
            f"{name} are not all numbers; expected 0 to 1 (labels also NaN for unknown)"
        ) from None
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise UsageError(f"{name} have {array.ndim} dimensions; expected (images, findings)")
    if array.size == 0:
        raise DataError(
            f"{name} are {_shape(array)}; nothing can be estimated without an image and a finding"
        )
    return array


def number_clusters(clusters: ArrayLike | None, *, num_images: int) -> tuple[Integers, int]:
    """Number the patients 0, 1, ... and count them; without patients every image is its own.

    Raises:
        UsageError: Another number of patients than of images.
        DataError: A patient is NaN, None or empty text.
    """
    if clusters is None:
        return np.arange(num_images), num_images
    array = np.asarray(clusters)
    if array.shape != (num_images,):
        raise UsageError(f"clusters are {_shape(array)}; expected ({num_images},): the patient of each image")
    unknown = _unknown(array)
    if unknown.any():
        raise DataError(
            f"the patient of image {int(np.argmax(unknown))} is unknown ({int(unknown.sum())} in all); "
            "intervals need every image's patient: drop these images or give each a name of its own"
        )
    if array.dtype == object:
        numbers: dict[Any, int] = {}
        codes = np.array([numbers.setdefault(item, len(numbers)) for item in array.tolist()], dtype=np.int64)
        return codes, len(numbers)
    names, codes = np.unique(array, return_inverse=True)
    return codes.astype(np.int64), len(names)


def sum_by_cluster(values: ArrayLike, clusters: Integers, *, num_clusters: int) -> Floats:
    """Add up (images,) values, or counts, within each patient: (clusters,)."""
    return np.asarray(np.bincount(clusters, weights=values, minlength=num_clusters), dtype=np.float64)


def check_confidence(confidence: float) -> None:
    """Raise UsageError unless `confidence` lies between 0 and 1."""
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}; expected a number between 0 and 1, for example 0.95")


def _refuse(values: Floats, wrong: Booleans, names: tuple[str, ...], what: str, expected: str) -> None:
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"the {what} of image {row} for {names[column]!r} is {values[row, column]:g} "
            f"({int(wrong.sum())} such in all); expected {expected}"
        )


def _unknown(array: NDArray[Any]) -> Booleans:
    if array.dtype.kind == "f":
        return np.asarray(np.isnan(array), dtype=bool)
    if array.dtype.kind in "US":
        return np.asarray(array == array.dtype.type(), dtype=bool)
    if array.dtype == object:
        return np.array([item is None or item == "" or item != item for item in array.tolist()])
    return np.zeros(len(array), dtype=bool)


def _shape(array: NDArray[Any]) -> str:
    return "(" + ", ".join(str(length) for length in array.shape) + ("," if array.ndim == 1 else "") + ")"
