"""The folder of a finished run -> a Contender; a Contender on the images in common -> what it is, costs and scores."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnx import numpy_helper

from hilum import stats
from hilum.bundle import DecisionRule
from hilum.bundle.manifest import Manifest
from hilum.comparison.speed import Rate
from hilum.data.table import Table
from hilum.errors import DataError, UsageError
from hilum.evaluation import external
from hilum.evaluation.external import ACCURACY, MEAN, Stored
from hilum.evaluation.scoring import score
from hilum.inference.predictor import Predictor
from hilum.runs.folder import RunFolder
from hilum.runs.listing import SUMS, RunSummary, find_runs, read_history
from hilum.stats import Estimate, Resampling

TUNED = ("train", "val")
SHORT = 2048
"""Numbers: weights of fewer may be equal by chance, as zeros are."""
FIGURES = ("accuracy", "ppv", "sensitivity", "specificity", "f1", "auroc", "average_precision")
"""What is compared, in the order of the tables."""


@dataclass(frozen=True)
class Contender:
    """A run that can be compared.

    Attributes:
        name: What it is called beside the others.
        folder: The run's.
        model: Of its bundle, running.
        parameters: Numbers in the graph's weights, batch norm folded in where the export does so.
        history: One row an epoch; None where the run keeps none.
        summary: What `runs` tells, for the differences between recipes.
        stored: What its evaluation kept of its own test.
        table: The run's table; None where it was taken away.
    """

    name: str
    folder: Path
    model: Predictor
    parameters: int
    history: pd.DataFrame | None
    summary: RunSummary | None
    stored: Stored
    table: Table | None

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.model.bundle.manifest

    def keys(self) -> pd.Index:
        """Return what each test image is known by in every run: its source and its name."""
        return _keys([patient.partition(":")[0] for patient in self.stored.patients], self.stored.images)

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of the table where those of the test stand; the table must be there.

        Raises:
            DataError: The table does not hold them.
        """
        assert self.table is not None
        frame = self.table.frame
        places = _keys(frame["source"], frame["image"]).get_indexer(self.keys()[rows])
        if (places < 0).any():
            raise DataError(
                f"{RunFolder(self.folder).table} lacks images of the run's evaluation; "
                f"run `hilum evaluate {self.folder}` again"
            )
        return np.asarray(places)

    def tuned(self) -> tuple[pd.Index, frozenset[str]]:
        """Return the images, and the patients as `source:patient`, that the model was trained or tuned on."""
        if self.table is None:
            return pd.Index([]), frozenset()
        frame = self.table.frame
        tuned = frame["split"].isin(TUNED)
        images = _keys(frame["source"][tuned], frame["image"][tuned])
        return images, frozenset(self.table.patient_keys[tuned].tolist())


@dataclass(frozen=True)
class Compared:
    """One model on the n images in common.

    Attributes:
        name: What it is called.
        folder: The run's.
        bundle: The bundle's hash.
        engine: That trained it.
        architecture: Its network.
        size: Pixels of the square that it looks at.
        parameters: Numbers in the graph's weights.
        epochs: Trained.
        best_epoch: Whose weights were kept.
        seconds: Of training.
        monitor: The figure that steered the training.
        history: One row an epoch, or None.
        tested: Images of its own test.
        test_reads: How often that was evaluated in its run; 0 unknown.
        probabilities: float64 (n, k), calibrated.
        decision: How the k findings are called.
        figures: Finding, and `MEAN` where there are several -> metric of `FIGURES` -> estimate.
        rate: Images a second, here and now; None where no image could be read.
    """

    name: str
    folder: Path
    bundle: str
    engine: str
    architecture: str
    size: int
    parameters: int
    epochs: int
    best_epoch: int
    seconds: float
    monitor: str
    history: pd.DataFrame | None
    tested: int
    test_reads: int
    probabilities: np.ndarray
    decision: DecisionRule
    figures: Mapping[str, Mapping[str, Estimate]]
    rate: Rate | None

    @property
    def decisions(self) -> np.ndarray:
        """What is called, bool (n, k)."""
        return self.decision.decide(self.probabilities)


