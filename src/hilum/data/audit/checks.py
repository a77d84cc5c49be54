"""What was seen and counted -> the checks of an audit, each with its words."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum.data.audit import image_quality
from hilum.data.audit.association import PREDICTABLE, Association
from hilum.data.audit.duplicates import DuplicatePair, groups
from hilum.data.audit.leakage import SplitComparison, across
from hilum.data.audit.result import FAULT, LEAK, NOTE, AuditCase, Check
from hilum.data.table import SPLITS, Table

Rows = NDArray[np.int64]

OLDEST = 110.0
"""Years; who is said to be older is an error of entry."""

NO_SPLIT = "the table has no split"
NO_IMAGES = "no image is where the table says"


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
    saturated: Rows
    inverted: Rows
    tiny: Rows

    @property
    def num_read(self) -> int:
        """How many images could be read."""
        return len(self.rows)


def unseen(table: Table) -> ImageEvidence:
    """What is seen of a table without images."""
    none, unknown = np.zeros(0, np.int64), np.zeros(len(table), np.int32)
    return ImageEvidence(False, none, (), unknown, unknown, (), (), none, none, none, none)


def parts_of(table: Table) -> list[str]:
    """The parts of the table's split that hold images, in order."""
    return [part for part in SPLITS if (table.frame["split"] == part).any()]


def patients_across(table: Table) -> Check:
    """Patients in more than one part."""
    parts = table.frame["split"].to_numpy(str)
    cases = [
        AuditCase(
            f"patient {table.frame['patient'].iloc[rows[0]]}: {_counted(parts[rows])}", tuple(rows.tolist())
        )
        for rows in across(pd.factorize(table.patient_keys)[0], parts)
    ]
    skipped = "" if len(parts_of(table)) > 1 else NO_SPLIT
    if not skipped and table.num_patients == len(table):
        skipped = (
            "each image is its own patient here; where that is for want of knowledge, nothing can be said"
        )
    return Check(
        "patients-across-splits",
        LEAK,
        "Patients in more than one part of the split",
        "Films of one patient are alike whatever they show: a model that knows the patient from training does better "
        "on the test than it will on anybody else.",
        "Split again by patient (split.method = 'patient'), or leave out the rows in the earlier part "
        "(--without-leaks).",
        tuple(sorted(cases, key=lambda case: -len(case.rows))),
        skipped,
    )


def same_pictures(table: Table, seen: ImageEvidence) -> tuple[Check, ...]:
    """The same picture in several parts, patients or rows, and under different labels."""
    look = _Copies(table, seen)
    found = look.cases()
    how = (
        "Found are equal files, equal pixels, and pictures that were re-encoded, resized, turned by up to 5 degrees or "
        "mirrored; the similarity is the correlation of their structure after registration, 0.85 to 1."
    )
    no_images = "" if seen.looked else NO_IMAGES
    no_split = no_images or ("" if len(parts_of(table)) > 1 else NO_SPLIT)
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


def single_pictures(table: Table, seen: ImageEvidence) -> tuple[Check, ...]:
    """What is odd in a picture by itself."""
    names = table.frame["image"].to_numpy(object)
    skipped = "" if seen.looked else NO_IMAGES
    unread = np.setdiff1d(np.arange(len(table)), seen.rows) if seen.looked else seen.rows

    def cases(rows: Iterable[int], brief: Callable[[int], str] = lambda _: "") -> tuple[AuditCase, ...]:
        found = ((row, brief(row)) for row in map(int, rows))
        return tuple(
            AuditCase(": ".join(filter(None, (names[row], why))), (row,), brief=why) for row, why in found
        )

    reasons = dict(zip(unread.tolist(), seen.reasons, strict=True))
    white, black = (f"{share:.0%}" for share in (image_quality.WHITE_SHARE, image_quality.BLACK_SHARE))
    return (
        Check(
            "unreadable",
            FAULT,
            "Images that cannot be read",
            "They are left out of training and of every figure, and what is left may no longer be a fair sample.",
            "Get the files again.",
            cases(unread, reasons.__getitem__),
            skipped,
        ),
        Check(
            "blank",
            FAULT,
            "Blank images",
            f"They span fewer than {image_quality.BLANK_RANGE} of 255 grey levels: nothing can be seen in them.",
            "Leave them out.",
            cases(seen.blank),
            skipped,
        ),
        Check(
            "inverted",
            FAULT,
            "Images that look inverted",
            "Bones are dark and air is bright, as in a negative: the correlation with a typical chest film is below "
            f"{image_quality.INVERTED}. About one negative in 200 is not noticed.",
            "Look at them; exchange black and white, or leave them out.",
            cases(seen.inverted),
            skipped,
        ),
        Check(
            "saturated",
            NOTE,
            "Images that are white or black over a large share",
            f"More than {white} of the picture is white or more than {black} black: collimated, burnt out, or framed.",
            "Look at them; crop what is a frame.",
            cases(seen.saturated),
            skipped,
        ),
        Check(
            "tiny",
            NOTE,
            "Tiny images",
            f"The shorter side is under {image_quality.SMALLEST_SIDE} pixels: too few for small findings, and the "
            "search for the same picture is less sure.",
            "Use the originals where there are any.",
            cases(seen.tiny, lambda row: f"{seen.width[row]} x {seen.height[row]} pixels"),
            skipped,
        ),
    )


