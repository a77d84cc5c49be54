"""The result of an audit: the issues of its checks, and the whole; no work is done here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from hilum.data.audit.association import Association
from hilum.data.audit.leakage import SplitComparison
from hilum.data.table import Table
from hilum.notices import Notice, notice

FORMAT = 1
"""Number of the form of `audit.json`."""

LEAK, FAULT, NOTE = SEVERITIES = ("leak", "fault", "note")


@dataclass(frozen=True)
class Issue:
    """One thing that a check came upon.

    Attributes:
        notice: What it is.
        rows: The table's rows that it is about, those to look at first; may be none.
        similarity: Of duplicate images: the correlation of their structure, at most 1; else None.
    """

    notice: Notice
    rows: tuple[int, ...] = ()
    similarity: float | None = None

    @property
    def brief(self) -> str:
        """The notice's text without the names of the images; empty where it says no more than these."""
        values = dict(self.notice.values)
        return replace(self.notice, values=values | {"images": ()}).text if "images" in values else ""


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
        issues: What the check came upon, the worst first.
        skipped: Why it could not be looked for; None where it was.
    """

    name: str
    severity: str
    title: str
    meaning: str
    mend: str
    issues: tuple[Issue, ...] = ()
    skipped: Notice | None = None


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
        return any(check.severity == LEAK and check.issues for check in self.checks)

    @property
    def verdict(self) -> Notice:
        """Whether the split leaks."""
        checks = [check for check in self.checks if check.severity == LEAK]
        skipped = [check.skipped for check in checks if check.skipped]
        if self.leaks:
            return notice("split-leaks", cases=severities(checks)[LEAK])
        if not skipped:
            return notice("no-leak")
        if len(skipped) == len(checks):
            return notice("leaks-not-looked-for", reason=skipped[0].text)
        return notice("leaks-looked-for-in-part", reason=skipped[0].text)

    def without_leaks(self) -> Table:
        """Return the table without what leaks.

        Of a patient or picture in several parts the rows in test stay, without test those in val.
        """
        ranks = self.table.frame["split"].map({"": -1, "train": 0, "val": 1, "test": 2}).to_numpy()
        keep = ranks >= -1
        for issue in (issue for check in self.checks if check.severity == LEAK for issue in check.issues):
            rows = list(issue.rows)
            keep[rows] &= (ranks[rows] == ranks[rows].max()) | (ranks[rows] < 0)
        if keep.all():
            return self.table
        left_out = notice("leaks-left-out", images=int((~keep).sum()))
        table = self.table.select(keep)
        return replace(table, notes=(*table.notes, left_out.text))

    def summary(self) -> pd.DataFrame:
        """Return a row a check, of text: kind, found (how many; empty where it was not looked for), what, and why."""
        rows = [
            (
                check.severity,
                "" if check.skipped else f"{len(check.issues):,}",
                check.title,
                str(check.skipped or (check.issues[0].notice if check.issues else "")),
            )
            for check in self.checks
        ]
        return pd.DataFrame(rows, columns=["kind", "found", "what", "first, or why it was not looked for"])

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `audit.json`."""
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
                    **({"reason": one.reason.text, "reason_code": one.reason.code} if one.reason else {}),
                }
                for one in self.associations
            ],
            "notes": list(self.notes),
        }

    def _check(self, check: Check) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": check.name, "severity": check.severity, "title": check.title}
        if check.skipped:
            return {**entry, "count": None, "reason": check.skipped.text, "reason_code": check.skipped.code}
        return {**entry, "count": len(check.issues), "cases": [self._issue(issue) for issue in check.issues]}

    def _issue(self, issue: Issue) -> dict[str, Any]:
        columns = ("image", "source", "patient", "split")
        rows = self.table.frame[list(columns)].iloc[list(issue.rows)].to_numpy(object).tolist()
        entry = {
            "words": issue.notice.text,
            "code": issue.notice.code,
            "images": [dict(zip(columns, row, strict=True)) for row in rows],
        }
        return entry if issue.similarity is None else {**entry, "similarity": round(issue.similarity, 4)}


def severities(checks: Sequence[Check]) -> dict[str, int]:
    """Count the issues of each severity."""
    return {
        severity: sum(len(check.issues) for check in checks if check.severity == severity)
        for severity in SEVERITIES
    }


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if value == value else None
