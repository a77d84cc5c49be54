"""What an audit found: cases of checks, and the whole; no work is done here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hilum.data.audit.association import Association
from hilum.data.audit.leakage import SplitComparison
from hilum.data.table import Table
from hilum.progress import count

FORMAT = 1
"""Number of the form of `audit.json`."""

LEAK, FAULT, NOTE = SEVERITIES = ("leak", "fault", "note")


@dataclass(frozen=True)
class AuditCase:
    """One thing that a check found.

    Attributes:
        words: What it is, in a line.
        rows: The table's rows that it is about, those to look at first; may be none.
        similarity: Of the same pictures: the correlation of their structure, at most 1; else None.
        brief: What `words` say besides the names of the first rows' images.
    """

    words: str
    rows: tuple[int, ...] = ()
    similarity: float | None = None
    brief: str = ""


@dataclass(frozen=True)
class Check:
    """One check and what it found.

    Attributes:
        name: For machines and anchors, such as `patients-across-splits`.
        severity: One of `SEVERITIES`: a leak makes results on a split worthless, a fault is wrong in the data, a note
            is to be known.
        title: What is looked for.
        meaning: Why it matters and how it was looked for.
        mend: What to do about it.
        cases: What was found, the worst first.
        skipped: Why it could not be looked for; empty where it was.
    """

    name: str
    severity: str
    title: str
    meaning: str
    mend: str
    cases: tuple[AuditCase, ...] = ()
    skipped: str = ""


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found in a table.

    Attributes:
        table: The table.
        checks: All checks, those of the gravest severity first.
        comparisons: How the parts of the split compare; empty without a split.
        associations: How well metadata predict the labels.
        num_read: Images that could be read; 0 where none was looked at.
        notes: The table's own notes, and what the audit could not know.
    """

    table: Table
    checks: tuple[Check, ...]
    comparisons: tuple[SplitComparison, ...]
    associations: tuple[Association, ...]
    num_read: int
    notes: tuple[str, ...]

    @property
    def leaks(self) -> bool:
        """Whether something stands in more than one part of the split."""
        return any(check.severity == LEAK and check.cases for check in self.checks)

    @property
    def verdict(self) -> str:
        """Whether the split leaks, in a sentence."""
        unknown = [check for check in self.checks if check.severity == LEAK and check.skipped]
        if self.leaks:
            number = severities(self.checks)[LEAK]
            return f"The split leaks: {count(number, 'case')}."
        if len(unknown) == sum(check.severity == LEAK for check in self.checks):
            return f"Whether a split leaks was not looked for: {unknown[0].skipped}."
        if unknown:
            return f"No leak was found, but not all was looked for: {unknown[0].skipped}."
        return "No leak was found."

    def without_leaks(self) -> Table:
        """Returns the table without what leaks.

        Of a patient or picture in several parts the rows in test stay, without test those in val.
        """
        ranks = self.table.frame["split"].map({"": -1, "train": 0, "val": 1, "test": 2}).to_numpy()
        keep = ranks >= -1
        for case in (case for check in self.checks if check.severity == LEAK for case in check.cases):
            rows = list(case.rows)
            keep[rows] &= (ranks[rows] == ranks[rows].max()) | (ranks[rows] < 0)
        left_out = int((~keep).sum())
        table = self.table.select(keep)
        note = f"{left_out:,} images were left out whose patient or picture is in a later part of the split"
        return (
            Table(table.frame, table.findings, table.sources, table.boxes, (*table.notes, note))
            if left_out
            else table
        )

    def summary(self) -> pd.DataFrame:
        """Returns a row a check, of text: kind, found (how many; empty where it was not looked for), what, and why."""
        rows = [
            (
                check.severity,
                "" if check.skipped else f"{len(check.cases):,}",
                check.title,
                check.skipped or (check.cases[0].words if check.cases else ""),
            )
            for check in self.checks
        ]
        return pd.DataFrame(rows, columns=["kind", "found", "what", "first, or why it was not looked for"])

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `audit.json`."""
        frame = self.table.frame
        return {
            "format": FORMAT,
            "leaks": self.leaks,
            "sources": [source.name for source in self.table.sources],
            "images": len(self.table),
            "read": self.num_read,
            "patients": self.table.num_patients,
            "split": {name or "none": int(count) for name, count in frame["split"].value_counts().items()},
            "checks": [self._check(check) for check in self.checks],
            "comparisons": [
                {
                    "name": one.name,
                    "differing": list(one.differing or ()),
                    "parts": {
                        part: {"value": value.value, "error": _finite(value.error), "images": value.count}
                        for part, value in one.parts.items()
                    },
                }
                for one in self.comparisons
            ],
            "associations": [
                {
                    "finding": one.finding,
                    "factor": one.factor,
                    "positives": one.positives,
                    "auroc": {"value": one.value, "low": one.low, "high": one.high},
                    **({"reason": one.reason} if one.reason else {}),
                }
                for one in self.associations
            ],
            "notes": list(self.notes),
        }

    def _check(self, check: Check) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": check.name, "severity": check.severity, "title": check.title}
        if check.skipped:
            return {**entry, "count": None, "reason": check.skipped}
        return {**entry, "count": len(check.cases), "cases": [self._case(case) for case in check.cases]}

    def _case(self, case: AuditCase) -> dict[str, Any]:
        columns = ("image", "source", "patient", "split")
        rows = self.table.frame[list(columns)].iloc[list(case.rows)].to_numpy(object).tolist()
        entry = {"words": case.words, "images": [dict(zip(columns, row, strict=True)) for row in rows]}
        return entry if case.similarity is None else {**entry, "similarity": round(case.similarity, 4)}


def severities(checks: Sequence[Check]) -> dict[str, int]:
    """Counts the cases of each severity."""
    return {
        severity: sum(len(check.cases) for check in checks if check.severity == severity)
        for severity in SEVERITIES
    }


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if value == value else None
