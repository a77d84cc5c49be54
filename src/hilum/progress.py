"""How long work reports its progress: stages with a count, which the command line draws as bars."""

from collections.abc import Callable
from typing import Protocol


class Watcher(Protocol):
    """Whoever watches long work.

    - `stage` begins a new stage and ends the one before.
    - `advance` says how much of the stage is done, with a note such as the loss.
    - `finish` ends the stage with a line that stays.
    """

    def stage(self, title: str, total: int | None = None) -> None:
        """Begin a stage of `total` steps, None if unknown."""
        ...

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        """Report that `done` steps of the stage are done."""
        ...

    def finish(self, line: str = "") -> None:
        """End the stage."""
        ...


class Silent:
    """A Watcher that shows nothing."""

    def stage(self, title: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        """Do nothing."""

    def finish(self, line: str = "") -> None:
        """Do nothing."""


class Lines:
    """A Watcher that passes on only the lines that stay, for notebooks and logs: `Lines(print)`."""

    def __init__(self, say: Callable[[str], object]) -> None:
        """Take the function that is called with each line."""
        self._say = say

    def stage(self, title: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        """Do nothing."""

    def finish(self, line: str = "") -> None:
        """Pass the line on, if there is one."""
        if line:
            self._say(line)


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 image`, `5,000 images`, `2 classes`."""
    plural = noun + ("es" if noun.endswith(("s", "x")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"
