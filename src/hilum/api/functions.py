"""The functions of `import hilum`: paths, names and tables in, results that show themselves out."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from hilum.api.model import Model
from hilum.api.results import Result
from hilum.comparison.compare import Comparison
from hilum.data.audit import Audit
from hilum.data.exploration import LIMIT, Exploration
from hilum.data.table import Table
from hilum.errors import UsageError
from hilum.evaluation.evaluation import Evaluation
from hilum.inference.predictor import Predictor
from hilum.progress import Silent, Watcher
from hilum.recipe import Recipe, load_recipe
from hilum.report.drawing.style import Drawing

if TYPE_CHECKING:
    from hilum.training.train import Run
    from hilum.tuning.study import Study

Data = Table | str | Path
"""A Table, or the path of a data set's folder, its CSV file or a stored table."""


def load(path: str | Path, *, expect: str | None = None, provider: str | None = None) -> Model:
    """Open a sealed model.

    Args:
        path: A bundle, or a run's folder that holds one.
        expect: The hash that it must have, or its beginning.
        provider: Execution provider of ONNX Runtime; None: `$HILUM_PROVIDER`, or the CPU.

    Raises:
        UsageError: There is no bundle or no such provider.
        BundleError: The bundle is damaged, or computes something else here than where it was sealed.
    """
    return Model(Predictor.load(Path(path), expect=expect, provider=provider))


def read(data: Data, **options: Any) -> Table:
    """Read a data set of any known layout; a Table is returned as it is.

    Args:
        data: A folder, a CSV file, or a table (`.parquet`).
        **options: Those of `hilum.data.readers.read`, such as `images` and `columns`.

    Raises:
        UsageError: A path is not there, or an option does not suit the layout.
        DataError: No layout or several fit, or the content is not as it should be.
    """
    from hilum.data import readers

    return data if isinstance(data, Table) else readers.read(Path(data), **options)


def explore(data: Data, *, limit: int = LIMIT, watch: Watcher | None = None) -> Result[Exploration]:
    """Look at what a data set holds: classes, patients, views, sizes, mean images.

    Args:
        data: Any.
        limit: At most so many images of each class are read; 0 reads none.
        watch: Shown the progress.
    """
    from hilum.data import exploration
    from hilum.report.exploration import page

    table = read(data)
    title = ", ".join(source.name for source in table.sources)
    return Result(
        exploration.explore(table, limit=limit, watch=watch),
        lambda found: page.make_page(found, title=title),
        lambda found: page.classes(found).to_frame(),
        lambda folder, found: page.write(folder, found, title=title),
    )


def audit(data: Data, *, watch: Watcher | None = None) -> Result[Audit]:
    """Look for leaks, copies, clashing labels and broken images."""
    from hilum.data import audit
    from hilum.report.audit import page

    return Result(
        audit.audit(read(data), watch=watch), page.make_page, lambda found: found.summary(), page.write
    )


def split(
    data: Data,
    method: Literal["patient", "folders", "official", "given", "image"] = "patient",
    *,
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    findings: Sequence[str] | None = None,
) -> Table:
    """Divide a data set into train, val and test, as training does.

    Args:
        data: Any.
        method: As `split.method` of a recipe; all but `image` keep a patient in one part, where patients are known.
        val: Share of the images that steer.
        test: Share of the images that are tested on, where the method draws them.
        seed: Another one gives another draw.
        findings: Of which each part gets its share; None for all of the data's.

    Raises:
        DataError: There are too few patients, or the data do not say what the method needs.
    """
    from hilum.data.split import split
    from hilum.recipe import SplitSettings

    settings = SplitSettings(method=method, val=val, test=test, seed=seed)
    return split(read(data), settings, findings=findings).table


