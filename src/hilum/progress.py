"""How long work tells of itself: stages with a count; the command line draws them, a library user may not care."""

from collections.abc import Callable
from typing import Protocol


class Watcher(Protocol):
    """Whoever watches.

    - `stage` begins a new stage and ends the one before.
    - `advance` says how much of the stage is done, with a note such as the loss.
    - `finish` ends the stage with a line that stays.
    """

    def stage(self, title: str, total: int | None = None) -> None:
        """Begins a stage of `total` steps, None if unknown."""
        ...

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        """Says that `done` steps of the stage are done."""
        ...

    def finish(self, line: str = "") -> None:
        """Ends the stage."""
        ...


class Silent:
    """Watches without a word."""

    def stage(self, title: str, total: int | None = None) -> None:
        """Does nothing."""

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        """Does nothing."""

    def finish(self, line: str = "") -> None:
        """Does nothing."""


class Lines:
    """Tells only the lines that stay, for notebooks and logs: `Lines(print)`."""

    def __init__(self, say: Callable[[str], object]) -> None:
        """Watches; `say` is called with each line."""
        self._say = say

    def stage(self, title: str, total: int | None = None) -> None:
        """Does nothing."""

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        """Does nothing."""

    def finish(self, line: str = "") -> None:
        """Says the line, if there is one."""
        if line:
            self._say(line)


def count(number: int, noun: str) -> str:
    """Writes `1 image`, `5,000 images`, `2 classes`."""
    plural = noun + ("es" if noun.endswith(("s", "x")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"
