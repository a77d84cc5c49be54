"""An Evaluation -> a folder: one self-contained HTML page, its plots, and the same numbers for machines."""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum import files
from hilum.evaluation.evaluation import Evaluation
from hilum.inference.explanation import Case
from hilum.report.drawing import maps, style
from hilum.report.evaluation import external_section, fold_section, plots, subgroup_section, summary, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JPEG_SIDE, JPEG_QUALITY = 640, 88
_RIGHT = (*maps.OUTCOMES[:2], maps.CLASS_OUTCOMES[0])
_WRONG = (*maps.OUTCOMES[2:], maps.CLASS_OUTCOMES[1])


@dataclass(frozen=True)
class Inline:
    """A plot inside the page; `svg` is an element, `wide` says that it takes the whole width."""

    name: str
    svg: str
    title: str
    caption: str
    wide: bool


@dataclass(frozen=True)
class Shown:
    """A case inside the page; `pictures` are pairs of alternative text and data URI, all of one size."""

    image: str
    caption: str
    pictures: tuple[tuple[str, str], ...]
    width: int
    height: int


def write(folder: Path, evaluation: Evaluation) -> Path:
    """Writes the report of an evaluation.

    Files of an earlier report in `folder` are replaced, each whole or not at all; `plots/` as a whole.

    Args:
        folder: Where to; made if it is not there.
        evaluation: What to tell. Equal evaluations give equal files, byte for byte.

    Returns:
        The path of `report.html`, which is written last.
    """
    external, told_of_folds = external_section.section(evaluation), fold_section.section(evaluation)
    divided = subgroup_section.section(evaluation)
    sections = {
        "external": list(external.plots if external else ()),
        "folds": list(told_of_folds.plots if told_of_folds else ()),
        "discrimination": list(plots.discrimination(evaluation)),
        "calibration": list(plots.calibration(evaluation)),
        "decisions": list(plots.decisions(evaluation)),
        "subgroups": list(divided.plots if divided else ()),
        "training": list(plots.training(evaluation)),
    }
    page = _page(evaluation, sections, external, told_of_folds, divided)
    card = _card(evaluation, external, told_of_folds, divided)
    with files.replacing_folder(folder / "plots") as folder_of_plots:
        for plot in (plot for section in sections.values() for plot in section):
            (folder_of_plots / f"{plot.name}.png").write_bytes(style.png(plot.figure))
        for name, drawing in _galleries(evaluation.cases):
            (folder_of_plots / f"{name}.png").write_bytes(style.png(drawing))
    metrics = json.dumps(evaluation.metrics, indent=2, ensure_ascii=False, allow_nan=False)
    files.write_text(folder / "metrics.json", f"{metrics}\n")
    files.write_text(folder / "performance_metrics.csv", tables.performance_csv(evaluation))
    if evaluation.subgroups is None:
        (folder / "subgroups.csv").unlink(missing_ok=True)
    else:
        files.write_text(folder / "subgroups.csv", subgroup_section.to_csv(evaluation.subgroups))
    with files.replacing(folder / "predictions.parquet") as temporary:
        tables.predictions(evaluation).to_parquet(temporary, index=False)
    files.write_text(folder / "model_card.md", card)
    files.write_text(folder / "report.html", page)
    return folder / "report.html"


def render(template: str, **names: object) -> str:
    """Fills a template of a page; text from outside is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hilum.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**names)


def _page(
    evaluation: Evaluation,
    sections: dict[str, list[plots.Plot]],
    external: external_section.Section | None,
    told_of_folds: fold_section.Section | None,
    divided: subgroup_section.Section | None,
) -> str:
    limit = maps.scale_limit(evaluation.cases)
    return render(
        "report.html.j2",
        evaluation=evaluation,
        noun=plots.noun(evaluation),
        story=summary.tell(evaluation),
        external=external,
        folds=told_of_folds,
        subgroups=divided,
        plots={name: [inline(plot) for plot in section] for name, section in sections.items()},
        groups=[(name, [_show(case, limit) for case in cases]) for name, cases in _groups(evaluation.cases)],
        confidence=plots.confidence(evaluation),
        scale=style.svg(maps.scale(limit), "scale"),
        scale_title=f"Colour scale from minus {limit:g} to plus {limit:g} logit units",
        meaning=" ".join(maps.meaning(evaluation.cases)),
        has_boxes=any(len(case.boxes) for case in evaluation.cases),
        ranking=tables.ranking(evaluation),
        calls=tables.calls(evaluation),
        classification=tables.classification_report(evaluation),
        cohort=tables.cohort(evaluation),
    )


def _card(
    evaluation: Evaluation,
    external: external_section.Section | None,
    told_of_folds: fold_section.Section | None,
    divided: subgroup_section.Section | None,
) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("hilum.report"),
        autoescape=False,  # Markdown has its own escape, below
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else summary.markdown(str(value)),
    )
    return environment.get_template("model_card.md.j2").render(
        evaluation=evaluation,
        story=summary.tell(evaluation),
        external=external,
        folds=told_of_folds,
        subgroups=divided,
        ranking=tables.ranking(evaluation),
        calls=tables.calls(evaluation),
        cohort=tables.cohort(evaluation),
    )


def inline(plot: plots.Plot) -> Inline:
    """Turns a plot into what stands inside a page."""
    wide = bool(plot.figure.get_size_inches()[0] > style.HALF + 0.5)
    return Inline(
        plot.name, style.svg(plot.figure, plot.name.replace("_", "-")), plot.title, plot.caption, wide
    )


def _groups(cases: Sequence[Case]) -> list[tuple[str, list[Case]]]:
    """Sorts the cases by outcome, wrong calls first; cases of unknown truth come last."""
    order = (*reversed(_WRONG), *_RIGHT)
    sorted_cases: dict[str, list[Case]] = {name: [] for name in order}
    for case in cases:
        sorted_cases.setdefault(maps.outcome(case), []).append(case)
    return [(name, members) for name, members in sorted_cases.items() if members]


def _galleries(cases: Sequence[Case]) -> Iterator[tuple[str, "Figure"]]:
    """Yields file stem and figure of right and wrong calls, all on one scale."""
    limit = maps.scale_limit(cases)
    for name, members in (("right", _RIGHT), ("wrong", _WRONG)):
        chosen = [case for outcome, group in _groups(cases) if outcome in members for case in group]
        drawings = maps.gallery(chosen, title=f"{name.capitalize()} calls and what moved them", limit=limit)
        for number, drawing in enumerate(drawings, 1):
            yield f"gradcam_{name}" if number == 1 else f"gradcam_{name}_{number}", drawing


def _show(case: Case, limit: float) -> Shown:
    views = maps.views(case, limit=limit, side=JPEG_SIDE)
    height, width = views.radiograph.shape[:2]
    pictures = (
        ("Radiograph", jpeg(views.radiograph)),
        (f"Radiograph with the evidence map for {case.finding}", jpeg(views.overlay)),
        (f"Evidence map for {case.finding}", jpeg(views.evidence)),
    )
    told = ". ".join(filter(None, (maps.caption(case), maps.faintness(case))))
    return Shown(case.image, told, pictures, width, height)


def jpeg(picture: NDArray[np.uint8]) -> str:
    """Returns a picture, uint8 (height, width) or (height, width, 3), as a data URI."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