def draw_augmented(
    data: Data,
    recipe: Recipe | str | Path,
    *,
    changes: Sequence[str] = (),
    images: int = 3,
    versions: int = 4,
    watch: Watcher | None = None,
) -> Drawing:
    """Draw some training images as they are, and beside each some versions as training sees them.

    Args:
        data: That would be trained on.
        recipe: What would be trained: a Recipe, a shipped one's name or a TOML file.
        changes: As of `train`.
        images: How many.
        versions: Of each.
        watch: Shown the preparation.

    Raises:
        UsageError: The data do not know a finding of the recipe.
        DataError: The data do not allow what the recipe asks.
    """
    from hilum.report.drawing import augmentation
    from hilum.training.job import training_samples

    chosen = _recipe(recipe, changes)
    samples = training_samples(chosen, read(data), number=images, watch=watch or Silent())
    return Drawing(augmentation.draw(samples, chosen, versions=versions))


def layers(
    recipe: Recipe | str | Path, *, changes: Sequence[str] = (), engine: str = "torch"
) -> pd.DataFrame:
    """Return the layers of a recipe's network: a row a layer that learns, from the image to the logits.

    Args:
        recipe: A Recipe, a shipped one's name or a TOML file.
        changes: As of `train`.
        engine: `torch` or `keras`.

    Returns:
        Columns layer, kind (the framework's class), parameters (their number), frozen (when training begins).

    Raises:
        UsageError: The engine does not have the architecture.
        MissingExtraError: The engine's framework is not installed.
    """
    from hilum.engines.registry import load_engine

    found = load_engine(engine).layers(_recipe(recipe, changes))
    rows = [(layer.name, layer.kind, layer.parameters, layer.frozen) for layer in found]
    return pd.DataFrame(rows, columns=["layer", "kind", "parameters", "frozen"])


def find_gpu(engine: str = "torch") -> str:
    """Return the name of the GPU that an engine would train on; empty where it finds none.

    Args:
        engine: `torch` or `keras`.

    Raises:
        MissingExtraError: The engine's framework is not installed.
    """
    from hilum.engines.registry import load_engine

    return load_engine(engine).find_gpu()


def dataset(
    data: Data,
    findings: Sequence[str] | None = None,
    *,
    framework: str = "torch",
    split: str = "all",
    size: int = 224,
    fit: Literal["squash", "pad", "crop"] = "pad",
    watch: Watcher | None = None,
) -> Any:
    """Return prepared images and labels for a training loop of one's own.

    Images go the way that they go in training and prediction, and are prepared once. Rows of which no finding is known
    and images that cannot be read are left out.

    Args:
        data: Any.
        findings: Which labels, in any spelling; None for all of the data's.
        framework: `torch` gives a `torch.utils.data.Dataset`, images float32 (1, size, size); `keras` a
            `tf.data.Dataset`, images float32 (size, size, 1). Grey in [0, 1]; labels are 1, 0 or NaN.
        split: `train`, `val` or `test` of the data's own split, or `all`.
        size: Side of the square in pixels.
        fit: How an image becomes a square.
        watch: Shown the preparation.

    Raises:
        UsageError: The data know no such finding or have no such part.
        MissingExtraError: The framework is not installed.
    """
    from hilum.data import examples
    from hilum.engines.registry import load_make_dataset
    from hilum.recipe import InputSpec, Task

    make, table = load_make_dataset(framework), read(data)
    inside = table.frame["split"].to_numpy() == split
    if split != "all" and not inside.any():
        raise UsageError(
            f"the data have no part {split!r}; give 'all' or split them with a table of your own"
        )
    names = tuple(findings or table.findings)
    prepared = examples.load(
        table if split == "all" else table.select(inside),
        Task(kind="multilabel", findings=names),
        InputSpec(size=size, fit=fit),
        watch=watch or Silent(),
    )
    return make(prepared, prepared.table.labels(names))


