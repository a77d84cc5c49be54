"""A bundle's Model and image files -> Predictions: probability, decision and warnings per finding."""

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from hilum import files, images
from hilum.bundle import INTENDED_USE, Seen
from hilum.errors import ImageError, LayoutError, UsageError
from hilum.images import Location, Prepared
from hilum.inference.runtime import Model
from hilum.notices import Notice, notice

BATCH = 16
FEW = 3  # so many images are each named with their warning
UNREADABLE = "unreadable"  # stands for a decision where there is none

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file.

    Attributes:
        image: The file.
        logits: float32 (findings,), before calibration; empty where the file could not be read.
        probabilities: float64 (findings,), calibrated; empty likewise.
        decisions: `present` or `absent` per finding, of classes one `present`; empty likewise.
        notices: What a reader must know.
        error: Why the file could not be read; empty where it could.
    """

    image: str
    logits: np.ndarray
    probabilities: np.ndarray
    decisions: tuple[str, ...]
    notices: tuple[Notice, ...]
    error: str = ""


def predict(
    model: Model,
    sources: Sequence[Location],
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Prediction]:
    """Runs images through a bundle; files are decoded while the graph runs.

    Args:
        model: Of a bundle.
        sources: The files.
        on_progress: Called with how many are done, of how many.

    Returns:
        One a file, in their order; a file that cannot be read has its reason in `error`.
    """
    manifest = model.bundle.manifest

    def prepare(source: Location) -> Prepared | ImageError:
        try:
            return images.prepare(source, manifest.input.size, manifest.input.fit)
        except ImageError as error:
            return error

    predictions: list[Prediction] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in _batches(_ahead(pool, prepare, sources)):
            predictions += _predict(model, sources[len(predictions) : len(predictions) + len(block)], block)
            on_progress(len(predictions), len(sources))
    return predictions


def find_images(paths: Iterable[Path]) -> list[Location]:
    """Finds the image files that paths name: files, members of zip archives (`a.zip::b.png`), and folders' content.

    Raises:
        UsageError: A path does not exist.
        LayoutError: A folder holds no image.
    """
    found: list[Location] = []
    for path in paths:
        location = Location.parse(str(path))
        if location.path.is_dir():
            inside = sorted(
                file
                for file in location.path.rglob("*")
                if file.suffix.lower()
                in (*images.IMAGE_SUFFIXES, "")  # exported DICOM files often have no suffix
                and not file.name.startswith(".")
                and file.is_file()
            )
            if not inside:
                raise LayoutError(f"{path} holds no image ({', '.join(images.IMAGE_SUFFIXES)})")
            found += [Location(file) for file in inside]
        elif location.path.exists():
            found.append(location)
        else:
            raise UsageError(
                f"{path} does not exist; give image files, folders of them, or ARCHIVE.zip::MEMBER"
            )
    return found


def to_frame(model: Model, predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Predictions -> a row an image and finding: image, finding, probability, threshold, decision, warnings, bundle.

    Where the most probable class is called there is no threshold: NaN.
    """
    manifest = model.bundle.manifest
    rows = [
        {
            "image": prediction.image,
            "finding": finding,
            "probability": probability,
            "threshold": math.nan if threshold is None else threshold,
            "decision": decision,
            "warnings": prediction.error or "; ".join(map(str, prediction.notices)),
            "bundle": model.bundle.hash,
        }
        for prediction in predictions
        for finding, threshold, probability, decision in zip(
            manifest.findings,
            _thresholds(model),
            prediction.probabilities if not prediction.error else [math.nan] * len(manifest.findings),
            prediction.decisions or [UNREADABLE] * len(manifest.findings),
            strict=True,
        )
    ]
    return pd.DataFrame(rows)


def common_warnings(predictions: Sequence[Prediction]) -> list[str]:
    """Sum up what a reader must know: a notice of a few images once for each, a common one once with their number."""
    by_code: dict[str, list[tuple[str, Notice]]] = {}
    for prediction in predictions:
        for notice_ in prediction.notices:
            by_code.setdefault(notice_.code, []).append((prediction.image, notice_))
    lines = []
    for given in by_code.values():
        if len(given) <= FEW:
            lines += [f"{image}: {notice_}" for image, notice_ in given]
        else:
            image, notice_ = given[0]
            lines.append(f"{len(given):,} of {len(predictions):,} images, such as {image}: {notice_}")
    return lines


