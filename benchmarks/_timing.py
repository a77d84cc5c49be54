"""Times two functions side by side and prints the ratio of their medians."""

import statistics
import time
from collections.abc import Callable


def compare(
    claim: str, ours: Callable[[], object], peer: Callable[[], object], *, at_least: float, rounds: int = 5
) -> float:
    """Runs both in turn, after one warm-up each, and prints how many times faster `ours` is than `peer`."""
    ours()
    peer()
    pairs = [(_seconds(ours), _seconds(peer)) for _ in range(rounds)]
    ratios = [theirs / mine for mine, theirs in pairs]
    ratio = statistics.median(ratios)
    verdict = "held" if ratio >= at_least else "MISSED"
    print(
        f"{claim}: {ratio:.2f} times the peer's speed (from {min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds; "
        f"at least {at_least:g} claimed: {verdict})",
        flush=True,
    )
    return ratio


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
