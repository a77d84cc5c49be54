"""What was seen and counted -> the checks of an audit, each with its issues."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum.data.audit import image_quality
from hilum.data.audit.association import PREDICTABLE, Association
from hilum.data.audit.duplicates import DuplicatePair, groups
from hilum.data.audit.leakage import SplitComparison, across
from hilum.data.audit.result import FAULT, LEAK, NOTE, Check, Issue
from hilum.data.table import SPLITS, Table
from hilum.notices import Notice, notice

Rows = NDArray[np.int64]

OLDEST = 110.0
"""Years; who is said to be older is an error of entry."""


@dataclass(frozen=True, eq=False)
class ImageEvidence:
    """What the images show; `rows` and the following are rows of the table.

    Attributes:
        looked: Whether any image was where the table says.
        rows: Those that could be read.
        reasons: Why the others could not be, in the order of the rows.
        width: int32 (all rows,), of the original in pixels; 0 where it could not be read.
        height: int32 (all rows,), likewise.
        pairs: The same pictures.
        same_file: Of each pair, whether the files' bytes are equal.
        blank: Pictures of next to no grey levels; these have no pairs.
        few_bits: Such pictures whose files use fewer bits than they declare, and are read nearly black; not in `blank`.
        saturated: Pictures that are white or black over a large share.
        inverted: Pictures that look like a negative.
        tiny: Pictures of few pixels.
    """

    looked: bool
    rows: Rows
    reasons: tuple[str, ...]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    pairs: tuple[DuplicatePair, ...]
    same_file: tuple[bool, ...]
    blank: Rows
    few_bits: Rows
    saturated: Rows
    inverted: Rows
    tiny: Rows

    @property
    def num_read(self) -> int:
        """How many images could be read."""
        return len(self.rows)


def unseen(table: Table) -> ImageEvidence:
    """Return what is seen of a table without images."""
    none, unknown = np.zeros(0, np.int64), np.zeros(len(table), np.int32)
    return ImageEvidence(False, none, (), unknown, unknown, (), (), *[none] * 5)


def parts_of(table: Table) -> list[str]:
    """Return the parts of the table's split that hold images, in order."""
    return [part for part in SPLITS if (table.frame["split"] == part).any()]


def _without_split(table: Table) -> Notice | None:
    return None if len(parts_of(table)) > 1 else notice("no-split")


def _without_images(seen: ImageEvidence) -> Notice | None:
    return None if seen.looked else notice("no-image-there")


def patients_across(table: Table) -> Check:
    """Look for patients in more than one part."""
    parts = table.frame["split"].to_numpy(str)
    issues = [
        Issue(
            notice(
                "patient-across-splits",
                patient=str(table.frame["patient"].iloc[rows[0]]),
                splits={
                    part: int((parts[rows] == part).sum()) for part in SPLITS if (parts[rows] == part).any()
                },
            ),
            tuple(rows.tolist()),
        )
        for rows in across(pd.factorize(table.patient_keys)[0], parts)
    ]
    skipped = _without_split(table)
    if not skipped and table.num_patients == len(table):
        skipped = notice("one-image-a-patient")
    return Check(
        "patients-across-splits",
        LEAK,
        "Patients in more than one part of the split",
        "Films of one patient are alike whatever they show: a model that knows the patient from training does better "
        "on the test than it will on anybody else.",
        "Split again by patient (split.method = 'patient'), or leave out the rows in the earlier part "
        "(--without-leaks).",
        tuple(sorted(issues, key=lambda issue: -len(issue.rows))),
        skipped,
    )


def duplicate_images(table: Table, seen: ImageEvidence) -> tuple[Check, ...]:
    """Look for the same picture in several parts, patients or rows, and under different labels."""
    found = _Duplicates(table, seen).issues()
    how = (
        "Found are equal files, equal pixels, and pictures that were re-encoded, resized, turned by up to 5 degrees or "
        "mirrored; the similarity is the correlation of their structure after registration, 0.85 to 1."
    )
    no_images = _without_images(seen)
    no_split = no_images or _without_split(table)
    return (
        Check(
            "copies-across-splits",
            LEAK,
            "The same picture in more than one part of the split",
            f"The test holds pictures that the model was trained or tuned on. {how}",
            "Leave out the copies in the earlier part (--without-leaks).",
            found["parts"],
            no_split,
        ),
        Check(
            "copies-across-patients",
            FAULT,
            "The same picture under two patients",
            f"One is somebody else's film, or one person has two numbers: a split by patient can leak. {how}",
            "Find out whose film it is; leave out one of the two. Training keeps such patients in one part where their "
            "pixels are equal.",
            found["patients"],
            no_images,
        ),
        Check(
            "label-clashes",
            FAULT,
            "One picture with two labels",
            "The same picture is said to have a finding in one row and to lack it in another: at least one is wrong.",
            "Look at the picture and mend the label, or leave both rows out.",
            found["labels"],
            no_images,
        ),
        Check(
            "copies-within-a-patient",
            NOTE,
            "The same picture twice in one patient and part",
            f"It counts twice, in training and in every figure. {how}",
            "Leave out one of the two.",
            found["rows"],
            no_images,
        ),
    )


