"""An Evaluation -> its section on subgroups: figures by level, what differs, and what metadata alone tell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hilum.evaluation.evaluation import Evaluation
from hilum.evaluation.subgroups import Baseline, Factor, Level, Subgroups
from hilum.files import spreadsheet_safe
from hilum.progress import count
from hilum.report import formatting
from hilum.report.drawing import style
from hilum.report.drawing.forest import ForestLayout, ForestRow, Mark, forest
from hilum.report.evaluation.disparities import named
from hilum.report.evaluation.plots import cohort, confidence
from hilum.report.section import Block, Paragraph, Plot, Plots, Section, Tables
from hilum.report.table import Cell, Grid, Notes, csv_number, csv_text, make_grid
from hilum.stats import Estimate

FACTORS = {"source": "Source", "view": "View", "sex": "Sex", "age": "Age, years"}
TOO_SMALL = "too small"
MOST_LEVELS = 8
"""Columns of a table by finding; of factors with more levels it is in `subgroups.csv` alone."""
HEADS = ("Model", "Metadata", "Model minus metadata")
DECISIONS = ("sensitivity", "specificity")
COUNTS = ("positives", "negatives", "positive_patients", "negative_patients")
FIGURES = ("auroc", *DECISIONS, "accuracy", "difference")
"""Columns of subgroups.csv."""
CHANCE: dict[str, Any] = {"color": style.SLATE, "linewidth": 1.4, "linestyle": (0, (3, 2)), "zorder": 0.9}


def section(evaluation: Evaluation) -> Section | None:
    """Return the section, None where no subgroups were made."""
    found = evaluation.subgroups
    if found is None:
        return None
    several = len(evaluation.findings) > 1
    nouns = "classes" if evaluation.task.exclusive else "findings"
    factors = ", ".join(factor.name for factor in found.factors)
    lead = f"The same images divided by {factors}." if found.factors else "The images cannot be divided."
    if found.same:
        same = ", ".join(f"{name} ({level})" for name, level in found.same.items())
        lead += f" The same for all of them, so that nothing can be compared: {same}."
    corrected = (
        f" p: of no difference, by Holm's correction over the {count(found.comparisons, 'comparison')} of "
        "this section."
    )
    how = (
        f"Lines: {confidence(evaluation)} intervals by patient. Difference: AUROC of the level minus that of all "
        "other images, with an interval of this level alone that knows of patients who stand in both."
        f"{corrected if found.comparisons else ''} A level with under 10 patients with, or without, the "
        f"{evaluation.task.noun} is too small for an AUROC; with under 10 with it for sensitivity, without it for "
        "specificity. A difference may come from who is in the level, and not from the level itself."
        f"{_methods(evaluation, found)}"
    )
    if several:
        how += (
            f" Means are over the {nouns} that can be scored in every level of the factor that "
            f"has a mean. By {evaluation.task.noun} the differences are in subgroups.csv, without p values."
        )
    crowded = [factor.name for factor in found.factors if len(factor.levels) > MOST_LEVELS]
    if several and crowded:
        how += f" By {evaluation.task.noun} and {formatting.listed(crowded)}: in subgroups.csv."
    how_baseline = (
        "Metadata: an AUROC from view, age, sex and image size alone, cross-fitted by patient (naive Bayes over "
        "levels), without a look at the image; where they tell nothing it lies below 0.5. It is high where the sicker "
        "are filmed otherwise, and a model may learn that from the picture. Difference: model minus metadata, or minus "
        "0.5 (chance) where metadata lie below that, by MOVER, which takes the two as independent and errs on the wide "
        "side."
    )
    untold = ", ".join(f"{name} ({why})" for name, why in _untold(found).items() if why)
    beside = baseline(evaluation, found)
    if beside is None:
        how_baseline = f"Metadata alone tell nothing here: {untold}."
    elif untold:
        how_baseline += f" Not among them: {untold}."
    blocks: list[Block] = []
    if found.factors:
        blocks = [Plots((_plot(evaluation, found),)), Tables((table(evaluation, found),), note=how)]
    blocks.append(Tables((beside,), note=how_baseline) if beside else Paragraph(how_baseline))
    if several and found.factors:
        blocks.append(Tables(_by_finding(evaluation, found), in_card=False))
    title = "Subgroups, and what metadata alone tell"
    return Section("subgroups", title, tuple(blocks), lead, link="Subgroups", in_card=True)


def table(evaluation: Evaluation, found: Subgroups) -> Grid:
    """Return a row a level: how many, AUROC, difference from the rest, and the decisions."""
    single = evaluation.findings[0] if len(evaluation.findings) == 1 else None
    notes = Notes()
    rows = []
    heads = ["Images", "Patients", *(["Positives"] if single else []), "AUROC" if single else "Mean AUROC"]
    heads += ["Difference", "p"]
    heads += ["Sensitivity", "Specificity"] if single else []
    heads += ["Accuracy"] if evaluation.task.exclusive else []
    for factor in found.factors:
        for level in factor.levels:
            name = f"{FACTORS[factor.name].partition(',')[0]}: {level.name}"
            cells: list[str | Cell] = [f"{level.images:,}", f"{level.patients:,}"]
            if single:
                cells.append(f"{level.findings[single].positives:,}")
            if level.same_as:
                same = notes.letter(f"the same images as {' '.join(level.same_as)}")
                cells.append(Cell("same images", "", same))
                cells += ["–"] * (len(heads) - len(cells))
                rows.append((name, cells))
                continue
            difference = _after(level.difference, notes)
            cells += [_cell(level.auroc, notes), difference, formatting.p_text(level.holm_p)]
            if single:
                metrics = level.findings[single].metrics
                cells += [_after(metrics[name], notes) for name in DECISIONS]
            if level.accuracy:
                cells.append(_cell(level.accuracy, notes))
            rows.append((name, cells))
    return make_grid("Figures by subgroup", "Subgroup", heads, rows, notes=notes)


def baseline(evaluation: Evaluation, found: Subgroups) -> Grid | None:
    """Return what metadata alone tell beside the model, a row a finding or, of one finding, a row each.

    Metadata that tell nothing of any finding are left out; without any there is no table.
    """
    unknown = [name for name, why in _untold(found).items() if why]
    told = {finding: _told(found.baseline[finding], unknown) for finding in evaluation.findings}
    heads = [*next(iter(told.values()))]
    if len(heads) == len(HEADS):
        return None
    notes = Notes()
    if len(told) == 1:
        (one,) = told.values()
        rows = [(name, [_cell(estimate, notes)]) for name, estimate in one.items()]
        heads = [f"AUROC ({confidence(evaluation)} interval)"]
        return make_grid("The model and the metadata", "Told by", heads, rows, notes=notes)
    rows = [(finding, [_cell(estimate, notes) for estimate in one.values()]) for finding, one in told.items()]
    caption = "AUROC of the model and of the metadata"
    return make_grid(caption, evaluation.task.noun.capitalize(), heads, rows, notes=notes)


def _untold(found: Subgroups) -> dict[str, str]:
    """Metadata -> why nothing can be told by them of any finding; empty where it can."""
    every = [one.alone for one in found.baseline.values()]
    return {
        name: "" if any(one[name].value is not None for one in every) else every[0][name].reason or ""
        for name in every[0]
    }


def _told(one: Baseline, unknown: Sequence[str]) -> dict[str, Estimate]:
    alone = {
        f"{name.capitalize()} alone": estimate for name, estimate in one.alone.items() if name not in unknown
    }
    return {**dict(zip(HEADS, (one.model, one.metadata, one.difference), strict=True)), **alone}


def to_csv(found: Subgroups) -> str:
    """Return one line a level and finding, and a line with the level's mean where there are several findings."""
    head = ["factor", "level", "finding", "images", "patients", *COUNTS]
    head += [column for name in FIGURES for column in (name, f"{name}_low", f"{name}_high")]
    rows = [
        [factor.name, spreadsheet_safe(level.name), *line]
        for factor in found.factors
        for level in factor.levels
        for line in _lines(level)
    ]
    return csv_text([*head, "p_value", "holm_p", "reason"], rows)


