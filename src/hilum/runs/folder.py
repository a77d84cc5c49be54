"""The layout of a run's folder: which file lies where."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

RECIPE = "recipe.toml"
TABLE = "table.parquet"
HISTORY = "history.csv"


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, with the place of each of its files; none of them need be there.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def of_bundle(cls, bundle: Path) -> Self | None:
        """Return the run that a bundle's folder lies in; None for a bundle alone."""
        run = cls(bundle.parent)
        return run if run.bundle.name == bundle.name and run.recipe.is_file() else None

    @property
    def recipe(self) -> Path:
        """What was to be trained."""
        return self.path / RECIPE

    @property
    def table(self) -> Path:
        """The images that could be read, with their split."""
        return self.path / TABLE

    @property
    def quarantine(self) -> Path:
        """The images that could not be read, with the reasons."""
        return self.path / "quarantine.csv"

    @property
    def history(self) -> Path:
        """One row an epoch."""
        return self.path / HISTORY

    @property
    def log(self) -> Path:
        """What was logged in training."""
        return self.path / "log.txt"

    @property
    def bad_batch(self) -> Path:
        """The images of a batch whose loss was not a number."""
        return self.path / "bad_batch.csv"

    @property
    def allowed_leaks(self) -> Path:
        """What leaks between the parts of the split though training was told to go on, a sentence a line."""
        return self.path / "allowed_leaks.txt"

    @property
    def state(self) -> Path:
        """From where a training goes on."""
        return self.path / "state" / "last.safetensors"

    @property
    def mlflow_run(self) -> Path:
        """The number of the run in MLflow."""
        return self.path / "state" / "mlflow-run"

    @property
    def bundle(self) -> Path:
        """The sealed model of the best epoch."""
        return self.path / "bundle"

    @property
    def final(self) -> Path:
        """The sealed model of the last epoch, where it is kept."""
        return self.path / "final"

    @property
    def evaluation(self) -> Path:
        """The report of the model's own test."""
        return self.path / "evaluation"

    @property
    def metrics(self) -> Path:
        """The metrics in that report."""
        return self.evaluation / "metrics.json"

    @property
    def external(self) -> Path:
        """The reports on data from elsewhere, a folder each."""
        return self.path / "external"

    @property
    def ledger(self) -> Path:
        """When the test was read."""
        return self.path / "test_reads.jsonl"