@dataclass(frozen=True)
class TrainedModel:
    """A finished training.

    Attributes:
        run: With its history and bundle.
    """

    run: "Run"

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self.run.folder

    @property
    def model(self) -> Model:
        """The sealed model, opened."""
        return load(self.run.bundle.folder)

    def evaluate(self, *, split: str | None = None, watch: Watcher | None = None) -> Result[Evaluation]:
        """Score it on a part of its own data, the test if not given; a read of the test is counted."""
        return evaluate(self.folder, split=split, watch=watch)

    def to_frame(self) -> pd.DataFrame:
        """Return the history, a row an epoch."""
        return self.run.history

    def plot(self) -> Drawing:
        """Return the learning curves."""
        from hilum.report.evaluation.plots import draw_history

        return Drawing(draw_history(self.run.history, self.run.best_epoch)[0])

    def _repr_html_(self) -> str:
        best = f"<p>best epoch {self.run.best_epoch}; bundle {self.run.bundle.hash[:16]} in {self.folder}</p>"
        return f"{self.run.history.round(4).to_html(index=False)}{best}"


def train(
    data: Data | None,
    folder: str | Path,
    recipe: Recipe | str | Path | None = None,
    *,
    changes: Sequence[str] = (),
    engine: str = "torch",
    resume: bool = False,
    allow_leak: bool = False,
    watch: Watcher | None = None,
) -> TrainedModel:
    """Train a model and seal it.

    Args:
        data: On what; None where the recipe draws synthetic radiographs.
        folder: The run's folder; it must be new, or hold a run of the same recipe if `resume`.
        recipe: What to train: a Recipe, a shipped one's name or a TOML file; None chooses one for the data.
        changes: `section.key=value` each, where the recipe is no Recipe yet.
        engine: `torch` or `keras`.
        resume: Go on from where the run stood.
        allow_leak: Train though patients or pictures stand in two parts of the split.
        watch: Shown the progress; `hilum.Lines(print)` prints it.

    Raises:
        UsageError: The folder holds something else, or the recipe does not fit the data or the engine.
        DataError: The data do not allow what the recipe asks, or the split leaks.
        TrainingError: Training cannot start or go on.
    """
    from hilum.training.proposal import propose
    from hilum.training.train import draw_phantoms, train

    table = None if data is None else read(data)
    if recipe is None:
        if table is None:
            raise UsageError("give data, a recipe that draws its own, such as 'demo', or both")
        recipe = propose(table, changes=changes).recipe
    else:
        recipe = _recipe(recipe, changes)
    if table is None:
        if not recipe.data.phantoms:
            raise UsageError(f"recipe {recipe.name} needs data")
        table = draw_phantoms(recipe, watch)
    return TrainedModel(
        train(recipe, table, Path(folder), engine=engine, resume=resume, allow_leak=allow_leak, watch=watch)
    )


def tune(
    data: Data,
    folder: str | Path,
    recipe: Recipe | str | Path,
    vary: Mapping[str, Sequence[Any]],
    *,
    search: Literal["grid", "tpe"] = "grid",
    trials: int = 20,
    engine: str = "torch",
    watch: Watcher | None = None,
) -> "Result[Study]":
    """Search for the values of a recipe's keys that do best on validation; the test part is not read.

    Args:
        data: As of `train`.
        folder: Of the study: new, or that of the same study, which then goes on where it stood.
        recipe: What is varied: a Recipe, a shipped one's name or a TOML file.
        vary: `section.key` -> a list of choices, or a range as a tuple (low, high) or (low, high, "log").
        search: `grid` tries every combination of choices once; `tpe` each where those before promise most.
        trials: How many, for `tpe`.
        engine: `torch` or `keras`.
        watch: Shown the progress.

    Returns:
        The search: `to_frame` a row a trial, `value.best` the best recipe.

    Raises:
        UsageError: What is varied does not fit, or the folder holds something else.
        DataError: As of `train`.
        TrainingError: No trial is complete.
        MissingExtraError: Optuna (`tune`) or the engine's framework is not installed.
    """
    from hilum.report.tuning import page
    from hilum.tuning.tune import TuneOptions, tune

    study = tune(
        _recipe(recipe),
        read(data),
        Path(folder),
        vary=vary,
        search=search,
        engine=engine,
        options=TuneOptions(trials=trials),
        watch=watch,
    )
    return Result(study, page.make_page, lambda found: found.trials, page.write)


