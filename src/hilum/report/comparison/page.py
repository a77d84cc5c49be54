"""A Comparison -> a folder: one self-contained HTML page, its pictures, and the same numbers for machines."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum import files
from hilum.comparison import gallery, speed
from hilum.comparison.compare import FIGURES, Comparison, Difference, Exhibit
from hilum.evaluation.external import MEAN
from hilum.report import formatting
from hilum.report.comparison import plots
from hilum.report.drawing import maps, model_panels, overlays, style
from hilum.report.evaluation.page import Inline, inline, jpeg, render
from hilum.report.evaluation.summary import RESEARCH_USE
from hilum.report.evaluation.tables import Cell, Column, Grid, Notes
from hilum.stats import Estimate

_CSV = {"accuracy": "Accuracy", "ppv": "Precision", "sensitivity": "Recall", "f1": "F1-Score", "auroc": "AUC"}
"""Figures with the names that spreadsheets of classifiers give them; all others keep their own."""


@dataclass(frozen=True)
class Shown:
    """An image inside the page: truth, then a picture plain and one a model, with what each model says."""

    truth: str
    image: str
    pictures: tuple[tuple[str, str, str, str], ...]
    width: int
    height: int


def write(folder: Path, comparison: Comparison) -> Path:
    """Writes the report of a comparison.

    Files of an earlier one are replaced, each whole or not at all.

    Args:
        folder: Where to; made if it is not there.
        comparison: What to tell.

    Returns:
        The path of `report.html`, which is written last.
    """
    drawn = list(plots.plots(comparison))
    page = _page(comparison, [inline(plot) for plot in drawn])
    for plot in drawn:
        files.write_bytes(folder / f"{plot.name}.png", style.png(plot.figure))
    if comparison.exhibits:
        drawing = model_panels.explained(
            comparison.exhibits, _names(comparison), title="The same images, a map a model"
        )
        files.write_bytes(folder / "gradcam_visualizations.png", style.png(drawing))
    files.write_text(folder / "performance_metrics.csv", performance_csv(comparison))
    content = json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    files.write_text(folder / "comparison.json", f"{content}\n")
    files.write_text(folder / "report.html", page)
    return folder / "report.html"


def performance_csv(comparison: Comparison) -> str:
    """Returns one line a model and finding, means last: figures with intervals, then differences from the reference.

    Text that a spreadsheet would run as a formula is quoted with an apostrophe; what cannot be estimated is empty.
    """
    heads = {name: _CSV.get(name, name) for name in (*_CSV, *(name for name in FIGURES if name not in _CSV))}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["Model", "Finding", *heads.values()]
        + [f"{name}_{end}" for name in heads.values() for end in ("low", "high")]
        + [f"{name}_difference{end}" for name in heads.values() for end in ("", "_low", "_high")]
        + ["delong_p", "delong_holm_p", "mcnemar_p", "mcnemar_holm_p"]
        + ["engine", "architecture", "pixels", "parameters", "epochs", "training_seconds", "images_a_second"]
    )
    found = {(one.model, one.finding): one for one in comparison.differences}
    for model in comparison.models:
        for finding, figures in model.figures.items():
            one = found.get((model.name, finding))
            row: list[Any] = [files.spreadsheet_safe(model.name), files.spreadsheet_safe(finding)]
            row += [_plain(figures[name].value) for name in heads]
            row += [_plain(end) for name in heads for end in (figures[name].low, figures[name].high)]
            for name in heads:
                gap = one.metrics[name] if one else Estimate(None)
                row += map(_plain, (gap.value, gap.low, gap.high))
            row += map(_plain, _p_values(one))
            row += [model.engine, model.architecture, model.size, model.parameters, model.epochs]
            row += [_plain(model.seconds), _plain(model.rate.images_a_second if model.rate else None)]
            writer.writerow(row)
    return stream.getvalue()


def _page(comparison: Comparison, drawn: list[Inline]) -> str:
    by = {plot.name.removesuffix("_comparison"): plot for plot in drawn}
    limits = model_panels.limits_of(comparison.exhibits)
    groups = [
        (model_panels.GROUPS[group], members)
        for group in gallery.GROUPS
        if (members := [_show(one, comparison, limits) for one in comparison.exhibits if one.group == group])
    ]
    return render(
        "compare.html.j2",
        comparison=comparison,
        names=_names(comparison),
        colours=[style.themed(colour) for colour, _ in overlays.LOOKS],
        research_use=RESEARCH_USE,
        several=len(comparison.findings) > 1,
        lead=_lead(comparison),
        verdicts=list(plots.verdicts(comparison)),
        plots=by,
        figures=_figures(comparison),
        differences=_differences(comparison),
        by_finding=_by_finding(comparison),
        models=_models(comparison),
        pairs=_pairs(comparison),
        recipes=_recipes(comparison),
        groups=groups,
        rule=gallery.RULE,
        scales=[
            (style.svg(model_panels.scale(limit), f"scale-{place}"), f"{limit:g}")
            for place, limit in enumerate(limits)
        ],
        correction=_correction(comparison),
        machine=_machine(comparison),
    )


def _names(comparison: Comparison) -> list[str]:
    return [model.name for model in comparison.models]


def _lead(comparison: Comparison) -> str:
    patients = formatting.count(len(set(comparison.patients)), "patient")
    positive = ""
    if len(comparison.findings) == 1:
        number = int((comparison.labels[:, 0] == 1).sum())
        positive = f", {number:,} with {comparison.findings[0]}"
    images = formatting.count(len(comparison.images), "test image")
    return (
        f"{formatting.count(len(comparison.models), 'model')} on the same {images} "
        f"of {patients} ({comparison.data}){positive}. Reference: {comparison.models[0].name}, the first named. "
        f"{comparison.matched}"
    )


def _figures(comparison: Comparison) -> Grid:
    notes, key = Notes(), comparison.overall
    rows = tuple(
        (model.name, tuple(_cell(model.figures[key][name], notes) for name in FIGURES))
        for model in comparison.models
    )
    caption = "Mean over findings" if key == MEAN else key
    return Grid(caption, "Model", _columns(FIGURES), rows, notes=notes.listed())


def _differences(comparison: Comparison) -> Grid:
    notes = Notes()
    overall = [one for one in comparison.differences if one.finding == comparison.overall]
    rows = [
        (plots.short(name), tuple(_cell(one.metrics[name], notes) for one in overall)) for name in FIGURES
    ]
    delong = [
        Cell(formatting.p_text(one.delong_holm), note=notes.letter(one.reason or "")) for one in overall
    ]
    rows.append(("p, AUROC", tuple(delong)))
    rows.append(("p, decisions", tuple(Cell(formatting.p_text(one.mcnemar_holm)) for one in overall)))
    caption = f"Each model minus {comparison.models[0].name}"
    heads = tuple(Column(one.model) for one in overall)
    return Grid(caption, "Figure", heads, tuple(rows), foot=2, notes=notes.listed())


def _by_finding(comparison: Comparison) -> Grid | None:
    """AUROC of each model finding by finding, with the differences' corrected p values."""
    if len(comparison.findings) == 1:
        return None
    notes, reference = Notes(), comparison.models[0]
    found = {(one.model, one.finding): one for one in comparison.differences}
    rows = []
    for finding in (*comparison.findings, MEAN):
        cells = [_cell(model.figures[finding]["auroc"], notes) for model in comparison.models]
        for model in comparison.models[1:]:
            one = found[model.name, finding]
            cells.append(_cell(one.metrics["auroc"], notes))
            cells.append(Cell(formatting.p_text(one.delong_holm)))
        rows.append((finding, tuple(cells)))
    heads = [Column(f"AUROC, {model.name}") for model in comparison.models]
    for model in comparison.models[1:]:
        heads += [Column(f"{model.name} − {reference.name}"), Column("p (Holm)")]
    noun = comparison.task.noun
    return Grid(
        f"AUROC by {noun}", noun.capitalize(), tuple(heads), tuple(rows), foot=1, notes=notes.listed()
    )


