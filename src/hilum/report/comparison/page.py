"""A Comparison -> a folder: one self-contained HTML page, its pictures, and the same numbers for machines."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum import files
from hilum.comparison import gallery, speed
from hilum.comparison.compare import FIGURES, Comparison, Difference, Exhibit
from hilum.evaluation.external import MEAN
from hilum.progress import count
from hilum.report import formatting
from hilum.report.comparison import plots
from hilum.report.drawing import maps, model_panels, overlays, style
from hilum.report.rendering import render_page, write_json, write_plots
from hilum.report.section import (
    Block,
    Bullets,
    Heading,
    ImageRow,
    Images,
    Page,
    Paragraph,
    Plots,
    Scale,
    Scales,
    Section,
    Tables,
    make_picture,
)
from hilum.report.table import Cell, Grid, Notes, csv_number, csv_text, make_grid
from hilum.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMITS = (
    (
        "Intervals hold for these trained models on patients like these: another training seed, site or scanner is "
        "not in them."
    ),
    "The figures are of the predictions that each run's evaluation stored; no test was read again for this page.",
    "Labels are taken as true.",
)
_CSV = {"accuracy": "Accuracy", "ppv": "Precision", "sensitivity": "Recall", "f1": "F1-Score", "auroc": "AUC"}
"""Figures with the names that spreadsheets of classifiers give them; all others keep their own."""


def write(folder: Path, comparison: Comparison) -> Path:
    """Write the report of a comparison.

    Files of an earlier one are replaced, each whole or not at all.

    Args:
        folder: Where to; made if it is not there.
        comparison: What to tell.

    Returns:
        The path of `report.html`, which is written last.
    """
    page = make_page(comparison)
    html = render_page(page)
    write_plots(folder, page.plots)
    for name, drawing in galleries(comparison):
        files.write_bytes(folder / f"{name}.png", style.png(drawing))
    files.write_text(folder / "performance_metrics.csv", performance_csv(comparison))
    write_json(folder / "comparison.json", comparison.to_dict())
    files.write_text(folder / "report.html", html)
    return folder / "report.html"


def galleries(comparison: Comparison) -> Iterator[tuple[str, "Figure"]]:
    """Yield file stem and drawing of the images with a map of each model, where any were explained."""
    if comparison.exhibits:
        title = "The same images, a map a model"
        drawing = model_panels.explained(comparison.exhibits, _names(comparison), title=title)
        yield "gradcam_visualizations", drawing


def performance_csv(comparison: Comparison) -> str:
    """Return one line a model and finding, means last: figures with intervals, then differences from the reference.

    Text that a spreadsheet would run as a formula is quoted with an apostrophe; what cannot be estimated is empty.
    """
    heads = {name: _CSV.get(name, name) for name in (*_CSV, *(name for name in FIGURES if name not in _CSV))}
    head = ["Model", "Finding", *heads.values()]
    head += [f"{name}_{end}" for name in heads.values() for end in ("low", "high")]
    head += [f"{name}_difference{end}" for name in heads.values() for end in ("", "_low", "_high")]
    head += ["delong_p", "delong_holm_p", "mcnemar_p", "mcnemar_holm_p"]
    head += [
        "engine",
        "architecture",
        "pixels",
        "parameters",
        "epochs",
        "training_seconds",
        "images_a_second",
    ]
    differences = {(one.model, one.finding): one for one in comparison.differences}
    rows = []
    for model in comparison.models:
        for finding, metrics in model.figures.items():
            difference = differences.get((model.name, finding))
            row: list[Any] = [files.spreadsheet_safe(model.name), files.spreadsheet_safe(finding)]
            row += [csv_number(metrics[name].value) for name in heads]
            row += [csv_number(end) for name in heads for end in (metrics[name].low, metrics[name].high)]
            for name in heads:
                gap = difference.metrics[name] if difference else Estimate(None)
                row += map(csv_number, (gap.value, gap.low, gap.high))
            row += map(csv_number, _p_values(difference))
            row += [model.engine, model.architecture, model.size, model.parameters, model.epochs]
            row += [csv_number(model.seconds), csv_number(model.rate.images_a_second if model.rate else None)]
            rows.append(row)
    return csv_text(head, rows)


def make_page(comparison: Comparison) -> Page:
    """Return the page of a comparison."""
    names, findings = _names(comparison), comparison.findings
    what = findings[0]
    if len(findings) > 1:
        what = f"{len(findings)} {'classes' if comparison.task.exclusive else 'findings'}"
    return Page(
        title=f"{', '.join(names)}: comparison",
        heading=f"{what}: {len(names)} models compared",
        lead=_lead(comparison),
        sections=tuple(section for make in SECTIONS if (section := make(comparison))),
        warnings=tuple(map(str, comparison.warnings)),
        stylesheet="comparison.css",
    )


def _summary(comparison: Comparison) -> Section:
    blocks = (Bullets(tuple(plots.verdicts(comparison))), Tables((_overall(comparison),)))
    return Section("summary", "Summary", blocks)


def _metrics(comparison: Comparison) -> Section:
    blocks: tuple[Block, ...] = (Plots((plots.metrics(comparison),)),)
    if len(comparison.findings) > 1:
        blocks = (*blocks, Tables((_by_finding(comparison),)))
    return Section("figures", "Figures", blocks, link="Figures")


def _gaps(comparison: Comparison) -> Section:
    blocks = (
        Tables((_differences(comparison),), note=_correction(comparison)),
        Plots((plots.differences(comparison),)),
    )
    title = f"Differences from {comparison.models[0].name}"
    return Section("differences", title, blocks, link="Differences")


def _curves(comparison: Comparison) -> Section:
    blocks = (Plots(tuple(plots.curves(comparison))),)
    return Section("curves", "Discrimination", blocks, link="Curves")


def _decisions(comparison: Comparison) -> Section:
    blocks = (Plots((plots.confusion(comparison),)), Tables((_pairs(comparison),)))
    return Section("decisions", "Decisions, and who is right", blocks, link="Decisions")


def _images(comparison: Comparison) -> Section | None:
    if not comparison.exhibits:
        return None
    names, limits = _names(comparison), model_panels.limits_of(comparison.exhibits)
    what = "the true class" if comparison.task.exclusive else "the finding"
    lead = (
        "Each row: the radiograph, then the same radiograph under the map of each model. Warm places speak for what is "
        f"explained ({what}), cold places against it: the colour of a place is the calibrated logit that the model "
        "would give, biases aside, if all of the image were like that place. The thin line runs where it is half of "
        "the scale's end. A map does not outline a lesion."
    )
    own_scales = (
        "Each model has one scale for all of its maps: on a common one those of the least confident model would look "
        "empty. So colours tell where a model looks; how strongly, against another model, the numbers of the scales "
        "tell. They are larger than those of each model's own report, where a colour is what one place adds to the "
        "logit: here that is multiplied by the number of places and divided by the temperature."
    )
    scales = tuple(
        _scale(comparison.exhibits, place, name, limits[place]) for place, name in enumerate(names)
    )
    blocks = [Paragraph(own_scales), Paragraph(gallery.RULE, small=True), Scales(scales)]
    for group in gallery.GROUPS:
        members = [_row(one, names, limits) for one in comparison.exhibits if one.group == group]
        if members:
            blocks += [Heading(model_panels.GROUPS[group]), Images(tuple(members), "abreast")]
    title = "Images: where they disagree, and what moved each model"
    return Section("images", title, tuple(blocks), lead, link="Images")


def _cost(comparison: Comparison) -> Section:
    blocks: tuple[Block, ...] = (
        Tables((_models(comparison),), note=_machine(comparison)),
        Paragraph("The recipes do not differ."),
    )
    if comparison.recipes:
        blocks = (blocks[0], Tables((_recipes(comparison),), layout="words"))
    return Section("models", "Models and cost", blocks, link="Models and cost")


def _training(comparison: Comparison) -> Section | None:
    drawn = tuple(plots.learning_curves(comparison))
    return Section("training", "How they were trained", (Plots(drawn),), link="Training") if drawn else None


def _limits(comparison: Comparison) -> Section:
    blocks: tuple[Block, ...] = (Bullets(LIMITS),)
    if comparison.citations:
        blocks = (*blocks, Heading("Citations"), Bullets(tuple(comparison.citations), numbered=True))
    return Section("limits", "Limits", blocks, link="Limits")


SECTIONS: tuple[Callable[[Comparison], Section | None], ...] = (
    _summary,
    _metrics,
    _gaps,
    _curves,
    _decisions,
    _images,
    _cost,
    _training,
    _limits,
)
"""What the page consists of, in order; a function gives None where its section does not apply."""


def _names(comparison: Comparison) -> list[str]:
    return [model.name for model in comparison.models]


def _lead(comparison: Comparison) -> str:
    patients = count(len(set(comparison.patients)), "patient")
    positive = ""
    if len(comparison.findings) == 1:
        number = int((comparison.labels[:, 0] == 1).sum())
        positive = f", {number:,} with {comparison.findings[0]}"
    images = count(len(comparison.images), "test image")
    return (
        f"{count(len(comparison.models), 'model')} on the same {images} "
        f"of {patients} ({comparison.data}){positive}. Reference: {comparison.models[0].name}, the first named. "
        f"{comparison.matched}"
    )


def _overall(comparison: Comparison) -> Grid:
    notes, key = Notes(), comparison.overall
    rows = [
        (model.name, [notes.cell(model.figures[key][name]) for name in FIGURES])
        for model in comparison.models
    ]
    caption = "Mean over findings" if key == MEAN else key
    return make_grid(caption, "Model", map(plots.short, FIGURES), rows, notes=notes)


def _differences(comparison: Comparison) -> Grid:
    notes = Notes()
    overall = [one for one in comparison.differences if one.finding == comparison.overall]
    rows: list[tuple[str, list[str | Cell]]] = [
        (plots.short(name), [notes.cell(one.metrics[name]) for one in overall]) for name in FIGURES
    ]
    delong = [
        Cell(formatting.p_text(one.delong_holm), note=notes.letter(one.reason or "")) for one in overall
    ]
    rows.append(("p, AUROC", [*delong]))
    rows.append(("p, decisions", [formatting.p_text(one.mcnemar_holm) for one in overall]))
    caption = f"Each model minus {comparison.models[0].name}"
    return make_grid(caption, "Figure", [one.model for one in overall], rows, foot=2, notes=notes)


def _by_finding(comparison: Comparison) -> Grid:
    """Return the AUROC of each model finding by finding, with the differences' corrected p values."""
    notes, reference = Notes(), comparison.models[0]
    differences = {(one.model, one.finding): one for one in comparison.differences}
    rows = []
    for finding in (*comparison.findings, MEAN):
        cells: list[str | Cell] = [notes.cell(model.figures[finding]["auroc"]) for model in comparison.models]
        for model in comparison.models[1:]:
            difference = differences[model.name, finding]
            cells += [notes.cell(difference.metrics["auroc"]), formatting.p_text(difference.delong_holm)]
        rows.append((finding, cells))
    heads = [f"AUROC, {model.name}" for model in comparison.models]
    for model in comparison.models[1:]:
        heads += [f"{model.name} − {reference.name}", "p (Holm)"]
    noun = comparison.task.noun
    return make_grid(f"AUROC by {noun}", noun.capitalize(), heads, rows, foot=1, notes=notes)


