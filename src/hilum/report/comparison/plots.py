"""A Comparison -> the plots of its report, each with the words beside it, and the sentences of its summary."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum import stats
from hilum.comparison.compare import FIGURES, Compared, Comparison
from hilum.evaluation.external import ACCURACY, MEAN
from hilum.progress import count
from hilum.report import formatting
from hilum.report.drawing import model_panels, overlays
from hilum.report.section import Plot
from hilum.stats import Estimate

Floats = NDArray[np.float64]

FEW = 4
"""Findings whose curves are drawn; of more, a forest tells more than curves would."""
LEVEL = 0.05
EPOCHS = {"train_loss": "Training loss", "val_loss": "Validation loss"}
STEERING = {
    "val_auroc": "Validation AUROC",
    "val_average_precision": "Validation AP",
    "val_accuracy": "Validation accuracy",
    "val_precision": "Validation precision",
    "val_recall": "Validation recall",
    "val_f1": "Validation F1",
}
"""Columns of a history -> their names."""
DASHED = " Curves that coincide are dashed in the colours of their models by turns."
DASHED_CLOSE = " Of curves that lie on each other, or nearly, one is whole and the others are dashes over it."
_SHORT = {"average_precision": "AP", "ppv": "PPV (precision)", "sensitivity": "Sensitivity (recall)"}


def verdicts(comparison: Comparison) -> Iterator[str]:
    """Yield what can be said of the models, a sentence each."""
    key, reference = comparison.overall, comparison.models[0].name
    what = "mean AUROC" if key == MEAN else "AUROC"
    for one in comparison.differences:
        if one.finding != key:
            continue
        gap = one.metrics["auroc"]
        if gap.value is None:
            continue
        told = formatting.estimate(gap.to_dict())
        p = (
            f", p\N{NO-BREAK SPACE}{formatting.p_text(one.delong_holm)}"
            if one.delong_holm is not None
            else ""
        )
        sure = one.delong_holm < LEVEL if one.delong_holm is not None else _away(gap)
        side = "higher" if gap.value > 0 else "lower"
        verdict = f"is {side} than that of" if sure else "cannot be told from that of"
        line = f"The {what} of {one.model} {verdict} {reference}: difference {told}{p}."
        if one.mcnemar:
            mine, theirs = one.mcnemar.first_only, one.mcnemar.second_only
            line += (
                f" It alone is right on {count(mine, 'image')}, {reference} alone on {theirs:,}"
                f" (p\N{NO-BREAK SPACE}{formatting.p_text(one.mcnemar_holm)})."
            )
        yield line


def short(metric: str) -> str:
    """The name of a figure where there is little room."""
    return _SHORT.get(metric, formatting.NAMES[metric])


def _away(gap: Estimate) -> bool:
    """Whether the interval leaves 0 out."""
    return gap.low is not None and gap.high is not None and (gap.low > 0 or gap.high < 0)


def _names(comparison: Comparison) -> list[str]:
    return [model.name for model in comparison.models]


def _cohort(comparison: Comparison) -> str:
    images = count(len(comparison.images), "image")
    patients = count(len(set(comparison.patients)), "patient")
    if len(comparison.findings) == 1:
        return (
            f"{images} of {patients}, {int((comparison.labels[:, 0] == 1).sum()):,} positive; intervals 95 %"
        )
    noun = comparison.task.noun
    return f"{images} of {patients}, {count(len(comparison.findings), noun)}; intervals 95 %"


def _range(comparison: Comparison, metric: str, name: str) -> str:
    """From which model's figure to which other's."""
    key = comparison.overall
    mean = "Mean " if key == MEAN and (comparison.task.kind, metric) != ("multiclass", ACCURACY) else ""
    known = {
        model.name: value
        for model in comparison.models
        if (value := model.figures[key][metric].value) is not None
    }
    if len(known) < 2:
        return f"{mean}{name} of {len(comparison.models)} models"
    low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    lowest, highest = (f"{formatting.number(known[end])} ({formatting.cut(end, 20)})" for end in (low, high))
    return f"{mean}{name} from {lowest} to {highest}"


def metrics(comparison: Comparison) -> Plot:
    """Return every metric of every model."""
    key = comparison.overall
    rows = [(short(name), tuple(model.figures[key][name] for model in comparison.models)) for name in FIGURES]
    title = _range(comparison, "auroc", "AUROC")
    drawing = overlays.model_forest(
        rows,
        _names(comparison),
        title=title,
        subtitle=_cohort(comparison),
        axis="Estimate with its 95 % interval",
    )
    caption = "Every figure of every model with its 95 % interval, patients resampled."
    if key == MEAN:
        caption += " Means over findings."
    return Plot("metrics_comparison", drawing, title, caption)


def differences(comparison: Comparison) -> Plot:
    """Return the paired differences: of every figure, or of every finding's AUROC where there are several."""
    found = {(one.model, one.finding): one for one in comparison.differences}
    others = comparison.models[1:]
    if comparison.overall != MEAN:
        keys: list[tuple[str, str, str]] = [(short(name), comparison.findings[0], name) for name in FIGURES]
        what = "every figure"
    else:
        keys = [(finding, finding, "auroc") for finding in (*comparison.findings, MEAN)]
        what = "AUROC"
    rows = [
        (name, (None, *(found[model.name, finding].metrics[metric] for model in others)))
        for name, finding, metric in keys
    ]
    tests = [one.delong_holm for one in comparison.differences if one.delong_holm is not None]
    sure = sum(p < LEVEL for p in tests)
    title = f"{sure} of {count(len(tests), 'AUROC difference')} beyond chance (p < 0.05, Holm)"
    if len(comparison.differences) == 1:
        only = comparison.differences[0]
        told = formatting.estimate(only.metrics["auroc"].to_dict())
        title = f"AUROC difference {told}, p {formatting.p_text(only.delong_holm)}"
    drawing = overlays.model_forest(
        rows,
        _names(comparison),
        title=title,
        subtitle=f"each model minus {formatting.cut(comparison.models[0].name, 26)}, {what}; intervals 95 %, paired",
        axis="Difference (right: higher than the reference)",
        zero=True,
    )
    caption = "Paired differences from the first model, both on the same resamples of patients, with 95 % intervals."
    return Plot("difference_comparison", drawing, title, caption)


