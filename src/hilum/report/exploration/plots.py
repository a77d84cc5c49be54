"""An Exploration -> the figures of its page, each with one sentence on what it shows, computed from the numbers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hilum.data.exploration import Exploration
from hilum.data.pixel_statistics import NUM_SAMPLES
from hilum.progress import count
from hilum.report import formatting
from hilum.report.drawing import bars, charts, image_grids, style
from hilum.report.drawing.image_grids import PictureTile
from hilum.report.exploration import sentences
from hilum.report.section import Gallery, NamedPictures, Plot, make_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def labels(found: Exploration) -> Iterator[Plot]:
    """Yield the distribution of the classes and their co-occurrence."""
    if found.classes:
        first = [each for each in found.classes if each.name == found.reference]
        ordered = [*first, *sorted(found.findings, key=lambda each: -each.present)]
        title = sentences.balance_title(found)
        parts = ", ".join(f"{part} {images:,}" for part, (images, _) in found.splits.items())
        subtitle = f"{sentences.cohort(found)}: {parts}" if parts else sentences.cohort(found)
        drawing = charts.distribution(
            ordered, found.splits, reference=found.reference, title=title, subtitle=subtitle
        )
        how = "Bars: images with the class and their share of those of which it is known"
        how += ", by part of the split. Dots: the share within each part." if found.splits else "."
        said = [sentences.imbalance(found), sentences.split_difference(found), sentences.unknowns(found)]
        yield Plot("dataset_distribution", drawing, title, sentences.caption(found, *said, how))
    if found.together:
        title = sentences.pair_title(found)
        drawing = charts.cooccurrence(found.together, title=title, subtitle=sentences.several(found))
        caption = (
            f"{sentences.pairs(found)} Numbers: of the images with the row's finding, per cent that have the "
            "column's too. Colour: how many times as often as if one told nothing of the other. "
            f"{sentences.known_pairs(found)}"
        )
        yield Plot("cooccurrence", drawing, title, caption)


def people(found: Exploration) -> Iterator[Plot]:
    """Yield ages and sexes, views, and images a patient."""
    sexes = found.sexes if found.sexes and len(found.sexes.values) > 1 else None
    if found.ages or sexes:
        title, said = sentences.people_title(found), []
        if found.ages:
            said.append(
                sentences.told_alone(
                    found, found.ages.years, "of older patients", "of younger patients", "The age"
                )
            )
            said.append(
                "Title and left: patients by their age at the first image. Right: number of images of known age and "
                "their age by class, median and middle half of the images; dashes: the median of all."
            )
            said.append(sentences.not_drawn(found))
        if sexes:
            said.append("Female: share of the images of known sex, and their number.")
        subtitle = f"{sentences.cohort(found)}; {sentences.people_known(found)}"
        drawing = charts.demographics(found.ages, sexes, title=title, subtitle=subtitle)
        yield Plot("demographics", drawing, title, sentences.caption(found, *said))
    if found.views and len(found.views.values) > 1:
        title = sentences.views_title(found)
        drawing = charts.views(found.views, title=title, subtitle=sentences.cohort(found))
        caption = sentences.caption(
            found, sentences.view_sentence(found), "Bars: the images of each class by view."
        )
        yield Plot("views", drawing, title, caption)
    if found.follow_ups:
        title = sentences.repeated_title(found)
        drawing = charts.follow_ups(found.follow_ups, title=title, subtitle=sentences.cohort(found))
        caption = sentences.caption(found, sentences.repeated(found), sentences.came_again(found))
        yield Plot("follow_ups", drawing, title, caption)


def pixels(found: Exploration) -> Iterator[Plot]:
    """Yield sizes and grey values."""
    if found.sizes and len(found.sizes.counts) > 1:
        sizes = found.sizes
        order = sizes.sides.prod(axis=1).argsort(kind="stable")
        least, most = (" × ".join(f"{side:,}" for side in sizes.sides[order[end]]) for end in (0, -1))
        title = f"{len(sizes.counts):,} sizes, from {least} to {most} pixels"
        number = count(int(sizes.counts.sum()), "image")
        told = f"{number}, as the data set tells" if sizes.told else f"{number}, as their files are"
        drawing = charts.image_sizes(sizes, title=title, subtitle=told)
        alone = sentences.told_alone(found, sizes.megapixels, "larger", "smaller", "The size")
        many = len(sizes.counts) > charts.MOST_DISCS
        discs = "Left: the darker, the more images." if many else "Left: the larger a disc, the more images."
        right = "Right: median and middle half by class."
        caption = sentences.caption(found, sentences.most_frequent_size(found), alone, discs, right)
        yield Plot("image_sizes", drawing, title, caption)
    if found.looks:
        spreads = {row.name: row for row in found.brightness}
        reference = found.looks.get(found.reference)
        panels, under = [], None
        for name, look in found.looks.items():
            spread = spreads.get(name)
            alone = f"AUROC {formatting.alone(spread.alone)}" if spread and spread.alone else ""
            panel = charts.Greys(name, alone or count(look.num_images, "image"), look.histogram)
            if look is reference and len(found.looks) > 1:
                under = panel
            else:
                panels.append(panel)
        title = sentences.brightness_title(found)
        subtitle = f"{count(found.num_read, 'image')} read{sentences.and_joined(found)}"
        subtitle += f"; grey area: {under.name}, {under.headline}" if under else ""
        drawing = charts.intensities(panels, under, title=title, subtitle=subtitle)
        caption = sentences.caption(
            found,
            sentences.told_alone(found, found.brightness, "brighter", "darker", "The mean grey value"),
            "Lines: share of the pixels at each grey value"
            + (
                f"; grey area: the same of {under.name}. AUROC: of an image's mean grey value alone."
                if under
                else "."
            ),
            "Black borders and white markers run out of the frame at both ends.",
        )
        yield Plot("intensities", drawing, title, caption)


def pictures(found: Exploration) -> Iterator[Gallery]:
    """Yield samples, mean images and the atlas of boxes."""
    if found.looks:
        many = len(found.looks) > 7
        tiles = image_grids.samples(found.looks, number=2 if many else NUM_SAMPLES)
        title = f"{count(sum(len(tile.pictures) for tile in tiles), 'radiograph')} drawn at random"
        subtitle = f"of {found.num_read:,} that were read, seed {found.seed}. Research use only."
        drawing = image_grids.mosaic(tiles, columns=3 if many else 1, title=title, subtitle=subtitle)
        caption = "Each of another patient within its class; an image with several findings stands under one of them."
        yield _gallery("samples", drawing, title, caption, tiles)

        tiles = image_grids.means(found.looks, reference=found.reference, aspect=found.aspect)
        limit = image_grids.difference_limit(found.looks, reference=found.reference)
        compared = any(len(tile.pictures) > 1 for tile in tiles)
        title, caption = sentences.means(found)
        low, high = image_grids.mean_range(found.looks)
        drawn = sentences.and_joined(found) or " drawn from black to white"  # there is no room for both
        subtitle = f"Grey {low:.2f} to {high:.2f}{drawn}"
        subtitle += (
            f"; below: brighter (warm), darker (cold) than {formatting.cut(found.reference, 20)}"
            if compared
            else ""
        )
        drawing = image_grids.mosaic(
            tiles,
            columns=bars.columns(len(tiles), most=5 if len(tiles) > 8 else 4),
            title=title,
            subtitle=subtitle,
            upright=True,
            foot=("difference", limit) if compared else None,
        )
        scale = style.svg(image_grids.scale("difference", limit), "scale-difference") if compared else ""
        yield _gallery("mean_images", drawing, title, caption, tiles, scale)
    boxed = [each for each in found.atlas if each.boxes >= sentences.FEWEST_BOXES]
    if boxed:
        tiles = image_grids.atlas(boxed, aspect=found.aspect)
        title, caption = sentences.atlas(found)
        drawing = image_grids.mosaic(
            tiles,
            columns=max(3, bars.columns(len(tiles), most=4)),
            title=title,
            subtitle="peak: the share of a finding's boxes that cover the place where most of them overlap",
            foot=("cover", 1.0),
        )
        scale = style.svg(image_grids.scale("cover", 1.0), "scale-cover")
        yield _gallery("box_atlas", drawing, title, caption, tiles, scale)


def _gallery(
    name: str, drawing: "Figure", title: str, caption: str, tiles: tuple[PictureTile, ...], scale: str = ""
) -> Gallery:
    cells = tuple(
        NamedPictures(tile.name, tile.remark, tuple(make_picture(*picture) for picture in tile.pictures))
        for tile in tiles
    )
    return Gallery(name, drawing, title, caption, cells, scale)
