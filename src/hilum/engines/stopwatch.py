"""Where the time of training goes: seconds by part."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

PARTS = ("loader", "forward", "backward", "optimizer", "validation", "rest")


class Stopwatch:
    """Adds up the seconds of named parts; what no part covers is `rest`."""

    def __init__(self, synchronise: Callable[[], None] | None = None) -> None:
        """Starts.

        Args:
            synchronise: Waits for the device, called at the end of each part; None where nothing runs behind
                Python's back, or where nobody asked for a profile.
        """
        self._synchronise = synchronise
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the seconds inside for a part."""
        started = time.perf_counter()
        yield
        if self._synchronise is not None:
            self._synchronise()
        self._seconds[name] += time.perf_counter() - started

    def seconds(self) -> dict[str, float]:
        """Part -> seconds since the start."""
        known = {name: self._seconds[name] for name in PARTS[:-1]}
        return {**known, "rest": time.perf_counter() - self._started - sum(known.values())}