def _models(comparison: Comparison) -> Grid:
    rows = []
    for model in comparison.models:
        rate = model.rate
        speed = Cell(f"{rate.images_a_second:,.3g}") if rate else Cell("–")
        ratio = Cell(f"{rate.ratio:.2f}", f"{rate.low:.2f}–{rate.high:.2f}") if rate else Cell("–")
        rows.append(
            (
                model.name,
                (
                    Cell(model.architecture),
                    Cell(model.engine),
                    Cell(str(model.size)),
                    Cell(f"{model.parameters / 1e6:,.2f} M"),
                    Cell(f"{model.epochs} ({model.best_epoch})"),
                    Cell(f"{model.seconds:,.0f}"),
                    speed,
                    ratio,
                    Cell(model.bundle[:12]),
                ),
            )
        )
    heads = (
        "Network",
        "Engine",
        "Pixels",
        "Parameters",
        "Epochs (kept)",
        "Training, s",
        "Images/s",
        "Times as fast",
        "Bundle",
    )
    return Grid("What the models are and cost", "Model", tuple(map(Column, heads)), tuple(rows))


def _pairs(comparison: Comparison) -> Grid:
    rows = tuple(
        (
            f"{pair.first} / {pair.second}",
            (
                Cell(f"{pair.both_right:,}"),
                Cell(f"{pair.first_only:,}"),
                Cell(f"{pair.second_only:,}"),
                Cell(f"{pair.both_wrong:,}"),
                Cell(formatting.per_cent(pair.same, pair.total)),
                *(() if comparison.task.exclusive else (Cell(_kappa(pair.kappa)),)),
            ),
        )
        for pair in comparison.pairs
    )
    heads: tuple[str, ...] = (
        "Both right",
        "Only the first",
        "Only the second",
        "Both wrong",
        "Same decision",
    )
    if not comparison.task.exclusive:
        heads = (*heads, "Kappa")
    of = "images and findings" if comparison.task.kind == "multilabel" else "images"
    return Grid(f"Who is right: number of {of}", "First / second", tuple(map(Column, heads)), rows)


