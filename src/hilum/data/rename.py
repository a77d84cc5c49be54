"""A Table -> the same with other names of its findings; two that get one name become one."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hilum.data.table import COLUMNS, Table
from hilum.errors import UsageError, nearest
from hilum.recipe.findings import NO_FINDING, in_order, named


def rename(table: Table, names: Mapping[str, str]) -> Table:
    """Give findings other names.

    Args:
        table: Any.
        names: Old name -> new name. Several that get one name, or that of a finding that is there, become one finding:
            present where one of them is, absent where all are. A finding renamed to `No Finding` is no finding any
            more: where it was present, all others are absent if nothing else is known.

    Returns:
        The table, with its boxes; a note says what was renamed.

    Raises:
        UsageError: The table has no such finding, a new name is empty, or no finding would be left.
    """
    own = {finding.casefold(): finding for finding in table.findings}
    moved: dict[str, str] = {}
    for old, new in names.items():
        finding = own.get(named(old).casefold())
        if finding is None:
            raise UsageError(
                f"--rename {old}={new}: the table has no such finding; it has: {nearest(old, table.findings)}"
            )
        if not new.strip():
            raise UsageError(f"--rename {old}=: a new name is expected behind the =")
        moved[finding] = named(new)
    groups: dict[str, list[str]] = {}
    for finding in table.findings:
        groups.setdefault(moved.get(finding, finding), []).append(finding)
    normal = groups.pop(NO_FINDING, [])
    if not groups:
        raise UsageError(
            f"--rename: no finding is left beside {NO_FINDING}, which is the absence of the others"
        )
    findings = in_order(groups)
    values = {new: _joined(table.labels(olds).astype(np.float64)) for new, olds in groups.items()}
    nothing = (table.labels(normal) == 1).any(axis=1) if normal else np.zeros(len(table), dtype=bool)
    for new, present in values.items():
        values[new] = np.where(nothing & np.isnan(present), 0.0, present)
    frame = table.frame[list(COLUMNS)].assign(**{finding: values[finding] for finding in findings})
    boxes = (
        table.boxes.assign(finding=table.boxes["finding"].replace(moved)) if len(table.boxes) else table.boxes
    )
    sources = [
        replace(source, states_no_finding=source.states_no_finding or bool(normal))
        for source in table.sources
    ]
    note = "renamed: " + ", ".join(f"{old} to {new}" for old, new in moved.items())
    return Table(frame, findings, tuple(sources), boxes[boxes["finding"] != NO_FINDING], (*table.notes, note))


def _joined(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return whether any of the columns holds: 1 where one is present, 0 where all are absent, else NaN."""
    present, absent = (labels == 1).any(axis=1), (labels == 0).all(axis=1)
    return np.where(present, 1.0, np.where(absent, 0.0, np.nan))
