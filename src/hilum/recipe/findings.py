"""The spellings of the public data sets -> one vocabulary of findings.

A finding's value is 1.0 present, 0.0 absent or NaN unknown. Names are compared whole (letter case, and a
space or an underscore between words, do not matter): "Pneumonia" is never found inside "No Pneumonia".
"""

import unicodedata
from collections.abc import Iterable

from hilum.errors import UsageError, nearest

NO_FINDING = "No Finding"
"""All findings of the source are known and absent; never a finding of a table itself."""

DEVICES = "Support Devices"
"""Not a disease: an image with a catheter may have no finding, and `No Finding` says nothing about devices."""

NIH_FINDINGS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural Thickening",
    "Hernia",
)
"""The 14 findings of NIH ChestX-ray14, in the order of its paper."""

VOCABULARY: dict[str, tuple[str, ...]] = {
    NO_FINDING: (
        *("No Findings", "Normal", "Normals", "Healthy"),
        *("Gesund", "Gesunde", "Normalbefund", "Kein Befund", "Ohne Befund", "Unauffällig"),
    ),
    **dict.fromkeys(NIH_FINDINGS, ()),
    # NIH's boxes spell Infiltrate; CheXpert and VinBigData name the effusion's place, VinBigData the
    # fibrosis's.
    "Infiltration": ("Infiltrate",),
    "Effusion": ("Pleural Effusion",),
    "Fibrosis": ("Pulmonary Fibrosis",),
    # CheXpert
    "Enlarged Cardiomediastinum": (),
    "Lung Opacity": ("Airspace Opacity",),
    "Lung Lesion": (),
    "Pleural Other": (),
    "Fracture": (),
    DEVICES: (),
    # VinBigData
    "Aortic Enlargement": (),
    "Calcification": (),
    "Interstitial Lung Disease": ("ILD",),
    "Nodule/Mass": (),
    "Other Lesion": (),
    # Kermany's file names
    "Bacterial Pneumonia": ("Bacteria",),
    "Viral Pneumonia": ("Virus",),
}
"""Canonical name -> its other spellings."""


PARTS: dict[str, tuple[str, ...]] = {
    "Pneumonia": ("Bacterial Pneumonia", "Viral Pneumonia"),
    "Nodule/Mass": ("Nodule", "Mass"),
}
"""Finding -> those that make it up: present where one of them is, absent where all are. Looser kinship is not here:
a lung opacity may be more than all opacities that a data set names."""


def canonical(name: str) -> str:
    """Return the canonical name of a finding.

    Args:
        name: Any spelling of the vocabulary, for example `"Pleural_Thickening"` or `"No finding"`.

    Returns:
        For example `"Pleural Thickening"`, or `NO_FINDING`.

    Raises:
        UsageError: The vocabulary does not know the name.
    """
    known = _CANONICAL.get(_key(name))
    if known is None:
        raise UsageError(f"unknown finding {name!r}; known are: {nearest(name, VOCABULARY)}")
    return known


def named(name: str) -> str:
    """Return the canonical name of a known finding; an unknown one keeps its own name, trimmed."""
    return _CANONICAL.get(_key(name), name.strip())


def same(name: str, other: str) -> bool:
    """Return whether two names mean one finding, those of the vocabulary and others."""
    return _key(named(name)) == _key(named(other))


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """Return for each name the spelling that stands for all that mean the same, of unknown ones the first."""
    first: dict[str, str] = {}
    return {name: first.setdefault(_key(named(name)), named(name)) for name in names}


def tokens(text: str, separator: str = "|") -> tuple[str, ...]:
    """Take a joined label apart into names.

    Args:
        text: For example `"Mass|Pleural_Thickening"`; empty means that nothing is known.
        separator: What stands between two findings.

    Returns:
        Each name once, as `named` gives it, in the order of `text`.
    """
    parts = (part.strip() for part in text.split(separator))
    return tuple(dict.fromkeys(named(part) for part in parts if part))


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return `names` once each in the vocabulary's order, then the others by alphabet."""
    order = {name: place for place, name in enumerate(VOCABULARY)}
    return tuple(sorted(set(names), key=lambda name: (order.get(name, len(order)), name)))


def _key(name: str) -> str:
    # File names of macOS have their umlauts taken apart.
    return unicodedata.normalize("NFC", " ".join(name.replace("_", " ").split()).casefold())


_CANONICAL = {_key(spelling): name for name, others in VOCABULARY.items() for spelling in (name, *others)}
