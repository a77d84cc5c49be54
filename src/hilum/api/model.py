"""A sealed bundle -> a Model to work with: predictions, explanations and an evaluation of any images."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hilum.data.table import Table
from hilum.images import Location
from hilum.inference import prediction
from hilum.inference.explanation import Case, choose_findings, make_cases
from hilum.inference.prediction import Prediction
from hilum.inference.predictor import Given, Predictor, find_images, several
from hilum.progress import Watcher
from hilum.recipe import Task
from hilum.recipe.findings import NO_FINDING
from hilum.report.drawing.style import Drawing

if TYPE_CHECKING:
    from hilum.api.classifier import BundleClassifier
    from hilum.api.results import Result
    from hilum.evaluation.evaluation import Evaluation

Images = Table | Given | Iterable[Given]
"""One image or several: a Table, paths (of folders and archives too), bytes, open files, arrays, PIL images."""


@dataclass(frozen=True)
class ImagePredictions(Sequence[Prediction]):
    """What a model gives for images, in their order."""

    predictor: Predictor
    predictions: tuple[Prediction, ...]

    def __len__(self) -> int:
        return len(self.predictions)

    def __getitem__(self, index: Any) -> Any:
        return self.predictions[index]

    @property
    def probabilities(self) -> np.ndarray:
        """Calibrated probabilities, float64 (images, findings); NaN where an image could not be read."""
        missing = np.full(len(self.predictor.manifest.findings), np.nan)
        rows = [missing if given.error else given.probabilities for given in self.predictions]
        return np.array(rows).reshape(len(rows), len(missing))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know: notices, and why images could not be read."""
        errors = (f"{given.image}: {given.error}" for given in self.predictions if given.error)
        return (*errors, *prediction.common_warnings(self.predictions))

    def to_frame(self) -> pd.DataFrame:
        """Return a row an image and finding: image, finding, probability, threshold, decision, warnings, bundle."""
        return prediction.to_frame(self.predictor, self.predictions)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file that `hilum predict` writes."""
        return prediction.to_dict(self.predictor, self.predictions)

    def write(self, path: str | Path) -> None:
        """Write a .csv or .json file, as `hilum predict` does."""
        prediction.write(Path(path), self.predictor, self.predictions)

    def _repr_html_(self) -> str:
        return str(self.to_frame().drop(columns="bundle").to_html(index=False))


@dataclass(frozen=True)
class Explanations(Sequence[Case]):
    """Images with the maps of the same findings each, image by image, all on one scale."""

    cases: tuple[Case, ...]
    bundle: str

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: Any) -> Any:
        return self.cases[index]

    def plot(self, number: int = 0) -> Drawing:
        """Return the drawing of one of them: the film, the film under its map, the map with its scale."""
        from hilum.report.drawing import maps

        limit = maps.scale_limit(self.cases)
        return Drawing(maps.panel(self.cases[number], limit=limit, bundle=self.bundle))

    def write(self, folder: str | Path) -> list[Path]:
        """Write a PNG file each, as `hilum explain` does, and return their paths.

        Raises:
            UsageError: A file is there already.
        """
        from hilum.report.drawing import map_files, maps

        findings = list(dict.fromkeys(case.finding for case in self.cases))
        images = [case.image for case in self.cases if case.finding == findings[0]]
        paths = [path for row in map_files.plan(Path(folder), images, findings) for path in row]
        map_files.write(paths, self.cases, bundle=self.bundle, limit=maps.scale_limit(self.cases))
        return paths

    def _repr_html_(self) -> str:
        pictures = (base64.b64encode(self.plot(number)._repr_png_()).decode() for number in range(len(self)))
        return "".join(
            f'<img style="max-width:100%" src="data:image/png;base64,{picture}">' for picture in pictures
        )


class Model:
    """A sealed bundle, ready to predict. No framework is needed; see `hilum.load`."""

    def __init__(self, predictor: Predictor) -> None:
        """Take a loaded bundle."""
        self.predictor = predictor

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings, or classes, in the order of all arrays."""
        return self.predictor.manifest.findings

    @property
    def hash(self) -> str:
        """The bundle's name everywhere: 64 hexadecimal digits."""
        return self.predictor.bundle.hash

    def predict(self, images: Images) -> ImagePredictions:
        """Predict one image or several; each is decoded once and run once.

        Args:
            images: A path of a file, folder or zip archive's member, bytes, an open file, an array ((height, width) or
                (height, width, 3), uint8 or floating point in [0, 1]), a PIL image; or any of them in a list. Or a
                Table, whose images keep the names that it gives them.

        Returns:
            One prediction an image. Of an image that cannot be read `error` says why; the others are predicted.

        Raises:
            UsageError: A path does not exist.
            LayoutError: A folder holds no image.
        """
        return ImagePredictions(self.predictor, tuple(self._predict(images)))

    def explain(self, images: Images, findings: Sequence[str] | None = None) -> Explanations:
        """Explain images by the exact Grad-CAM of each finding; images that cannot be read are left out.

        Args:
            images: As of `predict`; of a Table the truth and the boxes of experts are drawn too.
            findings: Which, in any spelling; None for all.

        Raises:
            UsageError: A path does not exist, or the model does not know a finding.
        """
        manifest = self.predictor.manifest
        wanted = choose_findings(manifest, findings)
        told = _Truth(images, manifest.task) if isinstance(images, Table) else None
        cases = [
            case
            for row, given in enumerate(self._predict(images, maps=True))
            if not given.error
            for finding in wanted
            for case in make_cases(manifest, given, [finding], **(told.of(row, finding) if told else {}))
        ]
        return Explanations(tuple(cases), self.hash)

    def evaluate(
        self,
        data: Table | str | Path | None = None,
        *,
        split: str | None = None,
        watch: Watcher | None = None,
    ) -> "Result[Evaluation]":
        """Score the model with intervals by patient; arguments and errors as of `hilum.evaluate`."""
        from hilum.api.functions import evaluate

        return evaluate(self, data, split=split, watch=watch)

    def as_classifier(self) -> "BundleClassifier":
        """Return a view of the model with scikit-learn's interface."""
        from hilum.api.classifier import BundleClassifier

        return BundleClassifier(self)

    def _predict(self, images: Images, *, maps: bool = False) -> Iterator[Prediction]:
        if not isinstance(images, Table):
            yield from self.predictor.predict(_opened(images), maps=maps)
            return
        given = self.predictor.predict(map(images.location, range(len(images))), maps=maps)
        for name, one in zip(images.frame["image"], given, strict=True):
            yield replace(one, image=name)

    def __repr__(self) -> str:
        manifest = self.predictor.manifest
        return f"Model({manifest.name!r}, findings={list(self.findings)}, bundle={self.hash[:16]!r})"