def _recipes(comparison: Comparison) -> Grid | None:
    if not comparison.recipes:
        return None
    names = [name for name in _names(comparison) if any(name in each for each in comparison.recipes.values())]
    rows = tuple(
        (key, tuple(Cell(formatting.shorten(_setting(each.get(name, "")), 24)) for name in names))
        for key, each in comparison.recipes.items()
    )
    return Grid("Keys in which the recipes differ", "Key", tuple(map(Column, names)), rows)


def _show(one: Exhibit, comparison: Comparison, limits: tuple[float, ...]) -> Shown:
    views = [
        maps.views(case, limit=limit, side=model_panels.SIDE)
        for case, limit in zip(one.cases, limits, strict=True)
    ]
    height, width = views[0].radiograph.shape[:2]
    pictures = [("", "Radiograph", jpeg(views[0].radiograph), "Radiograph")]
    for place, (view, name) in enumerate(zip(views, _names(comparison), strict=True)):
        alt = f"Radiograph with the map of {name} for {one.finding}"
        pictures.append(
            (
                name,
                alt,
                jpeg(view.overlay),
                f"{model_panels.call(one, place)}: {model_panels.verdict(one, place)}",
            )
        )
    return Shown(model_panels.truth(one), one.image, tuple(pictures), width, height)


def _correction(comparison: Comparison) -> str:
    tests = sum(one.delong_p is not None for one in comparison.differences)
    holm = f" p values are Holm's over {tests} tests of a kind." if tests > 1 else ""
    return (
        "Differences: both models on the same resamples of patients, 95 % interval. AUROC: DeLong's paired test; "
        f"decisions: McNemar's test; patients are clusters in both.{holm} An interval that holds 0 is no proof that "
        "two models are equal."
    )


def _machine(comparison: Comparison) -> str:
    rate = comparison.models[0].rate
    if rate is None:
        return "Images a second were not measured."
    return (
        f"Images a second: prepared squares to logits and maps, {rate.images} images, all models in turn in "
        f"{speed.ROUNDS} rounds, on {rate.machine}, with whatever else it did; times as fast as "
        f"{comparison.models[0].name}, with the least and the greatest round. Parameters: numbers in the graph's "
        "weights. Seconds of training are those of each run, on its own machine."
    )


def _cell(estimate: Estimate, notes: Notes) -> Cell:
    entry = estimate.to_dict()
    return Cell(formatting.value(entry), formatting.interval(entry), notes.letter(formatting.reason(entry)))


def _columns(figures: tuple[str, ...]) -> tuple[Column, ...]:
    return tuple(Column(plots.short(name)) for name in figures)


def _p_values(one: Difference | None) -> Iterator[float | None]:
    if one is None:
        yield from (None,) * 4
        return
    yield from (one.delong_p, one.delong_holm)
    yield from (one.mcnemar.clustered_p if one.mcnemar else None, one.mcnemar_holm)


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _kappa(value: float | None) -> str:
    return "–" if value is None else formatting.number(value, digits=2)


def _setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value)) or "(none)"
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
