"""The ledger of a run: each read of its test, a line of JSON."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Ledger:
    """The reads of a run's test; a file that is only ever added to.

    Attributes:
        path: The file; `RunFolder.ledger`.
    """

    path: Path

    def enter(self, *, bundle: str, split: str) -> None:
        """Enter a read, now.

        Args:
            bundle: Hash of the bundle that was scored.
            split: Hash of the split whose test was read.
        """
        entry = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "bundle": bundle, "split": split}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def count(self, split: str) -> int:
        """Return how often the test of the split with this hash was read."""
        if not self.path.is_file():
            return 0
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return sum(f'"{split}"' in line for line in lines)
