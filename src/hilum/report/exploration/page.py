"""An Exploration -> a folder: one self-contained HTML page, a PNG a figure, and the same numbers for machines."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from hilum import files
from hilum.data.exploration import Exploration
from hilum.data.label_statistics import ALL, CONFIDENCE
from hilum.data.pixel_statistics import SIDE
from hilum.progress import count
from hilum.report import formatting
from hilum.report.exploration import plots, sentences
from hilum.report.rendering import render_page, write_json, write_plots
from hilum.report.section import (
    Block,
    Bullets,
    Facts,
    Heading,
    Page,
    Plot,
    Plots,
    Section,
    Tables,
    Tile,
    Tiles,
)
from hilum.report.table import Cell, Grid, make_grid

FIGURES = (
    "dataset_distribution",
    "cooccurrence",
    "demographics",
    "views",
    "follow_ups",
    "image_sizes",
    "intensities",
    "samples",
    "mean_images",
    "box_atlas",
)
"""Stems of the PNG files; a figure that the data know nothing of is not there."""


def write(folder: Path, found: Exploration, *, title: str) -> Path:
    """Write the page of an exploration.

    Files of an earlier one in `folder` are replaced, each whole or not at all; figures that it had and this one has
    not are removed.

    Args:
        folder: Where to; made if it is not there.
        found: What to tell. Equal explorations give equal files, byte for byte.
        title: Of the page, for example the data set's name.

    Returns:
        The path of `explore.html`, which is written last.
    """
    page = make_page(found, title=title)
    html = render_page(page)
    write_plots(folder, page.plots)
    for name in set(FIGURES) - {plot.name for plot in page.plots}:
        (folder / f"{name}.png").unlink(missing_ok=True)
    write_json(folder / "explore.json", found.to_dict())
    files.write_text(folder / "explore.html", html)
    return folder / "explore.html"


def left_out(found: Exploration) -> dict[str, tuple[str, ...]]:
    """Return section -> a sentence for each figure that the data know nothing of."""
    sizes = found.sizes
    one_size = sizes is not None and len(sizes.counts) == 1
    side = " × ".join(f"{int(side):,}" for side in sizes.sides[0]) if sizes is not None else ""
    images = count(int(sizes.counts.sum()), "image") if sizes is not None else ""
    views = found.views.values if found.views else ()
    few_boxes = found.atlas and all(each.boxes < sentences.FEWEST_BOXES for each in found.atlas)
    told: dict[str, dict[str, object]] = {
        "classes": {
            "No finding is known of these images.": not found.classes,
            "The data have no split: classes are counted over all images.": not found.splits,
            "Fewer than two findings occur, so that none occur together.": found.classes
            and not found.together,
        },
        "patients": {
            "Ages are not known.": not found.ages,
            "Sexes are not known.": not found.sexes,
            "Views are not known.": not found.views,
            _one_view(found): len(views) == 1,
            "No patient has a second image, or patients are not known: each image counts as its own.": (
                not found.follow_ups
            ),
        },
        "pixels": {
            _not_read(found): not found.num_read,
            "Sizes of images are not known.": not sizes and found.num_read,
            f"All sizes known ({images}) are {side} pixels.": one_size,
            "There are no boxes.": not found.atlas,
            f"No finding has {sentences.FEWEST_BOXES} boxes: where they lie is not shown.": few_boxes,
        },
    }
    return {
        section: tuple(sentence for sentence, holds in each.items() if holds)
        for section, each in told.items()
    }


def make_page(found: Exploration, *, title: str) -> Page:
    """Return the page of an exploration, under a title."""
    return Page(
        title=f"{title}: what the data hold",
        heading=title,
        lead=f"What the data hold, before anything is trained on them: {sentences.cohort(found)}.",
        sections=tuple(make(found) for make in SECTIONS),
        warnings=tuple(_warnings(found)),
    )


def _summary(found: Exploration) -> Section:
    blocks: list[Block] = [Tiles(tuple(_tiles(found)))]
    if said := sentences.notable(found):
        blocks += [Heading("What stands out"), Bullets(tuple(said))]
    return Section("summary", "Summary", tuple(blocks))


def _class_section(found: Exploration) -> Section:
    blocks = (*_drawn(plots.labels(found)), Tables((classes(found),)))
    return Section("classes", "Classes", blocks, notes=left_out(found)["classes"], link="Classes")


def _patient_section(found: Exploration) -> Section:
    people = _people(found)
    blocks = (*_drawn(plots.people(found)), *([Tables((people,))] if people else []))
    title = "Patients and views"
    return Section("patients", title, blocks, notes=left_out(found)["patients"], link=title)


def _pixel_section(found: Exploration) -> Section:
    blocks = (*_drawn(plots.pixels(found)), *plots.pictures(found))
    return Section("pixels", "Images", blocks, notes=left_out(found)["pixels"], link="Images")


def _data_section(found: Exploration) -> Section:
    blocks: list[Block] = [Facts(tuple(_facts(found)))]
    citations = tuple(source.citation for source in found.sources if source.citation)
    if found.notes:
        blocks += [Heading("Notes of the reader"), Bullets(tuple(found.notes))]
    if citations:
        blocks += [Heading("Citations"), Bullets(citations, numbered=True)]
    return Section("data", "Data", tuple(blocks), link="Data")


SECTIONS = (_summary, _class_section, _patient_section, _pixel_section, _data_section)
"""What the page consists of, in order."""


def _drawn(plots: Iterable[Plot]) -> tuple[Plots, ...]:
    drawn = tuple(plots)
    return (Plots(drawn),) if drawn else ()


def _warnings(found: Exploration) -> Iterator[str]:
    if found.unreadable:
        reason, number = Counter(found.unreadable.values()).most_common(1)[0]
        yield (
            f"{count(len(found.unreadable), 'file')} of "
            f"{len(found.unreadable) + found.num_read:,} could not be read and are left out of all pictures "
            f"(most often: {reason}, {number:,}). explore.json lists them."
        )
    if found.num_missing and found.num_read:
        yield f"{count(found.num_missing, 'image')} of the table have no file here; their rows are counted."


def _tiles(found: Exploration) -> Iterator[Tile]:
    yield Tile("Images", f"{found.num_images:,}", "", ", ".join(source.name for source in found.sources))
    most = found.follow_ups.most if found.follow_ups else 1
    yield Tile("Patients", f"{found.num_patients:,}", "", f"up to {count(most, 'image')} each")
    present = sorted((each for each in found.findings if each.present), key=lambda each: -each.present)
    if present:
        most_often = present[0]
        name = "Most frequent" if len(present) > 1 else "Prevalence"
        share = formatting.per_cent(most_often.present, most_often.present + most_often.absent)
        yield Tile(name, share, f"{most_often.present:,} images", most_often.name)
    if len(present) > 1:
        rarest = present[-1]
        share = formatting.per_cent(rarest.present, rarest.present + rarest.absent)
        yield Tile("Rarest", share, f"{rarest.present:,} images", rarest.name)
    elif found.num_read:
        yield Tile("Read", f"{found.num_read:,}", "", "images, for all that is made of pixels")


def classes(found: Exploration) -> Grid:
    """Return how many images and patients each class has."""
    parts = list(found.splits)
    rows = []
    for each in found.classes:
        cells = [f"{each.present:,}", f"{each.absent:,}", f"{each.unknown:,}"]
        cells += [formatting.per_cent(each.present, each.present + each.absent), f"{each.patients:,}"]
        cells += [formatting.per_cent(*each.splits.get(part, (0, 0))) for part in parts]
        rows.append((each.name, cells))
    heads = ["Present", "Absent", "Unknown", "Share", "Patients", *(f"Share of {part}" for part in parts)]
    return make_grid("Images by class", "Class", heads, rows)


def _people(found: Exploration) -> Grid | None:
    """Of how many images of each class age and sex are known, and what they are."""
    ages, sexes = found.ages, found.sexes
    if not ages and not sexes:
        return None
    rows: dict[str, list[str | Cell]] = {}
    for each in ages.years if ages else ():
        years = [f"{value:.0f}" for value in each.quartiles or ()]
        told = Cell(years[1], f"{years[0]}–{years[2]}") if years else "–"
        rows[each.name] = [f"{each.count:,}", told]
    if sexes:
        shares = sexes.share("F") if "F" in sexes.values else [0.0] * len(sexes.classes)
        for name, known, share in zip(sexes.classes, sexes.known.tolist(), shares, strict=True):
            cells = [f"{known:,}", sentences.rounded(float(share)) if known else "–"]
            rows[name] = [*rows.get(name, []), *cells]
    images = {each.name: each.present for each in found.classes} | {ALL: found.num_images}
    heads = ["Images"] + ["Age known", "Median (middle half)"] * bool(ages)
    heads += ["Sex known", "Female"] * bool(sexes)
    body = [(name, [f"{images[name]:,}", *cells]) for name, cells in rows.items()]
    caption = "Age in years and sex, by images, of those of which they are known"
    return make_grid(caption, "Class", heads, body)


def _one_view(found: Exploration) -> str:
    """Say of the only view how it came to be, as far as that is known."""
    view = found.views.values[0] if found.views else ""
    if view == "AP" and found.taken_ap and found.taken_ap.children > found.taken_ap.images / 2:
        return "Every view is AP, as small children are filmed, sick or not."
    return f"Every view is {view}."


def _facts(found: Exploration) -> Iterator[tuple[str, str]]:
    for source in found.sources:
        yield source.name, source.terms or "terms of use are not known"
    for part, (images, patients) in found.splits.items():
        yield part, f"{count(images, 'image')} of {count(patients, 'patient')}"
    if found.num_read:
        read = f"{count(found.num_read, 'image')} were read, at most {found.limit:,} of each class"
        how = f"drawn with seed {found.seed}, and squashed to {SIDE} × {SIDE} pixels"
        yield "Pixels", f"{read}, {how}. All else is counted over every row."
    if found.reference:
        what = f"how well one number ranks a class's images above those of {found.reference}; 0.5 is chance"
        level = f"{100 * CONFIDENCE:.0f}\N{NO-BREAK SPACE}%"
        how = f"{level} intervals by DeLong's method, patients as clusters, not corrected for many classes"
        yield "AUROC alone", f"{what}. {how}."


def _not_read(found: Exploration) -> str:
    if not found.limit:
        return "No image was to be read (limit 0): there are no grey values, samples and mean images."
    if found.num_missing == found.num_images:
        return "None of the images is here: there are no grey values, samples and mean images."
    return "No image could be read: there are no grey values, samples and mean images."
