"""An Exploration -> sentences on what it shows, each computed from its numbers."""

from collections.abc import Sequence

import numpy as np

from hilum.data.exploration import Exploration
from hilum.data.label_statistics import ALL, UNKNOWN, Class, ClassQuartiles
from hilum.progress import count
from hilum.recipe.findings import PARTS
from hilum.report import formatting

NAME = 26
"""Letters of a name in a title."""
FEW_IMAGES = 100
"""A part of the split with fewer is called small."""
FEWEST_EXPECTED = 5.0
"""Images; where fewer are expected to have both findings, a lift says nothing."""
FEWEST_BOXES = 5
"""A finding with fewer boxes has no atlas."""
FEWEST_READ = 20
"""Images; a mean of fewer is shown, but not compared in words."""
TELLING = 0.1
"""An AUROC of one number alone this far from 0.5 stands out."""


def notable(found: Exploration) -> list[str]:
    """Return what a reader should know before training, a sentence or two each, computed from the numbers."""
    said = [joined(found), imbalance(found), split_difference(found), unknowns(found)]
    if found.views and "AP" in found.views.values and len(found.views.values) > 1:
        said.append(view_sentence(found))
    if found.follow_ups:
        said.append(f"{repeated_title(found)}. {came_again(found)}")
    for spreads, more, less, what in (
        (found.ages.years if found.ages else (), "of older patients", "of younger patients", "The age"),
        (found.sizes.megapixels if found.sizes else (), "larger", "smaller", "The size"),
        (found.brightness, "brighter", "darker", "The mean grey value"),
    ):
        best = strongest(spreads)
        if best and best.alone and best.alone.value is not None and abs(best.alone.value - 0.5) >= TELLING:
            said.append(told_alone(found, spreads, more, less, what))
    return [sentence for sentence in said if sentence]


def caption(found: Exploration, *said: str) -> str:
    """Join sentences below a figure, without those that stand among the notable ones already."""
    known = "\n".join(notable(found))
    return " ".join(sentence for sentence in said if sentence and sentence not in known)


def cohort(found: Exploration) -> str:
    """Say how many images of how many patients."""
    of = "" if found.num_patients == found.num_images else f" of {count(found.num_patients, 'patient')}"
    return f"{count(found.num_images, 'image')}{of}"


def and_joined(found: Exploration) -> str:
    """Say in few words, to stand behind others, that the table joins data sets; nothing of one."""
    return f", {len(found.sources)} data sets joined" if len(found.sources) > 1 else ""


def between(found: Exploration) -> str:
    """Say, behind a difference between classes, what else it may be; nothing of one data set."""
    if len(found.sources) < 2:
        return ""
    # Of ages one data set may tell all.
    number = len(found.sources)
    return (
        f" {number} data sets are joined: where several tell it, it may be a difference between them alone."
    )


def balance_title(found: Exploration) -> str:
    """Say what is most frequent."""
    present = [each for each in found.findings if each.present]
    if not present:
        return "No finding is known to be present"
    most = max(present, key=lambda each: each.present)
    which = "Most frequent: " if len(present) > 1 else ""
    share = formatting.per_cent(most.present, most.present + most.absent)
    return f"{which}{formatting.cut(most.name, NAME)}, {share} of the images"


def joined(found: Exploration) -> str:
    """Say what to make of figures over several data sets; nothing of one."""
    if len(found.sources) < 2:
        return ""
    names = formatting.listed([source.name for source in found.sources])
    return (
        f"The table joins {len(found.sources)} data sets, {names}: whatever differs between classes here, views, ages, "
        "sizes and findings that go together, may differ between the data sets alone. Explore each for itself too."
    )


def imbalance(found: Exploration) -> str:
    """Say how far the most and the least frequent finding are apart."""
    present = sorted((each for each in found.findings if each.present), key=lambda each: each.present)
    if not present:
        return ""
    most, least = present[-1], present[0]
    reference = next((each for each in found.classes if each.name == found.reference), None)
    if len(present) == 1:
        return f"{most.name} is present in {most.present:,} images and absent in {most.absent:,}."
    nothing = f"; {reference.name} in {reference.present:,}" if reference else ""
    ratio = most.present / least.present
    counts = f"{most.name} is in {most.present:,} images and {least.name} in {least.present:,}"
    return f"{counts}, {ratio:.1f} to 1{nothing}."


