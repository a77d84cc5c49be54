"""What the library's functions return -> the same with a table, drawings and a look in a notebook."""

import html
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hilum.errors import UsageError, nearest
from hilum.report.drawing.style import Drawing
from hilum.report.section import RESEARCH_USE, Page

if TYPE_CHECKING:
    import pandas as pd

Value = TypeVar("Value")
Part = TypeVar("Part")


def _no_galleries(_value: object) -> Iterable[tuple[str, Any]]:
    """Return nothing: most reports have no drawing that their page lays out in another way."""
    return ()


@dataclass(frozen=True)
class Result(Generic[Value]):
    """An evaluation, a comparison, an exploration, an audit or a search.

    Attributes:
        value: The result itself, with every number.
    """

    value: Value
    _make_page: Callable[[Value], Page]
    _make_frame: Callable[[Value], "pd.DataFrame"]
    _write: Callable[[Path, Value], Path]
    _galleries: Callable[[Value], Iterable[tuple[str, Any]]] = _no_galleries

    @cached_property
    def page(self) -> Page:
        """The report as a list of sections."""
        return self._make_page(self.value)

    @cached_property
    def _drawings(self) -> dict[str, Drawing]:
        figures = {plot.name: plot.figure for plot in self.page.plots} | dict(self._galleries(self.value))
        return {name: Drawing(figure) for name, figure in figures.items()}

    @property
    def plots(self) -> tuple[str, ...]:
        """Names of the drawings that `plot` gives."""
        return tuple(self._drawings)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that `table` gives: their captions."""
        return tuple(grid.caption for grid in self.page.tables)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The sentences of the report's summary."""
        return self.page.remarks

    def to_frame(self) -> "pd.DataFrame":
        """Return the figures as a data frame."""
        return self._make_frame(self.value)

    def plot(self, name: str = "") -> Drawing:
        """Return a drawing of the report.

        Args:
            name: One of `plots`; empty for the first.

        Raises:
            UsageError: There is no such drawing.
        """
        return _chosen(name, self._drawings, "drawing")

    def table(self, caption: str = "") -> "pd.DataFrame":
        """Return a table of the report as text: figures with their intervals.

        Args:
            caption: One of `tables`; empty for the first.

        Raises:
            UsageError: There is no such table.
        """
        return _chosen(caption, {grid.caption: grid for grid in self.page.tables}, "table").to_frame()

    def write(self, folder: str | Path) -> Path:
        """Write the report into a folder, as the command does; return the path of its page."""
        return self._write(Path(folder), self.value)

    def _repr_html_(self) -> str:
        warnings = "".join(f"<li>{html.escape(warning)}</li>" for warning in self.page.warnings)
        return (
            f"<h3>{html.escape(self.page.heading)}</h3><p>{html.escape(self.page.lead)}</p>"
            f"<ul>{warnings}</ul>{self.to_frame().to_html(max_cols=12)}"
            f"<p><small>plots: {', '.join(self.plots)}. {RESEARCH_USE}</small></p>"
        )


def _chosen(name: str, known: Mapping[str, Part], what: str) -> Part:
    if not known:
        raise UsageError(f"the report has no {what}")
    if name and name not in known:
        raise UsageError(f"the report has no {what} {name!r}; it has: {nearest(name, known)}")
    return known[name or next(iter(known))]
