"""Predictions -> a table, a CSV file, a JSON file, and what a reader must know of all of them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hilum import files
from hilum.bundle import INTENDED_USE, Manifest
from hilum.errors import UsageError
from hilum.notices import Notice

if TYPE_CHECKING:
    from hilum.inference.predictor import Predictor

FEW = 3
"""So many images are each named with their notice."""
UNREADABLE = "unreadable"
"""Stands for a decision where there is none."""


@dataclass(frozen=True)
class Prediction:
    """What a model gives for one image.

    Attributes:
        image: Its name.
        logits: float32 (findings,), before calibration; empty where the image could not be read.
        probabilities: float64 (findings,), calibrated; empty likewise.
        decisions: `present` or `absent` per finding, of classes one `present`; empty likewise.
        notices: What a reader must know.
        error: Why the image could not be read; empty where it could.
        embedding: float32 (channels,), the mean of the feature map; None where the image could not be read.
        maps: float32 (findings, h, w), in logit units over the square that the graph saw; None if not asked for.
        picture: float32 (height, width) in [0, 1], the original with at most 1024 pixels a side; None likewise.
    """

    image: str
    logits: np.ndarray
    probabilities: np.ndarray
    decisions: tuple[str, ...]
    notices: tuple[Notice, ...]
    error: str = ""
    embedding: np.ndarray | None = None
    maps: np.ndarray | None = None
    picture: np.ndarray | None = None


def to_frame(predictor: "Predictor", predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Return a row an image and finding: image, finding, probability, threshold, decision, warnings, bundle.

    Where the most probable class is called there is no threshold: NaN.
    """
    findings = predictor.manifest.findings
    rows = [
        {
            "image": prediction.image,
            "finding": finding,
            "probability": probability,
            "threshold": math.nan if threshold is None else threshold,
            "decision": decision,
            "warnings": prediction.error or "; ".join(map(str, prediction.notices)),
            "bundle": predictor.bundle.hash,
        }
        for prediction in predictions
        for finding, threshold, probability, decision in zip(
            findings,
            _thresholds(predictor.manifest),
            prediction.probabilities if not prediction.error else [math.nan] * len(findings),
            prediction.decisions or [UNREADABLE] * len(findings),
            strict=True,
        )
    ]
    return pd.DataFrame(rows)


def common_warnings(predictions: Sequence[Prediction]) -> list[str]:
    """Sum up what a reader must know: a notice of a few images once for each, a common one once with their number."""
    by_code: dict[str, list[tuple[str, Notice]]] = {}
    for prediction in predictions:
        for notice in prediction.notices:
            by_code.setdefault(notice.code, []).append((prediction.image, notice))
    lines = []
    for given in by_code.values():
        if len(given) <= FEW:
            lines += [f"{image}: {notice}" for image, notice in given]
        else:
            image, notice = given[0]
            lines.append(f"{len(given):,} of {len(predictions):,} images, such as {image}: {notice}")
    return lines


def write(path: Path, predictor: "Predictor", predictions: Sequence[Prediction]) -> None:
    """Write predictions to a .csv or .json file, whole or not at all.

    In CSV a text that a spreadsheet would run as a formula gets a `'` before it.

    Raises:
        UsageError: Another suffix.
    """
    if path.suffix == ".csv":
        frame = to_frame(predictor, predictions)
        for column in ("image", "warnings"):
            frame[column] = frame[column].map(files.spreadsheet_safe)
        files.write_text(path, frame.to_csv(index=False))
    elif path.suffix == ".json":
        files.write_text(path, json.dumps(to_dict(predictor, predictions), indent=2, allow_nan=False) + "\n")
    else:
        raise UsageError(f"predictions are written to .csv or .json files, not {path.name!r}")


def to_dict(predictor: "Predictor", predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return predictions in the form of the JSON file."""
    manifest = predictor.manifest
    return {
        "bundle": predictor.bundle.hash,
        "name": manifest.name,
        "intended_use": INTENDED_USE,
        "runtime": predictor.runtime,
        **({"recalibrated": manifest.recalibrated.summary} if manifest.recalibrated else {}),
        "images": [
            {
                "image": prediction.image,
                **({"error": prediction.error} if prediction.error else {}),
                "notices": [notice.to_dict() for notice in prediction.notices],
                "findings": {
                    finding: {"probability": float(probability), "threshold": threshold, "decision": decision}
                    for finding, probability, threshold, decision in zip(
                        manifest.findings,
                        prediction.probabilities,
                        _thresholds(manifest),
                        prediction.decisions,
                        strict=False,
                    )
                },
            }
            for prediction in predictions
        ],
    }


def _thresholds(manifest: Manifest) -> list[float | None]:
    return [manifest.decision.threshold(column) for column in range(len(manifest.findings))]
