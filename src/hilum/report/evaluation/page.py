"""An Evaluation -> a folder: one self-contained HTML page, its plots, and the same numbers for machines."""

from collections.abc import Callable
from pathlib import Path

from hilum import files
from hilum.evaluation.evaluation import Evaluation
from hilum.report.drawing import style
from hilum.report.evaluation import (
    external_section,
    fold_section,
    images_section,
    sections,
    subgroup_section,
    summary,
    tables,
)
from hilum.report.rendering import render_markdown, render_page, write_json, write_plots
from hilum.report.section import RESEARCH_USE, Page, Section

SECTIONS: tuple[Callable[[Evaluation], Section | None], ...] = (
    summary.section,
    external_section.section,
    fold_section.section,
    sections.discrimination,
    sections.calibration,
    sections.decisions,
    subgroup_section.section,
    images_section.section,
    sections.metrics,
    sections.training,
    sections.data,
    sections.limits,
)
"""What the report consists of, in order; a function gives None where its section does not apply."""


def write(folder: Path, evaluation: Evaluation) -> Path:
    """Write the report of an evaluation.

    Files of an earlier report in `folder` are replaced, each whole or not at all; `plots/` as a whole.

    Args:
        folder: Where to; made if it is not there.
        evaluation: What to tell. Equal evaluations give equal files, byte for byte.

    Returns:
        The path of `report.html`, which is written last.
    """
    page = make_page(evaluation)
    html, card = render_page(page), _card(evaluation, page)
    with files.replacing_folder(folder / "plots") as plots:
        write_plots(plots, page.plots)
        for name, drawing in images_section.galleries(evaluation.cases):
            (plots / f"{name}.png").write_bytes(style.png(drawing))
    write_json(folder / "metrics.json", evaluation.metrics)
    files.write_text(folder / "performance_metrics.csv", tables.performance_csv(evaluation))
    if evaluation.subgroups is None:
        (folder / "subgroups.csv").unlink(missing_ok=True)
    else:
        files.write_text(folder / "subgroups.csv", subgroup_section.to_csv(evaluation.subgroups))
    with files.replacing(folder / "predictions.parquet") as temporary:
        tables.predictions(evaluation).to_parquet(temporary, index=False)
    files.write_text(folder / "model_card.md", card)
    files.write_text(folder / "report.html", html)
    return folder / "report.html"


def make_page(evaluation: Evaluation) -> Page:
    """Return the page of an evaluation."""
    return Page(
        title=f"{evaluation.title}: evaluation report",
        heading=evaluation.title,
        lead=summary.what(evaluation),
        sections=tuple(section for make in SECTIONS if (section := make(evaluation))),
        warnings=summary.warnings(evaluation),
        bundle=evaluation.bundle,
    )


def _card(evaluation: Evaluation, page: Page) -> str:
    return render_markdown(
        "model_card.md.j2",
        evaluation=evaluation,
        page=page,
        research_use=RESEARCH_USE,
        summary=summary,
        cohort=tables.cohort(evaluation),
        results=(tables.ranking(evaluation), tables.calls(evaluation)),
    )