def _lines(level: Level) -> Iterator[list[str]]:
    """The findings of a level and, of several, their mean, which has the p value."""
    size, p_values = (
        [str(level.images), str(level.patients)],
        [csv_number(level.p_value), csv_number(level.holm_p)],
    )
    several = len(level.findings) > 1
    for finding, one in level.findings.items():
        counts = [str(getattr(one, name)) for name in COUNTS]
        figures = _figures({**one.metrics, "difference": one.difference})
        ends = ["", ""] if several else p_values
        yield [
            spreadsheet_safe(finding),
            *size,
            *counts,
            *figures,
            *ends,
            _reason(one.metrics["auroc"], one.difference),
        ]
    if several:
        known = {"auroc": level.auroc, "difference": level.difference}
        if level.accuracy:
            known["accuracy"] = level.accuracy
        ends = [*p_values, _reason(level.auroc, level.difference)]
        yield ["Mean", *size, *[""] * len(COUNTS), *_figures(known), *ends]


def _reason(*estimates: Estimate) -> str:
    return next((one.reason for one in estimates if one.reason), "")


def _figures(known: Mapping[str, Estimate]) -> list[str]:
    nothing = Estimate(None)
    return [
        csv_number(getattr(known.get(name, nothing), end))
        for name in FIGURES
        for end in ("value", "low", "high")
    ]