def split_difference(found: Exploration) -> str:
    """Say which class differs most between the parts of the split, and which part is small."""
    large = [part for part, (images, _) in found.splits.items() if images >= FEW_IMAGES]
    widest: tuple[float, Class, str, str] | None = None
    for each in found.classes:
        shares = {
            part: present / known for part, (present, known) in each.splits.items() if part in large and known
        }
        if len(shares) > 1:
            low, high = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
            if widest is None or shares[high] - shares[low] > widest[0]:
                widest = (shares[high] - shares[low], each, high, low)
    said = []
    if widest and widest[0] > 0:
        _, each, high, low = widest
        ends = [formatting.per_cent(*each.splits[part]) for part in (high, low)]
        said.append(f"{each.name} differs most between the parts: {ends[0]} of {high}, {ends[1]} of {low}.")
    said += [
        f"The part {part} holds {count(images, 'image')}: too few to choose a model by."
        for part, (images, _) in found.splits.items()
        if images < FEW_IMAGES and part != "train"
    ]
    return " ".join(said)


def unknowns(found: Exploration) -> str:
    """Say of which finding least is known."""
    worst = max(found.findings, key=lambda each: each.unknown, default=None)
    if worst is None or not worst.unknown:
        return ""
    return f"Of {worst.name} nothing is known in {formatting.per_cent(worst.unknown, found.num_images)} of the images."


def several(found: Exploration) -> str:
    """Say how far the pair of the title is beyond chance, and how many images have two findings or more."""
    assert found.together
    best = _strongest_pair(found)
    lift = f"{found.together.lift[best]:.1f} times as often as by chance; " if best else ""
    number = sum(images for findings, images in found.together.num_findings.items() if findings > 1)
    share = formatting.per_cent(number, found.num_images)
    least = "at least " if any(each.unknown for each in found.findings) else ""
    # Without a lift the title may say that one finding includes another.
    nests = not lift and any(name in PARTS for name in found.together.findings)
    once = ", a whole and its part counted once" if nests else ""
    have = f"{count(number, 'image')} ({share}) {'has' if number == 1 else 'have'}"
    return f"{lift}{least}{have} two findings or more{once}"


def pair_title(found: Exploration) -> str:
    """Say which pair goes together most, beyond chance."""
    assert found.together
    best = _strongest_pair(found)
    if best is not None:
        row, column = best
        names = found.together.findings
        return f"{formatting.cut(names[row], NAME)} and {formatting.cut(names[column], NAME)} go together"
    if nested := _nested(found):
        return nested
    apart = found.together.expected[np.triu_indices(len(found.together.findings), 1)]
    if not (apart >= FEWEST_EXPECTED).any():
        return "Too few images to say which findings occur together"
    return "No two findings occur together more often than by chance"


def pairs(found: Exploration) -> str:
    """Say which findings are most often together, which one includes another, and which are never together."""
    assert found.together
    names, both = found.together.findings, found.together.both
    # A finding that includes another is a matter of naming.
    nesting = (both == found.together.among) | (both == found.together.among).T
    upper = np.triu(both, 1)
    free = np.where(nesting, 0, upper)
    row, column = (int(place) for place in np.unravel_index(free.argmax(), free.shape))
    said = []
    if free.any():
        number = int(upper[row, column])
        # Those of which the other is known, as in the figure: a data set may not know it at all.
        among = found.together.among
        share = (formatting.per_cent(number, int(among[place])) for place in ((row, column), (column, row)))
        said.append(
            f"Most often together: {names[row]} and {names[column]}, {count(number, 'image')} "
            f"({next(share)} of those with the one, {next(share)} of those with the other)."
        )
    if (nested := _nested(found)) and nested != pair_title(found):
        said.append(f"{nested}.")
    expected = np.triu(found.together.expected, 1)
    never = [
        (expected[i, j], i, j) for i, j in zip(*np.nonzero((upper == 0) & (expected >= 10)), strict=True)
    ]
    if never:
        _, row, column = max(never)
        said.append(f"{names[row]} and {names[column]} are never together.")
    return " ".join(said)