def _models(comparison: Comparison) -> Grid:
    rows = []
    for model in comparison.models:
        rate = model.rate
        cells = [
            model.architecture,
            model.engine,
            str(model.size),
            f"{model.parameters / 1e6:,.2f} M",
            f"{model.epochs} ({model.best_epoch})",
            f"{model.seconds:,.0f}",
            formatting.small(rate.images_a_second) if rate else "–",
            Cell(f"{rate.ratio:.2f}", f"{rate.low:.2f}–{rate.high:.2f}") if rate else "–",
            model.bundle[:12],
        ]
        rows.append((model.name, cells))
    heads = ("Network", "Engine", "Pixels", "Parameters", "Epochs (kept)", "Training, s", "Images/s")
    return make_grid("What the models are and cost", "Model", (*heads, "Times as fast", "Bundle"), rows)


def _pairs(comparison: Comparison) -> Grid:
    rows = []
    for pair in comparison.pairs:
        counts = (pair.both_right, pair.first_only, pair.second_only, pair.both_wrong)
        cells = [*(f"{count:,}" for count in counts), formatting.per_cent(pair.same, pair.total)]
        if not comparison.task.exclusive:
            cells.append("–" if pair.kappa is None else formatting.number(pair.kappa, digits=2))
        rows.append((f"{pair.first} / {pair.second}", cells))
    heads = ["Both right", "Only the first", "Only the second", "Both wrong", "Same decision"]
    heads += [] if comparison.task.exclusive else ["Kappa"]
    of = "images and findings" if comparison.task.kind == "multilabel" else "images"
    return make_grid(f"Who is right: number of {of}", "First / second", heads, rows)


