"""Where the time of training goes: seconds by part."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

PARTS = ("features", "loader", "forward", "backward", "optimizer", "validation")


class Stopwatch:
    """Adds up the seconds of named parts; what no part covers is `rest`."""

    def __init__(
        self, synchronise: Callable[[], None] | None = None, *, parts: Sequence[str] = PARTS
    ) -> None:
        """Starts.

        Args:
            synchronise: Waits for the device, called at the end of each part; None where nothing runs behind
                Python's back, or where nobody asked for a profile.
            parts: Their names, in the order in which they are told.
        """
        self._parts = parts
        self._synchronise = synchronise
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the seconds inside for a part."""
        started = time.perf_counter()
        yield
        if self._synchronise is not None:
            self._synchronise()
        self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Counts seconds for a part."""
        self._seconds[name] += seconds

    def seconds(self) -> dict[str, float]:
        """Part -> seconds since the start."""
        known = {name: self._seconds[name] for name in self._parts}
        return {**known, "rest": time.perf_counter() - self._started - sum(known.values())}
