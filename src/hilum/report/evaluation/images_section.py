"""The cases of an Evaluation -> their section: right and wrong calls with their maps, and the same as drawings."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hilum.evaluation.evaluation import Evaluation
from hilum.inference.explanation import Case
from hilum.report.drawing import maps, style
from hilum.report.section import Block, Heading, ImageRow, Images, Scale, Section, make_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 640
"""Pixels of the longer side of a picture in the page."""
_RIGHT = (*maps.OUTCOMES[:2], maps.CLASS_OUTCOMES[0])
_WRONG = (*maps.OUTCOMES[2:], maps.CLASS_OUTCOMES[1])


def section(evaluation: Evaluation) -> Section | None:
    """Return the section, None where no image was explained."""
    cases = evaluation.cases
    if not cases:
        return None
    limit = maps.scale_limit(cases)
    boxes = " Green: a box that came with the data." if any(len(case.boxes) for case in cases) else ""
    lead = (
        "Each row: the radiograph, the radiograph under its evidence map, the map. Warm places speak for the "
        f"{'class that was called' if evaluation.task.exclusive else 'finding'}, cold places against it: the colour "
        "is what one place adds to the logit, on one scale for all images of this report; where there is no evidence "
        "the radiograph shows unchanged. "
        f"The thin line stands at half of the scale.{boxes} {' '.join(maps.meaning(cases))}"
    )
    label = f"Colour scale from minus {limit:g} to plus {limit:g} logit units"
    blocks: list[Block] = [Scale(style.svg(maps.scale(limit), "scale"), label)]
    for outcome, members in _by_outcome(cases):
        plural = "s" if outcome.endswith(("positive", "negative")) else ""
        blocks += [
            Heading(f"{outcome}{plural}"),
            Images(tuple(_row(case, limit) for case in members), "case"),
        ]
    return Section("images", "Images: right and wrong calls", tuple(blocks), lead, link="Images")


def galleries(cases: Sequence[Case]) -> Iterator[tuple[str, "Figure"]]:
    """Yield file stem and drawing of right and wrong calls, all on one scale."""
    limit = maps.scale_limit(cases)
    for name, outcomes in (("right", _RIGHT), ("wrong", _WRONG)):
        chosen = [case for outcome, members in _by_outcome(cases) if outcome in outcomes for case in members]
        drawings = maps.gallery(chosen, title=f"{name.capitalize()} calls and what moved them", limit=limit)
        for number, drawing in enumerate(drawings, 1):
            yield f"gradcam_{name}" if number == 1 else f"gradcam_{name}_{number}", drawing


def _by_outcome(cases: Sequence[Case]) -> list[tuple[str, list[Case]]]:
    """Sort the cases by outcome, wrong calls first; cases of unknown truth come last."""
    members: dict[str, list[Case]] = {name: [] for name in (*reversed(_WRONG), *_RIGHT)}
    for case in cases:
        members.setdefault(maps.outcome(case), []).append(case)
    return [(outcome, group) for outcome, group in members.items() if group]


def _row(case: Case, limit: float) -> ImageRow:
    views = maps.views(case, limit=limit, side=SIDE)
    pictures = (
        make_picture("Radiograph", views.radiograph),
        make_picture(f"Radiograph with the evidence map for {case.finding}", views.overlay),
        make_picture(f"Evidence map for {case.finding}", views.evidence),
    )
    return ImageRow(pictures, ". ".join(filter(None, (maps.caption(case), maps.faintness(case)))), case.image)