def known_pairs(found: Exploration) -> str:
    """Say over how many images findings are held against each other, and that each data set is by itself."""
    assert found.together
    within = ", within each data set and then summed" if len(found.sources) > 1 else ""
    said = f"Over the images of which both findings are known ({found.together.pairs}){within}."
    counts = found.together.known[np.triu_indices(len(found.together.findings), 1)]
    apart = int((counts == 0).sum())
    return f"{said} No image tells both findings of {count(apart, 'pair')}." if apart else said


def view_sentence(found: Exploration) -> str:
    """Say how AP is shared out, and what a reader must conclude."""
    assert found.views
    views = found.views
    if "AP" not in views.values:
        return f"No image is AP. Views: {formatting.listed(views.values)}."
    share = dict(zip(views.classes, views.share("AP"), strict=True))
    classes = {name: value for name, value in share.items() if name != ALL and np.isfinite(value)}
    if len(classes) < 2:
        return f"{rounded(share[ALL])} of the images are AP."
    low, high = min(classes, key=classes.__getitem__), max(classes, key=classes.__getitem__)
    ends = f"from {rounded(classes[low])} of {low} to {rounded(classes[high])} of {high}"
    of = f"the {views.known[0]:,} images whose view is known" if UNKNOWN in views.values else "all images"
    text = f"AP: {rounded(share[ALL])} of {of}, {ends}."
    if classes[high] - classes[low] < 0.05:
        return f"{text} The view tells hardly anything of the class."
    so = "a model can earn its score by telling the view. Report results for each view apart"
    return f"{text} {why_ap(found)}: {so}."


def why_ap(found: Exploration) -> str:
    """Say of whom AP images are, as far as ages tell."""
    ap = found.taken_ap
    assert ap
    if ap.adults > ap.images / 2:
        return "AP images of adults are mostly taken at the bedside, of sicker patients"
    if ap.children > ap.images / 2:
        return "AP is how small children are filmed, sick or not, so that it tells of age or of where they were filmed"
    told = ap.adults + ap.children
    of = f"the ages of {ap.images - told:,} of {ap.images:,} AP images are not known"
    return (
        f"AP is how sicker adults are filmed, at the bedside, and how small children are, sick or not ({of})"
    )


def repeated_title(found: Exploration) -> str:
    """Say how many patients have several images."""
    assert found.follow_ups
    several = sum(each.patients for each in found.follow_ups.visits if each.first > 1)
    return f"{formatting.per_cent(several, found.num_patients)} of the patients have two images or more"


def repeated(found: Exploration) -> str:
    """Say how many images the patients with several hold."""
    assert found.follow_ups
    several = [each for each in found.follow_ups.visits if each.first > 1]
    patients, images = sum(each.patients for each in several), sum(each.images for each in several)
    who = "One patient has two images or more and holds" if patients == 1 else "They hold"
    most = count(found.follow_ups.most, "image")
    share = formatting.per_cent(images, found.num_images)
    return f"{who} {images:,} of {found.num_images:,} images ({share}); the most of one patient: {most}."


def came_again(found: Exploration) -> str:
    """Say whether patients with several images are labelled more often, and what follows for a split."""
    assert found.follow_ups
    once = [each for each in found.follow_ups.visits if each.first == 1]
    again = [each for each in found.follow_ups.visits if each.first > 1]
    shares = [
        formatting.per_cent(sum(each.with_finding for each in group), sum(each.known for each in group))
        for group in (once, again)
        if sum(each.known for each in group)
    ]
    said = "Split by patient, or the same people stand on both sides."
    if len(shares) < 2:
        return said
    return f"A finding is in {shares[0]} of the images of patients who came once, in {shares[1]} of the others. {said}"