def single_images(table: Table, seen: ImageEvidence) -> tuple[Check, ...]:
    """Look for what is odd in a picture by itself."""
    names = table.frame["image"].to_numpy(object)
    skipped = _without_images(seen)
    unread = np.setdiff1d(np.arange(len(table)), seen.rows) if seen.looked else seen.rows

    def issues(rows: Rows, make: Callable[[list[str], int], Notice]) -> tuple[Issue, ...]:
        return tuple(Issue(make([names[row]], row), (row,)) for row in map(int, rows))

    reasons = dict(zip(unread.tolist(), seen.reasons, strict=True))
    white, black = (f"{share:.0%}" for share in (image_quality.WHITE_SHARE, image_quality.BLACK_SHARE))
    return (
        Check(
            "unreadable",
            FAULT,
            "Images that cannot be read",
            "They are left out of training and of every figure, and what is left may no longer be a fair sample.",
            "Get damaged files again; convert what is of a kind that is not read.",
            issues(
                unread, lambda images, row: notice("unreadable-image", images=images, reason=reasons[row])
            ),
            skipped,
        ),
        Check(
            "blank",
            FAULT,
            "Blank images",
            f"They span fewer than {image_quality.BLANK_RANGE} of 255 grey levels: nothing can be seen in them.",
            "Leave them out.",
            issues(seen.blank, lambda images, _: notice("blank-image", images=images)),
            skipped,
        ),
        Check(
            "few-bits",
            FAULT,
            "Images that use fewer bits than they declare",
            "Their brightest value is far below what the file allows, such as 12 bits in a file of 16: read as "
            "declared they are nearly black.",
            "Write them anew, with their values scaled to the file's whole range.",
            issues(seen.few_bits, lambda images, _: notice("few-bits-image", images=images)),
            skipped,
        ),
        Check(
            "inverted",
            FAULT,
            "Images that look inverted",
            "Bones are dark and air is bright, as in a negative: the correlation with a typical chest film is below "
            f"{image_quality.INVERTED}. About one negative in 200 is not noticed.",
            "Look at them; exchange black and white, or leave them out.",
            issues(seen.inverted, lambda images, _: notice("inverted-image", images=images)),
            skipped,
        ),
        Check(
            "saturated",
            NOTE,
            "Images that are white or black over a large share",
            f"More than {white} of the picture is white or more than {black} black: collimated, burnt out, or framed.",
            "Look at them; crop what is a frame.",
            issues(seen.saturated, lambda images, _: notice("saturated-image", images=images)),
            skipped,
        ),
        Check(
            "tiny",
            NOTE,
            "Tiny images",
            f"The shorter side is under {image_quality.SMALLEST_SIDE} pixels: too few for small findings, and the "
            "search for the same picture is less sure.",
            "Use the originals where there are any.",
            issues(
                seen.tiny,
                lambda images, row: notice(
                    "tiny-image", images=images, width=int(seen.width[row]), height=int(seen.height[row])
                ),
            ),
            skipped,
        ),
    )


def ages(table: Table) -> Check:
    """Look for ages that nobody has, those that a reader met included."""
    age = table.frame["age"].to_numpy()
    names = table.frame["image"].to_numpy(object)
    noted = [Issue(notice("ages-not-read", note=note)) for note in table.notes if " ages " in note]
    rows = np.flatnonzero(age > OLDEST)
    return Check(
        "impossible-ages",
        FAULT,
        "Impossible ages",
        f"Ages above {OLDEST:g} years, and what was not taken for an age when the table was made.",
        "Get the patients' ages again; until then they are best left unknown.",
        (
            *noted,
            *(
                Issue(notice("impossible-age", image=names[row], years=float(age[row])), (int(row),))
                for row in rows
            ),
        ),
        None if noted or not np.isnan(age).all() else notice("no-age-known"),
    )


def differences(table: Table, comparisons: Sequence[SplitComparison]) -> Check:
    """Look for views, sexes, ages and prevalences that differ between parts."""
    issues = [
        Issue(
            notice(
                "split-difference",
                name=comparison.name,
                splits={part: value.value for part, value in comparison.parts.items()},
            )
        )
        for comparison in comparisons
        if comparison.differing
    ]
    return Check(
        "split-differences",
        NOTE,
        "Views, sexes, ages and findings that differ between the parts",
        "Thresholds and calibration that are chosen on one part do not hold on another, and predictive values move "
        "with the prevalence. Told is what is certain (p < 0.001, by patient) and not negligible: 0.2 standard "
        "deviations of age, an odds ratio of 1.68.",
        "Split again, stratified, where the split is yours; else say it with the results.",
        tuple(issues),
        _without_split(table),
    )


