"""A table and the findings of a model -> the table in the model's words, and what was read from what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hilum.data.table import Table
from hilum.errors import UsageError
from hilum.recipe.findings import NO_FINDING, PARTS, same


@dataclass(frozen=True)
class Mapped:
    """A table whose columns answer for a model's findings.

    Attributes:
        table: With a column for each of `findings`.
        findings: Those of the model that the table knows, in the model's order.
        origins: Finding -> the columns of the table that it was read from, where they are not itself.
        missing: Findings of the model that the table does not know.
    """

    table: Table
    findings: tuple[str, ...]
    origins: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read from what, and what was left out, a sentence each."""
        notes = [f"{finding} is read from {' and '.join(read)}" for finding, read in self.origins.items()]
        if self.missing:
            known = ", ".join(self.table.findings)
            notes.append(
                f"not known to this data set, and left out: {', '.join(self.missing)} (it knows {known})"
            )
        return tuple(notes)


def map_findings(table: Table, findings: Sequence[str], *, all_needed: bool = False) -> Mapped:
    """Find a model's findings in a table.

    A finding is its own column, or one whose name differs in letter case only, or it is made up of others
    (`findings.PARTS`) that the table knows all of: present where one is, absent where all are, else unknown.

    Args:
        table: Of any data set.
        findings: The model's.
        all_needed: Whether the model cannot be scored without one of them, as with classes.

    Raises:
        UsageError: No finding is common, or one is missing that is needed.
    """
    origins: dict[str, tuple[str, ...]] = {}
    missing = []
    frame, names = table.frame, list(table.findings)
    for finding in findings:
        if finding in names or finding == NO_FINDING:
            continue
        parts = PARTS.get(finding, ())
        if alias := next((name for name in table.findings if same(name, finding)), None):
            origins[finding] = (alias,)
            frame = frame.assign(**{finding: frame[alias]})
        elif parts and set(parts) <= set(table.findings):
            origins[finding] = parts
            values = frame[list(parts)].to_numpy()
            absent = np.where((values == 0).all(axis=1), 0.0, np.nan)
            frame = frame.assign(**{finding: np.where((values == 1).any(axis=1), 1.0, absent)})
        else:
            missing.append(finding)
            continue
        names.append(finding)
    common = tuple(finding for finding in findings if finding not in missing)
    if not set(common) - {NO_FINDING} or (all_needed and missing):
        raise UsageError(_refusal(table, findings, missing, all_needed=all_needed and len(common) > 0))
    return Mapped(replace(table, frame=frame, findings=tuple(names)), common, origins, tuple(missing))


def _refusal(table: Table, findings: Sequence[str], missing: Sequence[str], *, all_needed: bool) -> str:
    sources = " and ".join(source.name for source in table.sources)
    what = f"{sources} lacks {', '.join(missing)}" if all_needed else "no finding is common"
    return (
        f"{what}: the model knows {', '.join(findings)}; {sources} knows {', '.join(table.findings) or 'none'}. "
        "Where a column means the same under another name, give it the model's name in the CSV file and index it again"
    )