def strongest(spreads: Sequence[ClassQuartiles]) -> ClassQuartiles | None:
    """Return the class that a number alone tells best from the reference, if the interval leaves out 0.5."""
    known = [
        each for each in spreads if each.alone and each.alone.value is not None and each.alone.low is not None
    ]
    told = [each for each in known if not each.alone.low <= 0.5 <= each.alone.high]  # type: ignore[union-attr,operator]
    return max(told, key=lambda each: abs(each.alone.value - 0.5), default=None)  # type: ignore[union-attr,operator]


def told_alone(found: Exploration, spreads: Sequence[ClassQuartiles], more: str, less: str, what: str) -> str:
    """Say which class a number alone tells best from the reference.

    Args:
        found: The data set.
        spreads: Of the number.
        more: What images with a larger number are.
        less: What images with a smaller one are.
        what: The number, as the beginning of a sentence.
    """
    compared = [each for each in spreads if each.alone and each.alone.low is not None]
    if not compared:
        return ""
    best = strongest(spreads)
    if best is None or best.alone is None or best.alone.value is None:
        return f"{what} alone tells no class from {found.reference}."
    how = more if best.alone.value > 0.5 else less
    of = f", the widest difference of {len(compared)} classes" if len(compared) > 1 else ""
    known = spreads[0].count
    told = f", known of {known:,} of {found.num_images:,} images," if known < found.num_images else ""
    return (
        f"Images with {best.name} are {how} than those of {found.reference}{of}: {what.lower()} alone{told} "
        f"has an AUROC of {formatting.alone(best.alone)}.{between(found)}"
    )


def people_title(found: Exploration) -> str:
    """Say how old the patients are, and how many are women."""
    said = []
    if found.ages:
        low, middle, high = found.ages.quartiles
        said.append(f"Patients' median age {middle:.0f} years, middle half {low:.0f}–{high:.0f}")
    if found.sexes and "F" in found.sexes.values:
        said.append(f"{rounded(found.sexes.share('F')[0])} of the images female")
    return "; ".join(said)


def people_known(found: Exploration) -> str:
    """Say of how many patients the age, and of how many images the sex is known."""
    said = []
    if found.ages:
        said.append(f"age known of {_of(found.ages.num_known, found.num_patients, 'patient')}")
    if found.sexes:
        of = _of(int(found.sexes.known[0]), found.num_images, "image")
        said.append(f"sex of {of}" if said else f"sex known of {of}")
    return ", ".join(said)


def _of(known: int, whole: int, noun: str) -> str:
    return f"all {count(whole, noun)}" if known == whole else f"{known:,} of {count(whole, noun)}"


def not_drawn(found: Exploration) -> str:
    """Say how many patients of known age stand in no bar, since their sex is not known."""
    if not found.ages or set(found.ages.sexes) <= {UNKNOWN} or UNKNOWN not in found.ages.sexes:
        return ""
    number = int(found.ages.patients[found.ages.sexes.index(UNKNOWN)].sum())
    verb = "is" if number == 1 else "are"
    return f"{count(number, 'patient')} of known age and unknown sex {verb} not drawn."


def views_title(found: Exploration) -> str:
    """Say how the views are shared out."""
    assert found.views
    share = {value: found.views.share(value)[0] for value in found.views.values if value != UNKNOWN}
    known = int(found.views.known[0])
    of = f"{known:,} images whose view is known" if UNKNOWN in found.views.values else f"{known:,} images"
    return ", ".join(f"{value} {rounded(part)}" for value, part in share.items()) + f" of {of}"


def most_frequent_size(found: Exploration) -> str:
    """Say which size is most frequent."""
    assert found.sizes
    place = int(found.sizes.counts.argmax())
    (width, height), number = found.sizes.sides[place], int(found.sizes.counts[place])
    share = formatting.per_cent(number, int(found.sizes.counts.sum()))
    return f"Most frequent: {width:,} × {height:,} pixels, {share}."


def brightness_title(found: Exploration) -> str:
    """Say which class is brightest or darkest."""
    best = strongest(found.brightness)
    if best and best.alone and best.alone.value is not None:
        how = "brighter" if best.alone.value > 0.5 else "darker"
        return f"Images with {formatting.cut(best.name, NAME)} are {how} than {formatting.cut(found.reference, NAME)}"
    if any(each.alone and each.alone.low is not None for each in found.brightness):
        return f"Mean grey value alone tells no class from {formatting.cut(found.reference, NAME)}"
    return "Grey values by class"


