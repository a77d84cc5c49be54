"""Several tables -> one, with one vocabulary; what a source does not know is unknown there, save of normal films."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum.data.table import COLUMNS, Source, Table
from hilum.errors import DataError, UsageError
from hilum.recipe.findings import DEVICES, NO_FINDING, in_order


def merge(tables: Sequence[Table]) -> Table:
    """Join the rows of tables.

    Sources keep their roots, and patients of different sources are different. A source that is in two tables with the
    same name and root is one, as where parts of a data set were indexed apart: its patients are the same, and its
    images may not occur twice. A source of the same name with another root is another data set, and gets a number
    after its name.

    Where a source states that nothing was found (`Source.states_no_finding`), its images without a finding are without
    the other sources' findings as well, so that `No Finding` there is `No Finding` here. Support devices stay unknown.

    Args:
        tables: At least two.

    Returns:
        All rows in the order of the tables; findings are those of all tables in the vocabulary's order, NaN where a
        row's table does not know one and the row is no normal film. The notes tell which, and name the source of the
        tables' own notes.

    Raises:
        UsageError: Fewer than two tables.
        DataError: An image of one source is in two tables, or a boxed image has the same path in two sources.
    """
    if len(tables) < 2:
        raise UsageError(f"{len(tables)} table arrived; merging takes two or more")
    sources: dict[str, Source] = {}
    renamed: list[Table] = []
    notes: list[str] = []
    for table in tables:
        names = {}
        for source in table.sources:
            names[source.name], kept = _placed(source, tuple(sources.values()))
            if kept.name != source.name:
                notes.append(
                    f"{source.root}: source {source.name!r} is called {kept.name!r}: another data set has its name"
                )
            # One source from two tables states of all its rows only what both state.
            both = kept.states_no_finding and source.states_no_finding
            sources[kept.name] = replace(kept, states_no_finding=both)
        told = " and ".join(dict.fromkeys(names.values()))
        notes += [f"{told}: {note}" for note in table.notes]
        renamed.append(_named(table, names))
    findings = in_order(name for table in tables for name in table.findings)
    frames = []
    for table in renamed:
        unknown = [name for name in findings if name not in table.findings]
        frame = table.frame.reindex(columns=[*COLUMNS, *findings])
        normal = _normal(table)
        frame.loc[normal, [name for name in unknown if name != DEVICES]] = 0.0
        frames.append(frame)
        if unknown:
            told = " and ".join(source.name for source in table.sources)
            but = f", but absent from its {int(normal.sum()):,} images of No Finding" if normal.any() else ""
            notes.append(f"{told} knows nothing of {', '.join(unknown)}: unknown there{but}")
    frame = pd.concat(frames, ignore_index=True)
    frame = frame.astype(dict.fromkeys(findings, np.float64))
    _refuse_twice(frame)
    boxed = [table.boxes for table in renamed if len(table.boxes)]
    return Table(
        frame=frame,
        findings=findings,
        sources=tuple(sources.values()),
        boxes=pd.concat(boxed, ignore_index=True) if boxed else tables[0].boxes,
        notes=tuple(dict.fromkeys(notes)),
    )


def _placed(source: Source, there: Sequence[Source]) -> tuple[str, Source]:
    """Return what a source is called beside those that are there, and itself under this name."""
    number, name = 1, source.name
    while taken := next((other for other in there if other.name == name), None):
        if taken.root == source.root:
            return name, taken
        number += 1
        name = f"{source.name}-{number}"
    return name, replace(source, name=name)


def _normal(table: Table) -> NDArray[np.bool_]:
    """Tell in which rows (bool) a source states that nothing was found."""
    stating = [source.name for source in table.sources if source.states_no_finding]
    return np.asarray(table.frame["source"].isin(stating) & (table.labels([NO_FINDING])[:, 0] == 1))


def _named(table: Table, names: dict[str, str]) -> Table:
    if all(old == new for old, new in names.items()):
        return table
    frame = table.frame.assign(source=table.frame["source"].map(names).astype(str))
    sources = tuple(replace(source, name=names[source.name]) for source in table.sources)
    return replace(table, frame=frame, sources=sources)


def _refuse_twice(frame: pd.DataFrame) -> None:
    twice = frame.duplicated(["source", "image"])
    if twice.any():
        source = frame["source"][twice].iloc[0]
        raise DataError(
            f"{int(twice.sum()):,} images of {source!r} are in two of the tables; give each image in one table only, "
            "or relabel one table by the other with `hilum data relabel`"
        )