def write(path: Path, model: Model, predictions: Sequence[Prediction]) -> None:
    """Writes predictions to a .csv or .json file, whole or not at all.

    In CSV a text that a spreadsheet would run as a formula gets a `'` before it.

    Raises:
        UsageError: Another suffix.
    """
    if path.suffix == ".csv":
        frame = to_frame(model, predictions)
        for column in ("image", "warnings"):
            frame[column] = frame[column].map(files.spreadsheet_safe)
        files.write_text(path, frame.to_csv(index=False))
    elif path.suffix == ".json":
        files.write_text(path, json.dumps(to_dict(model, predictions), indent=2, allow_nan=False) + "\n")
    else:
        raise UsageError(f"predictions are written to .csv or .json files, not {path.name!r}")


def to_dict(model: Model, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Predictions in the form of the JSON file."""
    manifest = model.bundle.manifest
    return {
        "bundle": model.bundle.hash,
        "name": manifest.name,
        "intended_use": INTENDED_USE,
        **({"recalibrated": manifest.recalibrated.summary} if manifest.recalibrated else {}),
        "images": [
            {
                "image": prediction.image,
                **({"error": prediction.error} if prediction.error else {}),
                "notices": [notice_.to_dict() for notice_ in prediction.notices],
                "findings": {
                    finding: {"probability": float(probability), "threshold": threshold, "decision": decision}
                    for finding, probability, threshold, decision in zip(
                        manifest.findings,
                        prediction.probabilities,
                        _thresholds(model),
                        prediction.decisions,
                        strict=False,
                    )
                },
            }
            for prediction in predictions
        ],
    }


def _predict(
    model: Model, sources: Sequence[Location], block: Sequence[Prepared | ImageError]
) -> list[Prediction]:
    manifest = model.bundle.manifest
    readable = [item for item in block if isinstance(item, Prepared)]
    rows: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float]] = iter(())
    if readable:
        outputs = model.graph.outputs(np.stack([item.pixels for item in readable]))
        probabilities = model.probabilities(outputs.logits)
        called = manifest.decision.decide(probabilities)
        rows = iter(
            zip(outputs.logits, probabilities, called, model.distance(outputs.embedding), strict=True)
        )
    predictions = []
    for source, item in zip(sources, block, strict=True):
        if isinstance(item, ImageError):
            nothing = np.zeros(0)
            predictions.append(Prediction(str(source), nothing, nothing, (), (), str(item)))
            continue
        logits, probabilities, present, distance = next(rows)
        decisions = tuple(np.where(present, "present", "absent").tolist())
        notices = (*item.provenance.notices, *_unseen(item, float(distance), manifest.seen))
        predictions.append(Prediction(str(source), logits, probabilities, decisions, notices))
    return predictions


def _thresholds(model: Model) -> list[float | None]:
    decision = model.bundle.manifest.decision
    return [decision.threshold(column) for column in range(len(model.bundle.manifest.findings))]


def _unseen(prepared: Prepared, distance: float, seen: Seen) -> Iterator[Notice]:
    """Yield in what an image differs from those of training; what its file does not tell cannot be compared."""
    view, age = prepared.provenance.view, prepared.provenance.age
    if view and seen.views and view not in seen.views:
        yield notice("view-not-in-training", view=view, seen=list(seen.views))
    if not math.isnan(age) and seen.ages and not seen.ages[0] <= age <= seen.ages[1]:
        yield notice("age-not-in-training", age=age, lowest=seen.ages[0], highest=seen.ages[1])
    if distance > seen.typical_distance:
        yield notice(
            "unlike-training", distance=distance, limit=seen.typical_distance, share=seen.typical_share
        )


def _batches(results: Iterator[Result]) -> Iterator[list[Result]]:
    while block := list(islice(results, BATCH)):
        yield block


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[Result]:
    """Maps in order, a few batches ahead of whoever reads: never all at once in memory."""
    rest = iter(items)
    waiting: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(rest, 4 * BATCH))
    while waiting:
        yield waiting.popleft().result()
        for item in islice(rest, 1):
            waiting.append(pool.submit(work, item))
