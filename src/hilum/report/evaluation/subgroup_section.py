"""An Evaluation -> its section on subgroups: figures by level, what differs, and what metadata alone tell."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hilum.evaluation.evaluation import Evaluation
from hilum.evaluation.subgroups import Baseline, Factor, Level, Subgroups
from hilum.files import spreadsheet_safe
from hilum.report import formatting
from hilum.report.drawing import style
from hilum.report.evaluation.disparities import named
from hilum.report.evaluation.plots import Plot, cohort, confidence, noun
from hilum.report.evaluation.tables import Cell, Column, Grid, Notes
from hilum.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FACTORS = {"source": "Source", "view": "View", "sex": "Sex", "age": "Age, years"}
TOO_SMALL = "too small"
MOST_LEVELS = 8
"""Columns of a table by finding; of factors with more levels it is in `subgroups.csv` alone."""
HEADS = ("Model", "Metadata", "Model minus metadata")
DECISIONS = ("sensitivity", "specificity")
COUNTS = ("positives", "negatives", "positive_patients", "negative_patients")
FIGURES = ("auroc", *DECISIONS, "accuracy", "difference")
"""Columns of subgroups.csv."""


CHANCE: dict[str, Any] = {"color": style.SLATE, "linewidth": 1.4, "linestyle": (0, (3, 2))}


@dataclass(frozen=True)
class Row:
    """A line of the figure: the heading of a factor, or one of its levels.

    Attributes:
        name: Of the factor or level.
        estimate: None for a heading.
        images: How many; 0 for a heading.
        whole: Of all images of the factor.
        same: Words where these are the images of a level above, whose figure stands there; else empty.
    """

    name: str
    estimate: Estimate | None
    images: int
    whole: float | None
    same: str = ""


@dataclass(frozen=True)
class Section:
    """What the page says of subgroups.

    Attributes:
        lead: What was divided, and what could not be.
        plots: The figure; none where no factor has two levels.
        table: The levels; none where no factor has two.
        how: How to read them.
        baseline: The model beside the metadata; None where nothing is known of them, or all images are alike.
        how_baseline: How to read that.
        by_finding: Of several findings the AUROC of each, a table a factor.
    """

    lead: str
    plots: tuple[Plot, ...]
    table: Grid | None
    how: str
    baseline: Grid | None
    how_baseline: str
    by_finding: tuple[Grid, ...]


def section(evaluation: Evaluation) -> Section | None:
    """Returns the section, None where no subgroups were made."""
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
        f" p: of no difference, by Holm's correction over the {formatting.count(found.comparisons, 'comparison')} of "
        "this section."
    )
    how = (
        f"Lines: {confidence(evaluation)} intervals by patient. Difference: AUROC of the level minus that of all "
        "other images, with an interval of this level alone that knows of patients who stand in both."
        f"{corrected if found.comparisons else ''} A level with under 10 patients with, or without, the "
        f"{noun(evaluation)} is too small for an AUROC; with under 10 with it for sensitivity, without it for "
        "specificity. A difference may come from who is in the level, and not from the level itself."
        f"{_methods(evaluation, found)}"
    )
    if several:
        how += (
            f" Means are over the {nouns} that can be scored in every level of the factor that "
            f"has a mean. By {noun(evaluation)} the differences are in subgroups.csv, without p values."
        )
    crowded = [factor.name for factor in found.factors if len(factor.levels) > MOST_LEVELS]
    if several and crowded:
        how += f" By {noun(evaluation)} and {formatting.listed(crowded)}: in subgroups.csv."
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
    if not found.factors:
        return Section(lead, (), None, "", beside, how_baseline, ())
    by_finding = _by_finding(evaluation, found) if several else ()
    plot = _plot(evaluation, found)
    return Section(lead, (plot,), table(evaluation, found), how, beside, how_baseline, by_finding)


def table(evaluation: Evaluation, found: Subgroups) -> Grid:
    """Returns a row a level: how many, AUROC, difference from the rest, and the decisions."""
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
            cells = [Cell(f"{level.images:,}"), Cell(f"{level.patients:,}")]
            if single:
                cells.append(Cell(f"{level.findings[single].positives:,}"))
            if level.same_as:
                same = notes.letter(f"the same images as {' '.join(level.same_as)}")
                cells.append(Cell("same images", "", same))
                cells += [Cell("–")] * (len(heads) - len(cells))
                rows.append((name, tuple(cells)))
                continue
            cells += [
                _cell(level.auroc, notes),
                _after(level.difference, notes),
                Cell(formatting.p_text(level.holm_p)),
            ]
            if single:
                metrics = level.findings[single].metrics
                cells += [_after(metrics[name], notes) for name in DECISIONS]
            if level.accuracy:
                cells.append(_cell(level.accuracy, notes))
            rows.append((name, tuple(cells)))
    return Grid(
        "Figures by subgroup", "Subgroup", tuple(map(Column, heads)), tuple(rows), notes=notes.listed()
    )


def baseline(evaluation: Evaluation, found: Subgroups) -> Grid | None:
    """Returns what metadata alone tell beside the model, a row a finding or, of one finding, a row each.

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
        rows = tuple((name, (_cell(estimate, notes),)) for name, estimate in one.items())
        caption, corner = "The model and the metadata", "Told by"
        heads = [f"AUROC ({confidence(evaluation)} interval)"]
        return Grid(caption, corner, tuple(map(Column, heads)), rows, notes=notes.listed())
    cells = tuple(
        (finding, tuple(_cell(estimate, notes) for estimate in one.values())) for finding, one in told.items()
    )
    caption, corner = "AUROC of the model and of the metadata", noun(evaluation).capitalize()
    return Grid(caption, corner, tuple(map(Column, heads)), cells, notes=notes.listed())


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
    """Returns one line a level and finding, and a line with the level's mean where there are several findings."""
    head = ["factor", "level", "finding", "images", "patients", *COUNTS]
    head += [column for name in FIGURES for column in (name, f"{name}_low", f"{name}_high")]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*head, "p_value", "holm_p", "reason"])
    for factor in found.factors:
        for level in factor.levels:
            writer.writerows([factor.name, spreadsheet_safe(level.name), *line] for line in _lines(level))
    return stream.getvalue()


