"""What the command line shows: one line a stage, a progress bar where there is a terminal, a short table at the end."""

import atexit
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

WIDE = 240  # columns at most, where a file or a pipe reads along and COLUMNS does not say how wide it is
UNBOUNDED = 10_000
RESEARCH = "Research use only: not a medical device."


class Terminal:
    """A Watcher on standard error: bars on a terminal, else only the lines that stay."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def stage(self, title: str, total: int | None = None) -> None:
        """Begin a stage."""
        self._end()
        if not self.console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
        )
        self._progress.start()
        atexit.register(self._progress.stop)  # whatever ends the command: else the terminal keeps no cursor
        self._task = self._progress.add_task(title, total=total, note="")

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        """Move the bar."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total, note=note)

    def finish(self, line: str = "") -> None:
        """End the stage with a line that stays."""
        self._end()
        if line:
            self.say(line)

    def say(self, line: str) -> None:
        """Print a line to standard error."""
        self.console.print(line, markup=False)

    def _end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None


def show(
    rows: Sequence[Sequence[str]],
    *,
    header: Sequence[str],
    right: Sequence[int] = (),
    spare: Sequence[int] = (),
) -> None:
    """Print a table to standard output.

    Args:
        rows: Cells.
        header: One a column.
        right: Columns to align right.
        spare: Columns to leave out, the first first, until the rest fits on the terminal.
    """
    told = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    console = Console(highlight=False, markup=False, width=None if told else WIDE)
    kept = list(range(len(header)))
    for number in spare:
        if _width(console, _table(rows, header, right, kept)) <= console.width:
            break
        kept.remove(number)
    with console.capture() as drawn:
        console.print(_table(rows, header, right, kept))
    for line in drawn.get().splitlines():  # which are filled up to the table's width
        sys.stdout.write(f"{line.rstrip()}\n")
    if len(kept) < len(header):
        missing = ", ".join(name for number, name in enumerate(header) if number not in kept)
        Terminal().say(f"left out for want of room: {missing}")


def _table(
    rows: Sequence[Sequence[str]], header: Sequence[str], right: Sequence[int], kept: Sequence[int]
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number in kept:
        justify: Literal["left", "right"] = "right" if number in right else "left"
        table.add_column(header[number], justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(row[number] for number in kept))
    return table


def _width(console: Console, table: Table) -> int:
    """Return how many columns a table takes where no cell is folded."""
    return Measurement.get(console, console.options.update_width(UNBOUNDED), table).maximum


def show_pairs(pairs: Mapping[str, str]) -> None:
    """Print names and values to standard output, one pair a line."""
    width = max(map(len, pairs))
    for name, value in pairs.items():
        sys.stdout.write(f"{name:<{width}}  {value}\n")


def show_json(value: Any) -> None:
    """Print JSON to standard output."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
