"""What the library's functions return -> the same with a table, drawings and a look in a notebook."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from hilum.errors import UsageError, nearest
from hilum.report.drawing.style import Drawing
from hilum.report.section import RESEARCH_USE, Page

if TYPE_CHECKING:
    import pandas as pd

Value = TypeVar("Value")


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

    @cached_property
    def page(self) -> Page:
        """The report as a list of sections."""
        return self._make_page(self.value)

    @property
    def plots(self) -> tuple[str, ...]:
        """Names of the drawings that `plot` gives."""
        return tuple(plot.name for plot in self.page.plots)

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
        known = {plot.name: plot for plot in self.page.plots}
        if not known:
            raise UsageError("the report has no drawing")
        if name and name not in known:
            raise UsageError(f"the report has no drawing {name!r}; it has: {nearest(name, known)}")
        return Drawing(known[name or next(iter(known))].figure)

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