def _lines(level: Level) -> Iterator[list[str]]:
    """The findings of a level and, of several, their mean, which has the p value."""
    size, p_values = [str(level.images), str(level.patients)], [_plain(level.p_value), _plain(level.holm_p)]
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
        _plain(getattr(known.get(name, nothing), end)) for name in FIGURES for end in ("value", "low", "high")
    ]


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _by_finding(evaluation: Evaluation, found: Subgroups) -> tuple[Grid, ...]:
    grids = []
    for factor in found.factors:
        if len(factor.levels) > MOST_LEVELS:
            continue
        rows = [
            (finding, tuple(_number(level.findings[finding].metrics["auroc"]) for level in factor.levels))
            for finding in evaluation.findings
        ]
        rows.append((f"Mean of {len(factor.common)}", tuple(_number(level.auroc) for level in factor.levels)))
        heads = tuple(Column(level.name) for level in factor.levels)
        grids.append(
            Grid(
                f"AUROC by {noun(evaluation)} and {factor.name}",
                noun(evaluation).capitalize(),
                heads,
                tuple(rows),
                foot=1,
            )
        )
    return tuple(grids)


def _cell(estimate: Estimate, notes: Notes) -> Cell:
    if estimate.reason and estimate.reason.startswith(TOO_SMALL):
        return Cell(TOO_SMALL, "", notes.letter(estimate.reason.removeprefix(f"{TOO_SMALL}: ")))
    entry = estimate.to_dict()
    return Cell(formatting.value(entry), formatting.interval(entry), notes.letter(formatting.reason(entry)))


def _after(estimate: Estimate, notes: Notes) -> Cell:
    """A cell behind that of the AUROC, which has said what is too small."""
    if estimate.reason and estimate.reason.startswith(TOO_SMALL):
        return Cell("–")
    cell = _cell(estimate, notes)
    return cell if estimate.value is not None else replace(cell, value="–")


def _number(estimate: Estimate) -> Cell:
    if estimate.value is None:
        return Cell(TOO_SMALL)
    entry = estimate.to_dict()
    return Cell(formatting.value(entry), formatting.interval(entry))