def _by_finding(evaluation: Evaluation, found: Subgroups) -> tuple[Grid, ...]:
    grids = []
    for factor in found.factors:
        if len(factor.levels) > MOST_LEVELS:
            continue
        rows = [
            (finding, [_number(level.findings[finding].metrics["auroc"]) for level in factor.levels])
            for finding in evaluation.findings
        ]
        rows.append((f"Mean of {len(factor.common)}", [_number(level.auroc) for level in factor.levels]))
        heads = [level.name for level in factor.levels]
        caption = f"AUROC by {evaluation.task.noun} and {factor.name}"
        grids.append(make_grid(caption, evaluation.task.noun.capitalize(), heads, rows, foot=1))
    return tuple(grids)


def _cell(estimate: Estimate, notes: Notes) -> Cell:
    if estimate.reason and estimate.reason.startswith(TOO_SMALL):
        return Cell(TOO_SMALL, "", notes.letter(estimate.reason.removeprefix(f"{TOO_SMALL}: ")))
    return notes.cell(estimate)


def _after(estimate: Estimate, notes: Notes) -> Cell:
    """A cell behind that of the AUROC, which has said what is too small."""
    if estimate.reason and estimate.reason.startswith(TOO_SMALL):
        return Cell("–")
    cell = _cell(estimate, notes)
    return cell if estimate.value is not None else replace(cell, value="–")


def _number(estimate: Estimate) -> Cell:
    if estimate.value is None:
        return Cell(TOO_SMALL)
    return Cell(formatting.value(estimate.to_dict()), formatting.interval(estimate.to_dict()))


def _plot(evaluation: Evaluation, found: Subgroups) -> Plot:
    from matplotlib.lines import Line2D

    name = "AUROC" if len(evaluation.findings) == 1 else "Mean AUROC"
    rows, known = [], []
    for factor in found.factors:
        own = [level for level in factor.levels if level.auroc.value is not None and not level.same_as]
        rows.append(ForestRow(_heading(factor, evaluation), bold=True))
        rows += [_forest_row(level, factor.whole if own else None) for level in factor.levels]
        known += [(level.auroc.value, named(factor, level)) for level in own if level.auroc.value is not None]
    title = f"{name} by subgroup: every level is too small"
    if len(known) == 1:
        title = f"{name} by subgroup: only {formatting.ends(known[0][1], 21)} can be scored"
    elif known:
        ends = dict.fromkeys(choose(known, key=lambda one: one[0]) for choose in (min, max))
        title = f"{name} {' to '.join(f'{formatting.number(value)} ({formatting.ends(of, 21)})' for value, of in ends)}"
    caption = (
        f"{name} of the images of each level with its {confidence(evaluation)} interval by patient. Black line, where "
        "a level can be scored: all images together; dashes: chance."
    )
    # Many sites still fit a page when their lines stand closer.
    pitch, right = 0.25 if len(rows) <= 30 else 0.19, style.FULL - style.MARGIN
    drawing = forest(
        rows,
        ForestLayout(pitch=pitch, top=0.72, left=1.75, width=3.05, letters=22, counts=right),
        title=title,
        subtitle=cohort(evaluation),
        axis=f"{name} (0.5 is chance)",
        heads={1.89: "all images together", 3.34: "chance", right: "images"},
        chance=CHANCE,
    )
    # The key stands above the frame, where nothing else is.
    width, height = drawing.get_size_inches()
    for left, look in ((1.81, {"color": style.INK, "linewidth": 0.9}), (3.26, CHANCE)):
        segment = [1 - 0.65 / height, 1 - 0.53 / height]
        drawing.add_artist(Line2D([left / width] * 2, segment, **look))
    return Plot("subgroups", drawing, title, caption)


def _forest_row(level: Level, whole: float | None) -> ForestRow:
    level_name, count = formatting.ends(level.name, 22), f"{level.images:,}"
    if level.same_as:
        same = formatting.ends(f"same as {' '.join(level.same_as)}", 22)
        return ForestRow(level_name, (), same, count, faint=True, indent=0.1)
    small = level.auroc.value is None
    text = TOO_SMALL if small else formatting.estimate(level.auroc.to_dict())
    return ForestRow(level_name, (Mark(level.auroc),), text, count, faint=small, indent=0.1, reference=whole)


def _methods(evaluation: Evaluation, found: Subgroups) -> str:
    """Say so where AUROC's intervals of the levels and of all images are made in two ways."""
    levels = {level.auroc.method for factor in found.factors for level in factor.levels if level.auroc.method}
    of_all = evaluation.metrics.get("macro" if len(evaluation.findings) > 1 else "findings", {})
    if len(evaluation.findings) == 1:
        of_all = of_all.get(evaluation.findings[0], {})
    method = of_all.get("auroc", {}).get("method", "")
    if not levels or not method or {method} == levels:
        return ""
    return (
        f" Intervals of AUROC here: {formatting.listed(sorted(levels))}; of all images elsewhere on this page: "
        f"{method}. Of the same images they differ a little."
    )


def _heading(factor: Factor, evaluation: Evaluation) -> str:
    if len(evaluation.findings) == 1:
        return FACTORS[factor.name]
    return f"{FACTORS[factor.name]} (mean of {len(factor.common)})"