def _recipes(comparison: Comparison) -> Grid:
    names = [name for name in _names(comparison) if any(name in each for each in comparison.recipes.values())]
    rows = [
        (key, [formatting.shorten(formatting.setting(each.get(name, "")), 24) for name in names])
        for key, each in comparison.recipes.items()
    ]
    return make_grid("Keys in which the recipes differ", "Key", names, rows)


def _scale(exhibits: Sequence[Exhibit], place: int, name: str, limit: float) -> Scale:
    label = f"Colour scale of {name} from minus {limit:g} to plus {limit:g} logits of a whole image"
    svg = style.svg(model_panels.scale(limit), f"scale-{place}")
    told = f"logit of a whole image; {model_panels.fineness(exhibits, place)}"
    return Scale(svg, label, name, style.themed(overlays.LOOKS[place][0]), told)


def _row(exhibit: Exhibit, names: Sequence[str], limits: Sequence[float]) -> ImageRow:
    views = [
        maps.views(case, limit=limit, side=model_panels.SIDE)
        for case, limit in zip(exhibit.cases, limits, strict=True)
    ]
    pictures = [make_picture("Radiograph", views[0].radiograph, "Radiograph")]
    for place, (view, name) in enumerate(zip(views, names, strict=True)):
        alt = f"Radiograph with the map of {name} for {exhibit.finding}"
        call = f"{model_panels.call(exhibit, place)}: {model_panels.verdict(exhibit, place)}"
        colour = style.themed(overlays.LOOKS[place][0])
        pictures.append(make_picture(alt, view.overlay, call, name, colour))
    return ImageRow(tuple(pictures), model_panels.truth(exhibit), exhibit.image)


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


def _p_values(one: Difference | None) -> Iterator[float | None]:
    if one is None:
        yield from (None,) * 4
        return
    yield from (one.delong_p, one.delong_holm)
    yield from (one.mcnemar.clustered_p if one.mcnemar else None, one.mcnemar_holm)
