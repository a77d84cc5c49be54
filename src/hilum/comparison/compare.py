"""Finished runs that answer one question -> a Comparison of their models on the test images that they share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hilum.comparison import contenders, eligibility, gallery, paired, speed
from hilum.comparison.contenders import FIGURES, Compared
from hilum.comparison.gallery import Exhibit
from hilum.comparison.paired import Difference, Pair
from hilum.errors import ImageError, UsageError
from hilum.evaluation.external import MEAN
from hilum.notices import Notice, notice
from hilum.progress import Silent, Watcher
from hilum.recipe import Task
from hilum.runs.listing import recipe_differences
from hilum.stats import Estimate, Resampling

__all__ = ["FIGURES", "Compared", "Comparison", "Difference", "Exhibit", "Pair", "compare"]

FORMAT = 1
MOST = 7
"""Models: as many as there are colours that all readers tell apart."""


@dataclass(frozen=True)
class Comparison:
    """Models on the same test images; the first named is the reference.

    Attributes:
        task: The question; its k findings are the columns of `labels` and of each model's probabilities.
        data: The sources' names.
        images: The n images in common, str.
        patients: Theirs, as `source:patient`.
        labels: float64 (n, k), NaN unknown.
        models: In the order in which they were named.
        differences: Of every model but the first, finding by finding, `MEAN` last.
        pairs: Every two models.
        exhibits: Images, each explained by every model.
        recipes: `section.key` -> model -> value, where the recipes differ.
        matched: By what the images were matched, in a sentence.
        warnings: What a reader must know before any number.
        citations: Of data.
    """

    task: Task
    data: str
    images: np.ndarray
    patients: np.ndarray
    labels: np.ndarray
    models: tuple[Compared, ...]
    differences: tuple[Difference, ...]
    pairs: tuple[Pair, ...]
    exhibits: tuple[Exhibit, ...]
    recipes: Mapping[str, Mapping[str, Any]]
    matched: str
    warnings: tuple[Notice, ...]
    citations: tuple[str, ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """The k columns of `labels`."""
        return self.task.findings

    @property
    def overall(self) -> str:
        """The key of a model's main figures: the finding, or `MEAN` of several."""
        return self.findings[0] if len(self.findings) == 1 else MEAN

    def table(self) -> pd.DataFrame:
        """Return one row a model, as text: figures with their intervals, size, cost."""
        rows = {
            model.name: {
                **{_HEADS[name]: _text(model.figures[self.overall][name]) for name in FIGURES},
                "Engine": model.engine,
                "Architecture": model.architecture,
                "Pixels": str(model.size),
                "Parameters": f"{model.parameters / 1e6:.2f} M",
                "Epochs": f"{model.epochs} (best {model.best_epoch})",
                "Training": f"{model.seconds:,.0f} s",
                "Images/s": f"{model.rate.images_a_second:,.0f}" if model.rate else "",
            }
            for model in self.models
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("Model")

    def to_dict(self) -> dict[str, Any]:
        """Return the form of comparison.json: nothing but dicts, lists, text, numbers and None."""
        return {
            "format": FORMAT,
            "task": self.task.kind,
            "findings": list(self.findings),
            "data": self.data,
            "num_images": len(self.images),
            "num_patients": len(set(self.patients)),
            "reference": self.models[0].name,
            "matched": self.matched,
            "warnings": [warning.to_dict() for warning in self.warnings],
            "models": {model.name: _model_dict(model) for model in self.models},
            "differences": [_difference_dict(one) for one in self.differences],
            "decisions": [
                {
                    **{name: value for name, value in vars(pair).items() if name != "agreement"},
                    "kappa": pair.kappa,
                }
                for pair in self.pairs
            ],
            "explained": [
                {"group": one.group, "image": one.image, "finding": one.finding} for one in self.exhibits
            ],
            "recipes": {key: dict(each) for key, each in self.recipes.items()},
        }


_HEADS = {
    "accuracy": "Accuracy",
    "ppv": "Precision",
    "sensitivity": "Recall",
    "specificity": "Specificity",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "AP",
}


def compare(
    folders: Sequence[Path],
    names: Sequence[str] | None = None,
    watch: Watcher | None = None,
    *,
    images: Path | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare the models of finished runs on the test images that they share.

    The stored predictions of `hilum evaluate` are scored, so that no test is read again; each model is run on some of
    the images for its maps and its speed.

    Args:
        folders: Of runs, each evaluated on its own test; the first is the reference.
        names: What to call them; their folders' names if None.
        watch: Receives the progress.
        images: Where the images lie now, if they were moved.
        replicates: Bootstrap resamples of patients.
        seed: Of the resamples and of the choice of images to explain.

    Raises:
        UsageError: Fewer than two runs or more than `MOST`, one of them twice or not evaluated, or tasks that differ.
        DataError: Too few images in common, labels or pictures that differ, or a test image in another run's training.
        BundleError: A bundle is damaged.
    """
    watch, resampling = watch or Silent(), Resampling(replicates=replicates, seed=seed)
    called = _names([Path(folder) for folder in folders], names)
    watch.stage("Reading runs", len(folders))
    entrants = []
    for number, (folder, name) in enumerate(zip(folders, called, strict=True), start=1):
        entrants.append(contenders.load(Path(folder), name, images=images))
        watch.advance(number)
    first = entrants[0]
    for other in entrants[1:]:
        eligibility.check_task(first, other)
    task, findings = first.manifest.task, first.manifest.findings
    rows = eligibility.in_common(entrants)
    eligibility.check_labels(entrants, rows)
    labels, patients = first.stored.labels[rows[0]], first.stored.patients[rows[0]]
    eligibility.check_number(entrants, labels, patients)
    matched, sure = eligibility.matched(entrants, rows, seed=seed)
    warnings = [
        *([] if sure else [notice("matched-by-name", matched=matched)]),
        *eligibility.comparison_notices(entrants, rows),
    ]

    watch.stage("Scoring", len(entrants))
    models: list[Compared] = []
    differences: list[Difference] = []
    for number, (one, mine) in enumerate(zip(entrants, rows, strict=True), start=1):
        models.append(
            contenders.score_contender(one, mine, findings, labels, patients, resampling=resampling)
        )
        if number > 1:
            differences += paired.differences(
                models[-1], models[0], labels, patients, findings=findings, resampling=resampling
            )
        watch.advance(number)
    exhibits: tuple[Exhibit, ...] = ()
    if first.table is not None:
        places = first.places(rows[0])
        running = [one.model for one in entrants]
        sources = [first.table.location(int(place)) for place in places[: speed.IMAGES]]
        try:
            rates = speed.rates(running, sources, watch=watch)
            models = [replace(model, rate=rate) for model, rate in zip(models, rates, strict=True)]
            exhibits = gallery.exhibits(
                running,
                first.table,
                places,
                findings=findings,
                labels=labels,
                probabilities=[model.probabilities for model in models],
                seed=seed,
                watch=watch,
            )
        except ImageError as error:
            warnings.append(notice("no-maps", reason=gallery.unreadable(error, first.table)))
    watch.finish()
    return Comparison(
        task=task,
        data=first.stored.data,
        images=first.stored.images[rows[0]],
        patients=patients,
        labels=labels,
        models=tuple(models),
        differences=tuple(paired.corrected(differences)),
        pairs=tuple(paired.pair(*two, labels) for two in combinations(models, 2)),
        exhibits=exhibits,
        recipes=recipe_differences([replace(one.summary, name=one.name) for one in entrants if one.summary]),
        matched=matched,
        warnings=tuple(warnings),
        citations=tuple(
            dict.fromkeys(f"{source.citation} ({source.terms})" for source in first.manifest.data)
        ),
    )


def _names(folders: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    """Return what each run is called; equal names of folders are numbered."""
    if not 2 <= len(folders) <= MOST:
        raise UsageError(f"number of runs: {len(folders)}; give from 2 to {MOST} run folders")
    places = [folder.resolve() for folder in folders]
    for number, folder in enumerate(folders):
        if places[number] in places[:number]:
            raise UsageError(f"{folder} is given twice; a run is compared with others, give each once")
    if names is not None:
        if len(names) != len(folders) or len(set(names)) < len(names) or not all(map(str.strip, names)):
            raise UsageError(
                f"names {', '.join(map(repr, names))} for {len(folders)} runs; give one to each, all different"
            )
        return list(names)
    taken: list[str] = []
    for folder in folders:
        name, number = folder.resolve().name, 2
        while name in taken:
            name, number = f"{folder.resolve().name} ({number})", number + 1
        taken.append(name)
    return taken


def _text(estimate: Estimate) -> str:
    if estimate.value is None:
        return "not estimable"
    ends = "" if estimate.low is None else f" ({estimate.low:.3f}–{estimate.high:.3f})"
    return f"{estimate.value:.3f}{ends}"


def _model_dict(model: Compared) -> dict[str, Any]:
    plain = ("bundle", "engine", "architecture", "size", "parameters", "epochs", "best_epoch", "seconds", "monitor",
             "tested", "test_reads")  # fmt: skip
    return {
        **{name: getattr(model, name) for name in plain},
        "rule": model.decision.origin,
        "thresholds": model.decision.array.tolist(),
        "rate": vars(model.rate).copy() if model.rate else None,
        "figures": {
            finding: {name: estimate.to_dict() for name, estimate in metrics.items()}
            for finding, metrics in model.figures.items()
        },
    }


def _difference_dict(one: Difference) -> dict[str, Any]:
    return {
        "model": one.model,
        "finding": one.finding,
        **{name: estimate.to_dict() for name, estimate in one.metrics.items()},
        "delong_p": one.delong_p,
        "delong_holm_p": one.delong_holm,
        "mcnemar": vars(one.mcnemar).copy() if one.mcnemar else None,
        "mcnemar_holm_p": one.mcnemar_holm,
        **({"reason": one.reason} if one.reason else {}),
    }
