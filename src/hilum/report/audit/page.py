"""An Audit -> a folder: one self-contained HTML page with the pictures in question, and the same for machines."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilum import files, images
from hilum.data.audit import SEVERITIES, Audit, Check, Issue, severities
from hilum.data.audit.association import FACTORS, PREDICTABLE, TOGETHER
from hilum.errors import ImageError
from hilum.images.geometry import resize
from hilum.report.audit.plots import associations, shares
from hilum.report.drawing import style
from hilum.report.evaluation.page import Inline, jpeg

PICTURES, LINES, SIDE = 12, 20, 260
"""Cases with pictures and cases in words that a check shows at most; pixels of a picture's longer side."""

PLURALS = {"leak": "Leaks", "fault": "Faults", "note": "Notes"}
REMARKS = {
    "leak": "results on this split would be worthless",
    "fault": "wrong in the data",
    "note": "to be known",
}
WORDS_ALONE = ("patients-across-splits", "unreadable", "impossible-ages")
RESEARCH_USE = "Research use only. Not a medical device."


@dataclass(frozen=True)
class Picture:
    """A radiograph in the page; `uri` is empty where it cannot be read."""

    image: str
    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Shown:
    """A case in the page, with what is said below its pictures."""

    words: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Section:
    """A check in the page; `more` cases are not shown."""

    check: Check
    pictured: tuple[Shown, ...]
    lines: tuple[str, ...]
    more: int


def write(folder: Path, audit: Audit) -> Path:
    """Writes the page of an audit, and beside it `audit.json` with every case.

    Args:
        folder: Where to; made if it is not there.
        audit: What was found.

    Returns:
        The path of `audit.html`, which is written last.
    """
    content = json.dumps(audit.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    page = _page(audit)
    files.write_text(folder / "audit.json", f"{content}\n")
    files.write_text(folder / "audit.html", page)
    return folder / "audit.html"


def _page(audit: Audit) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hilum.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    counts = severities(audit.checks)
    return environment.get_template("audit.html.j2").render(
        title=", ".join(source.name for source in audit.table.sources),
        research_use=RESEARCH_USE,
        lead=_lead(audit),
        verdict=audit.verdict,
        leaks=audit.leaks,
        tiles=[(PLURALS[severity], f"{counts[severity]:,}", REMARKS[severity]) for severity in SEVERITIES],
        checks=audit.checks,
        sections=[_section(audit, check) for check in audit.checks if check.issues],
        plots=_plots(audit),
        notes=audit.notes,
        sources=audit.table.sources,
    )


def _lead(audit: Audit) -> str:
    table = audit.table
    counts = Counter(table.frame["split"])
    parts = ", ".join(
        f"{name or 'no part'} {counts[name]:,}" for name in ("train", "val", "test", "") if counts[name]
    )
    read = f"{audit.num_read:,} of them read" if audit.num_read else "none of them read"
    return f"{len(table):,} images of {table.num_patients:,} patients, {read}. Split: {parts}."


def _section(audit: Audit, check: Check) -> Section:
    """Shows pictures where a case is about one or two of them, words where it is about many or none."""
    if check.name in WORDS_ALONE or not all(issue.rows for issue in check.issues):
        lines = tuple(issue.notice.text for issue in check.issues[:LINES])
        return Section(check, (), lines, len(check.issues) - len(lines))
    shown = check.issues[:PICTURES]
    pictured = tuple(_show(audit, issue) for issue in shown)
    return Section(check, pictured, (), len(check.issues) - len(shown))


def _show(audit: Audit, issue: Issue) -> Shown:
    return Shown(issue.brief, tuple(_picture(audit, row) for row in issue.rows[:2]))


def _picture(audit: Audit, row: int) -> Picture:
    table = audit.table
    image, patient, part = table.frame[["image", "patient", "split"]].iloc[row].tolist()
    labels = table.labels(table.findings)[row]
    present = [name for name, label in zip(table.findings, labels, strict=True) if label == 1]
    said = ", ".join(present) or ("No finding" if (labels == 0).all() else "Nothing known to be present")
    caption = f"{image}. Patient {patient}{f', {part}' if part else ''}. {said}."
    try:
        grey = images.read(table.location(row)).grey
    except ImageError as error:
        return Picture(image, f"{caption} It cannot be read: {error}.", "", 0, 0)
    factor = min(1.0, SIDE / max(grey.shape))
    height, width = (max(1, round(side * factor)) for side in grey.shape)
    levels = np.rint(255 * resize(grey, width, height)).astype(np.uint8)
    return Picture(image, caption, jpeg(levels), width, height)


def _plots(audit: Audit) -> list[Inline]:
    plots = []
    comparisons = [one for one in audit.comparisons if one.name != "age" and one.parts]
    if comparisons:
        differing = [one.name for one in comparisons if one.differing]
        title = f"{len(differing)} of {len(comparisons)} shares differ between the parts"
        drawing = shares(comparisons, title=title, subtitle=_lead(audit).partition(". Split: ")[2])
        caption = "Share by part with its 95 % interval, by patient. Bold: it differs by more than chance and a little."
        plots.append(Inline("shares", style.svg(drawing, "shares"), title, caption, True))
    factors = [
        factor
        for factor in (*FACTORS, TOGETHER)
        if any(one.factor == factor and one.value is not None for one in audit.associations)
    ]
    if factors:
        surely = {one.finding for one in audit.associations if one.predictable}
        number = len({one.finding for one in audit.associations if one.value is not None})
        title = f"Metadata alone predict {len(surely)} of {number} findings"
        subtitle = "by AUROC, without any pixel; interval 95 %, by patient"
        drawing = associations(audit.associations, factors, limit=PREDICTABLE, title=title, subtitle=subtitle)
        caption = (
            "How well each factor alone ranks images with a finding above those without, scored on patients that were "
            "left out. A model should do clearly better than this."
        )
        plots.append(Inline("associations", style.svg(drawing, "associations"), title, caption, True))
    return plots
