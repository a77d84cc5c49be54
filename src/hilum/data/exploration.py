"""A Table and its images -> an Exploration: what a data set holds, in numbers, before anything is trained on it.

Metadata are counted over all rows, pixels over a sample of each class. What the data set does not know is None.
No order of the rows changes anything.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum.data import label_statistics, pixel_statistics
from hilum.data.label_statistics import (
    AGE_STEP,
    ALL,
    Ages,
    Class,
    ClassQuartiles,
    FollowUps,
    LabelledTable,
    Shares,
    Sizes,
    TakenAP,
    Together,
)
from hilum.data.pixel_statistics import SIDE, Appearance, Look
from hilum.data.table import SEXES, VIEWS, Source, Table
from hilum.errors import UsageError
from hilum.progress import Silent, Watcher

FORMAT = 1
"""Number of the form of explore.json."""
NUM_SIZES = 20
"""Sizes that explore.json lists."""
LIMIT = 2_000
"""Images of each class that are read, at most."""


@dataclass(frozen=True, eq=False)
class Atlas:
    """Where the boxes of one finding lie.

    Attributes:
        finding: Its name.
        boxes: How many there are.
        images: On how many images.
        cover: float64 (SIDE, SIDE): share of the boxes that cover a place of the image.
        area: Median share of the image that a box takes.
        left: Share of boxes whose centre lies in the left half of the image, the patient's right.
        look: The mean of the images with such boxes, as far as they were read.
    """

    finding: str
    boxes: int
    images: int
    cover: NDArray[np.float64]
    area: float
    left: float
    look: Look


@dataclass(frozen=True, eq=False)
class Exploration:
    """What a data set holds.

    Attributes:
        sources: The data sets that the rows come from.
        notes: The table's.
        num_images: Rows.
        num_patients: Patients; the same number in two sources is two patients.
        reference: Name of the images of which every finding is known to be absent; empty where there are none.
        splits: Part of the split -> (images, patients); empty where no row has one.
        classes: The reference where there is one, then every finding of the table.
        together: None for fewer than two findings that occur.
        sizes: None where nothing tells them.
        ages: None where no age is known.
        sexes: None where no sex is known.
        views: None where no view is known.
        taken_ap: Who is filmed AP; None where no image is.
        follow_ups: None where no patient has a second image.
        looks: Class -> what its images look like; empty where no image was read.
        brightness: Mean grey value in [0, 1] by class; empty where no image was read.
        aspect: Height over width of a typical file.
        atlas: One a finding with boxes.
        num_read: Images that were read.
        num_missing: Images of which no file is there.
        unreadable: Image -> why it could not be read.
        limit: Images of each class that were to be read, at most.
        seed: That chose them.
    """

    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    num_images: int
    num_patients: int
    reference: str
    splits: Mapping[str, tuple[int, int]]
    classes: tuple[Class, ...]
    together: Together | None
    sizes: Sizes | None
    ages: Ages | None
    sexes: Shares | None
    views: Shares | None
    taken_ap: TakenAP | None
    follow_ups: FollowUps | None
    looks: Mapping[str, Look]
    brightness: tuple[ClassQuartiles, ...]
    aspect: float
    atlas: tuple[Atlas, ...]
    num_read: int
    num_missing: int
    unreadable: Mapping[str, str]
    limit: int
    seed: int

    @property
    def findings(self) -> tuple[Class, ...]:
        """The classes that are findings."""
        return tuple(each for each in self.classes if each.name != self.reference)

    def to_dict(self) -> dict[str, Any]:
        """All numbers, of the types that JSON has; pictures are left out."""
        together, sizes, ages = self.together, self.sizes, self.ages
        return {
            "format": FORMAT,
            "sources": [source.name for source in self.sources],
            "num_images": self.num_images,
            "num_patients": self.num_patients,
            "splits": {name: {"images": each[0], "patients": each[1]} for name, each in self.splits.items()},
            "reference": self.reference or None,
            "classes": {
                each.name: {
                    "present": each.present,
                    "absent": each.absent,
                    "unknown": each.unknown,
                    "patients": each.patients,
                    "splits": {part: {"present": n, "known": of} for part, (n, of) in each.splits.items()},
                }
                for each in self.classes
            },
            "cooccurrence": together
            and {
                "findings": list(together.findings),
                "both": together.both.tolist(),
                "known": together.known.tolist(),
                "expected": _listed(together.expected),
                "share": _listed(together.share),
                "lift": _listed(together.lift),
                "images_by_number_of_findings": {str(n): of for n, of in together.num_findings.items()},
            },
            "sizes": sizes
            and {
                "told_by": "table" if sizes.told else "files read",
                "different": len(sizes.counts),
                "most_frequent": [
                    {"width": int(width), "height": int(height), "images": int(count)}
                    for (width, height), count in _most_frequent(sizes)
                ],
                "megapixels": _spreads(sizes.megapixels),
            },
            "ages": ages
            and {
                "bin_years": AGE_STEP,
                "patients_of_known_age": ages.num_known,
                "patients": dict(zip(ages.sexes, ages.patients.tolist(), strict=True)),
                "quartiles": list(ages.quartiles),
                "by_class": _spreads(ages.years),
            },
            "sexes": _shares(self.sexes),
            "views": _shares(self.views),
            "ap_images": self.taken_ap and asdict(self.taken_ap),
            "images_per_patient": self.follow_ups
            and {"most": self.follow_ups.most, "bins": [asdict(each) for each in self.follow_ups.visits]},
            "pixels": {
                "read": self.num_read,
                "missing": self.num_missing,
                "unreadable": dict(self.unreadable),
                "limit_a_class": self.limit,
                "seed": self.seed,
                "brightness": _spreads(self.brightness),
                "histograms": {name: each.histogram.tolist() for name, each in self.looks.items()},
            },
            "boxes": {
                each.finding: {
                    "boxes": each.boxes,
                    "images": each.images,
                    "median_area": each.area,
                    "share_left": each.left,
                    "largest_cover": float(each.cover.max()),
                }
                for each in self.atlas
            },
        }


def explore(table: Table, *, limit: int = LIMIT, seed: int = 0, watch: Watcher | None = None) -> Exploration:
    """Look at a data set.

    Args:
        table: Any table; with a split, the classes are counted by its parts.
        limit: At most so many images of each class, and of each finding with boxes, are read; 0 reads none.
        seed: Of the choice among them.
        watch: Told of the reading.

    Raises:
        UsageError: `limit` is negative.
    """
    if limit < 0:
        raise UsageError(f"limit is {limit}; 0 (no image is read) or more expected")
    # Canonical order: sums of fractions, too, are then the same whatever the order of the rows.
    order = table.frame.sort_values(["source", "image"]).index.to_numpy()
    frame = table.frame.iloc[order].reset_index(drop=True)
    table = replace(table, frame=frame)
    subject = label_statistics.LabelledTable.of(table)
    sampled = subject.groups or {ALL: np.ones(len(table), bool)}
    boxed = {
        _boxed(finding): frame["image"].isin(boxes["image"]).to_numpy(bool)
        for finding, boxes in table.boxes.groupby("finding", sort=False)
    }
    groups = {**sampled, **boxed}
    seen = pixel_statistics.look(
        table, groups, shown=sampled, limit=limit, seed=seed, watch=watch or Silent()
    )
    return Exploration(
        sources=table.sources,
        notes=table.notes,
        num_images=len(table),
        num_patients=table.num_patients,
        reference=subject.reference,
        splits=label_statistics.splits(subject),
        classes=label_statistics.classes(subject),
        together=label_statistics.together(subject),
        sizes=_sizes(subject, seen),
        ages=label_statistics.ages(subject),
        sexes=label_statistics.shares(subject, "sex", SEXES),
        views=label_statistics.shares(subject, "view", VIEWS),
        taken_ap=label_statistics.taken_ap(subject),
        follow_ups=label_statistics.follow_ups(subject),
        looks={name: seen.looks[name] for name in sampled if seen.looks[name].num_images},
        brightness=_brightness(subject, seen),
        aspect=seen.aspect(),
        atlas=_atlas(table.boxes, table.findings, seen),
        num_read=len(seen.rows),
        num_missing=seen.num_missing,
        unreadable=dict(sorted(seen.unreadable.items())),
        limit=limit,
        seed=seed,
    )


def _sizes(subject: LabelledTable, seen: Appearance) -> Sizes | None:
    """Take sizes from the data set, else from the files that were read."""
    width, height = (subject.frame[name].to_numpy(np.int64).copy() for name in ("width", "height"))
    told = bool(((width > 0) & (height > 0)).any())
    if not told:
        width[seen.rows], height[seen.rows] = seen.width, seen.height
    return label_statistics.sizes(subject, width, height, told=told)


def _brightness(subject: LabelledTable, seen: Appearance) -> tuple[ClassQuartiles, ...]:
    if not len(seen.rows):
        return ()
    values = np.full(len(subject.frame), np.nan)
    values[seen.rows] = seen.brightness
    return subject.spreads(values)


def _atlas(boxes: pd.DataFrame, findings: tuple[str, ...], seen: Appearance) -> tuple[Atlas, ...]:
    found = []
    for finding in findings:
        own = boxes[boxes["finding"] == finding]
        if not len(own):
            continue
        corners = own[["x", "y", "width", "height"]].to_numpy(np.float64)
        cover = np.zeros((SIDE, SIDE), np.int64)
        start = np.floor(corners[:, :2] * SIDE).astype(int)
        end = np.ceil((corners[:, :2] + corners[:, 2:]) * SIDE - 1e-6).astype(int)
        for (left, top), (right, bottom) in zip(start, end, strict=True):
            cover[top:bottom, left:right] += 1
        found.append(
            Atlas(
                finding=finding,
                boxes=len(own),
                images=int(own["image"].nunique()),
                cover=cover / len(own),
                area=float(np.median(corners[:, 2] * corners[:, 3])),
                left=float((corners[:, 0] + corners[:, 2] / 2 < 0.5).mean()),
                look=seen.looks[_boxed(finding)],
            )
        )
    return tuple(found)


def _most_frequent(sizes: Sizes) -> list[tuple[NDArray[np.int64], int]]:
    order = np.argsort(-sizes.counts, kind="stable")[:NUM_SIZES]
    return [(sizes.sides[place], int(sizes.counts[place])) for place in order]


def _boxed(finding: str) -> str:
    return f"boxes of {finding}"


def _listed(values: NDArray[np.float64]) -> list[Any]:
    """Return lists of an array's numbers; JSON has no NaN."""
    return np.where(np.isnan(values), None, values).tolist()  # type: ignore[no-any-return,call-overload]


def _spreads(spreads: tuple[ClassQuartiles, ...]) -> dict[str, Any]:
    return {
        each.name: {
            "images": each.count,
            "quartiles": list(each.quartiles) if each.quartiles else None,
            **({"auroc_alone": each.alone.to_dict()} if each.alone else {}),
        }
        for each in spreads
    }


def _shares(shares: Shares | None) -> dict[str, dict[str, int]] | None:
    if shares is None:
        return None
    rows = zip(shares.classes, shares.counts.tolist(), strict=True)
    return {name: dict(zip(shares.values, counts, strict=True)) for name, counts in rows}