def curves(comparison: Comparison) -> Iterator[Plot]:
    """Yield ROC and precision-recall curves, or what they amount to where there are many."""
    yield _curves(comparison, "roc", "auroc", "AUROC")
    yield _curves(comparison, "pr", "average_precision", "AP")


def _curves(comparison: Comparison, name: str, metric: str, called: str) -> Plot:
    title = _range(comparison, metric, called)
    if len(comparison.findings) > FEW:
        rows = [
            (finding, tuple(model.figures[finding][metric] for model in comparison.models))
            for finding in (*comparison.findings, MEAN)
        ]
        drawing = overlays.model_forest(
            rows,
            _names(comparison),
            title=title,
            subtitle=_cohort(comparison),
            axis=f"{called} with its 95 % interval",
        )
        return Plot(
            f"{name}_comparison", drawing, title, f"{called} by finding and model with 95 % intervals."
        )
    panels = [
        overlays.Overlay(
            finding,
            tuple(_line(comparison, model, column, name, metric) for model in comparison.models),
            prevalence=_prevalence(comparison, column) if name == "pr" else None,
        )
        for column, finding in enumerate(comparison.findings)
    ]
    labels = (
        ("1 − specificity", "Sensitivity") if name == "roc" else ("Recall (sensitivity)", "Precision (PPV)")
    )
    drawing = overlays.curves(
        panels, _names(comparison), title=title, subtitle=_cohort(comparison), labels=labels
    )
    dashes = "chance" if name == "roc" else "the prevalence"
    kind = "ROC curves" if name == "roc" else "Precision-recall curves"
    dots = "" if comparison.task.exclusive else " Markers: the decisions at each model's threshold."
    bands = " Bands: 95 % intervals at each point." if len(comparison.models) <= overlays.BANDS else ""
    each = [[(line.x, line.y) if len(line.x) else None for line in panel.lines] for panel in panels]
    coincide = any(line != "-" for lines in each for line in overlays.turns(lines))
    caption = f"{kind}.{dots}{bands} Grey dashes: {dashes}.{DASHED if coincide else ''}"
    return Plot(f"{name}_comparison", drawing, title, caption)


def _prevalence(comparison: Comparison, column: int) -> float:
    labels = comparison.labels[:, column]
    return float(np.nanmean(labels)) if (~np.isnan(labels)).any() else 0.0


