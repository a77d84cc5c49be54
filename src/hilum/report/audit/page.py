"""An Audit -> a folder: one self-contained HTML page with the pictures in question, and the same for machines."""

from collections import Counter
from pathlib import Path

import numpy as np

from hilum import files, images
from hilum.data.audit import SEVERITIES, Audit, Check, Issue, severities
from hilum.data.audit.association import FACTORS, PREDICTABLE, TOGETHER
from hilum.errors import ImageError
from hilum.images.geometry import resize
from hilum.report.audit.plots import associations, shares
from hilum.report.rendering import render_page, write_json
from hilum.report.section import (
    Block,
    Bullets,
    Heading,
    ImageRow,
    Images,
    Page,
    Paragraph,
    Picture,
    Plot,
    Plots,
    Section,
    Tables,
    Tile,
    Tiles,
    Verdict,
    make_picture,
)
from hilum.report.table import Cell, Column, make_grid

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
LIMITS = (
    (
        "The same picture is found where it was re-encoded, resized, turned by up to 5 degrees, mirrored, or several "
        "of these. Crops of more than a few per cent, larger turns and heavy changes of contrast are not looked for."
    ),
    "Two films of one patient, taken moments apart, can be as alike as two copies.",
    "Whether labels are right is not looked at, except where one picture has two.",
)


def write(folder: Path, audit: Audit) -> Path:
    """Write the page of an audit, and beside it `audit.json` with every case.

    Args:
        folder: Where to; made if it is not there.
        audit: What was found.

    Returns:
        The path of `audit.html`, which is written last.
    """
    html = render_page(make_page(audit))
    write_json(folder / "audit.json", audit.to_dict())
    files.write_text(folder / "audit.html", html)
    return folder / "audit.html"


def make_page(audit: Audit) -> Page:
    """Return the page of an audit."""
    title = ", ".join(source.name for source in audit.table.sources)
    checks = tuple(_check(audit, check) for check in audit.checks if check.issues)
    sections = (_summary(audit), *checks, _drawings(audit), _limits(audit))
    return Page(
        title=f"{title}: data audit",
        heading=f"Data audit: {title}",
        lead=_lead(audit),
        sections=tuple(section for section in sections if section.blocks),
        research_use=RESEARCH_USE,
        stylesheet="audit.css",
    )


def _summary(audit: Audit) -> Section:
    counts = severities(audit.checks)
    tiles = tuple(
        Tile(PLURALS[severity], f"{counts[severity]:,}", remark=REMARKS[severity]) for severity in SEVERITIES
    )
    rows = [(check.title, (Cell(check.severity), _number_found(check))) for check in audit.checks]
    anchors = [(check.title, check.name) for check in audit.checks if check.issues]
    heads = (Column("Kind", numeric=False), Column("Found"))
    grid = make_grid("All checks", "Looked for", heads, rows, anchors=anchors)
    blocks = (Verdict(audit.verdict.text, bad=bool(audit.leaks)), Tiles(tiles, columns=3), Tables((grid,)))
    return Section("summary", "Summary", blocks)


def _number_found(check: Check) -> Cell:
    if check.skipped:
        return Cell(f"not looked for: {check.skipped}", missing=True)
    return Cell(f"{len(check.issues):,}", bold=bool(check.issues))


def _lead(audit: Audit) -> str:
    table = audit.table
    counts = Counter(table.frame["split"])
    parts = ", ".join(
        f"{name or 'no part'} {counts[name]:,}" for name in ("train", "val", "test", "") if counts[name]
    )
    read = f"{audit.num_read:,} of them read" if audit.num_read else "none of them read"
    return f"{len(table):,} images of {table.num_patients:,} patients, {read}. Split: {parts}."


def _check(audit: Audit, check: Check) -> Section:
    """Return pictures where a case is about one or two of them, words where it is about many or none."""
    in_words = check.name in WORDS_ALONE or not all(issue.rows for issue in check.issues)
    shown = check.issues[: LINES if in_words else PICTURES]
    block: Block = Bullets(tuple(issue.notice.text for issue in shown))
    if not in_words:
        block = Images(tuple(_row(audit, issue) for issue in shown), "copies")
    blocks: tuple[Block, ...] = (Paragraph(check.mend, strong="To mend it:"), block)
    if more := len(check.issues) - len(shown):
        blocks = (*blocks, Paragraph(f"And {more:,} more, in audit.json.", small=True))
    return Section(check.name, f"{check.title}: {len(check.issues):,}", blocks, check.meaning)


def _row(audit: Audit, issue: Issue) -> ImageRow:
    return ImageRow(tuple(_picture(audit, row) for row in issue.rows[:2]), issue.brief)


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
        return Picture("", "", 0, 0, f"{caption} It cannot be read: {error}.")
    factor = min(1.0, SIDE / max(grey.shape))
    height, width = (max(1, round(side * factor)) for side in grey.shape)
    levels = np.rint(255 * resize(grey, width, height)).astype(np.uint8)
    return make_picture(f"Radiograph {image}", levels, caption)


def _plots(audit: Audit) -> list[Plot]:
    plots = []
    comparisons = [one for one in audit.comparisons if one.name != "age" and one.parts]
    if comparisons:
        differing = [one.name for one in comparisons if one.differing]
        title = f"{len(differing)} of {len(comparisons)} shares differ between the parts"
        drawing = shares(comparisons, title=title, subtitle=_lead(audit).partition(". Split: ")[2])
        caption = "Share by part with its 95 % interval, by patient. Bold: it differs by more than chance and a little."
        plots.append(Plot("shares", drawing, title, caption))
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
        plots.append(Plot("associations", drawing, title, caption))
    return plots


def _drawings(audit: Audit) -> Section:
    plots = tuple(_plots(audit))
    return Section("figures", "Parts and metadata", (Plots(plots),) if plots else ())


def _limits(audit: Audit) -> Section:
    blocks: list[Block] = [Bullets(LIMITS)]
    if audit.notes:
        blocks += [Heading("Notes of the table"), Bullets(tuple(audit.notes))]
    sources = []
    for source in audit.table.sources:
        citation = f": {source.citation}" if source.citation else ""
        sources.append(f"{source.name}{citation}{f' ({source.terms})' if source.terms else ''}")
    return Section("limits", "Limits", (*blocks, Heading("Sources"), Bullets(tuple(sources))))
