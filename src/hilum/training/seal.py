"""A trained model -> a sealed bundle: exported, compared, calibrated on validation, described."""

import contextlib
import hashlib
import platform
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np

from hilum.bundle import GRAPH, Bundle, DataSource, Manifest, Seen, Training, write_bundle
from hilum.data import phantom
from hilum.data.examples import Examples
from hilum.data.split import Split
from hilum.data.table import Table
from hilum.engines import Engine, Trained
from hilum.errors import TrainingError
from hilum.inference import runtime
from hilum.progress import Watcher
from hilum.recipe import InputSpec, Recipe
from hilum.training.calibration import calibrate

PARITY = 1e-4
PACKAGES = (
    "hilum",
    "numpy",
    "onnx",
    "onnxruntime",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "keras",
    "tensorflow",
    "tf2onnx",
    "grain",
)


@dataclass(frozen=True)
class Sealing:
    """What a bundle tells beside its weights."""

    engine: Engine
    recipe: Recipe
    examples: Examples
    parted: Split
    leaks: tuple[str, ...]
    balance: str
    seconds: float
    watch: Watcher

    def seal(self, trained: Trained, target: Path) -> Bundle:
        """Export the graph, calibrate through it on validation, and seal the bundle."""
        recipe, examples, watch = self.recipe, self.examples, self.watch
        val_rows = examples.rows("val")
        watch.stage("Sealing the bundle", len(val_rows))
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as temporary:
            graph_file, *weights = self.engine.export(
                trained, size=recipe.data.size, graph=Path(temporary) / GRAPH, weights=Path(temporary)
            )
            graph = runtime.Graph(graph_file.read_bytes())
            logits, embedding = _validation_outputs(graph, examples, val_rows, watch)
            _check_parity(self.engine, trained, examples.cached.images(val_rows[:32]), logits[:32])
            typical = np.stack([embedding.mean(axis=0), embedding.std(axis=0)]).astype(np.float32)
            manifest = Manifest(
                name=recipe.name,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                task=recipe.task,
                input=InputSpec(size=recipe.data.size, fit=recipe.data.fit),
                calibration=calibrate(recipe, logits, examples.table.labels(recipe.task.findings)[val_rows]),
                seen=_seen(examples, runtime.typical_limit(embedding)),
                training=self._training(trained),
                data=tuple(
                    DataSource(name=source.name, citation=source.citation, terms=source.terms)
                    for source in examples.table.sources
                ),
                recipe=recipe.model_dump(mode="json"),
                versions=_versions(),
            )
            golden = runtime.golden(graph, phantom.phantom(0, recipe.data.size, ()), typical)
            sealed = write_bundle(target, manifest, graph=graph_file, weights=weights, golden=golden)
        runtime.check_golden(graph, sealed.golden)
        watch.finish(f"Sealed {sealed.folder} ({sealed.hash[:16]})")
        return sealed

    def _training(self, trained: Trained) -> Training:
        table, train_rows = self.examples.table, self.examples.rows("train")
        training_table = table.select(table.frame["split"].to_numpy() == "train")
        return Training(
            engine=self.engine.name,
            architecture=self.recipe.model.architecture,
            precision=trained.precision,
            num_train=len(train_rows),
            num_val=len(self.examples.rows("val")),
            num_test=len(self.examples.rows("test")),
            num_patients=training_table.num_patients,
            balance=self.balance,
            data_fingerprint=fingerprint(training_table, self.recipe.task.findings),
            split_method=self.parted.method,
            split_description=self.parted.description,
            split_hash=self.parted.hash,
            leaky=self.parted.leaky or bool(self.leaks),
            leaks=self.leaks,
            epochs=len(trained.history),
            best_epoch=trained.best_epoch,
            stopped=trained.stopped,
            seconds=self.seconds,
            initial_weights=trained.initial.source,
            initial_weights_citation=trained.initial.citation,
            initial_weights_licence=trained.initial.licence,
            mean=trained.initial.mean,
            std=trained.initial.std,
        )


def _validation_outputs(
    graph: runtime.Graph, examples: Examples, rows: np.ndarray, watch: Watcher
) -> tuple[np.ndarray, np.ndarray]:
    logits, embeddings = [], []
    for start in range(0, len(rows), 32):
        outputs = graph.outputs(examples.cached.images(rows[start : start + 32]))
        logits.append(outputs.logits)
        embeddings.append(outputs.embedding)
        watch.advance(start + len(outputs.logits), len(rows))
    return np.concatenate(logits), np.concatenate(embeddings)


def _check_parity(engine: Engine, trained: Trained, images: np.ndarray, logits: np.ndarray) -> None:
    ours, theirs = (
        1 / (1 + np.exp(-values.astype(np.float64))) for values in (logits, engine.logits(trained, images))
    )
    difference = float(np.abs(ours - theirs).max())
    if not difference <= PARITY:
        raise TrainingError(
            f"the exported graph differs from the trained model by {difference:.2g} in probability; at most {PARITY} "
            "expected. The state is kept; please report this with the recipe"
        )


def _seen(examples: Examples, typical_distance: float) -> Seen:
    frame = examples.table.frame.iloc[examples.rows("train")]
    ages = frame["age"].dropna()
    sides = frame[["width", "height"]].min(axis=1)
    return Seen(
        sources=tuple(sorted(frame["source"].unique())),
        views=tuple(sorted(view for view in frame["view"].unique() if view)),
        ages=(float(ages.min()), float(ages.max())) if len(ages) else None,
        sides=(int(sides.min()), int(sides.max())),
        typical_distance=typical_distance,
        typical_share=runtime.TYPICAL_SHARE,
    )


def fingerprint(table: Table, findings: tuple[str, ...]) -> str:
    """SHA-256 over the images' names and labels, whatever their order."""
    names, values = table.frame[["source", "image"]].to_numpy(str), table.labels(findings).tolist()
    lines = sorted("\t".join([*name, *map(str, value)]) for name, value in zip(names, values, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