def means(found: Exploration) -> tuple[str, str]:
    """Return title and caption of the mean images."""
    base = found.looks.get(found.reference)
    kept = (
        "Left and right are those of the picture. A mean shows how patients were placed as much as disease."
    )
    enough = {name: look for name, look in found.looks.items() if look.num_images >= FEWEST_READ}
    others = {name: look for name, look in enough.items() if name != found.reference}
    if base is None or found.reference not in enough or not others:
        return "The mean image of each class", kept
    apart = {name: float(np.abs(look.mean - base.mean).mean()) for name, look in others.items()}
    most, least = max(apart, key=apart.__getitem__), min(apart, key=apart.__getitem__)
    title = f"{formatting.cut(most, NAME)} differs most from {formatting.cut(found.reference, NAME)}"
    by = f"{apart[most]:.3f} of the grey scale on average"
    caption = f"The mean of {most} differs from that of {found.reference} by {by}"
    caption += f", that of {least} least ({apart[least]:.3f})." if most != least else "."
    return title, f"{caption}{between(found)} {kept}"


def atlas(found: Exploration) -> tuple[str, str]:
    """Return title and caption of the atlas."""
    boxed = [each for each in found.atlas if each.boxes >= FEWEST_BOXES]
    most, least = (choose(boxed, key=lambda each: float(each.cover.max())) for choose in (max, min))
    large, little = (choose(boxed, key=lambda each: each.area) for choose in (max, min))
    peak = float(most.cover.max())
    how = "all" if peak == 1 else rounded(peak)
    title = f"Where boxes lie: {how} of those of {formatting.cut(most.finding, NAME)} overlap in one place"
    said = []
    if len(boxed) > 1:
        said.append(
            f"Of {least.finding} no place is covered by more than {rounded(float(least.cover.max()))}; a box of "
            f"{large.finding} takes {rounded(large.area)} of the image, one of {little.finding} "
            f"{rounded(little.area)} (medians)."
        )
    few = [f"{each.finding} ({each.boxes})" for each in found.atlas if each.boxes < FEWEST_BOXES]
    said.append(f"Fewer than {FEWEST_BOXES} boxes, not shown: {formatting.listed(few)}." if few else "")
    read = sum(each.look.num_images for each in boxed)
    ground = (
        "Underneath: the mean of the boxed images, from its darkest place drawn black to its brightest drawn white."
        if read
        else "None of the boxed images was read: the ground is plain."
    )
    said.append(f"{ground} The left of a picture is the patient's right.")
    return title, " ".join(filter(None, said))


def rounded(share: float) -> str:
    """Write a share in per cent."""
    return formatting.per_cent(share, 1)


def _strongest_pair(found: Exploration) -> tuple[int, int] | None:
    assert found.together
    both, among = found.together.both, found.together.among
    lift = np.where(found.together.expected >= FEWEST_EXPECTED, found.together.lift, 0)
    # A finding that includes another is a matter of naming, not of chance.
    lift[(both == among) | (both == among.T)] = 0
    row, column = (int(place) for place in np.unravel_index(np.triu(lift, 1).argmax(), lift.shape))
    return (row, column) if lift[row, column] > 1 and row != column else None


def _nested(found: Exploration) -> str:
    assert found.together
    names, both, among = found.together.findings, found.together.both, found.together.among
    inside = (both == among) & (among >= FEWEST_READ) & ~np.eye(len(names), dtype=bool)
    if not inside.any():
        return ""
    larger = int(inside.sum(axis=0).argmax())
    smaller = [formatting.cut(names[row], NAME) for row in np.flatnonzero(inside[:, larger])]
    which = " or ".join(smaller) if len(smaller) < 3 else f"{smaller[0]} or {len(smaller) - 1} others"
    return f"Every image with {which} has {formatting.cut(names[larger], NAME)}"