class _Truth:
    """What a table tells of its images, in the words of `make_cases`."""

    def __init__(self, table: Table, task: Task) -> None:
        self._table = table
        known = [finding for finding in task.findings if finding in (*table.findings, NO_FINDING)]
        self._labels = pd.DataFrame(table.labels(known), columns=known).reindex(columns=list(task.findings))
        self._exclusive = task.exclusive

    def of(self, row: int, finding: str) -> dict[str, Any]:
        """Return the label, the boxes and the true class of a row (counted from 0)."""
        image, boxes, labels = self._table.frame["image"].iloc[row], self._table.boxes, self._labels.iloc[row]
        own = boxes[(boxes["image"] == image) & (boxes["finding"] == finding)]
        present = list(labels.index[labels == 1])
        return {
            "labels": [labels[finding]],
            "boxes": own[["x", "y", "width", "height"]].to_numpy(float),
            "truth": present[0] if self._exclusive and len(present) == 1 else "",
        }


def _opened(images: Given | Iterable[Given]) -> Iterator[Given]:
    """Yield images one by one; folders give theirs."""
    if isinstance(images, str | Path | Location):
        yield from find_images([Path(str(images))])
    elif isinstance(images, list | tuple):
        for image in images:
            yield from _opened(image)
    else:
        yield from several(images)