def predictable(found: Sequence[Association]) -> Check:
    """Look for labels that can be told without looking at the picture."""
    issues = [
        Issue(
            notice(
                "predictable-label",
                finding=one.finding,
                factor=one.factor,
                auroc=one.value,
                low=one.low,
                high=one.high,
            )
        )
        for one in sorted(found, key=lambda one: -(one.value or 0))
        if one.predictable
    ]
    known = any(one.value is not None for one in found)
    return Check(
        "predictable-labels",
        NOTE,
        "Labels that the metadata predict",
        "A model can do as well by noticing the view, the age or the scanner, and will fail where these mean something "
        f"else. Told is where the AUROC's interval lies above {PREDICTABLE}; all are in the figure below.",
        "Hold the model's figures against these, and look at subgroups.",
        tuple(issues),
        None if known else notice("metadata-say-nothing"),
    )


class _Duplicates:
    """The groups of rows that hold the same picture."""

    def __init__(self, table: Table, seen: ImageEvidence) -> None:
        frame = table.frame
        self._names = frame["image"].to_numpy(object)
        self._values: Mapping[str, NDArray[np.object_]] = {
            "parts": frame["split"].to_numpy(object),
            "patients": table.patient_keys.astype(object),
        }
        self._findings, self._labels = table.findings, table.labels(table.findings)
        group = groups(seen.pairs, len(table))
        self._same_file = dict(zip(seen.pairs, seen.same_file, strict=True))
        self._pairs: dict[int, list[DuplicatePair]] = {}
        for pair in seen.pairs:
            self._pairs.setdefault(int(group[pair.first]), []).append(pair)

    def issues(self) -> dict[str, tuple[Issue, ...]]:
        """Return issues by what differs in a group: `parts`, else `patients`, else nothing (`rows`); and `labels`."""
        issues: dict[str, list[Issue]] = {"parts": [], "patients": [], "rows": [], "labels": []}
        for pairs in self._pairs.values():
            rows = sorted({row for pair in pairs for row in (pair.first, pair.second)})
            differing = (name for name, values in self._values.items() if len(set(values[rows]) - {""}) > 1)
            what = next(differing, "rows")
            values = self._values[what][rows] if what in self._values else np.zeros(len(rows))
            issues[what].append(self._issue(pairs, dict(zip(rows, values.tolist(), strict=True))))
            labels = self._labels[rows]
            clashing = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
            if clashing.any():
                first = np.nan_to_num(labels[:, np.argmax(clashing)], nan=-1)
                known = {row: value for row, value in zip(rows, first.tolist(), strict=True) if value >= 0}
                issues["labels"].append(
                    self._issue(pairs, known, np.array(self._findings)[clashing].tolist())
                )
        return {
            name: tuple(sorted(found, key=lambda issue: -(issue.similarity or 0)))
            for name, found in issues.items()
        }

    def _issue(
        self, pairs: Sequence[DuplicatePair], values: Mapping[int, object], clashing: Sequence[str] = ()
    ) -> Issue:
        """Tell of a group by two of its rows: two whose values differ where there are any, the most alike first.

        Args:
            pairs: The group's, the most alike first.
            values: By row: what may differ; other rows of the group are left out.
            clashing: Findings that the group's labels disagree about.
        """
        differ = [ends for ends in itertools.combinations(values, 2) if values[ends[0]] != values[ends[1]]]
        direct = {(pair.first, pair.second): pair for pair in pairs}
        ends = next((ends for ends in direct if ends in differ), None) or next(iter(differ or direct))
        pair = direct.get(ends)
        splits, owners = self._values["parts"], self._values["patients"]
        others = [row for row in values if row not in ends]
        duplicate = notice(
            "duplicate-image",
            images=[{"image": self._names[row], "split": splits[row]} for row in ends],
            relation=self._relation(pair),
            similarity=pair and pair.correlation,
            mirrored=bool(pair and pair.mirrored),
            degrees=pair.degrees if pair else 0.0,
            different_patients=bool(owners[ends[0]] != owners[ends[1]]),
            num_more=len(others),
            clashing=list(clashing),
        )
        return Issue(duplicate, (*ends, *others), min(pair.correlation for pair in pairs))

    def _relation(self, pair: DuplicatePair | None) -> str:
        if pair is None:
            return "indirect"
        if self._same_file[pair]:
            return "file"
        return "pixels" if pair.exact else "structure"