def evaluate(
    model: Model | str | Path,
    data: Data | None = None,
    *,
    split: str | None = None,
    watch: Watcher | None = None,
) -> Result[Evaluation]:
    """Score a model with intervals by patient.

    Args:
        model: A Model, a bundle or a run's folder.
        data: On what; None for the run's own data. On data from elsewhere the model's own test stands beside.
        split: `train`, `val`, `test` or `all`; None for the test, or for all images of data from elsewhere.
        watch: Shown the progress.

    Raises:
        UsageError: There is no model, no such part, or the table knows no finding of the model.
        DataError: No image can be read, or none has a label.
    """
    from hilum.evaluation import evaluate

    source = model.predictor if isinstance(model, Model) else Path(model)
    subject = evaluate.subject(source, None if data is None else read(data))
    evaluation = evaluate.evaluate(subject, split=split, watch=watch)
    return _evaluated(evaluation, subject.output(evaluation))


def score(
    predictions: str | Path | Sequence[str | Path], labels: Data, *, allow_missing: bool = False
) -> Result[Evaluation]:
    """Score anybody's predictions with the same statistics.

    Args:
        predictions: A .csv or .parquet file with a column `image` and one a finding; of several files the mean.
        labels: Of the same images.
        allow_missing: Score the images that have both, though some have only labels or predictions.

    Raises:
        UsageError: A file is not there or of another kind.
        DataError: Images or findings do not match.
    """
    from hilum.evaluation import score

    paths = [predictions] if isinstance(predictions, str | Path) else predictions
    joined = score.mean([score.read(Path(path)) for path in paths])
    return _evaluated(score.score(joined, read(labels), allow_missing=allow_missing))


def compare(
    runs: Sequence[str | Path] | Mapping[str, str | Path], *, watch: Watcher | None = None
) -> Result[Comparison]:
    """Compare evaluated runs on the test images that they share.

    Args:
        runs: Two or more folders; the first is the reference. A mapping names them.
        watch: Shown the progress.

    Raises:
        UsageError: Fewer than two, or runs that do not answer the same question.
    """
    from hilum.comparison import compare
    from hilum.report.comparison import page

    names = list(runs) if isinstance(runs, Mapping) else None
    folders = [Path(folder) for folder in (runs.values() if isinstance(runs, Mapping) else runs)]
    return Result(
        compare.compare(folders, names, watch),
        page.make_page,
        lambda found: pd.read_csv(io.StringIO(page.performance_csv(found))),
        page.write,
        lambda found: ((name, Drawing(figure)) for name, figure in page.galleries(found)),
    )


def _recipe(recipe: Recipe | str | Path, changes: Sequence[str] = ()) -> Recipe:
    if not isinstance(recipe, Recipe):
        return load_recipe(recipe, changes)
    if changes:
        raise UsageError("changes go with a recipe's name or file; a Recipe is complete")
    return recipe


def _evaluated(evaluation: Evaluation, place: Path | None = None) -> Result[Evaluation]:
    from hilum.report.evaluation import images_section, page, tables

    def to_frame(evaluation: Evaluation) -> pd.DataFrame:
        return (
            pd.read_csv(io.StringIO(tables.performance_csv(evaluation)))
            .set_index("Finding")
            .drop(columns="Model")
        )

    return Result(
        evaluation,
        page.make_page,
        to_frame,
        page.write,
        lambda evaluation: (
            (name, Drawing(figure)) for name, figure in images_section.galleries(evaluation.cases)
        ),
        place,
    )