def _line(comparison: Comparison, model: Compared, column: int, name: str, metric: str) -> overlays.Line:
    known = ~np.isnan(comparison.labels[:, column])
    draw = stats.roc_curve if name == "roc" else stats.precision_recall_curve
    banded = len(comparison.models) <= overlays.BANDS
    curve = draw(
        comparison.labels[known, column],
        model.probabilities[known, column],
        clusters=comparison.patients[known],
        replicates=500 if banded else 0,
    )
    band = None if curve.low is None or curve.high is None else (curve.grid, curve.low, curve.high)
    figures = model.figures[comparison.findings[column]]
    places = ("specificity", "sensitivity") if name == "roc" else ("sensitivity", "ppv")
    across, up = (figures[place].value for place in places)
    point = None
    if not comparison.task.exclusive and across is not None and up is not None:
        point = (1 - across if name == "roc" else across, up)
    called = "AUROC" if name == "roc" else "AP"
    return overlays.Line(
        curve.x, curve.y, band, point, f"{called} {formatting.estimate(figures[metric].to_dict())}"
    )


def confusion(comparison: Comparison) -> Plot:
    """Return the confusion matrices."""
    names, subtitle = _names(comparison), _cohort(comparison).partition(";")[0]
    key = comparison.overall
    title = _range(comparison, "accuracy", "accuracy")
    title = f"{title[0].upper()}{title[1:]}"
    words_: dict[str, Any] = {"title": title, "subtitle": subtitle}
    caption = "Decisions against the truth, with per cent of the row. Colour: right calls; grey: wrong ones."
    if comparison.task.exclusive:
        truth = comparison.labels.argmax(axis=1)
        matrices = []
        for model in comparison.models:
            counts = np.zeros((len(comparison.findings),) * 2, np.int64)
            np.add.at(counts, (truth, model.probabilities.argmax(axis=1)), 1)
            matrices.append(
                model_panels.Matrix(
                    counts, f"accuracy {formatting.number(model.figures[key][ACCURACY].value or 0)}"
                )
            )
        drawing = model_panels.confusion(matrices, names, comparison.findings, **words_)
        return Plot("confusion_matrix_comparison", drawing, title, caption)
    counted = [
        stats.confusion(comparison.labels, model.probabilities, thresholds=model.decision.array)
        for model in comparison.models
    ]
    if len(comparison.findings) == 1:
        matrices = [
            model_panels.Matrix(
                counts[0], f"threshold {formatting.probability(float(model.decision.array[0]))}"
            )
            for counts, model in zip(counted, comparison.models, strict=True)
        ]
        drawing = model_panels.confusion(matrices, names, ("absent", "present"), **words_)
    else:
        by_finding = [
            [model_panels.Matrix(counts[column]) for counts in counted]
            for column in range(len(comparison.findings))
        ]
        drawing = model_panels.confusions(by_finding, names, comparison.findings, **words_)
        caption = caption.replace(", with per cent of the row", "")
    return Plot("confusion_matrix_comparison", drawing, title, caption)


def learning_curves(comparison: Comparison) -> Iterator[Plot]:
    """Yield the learning curves, where a run keeps a history."""
    known = [model.history for model in comparison.models if model.history is not None]
    if not known:
        return
    steering = {model.monitor for model in comparison.models} & set(STEERING)
    wanted = {**EPOCHS, **{name: STEERING[name] for name in ("val_auroc", *sorted(steering - {"val_auroc"}))}}
    panels = []
    for column, label in wanted.items():
        lines = [_epochs(model, column) for model in comparison.models]
        if any(line is not None for line in lines):
            panels.append((label, lines))
    counts = [len(history) for history in known]
    title = (
        f"{min(counts)} to {count(max(counts), 'epoch')} of training"
        if min(counts) < max(counts)
        else f"{count(counts[0], 'epoch')} of training"
    )
    whose: dict[str, list[str]] = {}
    for model in comparison.models:
        whose.setdefault(model.monitor or "an unknown figure", []).append(model.name)
    steered = "; ".join(
        by if len(whose) == 1 else f"{by} ({', '.join(names)})" for by, names in whose.items()
    )
    drawing = overlays.epochs(
        panels,
        [model.best_epoch for model in comparison.models],
        _names(comparison),
        title=title,
        subtitle="markers: the epoch whose weights were kept",
    )
    caption = (
        f"Learning curves. The epoch was chosen by {steered}. Losses of different recipes need not be on "
        "one scale; validation chose the epoch, so it is no test result."
    )
    coincide = any(line != "-" for _, lines in panels for line in overlays.turns(lines, close=True))
    caption += DASHED_CLOSE if coincide else ""
    yield Plot("learning_curves", drawing, title, caption)


def _epochs(model: Compared, column: str) -> tuple[Floats, Floats] | None:
    history = model.history
    if history is None or column not in history:
        return None
    values = history[column].to_numpy(np.float64)
    if not np.isfinite(values).any():
        return None
    return history["epoch"].to_numpy(np.float64), values