def load(folder: Path, name: str, *, images: Path | None = None) -> Contender:
    """Read a run.

    Args:
        folder: With a bundle and the evaluation of its own test.
        name: What to call it.
        images: Where the images lie now, if they were moved.

    Raises:
        UsageError: It is no finished run, or was not evaluated on its own test since its bundle was sealed.
        BundleError: The bundle is damaged.
        DataError: The evaluation is damaged.
    """
    run = RunFolder(folder)
    if not (run.bundle / SUMS).is_file():
        what = "holds no finished run" if folder.is_dir() else "does not exist"
        raise UsageError(
            f"{folder} {what}; give folders that `hilum train -o` finished, with a {run.bundle.name}/ in them"
        )
    if not run.metrics.is_file():
        raise UsageError(
            f"{folder} was not evaluated; run `hilum evaluate {folder}` first, or write() the evaluation"
        )
    model = Predictor.load(folder)
    stored = external.read_stored(external.find_report(folder), model.bundle.manifest.findings)
    if stored.bundle != model.bundle.hash:
        raise UsageError(
            f"{run.metrics} is of bundle {stored.bundle[:16]}, the run's is {model.bundle.hash[:16]}; "
            f"run `hilum evaluate {folder}` again"
        )
    if stored.split != "test" or not stored.internal:
        raise UsageError(
            f"{run.metrics} is of {stored.data}, {stored.split}, and not of the run's own test; "
            f"run `hilum evaluate {folder}`"
        )
    table = Table.read(run.table, images=images) if run.table.is_file() else None
    return Contender(
        name=name,
        folder=folder,
        model=model,
        parameters=_count(model.bundle.graph),
        history=_history(run.history),
        summary=next((run for run in find_runs(folder) if run.folder == folder), None),
        stored=stored,
        table=table,
    )


def score_contender(
    one: Contender,
    rows: np.ndarray,
    findings: tuple[str, ...],
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    resampling: Resampling,
) -> Compared:
    """Score a contender on the images in common.

    Args:
        one: The contender.
        rows: Of its own test, (n,): the images in common.
        findings: The k columns.
        labels: (n, k), NaN unknown.
        patients: (n,), the clusters of every interval.
        resampling: How intervals come about.
    """
    manifest, training = one.manifest, one.manifest.training
    columns = [manifest.findings.index(finding) for finding in findings]
    probabilities = one.stored.probabilities[rows][:, columns]
    decision = manifest.decision.select(columns)
    scores = score(
        manifest.task.of(findings),
        labels,
        probabilities,
        patients,
        decision=decision,
        resampling=resampling,
    )
    by = scores.classes if isinstance(scores, stats.ClassScores) else scores
    figures = {name: _chosen(by.findings[name].metrics) for name in findings}
    if len(findings) > 1:
        figures[MEAN] = _chosen(by.macro.metrics)
    if isinstance(scores, stats.ClassScores):
        figures[MEAN][ACCURACY] = scores.accuracy
    return Compared(
        name=one.name,
        folder=one.folder,
        bundle=one.model.bundle.hash,
        engine=training.engine,
        architecture=training.architecture,
        size=manifest.input.size,
        parameters=one.parameters,
        epochs=training.epochs,
        best_epoch=training.best_epoch,
        seconds=training.seconds,
        monitor=str(manifest.recipe.get("train", {}).get("monitor", "")),
        history=one.history,
        tested=len(one.stored.images),
        test_reads=one.stored.test_reads,
        probabilities=probabilities,
        decision=decision,
        figures=figures,
        rate=None,
    )


def _keys(sources: object, images: object) -> pd.Index:
    return pd.Index(np.char.add(np.char.add(np.asarray(sources, str), "\n"), np.asarray(images, str)))


def _count(graph: bytes) -> int:
    """Add up the sizes of the graph's floating-point constants: one rule for every engine.

    A kernel of the head may stand there twice, once turned, for logits and for maps: the same numbers count once.
    """
    sizes: dict[bytes, int] = {}
    for number, weight in enumerate(onnx.load_from_string(graph).graph.initializer):
        if weight.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(weight).ravel()
            same = np.sort(values).tobytes() if len(values) > SHORT else number.to_bytes(4)
            sizes[hashlib.sha256(same).digest()] = len(values)
    return sum(sizes.values())


def _history(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        rows = read_history(path)
    except ValueError as error:
        raise DataError(f"{path}: {error}; take it away to compare without learning curves") from None
    return pd.DataFrame(rows) if rows else None


def _chosen(metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {name: metrics[name] for name in FIGURES}