def _plot(evaluation: Evaluation, found: Subgroups) -> Plot:
    name = "AUROC" if len(evaluation.findings) == 1 else "Mean AUROC"
    rows, known = [], []
    for factor in found.factors:
        own = [level for level in factor.levels if level.auroc.value is not None and not level.same_as]
        whole = factor.whole if own else None
        rows.append(Row(_heading(factor, evaluation), None, 0, whole))
        for level in factor.levels:
            rows.append(Row(level.name, level.auroc, level.images, whole, _same(level)))
            if level.auroc.value is not None and not level.same_as:
                known.append((level.auroc.value, named(factor, level)))
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
    drawing = forest(rows, title=title, subtitle=cohort(evaluation), axis=f"{name} (0.5 is chance)")
    return Plot("subgroups", drawing, title, caption)


def _same(level: Level) -> str:
    """Says which level above has the very same images; empty where none has."""
    return f"same as {' '.join(level.same_as)}" if level.same_as else ""


def _methods(evaluation: Evaluation, found: Subgroups) -> str:
    """Says so where AUROC's intervals of the levels and of all images are made in two ways."""
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


@style.styled
def forest(rows: Sequence[Row], *, title: str, subtitle: str, axis: str) -> "Figure":
    """Draws the AUROC of each level with its interval, below the name of its factor.

    Args:
        rows: From top to bottom.
        title: The finding of the figure.
        subtitle: What it rests on.
        axis: What the abscissa is.
    """
    # Many sites still fit a page when their lines stand closer.
    pitch = 0.25 if len(rows) <= 30 else 0.19
    top, left, width = 0.72, 1.75, 3.05
    beside = left + width + 0.15
    height = pitch * len(rows)
    drawing = style.figure(style.FULL, top + height + 0.5)
    style.heading(drawing, title, subtitle)
    style.write(
        drawing, "images", left=style.FULL - style.MARGIN, top=top - 0.09, colour=style.FAINT, align="right"
    )
    frame = style.axes(drawing, left=left, top=top, width=width, height=height)
    # The key stands above the frame, where nothing else is.
    for start, meaning, look in (
        (0.0, "all images together", {"color": style.INK, "linewidth": 0.9}),
        (1.45, "chance", CHANCE),
    ):
        frame.plot(
            [(start + 0.06) / width] * 2, [1 + 0.07 / height, 1 + 0.19 / height], **look,
            transform=frame.transAxes, clip_on=False,
        )  # fmt: skip
        style.write(drawing, meaning, left=left + start + 0.14, top=top - 0.09, colour=style.FAINT)
    lows = [0.5]
    for place, row in enumerate(rows):
        line = top + pitch * (place + 0.5) + 0.045
        if row.estimate is None:
            style.write(drawing, row.name, left=style.MARGIN, top=line, bold=True)
            continue
        style.write(drawing, formatting.ends(row.name, 22), left=style.MARGIN + 0.1, top=line)
        style.write(
            drawing,
            f"{row.images:,}",
            left=style.FULL - style.MARGIN,
            top=line,
            colour=style.FAINT,
            align="right",
        )
        estimate = row.estimate
        if row.same:
            style.write(drawing, formatting.ends(row.same, 22), left=beside, top=line, colour=style.FAINT)
            continue
        if row.whole is not None:
            frame.plot([row.whole] * 2, [place - 0.5, place + 0.5], color=style.INK, linewidth=0.9, zorder=1)
        if estimate.value is None:
            style.write(drawing, TOO_SMALL, left=beside, top=line, colour=style.FAINT)
            continue
        style.write(drawing, formatting.estimate(estimate.to_dict()), left=beside, top=line)
        lows.append(estimate.value)
        if estimate.low is not None and estimate.high is not None:
            frame.plot([estimate.low, estimate.high], [place] * 2, color=style.BLUE, linewidth=1.5)
            lows.append(estimate.low)
        frame.plot(
            [estimate.value], [place], "o", color=style.BLUE, markersize=5, markeredgewidth=0, clip_on=False
        )  # fmt: skip
    frame.axvline(0.5, **CHANCE, zorder=0.9)
    style.rows_of_shares(frame, len(rows), lowest=min(lows), axis=axis)
    return drawing