def ages(table: Table) -> Check:
    """Ages that nobody has, those that a reader met included."""
    age = table.frame["age"].to_numpy()
    names = table.frame["image"].to_numpy(object)
    noted = [AuditCase(note) for note in table.notes if " ages " in note]
    rows = np.flatnonzero(age > OLDEST)
    return Check(
        "impossible-ages",
        FAULT,
        "Impossible ages",
        f"Ages above {OLDEST:g} years, and what was not taken for an age when the table was made.",
        "Get the patients' ages again; until then they are best left unknown.",
        (*noted, *(AuditCase(f"{names[row]}: {age[row]:g} years", (int(row),)) for row in rows)),
        "" if noted or not np.isnan(age).all() else "no age is known",
    )


def differences(table: Table, comparisons: Sequence[SplitComparison]) -> Check:
    """Views, sexes, ages and prevalences that differ between parts."""
    cases = []
    for one in comparisons:
        if one.differing:
            values = (
                f"{part} {value.value:.1f} years" if one.name == "age" else f"{part} {value.value:.1%}"
                for part, value in one.parts.items()
            )
            cases.append(AuditCase(f"{one.name}: {', '.join(values)}"))
    return Check(
        "split-differences",
        NOTE,
        "Views, sexes, ages and findings that differ between the parts",
        "Thresholds and calibration that are chosen on one part do not hold on another, and predictive values move "
        "with the prevalence. Told is what is certain (p < 0.001, by patient) and not negligible: 0.2 standard "
        "deviations of age, an odds ratio of 1.68.",
        "Split again, stratified, where the split is yours; else say it with the results.",
        tuple(cases),
        "" if len(parts_of(table)) > 1 else NO_SPLIT,
    )


def predictable(found: Sequence[Association]) -> Check:
    """Labels that can be told without looking at the picture."""
    cases = [
        AuditCase(f"{one.finding} from {_factor(one)}: AUROC {one.value:.3f}{_interval(one)}")
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
        tuple(cases),
        "" if known else "no metadata vary, or there are too few patients",
    )


class _Copies:
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

    def cases(self) -> dict[str, tuple[AuditCase, ...]]:
        """By what differs in a group: `parts`, else `patients`, else nothing (`rows`); and `labels` besides."""
        found: dict[str, list[AuditCase]] = {"parts": [], "patients": [], "rows": [], "labels": []}
        for pairs in self._pairs.values():
            rows = sorted({row for pair in pairs for row in (pair.first, pair.second)})
            differing = (name for name, values in self._values.items() if len(set(values[rows]) - {""}) > 1)
            what = next(differing, "rows")
            values = self._values[what][rows] if what in self._values else np.zeros(len(rows))
            found[what].append(self._case(pairs, dict(zip(rows, values.tolist(), strict=True))))
            labels = self._labels[rows]
            clashing = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
            if clashing.any():
                told = np.nan_to_num(labels[:, np.argmax(clashing)], nan=-1)
                of = {row: value for row, value in zip(rows, told.tolist(), strict=True) if value >= 0}
                names = ", ".join(np.array(self._findings)[clashing])
                found["labels"].append(self._case(pairs, of, f"{names}: "))
        return {
            name: tuple(sorted(cases, key=lambda case: -(case.similarity or 0)))
            for name, cases in found.items()
        }

    def _case(self, pairs: Sequence[DuplicatePair], of: Mapping[int, object], prefix: str = "") -> AuditCase:
        """Words a group by two of its rows: two whose values differ where there are any, the most alike first.

        Args:
            pairs: The group's, the most alike first.
            of: The rows to be told of, with their values.
            prefix: What comes before.
        """
        differ = [ends for ends in itertools.combinations(of, 2) if of[ends[0]] != of[ends[1]]]
        direct = {(pair.first, pair.second): pair for pair in pairs}
        ends = next((ends for ends in direct if ends in differ), None) or next(iter(differ or direct))
        how = self._how(direct[ends]) if ends in direct else "the same picture by way of others"
        parts, owners = self._values["parts"], self._values["patients"]
        names = " and ".join(f"{self._names[row]}{f' ({parts[row]})' if parts[row] else ''}" for row in ends)
        others = [row for row in of if row not in ends]
        more = f", and {len(others):,} more" if others else ""
        owner = "" if owners[ends[0]] == owners[ends[1]] else ", of different patients"
        brief = f"{prefix}{how}{owner}{more}"
        similarity = min(pair.correlation for pair in pairs)
        return AuditCase(f"{prefix}{names}{more}: {how}{owner}", (*ends, *others), similarity, brief)

    def _how(self, pair: DuplicatePair) -> str:
        if self._same_file[pair]:
            return "the same file"
        if pair.exact:
            return "the same pixels"
        changes = ["mirrored"] if pair.mirrored else []
        changes += [f"turned by {pair.degrees:.1f} degrees"] if pair.degrees >= 0.5 else []
        return ", ".join([f"the same picture, similarity {pair.correlation:.3f}", *changes])


def _factor(one: Association) -> str:
    return "view, age, sex and image size together" if "together" in one.factor else f"the {one.factor} alone"


def _interval(one: Association) -> str:
    return "" if one.low is None else f" ({one.low:.3f} to {one.high:.3f})"


def _counted(parts: NDArray[np.str_]) -> str:
    return ", ".join(f"{int((parts == part).sum()):,} in {part}" for part in SPLITS if (parts == part).any())
