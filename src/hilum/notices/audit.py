"""Notices of an audit: what leaks, what is wrong in a data set, and what could not be looked for."""

from collections.abc import Mapping, Sequence

from hilum.notices.notice import Wording
from hilum.progress import count


def _duplicate(
    *,
    images: Sequence[Mapping[str, str]],
    relation: str,
    similarity: float | None,
    mirrored: bool,
    degrees: float,
    different_patients: bool,
    num_more: int,
    clashing: Sequence[str],
) -> str:
    changes = ["mirrored"] if mirrored else []
    changes += [f"turned by {degrees:.1f} degrees"] if degrees >= 0.5 else []
    how = {
        "file": "the same file",
        "pixels": "the same pixels",
        "structure": ", ".join([f"the same picture, similarity {similarity or 0:.3f}", *changes]),
        "indirect": "the same picture by way of others",
    }[relation]
    owner = ", of different patients" if different_patients else ""
    more = f", and {num_more:,} more" if num_more else ""
    prefix = f"{', '.join(clashing)}: " if clashing else ""
    if not images:
        return f"{prefix}{how}{owner}{more}"
    names = " and ".join(row["image"] + (f" ({row['split']})" if row["split"] else "") for row in images)
    return f"{prefix}{names}{more}: {how}{owner}"


def _difference(*, name: str, splits: Mapping[str, float]) -> str:
    values = (
        f"{split} {value:.1f} years" if name == "age" else f"{split} {value:.1%}"
        for split, value in splits.items()
    )
    return f"{name}: {', '.join(values)}"


def _predictable(*, finding: str, factor: str, auroc: float, low: float | None, high: float | None) -> str:
    source = "view, age, sex and image size together" if factor == "all together" else f"the {factor} alone"
    interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
    return f"{finding} from {source}: AUROC {auroc:.3f}{interval}"


def _are(number: int, noun: str) -> str:
    return f"{count(number, noun)} {'is' if number == 1 else 'are'}"


def _image(*, images: Sequence[str]) -> str:
    return ", ".join(images)


def _unreadable(*, images: Sequence[str], reason: str) -> str:
    return ": ".join([*images, reason])


def _tiny(*, images: Sequence[str], width: int, height: int) -> str:
    return ": ".join([*images, f"{width} x {height} pixels"])


AUDIT = {
    "patient-across-splits": Wording(
        "error",
        lambda *, patient, splits: (
            f"patient {patient}: {', '.join(f'{number:,} in {split}' for split, number in splits.items())}"
        ),
        "A patient's images are in more than one part of the split; split again by patient.",
    ),
    "duplicate-image": Wording(
        "warning",
        _duplicate,
        "Two or more rows hold the same image, which the audit's check tells apart: across parts of the split, across "
        "patients, with clashing labels, or within a patient; leave out the copies.",
    ),
    "unreadable-image": Wording(
        "warning",
        _unreadable,
        "The audit could not read an image; get a damaged file again, convert one of a kind that is not read.",
    ),
    "blank-image": Wording("warning", _image, "An image spans next to no grey levels; leave it out."),
    "few-bits-image": Wording(
        "warning",
        _image,
        "An image uses fewer bits than its file declares and is read nearly black; scale it to the whole range.",
    ),
    "inverted-image": Wording(
        "warning", _image, "An image looks like a negative; look at it, and exchange black and white."
    ),
    "saturated-image": Wording(
        "note", _image, "An image is white or black over a large share; crop what is a frame."
    ),
    "tiny-image": Wording("note", _tiny, "An image's shorter side is under 128 pixels; use the original."),
    "impossible-age": Wording(
        "warning", "{image}: {years:g} years", "A patient's age is above 110 years; get it again."
    ),
    "ages-not-read": Wording(
        "warning", "{note}", "The table's own note says that what stood for ages was none when it was made."
    ),
    "split-difference": Wording(
        "note",
        _difference,
        "Age, or the share of a view, sex or finding, differs between the parts of a split.",
    ),
    "predictable-label": Wording(
        "note",
        _predictable,
        "View, age, sex or image size alone rank the images with a finding; hold the model's AUROC against it.",
    ),
    "no-split": Wording("note", "the table has no split", "A check of an audit needs train, val and test."),
    "no-image-there": Wording(
        "note", "no image is where the table says", "A check of an audit needs images; give their folder."
    ),
    "one-image-a-patient": Wording(
        "note",
        "each image is its own patient here; where that is for want of knowledge, nothing can be said",
        "The audit cannot look for patients in several parts of a split where no two images share a patient.",
    ),
    "no-age-known": Wording("note", "no age is known", "The audit cannot look for impossible ages."),
    "metadata-say-nothing": Wording(
        "note",
        "no metadata vary, or there are too few patients",
        "The audit cannot look for labels that the metadata predict.",
    ),
    "split-leaks": Wording(
        "error",
        lambda *, cases: f"The split leaks: {count(cases, 'case')}.",
        "The verdict of an audit: results on this split are worthless.",
    ),
    "leaks-not-looked-for": Wording(
        "warning",
        "Whether a split leaks was not looked for: {reason}.",
        "The verdict of an audit without a split or images.",
    ),
    "leaks-looked-for-in-part": Wording(
        "warning",
        "No leak was found, but not all was looked for: {reason}.",
        "The verdict of an audit that could not make all checks for leaks.",
    ),
    "no-leak": Wording(
        "note", "No leak was found.", "The verdict of an audit that made all checks for leaks."
    ),
    "leaks-left-out": Wording(
        "note",
        "{images:,} images were left out whose patient or picture is in a later part of the split",
        "A table was written without what leaks.",
    ),
    "patients-leak": Wording(
        "error",
        lambda *, patients, first, splits: (
            f"{_are(patients, 'patient')} in more than one part (first: {first} in {' and '.join(splits)})"
        ),
        "Patients are in more than one part of a training's split; split by patient.",
    ),
    "images-leak": Wording(
        "error",
        lambda *, images, first, second: (
            f"{_are(images, 'picture')} in more than one part "
            f"(first: {first['image']} in {first['split']} is {second['image']} in {second['split']})"
        ),
        "The same images, pixel for pixel, are in more than one part of a training's split; leave out the copies.",
    ),
    "association-few-patients": Wording(
        "note",
        "under {fewest} patients with or without it",
        "Too few patients to tell how well metadata alone predict a finding.",
    ),
    "association-unknown": Wording("note", "unknown", "A factor of the metadata is known of no image."),
    "association-constant": Wording(
        "note", "the same in all images", "A factor of the metadata is the same in all images."
    ),
}
